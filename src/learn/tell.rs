//! What a collector tells: each thing once, and not more of it than anybody reads.
//!
//! Owns: the events of learning and observing. Must not: decide what they are about.

use std::collections::{BTreeMap, BTreeSet};

use super::subject::Subject;
use crate::events::{Durability, Event, EventType, Journal, Recorder};
use crate::profile::beyond::Beyond;
use crate::profile::items::as_decided;
use crate::profile::steering::{Steering, Step};
use crate::profile::{Observation, Profile, moved};

/// Most events of one kind that one look leads to; of the rest, how many.
const MAX_AT_ONCE: usize = 32;
/// Most things that are remembered as told. A container that does more new things than this is told of no more.
const MAX_TOLD: usize = 16_384;

/// The journal of one collector.
pub(super) struct Teller {
    recorder: Recorder,
    container: String,
    common: BTreeMap<String, serde_json::Value>,
    told: BTreeSet<String>,
}

impl Teller {
    pub(super) fn new(subject: &Subject) -> Teller {
        let common = Event::new(EventType::Learnt, "", BTreeMap::new())
            .with("workload", subject.workload.as_str())
            .named(&subject.names)
            .data;
        let journal = Journal::open(&subject.data_dir, subject.journal);
        let recorder = Recorder::new(journal, &subject.container);
        Teller { recorder, container: subject.container.clone(), common, told: BTreeSet::new() }
    }

    fn event(&self, event_type: EventType) -> Event {
        Event::new(event_type, &self.container, self.common.clone())
    }

    /// Part of learning does not work as it should.
    pub(super) fn degraded(&mut self, reason: &str) {
        if self.is_new(format!("degraded {reason}")) {
            let event = self.event(EventType::Degraded).with("reason", format!("learning: {reason}"));
            self.recorder.record(event, Durability::Buffered);
        }
    }

    /// There is nothing to compare this workload with.
    pub(super) fn has_no_profile(&mut self, workload: &str) {
        self.degraded(&format!(
            "workload {workload} has no profile to compare with: nothing beyond it can be told; learn it first, with mode 'learn'"
        ));
    }

    /// An observation is part of a profile.
    pub(super) fn learnt(&mut self, observation: &Observation, profile: &Profile, items_before: usize) {
        let items = profile.workload_behaviour.len() + profile.exec_behaviour.len();
        let event = self
            .event(EventType::Learnt)
            .with("observation", observation.id.as_str())
            .with("revision", observation.revision.digest.as_str())
            .with("generation", observation.generation)
            .with("windows", observation.windows)
            .with("items", items)
            .with("new", items.saturating_sub(items_before))
            .with("lost", observation.loss.table_full + observation.loss.unreadable + observation.loss.untracked)
            .with("unseen", observation.unseen.clone());
        self.recorder.record(event, Durability::Buffered);
    }

    /// A profile has come to another stage.
    pub(super) fn moved(&mut self, step: &Step, profile: &Profile, origin: Option<&Profile>) {
        let mut event = moved::event(&self.container, step, profile, origin);
        event.data.extend(self.common.clone());
        self.recorder.record(event, Durability::Synced);
    }

    /// Other `revisions`, or `workloads`, made room for this one.
    pub(super) fn removed(&mut self, what: &str, names: &[String]) {
        if let Some(mut event) = moved::removed(&self.container, what, names) {
            event.data.extend(self.common.clone());
            self.recorder.record(event, Durability::Buffered);
        }
    }

    /// What somebody has to look at before the profile is enforced, of that what came up `now`.
    pub(super) fn waits(&mut self, profile: &Profile, now: &str) {
        let new = profile.steering.waiting.iter().filter(|(_, doubt)| doubt.at == now);
        let new: Vec<&str> = new.map(|(item, _)| item.as_str()).collect();
        if new.is_empty() {
            return;
        }
        let mut event = moved::waits(&self.container, profile, &new);
        event.data.extend(self.common.clone());
        self.recorder.record(event, Durability::Synced);
    }

    /// What earlier collectors, which did not live to do it, had seen is part of their profiles now.
    pub(super) fn recovered(&mut self, count: usize) {
        if count > 0 {
            let event = self.event(EventType::Learnt).with("recovered", count);
            self.recorder.record(event, Durability::Buffered);
        }
    }

    /// What the baseline forbids, and nobody has allowed.
    pub(super) fn forbidden(&mut self, observation: &Observation, steering: &Steering) {
        let bare = |item: &str| as_decided(item.strip_prefix("exec: ").unwrap_or(item));
        let all = observation.forbidden.iter().filter(|(item, _)| !steering.allows(&bare(item)));
        let new: Vec<_> = all.filter(|(item, _)| !self.is_told("forbidden", item)).collect();
        let left_out = new.len().saturating_sub(MAX_AT_ONCE);
        for (n, (item, forbidden)) in new.into_iter().enumerate() {
            self.is_new(format!("forbidden {item}"));
            if n >= MAX_AT_ONCE {
                continue;
            }
            let (side, named) = item.strip_prefix("exec: ").map_or(("workload", item.as_str()), |item| ("exec", item));
            let event = self
                .event(EventType::Forbidden)
                .with("item", named)
                .with("side", side)
                .with("why", forbidden.reason.as_str())
                .with("seen", forbidden.seen.first.as_str())
                .with("revision", observation.revision.digest.as_str());
            self.recorder.record(event, Durability::Synced);
        }
        self.left_out(EventType::Forbidden, left_out);
    }

    /// What enforcing a profile would have refused.
    pub(super) fn would_refuse(&mut self, all: &[Beyond], profile: &Profile) {
        let key = |b: &Beyond| format!("{} {} {}", b.side.name(), b.section.name(), b.item);
        let new: Vec<&Beyond> = all.iter().filter(|b| !self.is_told("beyond", &key(b))).collect();
        let left_out = new.len().saturating_sub(MAX_AT_ONCE);
        for (n, beyond) in new.into_iter().enumerate() {
            self.is_new(format!("beyond {}", key(beyond)));
            if n >= MAX_AT_ONCE {
                continue;
            }
            let event = self
                .event(EventType::WouldRefuse)
                .with("kind", beyond.section.singular())
                .with("item", beyond.item.as_str())
                .with("side", beyond.side.name())
                .with("by", beyond.by.iter().cloned().collect::<Vec<_>>())
                .with("seen", beyond.first.as_str())
                .with("profile", format!("{}/{}", profile.workload, profile.revision.digest));
            self.recorder.record(event, Durability::Buffered);
        }
        self.left_out(EventType::WouldRefuse, left_out);
    }

    fn left_out(&mut self, event_type: EventType, count: usize) {
        if count > 0 {
            let event = self.event(event_type).with("left-out", count);
            self.recorder.record(event, Durability::Buffered);
        }
    }

    fn is_told(&self, kind: &str, what: &str) -> bool {
        self.told.len() >= MAX_TOLD || self.told.contains(&format!("{kind} {what}"))
    }

    fn is_new(&mut self, what: String) -> bool {
        self.told.len() < MAX_TOLD && self.told.insert(what)
    }

    /// Before the process ends.
    pub(super) fn flush(&mut self) {
        self.recorder.flush();
    }
}
