//! File descriptors: duplicating, closing ranges, references that keep a pipe reopenable without holding it open.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// `/proc/self/fd/<fd>`: the path by which the kernel reaches what an open descriptor stands for (proc_pid_fd(5)).
pub fn fd_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// An inherited descriptor, without owning it. `None` when it is not open.
pub fn borrow_inherited(fd: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: fcntl takes no pointer here; a descriptor that the caller handed over at exec stays open for as long as
    // nobody closes it, and this process closes such descriptors only by `close_all_except`, after the last use.
    unsafe { if libc::fcntl(fd, libc::F_GETFD) < 0 { None } else { Some(BorrowedFd::borrow_raw(fd)) } }
}

/// Opens `/dev/null` where descriptors 0 to 2 are closed, close-on-exec: otherwise the next files to be opened would be
/// taken for standard streams, while what we become finds them closed as they were.
pub fn fill_standard() {
    for fd in 0..3 {
        // SAFETY: no pointers but to a constant C string. A closed number has no owner; it stays open until exec.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) < 0 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
            }
        }
    }
}

/// Duplicates onto a given number, not close-on-exec (dup2(2)).
///
/// # Errors
/// `EBADF`.
pub fn dup_to(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: no pointers. What was open at `target` is closed, which callers intend: they use the numbers 0..=2 and
    // those after them only between fork and exec.
    if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Duplicates to the lowest free number that is at least `least`, close-on-exec (`F_DUPFD_CLOEXEC`).
///
/// # Errors
/// `EMFILE`.
pub fn dup_above(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a non-negative result is a new descriptor that nobody else owns.
    unsafe {
        let new = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least);
        if new < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(new)) }
    }
}

/// Whether a descriptor is closed at exec.
pub fn is_cloexec(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
}

/// Sets or clears close-on-exec.
///
/// # Errors
/// `EBADF`.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flag = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: no pointers.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flag) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Closes every descriptor of this process except those named (close_range(2), Linux 5.9).
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_all_except(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| *fd as u32).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut next = 0u32;
    for fd in keep.into_iter().map(Some).chain([None]) {
        let last = fd.map_or(u32::MAX, |fd| fd.wrapping_sub(1));
        if fd.is_none_or(|fd| fd > next) {
            // SAFETY: no pointers. The caller names every descriptor that still has an owner.
            if unsafe { libc::syscall(libc::SYS_close_range, next, last, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if let Some(fd) = fd {
            next = fd + 1;
        }
    }
    Ok(())
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2) with `CLOSE_RANGE_CLOEXEC`, Linux 5.11).
///
/// # Errors
/// `ENOSYS`, `EINVAL` on older kernels.
pub fn cloexec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes ownership of a descriptor that a call has just returned.
pub fn own(fd: RawFd) -> OwnedFd {
    debug_assert!(fd >= 0);
    // SAFETY: callers pass the fresh result of a call that gives a new descriptor, once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
