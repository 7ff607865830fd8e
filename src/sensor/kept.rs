//! What kept a program from being executed: the mount it is on (`noexec`), or its own want of permission. The kernel says the
//! same to both (EACCES), and only one of them is an intruder's.
//!
//! Owns: that question. Must not: follow a path out of the container's root.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::reading::Origin;

/// Where a program is that init's container could not execute, if its mount is why. What is gone by now was where its folder
/// is.
///
/// # Errors
/// When the container is gone.
pub(super) fn by_its_mount(init: i32, path: &str) -> Result<Option<Origin>, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let root = open(format!("/proc/{init}/root").as_str(), flags | OFlag::O_DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    let nearest: Option<OwnedFd> = Path::new(path).ancestors().find_map(|place| openat2(&root, place, how).ok());
    let nearest = nearest.unwrap_or(root);
    if !fstatvfs(&nearest)?.flags().contains(FsFlags::ST_NOEXEC) {
        return Ok(None);
    }
    let of_memory = fstatfs(&nearest)?.filesystem_type() == TMPFS_MAGIC;
    Ok(Some(if of_memory { Origin::Tmpfs } else { Origin::Volume }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_permission_is_not_its_mounts_doing_and_a_container_that_is_gone_is_an_error() {
        let me = std::process::id() as i32;
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(by_its_mount(me, &file.path().display().to_string()), Ok(None));
        assert_eq!(by_its_mount(me, &format!("{}/gone/at/once", env!("CARGO_MANIFEST_DIR"))), Ok(None));
        assert_eq!(by_its_mount(0, "/bin/sh"), Err(Errno::ENOENT));
    }
}
