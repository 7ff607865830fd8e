//! `lithifyctl plan BUNDLE|ID`: what enforcing a profile would change in a container's config.json, and why. Must not: change a
//! file of the bundle, or run a container of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{Call, Given, Outcome, plain, text, usage, value};
use crate::engine::learning;
use crate::events::EngineNames;
use crate::harden::{self, Hardening, harden};
use crate::identity;
use crate::policy::suggest::quote;
use crate::policy::{self, Config, Policy, RootfsKind, Scratch, Standing, word};
use crate::profile::behaviour::Origin;
use crate::profile::{Profile, Progress, Revision, stages, store};
use crate::runtime::needs::{self, Needs};
use crate::spec::Document;
use crate::supervise::SOCKET;

const HELP: &str = "\
usage: lithifyctl plan BUNDLE|ID [OPTIONS]

Shows what enforcing a workload's profile would change in the config.json of a bundle, and why, without changing or running
it. ID is the beginning of a container's id or name, as for 'inspect': its bundle is meant. A low-level runtime that is not known yet is measured, as for a container's start.

options:
  --profile NAME|FILE  WORKLOAD, WORKLOAD@REVISION or a file, instead of the profile that the bundle's container would be
                       held to
  --runtime PATH       the low-level runtime, instead of the configuration's
  --json               print the edits with their values, the scratch mounts, the limits and the notes as JSON
";

const BUNDLES_FILE: &str = "config.json";

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
    let Some(word) = bundle else { return Err(usage("expected a bundle, or a container's id")) };
    let config = call.settings()?;
    let (bundle, id) = found(call, &word)?;
    let document = Document::read(&bundle)?;
    let container = Container::of(&config, &document, &bundle, &id)?;
    let (profile, other) = match named {
        Some(name) => (super::profile::resolve(&config, &name)?, None),
        None => container.profile(&config.data_dir)?,
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
        policy: &container.policy,
        needs: &needs,
        listener: Some(&listener),
    };
    let mut hardening = harden(&given)?;
    hardening.notes.extend(other);
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
            "degraded": hardening.degraded,
            "notes": hardening.notes,
        }))?;
    } else {
        let shown = show(&profile, &needs, &hardening);
        call.out.write_all(shown.as_bytes())?;
    }
    Ok(Outcome::Well)
}

/// The bundle that is meant, and its container's id.
fn found(call: &Call<'_>, word: &Path) -> Result<(PathBuf, String)> {
    let is_path = word.components().count() != 1 || word.is_absolute();
    if is_path || word.join(BUNDLES_FILE).exists() {
        let bundle = std::path::absolute(word).with_context(|| format!("failed to find {}", word.display()))?;
        let id = bundle.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok((bundle, id));
    }
    let name = word.to_string_lossy();
    match super::inspect::find(call, &name)? {
        Some(record) => Ok((record.bundle, record.id)),
        None => bail!(
            "{} is neither a bundle (a folder with a {BUNDLES_FILE}) nor the beginning of a container's id or name; \
             'lithifyctl status' lists the containers, and 'lithifyctl inspect ID' shows the bundle of one",
            quote(&name)
        ),
    }
}

/// What would hold for a container of the bundle, found as its start finds it.
struct Container {
    policy: Policy,
    workload: String,
    revision: Revision,
}

impl Container {
    fn of(config: &Config, document: &Document, bundle: &Path, id: &str) -> Result<Container> {
        let annotations = document.annotations()?;
        let names = EngineNames::from_annotations(&annotations);
        let container = names.container.as_deref();
        let mut policy = policy::settle(config, &Default::default(), &annotations, container, Standing::Enforced)?;
        // What the engine's own root would be kept for ends with enforcing.
        if policy.is_hands_off() {
            policy.rootfs = RootfsKind::Sealed;
        }
        let rootfs = document.rootfs(bundle)?;
        let workload = learning::workload(&policy, &names, document, &rootfs, id);
        let revision = identity::of(document, &annotations, &names, &rootfs, id);
        Ok(Container { policy, workload, revision })
    }

    /// The profile that would decide; of a revision that has none, the workload's newest, and that it would not.
    fn profile(&self, data_dir: &Path) -> Result<(Profile, Option<String>)> {
        let Container { policy, workload, revision } = self;
        if let Some(own) = store::own_profile(data_dir, policy.profile.as_deref(), workload, &revision.digest)? {
            return Ok((own, None));
        }
        let Some(newest) = store::newest_profile(data_dir, workload)? else {
            bail!(
                "no profile of the bundle's workload {}; learn it first, or name one with --profile ('lithifyctl profile \
                 list')",
                quote(workload)
            )
        };
        let other = format!(
            "the bundle's own revision, {}, has no profile yet: nothing of what is shown would be enforced now. It is of \
             another revision, which differs in: {}",
            revision.digest,
            stages::differing(&newest.revision, revision).join(", ")
        );
        Ok((newest, Some(other)))
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
        lines.push("\nmounts a tmpfs:".into());
    }
    for scratch in &hardening.scratch {
        let size = scratch.size_bytes.map(|bytes| format!("{} MiB", bytes >> 20)).unwrap_or_default();
        let exec = if scratch.exec { ", programs in it run" } else { "" };
        lines.push(format!("  {}  {size}{exec}", scratch.path.display()));
        lines.push(format!("    why: {}", why(profile, scratch)));
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
        ("programs of volumes, which were seen to run", &of_volumes(profile)),
        ("allowed by hand", &limits.allowed),
        ("denied by hand", &limits.denied),
        ("refused writes that are known, and silent", &limits.known_writes),
    ] {
        if !names.is_empty() {
            lines.push(format!("  {about}: {}", list(names)));
        }
    }
    if limits.kill_foreign {
        lines.push("  other programs that are not of the image: killed before they begin".into());
    }
    let remarks = [("degraded", &hardening.degraded), ("note", &hardening.notes)];
    for (word, remark) in remarks.iter().flat_map(|(word, all)| all.iter().map(move |one| (word, one))) {
        lines.push(format!("\n{word}: {remark}"));
    }
    // Newlines between the lines are ours; those within are names'.
    lines.iter().flat_map(|line| line.split('\n')).map(|line| plain(line) + "\n").collect()
}

/// Programs that were learnt though they are not of the image.
fn of_volumes(profile: &Profile) -> BTreeSet<String> {
    let sides = [&profile.workload_behaviour, &profile.exec_behaviour];
    let programs = sides.iter().flat_map(|side| &side.programs);
    let seen = programs.filter(|(_, program)| program.origins.contains(&Origin::Volume)).map(|(path, _)| path);
    seen.filter(|path| !profile.steering.denied.contains_key(&format!("program {path}"))).cloned().collect()
}

/// Why there is a scratch mount, and why programs run in it.
fn why(profile: &Profile, scratch: &Scratch) -> String {
    let below = |path: &str| Path::new(path).starts_with(&scratch.path);
    let sides = [&profile.workload_behaviour, &profile.exec_behaviour];
    let mut writes = sides.iter().flat_map(|side| &side.writes);
    let seen = writes.any(|(path, write)| write.succeeded && below(path));
    let seen =
        seen.then(|| "the workload was seen to write there; what it writes is gone with each generation".to_owned());
    let by_hand = profile.steering.allowed.keys().filter(|item| {
        let is = |kind: &str| item.strip_prefix(kind).is_some_and(below);
        is("write ") || scratch.exec && is("program ")
    });
    let all: Vec<String> = seen.into_iter().chain(by_hand.map(|item| format!("{item} is allowed by hand"))).collect();
    if all.is_empty() { "the container's policy has it".to_owned() } else { all.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Behaviour, Observation, observation};

    /// What one life of the workload `web` left.
    fn observation(n: u8, revision: Revision) -> Observation {
        let at = |minute: u8| format!("2026-01-01T00:{minute:02}:00.000000Z");
        Observation {
            version: observation::VERSION,
            id: format!("{n:032x}"),
            workload: "web".to_owned(),
            revision,
            architecture: std::env::consts::ARCH.to_owned(),
            node: "n".to_owned(),
            container: format!("c{n}"),
            generation: 1,
            started: at(n),
            until: at(n + 1),
            ended: true,
            window_seconds: 60,
            windows: 1,
            unseen: Vec::new(),
            loss: Default::default(),
            workload_behaviour: Behaviour::default(),
            exec_behaviour: Behaviour::default(),
            forbidden: Default::default(),
            peaks: Default::default(),
        }
    }

    fn container(config: &Config, dir: &Path, image: &str, more: serde_json::Value) -> Container {
        let mut annotations = json!({
            "io.kubernetes.cri.container-name": "web",
            "io.kubernetes.cri.image-name": format!("r/web@sha256:{}", image.repeat(64)),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            annotations[name] = value.clone();
        }
        let value = json!({
            "ociVersion": "1.0.2", "process": {"args": ["/bin/web"]}, "root": {"path": "rootfs"}, "annotations": annotations,
        });
        let document = Document::parse(value.to_string().as_bytes()).expect("a document");
        Container::of(config, &document, dir, "c").expect("a container")
    }

    #[test]
    fn what_is_shown_is_the_profile_of_the_containers_own_revision_or_said_to_be_anothers() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = Config { mode: policy::Mode::Auto, data_dir: dir.path().join("data"), ..Config::default() };
        let of = |image: &str| container(&config, dir.path(), image, json!({}));
        let shown = |container: &Container| container.profile(&config.data_dir);
        let said = shown(&of("a")).expect_err("nothing is learnt").to_string();
        assert!(said.contains("no profile of the bundle's workload \"web\""), "{said}");
        let (older, newer) = (of("a").revision, of("b").revision);
        for (n, revision) in [(1, &older), (5, &newer)] {
            store::fold_observation(&config.data_dir, &observation(n, revision.clone())).expect("folded");
        }
        for revision in [("a", &older), ("b", &newer)] {
            let (profile, other) = shown(&of(revision.0)).expect("a profile");
            assert_eq!((&profile.revision, other), (revision.1, None));
        }
        let (profile, other) = shown(&of("c")).expect("the newest");
        let other = other.expect("it is another's");
        assert_eq!(profile.revision, newer);
        assert!(other.contains(&of("c").revision.digest) && other.ends_with("differs in: image"), "{other}");
    }

    #[test]
    fn a_profile_that_the_container_names_is_the_one_that_is_shown() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = Config { mode: policy::Mode::Enforce, data_dir: dir.path().join("data"), ..Config::default() };
        let older = container(&config, dir.path(), "a", json!({})).revision;
        let newer = container(&config, dir.path(), "b", json!({})).revision;
        for (n, revision) in [(1, &older), (5, &newer)] {
            store::fold_observation(&config.data_dir, &observation(n, revision.clone())).expect("folded");
        }
        let name = json!({"lithify.dev/profile": format!("web@{}", &older.digest[..12])});
        let named = container(&config, dir.path(), "c", name).profile(&config.data_dir).expect("a profile");
        assert_eq!((named.0.revision, named.1), (older, None));
    }
}
