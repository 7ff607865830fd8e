//! `lithifyctl plan BUNDLE`: what enforcing a profile would change in a container's config.json, and why. Must not: change a
//! file of the bundle, or run a container of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{Call, Given, Outcome, plain, text, usage, value};
use crate::engine::learning;
use crate::events::EngineNames;
use crate::harden::{self, Hardening, harden};
use crate::policy::suggest::quote;
use crate::policy::{self, Config, RootfsKind, word};
use crate::profile::{Profile, Progress, store};
use crate::runtime::needs::{self, Needs};
use crate::spec::Document;
use crate::supervise::SOCKET;

const HELP: &str = "\
usage: lithifyctl plan BUNDLE [OPTIONS]

Shows what enforcing a workload's profile would change in the config.json of a bundle, and why, without changing or running
it. A low-level runtime that is not known yet is measured, as for a container's start.

options:
  --profile NAME|FILE  WORKLOAD, WORKLOAD@REVISION or a file, instead of the newest profile of the bundle's workload
  --runtime PATH       the low-level runtime, instead of the configuration's
  --json               print the edits with their values, the scratch mounts, the limits and the notes as JSON
";

/// Shows the plan.
///
/// # Errors
/// When the bundle, the profile or the runtime can't be read, the plan does not fit, or the arguments are wrong.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let (mut bundle, mut named, mut runtime) = (None, None, None);
    while let Some(given) = call.next(args)? {
        match given {
            Given::Option(option) if option == "profile" => named = Some(text(args)?),
            Given::Option(option) if option == "runtime" => runtime = Some(PathBuf::from(value(args)?)),
            Given::Word(word) if bundle.is_none() => bundle = Some(PathBuf::from(word)),
            other => return Err(other.refuse(&["profile", "runtime"])),
        }
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let Some(bundle) = bundle else { return Err(usage("expected a bundle")) };
    let config = call.settings()?;
    let bundle = std::path::absolute(&bundle).with_context(|| format!("failed to find {}", bundle.display()))?;
    let document = Document::read(&bundle)?;
    let id = bundle.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (policy, workload) = policy(&config, &document, &id)?;
    let profile = match named.or(policy.profile.clone()) {
        Some(name) => super::profile::resolve(&config.data_dir, &name)?,
        None => newest(&config.data_dir, &workload)?,
    };
    let runtime = match runtime {
        Some(runtime) => runtime,
        None => crate::runtime::find(&config.runtimes)?,
    };
    let needs = needs::of(&runtime, &config.data_dir)?;
    let listener = config.state_dir.join(&id).join(SOCKET);
    let given = harden::Given {
        profile: &profile,
        document: &document,
        policy: &policy,
        needs: &needs,
        listener: Some(&listener),
    };
    let mut hardening = harden(&given)?;
    let partial = Progress::of(&profile).partial.into_iter();
    hardening.notes.extend(partial.map(|why| format!("the profile is partial: {why}")));
    if call.json {
        call.print_json(&json!({
            "profile": hardening.limits.profile,
            "stage": profile.stage,
            "runtime": {"path": runtime, "program": needs.program, "version": needs.version, "source": needs.source},
            "edits": hardening.edits.iter().map(|edit| json!({
                "pointer": edit.pointer, "what": edit.what, "why": edit.why, "value": edit.value,
            })).collect::<Vec<_>>(),
            "scratch": hardening.scratch,
            "limits": hardening.limits,
            "notes": hardening.notes,
        }))?;
    } else {
        let shown = show(&profile, &needs, &hardening);
        call.out.write_all(shown.as_bytes())?;
    }
    Ok(Outcome::Well)
}

/// What would hold for a container of this bundle, and what its workload is called.
fn policy(config: &Config, document: &Document, id: &str) -> Result<(policy::Policy, String)> {
    let annotations = document.annotations()?;
    let names = EngineNames::from_annotations(&annotations);
    let mut policy = policy::resolve(config, &Default::default(), &annotations, names.container.as_deref())?;
    // What the engine's own root would be kept for ends with enforcing.
    if policy.is_hands_off() {
        policy.rootfs = RootfsKind::Sealed;
    }
    let workload = learning::workload(&policy, &names, document, id);
    Ok((policy, workload))
}

fn newest(data_dir: &Path, workload: &str) -> Result<Profile> {
    match store::newest_profile(data_dir, workload)? {
        Some(profile) => Ok(profile),
        None => bail!(
            "no profile of the bundle's workload {}; learn it first, or name one with --profile ('lithifyctl profile list')",
            quote(workload)
        ),
    }
}

fn show(profile: &Profile, needs: &Needs, hardening: &Hardening) -> String {
    let mut lines = vec![
        format!("profile   {}@{}, {}", profile.workload, profile.revision.digest, word(&profile.stage)),
        format!("runtime   {} {}, {}", needs.program, needs.version, needs.source),
        "\nchanges of config.json:".into(),
    ];
    for edit in &hardening.edits {
        lines.push(format!("  {}\n    {}\n    why: {}", edit.pointer, edit.what, edit.why));
    }
    if !hardening.scratch.is_empty() {
        lines.push("\nmounts a tmpfs where the workload was seen to write:".into());
    }
    for scratch in &hardening.scratch {
        let size = scratch.size_bytes.map(|bytes| format!("{} MiB", bytes >> 20)).unwrap_or_default();
        let exec = if scratch.exec { ", programs in it run" } else { "" };
        lines.push(format!("  {}  {size}{exec}", scratch.path.display()));
    }
    let limits = &hardening.limits;
    let list = |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    lines.push("\nwatches beside:".into());
    lines.push(match limits.listener {
        true => "  refused system calls: each is told".into(),
        false => "  refused system calls: none is told".to_string(),
    });
    for (about, names) in [
        ("system calls that end their process", &limits.deadly_syscalls),
        ("capabilities taken, of which a use is told", &limits.withheld_capabilities),
        ("programs that run though they are not of the image", &limits.programs),
        ("refused writes that are known, and silent", &limits.known_writes),
    ] {
        if !names.is_empty() {
            lines.push(format!("  {about}: {}", list(names)));
        }
    }
    if limits.kill_foreign {
        lines.push("  other programs that are not of the image: killed before they begin".into());
    }
    for note in &hardening.notes {
        lines.push(format!("\nnote: {note}"));
    }
    // Newlines between the lines are ours; those within are names'.
    lines.iter().flat_map(|line| line.split('\n')).map(|line| plain(line) + "\n").collect()
}
