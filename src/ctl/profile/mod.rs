//! `lithifyctl profile VERB`: what was learnt, one file a verb.

pub mod export;

use std::path::Path;

use anyhow::{Context, Result};

use super::{Call, Given, Outcome, usage};
use crate::policy::suggest::{quote, remedy};
use crate::profile::{Profile, store};

/// Runs one verb.
///
/// # Errors
/// What the verb failed on.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    match call.next(args)? {
        Some(Given::Word(verb)) if verb == "export" => export::run(call, args),
        Some(Given::Word(verb)) => {
            let verb = verb.to_string_lossy();
            Err(usage(format!("unknown verb {}; {}", quote(&verb), remedy(&verb, &["export"]))))
        }
        _ => Err(usage("expected 'profile export'")),
    }
}

/// The profile of `WORKLOAD`, the newest revision's, or of `WORKLOAD@REVISION`, of which the beginning is enough.
///
/// # Errors
/// When there is none, or it can't be trusted.
pub fn find(data_dir: &Path, name: &str) -> Result<Profile> {
    if let Some(profile) = store::newest_profile(data_dir, name)? {
        return Ok(profile);
    }
    let missing = || format!("no profile of {}; see 'lithifyctl profile list'", quote(name));
    let (workload, digest) = name.rsplit_once('@').with_context(missing)?;
    let all = store::profiles(data_dir, workload)?;
    let fitting = all.into_iter().find_map(|stored| stored.document.ok().filter(|p| p.revision.digest.starts_with(digest)));
    fitting.with_context(missing)
}
