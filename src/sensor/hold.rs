//! A container's place among the programs: claimed, filled, given the kernel, let go. What is recorded there is not its
//! business: `armed.rs` and `guard.rs` have that.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::layout::{self, Slot, State};
use super::owners;
use super::pins::Pins;
use super::place::{Pinned, Place};
use crate::sys::bpf::{self, Map};
use crate::sys::ring::Ring;
use crate::sys::{process, random};

/// Longest wait for the kernel to show what a thread of ours gives it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A container's place, until it is let go; dropping it does so too, and tells nobody of a failure.
#[derive(Debug)]
pub(super) struct Hold {
    place: Place,
    pins: Arc<Pins>,
    slot: u32,
    row: Cell<Slot>,
    init: i32,
    /// All that was pinned when it was armed.
    pinned: BTreeSet<OsString>,
    /// Some of that has been missing since: somebody has unloaded the programs by force, or taken bpffs away.
    broken: Cell<bool>,
    gone: bool,
}

/// A namespace's number.
pub(super) fn namespace(of: &str, kind: &str) -> Result<u32> {
    let path = format!("/proc/{of}/ns/{kind}");
    let meta = std::fs::metadata(&path).with_context(|| format!("failed to read {path}"))?;
    Ok(meta.ino() as u32)
}

impl Hold {
    /// Claims a place for the container of `init` and fills it: the programs begin to look. `rules` are its row's own part.
    ///
    /// # Errors
    /// As [`super::Sensor::arm`].
    pub fn claim(place: &Place, init: i32, table: &Arc<Map>, ring: Option<&Ring>, rules: Slot) -> Result<Hold> {
        let start_ticks = process::start_time_ticks(init).with_context(|| format!("failed to arm process {init}"))?;
        let mut id = [0; 8];
        random::fill(&mut id).context("failed to draw a container's number")?;
        let row = Slot {
            id: u64::from_ne_bytes(id) | 1,
            start_ticks,
            init: init as u32,
            pid_ns: owners::pid_namespace()?,
            owner: std::process::id(),
            // The node's own can't be read by who may not trace its first process; the kernel compares with init's parent
            // too.
            foreign: [namespace("self", "mnt")?, namespace("1", "mnt").unwrap_or_default()],
            bell: ring.is_some(),
            ..rules
        };
        // Whoever unloads holds the lock too: what is pinned while it is held stays until the slot is claimed.
        let mut held = place.hold()?;
        while place.pinned()? != Pinned::Ours {
            drop(held);
            super::ensure_loaded(place)?;
            held = place.hold()?;
        }
        let pins = Arc::new(Pins::open(place)?);
        let pinned = Pins::names(place).with_context(|| format!("failed to list the {}'s pins", place.set.name()))?;
        let slot = owners::claim(place, &pins, row.id, row.init)?;
        let mut hold = Hold {
            place: place.clone(),
            pins,
            slot,
            row: Cell::new(row),
            init,
            pinned,
            broken: Cell::new(false),
            gone: false,
        };
        match hold.begin(table, ring) {
            Ok(()) => Ok(hold),
            Err(e) => {
                drop(held);
                // The first error is the one to tell.
                let _ = hold.let_go();
                Err(e)
            }
        }
    }

    /// Fills the slot; the entry in `pending` comes last, and with it the programs begin to look.
    fn begin(&self, table: &Arc<Map>, ring: Option<&Ring>) -> Result<()> {
        let (key, row) = (self.slot.to_ne_bytes(), self.row.get());
        self.pins.states.set(&key, &State::fresh(row.id), bpf::ANY).context("failed to set up a container's counts")?;
        self.pins.slots.set(&key, &row.bytes(), bpf::ANY).context("failed to set up a container's place")?;
        let (pins, table, place) = (Arc::clone(&self.pins), Arc::clone(table), self.place.clone());
        let publish = move || -> io::Result<()> {
            pins.tables.put(&key, &table)?;
            // Somebody has to, and there is time here. A failure is the next one's to find.
            let _ = owners::sweep(&place, &pins);
            Ok(())
        };
        let of_table = thread::Builder::new().spawn(publish).context("failed to start a thread")?;
        let of_ring = match ring {
            Some(ring) => {
                let (pins, ring) = (Arc::clone(&self.pins), ring.map().share().context("failed to share a ring")?);
                let publish = move || pins.bells.put(&key, &ring);
                Some(thread::Builder::new().spawn(publish).context("failed to start a thread")?)
            }
            None => None,
        };
        self.published(&self.pins.tables, of_table)?;
        if let Some(of_ring) = of_ring {
            self.published(&self.pins.bells, of_ring)?;
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            let inner = outer.get(&key).context("failed to look at a container's table")?;
            if inner.is_some_and(|id| id != [0; 4]) {
                return Ok(());
            }
            if publisher.is_finished() {
                let ended = publisher.join().map_err(|_| anyhow!("its thread has panicked"))?;
                return ended.context("failed to give the kernel a container's table");
            }
            ensure!(
                Instant::now() < deadline,
                "failed to give the kernel a container's table: nothing for {} s",
                PATIENCE.as_secs()
            );
            thread::yield_now();
        }
    }

    /// Its row, as the programs have it.
    pub fn row(&self) -> Slot {
        self.row.get()
    }

    /// Gives the programs another row.
    pub fn set_row(&self, row: Slot) -> io::Result<()> {
        self.row.set(row);
        self.pins.slots.set(&self.slot.to_ne_bytes(), &row.bytes(), bpf::ANY)
    }

    /// What the programs have counted.
    pub fn state(&self) -> Result<State> {
        let state = self.pins.state(self.slot)?;
        ensure!(
            state.id == self.row.get().id,
            "a container's place in the {} was taken by another",
            self.place.set.name()
        );
        Ok(state)
    }

    /// The container's init.
    pub fn init(&self) -> i32 {
        self.init
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

    /// Ends recording, without the waits of [`Hold::let_go`], which has to follow.
    ///
    /// # Errors
    /// When the lock can't be had.
    pub fn end(&self) -> Result<()> {
        owners::end(&self.place, &self.pins, self.slot, self.row.get().id)
    }

    /// Lets the place go, which takes the kernel a grace period. The last container of the node unloads the programs.
    ///
    /// # Errors
    /// When the lock can't be had; what is left is swept when this process has ended.
    pub fn let_go(&mut self) -> Result<()> {
        self.gone = true;
        owners::release(&self.place, &self.pins, self.slot, self.row.get().id)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.gone {
            // Nobody to tell; the next sweep finds it.
            let _ = self.let_go();
        }
    }
}
