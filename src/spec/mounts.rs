//! The mount points that a container needs.

use std::path::Path;

use anyhow::Result;

use super::Document;
use crate::rootfs::MountPoint;

/// Every mount of the document, in its order, as a mount point: a file where a file is bound, otherwise a directory.
///
/// # Errors
/// As [`Document::mounts`].
pub fn mount_points(document: &Document, bundle: &Path) -> Result<Vec<MountPoint>> {
    let point = |mount: &oci_spec::runtime::Mount| {
        let bind = mount.options().iter().flatten().any(|o| o == "bind" || o == "rbind");
        let source = mount.source().as_ref().filter(|_| bind).map(|s| bundle.join(s));
        let is_file = source.is_some_and(|s| std::fs::metadata(s).is_ok_and(|m| !m.is_dir()));
        MountPoint { destination: super::seal::clean(mount.destination()), is_file }
    };
    Ok(document.mounts()?.iter().map(point).collect())
}
