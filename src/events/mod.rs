//! Events: what happened to a container, as CloudEvents 1.0 JSON lines in the journal.
//!
//! Owns: the event types and the journal's files. Must not: decide anything, or stop a response when it can't write.

pub mod clock;
pub mod journal;
pub mod names;
pub mod reader;
pub mod recorder;

pub use journal::{Durability, Journal};
pub use recorder::{Recorded, Recorder};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the engine calls the container, where its annotations say so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineNames {
    /// Kubernetes namespace of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Pod name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Container name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Image reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// True for a pod's pause container.
    #[serde(default)]
    pub sandbox: bool,
}

/// The CloudEvents `type` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    /// The workload's first instruction of a generation is about to run.
    #[serde(rename = "dev.lithify.container.started")]
    Started,
    /// Something changed that must not change.
    #[serde(rename = "dev.lithify.container.breach")]
    Breach,
    /// A new generation runs in place of the old one.
    #[serde(rename = "dev.lithify.container.restarted")]
    Restarted,
    /// The configured response could not be given, or its limit was reached; a stronger one was.
    #[serde(rename = "dev.lithify.container.escalated")]
    Escalated,
    /// The workload has ended and the engine was told.
    #[serde(rename = "dev.lithify.container.exited")]
    Exited,
    /// An engine or a person ran a program in the container.
    #[serde(rename = "dev.lithify.container.exec")]
    Exec,
    /// What a container was seen to do is part of its workload's profile.
    #[serde(rename = "dev.lithify.container.learnt")]
    Learnt,
    /// A container did, while it was learnt or observed, what the baseline forbids; it is never learnt.
    #[serde(rename = "dev.lithify.container.forbidden")]
    Forbidden,
    /// An observed container did what its profile does not have.
    #[serde(rename = "dev.lithify.container.would-refuse")]
    WouldRefuse,
    /// A profile has moved towards being enforced.
    #[serde(rename = "dev.lithify.profile.promoted")]
    Promoted,
    /// Something was seen while observing that somebody has to look at before the profile is enforced.
    #[serde(rename = "dev.lithify.profile.waiting")]
    Waiting,
    /// A profile has moved away from being enforced.
    #[serde(rename = "dev.lithify.profile.demoted")]
    Demoted,
    /// Profiles of revisions that nobody is likely to start again made room for others.
    #[serde(rename = "dev.lithify.profile.removed")]
    Removed,
    /// Part of the watch, or the journal, does not work as it should.
    #[serde(rename = "dev.lithify.watch.degraded")]
    Degraded,
}

/// One CloudEvents 1.0 envelope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Always `1.0`.
    pub specversion: String,
    /// Unique: 16 bytes in hex, 48 bits of milliseconds since 1970 and 80 random ones, so that ids sort by time.
    pub id: String,
    /// `/lithify/<hostname>`.
    pub source: String,
    /// The container's id.
    pub subject: String,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// RFC 3339 with microseconds, UTC.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// Details, by name.
    pub data: BTreeMap<String, serde_json::Value>,
}

/// Longest line of the journal, newline included, in bytes.
pub const MAX_LINE: usize = 64 << 10;

impl EventType {
    /// Every type.
    pub const ALL: [EventType; 14] = [
        EventType::Started,
        EventType::Breach,
        EventType::Restarted,
        EventType::Escalated,
        EventType::Exited,
        EventType::Exec,
        EventType::Learnt,
        EventType::Forbidden,
        EventType::WouldRefuse,
        EventType::Promoted,
        EventType::Waiting,
        EventType::Demoted,
        EventType::Removed,
        EventType::Degraded,
    ];

    /// As in the event, e.g. `dev.lithify.container.breach`.
    pub fn full_name(self) -> &'static str {
        match self {
            EventType::Started => "dev.lithify.container.started",
            EventType::Breach => "dev.lithify.container.breach",
            EventType::Restarted => "dev.lithify.container.restarted",
            EventType::Escalated => "dev.lithify.container.escalated",
            EventType::Exited => "dev.lithify.container.exited",
            EventType::Exec => "dev.lithify.container.exec",
            EventType::Learnt => "dev.lithify.container.learnt",
            EventType::Forbidden => "dev.lithify.container.forbidden",
            EventType::WouldRefuse => "dev.lithify.container.would-refuse",
            EventType::Promoted => "dev.lithify.profile.promoted",
            EventType::Waiting => "dev.lithify.profile.waiting",
            EventType::Demoted => "dev.lithify.profile.demoted",
            EventType::Removed => "dev.lithify.profile.removed",
            EventType::Degraded => "dev.lithify.watch.degraded",
        }
    }

    /// The last word of the full name, e.g. `breach`.
    pub fn short_name(self) -> &'static str {
        self.full_name().rsplit('.').next().unwrap_or_default()
    }

    /// Finds a type by its short or full name.
    pub fn from_name(name: &str) -> Option<EventType> {
        EventType::ALL.into_iter().find(|t| t.short_name() == name || t.full_name() == name)
    }
}

impl Event {
    /// An event that happens now, on this host.
    pub fn new(event_type: EventType, subject: &str, data: BTreeMap<String, serde_json::Value>) -> Event {
        let micros = clock::now_micros();
        Event {
            specversion: "1.0".to_string(),
            id: id(micros),
            source: format!("/lithify/{}", hostname()),
            subject: subject.to_string(),
            event_type,
            time: clock::format(micros),
            datacontenttype: "application/json".to_string(),
            data,
        }
    }

    /// Adds one detail; the names in use are told in the README. A later one of the same name takes its place.
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Event {
        self.data.insert(key.to_string(), value.into());
        self
    }

    /// Adds what the engine calls the container, as far as it says.
    #[must_use]
    pub fn named(self, names: &EngineNames) -> Event {
        let pairs = [
            ("namespace", &names.namespace),
            ("pod", &names.pod),
            ("container", &names.container),
            ("image", &names.image),
        ];
        let known = pairs.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
        known.fold(self, |event, (key, value)| event.with(key, value))
    }

    /// With no text in `data` longer than so many bytes; what is cut says so.
    pub fn cut_to(mut self, len: usize) -> Event {
        self.data.values_mut().for_each(|value| cut(value, len, usize::MAX));
        self
    }

    /// The event as one line of JSON with its newline, at most [`MAX_LINE`]: where it would be longer, strings and lists
    /// in `data` are cut and say so.
    pub fn to_line(&self) -> Vec<u8> {
        for (string_len, list_len) in [(usize::MAX, usize::MAX), (4096, 256), (1024, 32), (128, 8)] {
            let mut event = self.clone();
            for value in event.data.values_mut() {
                cut(value, string_len, list_len);
            }
            if let Some(line) = event.encode() {
                return line;
            }
        }
        let mut event = self.clone();
        cut_text(&mut event.subject, 256);
        cut_text(&mut event.source, 256);
        event.data = BTreeMap::from([("cut".to_string(), "the details were too long for one event".into())]);
        event.encode().unwrap_or_default()
    }

    fn encode(&self) -> Option<Vec<u8>> {
        // Serialising plain strings and JSON values to memory has no way to fail.
        let mut line = serde_json::to_vec(self).ok()?;
        line.push(b'\n');
        (line.len() <= MAX_LINE).then_some(line)
    }
}

fn cut(value: &mut serde_json::Value, string_len: usize, list_len: usize) {
    match value {
        serde_json::Value::String(text) => cut_text(text, string_len),
        serde_json::Value::Array(list) => {
            let more = list.len().saturating_sub(list_len);
            list.truncate(list_len);
            list.iter_mut().for_each(|v| cut(v, string_len, list_len));
            if more > 0 {
                list.push(format!("[{more} more]").into());
            }
        }
        serde_json::Value::Object(map) => map.values_mut().for_each(|v| cut(v, string_len, list_len)),
        _ => {}
    }
}

fn cut_text(text: &mut String, len: usize) {
    if text.len() > len {
        let end = (0..=len).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        let more = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("…[{more} bytes cut]"));
    }
}

/// A unique id for what begins now; see [`Event::id`].
pub fn fresh_id() -> String {
    id(clock::now_micros())
}

fn id(micros: i64) -> String {
    let mut tail = [0u8; 10];
    // The generator can't fail once it is seeded; an id with a weak tail is still better than no event.
    if crate::sys::random::fill(&mut tail).is_err() {
        let weak = u64::from(std::process::id()).rotate_left(32) ^ micros as u64;
        tail[..8].copy_from_slice(&weak.to_be_bytes());
    }
    let millis = (micros / 1000) as u64 & 0xffff_ffff_ffff;
    tail.iter().fold(format!("{millis:012x}"), |id, byte| id + &format!("{byte:02x}"))
}

/// This host's name, as events have it.
pub fn hostname() -> String {
    match nix::sys::utsname::uname() {
        Ok(names) => names.nodename().to_string_lossy().into_owned(),
        Err(_) => "unknown".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_begin_with_their_time() {
        let ids: std::collections::BTreeSet<String> = (0..1000).map(|_| id(1_700_000_000_123_456)).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|i| i.len() == 32 && i.starts_with(&format!("{:012x}", 1_700_000_000_123u64))));
        assert!(id(1_000_000) < id(2_000_000));
    }

    #[test]
    fn names_of_types_are_those_that_are_serialised() {
        for t in EventType::ALL {
            assert_eq!(serde_json::to_value(t).unwrap(), t.full_name());
            assert_eq!(EventType::from_name(t.short_name()), Some(t));
            assert_eq!(EventType::from_name(t.full_name()), Some(t));
        }
    }

    #[test]
    fn an_event_of_many_is_cut_in_its_lists_too_and_keeps_its_numbers() {
        let long = "\u{1}".repeat(4090);
        let listed = serde_json::json!({"refused": long.as_str(), "count": 7});
        let event = Event::new(EventType::Breach, "c", BTreeMap::new()).with("path", long.as_str());
        let event = event.with("count", 600).with("refusals", vec![listed; 8]).cut_to(256);
        let line = event.to_line();
        assert!(line.len() < 20_000, "{} bytes", line.len());
        let back: Event = serde_json::from_slice(&line).unwrap();
        assert_eq!((&back.data["count"], &back.data["refusals"][7]["count"]), (&600.into(), &7.into()));
        assert!(back.data["path"].as_str().unwrap().ends_with("bytes cut]"));
    }

    #[test]
    fn a_line_is_never_longer_than_its_bound_and_says_what_was_cut() {
        let long = "é".repeat(100_000);
        let event = Event::new(EventType::Breach, "c", BTreeMap::new())
            .with("path", long.as_str())
            .with("changes", vec![serde_json::json!({"path": long}); 500]);
        let line = event.to_line();
        assert!(line.len() <= MAX_LINE && line.ends_with(b"\n"));
        let back: Event = serde_json::from_slice(&line).unwrap();
        assert_eq!(back.id, event.id);
        assert!(back.data["path"].as_str().unwrap().contains("bytes cut]"));
        assert!(back.data["changes"].as_array().unwrap().last().unwrap().as_str().unwrap().contains("more]"));
        let wide: BTreeMap<String, serde_json::Value> = (0..20_000).map(|i| (format!("k{i}"), i.into())).collect();
        let line = Event::new(EventType::Breach, &long, wide).to_line();
        assert!(line.len() <= MAX_LINE);
        assert!(serde_json::from_slice::<Event>(&line).unwrap().data.contains_key("cut"));
    }
}
