//! Verbs that are over soon, on a container that may be protected: they wait for a restart that is under way, and none
//! begins before they are done.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Node, forward, node, node_of, pids, place, silent, updates};
use crate::cli::Invocation;
use crate::record::Record;
use crate::runtime;
use crate::supervise::control::{Intent, Lease};
use crate::sys::process;
use crate::sys::signals::Mask;
use crate::sys::spawn::Spawn;

/// Most of what `update` reads from standard input, in bytes.
const MAX_TEXT: u64 = 1 << 20;
/// Most of what `state` and `ps` print, in bytes: a state has all annotations in it, escaped.
const MAX_OUTPUT: u64 = 64 << 20;

/// `state`: the pid in it is the one that the engine was given, over all generations; all else is the low-level runtime's.
pub(super) fn state(invocation: &Invocation, id: &OsStr) -> Result<i32> {
    let (node, dir) = node_of(invocation, id);
    if !place::is_name(id) || !dir.exists() {
        return forward(invocation, &node);
    }
    let lease = Lease::take(&dir, Intent::Use);
    // A supervisor that does not answer has not changed which pid the engine was given.
    if lease.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::TimedOut) {
        return forward(invocation, &node);
    }
    // After the lease: which process is the container's init changes with a restart.
    let pids = place::record(&dir).and_then(|record| Some((record.init?.pid, record.anchor.pid)));
    let pids: Vec<(i32, i32)> = pids.into_iter().collect();
    retold(invocation, &node, |text| pids::replaced(text, &pids))
}

/// `list`: with the engines' pids, as in `state`.
pub(super) fn list(invocation: &Invocation) -> Result<i32> {
    let node = node(invocation);
    let records = Record::list(&node.state_dir).unwrap_or_default().into_iter().filter_map(|(dir, record)| {
        let record = record.ok()?;
        let of_this_root = place::of(&node.state_dir, &invocation.globals, OsStr::new(&record.id)) == dir;
        Some((record.init.filter(|_| of_this_root)?.pid, record.anchor.pid))
    });
    let pids: Vec<(i32, i32)> = records.collect();
    if pids.is_empty() {
        return forward(invocation, &node);
    }
    retold(invocation, &node, |text| pids::replaced(text, &pids))
}

/// A verb that only needs the container to be there.
pub(super) fn brief(invocation: &Invocation, id: &OsStr) -> Result<i32> {
    with_lease(invocation, id, Intent::Use, |_, _| {})
}

/// `resume`: the supervisor answers breaches again.
pub(super) fn resume(invocation: &Invocation, id: &OsStr) -> Result<i32> {
    with_lease(invocation, id, Intent::Use, |lease, status| {
        if status == 0 {
            let _ = lease.say(Intent::Resumed);
        }
    })
}

/// `kill`: with `--all` the anchor may be hit too, which is not meant for the workload a second time. SIGKILL ends a container
/// whose supervisor does not answer as well: what is sent to its init alone, nobody would tell the engine of.
pub(super) fn kill(invocation: &Invocation, id: &OsStr, all: bool, sigkill: bool) -> Result<i32> {
    let (node, dir) = node_of(invocation, id);
    if !place::is_name(id) || !dir.exists() {
        return forward(invocation, &node);
    }
    match Lease::take(&dir, if all { Intent::KillAll } else { Intent::Use }) {
        Ok(_lease) => run_and_wait(invocation, &node),
        Err(error) if sigkill && error.kind() == io::ErrorKind::TimedOut => {
            let killed = run_and_wait(invocation, &node);
            match place::record(&dir) {
                Some(record) => silent::end(&node, &dir, &record),
                None => return killed,
            }
            Ok(0)
        }
        Err(_) => forward(invocation, &node),
    }
}

fn run_and_wait(invocation: &Invocation, node: &Node) -> Result<i32> {
    let runtime = runtime::find(&node.runtimes)?;
    let exit = runtime::run_and_wait(&runtime, &invocation.argv)
        .with_context(|| format!("failed to start {}", runtime.display()))?;
    Ok(exit.shell_code())
}

fn with_lease(invocation: &Invocation, id: &OsStr, intent: Intent, after: impl FnOnce(&Lease, i32)) -> Result<i32> {
    let (node, dir) = node_of(invocation, id);
    if !place::is_name(id) || !dir.exists() {
        return forward(invocation, &node);
    }
    let Ok(lease) = Lease::take(&dir, intent) else { return forward(invocation, &node) };
    let status = run_and_wait(invocation, &node)?;
    after(&lease, status);
    Ok(status)
}

/// `start`: the watch is armed first; without a supervisor nothing starts.
pub(super) fn start(invocation: &Invocation, id: &OsStr) -> Result<i32> {
    let (node, dir) = node_of(invocation, id);
    if place::protected(&dir, id)?.is_none() {
        return forward(invocation, &node);
    }
    let lease = Lease::take(&dir, Intent::Starting).with_context(|| {
        format!(
            "failed to start container {}: its supervisor does not answer; delete it with --force and create it again",
            id.to_string_lossy()
        )
    })?;
    let status = run_and_wait(invocation, &node)?;
    if status == 0 {
        // A workload that has ended already took its supervisor along.
        let _ = lease.tell(Intent::Started);
    }
    Ok(status)
}

/// `ps`: the anchor may be in the container's cgroup, but it is not of the container.
pub(super) fn ps(invocation: &Invocation, id: &OsStr, json: bool) -> Result<i32> {
    let (node, dir) = node_of(invocation, id);
    let Some(record) = place::record(&dir).filter(|_| place::is_name(id)) else { return forward(invocation, &node) };
    let Ok(_lease) = Lease::take(&dir, Intent::Use) else { return forward(invocation, &node) };
    let pid = record.anchor.pid;
    retold(
        invocation,
        &node,
        |text| if json { pids::without_in_json(text, pid) } else { pids::without_in_table(text, pid) },
    )
}

/// Runs the low-level runtime as it was called, and writes its output, edited where it is text, to ours.
fn retold(invocation: &Invocation, node: &Node, edit: impl FnOnce(&str) -> String) -> Result<i32> {
    let runtime = runtime::find(&node.runtimes)?;
    let (mut reader, writer) = std::io::pipe().context("failed to make a pipe")?;
    let words: Vec<&OsStr> = invocation.argv.iter().map(OsString::as_os_str).collect();
    let (input, error) = (std::io::stdin(), std::io::stderr());
    let child = Spawn {
        program: &runtime,
        args: &words,
        stdio: [input.as_fd(), writer.as_fd(), error.as_fd()],
        extra: Vec::new(),
        mask: Mask::current(),
        parent_death_signal: libc::SIGKILL,
        listening: false,
    }
    .start()
    .with_context(|| format!("failed to start {}", runtime.display()))?;
    drop(writer);
    let mut told = Vec::new();
    reader
        .by_ref()
        .take(MAX_OUTPUT)
        .read_to_end(&mut told)
        .context("failed to read what the low-level runtime says")?;
    drop(reader);
    let exit = process::wait_pid(child.pid).context("failed to wait for the low-level runtime")?;
    if let Ok(text) = std::str::from_utf8(&told) {
        told = edit(text).into_bytes();
    }
    let mut out = std::io::stdout();
    // runc's state does not end in a newline, behind which standard output would be flushed by itself.
    out.write_all(&told).and_then(|()| out.flush()).context("failed to write what the low-level runtime says")?;
    Ok(exit.shell_code())
}

/// `update`: done, and remembered for the generations to come.
pub(super) fn update(invocation: &Invocation, id: &OsStr, resources: Option<&OsStr>) -> Result<i32> {
    let (node, dir) = node_of(invocation, id);
    if !place::is_name(id) || place::record(&dir).is_none() {
        return forward(invocation, &node);
    }
    let Ok(_lease) = Lease::take(&dir, Intent::Use) else { return forward(invocation, &node) };
    let runtime = runtime::find(&node.runtimes)?;
    let text = match resources {
        Some(name) if name == "-" => {
            Some(read_bounded(&mut std::io::stdin()).context("failed to read resources from standard input")?)
        }
        Some(path) => {
            let mut file =
                std::fs::File::open(path).with_context(|| format!("failed to open {}", Path::new(path).display()))?;
            Some(read_bounded(&mut file).with_context(|| format!("failed to read {}", Path::new(path).display()))?)
        }
        None => None,
    };
    let input: Option<OwnedFd> = text
        .as_deref()
        .filter(|_| resources.is_some_and(|r| r == "-"))
        .map(|text| crate::sys::memory::file("resources", text.as_bytes()))
        .transpose()
        .context("failed to hand the resources on")?;
    let words: Vec<&OsStr> = invocation.argv.iter().map(OsString::as_os_str).collect();
    let (stdin, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let child = Spawn {
        program: &runtime,
        args: &words,
        stdio: [input.as_ref().map_or(stdin.as_fd(), AsFd::as_fd), output.as_fd(), error.as_fd()],
        extra: Vec::new(),
        mask: Mask::current(),
        parent_death_signal: libc::SIGKILL,
        listening: false,
    }
    .start()
    .with_context(|| format!("failed to start {}", runtime.display()))?;
    let exit = process::wait_pid(child.pid).context("failed to wait for the low-level runtime")?;
    if exit.shell_code() == 0 {
        let verb = &invocation.argv[invocation.verb_at..];
        updates::remember(&dir, verb, text)?;
    }
    Ok(exit.shell_code())
}

fn read_bounded(from: &mut impl Read) -> Result<String> {
    let mut text = String::new();
    from.take(MAX_TEXT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_TEXT {
        bail!("more than {MAX_TEXT} bytes");
    }
    Ok(text)
}
