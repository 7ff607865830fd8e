//! A `run` in the foreground: relays the container's streams or its terminal, and signals, until it ends.
//!
//! As runc does: without a terminal the container gets pipes, never the caller's own descriptors (a terminal among them
//! could be typed into from within); with one, the caller's terminal is put in raw mode for the time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::supervise::control::{Intent, Lease};
use crate::supervise::generation::console_path;
use crate::sys::process::{self, Exit};
use crate::sys::signals::SignalFd;
use crate::sys::{fds, proc_fd, socket as messages, terminal};

/// Bytes moved in one go.
const CHUNK: usize = 32 * 1024;

/// The caller's side of a foreground `run`.
pub(super) struct Front(Kind);

enum Kind {
    Pipes {
        /// To the container's stdin.
        input: Option<File>,
        /// From its stdout and stderr.
        outputs: [Option<File>; 2],
        /// The container's ends, until they have been handed over.
        theirs: std::cell::Cell<Option<[OwnedFd; 3]>>,
    },
    Terminal {
        listener: OwnedFd,
        path: PathBuf,
    },
}

impl Front {
    /// Opens pipes, or a socket that receives the terminal of each generation.
    pub(super) fn open(dir: &Path, terminal: bool) -> Result<Front> {
        let kind = if terminal {
            let path = console_path(dir);
            let listener = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
                .and_then(|fd| {
                    let folder = nix::fcntl::open(dir, nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty())?;
                    bind(fd.as_raw_fd(), &UnixAddr::new(&Path::new(&proc_fd::path(folder.as_fd())).join("console"))?)?;
                    listen(&fd, Backlog::new(4)?)?;
                    Ok(fd)
                })
                .with_context(|| format!("failed to make the console socket {}", path.display()))?;
            Kind::Terminal { listener, path }
        } else {
            let pipe = || io::pipe().context("failed to make a pipe");
            let (input, to_input) = pipe()?;
            let (from_output, output) = pipe()?;
            let (from_error, error) = pipe()?;
            Kind::Pipes {
                input: Some(File::from(OwnedFd::from(to_input))),
                outputs: [Some(File::from(OwnedFd::from(from_output))), Some(File::from(OwnedFd::from(from_error)))],
                theirs: std::cell::Cell::new(Some([input.into(), output.into(), error.into()])),
            }
        };
        Ok(Front(kind))
    }

    /// The standard streams the container is to have; once.
    pub(super) fn container_side(&self) -> Result<Option<[OwnedFd; 3]>> {
        match &self.0 {
            Kind::Pipes { theirs, .. } => Ok(theirs.take()),
            Kind::Terminal { .. } => {
                let null =
                    || -> io::Result<OwnedFd> { Ok(File::options().read(true).write(true).open("/dev/null")?.into()) };
                // The container has the terminal alone. What the low-level runtime has to say of it is the caller's: to be
                // written where runc itself writes it, for a terminal of the caller's in colours.
                let error = fds::dup_above(io::stderr().as_fd(), 3)?;
                Ok(Some([null()?, null()?, error]))
            }
        }
    }

    /// Hands on what is in the pipes, without waiting for more.
    pub(super) fn drain(&self) {
        if let Kind::Pipes { outputs, .. } = &self.0 {
            for (number, output) in outputs.iter().enumerate() {
                while output.as_ref().is_some_and(|o| readable_now(o.as_fd())) && pump(output.as_ref(), number + 1) {}
            }
        }
    }

    /// The socket for the terminal, where there is one.
    pub(super) fn console(&self) -> Option<PathBuf> {
        match &self.0 {
            Kind::Pipes { .. } => None,
            Kind::Terminal { path, .. } => Some(path.clone()),
        }
    }

    /// Our own ends. A forked process that keeps one keeps the container from seeing the end of its input, or that nobody
    /// reads its output any more.
    pub(super) fn descriptors(&self) -> Vec<i32> {
        match &self.0 {
            Kind::Pipes { input, outputs, .. } => {
                input.iter().chain(outputs.iter().flatten()).map(AsRawFd::as_raw_fd).collect()
            }
            Kind::Terminal { listener, .. } => vec![listener.as_raw_fd()],
        }
    }

    /// Relays until the anchor ends, and returns the status to end with.
    pub(super) fn relay(self, dir: &Path, anchor: i32) -> Result<i32> {
        let pidfd = process::pidfd_open(anchor).context("failed to find the anchor")?;
        let lease_dir = dir.to_owned();
        let forward = move |signal: i32| {
            let _ = Lease::take(&lease_dir, Intent::Forward(signal));
        };
        let signals = SignalFd::all().context("failed to open a signal descriptor")?;
        let exit = match self.0 {
            Kind::Pipes { input, outputs, .. } => relay_pipes(input, outputs, &signals, pidfd.as_fd(), forward),
            Kind::Terminal { listener, .. } => relay_terminal(&listener, &signals, pidfd.as_fd(), forward),
        };
        Ok(exit?.shell_code())
    }
}

/// Reads pending signals; true if one of them says that the window's size changed.
fn pass_signals(signals: &SignalFd, forward: &impl Fn(i32)) -> bool {
    let mut resized = false;
    while let Some(received) = signals.next() {
        match received.signal {
            libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => {}
            libc::SIGWINCH => resized = true,
            signal => forward(signal),
        }
    }
    resized
}

fn relay_pipes(
    mut input: Option<File>,
    outputs: [Option<File>; 2],
    signals: &SignalFd,
    anchor: BorrowedFd<'_>,
    forward: impl Fn(i32),
) -> Result<Exit> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let callers = [stdout.as_fd(), stderr.as_fd()];
    let mut outputs = outputs.map(|from| Output { from, pending: Vec::new() });
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(anchor, PollFlags::POLLIN)];
        let outputs_at = polled.len();
        for (output, to) in outputs.iter().zip(callers) {
            match &output.from {
                Some(_) if !output.pending.is_empty() => polled.push(PollFd::new(to, PollFlags::POLLOUT)),
                Some(from) => polled.push(PollFd::new(from.as_fd(), PollFlags::POLLIN)),
                None => {}
            }
        }
        let input_at = polled.len();
        match &input {
            Some(to) if !pending.is_empty() => polled.push(PollFd::new(to.as_fd(), PollFlags::POLLOUT)),
            Some(_) => polled.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN)),
            None => {}
        }
        let _ = poll(&mut polled, PollTimeout::NONE);
        let ready: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(polled);
        pass_signals(signals, &forward);
        let mut at = outputs_at;
        for (output, to) in outputs.iter_mut().zip(callers) {
            if output.from.is_some() {
                if ready[at] {
                    output.pass(to);
                }
                at += 1;
            }
        }
        if ready.get(input_at).copied().unwrap_or(false) {
            feed(&mut input, &mut pending);
        }
        if ready[1]
            && let Some(exit) = process::reap_pidfd(anchor).context("failed to wait for the anchor")?
        {
            // What is in the pipes still is the container's last words.
            for (number, output) in outputs.iter_mut().enumerate() {
                let written = write_out(callers[number], &output.pending);
                let from = output.from.take().filter(|_| written);
                while from.as_ref().is_some_and(|o| readable_now(o.as_fd())) && pump(from.as_ref(), number + 1) {}
            }
            return Ok(exit);
        }
    }
}

/// One stream from the container, and what the caller has not taken of it yet.
struct Output {
    from: Option<File>,
    pending: Vec<u8>,
}

impl Output {
    /// Moves on what there is, without ever waiting for the caller to read: signals must get through meanwhile.
    fn pass(&mut self, to: BorrowedFd<'_>) {
        let Some(from) = &mut self.from else { return };
        if self.pending.is_empty() {
            let mut chunk = [0; CHUNK];
            match from.read(&mut chunk) {
                Ok(n) if n > 0 => self.pending.extend_from_slice(&chunk[..n]),
                _ => {
                    self.from = None;
                    return;
                }
            }
        }
        while !self.pending.is_empty() && ready_now(to, PollFlags::POLLOUT | PollFlags::POLLERR) {
            // A pipe that polls writable takes at least a page without blocking (pipe(7)).
            match nix::unistd::write(to, &self.pending[..self.pending.len().min(4096)]) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(_) => {
                    self.pending.clear();
                    self.from = None;
                }
            }
        }
    }
}

/// Moves one chunk from the container to the caller; false at the end.
fn pump(from: Option<&File>, number: usize) -> bool {
    let Some(mut from) = from else { return false };
    let mut chunk = [0; CHUNK];
    match from.read(&mut chunk) {
        Ok(0) | Err(_) => false,
        Ok(n) if number == 1 => write_out(io::stdout().as_fd(), &chunk[..n]),
        Ok(n) => write_out(io::stderr().as_fd(), &chunk[..n]),
    }
}

/// Past the standard library's buffer, which would split lines at odd places and times.
fn write_out(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => {
                let _ = poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(_) => return false,
        }
    }
    true
}

/// Moves from the caller's stdin to the container's, without ever waiting for the container to read.
fn feed(input: &mut Option<File>, pending: &mut Vec<u8>) {
    let Some(to) = input.as_mut() else { return };
    if pending.is_empty() {
        let mut chunk = [0; 4096];
        match nix::unistd::read(io::stdin().as_fd(), &mut chunk) {
            Ok(0) => {
                *input = None;
                return;
            }
            Ok(n) => pending.extend_from_slice(&chunk[..n]),
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => return,
            Err(_) => {
                *input = None;
                return;
            }
        }
    }
    // A pipe that polls writable takes at least a page without blocking (pipe(7)).
    if !writable_now(to.as_fd()) {
        return;
    }
    match to.write(pending) {
        Ok(n) => {
            pending.drain(..n);
        }
        Err(_) => {
            pending.clear();
            *input = None;
        }
    }
}

fn ready_now(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut polled = [PollFd::new(fd, flags)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(n) if n > 0)
        && polled[0].revents().is_some_and(|r| r.intersects(flags))
}

fn readable_now(fd: BorrowedFd<'_>) -> bool {
    ready_now(fd, PollFlags::POLLIN)
}

fn writable_now(fd: BorrowedFd<'_>) -> bool {
    // A full pipe that nobody reads any more is in error only; the write tells.
    ready_now(fd, PollFlags::POLLOUT | PollFlags::POLLERR)
}

/// The caller's terminal in raw mode; as it was when this is dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter() -> RawTerminal {
        let Ok(before) = tcgetattr(io::stdin()) else { return RawTerminal(None) };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        // Line ends are translated here, once, and no longer on the container's side; runc does the same.
        raw.output_flags.insert(OutputFlags::OPOST);
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &raw);
        RawTerminal(Some(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

fn relay_terminal(
    listener: &OwnedFd,
    signals: &SignalFd,
    anchor: BorrowedFd<'_>,
    forward: impl Fn(i32),
) -> Result<Exit> {
    let mut master: Option<File> = None;
    let _raw = RawTerminal::enter();
    let mut stdin_open = true;
    loop {
        let mut polled = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(anchor, PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        ];
        let stdin = io::stdin();
        if let Some(master) = &master {
            polled.push(PollFd::new(master.as_fd(), PollFlags::POLLIN));
            if stdin_open {
                polled.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
        }
        let _ = poll(&mut polled, PollTimeout::NONE);
        let ready: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(polled);
        if pass_signals(signals, &forward)
            && let Some(master) = &master
        {
            terminal::copy_size(io::stdin().as_fd(), master.as_fd());
        }
        if ready.get(3) == Some(&true) && !pump(master.as_ref(), 1) {
            master = None;
        }
        if ready.get(4) == Some(&true)
            && let Some(to) = &master
        {
            let mut chunk = [0; 4096];
            match nix::unistd::read(io::stdin().as_fd(), &mut chunk) {
                Ok(n) if n > 0 => {
                    write_out(to.as_fd(), &chunk[..n]);
                }
                Ok(_) => stdin_open = false,
                Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => {}
                Err(_) => stdin_open = false,
            }
        }
        // A generation's terminal: the first one, and one more at each restart.
        if ready[2]
            && let Ok(connection) = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)
            && let Ok((_, mut received)) = messages::receive(fds::own(connection).as_fd())
            && let Some(new) = received.pop()
        {
            terminal::copy_size(io::stdin().as_fd(), new.as_fd());
            terminal::no_output_translation(new.as_fd());
            master = Some(File::from(new));
        }
        if ready[1]
            && let Some(exit) = process::reap_pidfd(anchor).context("failed to wait for the anchor")?
        {
            while master.as_ref().is_some_and(|m| readable_now(m.as_fd())) && pump(master.as_ref(), 1) {}
            return Ok(exit);
        }
    }
}
