//! A container whose supervisor is there and does not answer: it is ended by force, and that is told.
//!
//! Owns: who is killed, in which order, and the event. Must not: be tried before the supervisor had its time, or for less than
//! a caller that would have the container gone.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Node, place};
use crate::events::{Durability, Event, EventType, Journal, Recorder};
use crate::record::{Phase, ProcessRef, Record};
use crate::sys::process;

/// How long each process may take to be gone once it was sent SIGKILL, or what would make it end.
const PATIENCE: Duration = Duration::from_secs(8);

/// Kills supervisor, anchor and init. The supervisor goes first: its anchor then ends what is left, and itself.
pub(super) fn end(node: &Node, dir: &Path, record: &Record) {
    kill(record.supervisor);
    wait_gone(record.supervisor, PATIENCE);
    wait_gone(record.anchor, PATIENCE);
    for left in [Some(record.anchor), record.init].into_iter().flatten() {
        kill(left);
        wait_gone(left, PATIENCE);
    }
    let event = |event_type| {
        Event::new(event_type, &record.id, Default::default())
            .with("workload", record.workload.clone())
            .with("generation", record.generation)
            .named(&record.names)
    };
    let reason = "its supervisor did not answer: it was killed with its container, and what it had not told is lost";
    let mut recorder = Recorder::new(Journal::open(&node.data_dir, node.journal), &record.id);
    recorder.record(event(EventType::Degraded).with("reason", reason), Durability::Synced);
    let exited = event(EventType::Exited).with("breaches", record.breaches);
    recorder.record(exited.with("signal", libc::SIGKILL).with("status", 128 + libc::SIGKILL), Durability::Synced);
    let mut record = record.clone();
    record.phase = Phase::Stopped;
    record.degraded.push(reason.to_owned());
    // What can't be written is removed soon.
    let _ = record.write(dir);
}

/// Sends SIGKILL to a process, if it is still the one that was meant.
pub(super) fn kill(process: ProcessRef) {
    let Ok(pidfd) = process::pidfd_open(process.pid) else { return };
    if place::is_alive(process) {
        let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    }
}

/// Waits until a process is gone, or a zombie that its parent has yet to reap.
pub(super) fn wait_gone(process: ProcessRef, patience: Duration) {
    let deadline = Instant::now() + patience;
    while place::is_alive(process) {
        let Ok(pidfd) = process::pidfd_open(process.pid) else { return };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(left.as_millis().min(60_000) as u16));
    }
}
