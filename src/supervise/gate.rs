//! Where refused system calls arrive: the socket to which the low-level runtime brings a filter's notify descriptor, one for
//! the workload and one for each session, and the calls that wait at those descriptors.
//!
//! Owns: those descriptors, and how many calls are taken. Must not: decide any answer, or wait.
//!
//! A call that nobody takes makes its caller wait; a descriptor that is closed makes the kernel refuse at once (ENOSYS), as
//! it does when this process ends. runc connects when it has the descriptor; crun connects when it begins and sends later,
//! with no_new_privileges not before `start`. When a connection was made tells whose filter it brings.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, accept4, bind, getsockopt, listen, socket, sockopt,
};

use super::control;
use crate::sys::seccomp::{self, Notification};
use crate::sys::socket::receive;

/// Name of the socket in a container's folder; config.json has its path as `linux.seccomp.listenerPath`.
pub const SOCKET: &str = "seccomp.sock";
/// Connections that are open at once; each brings one descriptor. With more the oldest is closed.
const MAX_PEERS: usize = 32;
/// Sessions whose filters are listened to at once; a refusal in one beyond them is the kernel's alone (ENOSYS).
const MAX_FILTERS: usize = 512;
/// Longest message that is read beside a descriptor, in bytes: the container's state with all its annotations.
const MAX_STATE: usize = 1 << 20;
/// Calls of one filter that are answered at once before what nobody can read any more is left to the kernel.
const BURST: u32 = 20_000;
/// Calls a second of one filter that may go on for ever.
const LASTING: u32 = 200;

/// A call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    /// What and who.
    pub call: Notification,
    /// It was made in a session that was let in.
    pub session: bool,
    /// Names its filter for [`Gate::refuse`].
    filter: u64,
}

/// A low-level runtime that has connected.
struct Peer {
    socket: OwnedFd,
    session: bool,
    read: usize,
}

/// A filter that is in force.
struct Filter {
    notify: OwnedFd,
    session: bool,
    id: u64,
    /// Its own: who floods one filter takes nothing from who is under another.
    budget: Budget,
}

/// See the module.
pub(super) struct Gate {
    listener: Option<OwnedFd>,
    peers: VecDeque<Peer>,
    filters: Vec<Filter>,
    /// The low-level runtime's `create` is under way: whoever connects now brings the workload's filter.
    creating: bool,
    next_id: u64,
}

impl Gate {
    /// With no socket yet.
    pub(super) fn new() -> Gate {
        Gate { listener: None, peers: VecDeque::new(), filters: Vec::new(), creating: false, next_id: 0 }
    }

    /// Makes the socket, mode 0600, in a container's folder, where there is none yet.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EMFILE`.
    pub(super) fn open(&mut self, dir: &Path) -> io::Result<()> {
        if self.listener.is_some() {
            return Ok(());
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let place = control::address(dir, SOCKET)?;
        bind(fd.as_raw_fd(), &place.0)?;
        // The folder is 0700; the socket's own mode follows the umask of whoever called us.
        std::fs::set_permissions(dir.join(SOCKET), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        listen(&fd, Backlog::new(64)?)?;
        self.listener = Some(fd);
        Ok(())
    }

    /// A `create` begins: what is held of the last generation is let go.
    pub(super) fn begin_creating(&mut self) {
        self.hear();
        self.peers.clear();
        self.filters.clear();
        self.creating = true;
    }

    /// That `create` is over: whoever connects from now on brings a session's filter.
    pub(super) fn end_creating(&mut self) {
        self.hear();
        self.creating = false;
    }

    /// Descriptors that become readable when there is something to do.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let peers = self.peers.iter().map(|peer| peer.socket.as_fd());
        let filters = self.filters.iter().map(|filter| filter.notify.as_fd());
        self.listener.iter().map(AsFd::as_fd).chain(peers).chain(filters)
    }

    /// Takes in who has connected and what they have sent. Never waits.
    pub(super) fn hear(&mut self) {
        while let Some(listener) = &self.listener
            && let Ok(fd) = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
        {
            let socket = crate::sys::fds::own(fd);
            let is_root = getsockopt(&socket, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == 0);
            if !is_root {
                continue;
            }
            if self.peers.len() == MAX_PEERS {
                self.peers.pop_front();
            }
            self.peers.push_back(Peer { socket, session: !self.creating, read: 0 });
        }
        for mut peer in std::mem::take(&mut self.peers) {
            if self.read(&mut peer) {
                self.peers.push_back(peer);
            }
        }
    }

    /// Reads what a peer has sent; false when it has no more to say. Its message tells nothing that is not known: the
    /// descriptor counts.
    fn read(&mut self, peer: &mut Peer) -> bool {
        while peer.read < MAX_STATE {
            match receive(peer.socket.as_fd()) {
                Ok((text, fds)) if text.is_empty() && fds.is_empty() => return false,
                Ok((text, fds)) => {
                    peer.read += text.len().max(1);
                    for notify in fds.into_iter().filter(|fd| seccomp::is_listener(fd.as_fd())) {
                        if self.filters.len() < MAX_FILTERS {
                            self.next_id += 1;
                            let budget = Budget::full(Instant::now());
                            self.filters.push(Filter { notify, session: peer.session, id: self.next_id, budget });
                        }
                    }
                }
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        false
    }

    /// The next call that waits, of any filter; filters that nobody runs under any more are let go. Never waits.
    pub(super) fn next(&mut self) -> Option<Waiting> {
        let mut fds: Vec<PollFd<'_>> =
            self.filters.iter().map(|filter| PollFd::new(filter.notify.as_fd(), PollFlags::POLLIN)).collect();
        if fds.is_empty() || !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0) {
            return None;
        }
        let flags: Vec<PollFlags> = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        let mut found = None;
        let mut flags = flags.into_iter();
        self.filters.retain(|filter| {
            let flags = flags.next().unwrap_or(PollFlags::empty());
            if flags.contains(PollFlags::POLLIN) && found.is_none() {
                match seccomp::receive(filter.notify.as_fd()) {
                    Ok(call) => {
                        found = call.map(|call| Waiting { call, session: filter.session, filter: filter.id });
                        true
                    }
                    Err(_) => false,
                }
            } else {
                flags.contains(PollFlags::POLLIN) || !flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)
            }
        });
        found
    }

    /// Whether the caller of a call still waits for its answer.
    pub(super) fn waits(&self, waiting: &Waiting) -> bool {
        self.filter(waiting).is_some_and(|filter| seccomp::waits(filter.notify.as_fd(), waiting.call.id))
    }

    /// Answers a call with EPERM.
    pub(super) fn refuse(&self, waiting: &Waiting) {
        if let Some(filter) = self.filter(waiting) {
            // A caller that has gone, or was interrupted and calls again, needs no answer.
            let _ = seccomp::refuse(filter.notify.as_fd(), waiting.call.id, libc::EPERM);
        }
    }

    fn filter(&self, waiting: &Waiting) -> Option<&Filter> {
        self.filters.iter().find(|filter| filter.id == waiting.filter)
    }

    /// Counts a call against what is answered of its filter. False: it is one too many, and [`Gate::let_go`] has to follow.
    pub(super) fn affords(&mut self, waiting: &Waiting) -> bool {
        let filter = self.filters.iter_mut().find(|filter| filter.id == waiting.filter);
        filter.is_none_or(|filter| filter.budget.take(Instant::now()))
    }

    /// Lets a call's filter go: from now on the kernel refuses by itself what is refused under it. No other filter is touched.
    pub(super) fn let_go(&mut self, waiting: &Waiting) {
        self.filters.retain(|filter| filter.id != waiting.filter);
    }
}

/// So many at once, and so many a second for ever.
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn full(now: Instant) -> Budget {
        Budget { left: BURST, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        if seconds > 0 {
            let earned = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(LASTING);
            self.left = self.left.saturating_add(earned).min(BURST);
            self.since += Duration::from_secs(seconds);
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_too_many_and_a_trickle_never_is() {
        let start = Instant::now();
        let mut budget = Budget::full(start);
        assert_eq!((0..BURST * 2).take_while(|_| budget.take(start)).count(), BURST as usize);
        let mut budget = Budget::full(start);
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            assert!((0..LASTING).all(|_| budget.take(now)), "second {second}");
        }
    }

    #[test]
    fn who_connects_while_the_container_is_created_brings_its_workloads_filter_and_only_filters_count() {
        use nix::sys::socket::{UnixAddr, connect};
        let dir = tempfile::tempdir().expect("a folder");
        let mut gate = Gate::new();
        gate.open(dir.path()).expect("a socket");
        gate.open(dir.path()).expect("the same one");
        let connected = || {
            let peer = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
            let address = UnixAddr::new(&dir.path().join(SOCKET)).expect("an address");
            connect(peer.as_raw_fd(), &address).expect("connected");
            peer
        };
        gate.begin_creating();
        let early = connected();
        gate.end_creating();
        let late = connected();
        gate.hear();
        assert_eq!(gate.peers.iter().map(|peer| peer.session).collect::<Vec<_>>(), [false, true]);
        // Something else than a filter's descriptor, as somebody's mistake would send.
        let other = std::fs::File::open("/dev/null").expect("opened");
        crate::sys::socket::send(early.as_fd(), b"{}", &[other.as_fd()]).expect("sent");
        drop(late);
        gate.hear();
        assert!(gate.filters.is_empty() && gate.peers.len() == 1);
        assert_eq!(gate.next(), None);
        for _ in 0..MAX_PEERS {
            let _ = connected();
            gate.hear();
        }
        assert!(gate.peers.len() <= MAX_PEERS);
    }
}
