//! inotify on every directory of an overlay's upper: the watch where fanotify can't be had, and the one that sees the
//! host write.
//!
//! Owns: the tree of watches and its growth. Must not: follow a symlink, cross a mount, or respond.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use inotify::{EventMask, Inotify, WatchMask};

use super::collect::Collector;
use super::settle::{self, UpperView};
use super::watchtree::WatchTree;
use super::{ChangeKind, Drained, Image, WatchError, touch};

/// Events that one drain takes before it returns; more at once would only make a small process large.
const MAX_EVENTS: usize = 1024;
/// Bytes asked for in one read: room for at least 14 events with the longest names.
const READ_BYTES: usize = 4096;
/// Directories that are watched unless the caller says otherwise.
pub const DEFAULT_MAX_DIRECTORIES: usize = 8192;

/// How an [`UpperWatch`] names what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    /// By what happened: create, modify, delete, rename, attributes.
    Natural,
    /// Always [`ChangeKind::HostWrite`], with what happened in the detail: nothing in the container can write here.
    HostWrite,
}

/// Sees changes below a directory, at any depth, without the pid.
///
/// Writes to a file through a descriptor of the overlay are seen from Linux 6.5 on; before, only names and attributes.
#[derive(Debug)]
pub struct UpperWatch {
    inotify: Inotify,
    tree: WatchTree,
    view: UpperView,
    kinds: Kinds,
}

impl UpperWatch {
    /// Watches `upper` and every directory below it, at most `max_directories`. `image` tells a copy-up from a new
    /// file.
    ///
    /// # Errors
    /// [`WatchError::LimitReached`] at `fs.inotify.max_user_instances` or `max_user_watches`, or past
    /// `max_directories`; otherwise `Other`.
    pub fn new(upper: OwnedFd, image: Image, kinds: Kinds, max_directories: usize) -> Result<UpperWatch, WatchError> {
        let inotify = Inotify::init().map_err(|e| match e.raw_os_error() {
            Some(libc::EMFILE) => WatchError::too_many("fs.inotify.max_user_instances", e),
            Some(libc::ENOSYS) => WatchError::Unsupported { what: "inotify", cause: e },
            _ => WatchError::Other(anyhow::Error::from(e).context("failed to open an inotify instance")),
        })?;
        let (tree, view) = (WatchTree::new(max_directories), UpperView::new(upper, image));
        let mut watch = UpperWatch { inotify, tree, view, kinds };
        add_tree(&mut watch.inotify, &mut watch.tree, watch.view.upper(), Path::new(""), &mut |_| true)?;
        Ok(watch)
    }

    /// The inotify descriptor: readable when [`drain`](Self::drain) has something to take.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// How many directories are watched.
    #[must_use]
    pub fn directories(&self) -> usize {
        self.tree.len()
    }

    /// Takes what has happened, at most about 1000 events (the descriptor stays readable when there are more), and watches
    /// the directories that are new. Waits up to 2 ms for the rest of an operation of which it has read the half.
    ///
    /// # Errors
    /// When inotify can't be read, or a limit keeps a new directory from being watched. That directory's own change
    /// is then told by a scan only.
    pub fn drain(&mut self) -> Result<Drained, WatchError> {
        let mut overflow = false;
        let mut limit = None;
        let mut budget = MAX_EVENTS;
        let fd = self.inotify.as_fd().try_clone_to_owned().context("failed to duplicate an inotify descriptor")?;
        let UpperWatch { inotify, tree, view, kinds } = self;
        let mut drained = settle::until_clear(fd.as_fd(), view, |collector, upper| {
            let mut buffer = [0; READ_BYTES];
            while budget > 0 {
                let events: Vec<Seen> = match inotify.read_events(&mut buffer) {
                    Ok(events) => events.map(Seen::from).collect(),
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                        close_moves(inotify, tree, collector);
                        return Ok(true);
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(anyhow::Error::from(e).context("failed to read inotify events")),
                };
                for event in events {
                    budget = budget.saturating_sub(1);
                    overflow |= event.mask.contains(EventMask::Q_OVERFLOW);
                    let new_directory = collect_event(tree, collector, &event);
                    let Some(directory) = new_directory else { continue };
                    let mut found = |path: &Path| {
                        collector.touch(path.to_path_buf(), touch::CREATED, 0, None);
                        !collector.overflowed()
                    };
                    if let Err(e) = add_tree(inotify, tree, upper, &directory, &mut found) {
                        limit = Some(e);
                    }
                }
            }
            close_moves(inotify, tree, collector);
            Ok(false)
        })?;
        drained.overflow |= overflow;
        if *kinds == Kinds::HostWrite {
            for change in &mut drained.changes {
                let what = word(change.kind);
                change.detail = Some(change.detail.take().map_or(what.to_owned(), |d| format!("{what}: {d}")));
                change.kind = ChangeKind::HostWrite;
            }
        }
        match limit {
            Some(e) if drained.changes.is_empty() => Err(e),
            // What was seen comes first; the scan that an overflow calls for finds the rest.
            limit => {
                drained.overflow |= limit.is_some();
                Ok(drained)
            }
        }
    }
}

fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Create => "create",
        ChangeKind::Modify => "modify",
        ChangeKind::Delete => "delete",
        ChangeKind::Rename => "rename",
        ChangeKind::Attributes => "attributes",
        ChangeKind::Mount => "mount",
        ChangeKind::HostWrite => "write",
    }
}

/// An event that outlives the read buffer.
struct Seen {
    wd: inotify::WatchDescriptor,
    mask: EventMask,
    cookie: u32,
    name: Option<std::ffi::OsString>,
}

impl From<inotify::Event<&OsStr>> for Seen {
    fn from(event: inotify::Event<&OsStr>) -> Seen {
        Seen { wd: event.wd, mask: event.mask, cookie: event.cookie, name: event.name.map(OsStr::to_os_string) }
    }
}

/// Adds one event; gives the directory that is to be watched because of it.
fn collect_event(tree: &mut WatchTree, collector: &mut Collector, event: &Seen) -> Option<PathBuf> {
    if event.mask.contains(EventMask::IGNORED) {
        tree.forget(&event.wd);
        return None;
    }
    let dir = tree.path(&event.wd)?;
    let Some(name) = &event.name else {
        // A directory's own event comes a second time with its name, from the directory above; the root has none.
        if event.mask.contains(EventMask::ATTRIB) && dir.as_os_str().is_empty() {
            collector.touch(dir, touch::ATTRIBUTES, 0, None);
        }
        return None;
    };
    let path = dir.join(name);
    let is_dir = event.mask.contains(EventMask::ISDIR);
    if event.mask.contains(EventMask::MOVED_FROM) {
        collector.touch(path.clone(), touch::VANISHED, 0, None);
        tree.moved_from(event.cookie, path);
        return None;
    }
    if event.mask.contains(EventMask::MOVED_TO) {
        match tree.moved_to(event.cookie, &path) {
            Some(old) => collector.rename(old, path.clone(), 0, None),
            None => collector.touch(path.clone(), touch::ARRIVED, 0, None),
        }
        return is_dir.then_some(path);
    }
    let bits = [
        (EventMask::CREATE, touch::CREATED),
        (EventMask::MODIFY, touch::MODIFIED),
        (EventMask::CLOSE_WRITE, touch::MODIFIED),
        (EventMask::ATTRIB, touch::ATTRIBUTES),
        (EventMask::DELETE, touch::DELETED),
    ]
    .iter()
    .filter(|(from, _)| event.mask.contains(*from))
    .fold(0, |all, (_, to)| all | to);
    if bits != 0 {
        collector.touch(path.clone(), bits, 0, None);
    }
    (is_dir && bits & touch::CREATED != 0).then_some(path)
}

/// Directories that were moved out of the upper are watched no longer.
fn close_moves(inotify: &mut Inotify, tree: &mut WatchTree, collector: &mut Collector) {
    for (path, wds) in tree.take_moved_away() {
        collector.touch(path, touch::VANISHED, 0, None);
        for wd in wds {
            // The kernel may have dropped the watch with the directory already.
            let _ = inotify.watches().remove(wd);
        }
    }
}

/// Watches `path` and all directories below. The watch comes before the listing, so nothing falls in between; `found`
/// is told every entry, and says whether to go on.
fn add_tree(
    inotify: &mut Inotify,
    tree: &mut WatchTree,
    upper: BorrowedFd<'_>,
    path: &Path,
    found: &mut dyn FnMut(&Path) -> bool,
) -> Result<(), WatchError> {
    let mask = WatchMask::CREATE
        | WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::ATTRIB
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::ONLYDIR;
    let mut waiting = vec![path.to_path_buf()];
    while let Some(path) = waiting.pop() {
        // Gone again, or no directory any more: the event that says so is on the way.
        let Ok(dir) = settle::open_beneath(upper, &path) else { continue };
        if tree.is_full(waiting.len()) {
            return Err(WatchError::LimitReached { sysctl: "watch.max-directories", current: Some(tree.len() as u64) });
        }
        let wd = inotify.watches().add(settle::proc_path(dir.as_fd()), mask).map_err(|e| match e.raw_os_error() {
            Some(libc::ENOSPC) => WatchError::limit("fs.inotify.max_user_watches"),
            _ => WatchError::Other(
                anyhow::Error::from(e).context(format!("failed to watch directory {}", path.display())),
            ),
        })?;
        tree.insert(wd, &path);
        let entries = std::fs::read_dir(settle::proc_path(dir.as_fd()))
            .with_context(|| format!("failed to list watched directory {}", path.display()))?;
        for entry in entries.flatten() {
            let below = path.join(entry.file_name());
            if !found(&below) {
                return Ok(());
            }
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                waiting.push(below);
            }
        }
    }
    Ok(())
}
