//! What the supervisor tells the journal of refusals: breaches, a few for each window.

use serde_json::{Value, json};

use super::supervisor::{Supervisor, timestamp};
use super::tally::{Group, Met, text};
use super::tell::micros;
use crate::events::{Durability, Event, EventType};
use crate::guard::Refused;
use crate::policy::Response;
use crate::profile::items;
use crate::record::LastRefusal;

/// Longest text, in bytes, in an event of a storm that was told of in full before.
const TEXT_OF_MANY: usize = 256;

impl Supervisor {
    /// Tells the refusals that have been gathered, those whose time has come or `all`; durable when this returns, unless the
    /// disk refuses.
    pub(super) fn tell_refusals(&mut self, all: bool) {
        let groups = self.tally.take(self.now(), all);
        if groups.is_empty() {
            return;
        }
        let mut total = 0;
        for group in &groups {
            let named: u64 = group.named.iter().map(|met| met.count).sum();
            total += named + group.unnamed;
            let event = self.refusal_event(group, named + group.unnamed);
            self.keep_refusal(&event, group);
            self.recorder.record(event, Durability::Synced);
        }
        self.record.refusals += total;
        self.record.breaches += total;
        self.durable_us = self.durable_us.or(self.breach_seen.map(micros));
        self.save_record();
    }

    fn refusal_event(&self, group: &Group, count: u64) -> Event {
        if group.named.is_empty() {
            let event = self.event(EventType::Breach).with("kind", group.kind).with("count", count);
            return event.with("unnamed", group.unnamed).with("source", "seccomp");
        }
        // By containment: a response that ended the generation is the one that counts.
        let response = group.named.iter().map(|met| met.response).find(|response| *response != Response::Report);
        let mut event = self
            .event(EventType::Breach)
            .with("kind", group.kind)
            .with("count", count)
            .with("response", json!(response.unwrap_or(Response::Report)))
            .with("session", group.session);
        if let Some(profile) = &self.record.profile {
            event = event.with("profile", profile.clone());
        }
        if let Some(first) = group.named.first() {
            event = facts(event, first).with("pid", first.refusal.pid).with("program", first.refusal.program.clone());
        }
        if count > 1 {
            let refusals: Vec<Value> = group.named.iter().map(listed).collect();
            event = event.with("refusals", Value::Array(refusals)).with("unnamed", group.unnamed);
        }
        if let Some(seen) = self.breach_seen {
            event = event.with("since_seen_us", micros(seen));
        }
        if group.goes_on { event.cut_to(TEXT_OF_MANY) } else { event }
    }

    fn keep_refusal(&mut self, event: &Event, group: &Group) {
        let Some(last) = group.named.last() else { return };
        self.record.last_refusal = Some(LastRefusal {
            event: event.id.clone(),
            kind: group.kind.to_owned(),
            what: text(&last.refusal.refused),
            program: last.refusal.program.clone(),
            pid: last.refusal.pid,
            session: last.refusal.session,
            time: timestamp(),
        });
        if last.response != Response::Report {
            // For what follows: a restart names the breach that it answers.
            self.record.last_breach = Some(crate::record::LastBreach {
                event: event.id.clone(),
                kind: group.kind.to_owned(),
                path: text(&last.refusal.refused),
                time: timestamp(),
            });
        }
    }
}

/// What was refused, by the names that events use.
fn facts(event: Event, met: &Met) -> Event {
    let event = match items::of_refused(&met.refusal.refused) {
        Some(item) => event.with("item", item),
        None => event,
    };
    match &met.refusal.refused {
        Refused::Syscall { name, arguments, path } => {
            // As text: a 64-bit number is more than JSON's readers keep.
            let arguments: Vec<String> = arguments.iter().map(|argument| format!("{argument:#x}")).collect();
            let event =
                event.with("source", "seccomp").with("syscall", name.clone()).with("arguments", json!(arguments));
            match path {
                Some(path) => event.with("path", path.clone()),
                None => event,
            }
        }
        Refused::Write { path, operation, .. } => {
            event.with("source", "guard").with("path", path.clone()).with("operation", operation.clone())
        }
        Refused::Capability { name } => event.with("source", "guard").with("capability", name.clone()),
        Refused::Program { path, origin, killed } => event
            .with("source", "guard")
            .with("path", path.clone())
            .with("origin", origin.clone())
            .with("killed", *killed),
    }
}

fn listed(met: &Met) -> Value {
    let mut value = json!({
        "refused": text(&met.refusal.refused),
        "pid": met.refusal.pid,
        "program": met.refusal.program,
        "count": met.count,
    });
    if let Some(item) = items::of_refused(&met.refusal.refused) {
        value["item"] = Value::String(item);
    }
    value
}
