//! Whether what a refused call would have removed or renamed was there at all. Before it looks, the kernel refuses such a call
//! on a read-only mount (EROFS); on a writable one its caller is told ENOENT, and learning has nothing to record.
//!
//! Owns: that question, for the container's read-only root alone. Must not: follow a path out of that root, or answer by a
//! path that somebody in the container could change: on the root nothing comes or goes, elsewhere it may.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fstatat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

/// The root of a container, which outlives it.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl Root {
    /// That of the container with this init, once its runtime has made it.
    ///
    /// # Errors
    /// When there is no such process.
    pub(super) fn of(init: i32) -> Result<Root, Errno> {
        open(format!("/proc/{init}/root").as_str(), FOLDER, Mode::empty()).map(Root)
    }

    /// It once more, for a walk.
    pub(super) fn again(&self) -> std::io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Whether nothing is at `path` (as its caller wrote it, absolute), and this root is read-only. False where that can't be
    /// told for sure: by a path with `..`, or through another mount.
    pub(super) fn lacks(&self, path: &[u8]) -> bool {
        let Some((folder, name)) = split(path) else { return false };
        self.looked_up(&folder, name).unwrap_or(false)
    }

    fn looked_up(&self, folder: &Path, name: &OsStr) -> Result<bool, Errno> {
        // Links of the root's own are as fixed as the rest of it.
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        let folder = openat2(&self.0, folder, OpenHow::new().flags(FOLDER).resolve(resolve))?;
        if !fstatvfs(&folder)?.flags().contains(FsFlags::ST_RDONLY) {
            return Ok(false);
        }
        match fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(true),
            Ok(_) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

const FOLDER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Its folder and last name; `None` for the root, and for what only the kernel's own walk can tell.
fn split(path: &[u8]) -> Option<(PathBuf, &OsStr)> {
    let mut names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let last = names.next_back()?;
    let mut folder = PathBuf::from("/");
    for name in names {
        if name == b".." {
            return None;
        }
        folder.push(OsStr::from_bytes(name));
    }
    (last != b".." && path.starts_with(b"/")).then(|| (folder, OsStr::from_bytes(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_by_its_bytes_and_one_that_climbs_is_left_to_the_kernel() {
        let parts = |path: &'static [u8]| split(path).map(|(f, n)| (f.display().to_string(), n.as_bytes().to_vec()));
        assert_eq!(parts(b"/run//./app.pid/"), Some(("/run".into(), b"app.pid".to_vec())));
        assert_eq!(parts(b"/\xff"), Some(("/".into(), b"\xff".to_vec())));
        for odd in [&b"/a/../b"[..], b"/a/..", b"/", b"", b"/./.", b"a/b", b".."] {
            assert_eq!(split(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn nothing_is_said_to_be_absent_from_a_root_that_can_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::of(std::process::id() as i32).expect("this process");
        assert!(!root.lacks(folder.path().join("missing").as_os_str().as_bytes()));
        assert!(!root.lacks(b"/no/such/folder/missing"), "the kernel would have said so itself");
        assert_eq!(Root::of(0).err(), Some(Errno::ENOENT));
    }
}
