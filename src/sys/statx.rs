//! statx(2), Linux 4.11; `STX_MNT_ID` is 5.8, birth time where the filesystem keeps one.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime};

/// What statx(2) tells of an open file.
#[derive(Debug, Clone)]
pub struct Status {
    /// Type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of it.
    pub links: u32,
    /// Size in bytes.
    pub size: u64,
    /// Inode number.
    pub ino: u64,
    /// Device it is on: major, minor.
    pub dev: (u32, u32),
    /// Device that a device file stands for: major, minor.
    pub rdev: (u32, u32),
    /// Last access.
    pub accessed: Instant,
    /// Last change of content.
    pub modified: Instant,
    /// Last change of content or attributes; a program can't set it.
    pub changed: Instant,
    /// When it was made, where the filesystem says.
    pub born: Option<Instant>,
    /// Mount it was reached by, as in the first field of mountinfo; `None` before Linux 5.8.
    pub mount_id: Option<u64>,
}

/// A time as the kernel has it: seconds and nanoseconds since 1970, seconds possibly negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub secs: i64,
    /// Nanoseconds, under 1,000,000,000, counted forward from `secs`.
    pub nanos: u32,
}

impl From<Instant> for SystemTime {
    fn from(at: Instant) -> Self {
        let base = if at.secs >= 0 {
            SystemTime::UNIX_EPOCH + Duration::from_secs(at.secs.unsigned_abs())
        } else {
            SystemTime::UNIX_EPOCH - Duration::from_secs(at.secs.unsigned_abs())
        };
        base + Duration::from_nanos(u64::from(at.nanos))
    }
}

impl Status {
    /// The type bits of `mode` (`S_IFMT`).
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// Whether overlayfs takes it for a deleted name: a character device 0:0.
    #[must_use]
    pub fn is_whiteout(&self) -> bool {
        self.kind() == libc::S_IFCHR && self.rdev == (0, 0)
    }
}

/// Asks for everything [`Status`] holds, of the object that `fd` (which may be `O_PATH`) is.
///
/// # Errors
/// What statx(2) says.
pub fn statx(fd: BorrowedFd<'_>) -> io::Result<Status> {
    ask(fd, c"", libc::AT_EMPTY_PATH)
}

/// The same of a name in the directory `dir`; a link is not followed.
///
/// # Errors
/// What statx(2) says.
pub fn statx_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Status> {
    ask(dir, name, libc::AT_SYMLINK_NOFOLLOW)
}

/// The same as far as the kernel has it in memory: a file system that is far away, or somebody's process, is not asked
/// (`AT_STATX_DONT_SYNC`). Type and mount are always true.
///
/// # Errors
/// What statx(2) says.
pub fn statx_cached(fd: BorrowedFd<'_>) -> io::Result<Status> {
    ask(fd, c"", libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC)
}

fn ask(fd: BorrowedFd<'_>, name: &CStr, flags: i32) -> io::Result<Status> {
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;
    let mut raw = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the name is a C string, the descriptor is borrowed; the buffer has the size of the kernel's struct; all
    // outlive the call.
    let code = unsafe { libc::statx(fd.as_raw_fd(), name.as_ptr(), flags, mask, raw.as_mut_ptr()) };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, for which every bit pattern is valid, and the kernel has filled it.
    let raw = unsafe { raw.assume_init() };
    let at = |t: libc::statx_timestamp| Instant { secs: t.tv_sec, nanos: t.tv_nsec };
    Ok(Status {
        mode: u32::from(raw.stx_mode),
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        links: raw.stx_nlink,
        size: raw.stx_size,
        ino: raw.stx_ino,
        dev: (raw.stx_dev_major, raw.stx_dev_minor),
        rdev: (raw.stx_rdev_major, raw.stx_rdev_minor),
        accessed: at(raw.stx_atime),
        modified: at(raw.stx_mtime),
        changed: at(raw.stx_ctime),
        born: (raw.stx_mask & libc::STATX_BTIME != 0).then(|| at(raw.stx_btime)),
        mount_id: (raw.stx_mask & libc::STATX_MNT_ID != 0).then_some(raw.stx_mnt_id),
    })
}
