//! What the supervisor tells the journal.

use std::time::Instant;

use serde_json::{Value, json};

use super::storm::Summary;
use super::supervisor::{Supervisor, timestamp};
use crate::events::{Durability, Event, EventType};
use crate::policy::{Mode, Response};
use crate::record::LastBreach;
use crate::sys::process::Exit;
use crate::watch::{Change, ChangeKind};

impl Supervisor {
    pub(super) fn event(&self, event_type: EventType) -> Event {
        let record = &self.record;
        Event::new(event_type, &record.id, Default::default())
            .with("workload", record.workload.clone())
            .with("generation", record.generation)
            .named(&record.names)
    }

    /// The first generation runs.
    pub(super) fn tell_started(&mut self) {
        let policy = &self.record.policy;
        let mut event = self
            .event(EventType::Started)
            .with("mode", json!(policy.mode))
            .with("rootfs", json!(policy.rootfs))
            .with("response", json!(self.record.response))
            .with("profile", self.profile())
            .with("pid", self.anchor.pid);
        if !self.record.degraded.is_empty() {
            event = event.with("degraded", json!(self.record.degraded));
        }
        if !self.record.notes.is_empty() {
            event = event.with("notes", json!(self.record.notes));
        }
        self.recorder.record(event, Durability::Buffered);
    }

    /// Part of the watch does not work.
    pub(super) fn tell_failures(&mut self, failures: Vec<String>) {
        for failure in failures {
            if self.record.degraded.contains(&failure) {
                continue;
            }
            let event = self.event(EventType::Degraded).with("reason", failure.clone());
            self.recorder.record(event, Durability::Synced);
            self.record.degraded.push(failure);
        }
    }

    /// Something will not be told from now on: an event each time, and once in the record.
    pub(super) fn tell_loss(&mut self, reason: &str) {
        let event = self.event(EventType::Degraded).with("reason", reason);
        self.recorder.record(event, Durability::Synced);
        if !self.record.degraded.iter().any(|told| told == reason) {
            self.record.degraded.push(reason.to_owned());
        }
        self.save_record();
    }

    /// Tells the changes that have been gathered; durable when this returns, unless the disk refuses.
    pub(super) fn tell_breach(&mut self, source: &str) {
        let now = self.now();
        let Some(summary) = self.storm.take(now) else { return };
        let landed = summary.named.iter().any(|(_, change)| change.kind != ChangeKind::HostWrite);
        let response = match self.machine.response() {
            Response::Restart if !landed => Response::Report,
            response => response,
        };
        let event = self.breach_event(&summary, source, response);
        let id = event.id.clone();
        self.recorder.record(event, Durability::Synced);
        self.record.breaches += summary.total;
        if let Some((_, change)) = primary(&summary) {
            self.record.last_breach = Some(LastBreach {
                event: id,
                kind: kind(change),
                path: change.path.display().to_string(),
                time: timestamp(),
            });
        }
        self.durable_us = self.durable_us.or(self.breach_seen.map(micros));
        if self.told.len() < 4096 {
            self.told.extend(summary.named.iter().map(|(_, c)| c.path.clone()));
            self.told.extend(summary.named.iter().filter_map(|(_, c)| c.old_path()));
        }
        self.save_record();
    }

    fn breach_event(&self, summary: &Summary, source: &str, response: Response) -> Event {
        let mut event = self
            .event(EventType::Breach)
            .with("count", summary.total)
            .with("response", json!(response))
            .with("source", source);
        if let Some((_, change)) = primary(summary) {
            event = event.with("kind", kind(change)).with("path", change.path.display().to_string());
            if let Some(detail) = &change.detail {
                event = event.with("detail", detail.clone());
            }
            if let Some(culprit) = &change.culprit {
                event = event.with("pid", culprit.pid);
                if let Some(exe) = &culprit.exe {
                    event = event.with("exe", exe.display().to_string());
                }
                if !culprit.cmdline.is_empty() {
                    event = event.with("cmdline", json!(culprit.cmdline));
                }
            }
        }
        if summary.total > 1 {
            let changes: Vec<Value> = summary.named.iter().map(|(count, change)| listed(*count, change)).collect();
            event = event.with("changes", Value::Array(changes)).with("unnamed", summary.unnamed);
        }
        if let Some(seen) = self.breach_seen {
            event = event.with("since_seen_us", micros(seen));
        }
        event
    }

    /// The next generation runs.
    pub(super) fn tell_restarted(&mut self) {
        self.told.clear();
        let rebased = self.watches.rebase_engine();
        self.tell_failures(rebased.err().map(|e| format!("{e:#}")).into_iter().collect());
        let policy = &self.record.policy;
        let mut event = self
            .event(EventType::Restarted)
            .with("mode", json!(policy.mode))
            .with("rootfs", json!(policy.rootfs))
            .with("profile", self.profile());
        if let Some(seen) = self.breach_seen.take() {
            event = event.with("restart_us", micros(seen));
        }
        if let Some(durable) = self.durable_us.take() {
            event = event.with("durable_us", durable);
        }
        if let Some(breach) = &self.record.last_breach {
            event = event.with("breach", breach.event.clone());
        }
        if let Some((key, said)) = self.keep_evidence() {
            event = event.with(key, said);
        }
        self.recorder.record(event, Durability::Buffered);
    }

    /// A stronger response than the configured one.
    pub(super) fn tell_escalation(&mut self, to: Response) {
        let limit = self.record.policy.restart_limit;
        let reason = match self.record.degraded.last().filter(|d| d.contains("failed") || d.contains("could not")) {
            Some(failure) => failure.clone(),
            None => format!("{} restarts within {} s", limit.count, limit.window.as_secs()),
        };
        let event = self
            .event(EventType::Escalated)
            .with("from", json!(self.machine.response()))
            .with("response", json!(to))
            .with("reason", reason);
        self.recorder.record(event, Durability::Synced);
    }

    /// What a profile has to do with this container.
    fn profile(&self) -> String {
        let policy = &self.record.policy;
        match (policy.mode, &policy.profile, &self.record.profile) {
            (Mode::Learn, _, _) => "being learnt".to_owned(),
            (Mode::Observe, Some(name), _) => format!("to be compared with {name}"),
            (Mode::Observe, None, _) => "to be compared with the workload's own".to_owned(),
            (Mode::Auto | Mode::Enforce | Mode::Off, _, Some(name)) => name.clone(),
            (Mode::Auto | Mode::Enforce | Mode::Off, _, None) => {
                "none: immutability with the engine's own filter and capabilities".to_owned()
            }
        }
    }

    /// The workload is over.
    pub(super) fn tell_exited(&mut self, exit: Exit, observation: Option<String>) {
        let mut event = self.event(EventType::Exited).with("breaches", self.record.breaches);
        if let Some(observation) = observation {
            event = event.with("observation", observation);
        }
        let event = match exit {
            Exit::Code(code) => event.with("status", code),
            Exit::Signal(signal) => event.with("signal", signal).with("status", 128 + signal),
        };
        self.recorder.record(event, Durability::Buffered);
    }
}

/// The change to put first: one whose author is known, if there is one.
fn primary(summary: &Summary) -> Option<&(u64, Change)> {
    summary.named.iter().find(|(_, c)| c.culprit.is_some()).or(summary.named.first())
}

fn kind(change: &Change) -> String {
    serde_json::to_value(change.kind).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn listed(count: u64, change: &Change) -> Value {
    json!({ "kind": change.kind, "path": change.path.display().to_string(), "count": count, "detail": change.detail })
}

pub(super) fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}
