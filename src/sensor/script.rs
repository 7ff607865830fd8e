//! Which file a script's name is: looked up in the container's own root, as the kernel did when it executed it.
//!
//! Must not: follow a link out of that root, trust that the name still means what it meant, or wait for its file system.

use std::path::Path;

use nix::sys::statfs::{FsType, TMPFS_MAGIC};

use super::decode::Mounts;
use super::reading::Origin;
use crate::look::{self, Place, Unseen};

/// `OVERLAYFS_SUPER_MAGIC` (`linux/magic.h`).
const OVERLAYFS: FsType = FsType(0x794c_7630);

/// Where the script at `path` comes from, in the container of `init`: its file if it can still be found, else what `mounts`
/// make of its name; where its file system does not answer it is not the image's. `None`: it is on the root file system, whose
/// programs nobody here can tell apart.
pub(super) fn origin(init: i32, path: &str, mounts: &Mounts) -> Option<Origin> {
    match look::place(init, Path::new(path)) {
        Ok(place @ Place { missing: None, .. }) => found(&place),
        Err(Unseen::Unanswered) => mounts.origin(path).or(Some(Origin::Volume)),
        Ok(_) | Err(Unseen::No(_)) => mounts.origin(path),
    }
}

/// The same by the file alone.
fn found(place: &Place) -> Option<Origin> {
    let Place { root, mounted, .. } = place;
    // A bind mount of the overlay into itself is the overlay; one of a disk's other folder is a volume.
    let both_overlays = [root, mounted].iter().all(|mount| mount.magic == OVERLAYFS.0);
    if both_overlays || root.id == mounted.id {
        return None;
    }
    Some(if mounted.magic == TMPFS_MAGIC.0 { Origin::Tmpfs } else { Origin::Volume })
}
