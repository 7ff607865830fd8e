//! The container's mount table: what was mounted, unmounted or remounted in its namespace.
//!
//! Owns: the difference of two tables, and which part of it is the host's doing. Must not: enter a namespace.
//!
//! The open file keeps the mount namespace alive, with all its mounts: drop the watch before waiting for a
//! generation's root filesystem to go away.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::uio::pread;

use super::{Change, ChangeKind, Drained, WatchError};
use crate::mountinfo::{self, MountEntry};

/// Bytes of a table that are read; 100,000 mounts of 160 bytes.
const MAX_BYTES: usize = 16 << 20;
/// Changes told at once; a table that changed more is an overflow.
const MAX_CHANGES: usize = 1024;

/// Sees the mount table of one namespace change (`POLLPRI` on its mountinfo, proc_pid_mountinfo(5)).
///
/// What the host does reaches a container through mounts that receive propagation. Such an arrival is no change here:
/// a mount that has a master, below a mount that has one too; or a shared mount below a shared one, where host and
/// container are peers and the pod's author has asked for that. Nor is the later departure of such a mount.
#[derive(Debug)]
pub struct MountWatch {
    file: OwnedFd,
    known: HashMap<u32, Known>,
}

/// What the next table is compared with; the entries' text is all that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    mount_point: PathBuf,
    /// Device, root, type and source, by which a reused id is told from the same mount.
    identity: u64,
    options: OsString,
    super_options: OsString,
    shared: bool,
    /// The filesystem was made for this container, so that its options are not the host's to change.
    own_filesystem: bool,
    arrived_by_propagation: bool,
}

impl MountWatch {
    /// Takes the table of this moment as the baseline. `mountinfo` is an open `/proc/<pid>/mountinfo`, opened after
    /// that process has its final root.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn new(mountinfo: OwnedFd) -> Result<MountWatch, WatchError> {
        let table = read_table(mountinfo.as_fd())?;
        let known = table.entries.iter().map(|e| (e.id, Known::of(e, false))).collect();
        Ok(MountWatch { file: mountinfo, known })
    }

    /// The file's descriptor: poll it for `POLLPRI`; `POLLERR` comes with it.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Reads the table again and tells what differs; then it is the baseline.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn drain(&mut self) -> Result<Drained, WatchError> {
        let table = read_table(self.file.as_fd())?;
        let mut drained = Drained { changes: Vec::new(), overflow: table.incomplete };
        let mut next: HashMap<u32, Known> = HashMap::with_capacity(table.entries.len());
        let by_id: HashMap<u32, &MountEntry> = table.entries.iter().map(|e| (e.id, e)).collect();
        for entry in &table.entries {
            let old = self.known.get(&entry.id).filter(|k| k.identity == identity(entry));
            let propagated = match old {
                Some(old) => old.arrived_by_propagation,
                None => by_id.get(&entry.parent).is_some_and(|parent| comes_by_propagation(entry, parent)),
            };
            let new = Known::of(entry, propagated);
            match old {
                Some(old) => drained.changes.extend(difference(old, &new)),
                None if propagated => {}
                None => drained.changes.push(change(&new.mount_point, mounted(entry))),
            }
            next.insert(entry.id, new);
        }
        // An incomplete table proves nothing about what is missing in it.
        if !table.incomplete {
            let mut gone: Vec<&Known> = self
                .known
                .iter()
                .filter(|(id, old)| next.get(id).is_none_or(|new| new.identity != old.identity))
                .map(|(_, old)| old)
                .filter(|old| !old.arrived_by_propagation)
                .collect();
            gone.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
            drained.changes.extend(gone.into_iter().map(|old| change(&old.mount_point, "unmounted".to_owned())));
        }
        drained.overflow |= drained.changes.len() > MAX_CHANGES;
        drained.changes.truncate(MAX_CHANGES);
        self.known = next;
        Ok(drained)
    }
}

impl Known {
    fn of(entry: &MountEntry, arrived_by_propagation: bool) -> Known {
        Known {
            mount_point: entry.mount_point.clone(),
            identity: identity(entry),
            options: entry.options.clone(),
            super_options: entry.super_options.clone(),
            shared: entry.shared.is_some(),
            own_filesystem: is_own_filesystem(entry),
            arrived_by_propagation,
        }
    }
}

fn identity(entry: &MountEntry) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (entry.dev, &entry.root, &entry.fs_type, &entry.source).hash(&mut hasher);
    hasher.finish()
}

fn comes_by_propagation(entry: &MountEntry, parent: &MountEntry) -> bool {
    entry.master.is_some() && parent.master.is_some() || entry.shared.is_some() && parent.shared.is_some()
}

/// A bind mount shows the host's filesystem, which the host may remount; what a runtime mounts afresh is the container's.
fn is_own_filesystem(entry: &MountEntry) -> bool {
    let fresh = ["tmpfs", "overlay", "proc", "devpts", "mqueue"].iter().any(|t| entry.fs_type == **t);
    fresh && entry.root == Path::new("/") && entry.master.is_none() && entry.shared.is_none()
}

fn mounted(entry: &MountEntry) -> String {
    format!("{} from {} mounted", entry.fs_type.to_string_lossy(), entry.source.to_string_lossy())
}

fn change(path: &Path, detail: String) -> Change {
    Change { kind: ChangeKind::Mount, path: path.to_path_buf(), detail: Some(detail), culprit: None }
}

/// What was done to a mount that stayed. A master that is lost is the host's doing, and so is no difference.
fn difference(old: &Known, new: &Known) -> Option<Change> {
    let mut told = Vec::new();
    if old.mount_point != new.mount_point {
        told.push(format!("moved from {}", old.mount_point.display()));
    }
    let options = option_changes(&old.options, &new.options);
    if let Some((was, is)) = options {
        told.push(format!("remounted: {was} -> {is}"));
    } else if old.own_filesystem
        && !old.arrived_by_propagation
        && let Some((was, is)) = option_changes(&old.super_options, &new.super_options)
    {
        told.push(format!("filesystem remounted: {was} -> {is}"));
    }
    if !old.shared && new.shared {
        told.push("made shared".to_owned());
    }
    (!told.is_empty()).then(|| change(&new.mount_point, told.join("; ")))
}

/// The options that only the one, and only the other has.
fn option_changes(old: &OsStr, new: &OsStr) -> Option<(String, String)> {
    if old == new {
        return None;
    }
    let split = |text: &OsStr| -> Vec<String> {
        text.as_bytes().split(|b| *b == b',').map(|o| String::from_utf8_lossy(o).into_owned()).collect()
    };
    let (old, new) = (split(old), split(new));
    let only = |a: &[String], b: &[String]| -> Vec<String> { a.iter().filter(|o| !b.contains(o)).cloned().collect() };
    let (was, is) = (only(&old, &new), only(&new, &old));
    let text = |list: Vec<String>| if list.is_empty() { "(nothing)".to_owned() } else { list.join(",") };
    (!was.is_empty() || !is.is_empty()).then(|| (text(was), text(is)))
}

fn read_table(file: BorrowedFd<'_>) -> Result<mountinfo::MountTable, WatchError> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let mut cut = false;
    loop {
        match pread(file, &mut chunk, bytes.len() as libc::off_t) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(anyhow::Error::from(e).context("failed to read the container's mount table").into()),
        }
        if bytes.len() > MAX_BYTES {
            cut = true;
            break;
        }
    }
    let mut table = mountinfo::parse(&bytes);
    table.incomplete |= cut;
    Ok(table)
}

/// Opens the mount table of the process whose `/proc/<pid>` directory is `process`.
///
/// # Errors
/// When the process is gone, or may not be looked at.
pub fn open_mountinfo(process: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    use nix::fcntl::{OFlag, openat};
    openat(process, "mountinfo", OFlag::O_RDONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
        .context("failed to open the container's mount table; has its init ended?")
}
