//! All watches of one generation, as one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;

use super::root::Root;
use crate::policy::RootfsKind;
use crate::sys::proc_fd;
use crate::watch::scan::{Baseline, Limits};
use crate::watch::{
    Change, ChangeKind, DEFAULT_MAX_DIRECTORIES, Image, Kinds, MountWatch, TripwireWatch, UpperWatch, WatchError,
    open_mountinfo,
};

/// Changes that one look at the watches brought.
#[derive(Debug, Default)]
pub struct Seen {
    /// In no particular order between watches.
    pub changes: Vec<Change>,
    /// Parts of the watch that have failed, in words.
    pub failures: Vec<String>,
}

/// A tree that nobody is to change, and what it was when it was armed.
struct Guarded {
    dir: OwnedFd,
    baseline: Baseline,
    kinds: Kinds,
    image: Image,
}

/// What watches a container.
#[derive(Default)]
pub struct Watches {
    tripwire: Option<TripwireWatch>,
    upper: Option<UpperWatch>,
    mounts: Option<MountWatch>,
    guarded: Vec<Guarded>,
    /// Those of the last generation: closing them takes the kernel a grace period.
    spent: (Option<TripwireWatch>, Option<MountWatch>),
}

/// Raises node limits where the configuration allows it.
fn with_limits<T>(raise: bool, make: impl Fn() -> Result<T, WatchError>) -> Result<T, WatchError> {
    match make() {
        Err(WatchError::LimitReached { sysctl, current: Some(current) }) if raise => {
            let file = format!("/proc/sys/{}", sysctl.replace('.', "/"));
            if std::fs::write(&file, current.saturating_mul(2).max(1024).to_string()).is_err() {
                return Err(WatchError::LimitReached { sysctl, current: Some(current) });
            }
            make()
        }
        other => other,
    }
}

impl Watches {
    /// Watches the rootfs. What can't be watched is said in `degraded`: events are the speed, the scan at restart and exit
    /// is the truth and stays.
    ///
    /// # Errors
    /// When the trees can't even be scanned.
    pub fn on_root(root: &Root, raise_limits: bool, degraded: &mut Vec<String>) -> Result<Watches> {
        let mut watches = Watches::default();
        watches.on_tripwire(root, raise_limits, degraded)?;
        let engine_kinds = if root.kind() == RootfsKind::Engine { Kinds::Natural } else { Kinds::HostWrite };
        if let Some(upper) = root.engine_upper() {
            if watches.upper.is_none() {
                watches.watch_upper(root, upper, engine_kinds, raise_limits, degraded);
            }
            watches.guard(root, upper, engine_kinds)?;
        }
        Ok(watches)
    }

    /// A new generation has a new tripwire and a new mount table. The engine's upper is the same, and what was written to
    /// it in between is not to be lost.
    ///
    /// # Errors
    /// When the tripwire can't even be scanned.
    pub fn renew(&mut self, root: &Root, raise_limits: bool, degraded: &mut Vec<String>) -> Result<()> {
        self.spent = (self.tripwire.take(), self.mounts.take());
        if self.spent.0.is_none() && root.tripwire().is_some() {
            self.upper = None;
        }
        self.guarded.retain(|guarded| guarded.kinds == Kinds::HostWrite);
        self.on_tripwire(root, raise_limits, degraded)
    }

    /// Closes what watched the last generation.
    pub fn let_go(&mut self) {
        self.spent = (None, None);
    }

    fn on_tripwire(&mut self, root: &Root, raise_limits: bool, degraded: &mut Vec<String>) -> Result<()> {
        if let Some(upper) = root.tripwire() {
            let watch = with_limits(raise_limits, || {
                // For reading: fanotify and file handles take no O_PATH descriptor.
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                let tmpfs =
                    proc_fd::reopen(upper.tmpfs.as_fd(), flags).context("failed to open the tripwire's tmpfs")?;
                let image = Image::new(root.lowers()?);
                TripwireWatch::new(tmpfs, std::path::Path::new("upper"), image)
            });
            match watch {
                Ok(watch) => self.tripwire = Some(watch),
                Err(error) => {
                    degraded.push(format!("no fanotify on the tripwire: {}", words(&error)));
                    self.watch_upper(root, upper.upper.as_fd(), Kinds::Natural, raise_limits, degraded);
                }
            }
            self.guard(root, upper.upper.as_fd(), Kinds::Natural)?;
        }
        Ok(())
    }

    fn watch_upper(
        &mut self,
        root: &Root,
        upper: BorrowedFd<'_>,
        kinds: Kinds,
        raise: bool,
        degraded: &mut Vec<String>,
    ) {
        let make = || {
            let dir = upper.try_clone_to_owned().context("failed to keep the upper directory")?;
            UpperWatch::new(dir, Image::new(root.lowers()?), kinds, DEFAULT_MAX_DIRECTORIES)
        };
        match with_limits(raise, make) {
            Ok(watch) => self.upper = Some(watch),
            Err(error) => degraded.push(format!("no inotify on the upper directory, scans only: {}", words(&error))),
        }
    }

    fn guard(&mut self, root: &Root, dir: BorrowedFd<'_>, kinds: Kinds) -> Result<()> {
        let dir = dir.try_clone_to_owned().context("failed to keep the upper directory")?;
        let baseline = Baseline::take(dir.as_fd(), Limits::default()).context("failed to scan the upper directory")?;
        self.guarded.push(Guarded { dir, baseline, kinds, image: Image::new(root.lowers()?) });
        Ok(())
    }

    /// Watches the mount table of the container, whose init has its final root.
    pub fn on_mounts(&mut self, init: i32, degraded: &mut Vec<String>) {
        let open = || -> Result<MountWatch> {
            let process = std::fs::File::open(format!("/proc/{init}"))?;
            Ok(MountWatch::new(open_mountinfo(process.as_fd())?)?)
        };
        match open() {
            Ok(watch) => self.mounts = Some(watch),
            Err(error) => degraded.push(format!("no watch on the mount table: {error:#}")),
        }
    }

    /// What was done up to now is the engine's own and no breach: takes the baselines anew and forgets queued events.
    ///
    /// # Errors
    /// When the trees can't be scanned.
    pub fn settle(&mut self) -> Result<()> {
        let _ = self.look();
        self.rebase(|_| true)
    }

    /// As [`Watches::settle`], but for the engine's upper: for generations after the first, what the low-level runtime did
    /// to the new root.
    ///
    /// # Errors
    /// When the tree can't be scanned.
    pub fn settle_tripwire(&mut self) -> Result<()> {
        if let Some(watch) = &mut self.tripwire {
            let _ = watch.drain();
        }
        self.rebase(|kinds| kinds == Kinds::Natural)
    }

    /// What has been told is not to be told again by the next scan.
    ///
    /// # Errors
    /// When the trees can't be scanned.
    pub fn rebase_engine(&mut self) -> Result<()> {
        self.rebase(|kinds| kinds == Kinds::HostWrite)
    }

    fn rebase(&mut self, which: impl Fn(Kinds) -> bool) -> Result<()> {
        for guarded in self.guarded.iter_mut().filter(|g| which(g.kinds)) {
            guarded.baseline =
                Baseline::take(guarded.dir.as_fd(), Limits::default()).context("failed to scan the upper directory")?;
        }
        Ok(())
    }

    /// Descriptors to poll: the mount table's for `POLLPRI`, the others' for `POLLIN`.
    pub fn fds(&self) -> (Vec<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        let readable = self.tripwire.iter().map(TripwireWatch::fd).chain(self.upper.iter().map(UpperWatch::fd));
        (readable.collect(), self.mounts.as_ref().map(MountWatch::fd))
    }

    /// Everything that has happened since the last look. Never blocks.
    pub fn look(&mut self) -> Seen {
        let mut seen = Seen::default();
        let mut overflow = false;
        let mut take = |name: &str, drained: Result<crate::watch::Drained, WatchError>| match drained {
            Ok(drained) => {
                seen.changes.extend(drained.changes);
                overflow |= drained.overflow;
                true
            }
            Err(error) => {
                seen.failures.push(format!("{name} failed, scans only: {}", words(&error)));
                false
            }
        };
        if self.tripwire.as_mut().is_some_and(|w| !take("fanotify on the tripwire", w.drain())) {
            self.tripwire = None;
        }
        if self.upper.as_mut().is_some_and(|w| !take("inotify on the upper directory", w.drain())) {
            self.upper = None;
        }
        if self.mounts.as_mut().is_some_and(|w| !take("the watch on the mount table", w.drain())) {
            self.mounts = None;
        }
        seen.changes.retain(|change| !is_engines_own(change));
        if overflow {
            let scanned = self.scan();
            seen.changes.extend(scanned.changes);
            seen.failures.extend(scanned.failures);
        }
        seen
    }

    /// Compares every tree with what it was when it was armed: the ground truth.
    pub fn scan(&mut self) -> Seen {
        let mut seen = Seen::default();
        for guarded in &mut self.guarded {
            match guarded.baseline.diff(guarded.dir.as_fd(), Limits::default(), Some(&guarded.image)) {
                Ok(diff) => {
                    if diff.truncated {
                        seen.failures.push("the scan of the upper directory reached its limit".to_owned());
                    }
                    let host = guarded.kinds == Kinds::HostWrite;
                    seen.changes.extend(diff.changes.into_iter().map(|mut change| {
                        if host {
                            change.kind = ChangeKind::HostWrite;
                        }
                        change
                    }));
                }
                Err(error) => seen.failures.push(format!("failed to scan the upper directory: {error:#}")),
            }
        }
        seen.changes.retain(|change| !is_engines_own(change));
        seen
    }
}

/// Docker makes a folder to pivot into and removes it whenever it looks into a container's root, to copy a file out too.
fn is_engines_own(change: &Change) -> bool {
    let name = change.path.to_str().and_then(|path| path.strip_prefix("/.pivot_root"));
    change.kind == ChangeKind::HostWrite && name.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
}

/// An error with its causes, in one line.
fn words(error: &WatchError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
