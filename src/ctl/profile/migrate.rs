//! `lithifyctl profile migrate`: the store in this version's form. Must not: change what a document says.

use anyhow::{Result, ensure};
use serde_json::json;

use super::super::{Call, Outcome, plain};
use super::words;
use crate::profile::store;

const HELP: &str = "\
usage: lithifyctl profile migrate [WORKLOAD]... [--json]

Rewrites profiles in the form that this version writes; without a name, all. Version 1 is the first: what changes are the
names of system calls that an older version only knew by number. The exit status is 1 when a profile can't be read.
";

pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let Some(mut names) = words(call, args, HELP, &mut [])? else { return Ok(Outcome::Well) };
    let data_dir = call.settings()?.data_dir;
    let named = !names.is_empty();
    if !named {
        names = store::all_profiles(&data_dir)?.into_iter().map(|stored| stored.workload).collect();
        names.dedup();
    }
    let (mut list, mut wrong) = (Vec::new(), false);
    for workload in names {
        let migrated = store::migrate(&data_dir, &workload)?;
        ensure!(!named || !migrated.is_empty(), super::unknown(&data_dir, &workload)?);
        for stored in migrated {
            let what = match &stored.document {
                Ok(true) => "rewritten".to_string(),
                Ok(false) => "current".to_string(),
                Err(e) => format!("WRONG: {e:#}"),
            };
            wrong |= stored.document.is_err();
            if !call.json {
                writeln!(call.out, "{}", plain(&format!("{}: {what}", stored.path.display())))?;
            }
            let error = stored.document.as_ref().err().map(|e| format!("{e:#}"));
            list.push(json!({"path": stored.path, "rewritten": stored.document.unwrap_or(false), "error": error}));
        }
    }
    if call.json {
        call.print_json(&list)?;
    }
    Ok(if wrong { Outcome::Wrong } else { Outcome::Well })
}
