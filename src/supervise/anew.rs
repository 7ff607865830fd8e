//! A generation that is decided anew: a changed profile, a promotion, a way back to observing, a low-level runtime that needs
//! more than was known.
//!
//! Owns: when the director is asked, and taking over what it decided. Must not: know why it decided so, or lose a container
//! to it: what can't be had leaves the next generation as the last one was.

use std::time::Duration;

use anyhow::{Context, Result};

use super::calls::RuntimeFailed;
use super::companion::Companion;
use super::director::Decided;
use super::generation::CONFIG;
use super::root::{self, Root};
use super::supervisor::Supervisor;
use super::watches::Watches;
use crate::guard::Refusal;
use crate::policy::{Policy, RootfsKind};
use crate::record;
use crate::spec::{Document, seal};

impl Supervisor {
    /// Before a generation begins; its last one has ended. True: it has a new root and new watches.
    ///
    /// # Errors
    /// When neither what was decided nor what was before can be had any more.
    pub(super) fn decide_anew(&mut self) -> Result<bool> {
        let decided = match self.plan.director.as_mut().map(|director| director.next()) {
            None | Some(Ok(None)) => return Ok(false),
            Some(Ok(Some(decided))) => decided,
            Some(Err(error)) => {
                self.tell_failures(vec![format!("the next generation is as the last one was: {error:#}")]);
                return Ok(false);
            }
        };
        self.take_over(decided)
    }

    /// A workload that was healthy is refused this soon after its start: whether it is to go on observed, in a generation
    /// that begins at once. Never where it may be an attack, which must not be able to end what it is refused by.
    pub(super) fn goes_back_to_observing(&mut self, refusal: &Refusal) -> bool {
        let Some(startup_ms) = self.plan.limits.startup_ms.filter(|_| self.plan.policy.auto) else { return false };
        if !self.machine.is_first_start() || self.generation_began.elapsed() > Duration::from_millis(startup_ms) {
            return false;
        }
        match self.plan.director.as_mut().map(|director| director.demote(refusal)) {
            None => false,
            Some(Ok(demoted)) => demoted,
            Some(Err(error)) => {
                self.tell_failures(vec![format!("it stays enforced: {error:#}")]);
                false
            }
        }
    }

    /// Where this is the replica that is enforced first, what it is refused keeps the others from it.
    pub(super) fn hold_back_others(&mut self, refusal: &Refusal) {
        if let Some(Err(error)) = self.plan.director.as_mut().map(|director| director.refused(refusal)) {
            self.tell_failures(vec![format!("other replicas may come to be enforced all the same: {error:#}")]);
        }
    }

    /// Init has ended: whether that was the low-level runtime's own end, for something that it was refused, and a generation
    /// with what it needs is to follow.
    pub(super) fn is_to_be_started_anew(&mut self) -> bool {
        let refused = self.take_runtimes_refusals();
        // Once its program is the workload, nothing of the low-level runtime is refused.
        !refused.is_empty() && self.recalibrate(&refused)
    }

    /// A generation could not be made or begun: once more, with what the low-level runtime is found to need. Gives the
    /// first error back where that is not the reason.
    ///
    /// # Errors
    /// The first one.
    pub(super) fn start_anew(&mut self, error: anyhow::Error) -> Result<()> {
        let refused = self.take_runtimes_refusals();
        let is_runtimes = error.downcast_ref::<RuntimeFailed>().is_some() || !refused.is_empty();
        if !is_runtimes || !self.recalibrate(&refused) {
            return Err(error);
        }
        self.end_generation_now();
        self.restart().map_err(|_| error)
    }

    /// The engine's own `create` failed. True: it is to be called once more. Not where the engine was sent a terminal
    /// already, for which it waits only once.
    pub(super) fn is_to_be_created_anew(&mut self, error: &anyhow::Error) -> bool {
        let refused = self.take_runtimes_refusals();
        let sent_terminal = self.plan.console_socket.is_some() && !self.plan.console_is_ours;
        error.downcast_ref::<RuntimeFailed>().is_some() && !sent_terminal && self.recalibrate(&refused)
    }

    /// Finds out once what the low-level runtime needs, and takes that over; false where that was known.
    fn recalibrate(&mut self, refused: &[String]) -> bool {
        if !self.plan.is_filtered() || std::mem::replace(&mut self.recalibrated, true) {
            return false;
        }
        let measured = match self.plan.director.as_mut().map(|director| director.recalibrate()) {
            None | Some(Ok(None)) => return false,
            Some(measured) => measured,
        };
        let taken = measured.and_then(|decided| decided.map_or(Ok(false), |decided| self.take_over(decided)));
        let what = if refused.is_empty() { "something".to_owned() } else { refused.join(", ") };
        let text = format!("{} was refused {what} that it needs itself", self.plan.runtime.display());
        match taken {
            Ok(_) => {
                self.tell_failures(vec![format!("{text}; it was measured anew, and the container was started again")]);
                true
            }
            Err(error) => {
                self.tell_failures(vec![format!("{text}; it could not be measured: {error:#}")]);
                false
            }
        }
    }

    /// What was decided holds from the next generation on. True: it has a new root and new watches.
    fn take_over(&mut self, decided: Decided) -> Result<bool> {
        let Decided { policy, config, limits, companion, remarks } = decided;
        if limits.listener
            && let Err(error) = self.inbox.get_mut().gate.open(&self.plan.dir)
        {
            self.tell_failures(vec![format!(
                "the next generation is as the last one was: failed to listen for refused system calls: {error}"
            )]);
            return Ok(false);
        }
        let before = (self.plan.policy.clone(), self.plan.config.clone());
        (self.plan.policy, self.plan.config) = (policy, config);
        let rebuilt = match self.make_config(&before.0) {
            Ok(rebuilt) => rebuilt,
            Err(error) => {
                self.tell_failures(vec![format!("the next generation is as the last one was: {error:#}")]);
                let tried = std::mem::replace(&mut self.plan.policy, before.0);
                self.plan.config = before.1;
                return self.make_config(&tried).context("failed to make the root filesystem again");
            }
        };
        self.tell_failures(remarks.degraded);
        self.record.notes = remarks.notes;
        self.record.notes.extend_from_slice(self.root.notes());
        self.plan.limits = limits;
        if let Err(error) = record::write_limits(&self.plan.limits, &self.plan.dir) {
            self.tell_failures(vec![format!("sessions are held to what the last generation's were: {error:#}")]);
        }
        let policy = &self.plan.policy;
        let response = self.possible(policy.on_write);
        self.machine.decide_anew(response, policy.restart_limit, policy.escalate_to);
        self.machine.set_unpaced(policy.restarts_unpaced);
        self.record.response = response;
        self.record.policy = self.plan.policy.clone();
        self.record.profile = self.plan.limits.profile.clone();
        match companion {
            Some(socket) => self.companion = Some(Companion::new(socket)),
            // The last generation's observation is closed; who is not to record another one may go.
            None if !self.plan.policy.mode.records() => self.companion = None,
            None => {}
        }
        Ok(rebuilt)
    }

    /// Writes the plan's config.json, on a root that is built anew where the last one is not what the plan asks for.
    fn make_config(&mut self, last: &Policy) -> Result<bool> {
        let now = &self.plan.policy;
        let same_root = last.rootfs == now.rootfs && last.tripwire_size_bytes == now.tripwire_size_bytes;
        let same_scratch = last.scratch == now.scratch && last.scratch_size_bytes == now.scratch_size_bytes;
        let mut document = self.plan.config.clone();
        // Scratch mounts need mount points, which are part of the root; a root that is the engine's has none of ours.
        let rebuild = !same_root || !same_scratch || last.is_hands_off() != now.is_hands_off();
        if rebuild {
            self.rebuild_root(&mut document)?;
        } else {
            self.root.edit(&mut document);
        }
        let path = self.plan.dir.join(CONFIG);
        // In place: the file is bound over the bundle's, and only the low-level runtime we start next reads it.
        std::fs::write(&path, document.to_json()).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(rebuild)
    }

    fn rebuild_root(&mut self, document: &mut Document) -> Result<()> {
        // Watches hold the old root's filesystems.
        self.watches = Watches::default();
        let spent = self.root.dismantle();
        if self.plan.rootfs.host_namespace {
            self.plan.rootfs.target = match self.plan.policy.rootfs {
                RootfsKind::Engine => self.plan.rootfs.engine.clone(),
                RootfsKind::Sealed | RootfsKind::Tripwire => {
                    let target = self.plan.dir.join(root::ROOTFS);
                    std::fs::create_dir_all(&target).with_context(|| format!("failed to make {}", target.display()))?;
                    target
                }
            };
            seal::root_path(document, &self.plan.rootfs.target);
        }
        self.root = Root::build(&self.plan, document)?;
        self.root.keep_spent(spent);
        self.tell_failures(self.root.degraded().to_vec());
        if !self.plan.policy.is_hands_off() {
            let mut degraded = Vec::new();
            self.watches = Watches::on_root(&self.root, self.plan.raise_limits, &mut degraded)?;
            self.tell_failures(degraded);
        }
        Ok(())
    }
}
