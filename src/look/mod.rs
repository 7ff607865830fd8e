//! Looks at what a container controls: its processes' memory, files on what is mounted for it.
//!
//! Whoever looks there may wait for as long as somebody in the container likes: a page may be that of a file on a FUSE volume
//! whose server never answers, or on an NFS server that is gone. So a process of its own looks, and who asks waits for it for a
//! bounded time. Not a thread: a wait for a FUSE server that has taken the request ends by no signal, and with one thread
//! in it a process can't end, nor is anything closed that it has open.
//!
//! Owns: that process, how long it is waited for, and that it is given up. Must not: judge what is found, or trust it. What
//! can be read without such a wait (`/proc/<pid>/status`, `comm`, the name that `exe` is a link to) is not asked here.
//!
//! One for each thread that asks, made when it first does, gone at [`rest`] or with the thread.

mod answers;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use answers::{Mounted, Place};

use crate::sys::process::{self, Fork};
use crate::sys::spawn::Child;
use crate::sys::{fds, socket};

/// How long an answer is waited for: a look takes some microseconds, a page that is read from a disk some milliseconds.
const PATIENCE: Duration = Duration::from_millis(150);
/// The same while the process could go on if it were given a processor: then the node is busy, and nobody keeps it waiting.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// How long a process that was killed may take to be gone before it is taken for one that can't be.
const END_PATIENCE: Duration = Duration::from_millis(20);
/// Processes that may be stuck at once; with so many nothing is looked at.
const MOST_STUCK: usize = 8;
/// Answers that may fail to come one after the other before nothing is looked at for a while.
const MISSES: u32 = 8;
/// After which one more may.
const MISS_EARNED: Duration = Duration::from_secs(30);

/// Why something was not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseen {
    /// It can't be, for this reason: `ESRCH` when its process has gone, `EFAULT` where there is no such memory.
    No(Errno),
    /// There was no answer in time, or nobody could be asked. It may be there.
    Unanswered,
}

/// A string in a process's memory, up to its NUL byte, at most `most` bytes and 4096.
///
/// # Errors
/// When nothing is there, or the page does not come.
pub fn text(pid: i32, address: u64, most: usize) -> Result<Vec<u8>, Unseen> {
    ask(&answers::Question::Text { pid, address, most })
}

/// A process's arguments, each ending in a NUL byte; its first 4096 bytes.
///
/// # Errors
/// When it has gone, or the page does not come.
pub fn command_line(pid: i32) -> Result<Vec<u8>, Unseen> {
    ask(&answers::Question::CommandLine { pid })
}

/// Device and inode of a process's program.
///
/// # Errors
/// When it has gone or has none, or its file system does not answer.
pub fn program(pid: i32) -> Result<(u64, u64), Unseen> {
    let found = ask(&answers::Question::Program { pid })?;
    answers::Numbers(&found).pair().ok_or(Unseen::Unanswered)
}

/// Where a path leads in the root of a container's init, and what is mounted there. No link leads out of that root.
///
/// # Errors
/// When init has gone, or a file system does not answer.
pub fn place(init: i32, path: &Path) -> Result<Place, Unseen> {
    let found = ask(&answers::Question::Place { init, path })?;
    Place::decode(&found).ok_or(Unseen::Unanswered)
}

/// How many looks had no answer since the last time that was asked.
pub fn take_unanswered() -> u64 {
    LOOKING.with_borrow_mut(|looking| std::mem::take(&mut looking.unanswered))
}

/// Lets the process go that looks, until it is needed again.
pub fn rest() {
    LOOKING.with_borrow_mut(|looking| looking.looker = None);
}

fn ask(question: &answers::Question<'_>) -> Result<Vec<u8>, Unseen> {
    LOOKING.with_borrow_mut(|looking| looking.ask(&question.encode(), Instant::now()))
}

thread_local! {
    static LOOKING: RefCell<Looking> = RefCell::new(Looking::new(Instant::now()));
}

/// One thread's.
struct Looking {
    /// The process that this is of: in one that was forked from it nothing of it holds.
    owner: u32,
    looker: Option<Looker>,
    /// Those that were killed, and wait all the same.
    stuck: Vec<Child>,
    /// Answers that may still fail to come, and since when more of them are earned.
    misses: (u32, Instant),
    unanswered: u64,
}

impl Looking {
    fn new(now: Instant) -> Looking {
        Looking { owner: std::process::id(), looker: None, stuck: Vec::new(), misses: (MISSES, now), unanswered: 0 }
    }

    fn ask(&mut self, question: &[u8], now: Instant) -> Result<Vec<u8>, Unseen> {
        if self.owner != std::process::id() {
            *self = Looking::new(now);
        }
        let answer = self.answer_to(question, now);
        self.unanswered += u64::from(answer == Err(Unseen::Unanswered));
        answer
    }

    fn answer_to(&mut self, question: &[u8], now: Instant) -> Result<Vec<u8>, Unseen> {
        self.stuck.retain(|child| matches!(process::reap_pidfd(child.pidfd.as_fd()), Ok(None)));
        if self.stuck.len() >= MOST_STUCK || !self.may_miss(now) {
            return Err(Unseen::Unanswered);
        }
        let asked = |looker: &Looker| socket::send(looker.socket.as_fd(), question, &[]).is_ok();
        // One that has ended, killed by somebody, is replaced.
        if !self.looker.as_ref().is_some_and(asked) {
            self.looker = None;
            self.looker = Looker::start().ok().filter(asked);
        }
        let heard = self.looker.as_ref().ok_or(Unseen::Unanswered)?.hear();
        heard.unwrap_or_else(|| {
            self.misses.0 = self.misses.0.saturating_sub(1);
            self.stuck.extend(self.looker.take().and_then(Looker::end));
            Err(Unseen::Unanswered)
        })
    }

    fn may_miss(&mut self, now: Instant) -> bool {
        let (left, since) = &mut self.misses;
        let earned = now.saturating_duration_since(*since).as_secs() / MISS_EARNED.as_secs();
        if earned > 0 {
            *left = left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(MISSES);
            *since = now;
        }
        *left > 0
    }
}

/// A process that looks.
struct Looker {
    socket: OwnedFd,
    child: Option<Child>,
    owner: u32,
}

impl Looker {
    fn start() -> io::Result<Looker> {
        let (ours, its) = socket::pair()?;
        match process::fork()? {
            Fork::Parent(pid) => match process::pidfd_open(pid) {
                Ok(pidfd) => Ok(Looker { socket: ours, child: Some(Child { pid, pidfd }), owner: std::process::id() }),
                Err(error) => {
                    // It ends when it finds its socket closed.
                    drop((ours, its));
                    let _ = process::wait_pid(pid);
                    Err(error)
                }
            },
            Fork::Child => {
                // Whatever becomes of it, it never returns into what it was forked from.
                let _ = catch_unwind(AssertUnwindSafe(|| look_on(its.as_fd())));
                process::exit_now(0)
            }
        }
    }

    /// Its answer; `None`: it has none, and won't.
    fn hear(&self) -> Option<Result<Vec<u8>, Unseen>> {
        let asked = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(asked.elapsed());
            if !left.is_zero() {
                if is_readable(self.socket.as_fd(), left) {
                    break;
                }
            } else if asked.elapsed() < BUSY_PATIENCE && self.child.as_ref().is_some_and(is_runnable) {
                // Looked at anew each time: it may begin to wait once it has a processor.
                if is_readable(self.socket.as_fd(), Duration::from_millis(5)) {
                    break;
                }
            } else {
                return None;
            }
        }
        let (answer, _) = socket::receive(self.socket.as_fd()).ok()?;
        let (errno, found) = answer.split_at_checked(4)?;
        Some(match i32::from_ne_bytes(errno.try_into().ok()?) {
            0 => Ok(found.to_vec()),
            errno => Err(Unseen::No(Errno::from_raw(errno))),
        })
    }

    /// Ends it; gives back one that does not end.
    fn end(mut self) -> Option<Child> {
        self.kill()
    }

    fn kill(&mut self) -> Option<Child> {
        let child = self.child.take()?;
        let _ = process::pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL);
        is_readable(child.pidfd.as_fd(), END_PATIENCE);
        matches!(process::reap_pidfd(child.pidfd.as_fd()), Ok(None)).then_some(child)
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        // In a process that was forked from its owner's it is somebody else's.
        if self.owner == std::process::id() {
            let _ = self.kill();
        }
    }
}

/// Is the process that looks: returns when nobody asks any more.
fn look_on(asked: BorrowedFd<'_>) {
    process::set_name("lithify-look");
    let _ = process::set_parent_death_signal(libc::SIGKILL);
    // All else that is open is its parent's, which may close it for others to see.
    let _ = fds::close_all_except(&[asked.as_raw_fd()]);
    fds::fill_standard();
    while let Ok((question, _)) = socket::receive(asked)
        && let Some(question) = answers::Question::decode(&question)
    {
        let answer = match question.answer() {
            Ok(found) => [&0_i32.to_ne_bytes()[..], &found].concat(),
            Err(errno) => (errno as i32).to_ne_bytes().to_vec(),
        };
        if socket::send(asked, &answer, &[]).is_err() {
            return;
        }
    }
}

/// Waits until a descriptor is readable or hung up; false after that time.
fn is_readable(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let millis = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(millis)) {
            Ok(ready) => return ready > 0,
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Whether it waits for nothing but a processor.
fn is_runnable(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
}

#[cfg(test)]
mod tests;
