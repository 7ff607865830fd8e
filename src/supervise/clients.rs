//! The verbs that have connected to the supervisor, and what it does for them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::PollFlags;

use super::control::Intent;
use super::machine::{Input, Phase};
use super::storm::Storm;
use super::supervisor::Supervisor;
use super::waiting::{Heard, hung_up, receive_now};
use crate::record;
use crate::sys::socket;

/// Verbs that may be connected at once; more wait in the socket's backlog.
const MAX_CLIENTS: usize = 64;

/// A verb that has told what it is about.
pub(super) struct Client {
    pub socket: OwnedFd,
    intent: Option<Intent>,
}

impl Supervisor {
    pub(super) fn hear_clients(&mut self) {
        while self.clients.len() < MAX_CLIENTS {
            match self.control.accept() {
                Some(socket) => self.clients.push(Client { socket, intent: None }),
                None => break,
            }
        }
        let mut at = 0;
        while at < self.clients.len() {
            match receive_now(self.clients[at].socket.as_fd()) {
                Heard::Nothing => at += 1,
                Heard::Gone => {
                    self.clients.swap_remove(at);
                }
                Heard::Message(message) => {
                    let intent = Intent::decode(&message);
                    self.clients[at].intent = intent;
                    if intent == Some(Intent::Started) {
                        // Nobody waits for an answer: `start` is over.
                        self.started();
                        at += 1;
                        continue;
                    }
                    let answer = match intent {
                        Some(intent) => self.oblige(intent).map_err(|e| format!("{e:#}")),
                        None => Err("unknown request".to_owned()),
                    };
                    let answer = answer.err().unwrap_or_else(|| "ok".to_owned());
                    let _ = socket::send(self.clients[at].socket.as_fd(), answer.as_bytes(), &[]);
                    at += 1;
                }
            }
        }
    }

    fn oblige(&mut self, intent: Intent) -> Result<()> {
        match intent {
            Intent::Use | Intent::KillAll | Intent::Started => Ok(()),
            Intent::Session => {
                if self.machine.phase == Phase::Created && !self.armed {
                    self.arm_guard();
                    self.arm()?;
                    self.entered = true;
                }
                Ok(())
            }
            Intent::Starting => {
                self.await_companion();
                self.arm_guard();
                // What a session has written since must not be taken for the engine's.
                if self.entered { Ok(()) } else { self.arm() }
            }
            Intent::Deleting => self.home.enter(self.anchor.pid, &[]),
            Intent::Resumed => {
                self.take(Input::Resumed);
                if self.record.phase == record::Phase::Paused {
                    self.set_phase(record::Phase::Running);
                }
                // On v2 a pause of ours has led it out, and the engine looks for the container's use where it is.
                if self.cgroups.is_unified() { self.cgroups.enter(self.anchor.pid, &[]) } else { Ok(()) }
            }
            Intent::Forward(signal) => {
                self.forward(signal);
                Ok(())
            }
        }
    }

    /// Up to here the engine prepared the container: mount points, /etc/hosts, files copied in.
    fn arm(&mut self) -> Result<()> {
        self.watches.settle().context("failed to arm the watch")?;
        self.storm = Storm::default();
        self.armed = true;
        Ok(())
    }

    /// Whether a `kill --all` is under way, which hits the anchor too.
    pub(super) fn is_killing_all(&self) -> bool {
        self.clients.iter().any(|c| c.intent == Some(Intent::KillAll))
    }

    /// Waits, within bounds, for verbs that are under way: a low-level runtime in the middle of `kill` or `exec` is to find
    /// the container there.
    pub(super) fn let_verbs_finish(&mut self) {
        let deadline = self.now() + Duration::from_millis(500);
        loop {
            // What they have to say is heard after the restart.
            self.clients.retain(|c| !hung_up(c.socket.as_fd()));
            if self.clients.is_empty() || self.now() >= deadline {
                return;
            }
            let fds: Vec<(BorrowedFd<'_>, PollFlags)> =
                self.clients.iter().map(|c| (c.socket.as_fd(), PollFlags::empty())).collect();
            let left = deadline.saturating_sub(self.now()) + Duration::from_millis(1);
            let _ = self.wait_on(&fds, Some(left));
        }
    }
}
