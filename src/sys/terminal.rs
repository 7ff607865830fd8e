//! Terminals: window size and output translation (tty_ioctl(4), termios(3)).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};

/// Gives one terminal the window size of another. Nothing happens if the first is none.
pub fn copy_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    // SAFETY: winsize is plain data for which all-zero is a value, and it lives over both calls.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(from.as_raw_fd(), libc::TIOCGWINSZ, &mut size) == 0 {
            libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, &size);
        }
    }
}

/// Turns `\n` → `\r\n` off on a container's terminal: the caller's own does that already.
pub fn no_output_translation(terminal: BorrowedFd<'_>) {
    if let Ok(mut settings) = tcgetattr(terminal) {
        settings.output_flags.remove(OutputFlags::ONLCR);
        let _ = tcsetattr(terminal, SetArg::TCSANOW, &settings);
    }
}
