//! `lithifyctl profile import FILE`: documents from elsewhere into this node's store. Must not: take one that it could not
//! read again.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;

use super::super::{Call, Outcome, plain, usage};
use super::{Document, short, words};
use crate::profile::merge::{Across, merge};
use crate::profile::{Profile, store};

const HELP: &str = "\
usage: lithifyctl profile import FILE... [--replace] [--json]

Puts profiles and observations into the store. A profile is merged with the one of its revision that is there already: if
one of the two still learns, the result learns. An observation is folded into it, unless learning has ended. Look at them
with 'lithifyctl profile show FILE' first: what a profile allows will be allowed.

  --replace   put a profile in place of the one that is there, a finished one too
";

pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let mut replace = false;
    let Some(files) = words(call, args, HELP, &mut [("replace", &mut replace)])? else { return Ok(Outcome::Well) };
    if files.is_empty() {
        return Err(usage("expected a file"));
    }
    let data_dir = call.settings()?.data_dir;
    // All are read before the first is stored: a typing error in the last name leaves nothing half done.
    let mut documents = Vec::new();
    for file in &files {
        documents.push(Document::read(Path::new(file))?);
    }
    let mut imported = Vec::new();
    for document in documents {
        let profile = match document {
            Document::Profile(new) => store_profile(&data_dir, *new, replace)?,
            Document::Observation(new) => {
                store::write_observation(&data_dir, &new)?;
                let profile = store::fold_observation(&data_dir, &new)?;
                ensure!(
                    profile.generations.contains_key(&new.id),
                    "observation {} is stored, but not folded: learning of {} has ended",
                    new.id,
                    new.workload
                );
                profile
            }
        };
        imported.push(profile);
    }
    if call.json {
        let list: Vec<_> =
            imported.iter().map(|p| json!({"workload": p.workload, "revision": p.revision.digest})).collect();
        call.print_json(&list)?;
    } else {
        for p in &imported {
            let line = format!("{}@{}: {} generations", p.workload, short(&p.revision.digest), p.generations.len());
            writeln!(call.out, "{}", plain(&line))?;
        }
    }
    Ok(Outcome::Well)
}

fn store_profile(data_dir: &Path, new: Profile, replace: bool) -> Result<Profile> {
    let (workload, digest) = (new.workload.clone(), new.revision.digest.clone());
    store::update_profile(data_dir, &workload, &digest, |old| match old {
        Some(old) if !replace => merge(&old, &new, Across::default()),
        _ => Ok(new),
    })
}
