//! Folding observations into the profiles of the store, under the workload's lock. Must not: decide what is learnt.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::revisions::read_head;
use super::{PROFILES, encode, file_name, observation_files, read_observation, read_profile_in};
use crate::policy::Auto;
use crate::profile::behaviour::MAX_ITEMS;
use crate::profile::check::MAX_BYTES;
use crate::profile::filename::escape;
use crate::profile::folder::Folder;
use crate::profile::head::{Head, Span};
use crate::profile::steering::Step;
use crate::profile::{Observation, Profile, Stage, gc, stages};

/// Folds an observation into its revision's profile, which begins with the first one. One that was folded already, and any
/// once learning has ended, changes nothing. An observation that a crash cut short is folded with what it has.
///
/// # Errors
/// When either document is malformed, the profile can't be trusted, read or written, or holds no more generations.
pub fn fold_observation(data_dir: &Path, observation: &Observation) -> Result<Profile> {
    let fold = |old: Option<&Profile>| match old {
        Some(old) if old.stage != Stage::Learning => Ok(old.clone()),
        Some(old) => old.fold(observation),
        None => Ok(Profile::of(observation)),
    };
    fold_with(data_dir, observation, fold)
}

/// As [`fold_observation`], by the rules of `auto`: a profile that is observed takes in what is new as well, and one that has
/// waited for long enough moves on. So does one that is enforced: what lives under these rules began before, and is held to it
/// from its next start on. The step that it took, where it took one. `now`: RFC 3339, UTC.
///
/// # Errors
/// As [`fold_observation`].
pub fn fold_by_rules(
    data_dir: &Path,
    observation: &Observation,
    auto: &Auto,
    now: &str,
) -> Result<(Profile, Option<Step>)> {
    let mut taken = None;
    let fold = |old: Option<&Profile>| {
        let folded = match old {
            Some(old) => old.fold(observation)?,
            None => Profile::of(observation),
        };
        let (profile, step) = stages::after_fold(old, folded, observation, auto, now);
        taken = step;
        Ok(profile)
    };
    let profile = fold_with(data_dir, observation, fold)?;
    Ok((profile, taken))
}

fn fold_with(
    data_dir: &Path,
    observation: &Observation,
    fold: impl FnOnce(Option<&Profile>) -> Result<Profile>,
) -> Result<Profile> {
    let folding = || format!("failed to fold observation {} into {}", observation.id, observation.workload);
    observation.check().with_context(folding)?;
    let folder = Folder::create(data_dir, &[PROFILES, &escape(&observation.workload)])?;
    let profile = {
        let _lock = folder.lock()?;
        let name = file_name(&observation.revision.digest);
        let old = read_profile_in(&folder, &name, Some(&observation.workload))?;
        let (new, text) = fitting(fold(old.as_ref())?)?;
        if old.as_ref() != Some(&new) {
            folder.write(&name, &text).with_context(folding)?;
        }
        new
    };
    // It is folded; a store that stays somewhat larger until the next fold is no reason to say otherwise.
    let _ = gc::trim(data_dir, &observation.workload, gc::MAX_OBSERVATIONS);
    Ok(profile)
}

/// Folds what a crash, or a full disk, kept from being folded: observations of this workload that no profile has. Those
/// for which `live` says that someone still writes them are left alone. Returns how many were folded, and what failed.
///
/// # Errors
/// When the folder can't be opened or listed.
pub fn recover(
    data_dir: &Path,
    workload: &str,
    live: impl Fn(&Observation) -> bool,
) -> Result<(usize, Vec<anyhow::Error>)> {
    let (mut folded, mut failed) = (0, Vec::new());
    let mut known = Folded::default();
    for (id, _) in observation_files(data_dir, workload)? {
        let mut recover = || {
            let Some(o) = read_observation(data_dir, workload, &id)? else { return Ok(0) };
            if known.has(data_dir, &o) || live(&o) {
                return Ok(0);
            }
            let profile = fold_observation(data_dir, &o)?;
            // Once learning is over, what is left over stays so.
            Ok(usize::from(profile.generations.get(&o.id).is_some_and(|g| g.until >= o.until)))
        };
        match recover() {
            Ok(count) => folded += count,
            Err(e) => failed.push(e),
        }
    }
    Ok((folded, failed))
}

/// Which observations are part of their profiles; of these the last one's generations are kept, and no more.
#[derive(Debug, Default)]
pub struct Folded {
    digest: String,
    generations: BTreeMap<String, Span>,
}

impl Folded {
    /// Whether its profile has an observation, as it is now or later.
    pub fn has(&mut self, data_dir: &Path, o: &Observation) -> bool {
        if self.digest != o.revision.digest {
            self.digest.clone_from(&o.revision.digest);
            let read = || -> Result<Option<Head>> {
                let folder = Folder::open(data_dir, &[PROFILES, &escape(&o.workload)])?;
                folder.map_or(Ok(None), |folder| read_head(&folder, &file_name(&o.revision.digest), Some(&o.workload)))
            };
            self.generations = read().ok().flatten().map(|head| head.generations).unwrap_or_default();
        }
        self.generations.get(&o.id).is_some_and(|generation| generation.until >= o.until)
    }
}

/// A profile that can be read again, and its text. Hostile names can make one that is within every other limit longer than
/// a reader accepts: then its sections are cut, which the profile says, rather than nothing learnt any more.
fn fitting(mut profile: Profile) -> Result<(Profile, Vec<u8>)> {
    let mut items = MAX_ITEMS;
    loop {
        let text = encode(&profile)?;
        if text.len() <= MAX_BYTES || items == 0 {
            return Ok((profile, text));
        }
        items /= 2;
        profile.bound(items);
    }
}
