//! Reading the event journal as a stranger would: JSON lines, CloudEvents 1.0.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::eventually;

/// The `type` of an event without its prefix.
pub const STARTED: &str = "dev.lithify.container.started";
/// A change.
pub const BREACH: &str = "dev.lithify.container.breach";
/// A new generation.
pub const RESTARTED: &str = "dev.lithify.container.restarted";
/// A stronger response.
pub const ESCALATED: &str = "dev.lithify.container.escalated";
/// The end.
pub const EXITED: &str = "dev.lithify.container.exited";
/// An `exec` session.
pub const EXEC: &str = "dev.lithify.container.exec";

/// One journal file.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The journal at that path; it need not exist yet.
    pub fn new(path: PathBuf) -> Journal {
        Journal { path }
    }

    /// Every complete line of it, each checked to be a CloudEvents envelope.
    pub fn events(&self) -> Result<Vec<Value>> {
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.with_context(|| format!("failed to read {}", self.path.display()))?,
        };
        // The last piece is empty, or a line that is being written.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().filter(|line| !line.is_empty()).map(parse).collect()
    }

    /// Events of a type about a container whose id begins like that, oldest first.
    pub fn of(&self, event_type: &str, id: &str) -> Result<Vec<Value>> {
        let mut events = self.events()?;
        events.retain(|event| {
            event["type"] == event_type && event["subject"].as_str().is_some_and(|subject| subject.starts_with(id))
        });
        Ok(events)
    }

    /// Waits until there are that many events of a type about a container, and gives them all.
    pub fn wait_for(&self, event_type: &str, id: &str, count: usize) -> Result<Vec<Value>> {
        eventually(&format!("{count} of {event_type} about {id}"), Duration::from_secs(15), || {
            let events = self.of(event_type, id)?;
            ensure!(events.len() >= count, "the journal has {:?}", self.events()?);
            Ok(Some(events))
        })
    }

    /// Waits for a breach at a path inside the container: its own path, or one of the changes that it sums up.
    pub fn wait_for_breach(&self, id: &str, path: &str) -> Result<Value> {
        eventually(&format!("a breach of {id} at {path}"), Duration::from_secs(15), || {
            let found = self.of(BREACH, id)?.into_iter().find(|event| {
                let changes = event["data"]["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
                event["data"]["path"] == path || changes.iter().any(|change| change["path"] == path)
            });
            ensure!(found.is_some(), "the journal has {:?}", self.events()?);
            Ok(found)
        })
    }
}

fn parse(line: &str) -> Result<Value> {
    let event: Value = serde_json::from_str(line).with_context(|| format!("failed to parse event {line}"))?;
    for field in ["id", "source", "subject", "type", "time"] {
        ensure!(event[field].as_str().is_some_and(|text| !text.is_empty()), "event without {field}: {line}");
    }
    ensure!(event["specversion"] == "1.0", "event of another version: {line}");
    ensure!(event["data"].is_object(), "event without data: {line}");
    Ok(event)
}
