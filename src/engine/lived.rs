//! Whether a profile was enforced before, as far as the node's journal goes back: a supervisor knows of one life of a container
//! only, and whoever ends the service has the engine begin another.
//!
//! Owns: that question. Must not: decide what follows from it.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::events::reader::{Filter, Reader};
use crate::events::{Event, EventType, clock};
use crate::policy::Response;

/// Whether `container` was started under the profile (`WORKLOAD/REVISION`) before `began_micros`, or any container was answered
/// for what the profile refused it. Reads the whole journal: some 100 MB at most.
///
/// # Errors
/// When the journal can't be read.
pub(super) fn has_lived(data_dir: &Path, profile: &str, container: &str, began_micros: i64) -> Result<bool> {
    let mut events = Reader::open(data_dir, Filter::default())?;
    while let Some(event) = events.next_event()? {
        if event.data.get("profile").and_then(Value::as_str) == Some(profile)
            && (began_before(&event, container, began_micros) || is_answered(&event))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn began_before(event: &Event, container: &str, began_micros: i64) -> bool {
    event.event_type == EventType::Started
        && event.subject == container
        && clock::parse(&event.time).is_some_and(|time| time < began_micros)
}

fn is_answered(event: &Event) -> bool {
    let report = json!(Response::Report);
    event.event_type == EventType::Breach && event.data.get("response").is_some_and(|response| *response != report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Durability, Journal};
    use crate::policy::Config;

    #[test]
    fn a_profile_has_lived_where_its_container_began_before_or_anybody_was_answered() {
        const NOW: i64 = 1_800_000_000_000_000;
        let lived = |kind: EventType, subject: &str, profile: &str, micros: i64, response: &str| {
            let dir = tempfile::tempdir().expect("a folder");
            let mut journal = Journal::open(dir.path(), Config::default().journal);
            let mut event =
                Event::new(kind, subject, Default::default()).with("profile", profile).with("response", response);
            event.time = clock::format(micros);
            journal.append(&event, Durability::Buffered).expect("written");
            has_lived(dir.path(), "web/1", "c", NOW).expect("read")
        };
        assert!(lived(EventType::Started, "c", "web/1", NOW - 1, "restart"));
        assert!(!lived(EventType::Started, "c", "web/1", NOW + 1, "restart"), "that is this life");
        assert!(!lived(EventType::Started, "other", "web/1", NOW - 1, "restart"), "a replica may be healthy");
        assert!(!lived(EventType::Started, "c", "web/2", NOW - 1, "restart"), "another profile");
        assert!(lived(EventType::Breach, "other", "web/1", NOW - 1, "restart"));
        assert!(!lived(EventType::Breach, "c", "web/1", NOW - 1, "report"));
        assert!(!has_lived(Path::new("/nonexistent"), "web/1", "c", NOW).expect("no journal, no past"));
    }
}
