//! What a supervisor waits with. Every wait answers refused calls meanwhile: whoever is waited for may be waiting for that.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::companion::Companion;
use super::machine::Phase;
use super::supervisor::Supervisor;
use crate::look;
use crate::sys::memory;
use crate::sys::process;
use crate::sys::socket;

/// How long nothing has to happen before a supervisor gives back what it does not need for waiting.
const SETTLING: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Sleeps until something happens. Idle, nothing does.
    pub(super) fn wait(&mut self) {
        let quiet = self.next_deadline().is_none().then_some(SETTLING);
        if self.sleep(quiet.filter(|_| self.restless)) == 0 && self.restless && quiet.is_some() {
            settle_down();
            self.restless = false;
            self.sleep(None);
        }
        self.restless = true;
    }

    /// Sleeps until something happens, the next deadline, or at most for a time; says how much has happened.
    fn sleep(&self, at_most: Option<Duration>) -> usize {
        let (watched, mounts) = self.watches.fds();
        let readable = [self.signals.as_fd(), self.anchor.socket.as_fd(), self.control.as_fd()].into_iter();
        let readable = readable.chain(self.init.iter().map(|i| i.pidfd.as_fd()));
        let readable = readable.chain(self.clients.iter().map(|c| c.socket.as_fd())).chain(watched);
        let readable = readable.chain(self.companion.iter().map(Companion::as_fd)).chain(self.guarding.fd());
        let mut fds: Vec<(BorrowedFd<'_>, PollFlags)> = readable.map(|fd| (fd, PollFlags::POLLIN)).collect();
        fds.extend(mounts.map(|fd| (fd, PollFlags::POLLPRI)));
        let deadline = self.next_deadline().map(|at| at.saturating_sub(self.now()) + Duration::from_millis(1));
        let timeout = [deadline, at_most].into_iter().flatten().min();
        let ready = self.wait_on(&fds, timeout).unwrap_or_default();
        ready.iter().filter(|flags| !flags.is_empty()).count() + usize::from(self.has_met_refusals())
    }

    fn next_deadline(&self) -> Option<Duration> {
        let backoff = match self.machine.phase {
            Phase::Backoff(at) => Some(at),
            Phase::Created | Phase::Running | Phase::Paused | Phase::Ended => None,
        };
        [self.renew_at, backoff, self.storm.due(), self.tally.due(), self.held_until()].into_iter().flatten().min()
    }

    /// The one wait: until one of the descriptors has what it is waited for, refused calls had to be answered, or a time has
    /// gone by; `None` waits for ever. What each descriptor has, in their order.
    pub(super) fn wait_on(
        &self,
        fds: &[(BorrowedFd<'_>, PollFlags)],
        timeout: Option<Duration>,
    ) -> Result<Vec<PollFlags>, Errno> {
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis().min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX)
        });
        let (flags, calls) = {
            let inbox = self.inbox.borrow();
            let mut polled: Vec<PollFd<'_>> = fds.iter().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
            polled.extend(inbox.gate.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            poll(&mut polled, timeout)?;
            let flags = |fd: &PollFd<'_>| fd.revents().unwrap_or(PollFlags::empty());
            let (given, gate) = polled.split_at(fds.len());
            (given.iter().map(flags).collect(), gate.iter().any(|fd| !flags(fd).is_empty()))
        };
        if calls {
            self.serve();
        }
        Ok(flags)
    }

    /// Waits until one of the descriptors is readable or hung up; false at the deadline.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn wait_readable(&self, fds: &[BorrowedFd<'_>], deadline: Instant) -> Result<bool> {
        let polled: Vec<(BorrowedFd<'_>, PollFlags)> = fds.iter().map(|fd| (*fd, PollFlags::POLLIN)).collect();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            match self.wait_on(&polled, Some(left.max(Duration::from_millis(1)))) {
                Ok(ready) if ready.iter().any(|flags| !flags.is_empty()) => return Ok(true),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("failed to wait"),
            }
        }
    }
}

/// Whether the other end of a socket is closed.
pub(super) fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLHUP))
}

pub(super) enum Heard {
    Nothing,
    Gone,
    Message(Vec<u8>),
}

pub(super) fn receive_now(fd: BorrowedFd<'_>) -> Heard {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    if !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0) {
        return Heard::Nothing;
    }
    match socket::receive(fd) {
        Ok((message, _)) if message.is_empty() => Heard::Gone,
        Ok((message, _)) => Heard::Message(message),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Heard::Nothing,
        Err(_) => Heard::Gone,
    }
}

/// A supervisor lives for months and has nothing to do: it keeps no page that waiting does not need.
pub(super) fn settle_down() {
    look::rest();
    process::trim_heap();
    memory::release_code();
}
