//! The listener of a measurement: lets every call go on, and writes down whose it is.
//!
//! Owns: the two sockets that a low-level runtime connects to, the descriptors it hands over, every wait. Must not: start
//! anything.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::profile::syscalls;
use crate::sys::{seccomp, socket};

/// Most connections that wait, and most descriptors that are held: a measurement makes a dozen.
const MAX_HELD: usize = 64;

/// See the module.
pub struct Listener {
    refusals: UnixListener,
    consoles: UnixListener,
    /// Connections of the first socket, until their message is here.
    callers: Vec<OwnedFd>,
    /// Connections of the second, and terminals: open until a container has ended.
    terminals: Vec<OwnedFd>,
    filters: Vec<OwnedFd>,
    /// Device and inode of the workload's program: what it calls is not the runtime's need.
    workload: (u64, u64),
    seen: BTreeSet<String>,
    handed_over: usize,
    deadline: Instant,
}

impl Listener {
    /// Listens at two paths. Every wait ends at `deadline`.
    ///
    /// # Errors
    /// When they can't be bound, or the workload's program is not there.
    pub fn new(refusals: &Path, consoles: &Path, workload: &Path, deadline: Instant) -> Result<Listener> {
        let facts = std::fs::metadata(workload).context("failed to look at the program")?;
        let bind = |at: &Path| UnixListener::bind(at).with_context(|| format!("failed to listen at {}", at.display()));
        Ok(Listener {
            refusals: bind(refusals)?,
            consoles: bind(consoles)?,
            callers: Vec::new(),
            terminals: Vec::new(),
            filters: Vec::new(),
            workload: (facts.dev(), facts.ino()),
            seen: BTreeSet::new(),
            handed_over: 0,
            deadline,
        })
    }

    /// What was called since this was asked last.
    pub fn take_seen(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.seen)
    }

    /// How many descriptors were ever handed over.
    pub fn handed_over(&self) -> usize {
        self.handed_over
    }

    /// Serves until `done` says so and nothing waits. It is asked after each thing that happens, and every few milliseconds;
    /// `also` wakes it.
    ///
    /// # Errors
    /// When the deadline has come, or a call can't be answered.
    pub fn serve_until(&mut self, also: Option<BorrowedFd<'_>>, mut done: impl FnMut() -> bool) -> Result<()> {
        loop {
            let is_done = done();
            if self.serve_once(also, is_done)? && is_done {
                return Ok(());
            }
            ensure!(is_done || Instant::now() < self.deadline, "it did not end in time");
        }
    }

    /// Serves what is there, after a while if nothing is; true if nothing was.
    fn serve_once(&mut self, also: Option<BorrowedFd<'_>>, at_once: bool) -> Result<bool> {
        let ready = self.wait(also, at_once)?;
        let (own, rest) = ready.split_at(2);
        let (callers, filters) = rest.split_at(self.callers.len());
        // Backwards, so that the numbers of those before stay what they are.
        for (number, events) in filters.iter().enumerate().rev() {
            if events.contains(PollFlags::POLLIN) {
                self.answer(number)?;
            } else if !events.is_empty() {
                self.filters.remove(number);
            }
        }
        for (number, _) in callers.iter().enumerate().rev().filter(|(_, events)| !events.is_empty()) {
            let caller = self.callers.remove(number);
            let (_, handed) = socket::receive(caller.as_fd()).context("failed to take a descriptor")?;
            self.handed_over += handed.len();
            self.filters.extend(handed);
        }
        if !own[0].is_empty() {
            let (caller, _) = self.refusals.accept().context("failed to accept a connection")?;
            self.callers.push(caller.into());
        }
        if !own[1].is_empty() {
            let (caller, _) = self.consoles.accept().context("failed to accept a connection")?;
            let caller = OwnedFd::from(caller);
            let (_, terminals) = socket::receive(caller.as_fd()).context("failed to take a terminal")?;
            self.terminals.extend(terminals);
        }
        let held = self.callers.len() + self.terminals.len() + self.filters.len();
        ensure!(held <= MAX_HELD, "more than {MAX_HELD} descriptors were handed over");
        Ok(ready.iter().all(PollFlags::is_empty))
    }

    /// What is ready: the two sockets, the callers, the filters.
    fn wait(&self, also: Option<BorrowedFd<'_>>, at_once: bool) -> Result<Vec<PollFlags>> {
        // What no descriptor tells (a process that is gone, another program in it) is looked at this often.
        const GLANCE_MS: u8 = 20;
        let ours = [self.refusals.as_fd(), self.consoles.as_fd()];
        let held = self.callers.iter().chain(&self.filters).map(AsFd::as_fd);
        let all = ours.into_iter().chain(held).chain(also);
        let mut polled: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::from(if at_once { 0 } else { GLANCE_MS })) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e).context("failed to wait"),
        }
        let flags = |fd: &PollFd<'_>| fd.revents().unwrap_or(PollFlags::empty());
        let count = polled.len() - usize::from(also.is_some());
        Ok(polled[..count].iter().map(flags).collect())
    }

    fn answer(&mut self, number: usize) -> Result<()> {
        let filter = self.filters[number].as_fd();
        let Some(call) = seccomp::receive(filter).context("failed to take a call")? else { return Ok(()) };
        let program = PathBuf::from(format!("/proc/{}/exe", call.tid));
        let is_workload = std::fs::metadata(program).is_ok_and(|m| (m.dev(), m.ino()) == self.workload);
        if !is_workload {
            self.seen.insert(syscalls::name(call.arch == seccomp::ARCH_I386, call.number));
        }
        // A caller that was interrupted or killed meanwhile waits for no answer; its call counts.
        match seccomp::let_go_on(filter, call.id) {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e).context("failed to let a call go on"),
            _ => Ok(()),
        }
    }
}
