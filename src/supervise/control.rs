//! The control socket: how the other verbs find a container's supervisor, and how both keep out of each other's way.
//!
//! A verb connects and says what it is about to do; the supervisor answers when no restart is under way, and begins none
//! while the connection is open (up to a bound). A verb that is killed lets go by itself.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::sys::socket::{receive, send};

/// Name of the socket in a container's folder.
const NAME: &str = "control";
/// How long a verb waits for an answer: a restart takes some 100 ms.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a verb is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Any verb that only needs the container to be there.
    Use,
    /// `exec`: what it writes is the container's doing, also before `start`.
    Session,
    /// `start`: arm everything now.
    Starting,
    /// `start` has succeeded.
    Started,
    /// `kill --all`: a signal at the anchor is not meant for the workload a second time.
    KillAll,
    /// `delete --force`: the container's cgroups are about to be removed.
    Deleting,
    /// `resume` has succeeded.
    Resumed,
    /// A foreground `run` was sent this signal.
    Forward(i32),
}

impl Intent {
    fn encode(self) -> Vec<u8> {
        match self {
            Intent::Use => b"use".to_vec(),
            Intent::Session => b"session".to_vec(),
            Intent::Starting => b"starting".to_vec(),
            Intent::Started => b"started".to_vec(),
            Intent::KillAll => b"kill-all".to_vec(),
            Intent::Deleting => b"deleting".to_vec(),
            Intent::Resumed => b"resumed".to_vec(),
            Intent::Forward(signal) => format!("signal {signal}").into_bytes(),
        }
    }

    /// Reads what a verb sent.
    pub fn decode(message: &[u8]) -> Option<Intent> {
        Some(match message {
            b"use" => Intent::Use,
            b"session" => Intent::Session,
            b"starting" => Intent::Starting,
            b"started" => Intent::Started,
            b"kill-all" => Intent::KillAll,
            b"deleting" => Intent::Deleting,
            b"resumed" => Intent::Resumed,
            _ => {
                let number = std::str::from_utf8(message).ok()?.strip_prefix("signal ")?;
                Intent::Forward(number.parse().ok()?)
            }
        })
    }
}

/// The verb's end.
pub struct Lease(OwnedFd);

impl Lease {
    /// Connects to the supervisor of a container's folder and waits until it agrees.
    ///
    /// # Errors
    /// `ECONNREFUSED` or `ENOENT` when nobody supervises it, [`io::ErrorKind::TimedOut`] when somebody does and there is no
    /// answer in ten seconds, or what the supervisor says against it.
    pub fn take(dir: &Path, intent: Intent) -> io::Result<Lease> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        let place = address(dir, NAME)?;
        let patience = TimeVal::new(PATIENCE.as_secs() as i64, 0);
        // Connecting, too, waits for who does not accept what has connected before.
        setsockopt(&fd, sockopt::SendTimeout, &patience)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &patience)?;
        connect(fd.as_raw_fd(), &place.0).map_err(in_time)?;
        let lease = Lease(fd);
        lease.say(intent)?;
        Ok(lease)
    }

    /// Says something more and waits for the answer.
    ///
    /// # Errors
    /// As [`Lease::take`].
    pub fn say(&self, intent: Intent) -> io::Result<()> {
        send(self.0.as_fd(), &intent.encode(), &[]).map_err(in_time)?;
        let (answer, _) = receive(self.0.as_fd()).map_err(in_time)?;
        match answer.as_slice() {
            b"ok" => Ok(()),
            b"" => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the supervisor has ended")),
            text => Err(io::Error::other(String::from_utf8_lossy(text).into_owned())),
        }
    }
}

/// What a socket with a deadline calls an empty or full one is that nobody has answered.
fn in_time(error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} seconds", PATIENCE.as_secs()))
        }
        _ => error,
    }
}

impl Lease {
    /// Says something and does not wait.
    ///
    /// # Errors
    /// `EPIPE` when the supervisor has ended.
    pub fn tell(&self, intent: Intent) -> io::Result<()> {
        send(self.0.as_fd(), &intent.encode(), &[])
    }
}

/// The supervisor's end.
pub struct Listener(OwnedFd);

impl Listener {
    /// Makes the socket, mode 0600, in a container's folder.
    ///
    /// # Errors
    /// `EADDRINUSE` when there is one.
    pub fn open(dir: &Path) -> io::Result<Listener> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        // The folder is 0700; the socket's own mode follows the umask of whoever called us.
        let place = address(dir, NAME)?;
        bind(fd.as_raw_fd(), &place.0)?;
        std::fs::set_permissions(dir.join(NAME), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        listen(&fd, Backlog::new(64)?)?;
        Ok(Listener(fd))
    }

    /// The next verb that connects; `None` when there is none now.
    pub fn accept(&self) -> Option<OwnedFd> {
        let fd = accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).ok()?;
        Some(crate::sys::fds::own(fd))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The socket's address by a descriptor of its folder: container ids are longer than `sun_path` allows (unix(7)).
pub(super) fn address(dir: &Path, name: &str) -> io::Result<(UnixAddr, std::fs::File)> {
    use std::os::unix::fs::OpenOptionsExt;
    let folder = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(dir)?;
    let address = UnixAddr::new(&Path::new(&crate::sys::proc_fd::path(folder.as_fd())).join(name))?;
    Ok((address, folder))
}
