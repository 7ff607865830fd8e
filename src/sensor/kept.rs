//! What kept a program from being executed: the mount it is on (`noexec`), or its own want of permission. The kernel says the
//! same to both (EACCES), and only one of them is an intruder's.
//!
//! Owns: that question. Must not: follow a path out of the container's root, or wait for its file system.

use std::path::Path;

use nix::sys::statfs::TMPFS_MAGIC;

use super::decode::Mounts;
use super::reading::Origin;
use crate::look::{self, Unseen};

/// Where a program is that init's container could not execute, if its mount is why. What is gone by now was where its folder
/// is; in a container that is gone it was where `mounts` say. A file system that does not answer is why.
pub(super) fn by_its_mount(init: i32, path: &str, mounts: &Mounts) -> Option<Origin> {
    match look::place(init, Path::new(path)) {
        Ok(place) if !place.mounted.noexec => None,
        Ok(place) if place.mounted.magic == TMPFS_MAGIC.0 => Some(Origin::Tmpfs),
        Ok(_) => Some(Origin::Volume),
        Err(Unseen::No(_)) => mounts.keep(path),
        Err(Unseen::Unanswered) => mounts.keep(path).or(Some(Origin::Volume)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_permission_is_not_its_mounts_doing_and_of_a_container_that_is_gone_its_table_says() {
        let me = std::process::id() as i32;
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mounts = Mounts::parse(b"7 1 0:3 / / rw - overlay x rw\n8 7 0:4 / /tmp rw,noexec - tmpfs x rw\n");
        assert_eq!(by_its_mount(me, &file.path().display().to_string(), &mounts), None);
        assert_eq!(by_its_mount(me, &format!("{}/gone/at/once", env!("CARGO_MANIFEST_DIR")), &mounts), None);
        assert_eq!(by_its_mount(0, "/bin/sh", &mounts), None);
        assert_eq!(by_its_mount(0, "/tmp/sh", &mounts), Some(Origin::Tmpfs));
    }
}
