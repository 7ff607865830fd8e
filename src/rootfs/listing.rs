//! Names in a directory, and whether a layer's entry shows in the tree that is merged of it.

use std::ffi::{CString, OsStr};
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::overlay::OPAQUE_NAMES;
use crate::sys::statx::{Status, statx};
use crate::sys::{proc_fd, xattr};

/// Entries of a layer that are compared with the merged root.
pub(super) const MAX_PROBED: usize = 32;

/// A directory (which may be `O_PATH`), open for listing.
pub(super) fn readable(dir: BorrowedFd<'_>) -> nix::Result<Dir> {
    let readable = proc_fd::reopen(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOATIME)
        .or_else(|_| proc_fd::reopen(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY))?;
    Dir::from_fd(readable)
}

/// At most `limit` names of a directory (which may be `O_PATH`), sorted where all fit; `.` and `..` left out.
pub(super) fn names(dir: BorrowedFd<'_>, limit: usize) -> nix::Result<Vec<CString>> {
    let mut found = Vec::new();
    for entry in readable(dir)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            found.push(name.to_owned());
            if found.len() >= limit {
                break;
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Opens an entry by its name, whatever it is, without following it.
pub(super) fn entry(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<std::os::fd::OwnedFd> {
    openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

fn status(dir: BorrowedFd<'_>, name: &CString) -> Result<Option<Status>> {
    use std::os::fd::AsFd;
    match entry(dir, name) {
        Ok(fd) => Ok(Some(statx(fd.as_fd()).context("failed to read an entry of a layer")?)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e).context("failed to open an entry of a layer"),
    }
}

/// Whether overlayfs was told that nothing of the layers beneath shows through this directory.
pub(super) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    for name in OPAQUE_NAMES {
        let value = xattr::get(dir, OsStr::new(name)).context("failed to read a layer's opaque mark")?;
        if value.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `name` of the layer `lower`, unless one of the layers `above` it says otherwise, shows in `merged` with the
/// same type and, for a file, the same size and time.
pub(super) fn shows(
    merged: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    above: &[BorrowedFd<'_>],
    name: &CString,
) -> Result<bool> {
    for layer in above {
        if is_opaque(*layer)? || status(*layer, name)?.is_some() {
            return Ok(true);
        }
    }
    let Some(expected) = status(lower, name)? else { return Ok(true) };
    if expected.is_whiteout() {
        return Ok(true);
    }
    let Some(found) = status(merged, name)? else { return Ok(false) };
    let regular = expected.kind() == libc::S_IFREG;
    Ok(found.kind() == expected.kind()
        && (!regular || found.size == expected.size && found.modified == expected.modified))
}
