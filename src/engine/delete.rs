//! `delete`: after it nothing of a container is left, whatever became of its supervisor.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::silent::{self, kill, wait_gone};
use super::{Node, forward, node, node_of, place};
use crate::cli::Invocation;
use crate::record::{Phase, Record};
use crate::runtime::{self, layout::Layout};
use crate::spec::Document;
use crate::supervise::cgroup::Cgroups;
use crate::supervise::control::{Intent, Lease};
use crate::supervise::generation::CONFIG;
use crate::supervise::root;
use crate::sys::process;
use crate::sys::signals::Mask;
use crate::sys::spawn::Spawn;

/// How long a supervisor may take for its last words.
const PATIENCE: Duration = Duration::from_secs(15);

/// Deletes a container.
pub(super) fn delete(invocation: &Invocation, id: &OsStr, force: bool) -> Result<i32> {
    let (node, dir) = node_of(invocation, id);
    if !place::is_name(id) || !dir.exists() {
        return forward(invocation, &node);
    }
    let Some(record) = place::record(&dir) else {
        // A create that was killed before it got far.
        let removed = remove_stale(&dir)?;
        let status = forward_and_wait(invocation, &node)?;
        return Ok(if removed { status } else { status.max(1) });
    };
    let ended = record.init.is_none_or(|init| !place::is_alive(init)) && record.phase != Phase::Restarting;
    if ended || !place::is_alive(record.anchor) {
        // The supervisor may still be writing the last event, and the anchor is in the cgroups that are to be removed.
        wait_gone(record.anchor, PATIENCE);
        // An anchor that is still there has not heard of the end: then nobody says when.
        if !place::is_alive(record.anchor) {
            wait_gone(record.supervisor, PATIENCE);
        }
    }
    let mut supervised = place::is_alive(record.supervisor);
    if !supervised {
        end_orphan(&record);
    }
    let intent = if force { Intent::Deleting } else { Intent::Use };
    let lease = match supervised.then(|| Lease::take(&dir, intent)) {
        Some(Err(error)) if force && error.kind() == io::ErrorKind::TimedOut => {
            silent::end(&node, &dir, &record);
            supervised = false;
            None
        }
        lease => lease.and_then(Result::ok),
    };
    let mut status = forward_and_wait(invocation, &node)?;
    drop(lease);
    if !supervised && status != 0 {
        // The supervisor was killed in the middle of a restart: the low-level runtime has half a container or none.
        status = force_low_level(invocation, &node, &record.id);
    }
    if status == 0 {
        wait_gone(record.supervisor, PATIENCE);
        wait_gone(record.anchor, PATIENCE);
        clear(&dir, &record);
    }
    Ok(status)
}

/// Deletes what a foreground `run` has seen the end of. A container that leaves nothing but its state folder and empty
/// cgroups needs no call of the low-level runtime for that.
pub(super) fn finished(invocation: &Invocation, dir: &Path) {
    let Some(record) = place::record(dir) else { return };
    let plain = !invocation.globals.systemd_cgroup && !has_poststop_hooks(dir);
    let layout = Layout::started(invocation.globals.root.as_deref(), &record.id).filter(|_| plain);
    match layout {
        Some(layout) if layout.forget().is_ok() => {
            wait_gone(record.supervisor, PATIENCE);
            clear(dir, &record);
        }
        _ => force(invocation, dir),
    }
}

fn has_poststop_hooks(dir: &Path) -> bool {
    let text = std::fs::read(dir.join(CONFIG)).unwrap_or_default();
    Document::parse(&text).is_ok_and(|document| document.has_hooks("poststop"))
}

/// Deletes by force, without a word: what `create` does when it fails late.
pub(super) fn force(invocation: &Invocation, dir: &Path) {
    let node = node(invocation);
    let Some(record) = place::record(dir) else { return };
    if !place::is_alive(record.anchor) {
        wait_gone(record.supervisor, PATIENCE);
    }
    force_low_level(invocation, &node, &record.id);
    while let Ok(Some(_)) = process::reap_any(None) {}
    wait_gone(record.supervisor, PATIENCE);
    clear(dir, &record);
}

/// Removes what is left of a container that nobody supervises. False if somebody does, or may be creating it right now:
/// both hold a lock on the folder.
pub(super) fn remove_stale(dir: &Path) -> Result<bool> {
    let folder = match std::fs::File::open(dir) {
        Ok(folder) => folder,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error).with_context(|| format!("failed to open {}", dir.display())),
    };
    match folder.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Ok(false),
        Err(std::fs::TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("failed to lock {}", dir.display()));
        }
    }
    match place::record(dir) {
        Some(record) => {
            end_orphan(&record);
            clear(dir, &record);
        }
        None => root::remove_state(dir),
    }
    Ok(true)
}

/// Without its supervisor a container must not go on.
fn end_orphan(record: &Record) {
    for orphan in [Some(record.anchor), record.init].into_iter().flatten() {
        kill(orphan);
        wait_gone(orphan, PATIENCE);
    }
}

fn clear(dir: &Path, record: &Record) {
    Cgroups::remove_empty(&record.cgroups);
    root::remove_state(dir);
}

fn forward_and_wait(invocation: &Invocation, node: &Node) -> Result<i32> {
    let runtime = runtime::find(&node.runtimes)?;
    let exit = runtime::run_and_wait(&runtime, &invocation.argv)
        .with_context(|| format!("failed to start {}", runtime.display()))?;
    Ok(exit.shell_code())
}

fn force_low_level(invocation: &Invocation, node: &Node, id: &str) -> i32 {
    let call = || -> Result<i32> {
        let runtime = runtime::find(&node.runtimes)?;
        let mut args: Vec<OsString> = invocation.globals.quiet.clone();
        args.extend(["delete".into(), "--force".into(), id.into()]);
        let words: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
        let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        let child = Spawn {
            program: &runtime,
            args: &words,
            stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
            extra: Vec::new(),
            mask: Mask::current(),
            parent_death_signal: libc::SIGKILL,
            listening: false,
        }
        .start()?;
        Ok(process::wait_pid(child.pid)?.shell_code())
    };
    call().unwrap_or(1)
}
