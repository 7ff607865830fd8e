//! The supervisor's side of the process that records what the workload does.
//!
//! Owns: when it is told to begin and to end, and what of it the container waits for. Must not: know what is recorded, or let
//! a container fail because nobody records it.
//!
//! One JSON message a packet, one answer a request, in order: `{"arm":{"pid":1,"generation":1}}` is answered by
//! `{"armed":{"degraded":[]}}`, `{"end":{}}` by `{"written":{"observation":"…","degraded":[]}}`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use serde::Deserialize;
use serde_json::{Value, json};

use super::supervisor::Supervisor;
use super::waiting::{Heard, receive_now};
use crate::sys::socket;

/// How long a container's start waits for the recording to begin. Where the node's sensor has to be loaded first, that has
/// been under way since before the low-level runtime's `create`.
const ARM_PATIENCE: Duration = Duration::from_secs(2);
/// How long the engine waits to see a container end for what was recorded to be on disk.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Most reasons that are taken from one answer.
const MAX_REASONS: usize = 16;

/// An answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Answer {
    Armed { degraded: Vec<String> },
    Written { observation: Option<String>, degraded: Vec<String> },
}

/// Whoever records what the workload does, at the other end of a socket.
pub(super) struct Companion {
    socket: OwnedFd,
    /// Answers that are still to come.
    owed: u32,
    /// The last observation that was written.
    observation: Option<String>,
}

impl Companion {
    /// At this socket (`SOCK_SEQPACKET`).
    pub(super) fn new(socket: OwnedFd) -> Companion {
        Companion { socket, owed: 0, observation: None }
    }

    /// Readable when there is something to hear.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn ask(&mut self, request: &Value) -> Result<(), String> {
        let text = request.to_string();
        socket::send(self.socket.as_fd(), text.as_bytes(), &[]).map_err(|e| format!("its process is gone: {e}"))?;
        self.owed += 1;
        Ok(())
    }

    /// The next answer's complaints, without waiting; `None` where nothing has been said.
    fn hear(&mut self) -> Result<Option<Vec<String>>, String> {
        let message = match receive_now(self.socket.as_fd()) {
            Heard::Nothing => return Ok(None),
            Heard::Gone => return Err("its process has ended".to_owned()),
            Heard::Message(message) => message,
        };
        self.owed = self.owed.checked_sub(1).ok_or("it answers what nobody asked")?;
        let mut degraded =
            match serde_json::from_slice(&message).map_err(|e| format!("its answer can't be read: {e}"))? {
                Answer::Armed { degraded } => degraded,
                Answer::Written { observation, degraded } => {
                    self.observation = observation.or(self.observation.take());
                    degraded
                }
            };
        degraded.truncate(MAX_REASONS);
        Ok(Some(degraded))
    }

    /// Waits, by `wait`, for every answer that is still to come.
    fn settle(&mut self, patience: Duration, wait: impl Fn(BorrowedFd<'_>, Duration)) -> Result<Vec<String>, String> {
        let deadline = Instant::now() + patience;
        let mut complaints = Vec::new();
        while self.owed > 0 {
            if let Some(more) = self.hear()? {
                complaints.extend(more);
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("it has not answered within {} s", patience.as_secs()));
            }
            wait(self.socket.as_fd(), left + Duration::from_millis(1));
        }
        Ok(complaints)
    }
}

impl Supervisor {
    /// The container's init is there and runs nothing of the image yet. Does not wait.
    pub(super) fn arm_companion(&mut self, pid: i32, generation: u64) {
        self.ask_companion(&json!({ "arm": { "pid": pid, "generation": generation } }));
    }

    /// Before the workload's first instruction: whatever it does is to be seen.
    pub(super) fn await_companion(&mut self) {
        self.settle_companion(ARM_PATIENCE);
    }

    /// A generation is over, and another follows. Does not wait.
    pub(super) fn end_companion(&mut self) {
        self.ask_companion(&json!({ "end": {} }));
    }

    /// The container is over: what was recorded is on disk before the engine sees the end, if that does not take long. Says
    /// under which id.
    pub(super) fn close_companion(&mut self) -> Option<String> {
        self.end_companion();
        self.settle_companion(END_PATIENCE);
        // The socket's end lets the other side go.
        self.companion.take()?.observation
    }

    /// What it says by itself, and that it is gone.
    pub(super) fn hear_companion(&mut self) {
        let Some(companion) = &mut self.companion else { return };
        match companion.hear() {
            Ok(complaints) => self.tell_unlearnt(complaints.unwrap_or_default()),
            Err(reason) => self.lose_companion(&reason),
        }
    }

    fn ask_companion(&mut self, request: &Value) {
        let asked = self.companion.as_mut().map(|companion| companion.ask(request));
        if let Some(Err(reason)) = asked {
            self.lose_companion(&reason);
        }
    }

    fn settle_companion(&mut self, patience: Duration) {
        let Some(mut companion) = self.companion.take() else { return };
        let settled = companion.settle(patience, |fd, left| {
            let _ = self.wait_on(&[(fd, PollFlags::POLLIN)], Some(left));
        });
        self.companion = Some(companion);
        match settled {
            Ok(complaints) => self.tell_unlearnt(complaints),
            Err(reason) => self.lose_companion(&reason),
        }
    }

    fn lose_companion(&mut self, reason: &str) {
        self.companion = None;
        self.tell_unlearnt(vec![format!(
            "{reason}; what the container does from now on is not recorded, start it again to record it"
        )]);
    }

    fn tell_unlearnt(&mut self, reasons: Vec<String>) {
        if !reasons.is_empty() {
            self.tell_failures(reasons.into_iter().map(|reason| format!("learning: {reason}")).collect());
            self.save_record();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(fd: BorrowedFd<'_>, left: Duration) {
        let mut fds = [nix::poll::PollFd::new(fd, PollFlags::POLLIN)];
        let _ = nix::poll::poll(&mut fds, left.as_millis() as u16);
    }

    fn pair() -> (Companion, OwnedFd) {
        let (ours, theirs) = socket::pair().expect("a socket pair");
        (Companion::new(ours), theirs)
    }

    #[test]
    fn answers_are_waited_for_together_and_their_complaints_kept() {
        let (mut companion, theirs) = pair();
        companion.ask(&json!({ "end": {} })).expect("asked");
        companion.ask(&json!({ "arm": { "pid": 7, "generation": 2 } })).expect("asked");
        let (first, _) = socket::receive(theirs.as_fd()).expect("heard");
        assert_eq!(first, br#"{"end":{}}"#);
        let (second, _) = socket::receive(theirs.as_fd()).expect("heard");
        assert_eq!(second, br#"{"arm":{"pid":7,"generation":2}}"#);
        for answer in [r#"{"written":{"observation":null,"degraded":["a"]}}"#, r#"{"armed":{"degraded":["b"]}}"#] {
            socket::send(theirs.as_fd(), answer.as_bytes(), &[]).expect("answered");
        }
        assert_eq!(companion.settle(Duration::from_secs(5), wait), Ok(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn a_silent_or_dead_companion_is_given_up_and_said_so() {
        let (mut silent, _theirs) = pair();
        silent.ask(&json!({ "end": {} })).expect("asked");
        assert!(silent.settle(Duration::from_millis(5), wait).expect_err("silence").contains("not answered"));
        let (mut dead, theirs) = pair();
        dead.ask(&json!({ "end": {} })).expect("asked");
        drop(theirs);
        assert!(dead.settle(Duration::from_secs(5), wait).expect_err("dead").contains("ended"));
        assert!(dead.ask(&json!({ "end": {} })).expect_err("dead").contains("gone"));
    }

    #[test]
    fn what_is_no_answer_is_an_error_and_no_panic() {
        for said in [&b"{}"[..], b"\xff", br#"{"armed":{}}"#, br#"{"armed":{"degraded":[1]}}"#] {
            let (mut companion, theirs) = pair();
            companion.ask(&json!({ "end": {} })).expect("asked");
            socket::send(theirs.as_fd(), said, &[]).expect("said");
            assert!(companion.settle(Duration::from_secs(5), wait).is_err(), "{said:?}");
        }
        let (mut companion, theirs) = pair();
        socket::send(theirs.as_fd(), br#"{"armed":{"degraded":[]}}"#, &[]).expect("said");
        assert!(companion.hear().expect_err("nobody asked").contains("nobody asked"));
    }
}
