//! Events: what happened to a container, as CloudEvents 1.0 JSON lines in the journal.
//!
//! Owns: the event types and the journal's files. Must not: decide anything, or stop a response when it can't write.

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
    /// Part of the watch, or the journal, does not work as it should.
    #[serde(rename = "dev.lithify.watch.degraded")]
    Degraded,
}

/// One CloudEvents 1.0 envelope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Always `1.0`.
    pub specversion: String,
    /// Unique: 128 random bits in hex, time-ordered prefix.
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
