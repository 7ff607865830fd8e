//! The listener's side of seccomp's user notification (seccomp_unotify(2), Linux 5.0): refused calls are read from a
//! descriptor, and their callers wait for the answer.
//!
//! Owns: the three requests and the structures that they take. Must not: decide any answer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The 32-bit interface of x86 (`AUDIT_ARCH_I386`, linux/audit.h).
pub const ARCH_I386: u32 = 0x4000_0003;
/// The 64-bit one (`AUDIT_ARCH_X86_64`).
pub const ARCH_X86_64: u32 = 0xc000_003e;

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// Names it among those of its descriptor.
    pub id: u64,
    /// The calling thread, in our pid namespace; 0 where it has no pid there.
    pub tid: i32,
    /// Its interface, an `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Its number in that interface.
    pub number: u32,
    /// As the kernel had them when the call was made.
    pub arguments: [u64; 6],
}

mod requests {
    #![allow(missing_docs)] // Written by macros.
    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, libc::seccomp_notif_resp);
    nix::ioctl_write_ptr!(id_valid, b'!', 2, u64);
}

/// Takes the next call. Only for a descriptor that poll(2) says is readable, else it waits. `None`: its caller has gone or
/// was interrupted in between.
///
/// # Errors
/// `EBADF` and the like for what is no such descriptor.
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<Option<Notification>> {
    // SAFETY: the structure is plain data for which all-zero is a value, which the kernel asks for.
    let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives over the call and has the size that the request's number says.
    match unsafe { requests::receive(listener.as_raw_fd(), &mut raw) } {
        Ok(_) => Ok(Some(Notification {
            id: raw.id,
            tid: raw.pid as i32,
            arch: raw.data.arch,
            number: raw.data.nr as u32,
            arguments: raw.data.args,
        })),
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a call still waits: what was read of its caller by pid meanwhile was of this caller, then.
pub fn waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the number lives over the call; the kernel only reads it.
    unsafe { requests::id_valid(listener.as_raw_fd(), &id) }.is_ok()
}

/// Answers a call with an error.
///
/// # Errors
/// `ENOENT` when the caller has gone or was interrupted.
pub fn refuse(listener: BorrowedFd<'_>, id: u64, errno: i32) -> io::Result<()> {
    let mut raw = libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 };
    // SAFETY: the structure lives over the call and has the size that the request's number says.
    unsafe { requests::send(listener.as_raw_fd(), &mut raw) }?;
    Ok(())
}

/// Lets a call go on as if it had never been asked about (Linux 5.5).
///
/// # Errors
/// `ENOENT` when the caller has gone or was interrupted.
pub fn let_go_on(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let mut raw = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
    // SAFETY: the structure lives over the call and has the size that the request's number says.
    unsafe { requests::send(listener.as_raw_fd(), &mut raw) }?;
    Ok(())
}

/// Whether a descriptor is a listener: what else a peer sends is none.
pub fn is_listener(fd: BorrowedFd<'_>) -> bool {
    let link = std::fs::read_link(super::proc_fd::path(fd));
    link.is_ok_and(|link| link.as_os_str() == "anon_inode:seccomp notify")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_numbers_and_structures_its_sizes() {
        assert_eq!(size_of::<libc::seccomp_notif>(), 80);
        assert_eq!(size_of::<libc::seccomp_notif_resp>(), 24);
        assert_eq!(nix::request_code_readwrite!(b'!', 0, size_of::<libc::seccomp_notif>()), 0xc050_2100);
        assert_eq!(nix::request_code_readwrite!(b'!', 1, size_of::<libc::seccomp_notif_resp>()), 0xc018_2101);
        assert_eq!(nix::request_code_write!(b'!', 2, size_of::<u64>()), 0x4008_2102);
    }

    #[test]
    fn what_is_no_listener_is_not_taken_for_one() {
        use std::os::fd::AsFd;
        let file = std::fs::File::open("/proc/self/maps").expect("opened");
        assert!(!is_listener(file.as_fd()));
        assert!(receive(file.as_fd()).is_err());
        assert!(refuse(file.as_fd(), 1, libc::EPERM).is_err());
        assert!(!waits(file.as_fd(), 1));
    }
}
