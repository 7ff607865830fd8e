//! An armed container: its table, its clock, its bell, reading it, letting it go.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::decode::{Collector, Mounts};
use super::layout::{self, KEY_BYTES, RESERVED, Record, Slot, State, VALUE_BYTES};
use super::owners;
use super::pins::Pins;
use super::place::{Pinned, Place};
use super::reading::{Loss, Reading};
use crate::sys::bpf::{self, Bell, Kind, Map};
use crate::sys::{process, random};

/// How a container is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many arguments, programs, paths and peers are kept; about half a KiB each, taken as they come and
    /// charged to the memory cgroup of the process that arms. Past it, loss is
    /// counted. System calls and capabilities have room beside it.
    pub table_entries: u32,
    /// Whether there is a bell: a descriptor that is readable when something new has been seen.
    pub bell: bool,
}

/// A container that is recorded until it is let go; dropping it does so too, and tells nobody of a failure.
#[derive(Debug)]
pub struct Armed {
    place: Place,
    pins: Arc<Pins>,
    slot: u32,
    row: Cell<Slot>,
    table: Arc<Map>,
    bell: Option<Bell>,
    init: i32,
    mounts: RefCell<Mounts>,
    /// All that was pinned when it was armed.
    pinned: BTreeSet<OsString>,
    /// Some of that has been missing since: somebody has unloaded the sensor by force, or taken bpffs away.
    broken: Cell<bool>,
    gone: bool,
}

/// As [`super::Sensor::arm`].
pub(super) fn arm(place: &Place, init: i32, options: Options) -> Result<Armed> {
    let start_ticks = process::start_time_ticks(init).with_context(|| format!("failed to arm process {init}"))?;
    let table_entries = options.table_entries.max(1);
    let table = Map::create(Kind::Hash, KEY_BYTES, VALUE_BYTES, table_entries + RESERVED, bpf::NO_PREALLOC)
        .context("failed to make a container's table in the kernel")?;
    let table = Arc::new(table);
    let bell = options.bell.then(Bell::create).transpose().context("failed to make a bell in the kernel")?;
    let mut id = [0; 8];
    random::fill(&mut id).context("failed to draw a container's number")?;
    let row = Slot {
        id: u64::from_ne_bytes(id) | 1,
        start_ticks,
        window: 0,
        limit: table_entries,
        init: init as u32,
        pid_ns: owners::pid_namespace()?,
        owner: std::process::id(),
        // The node's own can't be read by who may not trace its first process; the kernel compares with init's parent too.
        foreign: [namespace("self", "mnt")?, namespace("1", "mnt").unwrap_or_default()],
        bell: bell.is_some(),
    };
    // Whoever unloads holds the lock too: what is pinned while it is held stays until the slot is claimed.
    let mut held = place.hold()?;
    while place.pinned()? != Pinned::Ours {
        drop(held);
        super::ensure_loaded(place)?;
        held = place.hold()?;
    }
    let pins = Arc::new(Pins::open(place)?);
    let pinned = Pins::names(place).context("failed to list the sensor's pins")?;
    let slot = owners::claim(&pins, row.id, row.init)?;
    let mut armed = Armed {
        place: place.clone(),
        pins,
        slot,
        row: Cell::new(row),
        table,
        bell,
        init,
        mounts: RefCell::default(),
        pinned,
        broken: Cell::new(false),
        gone: false,
    };
    match armed.begin() {
        Ok(()) => Ok(armed),
        Err(e) => {
            drop(held);
            // The first error is the one to tell.
            let _ = armed.let_go();
            Err(e)
        }
    }
}

fn namespace(of: &str, kind: &str) -> Result<u32> {
    let path = format!("/proc/{of}/ns/{kind}");
    let meta = std::fs::metadata(&path).with_context(|| format!("failed to read {path}"))?;
    Ok(meta.ino() as u32)
}

impl Armed {
    /// Fills the slot; the entry in `pending` comes last, and with it the programs begin to look.
    fn begin(&self) -> Result<()> {
        let (key, row) = (self.slot.to_ne_bytes(), self.row.get());
        self.pins.states.set(&key, &State::fresh(row.id), bpf::ANY).context("failed to set up a container's counts")?;
        self.pins.slots.set(&key, &row.bytes(), bpf::ANY).context("failed to set up a container's place")?;
        let (pins, table) = (Arc::clone(&self.pins), Arc::clone(&self.table));
        let place = self.place.clone();
        let publisher = thread::spawn(move || -> io::Result<()> {
            pins.tables.put(&key, &table)?;
            // Somebody has to, and there is time here. A failure is the next one's to find.
            let _ = owners::sweep(&place, &pins);
            Ok(())
        });
        self.published(&self.pins.tables, publisher)?;
        if let Some(bell) = &self.bell {
            let (pins, ring) = (Arc::clone(&self.pins), bell.ring().share().context("failed to share a bell")?);
            self.published(&self.pins.bells, thread::spawn(move || pins.bells.put(&key, &ring)))?;
        }
        let target = layout::target(row.id, self.slot);
        let pending = self.pins.pending.set(&layout::process(row.init, row.pid_ns), &target, bpf::ANY);
        pending.context("failed to arm a container")?;
        let still = process::start_time_ticks(self.init).ok();
        ensure!(still == Some(row.start_ticks), "failed to arm process {}: it has ended", self.init);
        Ok(())
    }

    /// Waits until a map of maps has the slot's. The kernel shows it at once but lets the thread that put it there wait for
    /// some milliseconds: those are not spent in a container's start.
    fn published(&self, outer: &Map, publisher: thread::JoinHandle<io::Result<()>>) -> Result<()> {
        let key = self.slot.to_ne_bytes();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let inner = outer.get(&key).context("failed to look at a container's table")?;
            if inner.is_some_and(|id| id != [0; 4]) {
                return Ok(());
            }
            if publisher.is_finished() {
                let ended = publisher.join().map_err(|_| anyhow::anyhow!("its thread has panicked"))?;
                return ended.context("failed to give the kernel a container's table");
            }
            ensure!(Instant::now() < deadline, "failed to give the kernel a container's table: nothing for 5 s");
            thread::yield_now();
        }
    }

    /// Turns the container's clock: what is seen from now on is seen in this window. Windows begin at 0.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not while this is open.
    pub fn set_window(&self, window: u32) -> Result<()> {
        let row = Slot { window, ..self.row.get() };
        self.row.set(row);
        let set = self.pins.slots.set(&self.slot.to_ne_bytes(), &row.bytes(), bpf::ANY);
        set.context("failed to begin an observation window")
    }

    /// Reads what has been seen since it was armed. While init lives its mount table is looked at too, so that paths by
    /// name can be told from those of other file systems; the last look is kept. Once it is broken, that is a loss.
    ///
    /// # Errors
    /// When the kernel's tables can't be read.
    pub fn read(&self) -> Result<Reading> {
        self.look_at_mounts();
        let mut collector = Collector::new(self.mounts.borrow().clone());
        let all = self.table.for_each(|key, value| collector.take(&Record::parse(key, value)));
        all.context("failed to read what a container was seen to do")?;
        let state = self.pins.state(self.slot)?;
        ensure!(state.id == self.row.get().id, "a container's place in the sensor was taken by another");
        let (workload, exec) = collector.finish();
        let untracked = state.untracked + u64::from(self.is_broken());
        let loss = Loss { table_full: state.table_full, unreadable: state.unreadable, untracked };
        let window = self.row.get().window;
        Ok(Reading { workload, exec, loss, active_windows: state.active_windows, window, tasks_peak: state.tasks_peak })
    }

    /// Whether the programs have been unpinned since: then nobody knows what the container has done from that moment on.
    pub fn is_broken(&self) -> bool {
        let whole = || {
            self.pins.are_pinned(&self.place)
                && Pins::names(&self.place).is_ok_and(|names| self.pinned.is_subset(&names))
        };
        if !self.broken.get() {
            self.broken.set(!whole());
        }
        self.broken.get()
    }

    fn look_at_mounts(&self) {
        let Ok(state) = self.pins.state(self.slot) else { return };
        let theirs = || namespace(&self.init.to_string(), "mnt").ok();
        // Before its program runs, the mounts are the low-level runtime's; after its end the pid may be anybody's.
        if state.mnt_ns != 0
            && let Ok(bytes) = std::fs::read(format!("/proc/{}/mountinfo", self.init))
            && theirs() == Some(state.mnt_ns)
        {
            self.mounts.replace(Mounts::parse(&bytes));
        }
    }

    /// Readable when something has been seen that had never been seen before; see [`Armed::hush`].
    pub fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.bell.as_ref().map(AsFd::as_fd)
    }

    /// Quiets the bell until the next new thing. Call it before [`Armed::read`].
    pub fn hush(&self) {
        if let Some(bell) = &self.bell {
            bell.hush();
        }
    }

    /// Ends recording. The last container of the node unloads the sensor.
    ///
    /// # Errors
    /// When the lock can't be had; what is left is swept when this process has ended.
    pub fn disarm(mut self) -> Result<()> {
        self.let_go()
    }

    fn let_go(&mut self) -> Result<()> {
        self.gone = true;
        owners::release(&self.place, &self.pins, self.slot, self.row.get().id)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        if !self.gone {
            // Nobody to tell; the next sweep finds it.
            let _ = self.let_go();
        }
    }
}
