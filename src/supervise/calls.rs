//! Calls of the low-level runtime that the supervisor makes.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::PollFlags;

use super::stdio;
use super::supervisor::Supervisor;
use crate::sys::process::{self, Exit};
use crate::sys::spawn::{Child, Spawn};

/// How long the low-level runtime may take for one call.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(120);
/// The first process that changes its cgroup after a quiet time waits for an RCU grace period (7 to 15 ms measured on Linux
/// 6.18), the next ones within about that time do not. While `create` runs we have nothing else to do: a move of our own
/// process to where it is, at once and as often as this, begins that time while the low-level runtime still loads.
const CGROUP_WARMTH: Duration = Duration::from_millis(4);
/// Where calls of ours log, in the container's folder.
pub(super) const RUNTIME_LOG: &str = "runtime.log";

impl Supervisor {
    /// Global flags for calls that no engine asked for: errors go to a file of ours, not to the engine's log.
    pub(super) fn own_globals(&self) -> Vec<OsString> {
        let mut args = self.plan.quiet_globals.clone();
        args.extend(["--log".into(), self.plan.dir.join(RUNTIME_LOG).into_os_string()]);
        args.extend(["--log-format".into(), "json".into()]);
        args
    }

    /// One call of the low-level runtime, waited for.
    pub(super) fn call(
        &self,
        args: &[OsString],
        streams: [OwnedFd; 3],
        launcher: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let words: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
        let child = Spawn {
            program: &self.plan.runtime,
            args: &words,
            stdio: [streams[0].as_fd(), streams[1].as_fd(), streams[2].as_fd()],
            extra: self.preserved.iter().map(AsFd::as_fd).collect(),
            mask: self.mask,
            parent_death_signal: libc::SIGKILL,
            listening: self.plan.listening,
        }
        .start()
        .with_context(|| format!("failed to start {}", self.plan.runtime.display()))?;
        drop(streams);
        let exit = self.wait_for(&child, launcher)?;
        if exit != Exit::Code(0) {
            return Err(RuntimeFailed { exit, message: self.runtime_message() }.into());
        }
        Ok(())
    }

    /// A call of ours with nothing to read and nowhere to write.
    pub(super) fn quiet_call(&self, verb: &[&OsStr], input: Option<OwnedFd>) -> Result<()> {
        let mut args = self.own_globals();
        args.extend(verb.iter().map(|word| word.to_os_string()));
        let streams = [input.map_or_else(stdio::null, Ok)?, stdio::null()?, stdio::null()?];
        let _ = std::fs::remove_file(self.plan.dir.join(RUNTIME_LOG));
        self.call(&args, streams, None)
    }

    /// Waits for a child, unless the anchor or the launcher goes: then there is nobody left to do anything for.
    fn wait_for(&self, child: &Child, launcher: Option<BorrowedFd<'_>>) -> Result<Exit> {
        let deadline = Instant::now() + RUNTIME_PATIENCE;
        // Without an init this is a `create`, which moves processes between cgroups, and so does what follows it.
        let warm = self.init.is_none();
        if warm {
            self.home.touch();
        }
        loop {
            if let Some(exit) =
                process::reap_pidfd(child.pidfd.as_fd()).context("failed to wait for the low-level runtime")?
            {
                return Ok(exit);
            }
            let mut fds =
                vec![(child.pidfd.as_fd(), PollFlags::POLLIN), (self.anchor.socket.as_fd(), PollFlags::empty())];
            fds.extend(launcher.map(|fd| (fd, PollFlags::empty())));
            let left = deadline.saturating_duration_since(Instant::now());
            let next = if warm { left.min(CGROUP_WARMTH) } else { left };
            let ready = self.wait_on(&fds, Some(next)).unwrap_or_default();
            if warm && ready.first().is_none_or(|flags| flags.is_empty()) {
                self.home.touch();
            }
            let gone = ready.iter().skip(1).any(|flags| flags.contains(PollFlags::POLLHUP));
            if gone || left.is_zero() {
                let _ = process::pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL);
                let _ = process::wait_pid(child.pid);
                bail!(
                    "failed to wait for {}: {}",
                    self.plan.runtime.display(),
                    if gone { "the container was killed" } else { "no end in two minutes" }
                );
            }
        }
    }

    /// What the low-level runtime logged last as an error in a call of ours.
    fn runtime_message(&self) -> String {
        let text = std::fs::read(self.plan.dir.join(RUNTIME_LOG)).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(64 << 10)..];
        let lines =
            tail.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
        let mut messages =
            lines.filter(|line| line["level"] == "error").filter_map(|line| line["msg"].as_str().map(str::to_owned));
        messages.next_back().unwrap_or_default()
    }
}

/// The low-level runtime was called and failed by itself; on the engine's own call it has told the engine already.
#[derive(Debug)]
pub(super) struct RuntimeFailed {
    /// Its end.
    pub exit: Exit,
    /// Its last error, where it was logged to us.
    pub message: String,
}

impl std::fmt::Display for RuntimeFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let message = if self.message.is_empty() { "it logged no reason" } else { &self.message };
        match self.exit {
            Exit::Code(code) => write!(f, "the low-level runtime failed with status {code}: {message}"),
            Exit::Signal(signal) => write!(f, "the low-level runtime was killed by signal {signal}: {message}"),
        }
    }
}

impl std::error::Error for RuntimeFailed {}
