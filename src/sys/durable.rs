//! The one way to write a file that must survive a crash whole: a temporary file in the same folder, fsync, rename,
//! fsync of the folder. Must not: follow a symbolic link at the file's own name.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::random;

/// Replaces or creates `path` with `bytes`; a reader sees the old content or the new, never a part.
///
/// A file that exists keeps its permissions and owner; a new one gets `mode` (e.g. `0o600`), whatever the umask.
///
/// # Errors
/// When the folder can't be opened or written, or `path` has no file name. Nothing is left behind.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path has no file name"))?;
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    write_in(File::open(parent)?.as_fd(), Path::new(name), bytes, mode)
}

/// As [`write()`], for the single name `name` in an open folder.
///
/// # Errors
/// As [`write()`]; `InvalidInput` when `name` is more than one component or names something that is no regular file.
pub fn write_in(dir: BorrowedFd<'_>, name: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if name.components().count() != 1 || name.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "name is not a single path component"));
    }
    let (mode, owner) = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(old) if old.st_mode & libc::S_IFMT == libc::S_IFREG => {
            (old.st_mode & 0o7777, Some((old.st_uid, old.st_gid)))
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "target is not a regular file")),
        Err(nix::Error::ENOENT) => (mode, None),
        Err(e) => return Err(e.into()),
    };
    let temp = format!(".lithify-{}", random::hex(8)?);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(dir, temp.as_str(), flags, Mode::from_bits_truncate(0o600))?);
    let written = (|| -> io::Result<()> {
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        fchmod(&file, Mode::from_bits_truncate(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        renameat(dir, temp.as_str(), dir, name)?;
        Ok(())
    })();
    if let Err(e) = written {
        // The first error is the one to tell; a left-over name is only untidy.
        let _ = unlinkat(dir, temp.as_str(), UnlinkatFlags::NoRemoveDir);
        return Err(e);
    }
    sync_dir(dir)
}

/// Makes names created, renamed or removed in an open folder durable (fsync(2) on a directory).
///
/// # Errors
/// When the folder can't be reopened or the disk fails.
pub fn sync_dir(dir: BorrowedFd<'_>) -> io::Result<()> {
    // The descriptor may be O_PATH, which can't be synced: open the same folder for reading.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    File::from(openat(dir, ".", flags, Mode::empty())?).sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_owner_and_leaves_no_temporary_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
        write(&path, b"new", 0o600).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 12, 34));
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_symbolic_link_in_the_files_place_is_refused_and_its_target_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join("link")).unwrap();
        assert!(write(&dir.path().join("link"), b"new", 0o600).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
    }

    #[test]
    fn a_new_file_has_exactly_the_mode_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("f"), b"x", 0o644).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("f")).unwrap().mode() & 0o7777, 0o644);
    }
}
