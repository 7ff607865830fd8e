//! Removing profiles: one that somebody names, and those that nobody is likely to need again, where a workload has too many
//! revisions, or a namespace too many workloads. Each new argument makes a revision, each new name a workload, and whoever starts
//! containers chooses both.
//!
//! Owns: which of them go, and that nothing of them stays. Must not: remove one that decides about a container, or that somebody
//! has decided about.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::revisions::read_head;
use super::{OBSERVATIONS, PROFILES, file_name, read_observation, remove_observation};
use crate::profile::filename::escape;
use crate::profile::folder::{Entry, Folder, Listing};
use crate::profile::head::Head;

/// The revisions of one workload that are not to be missed now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Digests of those that containers live of, or are held to.
    pub revisions: BTreeSet<String>,
    /// Ids of the observations that are being made.
    pub observations: BTreeSet<String>,
}

impl Live {
    fn has(&self, head: &Head) -> bool {
        self.revisions.contains(head.digest()) || head.generations.keys().any(|id| self.observations.contains(id))
    }
}

/// How many profiles a workload has room for; or a namespace, whose workloads are counted then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Revisions, or workloads.
    pub revisions: usize,
    /// The size of all their profiles, in bytes; nothing is known of workloads'.
    pub bytes: u64,
    /// The newest, which stay whatever they are.
    pub newest: usize,
    /// With more revisions than this it is left to somebody who has more time.
    pub patience: usize,
}

impl Room {
    fn is_left(&self, revisions: usize, bytes: u64) -> bool {
        revisions <= self.revisions && bytes <= self.bytes
    }

    /// A quarter more at a time: which may go is known only from reading them.
    fn is_crowded(&self, listing: &Listing) -> bool {
        !Room { revisions: self.revisions + self.revisions / 4, bytes: self.bytes + self.bytes / 4, ..*self }
            .is_left(listing.total, listing.bytes)
    }
}

/// Removes profiles until the others have room; returns their revisions. First go those that nobody has started more than once,
/// of these the oldest. Never one that is enforced, held, or was decided about by hand, nor one that lives. `dry`: only says
/// which.
///
/// # Errors
/// When the folder can't be opened, listed or locked, or a file can't be removed. What can't be read is kept.
pub fn trim_revisions(
    data_dir: &Path,
    workload: &str,
    room: Room,
    live: impl FnOnce() -> Live,
    dry: bool,
) -> Result<Vec<String>> {
    let Some(folder) = Folder::open(data_dir, &[PROFILES, &escape(workload)])? else { return Ok(Vec::new()) };
    // Most often nothing is to be done: this is on the way of each start of a new revision.
    let listing = folder.listing(0)?;
    if !room.is_crowded(&listing) || listing.total > room.patience {
        return Ok(Vec::new());
    }
    let Listing { mut total, mut bytes, newest } = folder.listing(usize::MAX)?;
    let live = live();
    let may_go = |entry: &Entry| -> Option<Head> {
        let head = read_head(&folder, &entry.name, Some(workload)).ok().flatten()?;
        (!head.is_kept() && !live.has(&head)).then_some(head)
    };
    let mut removable: Vec<(bool, Entry)> = (newest.into_iter().skip(room.newest))
        .filter_map(|entry| may_go(&entry).map(|head| (!head.is_slight(), entry)))
        .collect();
    removable.sort();
    let mut removed = Vec::new();
    for (_, entry) in removable {
        if room.is_left(total, bytes) {
            break;
        }
        let _lock = folder.lock()?;
        // Somebody may have started it, or decided about it, meanwhile.
        let Some(head) = may_go(&entry) else { continue };
        if !dry {
            folder.remove(&entry.name)?;
            forget(data_dir, workload, &head)?;
        }
        (total, bytes) = (total - 1, bytes.saturating_sub(entry.bytes));
        removed.push(head.digest().to_owned());
    }
    Ok(removed)
}

/// Removes workloads of the namespace that this one is in until so many are left, with all that is known of them; returns their
/// names. First go those of which nothing was started more than once, of these the oldest; never one with a profile that
/// [`trim_revisions`] would keep, nor the newest. What is in one namespace is not for another to displace.
///
/// # Errors
/// When a folder can't be opened, listed or locked, or something can't be removed.
pub fn trim_workloads(
    data_dir: &Path,
    workload: &str,
    room: Room,
    live: impl FnOnce() -> BTreeMap<String, Live>,
) -> Result<Vec<String>> {
    let Some(top) = Folder::open(data_dir, &[PROFILES])? else { return Ok(Vec::new()) };
    let escaped = escape(workload);
    let of = |name: &str| name.split_once(SLASH).map(|(namespace, _)| namespace.to_owned());
    let namespace = of(&escaped);
    let is_of_it = |name: &str| of(name) == namespace;
    if !room.is_crowded(&top.list(0, is_of_it)?) {
        return Ok(Vec::new());
    }
    let Listing { mut total, newest, .. } = top.list(usize::MAX, is_of_it)?;
    let live = live();
    let may_go = |name: &str| Whole::of(data_dir, name, &live);
    let mut removable = Vec::new();
    for entry in newest.into_iter().skip(room.newest).filter(|entry| entry.name != escaped) {
        removable.extend(may_go(&entry.name).map(|whole| (!whole.is_slight, entry)));
    }
    removable.sort();
    let mut removed = Vec::new();
    for (_, Entry { name, .. }) in removable {
        if total <= room.revisions {
            break;
        }
        let Some(folder) = Folder::open(data_dir, &[PROFILES, &name])? else { continue };
        let _lock = folder.lock()?;
        // Somebody may have started it, or decided about it, meanwhile.
        let Some(whole) = may_go(&name) else { continue };
        top.remove_folder(&name)?;
        if let Some(observations) = Folder::open(data_dir, &[OBSERVATIONS])? {
            observations.remove_folder(&name)?;
        }
        total -= 1;
        removed.push(whole.workload);
    }
    Ok(removed)
}

/// A slash in a folder's name.
const SLASH: &str = "%2F";

/// A workload that may go.
struct Whole {
    workload: String,
    is_slight: bool,
}

impl Whole {
    /// `None`: it may not, or nothing is known of it.
    fn of(data_dir: &Path, name: &str, live: &BTreeMap<String, Live>) -> Option<Whole> {
        let folder = Folder::open(data_dir, &[PROFILES, name]).ok()??;
        let mut whole: Option<Whole> = None;
        for entry in folder.listing(usize::MAX).ok()?.newest {
            let head = read_head(&folder, &entry.name, None).ok()??;
            if head.is_kept() || live.contains_key(&head.workload) {
                return None;
            }
            let is_slight = head.is_slight() && whole.is_none_or(|known| known.is_slight);
            whole = Some(Whole { workload: head.workload, is_slight });
        }
        whole
    }
}

/// Removes a revision's profile.
///
/// # Errors
/// When it can't be removed.
pub fn remove_profile(data_dir: &Path, workload: &str, digest: &str) -> Result<()> {
    let Some(folder) = Folder::open(data_dir, &[PROFILES, &escape(workload)])? else { return Ok(()) };
    let _lock = folder.lock()?;
    let name = file_name(digest);
    let head = read_head(&folder, &name, Some(workload)).ok().flatten();
    folder.remove(&name)?;
    head.map_or(Ok(()), |head| forget(data_dir, workload, &head))
}

/// Removes the observations that a profile was made from: it would be made from them again.
fn forget(data_dir: &Path, workload: &str, head: &Head) -> Result<()> {
    for id in head.generations.keys() {
        // A copy has generations of the revision that it began with, whose observations they are.
        let observation = read_observation(data_dir, workload, id).ok().flatten();
        if observation.is_some_and(|o| o.revision.digest == head.digest()) {
            remove_observation(data_dir, workload, id)?;
        }
    }
    Ok(())
}
