//! An open file named by its descriptor: `/proc/self/fd/N` (proc_pid_fd(5)).
//!
//! The kernel follows such a name to the very object that was opened, so there is nothing to escape in it and no time
//! between looking and using in which the object could be another one.

use std::fmt::Write as _;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// The name of an open file for calls that take a path; it is good for as long as the descriptor is open.
pub fn path(fd: BorrowedFd<'_>) -> String {
    let mut text = String::from("/proc/self/fd/");
    let _ = write!(text, "{}", fd.as_raw_fd());
    text
}

/// Opens the object of an `O_PATH` descriptor once more, with other flags; `O_CLOEXEC` is added.
///
/// # Errors
/// What open(2) says; ENOENT where /proc is not mounted.
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    open(path(fd).as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
}
