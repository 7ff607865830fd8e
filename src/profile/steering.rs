//! Where people and time have brought a profile: its stage's history, what was allowed and denied by hand, what it waits for.
//!
//! Owns: that part of the document. Must not: hold anything that a container was seen to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::Stage;

/// Steps of its history that a profile keeps, the newest.
pub const MAX_STEPS: usize = 64;

/// Beside what was seen: what was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Steering {
    /// Somebody holds the stage: nothing moves it but they.
    pub held: bool,
    /// The revision whose profile this one began with: what goes beyond that is the update's difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// A healthy start-up was refused this while enforcing, at this time (RFC 3339): it does not enforce by itself again
    /// before somebody has looked at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demoted: Option<Decision>,
    /// Items allowed by hand, as `show` names them: `syscall mkdir`, `capability CAP_CHOWN`, `write /var/x`, `program /bin/x`.
    pub allowed: BTreeMap<String, Decision>,
    /// Items denied by hand; a denial holds against what was seen and against what was allowed.
    pub denied: BTreeMap<String, Decision>,
    /// While observing: since nothing new was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Quiet>,
    /// The replica that enforces before the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// How the stage came to be what it is, oldest first; at most [`MAX_STEPS`].
    pub history: Vec<Step>,
}

/// What somebody, or a rule, decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// RFC 3339, UTC.
    pub at: String,
    /// Why, in words.
    pub why: String,
}

/// How much was seen since anything new was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Quiet {
    /// RFC 3339, UTC: since when.
    pub since: String,
    /// Generations that went through their start-up with nothing new, by observation id, with their windows.
    pub generations: BTreeMap<String, u32>,
}

/// A replica that goes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Container id.
    pub container: String,
    /// RFC 3339, UTC: since when it enforces.
    pub since: String,
}

/// One change of the stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// RFC 3339, UTC.
    pub at: String,
    /// Before.
    pub from: Stage,
    /// After.
    pub to: Stage,
    /// Why, in words.
    pub why: String,
}
