//! Which file a script's name is: looked up in the container's own root, as the kernel did when it executed it.
//!
//! Must not: follow a link out of that root, or trust that the name still means what it meant.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};

use super::decode::Mounts;
use super::reading::Origin;
use crate::sys::statx;

/// `OVERLAYFS_SUPER_MAGIC` (`linux/magic.h`).
const OVERLAYFS: FsType = FsType(0x794c_7630);

/// Where the script at `path` comes from, in the container of `init`: its file if it can still be found, else what `mounts`
/// make of its name. `None`: it is on the root file system, whose programs nobody here can tell apart.
pub(super) fn origin(init: i32, path: &str, mounts: &Mounts) -> Option<Origin> {
    found(init, path).unwrap_or_else(|| mounts.origin(path))
}

/// The same by the file alone; `None`: there is none, or it can't be reached.
fn found(init: i32, path: &str) -> Option<Option<Origin>> {
    let root = File::open(format!("/proc/{init}/root")).ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let relative = Path::new(path).strip_prefix("/").ok()?;
    let file = File::from(openat2(&root, relative, how).ok()?);
    let mount = |file: &File| statx::statx(file.as_fd()).ok()?.mount_id;
    let kind = |file: &File| fstatfs(file).ok().map(|s| s.filesystem_type());
    // A bind mount of the overlay into itself is the overlay; one of a disk's other folder is a volume.
    let same = mount(&root)? == mount(&file)? || (kind(&root)? == OVERLAYFS && kind(&file)? == OVERLAYFS);
    if same {
        return Some(None);
    }
    Some(Some(if kind(&file)? == TMPFS_MAGIC { Origin::Tmpfs } else { Origin::Volume }))
}
