//! Verbs that are over soon, on a container that may be protected: they wait for a restart that is under way, and none
//! begins before they are done.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{forward, node, place, updates};
use crate::cli::Invocation;
use crate::runtime;
use crate::supervise::control::{Intent, Lease};
use crate::sys::process;
use crate::sys::signals::Mask;
use crate::sys::spawn::Spawn;

/// Most of what `update` reads from standard input, and `ps` prints, in bytes.
const MAX_TEXT: u64 = 1 << 20;

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

/// `kill`: with `--all` the anchor may be hit too, which is not meant for the workload a second time.
pub(super) fn kill(invocation: &Invocation, id: &OsStr, all: bool) -> Result<i32> {
    with_lease(invocation, id, if all { Intent::KillAll } else { Intent::Use }, |_, _| {})
}

fn with_lease(invocation: &Invocation, id: &OsStr, intent: Intent, after: impl FnOnce(&Lease, i32)) -> Result<i32> {
    let node = node(invocation);
    let dir = place::of(&node.state_dir, &invocation.globals, id);
    if !place::is_name(id) || !dir.exists() {
        return forward(invocation, &node);
    }
    let Ok(lease) = Lease::take(&dir, intent) else { return forward(invocation, &node) };
    let runtime = runtime::find(&node.runtimes)?;
    let exit = runtime::run_and_wait(&runtime, &invocation.argv)
        .with_context(|| format!("failed to start {}", runtime.display()))?;
    after(&lease, exit.shell_code());
    Ok(exit.shell_code())
}

/// `start`: the watch is armed first; without a supervisor nothing starts.
pub(super) fn start(invocation: &Invocation, id: &OsStr) -> Result<i32> {
    let node = node(invocation);
    let dir = place::of(&node.state_dir, &invocation.globals, id);
    if place::protected(&dir, id)?.is_none() {
        return forward(invocation, &node);
    }
    let lease = Lease::take(&dir, Intent::Starting).with_context(|| {
        format!(
            "failed to start container {}: its supervisor does not answer; delete it and create it again",
            id.to_string_lossy()
        )
    })?;
    let runtime = runtime::find(&node.runtimes)?;
    let exit = runtime::run_and_wait(&runtime, &invocation.argv)
        .with_context(|| format!("failed to start {}", runtime.display()))?;
    if exit.shell_code() == 0 {
        // A workload that has ended already took its supervisor along.
        let _ = lease.tell(Intent::Started);
    }
    Ok(exit.shell_code())
}

/// `ps`: the anchor may be in the container's cgroup, but it is not of the container.
pub(super) fn ps(invocation: &Invocation, id: &OsStr, json: bool) -> Result<i32> {
    let node = node(invocation);
    let dir = place::of(&node.state_dir, &invocation.globals, id);
    let Some(record) = place::record(&dir).filter(|_| place::is_name(id)) else { return forward(invocation, &node) };
    let Ok(_lease) = Lease::take(&dir, Intent::Use) else { return forward(invocation, &node) };
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
    let mut text = String::new();
    reader.by_ref().take(MAX_TEXT).read_to_string(&mut text).context("failed to read the processes")?;
    let exit = process::wait_pid(child.pid).context("failed to wait for the low-level runtime")?;
    let text =
        if json { without_pid_json(&text, record.anchor.pid) } else { without_pid_table(&text, record.anchor.pid) };
    std::io::stdout().write_all(text.as_bytes()).context("failed to write the processes")?;
    Ok(exit.shell_code())
}

fn without_pid_json(text: &str, pid: i32) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(pids)) if pids.iter().any(|p| p.as_i64() == Some(pid.into())) => {
            let rest: Vec<Value> = pids.into_iter().filter(|p| p.as_i64() != Some(pid.into())).collect();
            let end = if text.ends_with('\n') { "\n" } else { "" };
            format!("{}{end}", Value::Array(rest))
        }
        _ => text.to_owned(),
    }
}

fn without_pid_table(text: &str, pid: i32) -> String {
    let column = text.lines().next().and_then(|head| head.split_whitespace().position(|name| name == "PID"));
    let Some(column) = column else { return text.to_owned() };
    let other = |line: &&str| line.split_whitespace().nth(column) != Some(pid.to_string().as_str());
    text.split_inclusive('\n').filter(other).collect()
}

/// `update`: done, and remembered for the generations to come.
pub(super) fn update(invocation: &Invocation, id: &OsStr, resources: Option<&OsStr>) -> Result<i32> {
    let node = node(invocation);
    let dir = place::of(&node.state_dir, &invocation.globals, id);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ps_leaves_the_anchor_out_and_everything_else_as_it_was() {
        assert_eq!(without_pid_json("[10,11,12]\n", 11), "[10,12]\n");
        assert_eq!(without_pid_json("[10, 12]", 11), "[10, 12]", "untouched where there is nothing to leave out");
        assert_eq!(without_pid_json("not json", 11), "not json");
        let table = "UID   PID  PPID CMD\nroot   10     1 init\nroot   11     1 lithify\nroot  111     1 sh -c 11\n";
        assert_eq!(
            without_pid_table(table, 11),
            "UID   PID  PPID CMD\nroot   10     1 init\nroot  111     1 sh -c 11\n"
        );
    }
}
