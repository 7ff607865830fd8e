//! Where observations and profiles are kept:
//!
//! ```text
//! <data-dir>/observations/<workload>/<id>.json
//! <data-dir>/profiles/<workload>/<revision>.json
//! ```
//!
//! Owns: their places, and folding one into the other under a lock. Must not: decide what is learnt.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::filename::{escape, unescape};
use super::folder::Folder;
use super::{Observation, Profile};

mod fold;
mod removal;
mod revisions;

pub use fold::{Folded, fold_by_rules, fold_observation, recover};
pub use removal::{Live, Room, remove_profile, trim_revisions, trim_workloads};
pub use revisions::{Sibling, newest_profile, profiles_named, sibling};

const OBSERVATIONS: &str = "observations";
const PROFILES: &str = "profiles";

/// A document of the store, or why it can't be read.
pub struct Stored<T> {
    /// Its file.
    pub path: PathBuf,
    /// The workload, from its folder's name; cut where that is.
    pub workload: String,
    /// The document.
    pub document: Result<T>,
}

/// Writes an observation, durably; one of the same id is replaced, as long as it had not ended.
///
/// # Errors
/// When it is malformed, the one that is there has ended and says something else or can't be trusted, or it can't be
/// written.
pub fn write_observation(data_dir: &Path, observation: &Observation) -> Result<()> {
    let writing = || format!("failed to write observation {} of {}", observation.id, observation.workload);
    observation.check().with_context(writing)?;
    let folder = Folder::create(data_dir, &[OBSERVATIONS, &escape(&observation.workload)]).with_context(writing)?;
    match read_observation_in(&folder, &file_name(&observation.id)).with_context(writing)? {
        Some(old) if old == *observation => return Ok(()),
        Some(old) => {
            ensure!(!old.ended, "{}: the one that is there has ended, and does not change any more", writing())
        }
        None => {}
    }
    folder.write(&file_name(&observation.id), &encode(observation)?).with_context(writing)
}

/// One observation; `None` if it is not there.
///
/// # Errors
/// When it can't be trusted, read or understood.
pub fn read_observation(data_dir: &Path, workload: &str, id: &str) -> Result<Option<Observation>> {
    let Some(folder) = Folder::open(data_dir, &[OBSERVATIONS, &escape(workload)])? else { return Ok(None) };
    read_observation_in(&folder, &file_name(id))
}

/// Every observation of a workload, oldest first. Unreadable ones come as errors beside the others.
///
/// # Errors
/// When the folder can't be opened or listed.
pub fn observations(data_dir: &Path, workload: &str) -> Result<Vec<Stored<Observation>>> {
    let Some(folder) = Folder::open(data_dir, &[OBSERVATIONS, &escape(workload)])? else { return Ok(Vec::new()) };
    every(&folder, workload, |_| true, read_observation_in)
}

/// The profile of one revision; `None` if there is none.
///
/// # Errors
/// When it can't be trusted, read or understood.
pub fn read_profile(data_dir: &Path, workload: &str, digest: &str) -> Result<Option<Profile>> {
    let Some(folder) = Folder::open(data_dir, &[PROFILES, &escape(workload)])? else { return Ok(None) };
    read_profile_in(&folder, &file_name(digest), Some(workload))
}

/// The profile that this one began as a copy of, where it is still there and can be read.
pub fn origin(data_dir: &Path, profile: &Profile) -> Option<Profile> {
    let digest = profile.steering.candidate.as_ref()?;
    read_profile(data_dir, &profile.workload, digest).ok().flatten()
}

/// The file of a revision's profile, whether it is there or not.
pub fn profile_path(data_dir: &Path, workload: &str, digest: &str) -> PathBuf {
    data_dir.join(PROFILES).join(escape(workload)).join(file_name(digest))
}

/// The stored profile that somebody names: `WORKLOAD`, whose newest it is, or `WORKLOAD@` and the beginning of a revision's
/// digest; `None` if there is none.
///
/// # Errors
/// When one that it may be can't be trusted, read or understood, or several are named so.
pub fn named_profile(data_dir: &Path, name: &str) -> Result<Option<Profile>> {
    if let Some(newest) = newest_profile(data_dir, name)? {
        return Ok(Some(newest));
    }
    let Some((workload, start)) = name.rsplit_once('@').filter(|(_, start)| !start.is_empty()) else { return Ok(None) };
    let mut named = profiles_named(data_dir, workload, start)?.into_iter();
    match (named.next(), named.next()) {
        (None, _) => Ok(None),
        (Some(only), None) => only.document.map(Some),
        (Some(_), Some(_)) => bail!("several revisions of {workload} begin with {start:?}; give more of it"),
    }
}

/// The profile that a container is held to or compared with: the one that somebody named, else its revision's own; `None`
/// where that has none yet.
///
/// # Errors
/// As [`named_profile`], when there is none of that name, or [`read_profile`].
pub fn own_profile(data_dir: &Path, named: Option<&str>, workload: &str, digest: &str) -> Result<Option<Profile>> {
    let Some(name) = named else { return read_profile(data_dir, workload, digest) };
    let found = named_profile(data_dir, name).with_context(|| format!("failed to find profile {name:?}"))?;
    let missing = || format!("failed to find profile {name:?}: there is none; see 'lithifyctl profile list'");
    found.with_context(missing).map(Some)
}

/// Every profile of a workload. Unreadable ones come as errors beside the others.
///
/// # Errors
/// When the folder can't be opened or listed.
pub fn profiles(data_dir: &Path, workload: &str) -> Result<Vec<Stored<Profile>>> {
    let Some(folder) = Folder::open(data_dir, &[PROFILES, &escape(workload)])? else { return Ok(Vec::new()) };
    every(&folder, workload, |_| true, |folder, name| read_profile_in(folder, name, Some(workload)))
}

/// Every profile of the node, by workload.
///
/// # Errors
/// When the store can't be opened or listed.
pub fn all_profiles(data_dir: &Path) -> Result<Vec<Stored<Profile>>> {
    let Some(top) = Folder::open(data_dir, &[PROFILES])? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for name in top.names()? {
        let Some(folder) = Folder::open(data_dir, &[PROFILES, &name])? else { continue };
        let workload = unescape(&name).unwrap_or(name);
        all.extend(every(&folder, &workload, |_| true, |folder, name| read_profile_in(folder, name, None))?);
    }
    Ok(all)
}

/// The workloads that have observations.
///
/// # Errors
/// When the store can't be opened or listed.
pub fn observed_workloads(data_dir: &Path) -> Result<Vec<String>> {
    workloads(data_dir, OBSERVATIONS, |folder, name| Ok(read_observation_in(folder, name)?.map(|o| o.workload)))
}

/// The workloads that have profiles.
///
/// # Errors
/// When the store can't be opened or listed.
pub fn profiled_workloads(data_dir: &Path) -> Result<Vec<String>> {
    workloads(data_dir, PROFILES, |folder, name| Ok(read_profile_in(folder, name, None)?.map(|p| p.workload)))
}

fn workloads(
    data_dir: &Path,
    kind: &str,
    read: impl Fn(&Folder, &str) -> Result<Option<String>>,
) -> Result<Vec<String>> {
    let Some(top) = Folder::open(data_dir, &[kind])? else { return Ok(Vec::new()) };
    let mut workloads = Vec::new();
    for name in top.names()? {
        if let Some(workload) = unescape(&name) {
            workloads.push(workload);
        } else if let Some(folder) = Folder::open(data_dir, &[kind, &name])? {
            // The name was cut; the documents hold all of it.
            let mut all = folder.names()?.into_iter().filter(|n| n.ends_with(".json"));
            workloads.extend(all.find_map(|name| read(&folder, &name).ok().flatten()));
        }
    }
    Ok(workloads)
}

/// Changes or begins a profile under the workload's lock. `change` gets what is there, and what it returns is written.
///
/// # Errors
/// When `change` fails, or the profile can't be trusted, read or written.
pub fn update_profile(
    data_dir: &Path,
    workload: &str,
    digest: &str,
    change: impl FnOnce(Option<Profile>) -> Result<Profile>,
) -> Result<Profile> {
    let folder = Folder::create(data_dir, &[PROFILES, &escape(workload)])?;
    let _lock = folder.lock()?;
    let name = file_name(digest);
    let old = read_profile_in(&folder, &name, Some(workload))?;
    let new = change(old.clone())?;
    let writing = || format!("failed to write profile {}", folder.path().join(&name).display());
    ensure!(new.workload == workload && new.revision.digest == digest, "{}: it is of another revision", writing());
    new.check().with_context(writing)?;
    if old.as_ref() != Some(&new) {
        folder.write(&name, &encode(&new)?).with_context(writing)?;
    }
    Ok(new)
}

/// Rewrites a workload's profiles in the form that this version writes; each with whether that changed its file.
///
/// # Errors
/// When the folder can't be opened, locked or listed.
pub fn migrate(data_dir: &Path, workload: &str) -> Result<Vec<Stored<bool>>> {
    let Some(folder) = Folder::open(data_dir, &[PROFILES, &escape(workload)])? else { return Ok(Vec::new()) };
    let _lock = folder.lock()?;
    let mut all = Vec::new();
    for name in folder.names()?.into_iter().filter(|n| n.ends_with(".json")) {
        let path = folder.path().join(&name);
        let rewrite = || -> Result<Option<bool>> {
            let Some(old) = folder.read(&name)? else { return Ok(None) };
            let new = encode(&Profile::parse(&old)?)?;
            if new != old {
                folder.write(&name, &new)?;
            }
            Ok(Some(new != old))
        };
        let migrated = rewrite().with_context(|| format!("failed to migrate profile {}", path.display()));
        if let Some(document) = migrated.transpose() {
            all.push(Stored { path, workload: workload.to_string(), document });
        }
    }
    Ok(all)
}

/// Removes an observation.
///
/// # Errors
/// When it can't be removed.
pub fn remove_observation(data_dir: &Path, workload: &str, id: &str) -> Result<()> {
    let Some(folder) = Folder::open(data_dir, &[OBSERVATIONS, &escape(workload)])? else { return Ok(()) };
    folder.remove(&file_name(id))
}

/// The ids and sizes in bytes of a workload's observations, oldest first, without reading them.
///
/// # Errors
/// When the folder can't be opened or listed.
pub fn observation_files(data_dir: &Path, workload: &str) -> Result<Vec<(String, u64)>> {
    let Some(folder) = Folder::open(data_dir, &[OBSERVATIONS, &escape(workload)])? else { return Ok(Vec::new()) };
    let files = folder.listing(usize::MAX)?.newest.into_iter();
    let mut ids: Vec<(String, u64)> =
        files.filter_map(|file| Some((file.name.strip_suffix(".json")?.to_owned(), file.bytes))).collect();
    ids.sort();
    Ok(ids)
}

/// How many observations a workload has, and how large all of them are, in bytes.
///
/// # Errors
/// When the folder can't be opened or listed.
pub fn observations_size(data_dir: &Path, workload: &str) -> Result<(usize, u64)> {
    let Some(folder) = Folder::open(data_dir, &[OBSERVATIONS, &escape(workload)])? else { return Ok((0, 0)) };
    let listing = folder.listing(0)?;
    Ok((listing.total, listing.bytes))
}

fn file_name(stem: &str) -> String {
    // Stems are ids, checked where they come from a person; escaping makes sure that none leads elsewhere.
    format!("{}.json", escape(stem))
}

/// A document as it is written: for people, too.
///
/// # Errors
/// Plain data has no way to fail; a bug would.
pub fn encode(document: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(document).context("failed to write a document as JSON")?;
    text.push(b'\n');
    Ok(text)
}

/// A profile in its workload's folder; `workload` where the caller knows it: folders' names may be cut.
fn read_profile_in(folder: &Folder, name: &str, workload: Option<&str>) -> Result<Option<Profile>> {
    read(folder, name, "profile", |bytes| {
        let profile = Profile::parse(bytes)?;
        let right = folder.path().file_name().is_some_and(|place| place == escape(&profile.workload).as_str())
            && workload.is_none_or(|workload| workload == profile.workload)
            && file_name(&profile.revision.digest) == name;
        let (workload, digest) = (&profile.workload, &profile.revision.digest);
        ensure!(right, "it is of {workload:?}, revision {digest}, and does not belong here; remove it");
        Ok(profile)
    })
}

fn read<T>(folder: &Folder, name: &str, what: &str, parse: impl Fn(&[u8]) -> Result<T>) -> Result<Option<T>> {
    (|| folder.read(name)?.map(|bytes| parse(&bytes)).transpose())()
        .with_context(|| format!("failed to read {what} {}", folder.path().join(name).display()))
}

fn read_observation_in(folder: &Folder, name: &str) -> Result<Option<Observation>> {
    read(folder, name, "observation", Observation::parse)
}

fn every<T>(
    folder: &Folder,
    workload: &str,
    is_wanted: impl Fn(&str) -> bool,
    read: impl Fn(&Folder, &str) -> Result<Option<T>>,
) -> Result<Vec<Stored<T>>> {
    let mut all = Vec::new();
    for name in folder.names()?.into_iter().filter(|n| n.ends_with(".json") && is_wanted(n)) {
        // One that was removed in the meantime is none.
        if let Some(document) = read(folder, &name).transpose() {
            all.push(Stored { path: folder.path().join(&name), workload: workload.to_string(), document });
        }
    }
    Ok(all)
}
