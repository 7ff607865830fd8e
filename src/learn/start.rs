//! Forking a collector.
//!
//! Owns: what the new process has of its parent: the socket, and nothing else. Must not: decide anything.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result};

use super::collector;
use super::subject::Subject;
use crate::sys::process::{self, Fork};
use crate::sys::{fds, socket};

/// A collector that was started. Dropping it ends the collector, unless the subject is unattended.
#[derive(Debug)]
pub struct Handle {
    /// The collector; a child of the process that started it.
    pub pid: i32,
    /// [`super::Request`]s go in, [`super::Reply`]s come out (`SOCK_SEQPACKET`, close-on-exec).
    pub socket: OwnedFd,
}

/// Forks the collector of one container. It opens the sensor at once, while the caller goes on.
///
/// Only for a process with one thread.
///
/// # Errors
/// `EMFILE`, `EAGAIN`: when there is no socket or no process to be had.
pub fn start(subject: Subject) -> Result<Handle> {
    let (ours, theirs) = socket::pair().context("failed to make a socket pair for the collector")?;
    match process::fork().context("failed to fork the collector")? {
        Fork::Parent(pid) => Ok(Handle { pid, socket: ours }),
        Fork::Child => {
            drop(ours);
            process::set_name(COMM);
            let _ = nix::unistd::setsid();
            if subject.covered
                && let Ok(first) = std::fs::File::open("/proc/1/ns/mnt")
            {
                // Without it the root's writable layer is not found, which the observation then says.
                let _ = nix::sched::setns(first, nix::sched::CloneFlags::CLONE_NEWNS);
            }
            // The engine waits for its pipes to be closed, and the rest belongs to the caller's frames, which never return here.
            if let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") {
                for number in 0..3 {
                    let _ = fds::dup_to(null.as_fd(), number);
                }
                drop(null);
            }
            let _ = fds::close_all_except(&[0, 1, 2, theirs.as_raw_fd()]);
            let _ = std::env::set_current_dir("/");
            collector::run(subject, theirs);
            process::exit_now(0)
        }
    }
}

/// `/proc/<pid>/comm` of a collector.
pub const COMM: &str = "lithify-learn";
