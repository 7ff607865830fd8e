//! `lithifyctl runtime`: what is known of the node's low-level runtimes, and measuring it anew.
//!
//! Must not: be needed by a person. The first start under a runtime that nobody knows measures it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Call, Given, Outcome, plain, usage, value};
use crate::policy::suggest::{quote, remedy};
use crate::runtime::find;
use crate::runtime::needs::{self, Needs};

const HELP: &str = "\
usage: lithifyctl runtime status [--json] [--data-dir DIR] [PROGRAM]
       lithifyctl runtime measure [--json] [--data-dir DIR] [PROGRAM]

Between loading a container's filter and starting its workload, runc and crun make system calls of their own, others in each
version. No filter may refuse them. For some versions they are built in; others are measured when they are first met, and
again when they changed. None of this has to be done by hand.

  status          what is known of PROGRAM, or of each runtime of the configuration that is here; measures nothing
  measure         finds out anew, in a few throw-away containers that need no image, and keeps it
  --data-dir DIR  the data folder, instead of the configuration's
";

/// Runs `status` or `measure`.
///
/// # Errors
/// When no runtime is there, or one can't be looked at or measured, or the arguments are wrong.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    const VERBS: [&str; 2] = ["status", "measure"];
    let (mut verb, mut named, mut data_dir) = (None, None, None);
    while let Some(given) = call.next(args)? {
        match given {
            Given::Option(name) if name == "data-dir" => data_dir = Some(PathBuf::from(value(args)?)),
            Given::Word(word) if verb.is_none() => verb = Some(word.to_string_lossy().into_owned()),
            Given::Word(word) if named.is_none() => named = Some(PathBuf::from(word)),
            other => return Err(other.refuse(&["data-dir"])),
        }
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let verb = verb.ok_or_else(|| usage("expected status or measure"))?;
    if !VERBS.contains(&verb.as_str()) {
        return Err(usage(format!("unknown verb {}; {}", quote(&verb), remedy(&verb, &VERBS))));
    }
    let config = match (&data_dir, &named) {
        // Nothing of the configuration is needed, and it may be what is to be mended.
        (Some(_), Some(_)) => None,
        _ => Some(call.settings()?),
    };
    let configured = config.as_ref().map(|c| c.runtimes.clone()).unwrap_or_default();
    let programs: Vec<PathBuf> = match named {
        Some(name) => vec![find(&[name])?],
        None => configured.into_iter().filter_map(|name| find(&[name]).ok()).collect(),
    };
    if programs.is_empty() {
        bail!("none of the configuration's runtimes is here; install runc or crun, or name one");
    }
    let data_dir = data_dir.or(config.map(|c| c.data_dir)).unwrap_or_default();
    let mut told = Vec::new();
    for program in programs {
        let needs = match verb.as_str() {
            "measure" => Some(needs::measure(&program, &data_dir)?),
            _ => needs::known(&program, &data_dir)
                .with_context(|| format!("failed to look for {}", program.display()))?,
        };
        told.push((program, needs));
    }
    if call.json {
        let all: Vec<Value> = told.iter().map(|(path, needs)| as_json(path, needs.as_ref())).collect();
        call.print_json(&all)?;
        return Ok(Outcome::Well);
    }
    for (path, needs) in &told {
        match needs {
            Some(needs) => print(call, path, needs)?,
            None => writeln!(
                call.out,
                "{}: not looked at yet; the first start that needs it does, or 'lithifyctl runtime measure'",
                plain(&path.to_string_lossy())
            )?,
        }
    }
    Ok(Outcome::Well)
}

fn as_json(path: &std::path::Path, needs: Option<&Needs>) -> Value {
    let Some(needs) = needs else { return json!({"path": path, "known": false}) };
    json!({
        "path": path, "known": true, "program": needs.program, "version": needs.version, "digest": needs.digest,
        "source": needs.source, "listener": needs.listener, "always": needs.always,
        "without-no-new-privileges": needs.without_no_new_privileges, "notes": needs.notes,
    })
}

fn print(call: &mut Call<'_>, path: &std::path::Path, needs: &Needs) -> Result<()> {
    let path = plain(&path.to_string_lossy());
    writeln!(call.out, "{path}: {} {}, sha256 {:.12}…", needs.program, needs.version, needs.digest)?;
    writeln!(call.out, "  known:            {}", plain(&needs.source))?;
    let tells = if needs.listener { "told" } else { "not told: it serves no listener" };
    writeln!(call.out, "  refused calls:    {tells}")?;
    let list = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    writeln!(call.out, "  needs:            {}", list(&needs.always))?;
    writeln!(call.out, "  without no-new-privileges also: {}", list(&needs.without_no_new_privileges))?;
    for note in &needs.notes {
        writeln!(call.out, "  note:             {}", plain(note))?;
    }
    Ok(())
}
