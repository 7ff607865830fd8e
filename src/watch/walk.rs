//! A walk over a tree that follows no symlink and crosses no mount, one directory open per level.
//!
//! Owns: the order (parents before children) and the bounds. Must not: keep what it saw.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, fstatat};

use super::image::is_dir;

/// Where a walk ends, whatever the tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files and directories that are looked at.
    pub entries: usize,
    /// Levels below the root; each holds one descriptor open.
    pub depth: usize,
}

impl Default for Limits {
    /// 200,000 entries, 128 levels.
    fn default() -> Limits {
        Limits { entries: 200_000, depth: 128 }
    }
}

/// A file that the walk has come to.
pub(super) struct Visit<'a> {
    /// Relative to the root, without a leading slash.
    pub(super) path: &'a [u8],
    pub(super) stat: &'a FileStat,
    pub(super) dir: BorrowedFd<'a>,
    pub(super) name: &'a CStr,
}

/// A directory that is being listed. The listing owns a descriptor of its own.
struct Level {
    fd: OwnedFd,
    names: OwningIter,
    path_len: usize,
}

impl Level {
    fn open(dir: BorrowedFd<'_>, name: &CStr, path_len: usize) -> nix::Result<Level> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
        let fd = openat2(dir, name, how)?;
        let listed = fd.try_clone().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(Level { fd, names: Dir::from_fd(listed)?.into_iter(), path_len })
    }
}

/// Calls `visit` for every entry below `root`. Returns true when a limit cut the walk short.
///
/// What vanishes while it is walked is left out: that a tree changes under a walk is for the watches to tell.
///
/// # Errors
/// When a directory can't be opened or listed for another reason than that it is gone, and what `visit` returns.
pub(super) fn walk(
    root: BorrowedFd<'_>,
    limits: Limits,
    mut visit: impl FnMut(&Visit<'_>) -> Result<()>,
) -> Result<bool> {
    let mut truncated = false;
    let mut left = limits.entries;
    let mut path: Vec<u8> = Vec::new();
    let mut levels = vec![Level::open(root, c".", 0).context("failed to open the root of a scan")?];
    loop {
        let depth = levels.len();
        let Some(level) = levels.last_mut() else { break };
        path.truncate(level.path_len);
        let Some(entry) = level.names.next() else {
            levels.pop();
            continue;
        };
        let entry = entry.context("failed to list a directory in a scan")?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if left == 0 {
            return Ok(true);
        }
        left -= 1;
        let dir = level.fd.as_fd();
        let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => continue,
            Err(e) => return Err(e).with_context(|| failed("look at", &path, name)),
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        visit(&Visit { path: &path, stat: &stat, dir, name })?;
        if !is_dir(&stat) {
            continue;
        }
        if depth >= limits.depth {
            truncated = true;
            continue;
        }
        match Level::open(dir, name, path.len()) {
            Ok(below) => levels.push(below),
            // Gone, replaced by something else, or a mount.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => {}
            Err(e) => return Err(e).with_context(|| failed("open", &path, c"")),
        }
    }
    Ok(truncated)
}

fn failed(what: &str, path: &[u8], name: &CStr) -> String {
    let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_string_lossy().into_owned();
    format!("failed to {what} /{}/{} in a scan", text(path), text(name.to_bytes()))
}
