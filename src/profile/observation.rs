//! What one generation of one revision was seen to do; immutable once the generation has ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::behaviour::Behaviour;
use super::revision::Revision;

/// Format version; readers refuse others.
pub const VERSION: u32 = 1;

/// Evidence of one item in one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sighting {
    /// In how many observation windows of the generation it was seen; at least 1.
    pub windows: u32,
    /// RFC 3339, UTC: when the first window that saw it began. Two items that only one window saw have the same time here
    /// exactly when it was the same window: what the estimate of what is still to come is made from.
    pub first: String,
    /// RFC 3339, UTC: when the last window that saw it began.
    pub last: String,
}

/// What may be missing in an observation. All zero: nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Loss {
    /// Records that found a table full.
    pub table_full: u64,
    /// Records that could not be read.
    pub unreadable: u64,
    /// Processes that could not be followed.
    pub untracked: u64,
}

/// Peaks of what was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Peaks {
    /// Memory, in bytes; `None`: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Tasks (threads and processes) at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Most CPU time in one window, in thousandths of one CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
}

/// One generation's observation: a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Observation {
    /// [`VERSION`].
    pub version: u32,
    /// Unique: 16 bytes in hex that sort by time ([`crate::events`]' ids).
    pub id: String,
    /// What stays the same over updates.
    pub workload: String,
    /// Image and parameters.
    pub revision: Revision,
    /// `x86_64`.
    pub architecture: String,
    /// Host name of the node.
    pub node: String,
    /// Container id and generation there, from 1.
    pub container: String,
    /// 1 for the first life.
    pub generation: u64,
    /// RFC 3339, UTC.
    pub started: String,
    /// RFC 3339, UTC: up to when this is complete.
    pub until: String,
    /// The generation has ended, and nothing will be added. False in a file that a crash left behind.
    pub ended: bool,
    /// Length of an observation window, in seconds.
    pub window_seconds: u32,
    /// Windows in which the container did anything.
    pub windows: u32,
    /// What the sensor could not see on this host: `capabilities`, or `everything`. Empty: nothing.
    #[serde(default)]
    pub unseen: Vec<String>,
    /// What may be missing.
    #[serde(default)]
    pub loss: Loss,
    /// The workload.
    pub workload_behaviour: Behaviour<Sighting>,
    /// Sessions let in later: exec, health probes.
    pub exec_behaviour: Behaviour<Sighting>,
    /// What the baseline forbids and was seen all the same, by item (`syscall init_module`), with the reason. Never learnt.
    #[serde(default)]
    pub forbidden: BTreeMap<String, Forbidden>,
    /// Peaks.
    #[serde(default)]
    pub peaks: Peaks,
}

/// Something that is never learnt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forbidden {
    /// Why the baseline forbids it.
    pub reason: String,
    /// Evidence.
    pub seen: Sighting,
}
