//! The profile of one revision: the fold of its observations.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::behaviour::Behaviour;
use super::observation::{Loss, Peaks};
use super::revision::Revision;
use super::steering::Steering;

/// Format version; readers refuse others.
pub const VERSION: u32 = 1;
/// Generations whose ids an item keeps; of more, the earliest ids, which is a lattice, too.
pub const MAX_WITNESSES: usize = 32;

/// Evidence of one item over generations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Support {
    /// Observation id → windows of it that saw the item; at most [`MAX_WITNESSES`].
    pub generations: BTreeMap<String, u32>,
    /// RFC 3339, UTC.
    pub first: String,
    /// RFC 3339, UTC.
    pub last: String,
}

impl Support {
    /// Whether a container was seen to do it; false of what somebody allowed by hand.
    pub fn is_seen(&self) -> bool {
        !self.generations.is_empty()
    }
}

/// What the profile keeps of each observation that went into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Generation {
    /// Node and container.
    pub node: String,
    /// Container id.
    pub container: String,
    /// RFC 3339, UTC.
    pub started: String,
    /// RFC 3339, UTC.
    pub until: String,
    /// It ended, and was seen to.
    pub ended: bool,
    /// Length of an observation window, in seconds.
    pub window_seconds: u32,
    /// Windows in which it did anything.
    pub windows: u32,
    /// Loss.
    #[serde(default)]
    pub loss: Loss,
    /// What the sensor could not see.
    #[serde(default)]
    pub unseen: BTreeSet<String>,
}

/// Where a profile stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Behaviour is added.
    Learning,
    /// Complete; what goes beyond it is reported.
    Observing,
    /// Complete; what goes beyond it is refused.
    Enforcing,
}

/// A revision's profile: `<data-dir>/profiles/<workload>/<revision>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// [`VERSION`].
    pub version: u32,
    /// What stays the same over updates.
    pub workload: String,
    /// Image and parameters.
    pub revision: Revision,
    /// `x86_64`.
    pub architecture: String,
    /// Stage.
    pub stage: Stage,
    /// Observation id → what is kept of it.
    pub generations: BTreeMap<String, Generation>,
    /// The workload.
    pub workload_behaviour: Behaviour<Support>,
    /// Sessions let in later.
    pub exec_behaviour: Behaviour<Support>,
    /// What the baseline forbids and was seen all the same. Never part of what is allowed.
    #[serde(default)]
    pub forbidden: BTreeMap<String, Forbidden>,
    /// Sections that had more than [`super::behaviour::MAX_ITEMS`] items and are cut: `workload writes`. What is left out
    /// is not known any more, so such a profile is partial.
    #[serde(default)]
    pub cut: BTreeSet<String>,
    /// Peaks.
    #[serde(default)]
    pub peaks: Peaks,
    /// What was decided about it.
    #[serde(default)]
    pub steering: Steering,
}

impl Profile {
    /// When the revision was last seen, RFC 3339; `None` if no generation was.
    pub fn until(&self) -> Option<&str> {
        self.generations.values().map(|g| g.until.as_str()).max()
    }
}

/// Something that is never learnt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forbidden {
    /// Why the baseline forbids it.
    pub reason: String,
    /// Evidence.
    pub seen: Support,
}
