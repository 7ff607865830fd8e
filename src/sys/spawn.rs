//! Starting a program with exactly the descriptors, mask and dispositions it is meant to have.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::fds;
use super::process::{Fork, exit_now, fork, pidfd_open, set_parent_death_signal};
use super::signals::Mask;

/// A child that was started: its pid and a descriptor that names it for good.
#[derive(Debug)]
pub struct Child {
    /// Pid; ours to reap.
    pub pid: i32,
    /// pidfd of it.
    pub pidfd: OwnedFd,
}

/// What to start, and how.
pub struct Spawn<'a> {
    /// Program, absolute.
    pub program: &'a Path,
    /// Arguments after the program's name.
    pub args: &'a [&'a OsStr],
    /// Descriptors 0, 1, 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Descriptors from 3 on; nothing else is inherited.
    pub extra: Vec<BorrowedFd<'a>>,
    /// Signal mask of the child.
    pub mask: Mask,
    /// Signal it gets when we end; 0 for none.
    pub parent_death_signal: i32,
    /// Descriptors from 3 on are passed by systemd's protocol: `LISTEN_PID` is to be the child's (sd_listen_fds(3)).
    pub listening: bool,
}

impl Spawn<'_> {
    /// Starts it, with this process's environment and working directory.
    ///
    /// # Errors
    /// When the fork fails; a program that can't be executed ends with status 127 and says so on its stderr.
    pub fn start(self) -> io::Result<Child> {
        let program = c_string(self.program.as_os_str())?;
        let mut args = vec![program.clone()];
        for arg in self.args {
            args.push(c_string(arg)?);
        }
        match fork()? {
            Fork::Parent(pid) => Ok(Child { pid, pidfd: pidfd_open(pid)? }),
            Fork::Child => {
                let error = match self.arrange() {
                    Ok(()) => exec(&program, &args),
                    Err(error) => error,
                };
                let text = format!("lithify: failed to start {}: {error}\n", self.program.display());
                let _ = nix::unistd::write(self.stdio[2], text.as_bytes());
                exit_now(127)
            }
        }
    }

    /// In the child: puts every descriptor at its number, in two steps so that none is overwritten before it is copied.
    fn arrange(&self) -> io::Result<()> {
        if self.listening {
            // SAFETY: after a fork of a process with one thread nobody else reads the environment.
            unsafe { std::env::set_var("LISTEN_PID", std::process::id().to_string()) };
        }
        if self.parent_death_signal != 0 {
            set_parent_death_signal(self.parent_death_signal)?;
        }
        let all: Vec<BorrowedFd<'_>> = self.stdio.iter().chain(&self.extra).copied().collect();
        let above = all.len() as i32;
        let copies = all.iter().map(|fd| fds::dup_above(*fd, above)).collect::<io::Result<Vec<_>>>()?;
        for (number, copy) in copies.iter().enumerate() {
            fds::dup_to(copy.as_fd(), number as i32)?;
        }
        fds::cloexec_from(above)?;
        std::mem::forget(copies);
        self.mask.restore();
        Ok(())
    }
}

fn c_string(word: &OsStr) -> io::Result<CString> {
    CString::new(word.as_bytes()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "argument with a NUL byte"))
}

/// Replaces this process, keeping environment, working directory and every descriptor that is not close-on-exec
/// (execve(2)). Returns only the error.
pub fn exec_program(program: &Path, args: &[&OsStr]) -> io::Error {
    let words = || -> io::Result<(CString, Vec<CString>)> {
        let program = c_string(program.as_os_str())?;
        let mut words = vec![program.clone()];
        for arg in args {
            words.push(c_string(arg)?);
        }
        Ok((program, words))
    };
    match words() {
        Ok((program, words)) => exec(&program, &words),
        Err(error) => error,
    }
}

fn exec(program: &CString, args: &[CString]) -> io::Error {
    let mut pointers: Vec<*const libc::c_char> = args.iter().map(|a| a.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: both are terminated strings in a null-terminated array that live over the call; `environ` is libc's own.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// The raw numbers of descriptors, for `close_all_except`.
pub fn numbers(fds: &[BorrowedFd<'_>]) -> Vec<i32> {
    fds.iter().map(|fd| fd.as_raw_fd()).collect()
}
