//! Signals: blocking them and reading them from a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One signal read from a [`SignalFd`] (signalfd_siginfo).
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Number.
    pub signal: i32,
    /// Who sent it, 0 for the kernel.
    pub sender: i32,
}

/// All signals of this process, blocked and readable (signalfd(2)).
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks every signal that can be blocked and opens a descriptor that reads them.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn all() -> io::Result<SignalFd> {
        // SAFETY: the set lives over the calls; a non-negative result is a new descriptor that nobody else owns.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut set);
            // Faults of our own must end us, not wait unread while the instruction repeats.
            for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP] {
                libc::sigdelset(&mut set, fault);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
            let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(SignalFd(OwnedFd::from_raw_fd(fd))) }
        }
    }

    /// The next pending signal, `None` when there is none. Never blocks.
    pub fn next(&self) -> Option<Received> {
        // SAFETY: the structure is plain data and the length is its own.
        unsafe {
            let mut info: libc::signalfd_siginfo = std::mem::zeroed();
            let size = std::mem::size_of::<libc::signalfd_siginfo>();
            let n = libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size);
            (n == size as isize).then_some(Received { signal: info.ssi_signo as i32, sender: info.ssi_pid as i32 })
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The mask of blocked signals this process was started with, to hand on to what it starts.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

impl Mask {
    /// The mask in force now (sigprocmask(2)).
    pub fn current() -> Mask {
        // SAFETY: with a null new set the call only reads.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_SETMASK, std::ptr::null(), &mut set);
            Mask(set)
        }
    }

    /// Puts this mask in force.
    pub fn restore(&self) {
        // SAFETY: the set was filled in by the kernel.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// Whether a signal is ignored by this process (sigaction(2)).
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: with a null new action the call only reads.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Ignores a signal, or puts its default action back.
pub fn set_ignored(signal: i32, ignored: bool) {
    let action = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither action runs code of ours.
    unsafe { libc::signal(signal, action) };
}
