//! `lithifyctl profile validate`: whether documents are what they should be. Must not: repair them.

use std::path::Path;

use anyhow::{Result, anyhow};
use serde_json::json;

use super::super::{Call, Outcome, plain};
use super::{Document, is_file, words};
use crate::profile::store;

const HELP: &str = "\
usage: lithifyctl profile validate [FILE|WORKLOAD[@REVISION]]... [--json]

Checks profiles and observations: files, all that the store has of a workload, or the profile of one revision; without a name, the whole store. Of the
store also who could have changed it. The exit status is 1 when something is wrong.
";

pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let Some(mut names) = words(call, args, HELP, &mut [])? else { return Ok(Outcome::Well) };
    let data_dir = call.settings()?.data_dir;
    let mut checked: Vec<(String, Result<()>)> = Vec::new();
    if names.is_empty() {
        for stored in store::all_profiles(&data_dir)? {
            checked.push((stored.path.display().to_string(), stored.document.map(drop)));
        }
        for workload in store::observed_workloads(&data_dir)? {
            observations(&data_dir, &workload, &mut checked)?;
        }
    }
    for name in names.drain(..) {
        if is_file(&name) {
            let outcome = Document::read(Path::new(&name)).map(drop);
            checked.push((name, outcome));
            continue;
        }
        let before = checked.len();
        for stored in store::profiles(&data_dir, &name)? {
            checked.push((stored.path.display().to_string(), stored.document.map(drop)));
        }
        observations(&data_dir, &name, &mut checked)?;
        if checked.len() == before
            && let Some((workload, start)) = name.rsplit_once('@')
            && !start.is_empty()
        {
            let named = |path: &Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(start));
            for stored in store::profiles(&data_dir, workload)?.into_iter().filter(|stored| named(&stored.path)) {
                checked.push((stored.path.display().to_string(), stored.document.map(drop)));
            }
        }
        if checked.len() == before {
            checked.push((name.clone(), Err(anyhow!("{}", super::unknown(&data_dir, &name)?))));
        }
    }
    let wrong = checked.iter().any(|(_, outcome)| outcome.is_err());
    if call.json {
        let list: Vec<_> = (checked.iter())
            .map(|(name, outcome)| json!({"name": name, "error": outcome.as_ref().err().map(|e| format!("{e:#}"))}))
            .collect();
        call.print_json(&list)?;
    } else {
        for (name, outcome) in &checked {
            let line = match outcome {
                Ok(()) => format!("ok     {name}"),
                Err(e) => format!("WRONG  {e:#}"),
            };
            writeln!(call.out, "{}", plain(&line))?;
        }
    }
    Ok(if wrong { Outcome::Wrong } else { Outcome::Well })
}

fn observations(data_dir: &Path, workload: &str, checked: &mut Vec<(String, Result<()>)>) -> Result<()> {
    for stored in store::observations(data_dir, workload)? {
        checked.push((stored.path.display().to_string(), stored.document.map(drop)));
    }
    Ok(())
}
