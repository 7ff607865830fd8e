//! What is told of a profile that moves to another stage, or goes. Must not: move it, or write anything.

use std::collections::BTreeMap;

use super::document::{Profile, Stage};
use super::doubtful::decision_wanted;
use super::estimate::Progress;
use super::items::item_name;
use super::steering::Step;
use crate::events::{Event, EventType};
use crate::policy::word;

/// Most items that one event names.
const MAX_ITEMS: usize = 256;
/// Most of those that somebody has to look at.
const MAX_WAITING: usize = 32;

/// The event: `dev.lithify.profile.promoted` or `.demoted`. `subject` is the container for whose sake it happened, or the
/// workload where somebody moved it by hand; `origin` the profile that this one began with, where that is still stored.
pub fn event(subject: &str, step: &Step, profile: &Profile, origin: Option<&Profile>) -> Event {
    let event_type = if step.to > step.from { EventType::Promoted } else { EventType::Demoted };
    let progress = Progress::of(profile);
    let event = Event::new(event_type, subject, BTreeMap::new())
        .with("workload", profile.workload.as_str())
        .with("revision", profile.revision.digest.as_str())
        .with("from", word(&step.from))
        .with("to", word(&step.to))
        .with("why", step.why.as_str())
        .with("generations", profile.generations.len())
        .with("estimate", serde_json::to_value(&progress).unwrap_or_default());
    match origin {
        Some(origin) if step.to > Stage::Learning => event.with("difference", difference(origin, profile)),
        Some(_) | None => event,
    }
}

/// The event of what somebody has to look at, `dev.lithify.profile.waiting`, of which `items` are new. `subject` is the container
/// that did them, or was refused them.
pub fn waits(subject: &str, profile: &Profile, items: &[&str]) -> Event {
    let named = items.get(..MAX_WAITING).unwrap_or(items);
    Event::new(EventType::Waiting, subject, BTreeMap::new())
        .with("workload", profile.workload.as_str())
        .with("profile", format!("{}/{}", profile.workload, profile.revision.digest))
        .with("items", named)
        .with("left-out", items.len() - named.len())
        .with("waits-for", decision_wanted(profile))
}

/// The event of profiles that were removed, `dev.lithify.profile.removed`: of `revisions` of a workload, or of whole `workloads`
/// of a namespace. `subject` is the container for whose sake it happened. `None` if there are none.
pub fn removed(subject: &str, what: &str, names: &[String]) -> Option<Event> {
    let named: Vec<&str> = names.iter().take(MAX_ITEMS).map(String::as_str).collect();
    let event = Event::new(EventType::Removed, subject, BTreeMap::new())
        .with("left-out", names.len() - named.len())
        .with(what, named)
        .with("why", format!("there is no room for more {what} that nobody has decided about"));
    (!names.is_empty()).then_some(event)
}

/// What a profile has and the one that it began with has not, by name, at most a few hundred.
pub fn difference(origin: &Profile, profile: &Profile) -> Vec<String> {
    let sides = [
        ("", &origin.workload_behaviour, &profile.workload_behaviour),
        ("exec: ", &origin.exec_behaviour, &profile.exec_behaviour),
    ];
    let mut new = Vec::new();
    for (prefix, old, now) in sides {
        let known: std::collections::BTreeSet<_> = old.items().map(|(section, name, _)| (section, name)).collect();
        let items = now.items().map(|(section, name, _)| (section, name)).filter(|item| !known.contains(item));
        new.extend(items.map(|(section, name)| format!("{prefix}{}", item_name(section, &name))));
    }
    new.truncate(MAX_ITEMS);
    new
}
