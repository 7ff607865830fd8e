//! What the image holds at a path: how a copy-up is told from a new file.
//!
//! Owns: the look-up through a stack of lower layers, with overlay's whiteouts and opaque directories. Must not: follow
//! a symlink, or open a file's content.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, major, minor};

use super::xattrs;
use crate::sys::xattr;

/// The read-only files under a container, topmost layer first.
///
/// A single directory that shows them merged (a read-only overlay of the layers, or a plain root filesystem) does as
/// well as the layers themselves.
#[derive(Debug, Default)]
pub struct Image {
    layers: Vec<OwnedFd>,
}

/// What one layer says about a path.
enum Found {
    /// It is there.
    Here(OwnedFd, Box<FileStat>),
    /// It is not, and lower layers don't count.
    Hidden,
    /// Ask the next layer.
    Below,
}

impl Image {
    /// From directories opened with `O_PATH` or for reading, topmost first.
    #[must_use]
    pub fn new(layers: Vec<OwnedFd>) -> Image {
        Image { layers }
    }

    /// The image's own file at `path` (taken relative to the root). `None` when there is none, or when it can't be
    /// looked at: an unknown file counts as new.
    #[must_use]
    pub fn lookup(&self, path: &Path) -> Option<FileStat> {
        self.find(path).map(|(_, stat)| stat)
    }

    /// The same, with the file opened as `O_PATH`.
    pub(super) fn find(&self, path: &Path) -> Option<(OwnedFd, FileStat)> {
        for layer in &self.layers {
            match look_in(layer.as_fd(), path) {
                Found::Here(fd, stat) => return Some((fd, *stat)),
                Found::Hidden => return None,
                Found::Below => {}
            }
        }
        None
    }
}

fn look_in(layer: BorrowedFd<'_>, path: &Path) -> Found {
    let mut here: Option<OwnedFd> = None;
    let mut opaque = false;
    let mut names =
        path.components().filter_map(|c| if let Component::Normal(n) = c { Some(n) } else { None }).peekable();
    if names.peek().is_none() {
        return match (layer.try_clone_to_owned(), fstat(layer)) {
            (Ok(fd), Ok(stat)) => Found::Here(fd, Box::new(stat)),
            _ => Found::Below,
        };
    }
    while let Some(name) = names.next() {
        let dir = here.as_ref().map_or(layer, |fd| fd.as_fd());
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = match openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) if !opaque => return Found::Below,
            Err(_) => return Found::Hidden,
        };
        let Ok(stat) = fstat(&next) else { return Found::Hidden };
        if is_whiteout(&stat) {
            return Found::Hidden;
        }
        if names.peek().is_none() {
            return Found::Here(next, Box::new(stat));
        }
        if !is_dir(&stat) {
            return Found::Hidden;
        }
        opaque |= is_opaque(dir, name);
        here = Some(next);
    }
    Found::Hidden
}

/// Overlay's sign for "deleted": a character device 0:0 (Documentation/filesystems/overlayfs.rst).
pub(super) fn is_whiteout(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && major(stat.st_rdev) == 0 && minor(stat.st_rdev) == 0
}

/// Whether it is a directory.
pub(super) fn is_dir(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// Whether the directory `name` below `dir` hides what lower layers hold there (`overlay.opaque` = `y`).
pub(super) fn is_opaque(dir: BorrowedFd<'_>, name: &OsStr) -> bool {
    let Ok(name) = CString::new(name.as_bytes()) else { return false };
    let path = xattrs::path_of(dir, &name);
    [c"trusted.overlay.opaque", c"user.overlay.opaque"]
        .iter()
        .any(|key| matches!(xattr::get_at(&path, key), Ok(Some(value)) if value == b"y"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn layer(path: &Path) -> OwnedFd {
        fs::File::open(path).expect("the layer opens").into()
    }

    #[test]
    fn the_topmost_layer_that_has_a_path_answers() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in [("top", "1"), ("low", "22")] {
            fs::create_dir_all(dir.path().join(name).join("etc")).expect("made");
            fs::write(dir.path().join(name).join("etc/a"), text).expect("written");
        }
        fs::write(dir.path().join("low/etc/b"), "b").expect("written");
        let image = Image::new(vec![layer(&dir.path().join("top")), layer(&dir.path().join("low"))]);
        assert_eq!(image.lookup(Path::new("etc/a")).map(|s| s.st_size), Some(1));
        assert_eq!(image.lookup(Path::new("etc/b")).map(|s| s.st_size), Some(1));
        assert!(image.lookup(Path::new("etc/c")).is_none());
        assert!(image.lookup(Path::new("etc/a/x")).is_none());
        assert!(image.lookup(Path::new("")).is_some());
    }

    #[test]
    fn a_symlink_on_the_way_is_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/etc", dir.path().join("way")).expect("linked");
        let image = Image::new(vec![layer(dir.path())]);
        assert!(image.lookup(Path::new("way")).is_some());
        assert!(image.lookup(Path::new("way/passwd")).is_none());
    }
}
