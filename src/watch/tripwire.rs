//! fanotify on the private tmpfs under a tripwire root filesystem.
//!
//! Owns: the group, and the way from a directory handle to a path inside the container. Must not: mount, or respond.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;

use super::collect::Collector;
use super::fanevent::{FanEvent, FanEvents, Handle, Name};
use super::settle::{self, UpperView};
use super::{Drained, Image, WatchError, touch};
use crate::sys::fanotify::{self, Reports};

/// Events that one drain takes before it returns; more at once would only make a small process large.
const MAX_EVENTS: usize = 1024;
/// Bytes asked for in one read: room for at least 20 events with the longest names.
const READ_BYTES: usize = 16 * 1024;
/// Directories whose path is remembered, so that what happened in a directory that is gone by now still has one.
const MAX_DIRECTORIES: usize = 512;

/// Sees every change under the upper of one overlay, at any depth, with the pid that did it.
///
/// Not seen: writes through a memory mapping, until it is unmapped (Linux gives no event before); the file's copy-up,
/// which comes first, is.
#[derive(Debug)]
pub struct TripwireWatch {
    group: OwnedFd,
    tmpfs: OwnedFd,
    view: UpperView,
    upper_name: PathBuf,
    directories: HashMap<Box<[u8]>, PathBuf>,
}

/// Where an event's directory is.
enum Place {
    /// In the upper, at this path relative to it.
    Upper(PathBuf),
    /// Elsewhere on the tmpfs: overlay's work directory.
    Work,
    /// In a directory that is gone and was never seen.
    Unknown,
}

impl TripwireWatch {
    /// Watches `tmpfs`, the root directory of the mount that holds the overlay's upper as `upper_name` (and its work
    /// directory beside it). `image` tells a copy-up from a new file. Nothing else may use that tmpfs.
    ///
    /// # Errors
    /// [`WatchError::LimitReached`] at `fs.fanotify.max_user_groups` or `max_user_marks`; [`WatchError::Unsupported`]
    /// where this kernel, filesystem or privilege has no such fanotify (Linux 5.9; on tmpfs 5.13); otherwise `Other`.
    pub fn new(tmpfs: OwnedFd, upper_name: &Path, image: Image) -> Result<TripwireWatch, WatchError> {
        let probe = |target_and_rename| fanotify::init(Reports { target_and_rename });
        let target_and_rename = match probe(true) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => false,
            group => group.map(|_| true).map_err(|e| refused("fanotify_init", e))?,
        };
        TripwireWatch::with_reports(tmpfs, upper_name, image, Reports { target_and_rename })
    }

    /// As [`new`](Self::new), which finds out what the kernel can report, with exactly these reports.
    ///
    /// # Errors
    /// As `new`; `Unsupported` when the kernel lacks the reports.
    pub fn with_reports(
        tmpfs: OwnedFd,
        upper_name: &Path,
        image: Image,
        reports: Reports,
    ) -> Result<TripwireWatch, WatchError> {
        let renames = if reports.target_and_rename { libc::FAN_RENAME } else { libc::FAN_MOVE };
        let events = libc::FAN_MODIFY
            | libc::FAN_CLOSE_WRITE
            | libc::FAN_ATTRIB
            | libc::FAN_CREATE
            | libc::FAN_DELETE
            | libc::FAN_ONDIR
            | renames;
        let group = fanotify::init(reports).map_err(|e| refused("fanotify_init", e))?;
        fanotify::mark_filesystem(group.as_fd(), tmpfs.as_fd(), events)
            .map_err(|e| refused("fanotify_mark of a filesystem", e))?;
        let view = UpperView::new(settle::open_beneath(tmpfs.as_fd(), upper_name)?, image);
        let upper_name = upper_name.to_path_buf();
        Ok(TripwireWatch { group, tmpfs, view, upper_name, directories: HashMap::new() })
    }

    /// The group's descriptor: readable when [`drain`](Self::drain) has something to take.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }

    /// Takes what has happened, at most about 1000 events (the descriptor stays readable when there are more).
    ///
    /// Does not block, with one exception: when what was read can only be the first half of an operation (a parent
    /// being copied up, say), it polls up to 100 ms for the rest, so that the change is told with its own path and kind.
    ///
    /// # Errors
    /// When the group can't be read.
    pub fn drain(&mut self) -> Result<Drained, WatchError> {
        let mut overflow = false;
        let mut moved_from: Option<(PathBuf, i32)> = None;
        let root = std::fs::read_link(settle::proc_path(self.tmpfs.as_fd()))
            .context("failed to find the path of the tripwire's tmpfs; is /proc mounted?")?;
        let mut buffer = vec![0; READ_BYTES];
        let mut budget = MAX_EVENTS;
        let mut drained = settle::until_clear(self.group.as_fd(), &mut self.view, |collector, _| {
            while budget > 0 {
                let bytes = match nix::unistd::read(&self.group, &mut buffer) {
                    Ok(0) | Err(Errno::EAGAIN) => return Ok(true),
                    Err(Errno::EINTR) => continue,
                    Err(e) => return Err(anyhow::Error::from(e).context("failed to read fanotify events")),
                    Ok(n) => &buffer[..n],
                };
                let mut paths = Paths { tmpfs: self.tmpfs.as_fd(), root: &root, known: &mut self.directories };
                let upper = &self.upper_name;
                for event in FanEvents::new(bytes) {
                    budget = budget.saturating_sub(1);
                    overflow |= event.mask & libc::FAN_Q_OVERFLOW != 0;
                    collect_event(collector, &mut paths, upper, &event, &mut moved_from);
                }
            }
            Ok(false)
        })?;
        drained.overflow |= overflow;
        if self.directories.len() > MAX_DIRECTORIES {
            self.directories = HashMap::new();
        }
        Ok(drained)
    }
}

fn refused(what: &'static str, cause: io::Error) -> WatchError {
    match cause.raw_os_error() {
        Some(libc::EMFILE) => WatchError::too_many("fs.fanotify.max_user_groups", cause),
        Some(libc::ENOSPC) => WatchError::limit("fs.fanotify.max_user_marks"),
        Some(libc::EPERM | libc::ENOSYS | libc::ENODEV | libc::EOPNOTSUPP | libc::EINVAL | libc::EXDEV) => {
            WatchError::Unsupported { what, cause }
        }
        _ => WatchError::Other(anyhow::Error::from(cause).context(format!("failed to call {what}"))),
    }
}

fn bits(mask: u64) -> u32 {
    [
        (libc::FAN_CREATE, touch::CREATED),
        (libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE, touch::MODIFIED),
        (libc::FAN_ATTRIB, touch::ATTRIBUTES),
        (libc::FAN_DELETE, touch::DELETED),
    ]
    .iter()
    .filter(|(from, _)| mask & from != 0)
    .fold(0, |all, (_, to)| all | to)
}

fn collect_event(
    collector: &mut Collector,
    paths: &mut Paths<'_>,
    upper: &Path,
    event: &FanEvent<'_>,
    moved_from: &mut Option<(PathBuf, i32)>,
) {
    let target = event.target.map(|t| t.data);
    if let (Some(from), Some(to)) = (event.from, event.to) {
        let from = paths.place(from, upper);
        let to_place = paths.place(to, upper);
        if let (Place::Upper(path), Some(handle), true) = (&to_place, event.target, event.mask & libc::FAN_ONDIR != 0) {
            paths.remember(handle, &upper.join(path));
        }
        match (from, to_place) {
            (Place::Upper(old), Place::Upper(new)) => collector.rename(old, new, event.pid, target),
            (_, Place::Upper(new)) => collector.touch(new, touch::ARRIVED, event.pid, target),
            (Place::Upper(old), _) => collector.touch(old, touch::VANISHED, event.pid, None),
            _ => collector.work(),
        }
        return;
    }
    // An event without a name is about an inode's count of links: by-product of a link or an unlink that has one.
    let Some(at) = event.at else { return };
    let bits = bits(event.mask);
    match paths.place(at, upper) {
        Place::Upper(path) => {
            if let (Some(handle), true) = (event.target, event.mask & libc::FAN_ONDIR != 0 && at.name != ".") {
                paths.remember(handle, &upper.join(&path));
            }
            if event.mask & libc::FAN_MOVED_FROM != 0 {
                collector.touch(path.clone(), bits | touch::VANISHED, event.pid, target);
                *moved_from = Some((path, event.pid));
            } else if event.mask & libc::FAN_MOVED_TO != 0 {
                match moved_from.take() {
                    Some((old, pid)) if pid == event.pid => collector.rename(old, path, pid, target),
                    _ => collector.touch(path, bits | touch::ARRIVED, event.pid, target),
                }
            } else {
                collector.touch(path, bits, event.pid, target);
            }
        }
        Place::Work => {
            *moved_from = None;
            collector.work();
        }
        // A directory that is gone: its removal is an event of the directory above.
        Place::Unknown if at.name == "." => {}
        Place::Unknown => collector.lost(),
    }
}

/// Handles to paths, for one drain.
struct Paths<'a> {
    tmpfs: BorrowedFd<'a>,
    root: &'a Path,
    known: &'a mut HashMap<Box<[u8]>, PathBuf>,
}

impl Paths<'_> {
    fn place(&mut self, name: Name<'_>, upper: &Path) -> Place {
        let Some(dir) = self.directory(name.dir) else { return Place::Unknown };
        let path = if name.name == "." { dir } else { dir.join(name.name) };
        path.strip_prefix(upper).map_or(Place::Work, |p| Place::Upper(p.to_path_buf()))
    }

    /// The path of a directory relative to the tmpfs: where it is now, or where it last was.
    fn directory(&mut self, handle: Handle<'_>) -> Option<PathBuf> {
        if let Some(path) = self.resolve(handle) {
            self.remember(handle, &path);
            return Some(path);
        }
        self.known.get(handle.data).cloned()
    }

    fn resolve(&self, handle: Handle<'_>) -> Option<PathBuf> {
        let fd = fanotify::open_handle(self.tmpfs, handle.kind, handle.data).ok()?;
        if nix::sys::stat::fstat(&fd).ok()?.st_nlink == 0 {
            return None;
        }
        let path = std::fs::read_link(settle::proc_path(fd.as_fd())).ok()?;
        path.strip_prefix(self.root).ok().map(Path::to_path_buf)
    }

    fn remember(&mut self, handle: Handle<'_>, path: &Path) {
        if self.known.len() <= MAX_DIRECTORIES {
            self.known.insert(handle.data.into(), path.to_path_buf());
        }
    }
}
