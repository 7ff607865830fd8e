//! What a low-level runtime copies into a scratch mount (`tmpcopyup`): runc makes it under its caller's umask, so that a
//! directory for everyone is nobody's but root's. Here each gets the permissions back that it has in the image.
//!
//! Owns: that repair, before anything of the image runs. Must not: follow a link, leave the mount, or change an owner.

use std::fs::{Permissions, set_permissions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};

use super::listing::{entry, names};
use crate::sys::proc_fd;
use crate::sys::statx::statx;

/// Entries that are looked at, and how deep: what the workload is given a place for is mostly empty.
const MOST: usize = 200_000;
const DEEPEST: usize = 128;

/// Gives what is below `copy` the permissions of what has its name below `original`.
///
/// # Errors
/// When there is too much of it, it can't be looked at, or a mode can't be set.
pub fn restore_modes(original: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> Result<()> {
    let mount = statx(copy).context("failed to look at a scratch mount")?.mount_id;
    restore(original, copy, mount, &mut { MOST }, DEEPEST)
}

fn restore(
    original: BorrowedFd<'_>,
    copy: BorrowedFd<'_>,
    mount: Option<u64>,
    left: &mut usize,
    depth: usize,
) -> Result<()> {
    let listed = names(original, *left).context("failed to list what was copied")?;
    *left -= listed.len().min(*left);
    ensure!(*left > 0 && depth > 0, "there are more than {MOST} entries, or some are deeper than {DEEPEST}");
    for name in listed {
        let (Ok(of_image), Ok(here)) = (entry(original, &name), entry(copy, &name)) else { continue };
        let shown = || format!("failed to give {name:?} the image's permissions");
        let (wanted, found) = (statx(of_image.as_fd()).with_context(shown)?, statx(here.as_fd()).with_context(shown)?);
        // What the engine mounts there is its own.
        if wanted.kind() != found.kind() || wanted.kind() == libc::S_IFLNK || found.mount_id != mount {
            continue;
        }
        if wanted.mode & 0o7777 != found.mode & 0o7777 {
            set_permissions(proc_fd::path(here.as_fd()), Permissions::from_mode(wanted.mode & 0o7777))
                .with_context(shown)?;
        }
        if wanted.is_dir() {
            restore(of_image.as_fd(), here.as_fd(), mount, left, depth - 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::OwnedFd;

    #[test]
    fn what_was_copied_under_a_umask_has_the_images_modes_again_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().expect("a folder");
        let (image, copy) = (dir.path().join("image"), dir.path().join("copy"));
        let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
        for (root, modes) in [(&image, [0o1777, 0o2775, 0o660]), (&copy, [0o1755, 0o755, 0o640])] {
            fs::create_dir_all(root.join("sub/deep")).expect("made");
            fs::write(root.join("sub/file"), "x").expect("written");
            std::os::unix::fs::symlink(dir.path(), root.join("link")).expect("linked");
            for (name, mode) in ["sub", "sub/deep", "sub/file"].iter().zip(modes) {
                fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect("set");
            }
        }
        fs::write(image.join("only"), "x").expect("written");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("set");
        let open = |path: &std::path::Path| OwnedFd::from(fs::File::open(path).expect("open"));
        restore_modes(open(&image).as_fd(), open(&copy).as_fd()).expect("restored");
        assert_eq!(mode(&copy.join("sub")), 0o1777);
        assert_eq!((mode(&copy.join("sub/deep")), mode(&copy.join("sub/file"))), (0o2775, 0o660));
        assert_eq!(mode(dir.path()), 0o700);
    }
}
