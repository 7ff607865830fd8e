//! Where people and time have brought a profile: its stage's history, what was allowed and denied by hand, what it waits for.
//!
//! Owns: that part of the document, and its join. Must not: hold anything that a container was seen to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::Stage;
use super::generalise::covers;

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
    /// before somebody has looked at it. A new revision's profile that begins with this one has it, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demoted: Option<Decision>,
    /// Items allowed by hand, as `show` names them: `syscall symlink`, `capability CAP_CHOWN`, `write /var/x`, `program /bin/x`.
    pub allowed: BTreeMap<String, Decision>,
    /// Items denied by hand; a denial holds against what was seen and against what was allowed.
    pub denied: BTreeMap<String, Decision>,
    /// Seen while observing, by item, and why somebody is to look at it ([`super::doubtful`]). While there is any, the profile
    /// is not enforced by itself; none of it is allowed before somebody has decided.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<String, Decision>,
    /// While observing: since nothing new was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Quiet>,
    /// The replica that enforces before the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// How the stage came to be what it is, oldest first; at most [`MAX_STEPS`].
    pub history: Vec<Step>,
}

/// Decisions of one kind that a profile keeps.
pub const MAX_DECISIONS: usize = 512;

impl Steering {
    /// Allows (or denies) an item, as [`super::items::decided`] spells it; the opposite, if it was decided, is over.
    pub fn decide(&mut self, item: String, denied: bool, decision: Decision) {
        let (to, from) =
            if denied { (&mut self.denied, &mut self.allowed) } else { (&mut self.allowed, &mut self.denied) };
        from.remove(&item);
        to.insert(item, decision);
        self.settle_waiting();
        if self.waiting.is_empty() {
            // Somebody has looked: what comes up later is no reason to let go of who is enforced by then.
            self.canary.iter_mut().for_each(|canary| canary.refused = false);
        }
    }

    /// Whether somebody allowed or denied an item, by itself or by a pattern.
    pub fn is_decided(&self, item: &str) -> bool {
        self.allowed.keys().chain(self.denied.keys()).any(|pattern| covers(pattern, item))
    }

    /// Whether somebody allowed an item, by itself or by a pattern, and did not deny it; a call also by one of its arguments,
    /// without which there would be no use of that.
    pub fn allows(&self, item: &str) -> bool {
        let denied = self.denied.keys().any(|pattern| covers(pattern, item));
        let argument = item.strip_prefix("syscall ").map(|call| format!("argument {call} "));
        let by_argument = |allowed: &String| argument.as_ref().is_some_and(|call| allowed.starts_with(call));
        !denied && self.allowed.keys().any(|allowed| covers(allowed, item) || by_argument(allowed))
    }

    /// Keeps what somebody is to look at, unless somebody has.
    pub(super) fn wait_for(&mut self, items: BTreeMap<String, Decision>) {
        for (item, doubt) in items {
            self.waiting.entry(item).or_insert(doubt);
        }
        self.settle_waiting();
    }

    fn settle_waiting(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|item, _| !self.is_decided(item));
        while waiting.len() > MAX_DECISIONS {
            waiting.pop_last();
        }
        self.waiting = waiting;
    }

    /// Adds a step to the history, of which the newest are kept.
    pub fn remember(&mut self, step: Step) {
        self.history.push(step);
        self.settle();
    }

    /// The join of two: the later decision about an item, denial where two are of the same time; the later quiet period;
    /// the steps of both. Somebody's hold and a demotion hold for both.
    pub(super) fn join(&mut self, other: &Steering) {
        self.held |= other.held;
        self.candidate = self.candidate.take().max(other.candidate.clone());
        self.demoted = self.demoted.take().max(other.demoted.clone());
        self.canary = self.canary.take().max(other.canary.clone());
        self.quiet = match (self.quiet.take(), &other.quiet) {
            (Some(mut a), Some(b)) if a.since == b.since => {
                for (id, windows) in &b.generations {
                    let known = a.generations.entry(id.clone()).or_insert(0);
                    *known = (*known).max(*windows);
                }
                Some(a)
            }
            (a, b) => a.max(b.clone()),
        };
        let mut all: BTreeMap<String, (Decision, bool)> = BTreeMap::new();
        for (items, denied) in
            [(&self.allowed, false), (&self.denied, true), (&other.allowed, false), (&other.denied, true)]
        {
            for (item, decision) in items {
                let this = (decision.clone(), denied);
                let rank = |(decision, denied): &(Decision, bool)| (decision.at.clone(), *denied, decision.why.clone());
                match all.get_mut(item) {
                    Some(known) if rank(known) < rank(&this) => *known = this,
                    Some(_) => {}
                    None => drop(all.insert(item.clone(), this)),
                }
            }
        }
        self.allowed.clear();
        self.denied.clear();
        for (item, (decision, denied)) in all {
            if denied {
                self.denied.insert(item, decision)
            } else {
                self.allowed.insert(item, decision)
            };
        }
        for (item, doubt) in &other.waiting {
            let known = self.waiting.entry(item.clone()).or_insert_with(|| doubt.clone());
            *known = known.clone().min(doubt.clone());
        }
        self.settle_waiting();
        self.history.extend(other.history.iter().cloned());
        self.settle();
    }

    /// Oldest first, each once, the newest.
    fn settle(&mut self) {
        self.history.sort();
        self.history.dedup();
        let beyond = self.history.len().saturating_sub(MAX_STEPS);
        self.history.drain(..beyond);
    }
}

/// What somebody, or a rule, decided.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// RFC 3339, UTC.
    pub at: String,
    /// Why, in words.
    pub why: String,
}

/// How much was seen since anything new was.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Quiet {
    /// RFC 3339, UTC: since when.
    pub since: String,
    /// Generations that went through their start-up with nothing new, by observation id, with their windows.
    pub generations: BTreeMap<String, u32>,
}

/// A replica that goes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Container id.
    pub container: String,
    /// RFC 3339, UTC: since when it enforces.
    pub since: String,
    /// It was refused what an honest workload might need: the others wait until nothing waits for a look any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

/// One change of the stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
