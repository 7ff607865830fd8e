//! Refused system calls as a listener gets them (seccomp_unotify(2)).
//!
//! Must not: read what a caller's pointers point to, or decide the answer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `AUDIT_ARCH_X86_64`.
const ARCH_X86_64: u32 = 0xc000_003e;
/// `SECCOMP_IOCTL_NOTIF_RECV`, `_SEND`: `_IOWR('!', 0 and 1, struct)`.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE` (Linux 5.5).
const CONTINUE: u32 = 1;

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Names it for the answer.
    pub id: u64,
    /// Who called: a thread, as our pid namespace numbers it; 0 where it has no number there.
    pub thread: i32,
    /// Its number, in the interface that `compat` says.
    pub number: u32,
    /// It came through the 32-bit interface.
    pub compat: bool,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif`, of which `struct seccomp_data` begins at `number`.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    arch: u32,
    instruction: u64,
    arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// The next call that waits; blocks while there is none (`SECCOMP_IOCTL_NOTIF_RECV`, Linux 5.0).
///
/// # Errors
/// `ENOENT` when the caller ended meanwhile, `EINTR`.
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<Waiting> {
    // The kernel refuses one that is not all zero.
    let mut got = Notification::default();
    // SAFETY: the structure is as large as the request's number says, and lives over the call.
    if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut got) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Waiting {
        id: got.id,
        thread: got.pid as i32,
        number: got.number as u32,
        compat: got.arch != ARCH_X86_64,
        arguments: got.arguments,
    })
}

/// Lets a waiting call go on as if it had never been asked about (Linux 5.5).
///
/// # Errors
/// `ENOENT` when the caller ended or was interrupted meanwhile.
pub fn let_go_on(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    answer(listener, Response { id, value: 0, error: 0, flags: CONTINUE })
}

fn answer(listener: BorrowedFd<'_>, response: Response) -> io::Result<()> {
    // SAFETY: the structure is as large as the request's number says, and lives over the call.
    if unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const response) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

const _: () = assert!(size_of::<Notification>() == 80 && size_of::<Response>() == 24);
