//! Which of a workload's profiles is meant where none is named by its revision. A workload may have as many as somebody cares to
//! start revisions, and a container waits: a few are looked at, the ones that were written last, one after another.
//!
//! Owns: that look. Must not: hold more than one of them, or write any.

use std::path::Path;

use anyhow::{Error, Result, ensure};

use super::{PROFILES, Stored, file_name, read, read_profile_in};
use crate::profile::Profile;
use crate::profile::document::Stage;
use crate::profile::filename::escape;
use crate::profile::folder::{Entry, Folder};
use crate::profile::head::{Age, Head};

/// Most profiles that are looked at: more than the store keeps of those that nobody has decided about.
const MAX_LOOKS: usize = 256;
/// Most bytes that are read for it.
const MAX_LOOK_BYTES: u64 = 64 << 20;
/// Most of those that can't be read that are told.
const MAX_TOLD: usize = 4;

/// What a new revision of a workload begins with.
#[derive(Debug, Default)]
pub struct Sibling {
    /// The profile; `None` if the workload has none that can be read.
    pub profile: Option<Profile>,
    /// Why others can't be read, of the first few.
    pub unreadable: Vec<Error>,
}

/// The profile of another revision that a new one begins with: of those that have come furthest the one that was seen last. One
/// that is enforced was waited for, and looked at where somebody had to; one that still learns is what somebody started once.
/// What can't be read is passed over.
///
/// # Errors
/// When the folder can't be opened or listed.
pub fn sibling(data_dir: &Path, workload: &str) -> Result<Sibling> {
    let mut found = Sibling::default();
    let Some(folder) = Folder::open(data_dir, &[PROFILES, &escape(workload)])? else { return Ok(found) };
    let mut tell = |error| {
        if found.unreadable.len() < MAX_TOLD {
            found.unreadable.push(error);
        }
    };
    let mut known: Vec<((Stage, Age), String)> = Vec::new();
    for (name, head) in look(&folder, workload)? {
        match head {
            Ok(head) => known.push(((head.stage, head.age()), name)),
            Err(error) => tell(error),
        }
    }
    known.sort();
    for (_, name) in known.into_iter().rev() {
        match read_profile_in(&folder, &name, Some(workload)) {
            Ok(None) => {}
            Ok(profile) => {
                found.profile = profile;
                break;
            }
            Err(error) => tell(error),
        }
    }
    Ok(found)
}

/// The profile of the revision that was seen last; `None` if the workload has no profile.
///
/// # Errors
/// When one of those that were written last can't be trusted, read or understood: it might be the newest.
pub fn newest_profile(data_dir: &Path, workload: &str) -> Result<Option<Profile>> {
    let Some(folder) = Folder::open(data_dir, &[PROFILES, &escape(workload)])? else { return Ok(None) };
    let mut newest: Option<(Age, String)> = None;
    for (name, head) in look(&folder, workload)? {
        newest = newest.max(Some((head?.age(), name)));
    }
    newest.map_or(Ok(None), |(_, name)| read_profile_in(&folder, &name, Some(workload)))
}

/// The profiles of a workload whose revisions begin so.
///
/// # Errors
/// When the folder can't be opened or listed.
pub fn profiles_named(data_dir: &Path, workload: &str, start: &str) -> Result<Vec<Stored<Profile>>> {
    let Some(folder) = Folder::open(data_dir, &[PROFILES, &escape(workload)])? else { return Ok(Vec::new()) };
    let is_named = |name: &str| !start.is_empty() && name.starts_with(start);
    super::every(&folder, workload, is_named, |folder, name| read_profile_in(folder, name, Some(workload)))
}

/// The heads of the profiles that were written last, by the names of their files.
fn look<'f>(folder: &'f Folder, workload: &'f str) -> Result<impl Iterator<Item = (String, Result<Head>)> + 'f> {
    let mut left = MAX_LOOK_BYTES;
    let in_reach = move |entry: &Entry| {
        let is = left > 0;
        left = left.saturating_sub(entry.bytes);
        is
    };
    let looked = folder.listing(MAX_LOOKS)?.newest.into_iter().take_while(in_reach);
    Ok(looked.filter_map(|entry| {
        let head = read_head(folder, &entry.name, Some(workload)).transpose()?;
        // The whole document has the better reason.
        let reason = |error| read_profile_in(folder, &entry.name, Some(workload)).err().unwrap_or(error);
        Some((entry.name.clone(), head.map_err(reason)))
    }))
}

/// The head of a profile in its workload's folder; `workload` where the caller knows it: folders' names may be cut.
pub(super) fn read_head(folder: &Folder, name: &str, workload: Option<&str>) -> Result<Option<Head>> {
    read(folder, name, "profile", |bytes| {
        let head = Head::parse(bytes)?;
        let right = folder.path().file_name().is_some_and(|place| place == escape(&head.workload).as_str())
            && workload.is_none_or(|workload| workload == head.workload)
            && file_name(head.digest()) == name;
        ensure!(right, "it does not belong here; remove it");
        Ok(head)
    })
}
