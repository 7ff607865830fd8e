//! What the store keeps no longer: observations that are part of a profile, profiles of revisions beyond what a workload has
//! room for, and, only when asked, those of revisions that nobody has seen for a while.
//!
//! Owns: how much that is. Must not: remove an observation that no profile has, unless there are far too many, or one that is still being
//! written.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::store;
pub use super::store::{Live, Room, trim_revisions, trim_workloads};
use crate::events::clock;

/// Observations that are kept of one workload without anyone asking for more or fewer.
pub const MAX_OBSERVATIONS: usize = 256;
/// And their size, in bytes.
const MAX_OBSERVATION_BYTES: u64 = 64 << 20;
/// Profiles that are kept of one workload, but for those that [`store::trim_revisions`] never removes.
pub const MAX_REVISIONS: usize = 128;
/// And their size, in bytes: ten times what so many ordinary ones take.
pub const MAX_REVISION_BYTES: u64 = 64 << 20;
/// Of the profiles that were written last, so many stay whatever they are.
const NEWEST: usize = 16;
/// What a workload has room for, for somebody whom nobody waits for.
pub const ROOM: Room =
    Room { revisions: MAX_REVISIONS, bytes: MAX_REVISION_BYTES, newest: NEWEST, patience: usize::MAX };
/// The same for a container that is about to start.
pub const STARTING: Room = Room { patience: 4 * MAX_REVISIONS, ..ROOM };
/// Workloads of one namespace that are kept, but for those that [`store::trim_workloads`] never removes: each may take as much as
/// [`ROOM`] has.
pub const WORKLOADS: Room = Room { revisions: 512, bytes: u64::MAX / 2, ..ROOM };
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
        let limits = Limits { number: keep.observations, bytes: u64::MAX, age: keep.observation_age };
        for id in superfluous(data_dir, &workload, limits, now_micros)? {
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

/// Removes profiles of revisions that their workloads have no room for; with `dry`, only says which. `live`: of a workload.
///
/// # Errors
/// As [`trim_revisions`].
pub fn make_room(data_dir: &Path, live: impl Fn(&str) -> Live, dry: bool) -> Result<Vec<Removed>> {
    let mut removed = Vec::new();
    for workload in store::profiled_workloads(data_dir)? {
        let names = trim_revisions(data_dir, &workload, ROOM, || live(&workload), dry)?;
        removed.extend(names.into_iter().map(|name| Removed { kind: "profile", workload: workload.clone(), name }));
    }
    Ok(removed)
}

/// Keeps one workload's observations to a limit: a container that starts every minute must not fill the disk.
///
/// # Errors
/// When the folder can't be listed, or a file can't be removed.
pub fn trim(data_dir: &Path, workload: &str, limit: usize) -> Result<()> {
    // A quarter at a time: which may go is known only from reading them.
    let (number, bytes) = store::observations_size(data_dir, workload)?;
    if number <= limit + limit / 4 && bytes <= MAX_OBSERVATION_BYTES + MAX_OBSERVATION_BYTES / 4 {
        return Ok(());
    }
    let limits = Limits { number: limit, bytes: MAX_OBSERVATION_BYTES, age: None };
    for id in superfluous(data_dir, workload, limits, clock::now_micros())? {
        store::remove_observation(data_dir, workload, &id)?;
    }
    Ok(())
}

/// What is kept of one workload's observations.
struct Limits {
    number: usize,
    bytes: u64,
    age: Option<Duration>,
}

/// Observations beyond the limits that a profile has and nobody writes.
fn superfluous(data_dir: &Path, workload: &str, limits: Limits, now: i64) -> Result<Vec<String>> {
    let files = store::observation_files(data_dir, workload)?;
    let total = files.len();
    let mut left: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let mut known = store::Folded::default();
    let mut beyond = Vec::new();
    // Oldest first: ids sort by time.
    for (i, (id, bytes)) in files.into_iter().enumerate() {
        if i + limits.number >= total && left <= limits.bytes && limits.age.is_none() {
            break;
        }
        let Ok(Some(observation)) = store::read_observation(data_dir, workload, &id) else { continue };
        let is_young = !limits.age.is_some_and(|age| older(Some(&observation.until), age, now));
        if i + limits.number >= total && left <= limits.bytes && is_young {
            continue;
        }
        let quiet = observation.ended || older(Some(&observation.until), SURELY_CUT_SHORT, now);
        // Where no profile takes them, which is told each time, they must not fill the disk either.
        let is_lost = i + 4 * MAX_OBSERVATIONS < total;
        if quiet && (is_lost || known.has(data_dir, &observation)) {
            left = left.saturating_sub(bytes);
            beyond.push(observation.id);
        }
    }
    Ok(beyond)
}

fn older(time: Option<&str>, age: Duration, now_micros: i64) -> bool {
    let then = time.and_then(clock::parse);
    then.is_some_and(|then| now_micros.saturating_sub(then) > i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}
