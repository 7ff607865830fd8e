//! The guard: tells what an enforced container was refused, and kills programs that are not of its image.
//!
//! Owns: one container's rules in the kernel, its ring, what is read from there. Must not: answer, decide, know profiles.
//! Every distinct thing is told at once, and when it goes on after a quiet time, which doubles, with how often it was met; a flood
//! is bounded by its table, each kind's by its own part of it. That something was lost is told by itself, as a refused write
//! whose path is not known: what was in the flood, nobody knows.
//!
//! A foreign script with a `#!` line is told and not killed: its interpreter, of the image, is what the kernel executes. One
//! that is given by its descriptor is killed.
//!
//! What a mount keeps from running (`noexec`) is told as what was killed: it did nothing. So is a process's memory that is
//! opened for writing, or one of the files by which a container commands its node: nothing refuses those, and each time counts
//! (it is told again at once for some times, then once a second). So is a call for which the filter kills, and a clone3 that asks
//! for namespaces.
//!
//! Never seen: a program that the dynamic loader is given as an argument (`ld.so /tmp/x`) and a library that is foreign
//! (`LD_PRELOAD`) where their mount lets them run, a script that an interpreter is given as an argument (`sh /tmp/x`), writes
//! refused to io_uring, checks of capabilities where the kernel has no hook for them (before 6.13, mostly).

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::absent::Root;
use super::decode::{self, Mounts};
use super::hold::Hold;
use super::kept;
use super::layout::{self, KEY_BYTES, Record, Rule, Slot, Told, VALUE_BYTES};
use super::leads::Mounted;
use super::losses::Losses;
use super::meant::{is_of_nothing, is_there};
use super::place::Place;
use super::reading::{Operation, Origin};
use super::{ensure_loaded, owners, script, unseen};
use crate::guard::{Refusal, Refused};
use crate::look;
use crate::profile::syscalls::{self, capability_name};
use crate::sys::bpf::{self, Kind, Map};
use crate::sys::ring::Ring;

/// Refused writes that are told of one container, beside those that are known.
const MOST: u32 = 1024;
/// What else it may tell: programs, capabilities, files that no one may write, calls that are killed for, and losses of both
/// sides; `bpf/tell.h` has the same.
const OTHERS: u32 = 1024 + 256 + 256 + 64 + 2;
/// Bytes of a container's ring: some 800 refused writes between two looks, and a quarter of it for what is worse.
const RING_BYTES: u32 = 128 << 10;
/// Known refusals that take up room before it is made anew: what is met again after that is read again.
const MOST_KNOWN: usize = MOST as usize / 4;
/// Most programs that a rule may allow.
const MOST_ALLOWED: usize = 4096;
/// A path whose file could not be told: it was too deep, or gone from the caller's memory.
pub(super) const UNKNOWN: &str = "(unknown)";
/// Before a path of which only the beginning could be told: by that alone it is no path that anybody knows.
const BEGINNING: &str = "(beginning of) ";

/// What a container is held to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// A program that is not of the image is killed before its first instruction, unless it is allowed.
    pub kill_foreign: bool,
    /// Programs that are allowed and never told: paths, as profiles write them. A pattern (`/tmp/*/run`) only keeps what
    /// is below its fixed folder from being killed; it is told, for whoever knows the pattern to judge. On the root file
    /// system a path means the image's program: neither one in the writable layer nor one that is mounted over it later.
    pub allowed: Vec<String>,
    /// Of those, what somebody allowed by hand: one that is not there when the container begins may come to be on the root
    /// file system, too.
    pub by_hand: Vec<String>,
    /// Programs that are denied by hand, paths: killed before their first instruction, those of the image as well, but for the
    /// one that the container begins with.
    pub denied: Vec<String>,
    /// Capabilities (bits by number) of which a refusal is told.
    pub capabilities: u64,
    /// Processes of root were seen to give capabilities away: one that has is refused what it may have given away itself, and
    /// is not told.
    pub may_drop: bool,
    /// What was told is told again when it is met after so many seconds, then after twice as many, up to 64 times as many; 0: never.
    pub quiet_seconds: u32,
}

/// The guard, loaded.
#[derive(Debug, Clone)]
pub struct Guard {
    place: Place,
    unseen: Vec<String>,
}

impl Guard {
    /// Opens the guard beside the sensor of `place`; the loader is run if it is not loaded.
    ///
    /// # Errors
    /// When it can't be loaded; says what is missing: BTF, bpffs, a permission, the loader itself.
    pub fn open(place: &Place) -> Result<Guard> {
        let place = place.guard();
        ensure_loaded(&place)?;
        let unseen = unseen(&place);
        Ok(Guard { place, unseen })
    }

    /// What this kernel does not let it see, e.g. `["capabilities"]`.
    pub fn unseen(&self) -> Vec<String> {
        self.unseen.clone()
    }

    /// Lets it go, for who has opened it and armed nothing: it is unloaded if nobody uses it.
    ///
    /// # Errors
    /// When the lock can't be had or bpffs can't be written.
    pub fn leave(self) -> Result<()> {
        owners::leave(&self.place)
    }

    /// Guards a container from the moment that `init_pid` next executes a program, with that program's first instruction.
    /// Its mounts are looked at now: those that the low-level runtime has made by then.
    ///
    /// # Errors
    /// When there is no such process, more is allowed than there is room for, or the guard is gone and can't be loaded again.
    pub fn arm(&self, init_pid: i32, rules: &Rules) -> Result<Guarded> {
        let ruled = rules.allowed.len() + rules.denied.len();
        ensure!(
            ruled <= MOST_ALLOWED,
            "failed to guard process {init_pid}: its profile has {ruled} programs, and there is room for {MOST_ALLOWED}"
        );
        let entries = MOST + OTHERS + ruled as u32;
        let table = Map::create(Kind::Hash, KEY_BYTES, VALUE_BYTES, entries, bpf::NO_PREALLOC)
            .context("failed to make a container's table in the kernel")?;
        let table = Arc::new(table);
        let table_of_mounts = std::fs::read(format!("/proc/{init_pid}/mountinfo")).unwrap_or_default();
        let (mounts, mounted) = (Mounts::parse(&table_of_mounts), Mounted::parse(init_pid, &table_of_mounts));
        // What was refused is asked about later, when its caller may have ended.
        let root = Root::of(init_pid).ok();
        let lacks = |path: &String| look::place(init_pid, Path::new(path)).is_ok_and(|place| place.is_missing());
        let comes = |path: &String| rules.by_hand.contains(path) && lacks(path);
        let (elsewhere, of_image): (Vec<&String>, Vec<_>) =
            rules.allowed.iter().partition(|program| mounts.origin(program).is_some() || comes(program));
        let denied = rules.denied.iter().filter(|path| !path.contains('*')).collect();
        // The last one holds.
        for (programs, rule) in [(of_image, Rule::OfImage), (elsewhere, Rule::MayBeForeign), (denied, Rule::Denied)] {
            // A path that is longer than any the programs tell can't be met.
            let keys: Vec<Vec<u8>> = programs.into_iter().filter_map(|program| allowance(program)).collect();
            let done = table.set_all(&keys.concat(), &rule.value());
            done.context("failed to write down the programs that are allowed or denied")?;
        }
        let ring = Ring::create(RING_BYTES).context("failed to make a ring in the kernel")?;
        let row = Slot {
            limit: MOST,
            capabilities: rules.capabilities,
            kill_foreign: rules.kill_foreign,
            may_drop: rules.may_drop,
            quiet: rules.quiet_seconds,
            ..Slot::default()
        };
        let hold = Hold::claim(&self.place, init_pid, &table, Some(&ring), row)?;
        let losses = Losses::default();
        Ok(Guarded { hold, table, ring, mounts, mounted, root, renames_nothing: None, known: Vec::new(), losses })
    }
}

/// The key of what a path, or a pattern, allows.
fn allowance(pattern: &str) -> Option<Vec<u8>> {
    let (kind, text) = match pattern.split_once('*') {
        None => (Record::ALLOWED, pattern),
        Some((fixed, _)) => (Record::ALLOWED_BELOW, fixed.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    if !text.contains('\\') {
        return layout::text_key(kind, text.as_bytes());
    }
    // As profiles escape what would be a pattern's.
    layout::text_key(kind, text.replace("\\052", "*").replace("\\134", "\\").as_bytes())
}

/// A container that is guarded until it is let go; dropping it does so too, and tells nobody of a failure.
#[derive(Debug)]
pub struct Guarded {
    hold: Hold,
    table: Arc<Map>,
    ring: Ring,
    /// The container's, as they were when it was armed.
    mounts: Mounts,
    mounted: Mounted,
    /// As it was then, too.
    root: Option<Root>,
    /// The process that was told last to rename what is not there: the name that it was to have comes next.
    renames_nothing: Option<i32>,
    /// Keys of known writes in the table.
    known: Vec<Vec<u8>>,
    losses: Losses,
}

impl Guarded {
    /// What was refused since the last time, oldest first.
    pub fn take(&mut self) -> Vec<Refusal> {
        self.take_news(|_| false)
    }

    /// The same, without what `is_known`: that takes no room away from what is news. A write is known only if its path leads to
    /// where it says.
    pub fn take_news(&mut self, is_known: impl Fn(&Refusal) -> bool) -> Vec<Refusal> {
        let mut taken = Vec::new();
        let Guarded { hold, ring, mounts, mounted, root, renames_nothing, known, losses, .. } = self;
        ring.drain(|bytes| {
            let told = Told::parse(bytes);
            if told.record.kind == Record::LOSS {
                let count = u64::from(told.count.max(1));
                return losses.meet(told.record.exec, told.pid as i32, decode::lossy(told.comm), count);
            }
            let Some(mut refusal) = refusal(&told, hold.init(), mounts) else { return };
            if let Refused::Write { of_nothing, .. } = &mut refusal.refused {
                *of_nothing = is_of_nothing(&told, root.as_ref(), renames_nothing);
            }
            let by_text = is_known(&refusal);
            if !by_text || !is_there(&told, &refusal, root.as_ref(), mounted, &is_known) {
                taken.push(refusal);
            } else if told.record.kind == Record::PATH {
                known.push(Told::key(bytes));
            }
        });
        let state = self.hold.state().unwrap_or_default();
        let all = state.table_full + state.unreadable + state.untracked;
        taken.extend(self.losses.take(state.table_full, all));
        if self.known.len() >= MOST_KNOWN {
            self.forget_known();
        }
        taken
    }

    /// Whether anything was lost, as of the last [`Guarded::take`].
    pub fn has_lost(&self) -> bool {
        self.losses.any()
    }

    /// Gives the room back that known writes have taken. Where that fails it stays taken, and when none is left it is told.
    fn forget_known(&mut self) {
        let given = self.known.drain(..).filter(|key| self.table.remove(key).unwrap_or(false)).count();
        let row = self.hold.row();
        // What was ever put in is what the programs count.
        let _ = self.hold.set_row(Slot { limit: row.limit.saturating_add(given as u32), ..row });
    }

    /// How many refusals were not told since it was armed: too many at once, too many in all, by a process that could
    /// not be followed, or a script whose name could not be read. Once the programs are gone, one more.
    pub fn lost(&self) -> u64 {
        let state = self.hold.state().unwrap_or_default();
        state.table_full + state.unreadable + state.untracked + u64::from(self.is_broken())
    }

    /// Whether the programs have been unpinned since: then nobody is told anything any more.
    pub fn is_broken(&self) -> bool {
        self.hold.is_broken()
    }

    /// The generation is over: nothing is looked at any more. Takes no time, unlike [`Guarded::disarm`], which has to follow.
    ///
    /// # Errors
    /// When the lock can't be had.
    pub fn end(&self) -> Result<()> {
        self.hold.end()
    }

    /// Ends it. The last container of the node unloads the guard.
    ///
    /// # Errors
    /// When the lock can't be had; what is left is swept when this process has ended.
    pub fn disarm(mut self) -> Result<()> {
        self.hold.let_go()
    }
}

impl AsFd for Guarded {
    /// Readable while there is something to [`Guarded::take`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// What one record of init's container says; `None` for a kind that is not known, for a script of the image, and for a
/// program that lacks permission of its own.
fn refusal(told: &Told<'_>, init: i32, mounts: &Mounts) -> Option<Refusal> {
    let record = &told.record;
    let known = record.flags & Record::NO_PATH == 0;
    let refused = match record.kind {
        Record::PATH | Record::OPENED => Refused::Write {
            path: match record.flags & Record::CUT {
                _ if !known => UNKNOWN.into(),
                0 => decode::path(record),
                _ => format!("{BEGINNING}{}", decode::path(record)),
            },
            operation: operation(decode::operation(record.what)?).into(),
            of_nothing: false,
        },
        // Its caller was killed for it, or it has flags that are refused.
        Record::CALL => {
            let (compat, number) = (record.number & layout::COMPAT != 0, record.number & !layout::COMPAT);
            let arguments = Some(record.a).filter(|flags| *flags != 0).into_iter().collect();
            Refused::Syscall { name: syscalls::called(compat, number), arguments, path: None }
        }
        Record::CAPABILITY => Refused::Capability { name: capability_name(record.number) },
        Record::PROGRAM if record.what == layout::NAMED && known => {
            let path = decode::path(record);
            let (kept, denied) = (record.flags & Record::KEPT != 0, record.flags & Record::KILLED != 0);
            let origin = match kept {
                true => kept::by_its_mount(init, &path, mounts)?,
                false => script::origin(init, &path, mounts).or(denied.then_some(Origin::Image))?,
            };
            Refused::Program { path, origin: name(origin).into(), killed: kept || denied }
        }
        Record::PROGRAM => {
            let program = decode::program(record)?;
            let path = if known { program.path } else { UNKNOWN.into() };
            let killed = record.flags & (Record::KEPT | Record::KILLED) != 0;
            Refused::Program { path, origin: name(program.origin).into(), killed }
        }
        _ => return None,
    };
    let (pid, program, count) = (told.pid as i32, decode::lossy(told.comm), u64::from(told.count.max(1)));
    Some(Refusal { refused, pid, program, session: record.exec, count })
}

fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Write => "write",
        Operation::Create => "create",
        Operation::Remove => "remove",
        Operation::Rename => "rename",
        Operation::Attributes => "attributes",
    }
}

fn name(origin: Origin) -> &'static str {
    match origin {
        Origin::Image => "image",
        Origin::Upper => "upper",
        Origin::Tmpfs => "tmpfs",
        Origin::Anonymous => "anonymous",
        Origin::Volume => "volume",
        Origin::Root => "root",
    }
}
