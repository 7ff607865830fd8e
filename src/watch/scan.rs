//! The scan: what a tree holds, and what differs from what it held. Events are the speed, this is the truth.
//!
//! Owns: the baseline and the difference. Must not: follow a symlink, cross a mount, or read a file's content: the
//! change time, which nothing in a container can set, tells that content was written.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::stat::FileStat;

pub use super::walk::Limits;

use super::walk::{Visit, walk};
use super::{Change, ChangeKind, Image, image, xattrs};

/// Changes that a difference lists; beyond, it counts.
pub const MAX_CHANGES: usize = 1000;

/// What is kept of one file: about 100 bytes and its path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path_at: usize,
    path_len: usize,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
    ino: u64,
    rdev: u64,
    /// Of a symlink's target; 0 for others.
    target_hash: u64,
    /// Of all extended attributes but overlay's own.
    xattr_hash: u64,
}

/// The files of a tree at one moment, in order of their paths.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    entries: Vec<Entry>,
    paths: Vec<u8>,
    truncated: bool,
}

/// What differs between a baseline and the tree now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// At most [`MAX_CHANGES`], in order of their paths.
    pub changes: Vec<Change>,
    /// All that were created.
    pub created: u64,
    /// All whose content, type or target differs.
    pub modified: u64,
    /// All that are gone or hidden by a whiteout.
    pub deleted: u64,
    /// All of which only mode, owner, times or extended attributes differ.
    pub attributes: u64,
    /// A limit cut one of the two scans short: there may be more, and what seems created or deleted may not be.
    pub truncated: bool,
}

/// One file that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Differing<'a> {
    /// How.
    pub kind: ChangeKind,
    /// Relative to the tree's root, without a leading slash.
    pub path: &'a [u8],
    /// It is a directory now.
    pub is_dir: bool,
    /// Size of a regular file now, in bytes; 0 for others.
    pub size_bytes: u64,
    /// A directory that is the image's but for its time, which may follow from what was done in it.
    pub in_time_alone: bool,
}

impl Difference {
    /// How many changes there are, listed or not.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.created + self.modified + self.deleted + self.attributes
    }
}

impl Baseline {
    /// Looks at everything below `dir` (opened for reading), the root itself not included.
    ///
    /// # Errors
    /// When a directory can't be listed, or an attribute can't be read.
    pub fn take(dir: BorrowedFd<'_>, limits: Limits) -> Result<Baseline> {
        let mut baseline = Baseline::default();
        baseline.truncated = walk(dir, limits, |visit| baseline.add(visit))?;
        let Baseline { entries, paths, .. } = &mut baseline;
        entries.sort_by(|a, b| path_in(paths, a).cmp(path_in(paths, b)));
        entries.shrink_to_fit();
        paths.shrink_to_fit();
        Ok(baseline)
    }

    /// How many files and directories there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The sum of the regular files' sizes; a file with several names counts for each.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().filter(|e| e.is_file()).map(|e| e.size).sum()
    }

    /// Whether a limit cut the scan short.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// Leaves out what changed after an instant, in nanoseconds since 1970: it counts as not having been there. Whiteouts
    /// stay, as one inode serves many of them and changes with each new one.
    #[must_use]
    pub fn until(mut self, instant_ns: i128) -> Baseline {
        self.entries.retain(|entry| entry.ctime_ns <= instant_ns || entry.is_whiteout());
        self
    }

    /// What differs now. `image`, where the tree is an overlay's upper, tells a copied-up file from a new one.
    ///
    /// # Errors
    /// As [`Baseline::take`].
    pub fn diff(&self, dir: BorrowedFd<'_>, limits: Limits, image: Option<&Image>) -> Result<Difference> {
        let mut difference = Difference::default();
        let mut retimed = HashSet::new();
        difference.truncated = self.differing(dir, limits, image, |found| {
            if found.in_time_alone {
                retimed.insert(difference.changes.len());
            }
            difference.add(found.kind, found.path);
        })?;
        difference.leave_out_times(&retimed);
        Ok(difference)
    }

    /// Calls `tell` for every file that differs now, in order of their paths. Returns true when a limit cut one of the two
    /// scans short.
    ///
    /// # Errors
    /// As [`Baseline::take`].
    pub fn differing(
        &self,
        dir: BorrowedFd<'_>,
        limits: Limits,
        image: Option<&Image>,
        mut tell: impl FnMut(Differing<'_>),
    ) -> Result<bool> {
        let now = Baseline::take(dir, limits)?;
        let (mut old, mut new) = (self.entries.iter().peekable(), now.entries.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => path_in(&self.paths, a).cmp(path_in(&now.paths, b)),
            };
            let was = if order.is_le() { old.next() } else { None };
            let is = if order.is_ge() { new.next() } else { None };
            let kind = match (was, is) {
                (Some(was), Some(is)) => was.change_to(is),
                (Some(was), None) if was.is_whiteout() => Some(ChangeKind::Create),
                (Some(_), None) => Some(ChangeKind::Delete),
                (None, Some(is)) => is.arrival(path_in(&now.paths, is), image),
                (None, None) => None,
            };
            let path = is.map_or_else(|| was.map(|e| path_in(&self.paths, e)), |e| Some(path_in(&now.paths, e)));
            if let (Some(kind), Some(path)) = (kind, path) {
                let arrived = is.filter(|e| was.is_none() && e.is_dir());
                tell(Differing {
                    kind,
                    path,
                    is_dir: is.is_some_and(Entry::is_dir),
                    size_bytes: is.filter(|e| e.is_file()).map_or(0, |e| e.size),
                    in_time_alone: arrived.is_some_and(|e| e.differs_in_time_alone(path, image)),
                });
            }
        }
        Ok(self.truncated || now.truncated)
    }

    fn add(&mut self, visit: &Visit<'_>) -> Result<()> {
        let stat = visit.stat;
        let is_link = stat.st_mode & libc::S_IFMT == libc::S_IFLNK;
        let target_hash = if is_link {
            nix::fcntl::readlinkat(visit.dir, visit.name).map_or(0, |target| xattrs::hash(target.as_bytes()))
        } else {
            0
        };
        self.entries.push(Entry {
            path_at: self.paths.len(),
            path_len: visit.path.len(),
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size.unsigned_abs(),
            mtime_ns: mtime_ns(stat),
            ctime_ns: i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec),
            ino: stat.st_ino,
            rdev: stat.st_rdev,
            target_hash,
            xattr_hash: xattr_hash(visit)?,
        });
        self.paths.extend_from_slice(visit.path);
        Ok(())
    }
}

impl Entry {
    fn is_whiteout(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFCHR && self.rdev == 0
    }

    fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    fn is_file(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }

    /// What became of this file. A directory's size and times follow from what is in it, so they say nothing.
    fn change_to(&self, is: &Entry) -> Option<ChangeKind> {
        let kind = |e: &Entry| (e.mode & libc::S_IFMT, e.rdev, e.target_hash);
        if self.is_whiteout() != is.is_whiteout() {
            return Some(if is.is_whiteout() { ChangeKind::Delete } else { ChangeKind::Create });
        }
        if kind(self) != kind(is) {
            return Some(ChangeKind::Modify);
        }
        let attributes = |e: &Entry| (e.mode, e.uid, e.gid, e.xattr_hash);
        let attributes_differ = attributes(self) != attributes(is);
        // One whiteout inode serves many names: its count of links, and so its change time, says nothing.
        if is.is_dir() || is.is_whiteout() {
            return attributes_differ.then_some(ChangeKind::Attributes);
        }
        let content = |e: &Entry| (e.size, e.mtime_ns, e.ino);
        if content(self) != content(is) || self.ctime_ns != is.ctime_ns && !attributes_differ {
            return Some(ChangeKind::Modify);
        }
        attributes_differ.then_some(ChangeKind::Attributes)
    }

    /// How a file that was not there before came: out of the image, or anew. `None` for a directory that is as in the
    /// image: it is here for the sake of something below it.
    fn arrival(&self, path: &[u8], image: Option<&Image>) -> Option<ChangeKind> {
        if self.is_whiteout() {
            return Some(ChangeKind::Delete);
        }
        let original = image.and_then(|image| image.find(Path::new(OsStr::from_bytes(path))));
        match original {
            Some((_, stat)) if stat.st_mode & libc::S_IFMT != self.mode & libc::S_IFMT => Some(ChangeKind::Create),
            Some((dir, stat)) if image::is_dir(&stat) => {
                let same = self.mtime_ns == mtime_ns(&stat) && self.has_attributes_of(&dir, &stat);
                (!same).then_some(ChangeKind::Attributes)
            }
            Some(_) => Some(ChangeKind::Modify),
            None => Some(ChangeKind::Create),
        }
    }

    /// Whether mode, owner and extended attributes are another file's. What can't be read counts as different.
    fn has_attributes_of(&self, other: &OwnedFd, stat: &FileStat) -> bool {
        (stat.st_mode, stat.st_uid, stat.st_gid) == (self.mode, self.uid, self.gid)
            && xattrs::hash_of(&xattrs::path_of(other.as_fd(), c".")).is_ok_and(|hash| hash == self.xattr_hash)
    }

    /// Whether this directory is the image's but for its time.
    fn differs_in_time_alone(&self, path: &[u8], image: Option<&Image>) -> bool {
        let original = image.and_then(|image| image.find(Path::new(OsStr::from_bytes(path))));
        original.is_some_and(|(dir, stat)| self.has_attributes_of(&dir, &stat))
    }
}

impl Difference {
    /// A directory's new time follows from what was done in it: where that is listed, the time is not.
    fn leave_out_times(&mut self, retimed: &HashSet<usize>) {
        let parents: HashSet<PathBuf> = self.changes.iter().filter_map(|c| c.path.parent()).map(Into::into).collect();
        let before = self.changes.len();
        let mut at = 0;
        self.changes.retain(|change| {
            at += 1;
            !(retimed.contains(&(at - 1)) && parents.contains(&change.path))
        });
        self.attributes -= (before - self.changes.len()) as u64;
    }

    fn add(&mut self, kind: ChangeKind, path: &[u8]) {
        *match kind {
            ChangeKind::Create => &mut self.created,
            ChangeKind::Delete => &mut self.deleted,
            ChangeKind::Attributes => &mut self.attributes,
            ChangeKind::Modify | ChangeKind::Rename | ChangeKind::Mount | ChangeKind::HostWrite => &mut self.modified,
        } += 1;
        if self.changes.len() < MAX_CHANGES {
            let path = PathBuf::from("/").join(OsStr::from_bytes(path));
            self.changes.push(Change { kind, path, detail: None, culprit: None });
        }
    }
}

fn mtime_ns(stat: &FileStat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}

fn path_in<'a>(paths: &'a [u8], entry: &Entry) -> &'a [u8] {
    &paths[entry.path_at..entry.path_at + entry.path_len]
}

fn xattr_hash(visit: &Visit<'_>) -> Result<u64> {
    match xattrs::hash_of(&xattrs::path_of(visit.dir, visit.name)) {
        // Gone since it was looked at: that a tree changes under a scan is for the watches to tell.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        result => result.with_context(|| {
            format!("failed to read attributes of /{} in a scan", OsStr::from_bytes(visit.path).display())
        }),
    }
}
