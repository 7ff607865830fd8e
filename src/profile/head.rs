//! What of a stored profile decides whether a new revision begins with it, and whether it is kept. A profile may be of
//! megabytes, and a workload have many: all else in it is passed over.
//!
//! Owns: that part, and what follows from it. Pure. Must not: be enough for anything that is enforced.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::document::{Stage, VERSION};
use super::steering::Steering;

/// The head of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Head {
    version: u32,
    /// Workload.
    pub workload: String,
    revision: Revision,
    /// Stage.
    pub stage: Stage,
    /// What was decided about it.
    #[serde(default)]
    pub steering: Steering,
    /// Observation id → when.
    pub generations: BTreeMap<String, Span>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Revision {
    digest: String,
}

/// A generation's time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Span {
    /// RFC 3339, UTC.
    pub started: String,
    /// RFC 3339, UTC.
    pub until: String,
}

/// What is to be preferred among a workload's profiles by somebody who wants the newest; the greatest is.
pub type Age = (Option<String>, bool, String);

impl Head {
    /// Reads the head of a profile.
    ///
    /// # Errors
    /// When there is none of this version.
    pub fn parse(bytes: &[u8]) -> Result<Head> {
        let head: Head = serde_json::from_slice(bytes).context("no profile")?;
        ensure!(head.version == VERSION, "expected version {VERSION}, found {}", head.version);
        Ok(head)
    }

    /// The revision's digest.
    pub fn digest(&self) -> &str {
        &self.revision.digest
    }

    /// How new it is. A copy that nobody has run yet is newer than what it is a copy of.
    pub fn age(&self) -> Age {
        let until = self.generations.values().map(|g| g.until.as_str()).max();
        (until.map(str::to_owned), self.steering.candidate.is_some(), self.revision.digest.clone())
    }

    /// Whether it is there for as long as nobody removes it: it is enforced, or somebody has decided something about it, or is
    /// to. What it has from the profile that it began with was not decided about this one.
    pub fn is_kept(&self) -> bool {
        let Steering { held, demoted, allowed, denied, .. } = &self.steering;
        let decisions = allowed.values().chain(denied.values()).chain(demoted);
        self.stage == Stage::Enforcing || *held || decisions.into_iter().any(|decision| self.is_own(&decision.at))
    }

    /// Whether it is no more than one container's trace, or not even that: its revision was started once at most, and nothing
    /// has come of it.
    pub fn is_slight(&self) -> bool {
        let own = self.generations.values().filter(|g| self.is_own(&g.started)).take(2).count();
        own < 2 && !self.steering.history.iter().any(|step| self.is_own(&step.at))
    }

    /// Whether something of this time is its own, rather than of the profile that it began with.
    fn is_own(&self, time: &str) -> bool {
        // Where that step has left the history, nothing can be said to be another's.
        let is_first = |step: &&super::steering::Step| step.from == Stage::Learning;
        let began = self.steering.candidate.as_ref().and(self.steering.history.iter().find(is_first));
        began.is_none_or(|began| time > began.at.as_str())
    }
}
