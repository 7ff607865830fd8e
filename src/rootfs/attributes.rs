//! A file's or directory's attributes, read from one tree and put on an entry of another.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

use crate::sys::statx::{Instant, Status, statx};
use crate::sys::{proc_fd, xattr};

/// Owner, mode, times and extended attributes.
#[derive(Debug, Clone)]
pub struct Attributes {
    /// What statx(2) says, its type included.
    pub status: Status,
    /// Extended attributes, POSIX ACLs among them; none of overlayfs's own.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

/// Whether an extended attribute is overlayfs's own bookkeeping, which means something else on another layer.
#[must_use]
pub fn is_overlay_private(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"trusted.overlay.") || name.as_bytes().starts_with(b"user.overlay.")
}

impl Attributes {
    /// Reads them of an open file, which may be `O_PATH`.
    ///
    /// # Errors
    /// What the filesystem says.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self> {
        let status = statx(fd).context("failed to read attributes")?;
        let mut xattrs = Vec::new();
        for name in xattr::list(fd).context("failed to list extended attributes")? {
            if is_overlay_private(&name) {
                continue;
            }
            let value = xattr::get(fd, &name)
                .with_context(|| format!("failed to read extended attribute {}", name.display()))?;
            xattrs.extend(value.map(|value| (name, value)));
        }
        Ok(Self { status, xattrs })
    }

    /// Puts them on an open file (`O_PATH` will do) of the same type, times last. Names of extended attributes that the
    /// filesystem does not keep (a tmpfs before Linux 6.6 keeps no `user.*`) are returned.
    ///
    /// # Errors
    /// What the filesystem says, for all but EOPNOTSUPP of an extended attribute.
    pub fn put(&self, fd: BorrowedFd<'_>) -> Result<Vec<OsString>> {
        let (uid, gid) = (Uid::from_raw(self.status.uid), Gid::from_raw(self.status.gid));
        fchownat(fd, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH).context("failed to set the owner")?;
        let name = proc_fd::path(fd);
        if self.status.kind() != libc::S_IFLNK {
            let mode = Mode::from_bits_truncate(self.status.mode & 0o7777);
            fchmodat(AT_FDCWD, name.as_str(), mode, FchmodatFlags::FollowSymlink).context("failed to set the mode")?;
        }
        let mut lost = Vec::new();
        for (key, value) in &self.xattrs {
            match xattr::set(fd, key, value) {
                Ok(()) => {}
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => lost.push(key.clone()),
                Err(e) => {
                    return Err(e).with_context(|| format!("failed to set extended attribute {}", key.display()));
                }
            }
        }
        self.put_times(fd)?;
        Ok(lost)
    }

    /// Puts the times of access and modification on an open file.
    ///
    /// # Errors
    /// What utimensat(2) says.
    pub fn put_times(&self, fd: BorrowedFd<'_>) -> Result<()> {
        let time = |at: Instant| TimeSpec::new(at.secs, i64::from(at.nanos));
        let (accessed, modified) = (time(self.status.accessed), time(self.status.modified));
        utimensat(AT_FDCWD, proc_fd::path(fd.as_fd()).as_str(), &accessed, &modified, UtimensatFlags::FollowSymlink)
            .context("failed to set the times")
    }
}
