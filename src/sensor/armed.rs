//! A container that is recorded: its table, its clock, its bell, reading it, letting it go.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::decode::{Collector, Mounts};
use super::hold::{Hold, namespace};
use super::kept;
use super::layout::{KEY_BYTES, RESERVED, Record, Slot, VALUE_BYTES};
use super::past::Past;
use super::place::Place;
use super::reading::{Loss, Origin, Reading};
use super::script;
use crate::look;
use crate::sys::bpf::{self, Kind, Map};
use crate::sys::ring::Ring;

/// Bytes of a bell: all that it holds is thrown away.
const BELL_BYTES: u32 = 4096;

/// The kernel is told of the room that is made in steps of so many records: taking out as many takes about a millisecond.
const TOLD_EACH: u32 = 128;

/// How a container is armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many arguments, programs, paths and peers the kernel keeps; about half a KiB each, taken as they come and
    /// charged to the memory cgroup of the process that arms. Past it, loss is
    /// counted; see [`Armed::relieve`]. System calls and capabilities have room beside it.
    pub table_entries: u32,
    /// Whether there is a bell: a descriptor that is readable when something new has been seen.
    pub bell: bool,
}

/// A container that is recorded until it is let go; dropping it does so too, and tells nobody of a failure.
#[derive(Debug)]
pub struct Armed {
    hold: Hold,
    table: Arc<Map>,
    bell: Option<Ring>,
    mounts: RefCell<Mounts>,
    /// Where scripts come from, as it was found when they were first read of: they may be gone later.
    scripts: RefCell<BTreeMap<String, Option<Origin>>>,
    /// What was taken out of the table.
    past: RefCell<Past>,
    table_entries: u32,
}

/// As [`super::Sensor::arm`].
pub(super) fn arm(place: &Place, init: i32, options: Options) -> Result<Armed> {
    let limit = options.table_entries.max(1);
    let table = Map::create(Kind::Hash, KEY_BYTES, VALUE_BYTES, limit.saturating_add(RESERVED), bpf::NO_PREALLOC)
        .context("failed to make a container's table in the kernel")?;
    let table = Arc::new(table);
    let bell = options.bell.then(|| Ring::create(BELL_BYTES)).transpose();
    let bell = bell.context("failed to make a bell in the kernel")?;
    let hold = Hold::claim(place, init, &table, bell.as_ref(), Slot { limit, ..Slot::default() })?;
    let past = RefCell::new(Past::beside(table.max_entries() as usize));
    let (mounts, scripts) = Default::default();
    Ok(Armed { hold, table, bell, mounts, scripts, past, table_entries: limit })
}

impl Armed {
    /// Turns the container's clock: what is seen from now on is seen in this window. Windows begin at 0.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not while this is open.
    pub fn set_window(&self, window: u32) -> Result<()> {
        self.hold.set_row(Slot { window, ..self.hold.row() }).context("failed to begin an observation window")
    }

    /// Reads what has been seen since it was armed. While init lives its mount table is looked at too, so that paths by
    /// name can be told from those of other file systems; the last look is kept. Once it is broken, that is a loss.
    ///
    /// # Errors
    /// When the kernel's tables can't be read.
    pub fn read(&self) -> Result<Reading> {
        self.look_at_mounts();
        let mut collector = Collector::new(self.mounts.borrow().clone());
        let past = self.past.borrow();
        let mut with = past.with();
        let all = self.table.for_each(|key, value| with.now(key, value, |record| collector.take(record)));
        all.context("failed to read what a container was seen to do")?;
        with.rest(|record| collector.take(record));
        let state = self.hold.state()?;
        let init = self.hold.init();
        let (mut scripts, mounts) = (self.scripts.borrow_mut(), self.mounts.borrow());
        collector.judge_kept(|path| match state.mnt_ns {
            // After its end the pid may be anybody's.
            0 => mounts.keep(path),
            _ => kept::by_its_mount(init, path, &mounts),
        });
        let (workload, exec) = collector
            .finish(|path| *scripts.entry(path.to_owned()).or_insert_with(|| script::origin(init, path, &mounts)));
        // The next read may be long from now.
        look::rest();
        let untracked = state.untracked + u64::from(self.is_broken());
        let loss = Loss { table_full: state.table_full, unreadable: state.unreadable, untracked };
        let window = self.hold.row().window;
        Ok(Reading { workload, exec, loss, active_windows: state.active_windows, window, tasks_peak: state.tasks_peak })
    }

    /// Takes what is in the table out of it and keeps it here, if more than half of it is taken: so that it is full only when
    /// more comes between two calls than fits. Nothing is lost by it: what is seen again is joined with what is kept, by
    /// [`Armed::read`]; but the bell rings for it again. Of files that came and went and whose paths are `alike` (equal in
    /// what is returned), one comes to stand for all when there are many. Does nothing where no more can be kept: the table
    /// fills then, and what finds it full is counted. Returns whether anything was taken out.
    ///
    /// # Errors
    /// When the kernel's table can't be read or written.
    pub fn relieve(&self, alike: impl Fn(&str) -> Option<String>) -> Result<bool> {
        let row = self.hold.row();
        // What was taken out was added to the limit, since the programs count what was ever put in.
        let taken_out = row.limit - self.table_entries;
        let present = self.hold.state()?.entries.saturating_sub(taken_out);
        let mut past = self.past.borrow_mut();
        if present <= self.table_entries / 2 {
            return Ok(false);
        }
        // Where a file was, its own name tells: on the root or on what is mounted there.
        let mounts = self.mounts.borrow();
        let alike = |path: &str| alike(path).filter(|_| mounts.origin(path).is_none());
        if !past.has_room() {
            past.condense(alike);
            if !past.has_room() {
                return Ok(false);
            }
        }
        let mut limit = row.limit;
        let all = self.table.take_each(|key, value| {
            past.keep(key, value);
            if !Record::parse(key, value).is_bounded() {
                limit = limit.saturating_add(1);
                if limit.is_multiple_of(TOLD_EACH) {
                    // While it fills, room counts at once; what can't be told now is told, or complained of, at the end.
                    let _ = self.hold.set_row(Slot { limit, ..row });
                }
            }
        });
        self.hold
            .set_row(Slot { limit, ..row })
            .context("failed to tell the kernel of the room in a container's table")?;
        all.context("failed to take out what a container was seen to do")?;
        // Which takes its time: the table has room by now.
        past.condense(alike);
        Ok(true)
    }

    /// Whether the programs have been unpinned since: then nobody knows what the container has done from that moment on.
    pub fn is_broken(&self) -> bool {
        self.hold.is_broken()
    }

    fn look_at_mounts(&self) {
        let Ok(state) = self.hold.state() else { return };
        let init = self.hold.init();
        let theirs = || namespace(&init.to_string(), "mnt").ok();
        // Before its program runs, the mounts are the low-level runtime's; after its end the pid may be anybody's.
        if state.mnt_ns != 0
            && let Ok(bytes) = std::fs::read(format!("/proc/{init}/mountinfo"))
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
        self.hold.let_go()
    }
}
