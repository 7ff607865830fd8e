//! Measuring what a low-level runtime calls after it has loaded a filter: it runs a few containers whose every call is
//! asked about, and all are let go on.
//!
//! Owns: the processes, namespaces and cgroups of a measurement, and that none is left, whatever happens. Needs no image,
//! no engine and no disk. Must not: keep what was measured, or say what it means.

pub mod bundle;
mod inside;
mod listener;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use crate::sys::process::{self, Fork};
use crate::sys::{fds, random};

/// How much longer than the measurement itself its end may take, e.g. to tear namespaces down.
const GRACE: Duration = Duration::from_secs(5);
/// Most that a measurement says, in bytes: it is a list of names.
const MAX_SAID: u64 = 1 << 20;
/// What its cgroups and containers are called, before a number of their own.
const MARK: &str = "lithify-measure-";
/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Seen {
    /// Whether the runtime handed descriptors over. If not, nothing was seen.
    pub listener: bool,
    /// Calls in containers with no-new-privileges.
    pub always: BTreeSet<String>,
    /// Calls that were seen only in containers without.
    pub without_no_new_privileges: BTreeSet<String>,
}

/// Measures a runtime. Needs root.
///
/// # Errors
/// When it can't run containers here, or has not ended within `patience`.
pub fn measure(runtime: &Path, patience: Duration) -> Result<Seen> {
    let cgroup = format!("{MARK}{}", random::hex(6)?);
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context("failed to make a pipe")?;
    let pid = match process::fork().context("failed to fork")? {
        Fork::Parent(pid) => pid,
        Fork::Child => process::exit_now(apart(runtime, &cgroup, Instant::now() + patience, &write)),
    };
    drop(write);
    let said = hear(read, patience + GRACE);
    // Its namespace dies with it. It has ended by itself, unless nothing was heard in time.
    if let Ok(pidfd) = process::pidfd_open(pid)
        && said.is_err()
    {
        let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    }
    process::wait_pid(pid).context("failed to wait for the measurement")?;
    if said.is_err() {
        remove_cgroups(&cgroup);
    }
    let said: Result<Seen, String> = serde_json::from_slice(&said?).context("the measurement ended without a word")?;
    said.map_err(|e| anyhow!(e))
}

/// The process that keeps the namespaces: whoever is first in a pid namespace is a child of who made it. If whoever measures
/// is killed, it clears up all the same.
fn apart(runtime: &Path, cgroup: &str, deadline: Instant, said: &OwnedFd) -> i32 {
    let inner = || -> Result<i32> {
        // Descriptors of whoever measures are nobody's here: an engine may wait to see them closed.
        let null = File::options().read(true).write(true).open("/dev/null").context("failed to open /dev/null")?;
        for number in 0..3 {
            fds::dup_to(null.as_fd(), number).context("failed to close descriptors")?;
        }
        drop(null);
        fds::close_all_except(&[0, 1, 2, said.as_raw_fd()]).context("failed to close descriptors")?;
        unshare(CloneFlags::CLONE_NEWPID).context("failed to make a pid namespace")?;
        match process::fork().context("failed to fork")? {
            Fork::Parent(pid) => Ok(pid),
            Fork::Child => {
                let seen = process::set_parent_death_signal(libc::SIGKILL)
                    .context("failed to tie processes")
                    .and_then(|()| unshare(CloneFlags::CLONE_NEWNS).context("failed to make a mount namespace"))
                    .and_then(|()| inside::Place::new(runtime, cgroup, deadline)?.measure());
                process::exit_now(say(said, seen))
            }
        }
    };
    match inner() {
        Ok(pid) => {
            let ended = process::wait_pid(pid);
            remove_cgroups(cgroup);
            ended.map_or(1, |exit| exit.shell_code())
        }
        Err(e) => say(said, Err(e)),
    }
}

fn say(to: &OwnedFd, seen: Result<Seen>) -> i32 {
    let text = serde_json::to_vec(&seen.map_err(|e| format!("{e:#}"))).unwrap_or_default();
    let written = to.try_clone().map(File::from).and_then(|mut to| to.write_all(&text));
    i32::from(written.is_err())
}

fn hear(pipe: OwnedFd, patience: Duration) -> Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let (mut pipe, mut said) = (File::from(pipe), Vec::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the measurement did not end in {} s", patience.as_secs());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e).context("failed to wait for the measurement"),
        }
        let mut part = [0; 4096];
        match pipe.read(&mut part).context("failed to hear the measurement")? {
            0 => return Ok(said),
            length => said.extend(&part[..length]),
        }
        ensure!(said.len() as u64 <= MAX_SAID, "the measurement said more than {MAX_SAID} bytes");
    }
}

/// Removes the cgroups of a measurement, of which no process is left: in each hierarchy, and in the only one.
fn remove_cgroups(name: &str) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let top = Path::new(CGROUPS);
    let hierarchies = folders(top).into_iter().chain([top.to_path_buf()]);
    let mut left: Vec<PathBuf> = hierarchies.map(|h| h.join(name)).filter(|path| path.is_dir()).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        left.retain(|path| !remove_tree(path));
        // The kernel takes a moment to let go of the last process; what then is left is empty, and only untidy.
        if left.is_empty() || Instant::now() >= deadline {
            return;
        }
        let none: &mut [PollFd<'_>] = &mut [];
        let _ = poll(none, PollTimeout::from(5u8));
    }
}

/// Removes a cgroup and those below it; true when it is gone.
fn remove_tree(path: &Path) -> bool {
    for below in folders(path) {
        remove_tree(&below);
    }
    std::fs::remove_dir(path).is_ok() || !path.exists()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}
