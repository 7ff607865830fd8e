//! Where a root filesystem comes from. Must not: need an answer: what can't be told is one directory.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::readlink;

use super::note;
use crate::rootfs::Layers;
use crate::sys::proc_fd;

/// Where the root filesystem comes from, as far as the node tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// An image's id, `sha256:…`.
    Image(String),
    /// Paths of the overlay's read-only layers, topmost first.
    Layers(Vec<PathBuf>),
    /// One directory. A storage driver that copies it for each container makes each one a revision of its own: where the
    /// engine names no image digest, nothing tells such copies' origin.
    Directory(PathBuf),
}

impl Source {
    /// By the engine's own note of it, else by what is mounted there.
    pub(super) fn find(rootfs: &Path, container: &str) -> Source {
        if let Some(image) = note::image(rootfs, container) {
            return Source::Image(image.id);
        }
        let layers =
            std::fs::read("/proc/thread-self/mountinfo").ok().and_then(|table| Layers::of(rootfs, &table).ok());
        match layers {
            Some(Layers { lowers, upper: Some(_), .. }) => {
                let paths = lowers.iter().filter_map(|fd| readlink(proc_fd::path(fd.as_fd()).as_str()).ok());
                Source::Layers(paths.map(PathBuf::from).collect())
            }
            Some(_) | None => Source::Directory(rootfs.to_owned()),
        }
    }
}
