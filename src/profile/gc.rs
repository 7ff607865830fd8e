//! What the store keeps no longer: observations that are part of a profile, and, only when asked, profiles of revisions
//! that nobody has seen for a while.
//!
//! Owns: which those are. Must not: remove an observation that no profile has, or one that is still being written.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Observation, Profile, store};
use crate::events::clock;

/// Observations that are kept of one workload without anyone asking for more or fewer.
pub const MAX_OBSERVATIONS: usize = 256;
/// An observation that a crash cut short is no longer written once it is this old: several times the longest interval.
const SURELY_CUT_SHORT: Duration = Duration::from_secs(24 * 3600);

/// What to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Newest observations of each workload.
    pub observations: usize,
    /// Of those, the ones that are not older than this.
    pub observation_age: Option<Duration>,
    /// Profiles of revisions that were seen within this time; `None`: all.
    pub revision_age: Option<Duration>,
}

/// What was, or would be, removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// `observation` or `profile`.
    pub kind: &'static str,
    /// Workload.
    pub workload: String,
    /// Observation id, or revision.
    pub name: String,
}

/// Removes what is not to be kept; with `dry`, only says what that is. `now_micros` is microseconds since 1970.
///
/// # Errors
/// When the store can't be listed, or a file can't be removed. Files that can't be read are kept.
pub fn collect(data_dir: &Path, keep: Keep, now_micros: i64, dry: bool) -> Result<Vec<Removed>> {
    let mut removed = Vec::new();
    for workload in store::observed_workloads(data_dir)? {
        for id in superfluous(data_dir, &workload, keep.observations, keep.observation_age, now_micros)? {
            if !dry {
                store::remove_observation(data_dir, &workload, &id)?;
            }
            removed.push(Removed { kind: "observation", workload: workload.clone(), name: id });
        }
    }
    if let Some(age) = keep.revision_age {
        for profile in store::all_profiles(data_dir)?.into_iter().filter_map(|s| s.document.ok()) {
            if !older(profile.until(), age, now_micros) {
                continue;
            }
            let digest = profile.revision.digest;
            if !dry {
                store::remove_profile(data_dir, &profile.workload, &digest)?;
            }
            removed.push(Removed { kind: "profile", workload: profile.workload, name: digest });
        }
    }
    Ok(removed)
}

/// Keeps one workload's observations to a limit: a container that starts every minute must not fill the disk.
///
/// # Errors
/// When the folder can't be listed, or a file can't be removed.
pub fn trim(data_dir: &Path, workload: &str, limit: usize) -> Result<()> {
    // A quarter at a time: which may go is known only from reading them.
    if store::observation_ids(data_dir, workload)?.len() <= limit + limit / 4 {
        return Ok(());
    }
    for id in superfluous(data_dir, workload, limit, None, clock::now_micros())? {
        store::remove_observation(data_dir, workload, &id)?;
    }
    Ok(())
}

/// Observations beyond a number or an age that a profile has and nobody writes.
fn superfluous(data_dir: &Path, workload: &str, number: usize, age: Option<Duration>, now: i64) -> Result<Vec<String>> {
    let stored = store::observations(data_dir, workload)?;
    let total = stored.len();
    let mut profiles: BTreeMap<(String, String), Option<Profile>> = BTreeMap::new();
    let mut beyond = Vec::new();
    // Oldest first: ids sort by time.
    for (i, stored) in stored.into_iter().enumerate() {
        let Ok(observation) = stored.document else { continue };
        let wanted = i + number >= total && !age.is_some_and(|age| older(Some(&observation.until), age, now));
        if wanted {
            continue;
        }
        let key = (observation.workload.clone(), observation.revision.digest.clone());
        let profile = profiles
            .entry(key)
            .or_insert_with_key(|(workload, digest)| store::read_profile(data_dir, workload, digest).ok().flatten());
        let quiet = observation.ended || older(Some(&observation.until), SURELY_CUT_SHORT, now);
        if quiet && profile.as_ref().is_some_and(|p| has(p, &observation)) {
            beyond.push(observation.id);
        }
    }
    Ok(beyond)
}

fn has(profile: &Profile, observation: &Observation) -> bool {
    profile.generations.get(&observation.id).is_some_and(|g| g.until >= observation.until)
}

fn older(time: Option<&str>, age: Duration, now_micros: i64) -> bool {
    let then = time.and_then(clock::parse);
    then.is_some_and(|then| now_micros.saturating_sub(then) > i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}
