//! What the machine's effects are done by, and the next generation's beginning.

use std::collections::HashSet;
use std::path::PathBuf;

use super::machine::{Effect, Input, Phase};
use super::storm::{leave_out, paths_of};
use super::supervisor::Supervisor;
use crate::policy::{Response, RootfsKind};
use crate::record;
use crate::sys::process::Exit;

impl Supervisor {
    pub(super) fn take(&mut self, input: Input) {
        let now = self.now();
        let effects = self.machine.step(input, now);
        self.carry_out(effects);
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Freeze => self.freeze(),
                Effect::KillGeneration => {
                    self.end_generation_now();
                    self.tell_last_refusals();
                    self.scan_generation();
                    self.set_phase(record::Phase::Restarting);
                }
                Effect::RetireGeneration => {
                    self.hold_streams();
                    self.breach_seen = Some(std::time::Instant::now());
                    self.retire_generation();
                    self.tell_last_refusals();
                    self.scan_generation();
                    self.set_phase(record::Phase::Restarting);
                }
                Effect::BeginGeneration => self.begin_generation(),
                Effect::KillForGood => {
                    self.end_generation_now();
                    self.exit = Some(Exit::Signal(libc::SIGKILL));
                }
                Effect::TellEscalation(to) => self.tell_escalation(to),
                Effect::TellExit => self.tell_exit(),
            }
        }
        // With no delay there is nothing to wait for.
        if matches!(self.machine.phase, Phase::Backoff(at) if self.now() >= at) {
            self.take(Input::BackoffOver);
        }
    }

    /// The next generation, or the end.
    fn begin_generation(&mut self) {
        self.let_verbs_finish();
        let restarted = match self.restart() {
            Err(error) => self.start_anew(error),
            Ok(()) => Ok(()),
        };
        match restarted {
            Ok(()) => {
                self.renew_at = self.plan.policy.renew_every.map(|every| self.now() + every);
                self.take(Input::Started);
                self.set_phase(record::Phase::Running);
                self.tell_restarted();
                for signal in std::mem::take(&mut self.late_signals) {
                    self.forward(signal);
                }
            }
            Err(error) => {
                self.record.degraded.push(format!("the restart failed: {error:#}"));
                self.end_generation_now();
                self.take(Input::RestartFailed);
            }
        }
    }

    fn freeze(&mut self) {
        match self.pause() {
            Ok(()) => self.set_phase(record::Phase::Paused),
            Err(error) => {
                // What can't be frozen must not go on.
                self.record.degraded.push(format!("the container could not be frozen: {error:#}"));
                self.tell_escalation(Response::Stop);
                self.end_generation_now();
                self.exit = Some(Exit::Signal(libc::SIGKILL));
                self.tell_exit();
            }
        }
    }

    /// The container is over: the last look, the last event.
    pub(super) fn tell_exit(&mut self) {
        self.machine.phase = Phase::Ended;
        self.kill_stragglers();
        self.tell_last_refusals();
        self.scan_generation();
        self.leave_guard();
        let observation = self.close_companion();
        let exit = self.exit.unwrap_or(Exit::Signal(libc::SIGKILL));
        self.tell_exited(exit, observation);
        self.set_phase(record::Phase::Stopped);
        self.over = true;
    }

    pub(super) fn set_phase(&mut self, phase: record::Phase) {
        self.record.phase = phase;
        self.save_record();
    }

    /// Writes the record; a full disk must not stop a response.
    pub(super) fn save_record(&mut self) {
        let _ = self.record.write(&self.plan.dir);
    }

    /// What the scan finds beyond what the watches told is a breach too.
    fn scan_generation(&mut self) {
        if self.root.kind() == RootfsKind::Engine && self.machine.response() == Response::Report {
            // Every change stays there and has been told as it happened; the scan would tell all of them again.
            return;
        }
        let told = std::mem::take(&mut self.told);
        let mut seen = self.watches.look();
        let mut scanned = self.watches.scan();
        self.tell_failures(std::mem::take(&mut seen.failures));
        self.tell_failures(std::mem::take(&mut scanned.failures));
        leave_out(&mut seen.changes, &told);
        let looked: HashSet<PathBuf> = paths_of(&seen.changes).collect();
        leave_out(&mut scanned.changes, &told);
        leave_out(&mut scanned.changes, &looked);
        seen.changes.extend(scanned.changes);
        self.told = told;
        let now = self.now();
        self.storm.add(seen.changes, now);
        if self.storm.has_changes() {
            self.tell_breach("scan");
        }
    }
}
