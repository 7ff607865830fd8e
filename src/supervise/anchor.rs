//! The anchor: the process whose pid the engine has. It sits in the container's cgroup and namespaces, waits, and ends as
//! the workload ended.
//!
//! It must not do anything that can fail or be felt: no files, no children but the supervisor, no wake-ups.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::process::{self, Exit};
use crate::sys::signals::SignalFd;
use crate::sys::socket;

/// Namespaces of the container that the anchor lives in. Not `user`, which would take its privileges, and not `pid`, which
/// only a child can enter.
const NAMESPACES: i32 =
    libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWNS;

/// How long what is left is waited for when the container is over: who learnt of it has something to write down.
const LEFT_PATIENCE: Duration = Duration::from_secs(30);
/// The same where all that is left waits for a device or a file system: that may be one of the container's, which never answers.
const STUCK_PATIENCE: Duration = Duration::from_secs(2);
/// How often that is looked at, in milliseconds.
const LOOK_AGAIN_MS: u16 = 200;

/// What the supervisor tells the anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Enter the namespaces of the process whose pidfd comes along, and kill it should the supervisor die.
    Join,
    /// End this way: the workload did.
    End(Exit),
}

impl Order {
    fn encode(self) -> [u8; 5] {
        let (word, number) = match self {
            Order::Join => (b'j', 0),
            Order::End(Exit::Code(code)) => (b'c', code),
            Order::End(Exit::Signal(signal)) => (b's', signal),
        };
        let n = number.to_ne_bytes();
        [word, n[0], n[1], n[2], n[3]]
    }

    fn decode(message: &[u8]) -> Option<Order> {
        let number = i32::from_ne_bytes(message.get(1..5)?.try_into().ok()?);
        match message[0] {
            b'j' => Some(Order::Join),
            b'c' => Some(Order::End(Exit::Code(number))),
            b's' => Some(Order::End(Exit::Signal(number))),
            _ => None,
        }
    }
}

/// What the anchor tells the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// An order was carried out; 0 or an errno.
    Done(i32),
    /// Somebody sent the engine's pid a signal.
    Signal(i32),
}

impl Report {
    fn encode(self) -> [u8; 5] {
        let (word, number) = match self {
            Report::Done(errno) => (b'd', errno),
            Report::Signal(signal) => (b'g', signal),
        };
        let n = number.to_ne_bytes();
        [word, n[0], n[1], n[2], n[3]]
    }

    /// Reads a message of the anchor.
    pub fn decode(message: &[u8]) -> Option<Report> {
        let number = i32::from_ne_bytes(message.get(1..5)?.try_into().ok()?);
        match message[0] {
            b'd' => Some(Report::Done(number)),
            b'g' => Some(Report::Signal(number)),
            _ => None,
        }
    }
}

/// Gives the anchor an order.
///
/// # Errors
/// `EPIPE` when it is gone.
pub fn order(anchor: BorrowedFd<'_>, order: Order, pidfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = pidfd.into_iter().collect();
    socket::send(anchor, &order.encode(), &fds)
}

/// Is the anchor: returns never.
pub fn run(supervisor: OwnedFd, supervisor_pid: i32, signals: SignalFd) -> ! {
    process::set_name("lithify-anchor");
    let mut init: Option<OwnedFd> = None;
    loop {
        let mut fds =
            [PollFd::new(supervisor.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
        while let Some(received) = signals.next() {
            if received.signal != libc::SIGCHLD {
                let _ = socket::send(supervisor.as_fd(), &Report::Signal(received.signal).encode(), &[]);
            }
        }
        if !fds[0].any().unwrap_or(true) {
            continue;
        }
        match socket::receive(supervisor.as_fd()) {
            Ok((message, mut rights)) => match Order::decode(&message) {
                Some(Order::Join) => {
                    let done = match rights.pop() {
                        Some(pidfd) => {
                            let joined = process::setns(pidfd.as_fd(), NAMESPACES);
                            init = Some(pidfd);
                            joined
                        }
                        None => Err(io::Error::from_raw_os_error(libc::EINVAL)),
                    };
                    let errno = done.err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO));
                    let _ = socket::send(supervisor.as_fd(), &Report::Done(errno).encode(), &[]);
                }
                Some(Order::End(exit)) => end_as(exit, supervisor_pid, &signals),
                None => end_all(init.as_ref(), &signals),
            },
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(_) => end_all(init.as_ref(), &signals),
        }
    }
}

/// The supervisor has said its last word and is about to exit: after it, so that nothing of the container is left when the
/// engine sees it end.
fn end_as(exit: Exit, supervisor: i32, signals: &SignalFd) -> ! {
    let _ = process::wait_pid(supervisor);
    reap_all(signals, || {});
    match exit {
        Exit::Code(code) => process::exit_now(code),
        Exit::Signal(signal) => process::die_by(signal),
    }
}

/// The supervisor is gone without a word: nothing of the container may go on unwatched. Its children, the low-level runtime
/// perhaps among them, have become ours (we are a subreaper); whatever they leave becomes ours too.
fn end_all(init: Option<&OwnedFd>, signals: &SignalFd) -> ! {
    if let Some(pidfd) = init {
        let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    }
    reap_all(signals, || {
        for pid in process::children() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    });
    process::die_by(libc::SIGKILL)
}

/// Takes leave of all that are our children or become ours, as long as that is waited for.
fn reap_all(signals: &SignalFd, again: impl Fn()) {
    let began = Instant::now();
    loop {
        again();
        while signals.next().is_some() {}
        match process::reap_any(None) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let stuck = process::children().into_iter().all(process::is_stuck);
                if began.elapsed() >= if stuck { STUCK_PATIENCE } else { LEFT_PATIENCE } {
                    return;
                }
                let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(LOOK_AGAIN_MS));
            }
            Err(_) => return,
        }
    }
}

/// Descriptors that the anchor keeps.
pub fn kept(supervisor: &OwnedFd, signals: &SignalFd) -> [i32; 2] {
    [supervisor.as_raw_fd(), signals.as_fd().as_raw_fd()]
}
