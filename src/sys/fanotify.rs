//! fanotify(7) groups that report file handles, and open_by_handle_at(2) that turns a handle back into a directory.
//!
//! Owns: the calls and their flags. Must not: interpret events.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What a group reports beside the directory and the name; newer kernels can do more (fanotify_init(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reports {
    /// `FAN_REPORT_TARGET_FID` (Linux 5.17): the handle of the object itself as well; with it comes `FAN_RENAME`,
    /// one event that has both names.
    pub target_and_rename: bool,
}

/// Opens a non-blocking notification group that reports directory handle and name (`FAN_REPORT_DFID_NAME`, Linux 5.9).
///
/// # Errors
/// `EMFILE` at `fs.fanotify.max_user_groups` or the process's descriptor limit, `EPERM` without CAP_SYS_ADMIN, `ENOSYS`
/// without CONFIG_FANOTIFY, `EINVAL` when the kernel does not know a flag (fanotify_init(2)).
pub fn init(reports: Reports) -> io::Result<OwnedFd> {
    let mut flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_REPORT_DFID_NAME;
    if reports.target_and_rename {
        flags |= libc::FAN_REPORT_FID | libc::FAN_REPORT_TARGET_FID;
    }
    // SAFETY: fanotify_init takes two integers and touches no memory of ours.
    let fd = unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC) as libc::c_uint) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Marks the whole filesystem that `object` is on: every mount of it, in every mount namespace (Linux 4.20).
///
/// # Errors
/// `ENODEV` or `EOPNOTSUPP` when the filesystem can't give file handles or has no identity, `EXDEV` in a btrfs
/// subvolume, `ENOSPC` at `fs.fanotify.max_user_marks`, `EINVAL` for an unknown event (fanotify_mark(2)).
pub fn mark_filesystem(group: BorrowedFd<'_>, object: BorrowedFd<'_>, events: u64) -> io::Result<()> {
    // SAFETY: a null path means that `object` itself is marked; both descriptors are open for the whole call.
    let result = unsafe {
        libc::fanotify_mark(
            group.as_raw_fd(),
            libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM,
            events,
            object.as_raw_fd(),
            std::ptr::null(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Largest handle that the kernel gives, in bytes (`MAX_HANDLE_SZ`, linux/fanotify.h and open_by_handle_at(2)).
const MAX_HANDLE_BYTES: usize = 128;

/// The kernel's `struct file_handle` with room for the largest handle.
#[repr(C)]
struct FileHandle {
    bytes: u32,
    kind: i32,
    data: [u8; MAX_HANDLE_BYTES],
}

unsafe extern "C" {
    /// open_by_handle_at(2), of glibc 2.14 and musl 1.0; the libc crate has it for some targets only.
    fn open_by_handle_at(mount_fd: libc::c_int, handle: *mut FileHandle, flags: libc::c_int) -> libc::c_int;
}

/// Opens (as `O_PATH`) what `handle` names on the filesystem of `mount`. `kind` and `data` come from a fanotify event.
///
/// # Errors
/// `ESTALE` when the object is gone, `EPERM` without CAP_DAC_READ_SEARCH, `EINVAL` for a handle that is too long
/// (open_by_handle_at(2)).
pub fn open_handle(mount: BorrowedFd<'_>, kind: i32, data: &[u8]) -> io::Result<OwnedFd> {
    if data.len() > MAX_HANDLE_BYTES {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut handle = FileHandle { bytes: data.len() as u32, kind, data: [0; MAX_HANDLE_BYTES] };
    handle.data[..data.len()].copy_from_slice(data);
    // SAFETY: `handle` has the layout of struct file_handle, `bytes` does not exceed `data`, and it lives over the call.
    let fd = unsafe { open_by_handle_at(mount.as_raw_fd(), &mut handle, libc::O_PATH | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
