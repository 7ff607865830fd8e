//! From a profile to a container that can do no more than it was seen to do: edits of config.json, scratch mounts, and what is
//! to be watched while it runs.
//!
//! Owns: which edits, each with its reason; never wider than what the engine asked for. Pure: values in, values out. Must not:
//! read files, run programs, or know the supervisor.

mod engine;
mod fits;
mod places;
mod privileges;
mod region;
mod seccomp;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::guard::Limits;
use crate::policy::{ExecRule, Policy, Scratch};
use crate::profile::doubtful::{helpers, runs_scripts, vain};
use crate::profile::steering::Decision;
use crate::profile::{
    Behaviour, Profile, Support, baseline, capabilities, estimate, filter, generalise, items, layers,
};
use crate::runtime::needs::Needs;
use crate::spec::Document;
use engine::EngineFilter;

/// What a container is hardened by.
pub struct Given<'a> {
    /// What its workload was seen to do.
    pub profile: &'a Profile,
    /// The engine's config.json, unedited.
    pub document: &'a Document,
    /// What holds for it.
    pub policy: &'a Policy,
    /// What its low-level runtime needs.
    pub needs: &'a Needs,
    /// The socket of whoever is told of refused system calls; `None`: nobody is.
    pub listener: Option<&'a Path>,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardening {
    /// Changes of config.json, none of them within another.
    pub edits: Vec<Edit>,
    /// Scratch mounts beside those of the policy, and those of the policy in which programs are to run all the same.
    pub scratch: Vec<Scratch>,
    /// What is refused and watched beside.
    pub limits: Limits,
    /// What of the profile can't be held to or told, one sentence each.
    pub degraded: Vec<String>,
    /// What a person should know beside, likewise.
    pub notes: Vec<String>,
}

/// One change of config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// Where: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is there then.
    pub value: Value,
    /// What it does, in words.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Hardens a container by its profile.
///
/// # Errors
/// When the document has another shape than the runtime specification's, the engine's filter says what is not of it, or the
/// filter is larger than the kernel takes: nothing of the profile would hold then.
pub fn harden(given: &Given<'_>) -> Result<Hardening> {
    let (mut degraded, mut notes) = (Vec::new(), Vec::new());
    let mut profile = given.profile.steered(&mut notes);
    if given.policy.exec == ExecRule::Deny {
        // Nobody else is let in: what sessions needed, nobody needs.
        profile.exec_behaviour = Behaviour::default();
    }
    let profile = &profile;
    let process = &given.document.value()["process"];
    let mut edits = Vec::new();

    let (no_new_privileges, edit) = privileges::no_new_privileges(process, profile, &mut notes);
    let withheld_new_privileges = edit.is_some();
    edits.extend(edit);
    let reasons = capabilities::reasons(profile, &mut notes);
    let held = privileges::capabilities(process, &reasons);
    edits.extend(held.edit);
    for name in &held.lacking {
        let why = reasons.get(name).map_or("", String::as_str);
        notes.push(format!("{name} ({why}): the engine does not give it to this container"));
    }
    let filtered = filtered(given, profile, no_new_privileges, &mut degraded, &mut notes)?;
    edits.extend(filtered.edit);
    edits.extend(places::masked(given.document)?);
    edits.extend(places::read_only(profile, given.document)?);
    edits.extend(places::pids(profile, given.document));
    let mut scratch = places::scratch(profile, given.document, given.policy, &mut notes)?;

    let blind = |g: &crate::profile::document::Generation| g.unseen.contains(estimate::UNSEEN_EVERYTHING);
    let sessions = Profile { workload_behaviour: Behaviour::default(), ..profile.clone() };
    let by_hand = |items: &BTreeMap<String, Decision>| items.keys().map(|item| items::as_decided(item)).collect();
    let steering = &given.profile.steering;
    let (allowed, denied): (BTreeSet<String>, BTreeSet<String>) =
        (by_hand(&steering.allowed), by_hand(&steering.denied));
    let programs: BTreeSet<String> = Limits::programs_of(&allowed).map(str::to_owned).collect();
    let sides = [&given.profile.workload_behaviour, &given.profile.exec_behaviour];
    let learnt = sides.iter().flat_map(|side| side.items()).map(|(section, name, _)| items::item_name(section, &name));
    let forbidden = given.profile.forbidden.keys().filter(|item| !item.starts_with("exec: "));
    let habits: BTreeSet<String> = learnt.chain(forbidden.map(|item| items::as_decided(item))).collect();
    let mut denied_habits = habits_among(&denied, &habits);
    // Refused as it always was: told, and no reason to start the workload again, which does the same again.
    denied_habits.extend(vain(given.profile));
    places::let_run(&mut scratch, &programs, given.document, given.policy, &mut notes)?;
    let limits = Limits {
        profile: Some(format!("{}/{}", profile.workload, profile.revision.digest)),
        listener: filtered.listener,
        deadly_syscalls: filtered.deadly,
        known_writes: places::known_writes(profile),
        withheld_capabilities: held.withheld,
        drops_capabilities: sides.iter().any(|side| side.syscalls.contains_key("capset")),
        withheld_new_privileges,
        kill_foreign: !profile.generations.values().any(blind),
        // Those of the image as well: what the workload was never seen to run is news, wherever it comes from.
        programs: profile.workload_behaviour.programs.keys().cloned().chain(programs.clone()).collect(),
        runs_scripts: runs_scripts(profile),
        helpers: helpers(profile),
        session_programs: profile.exec_behaviour.programs.keys().cloned().chain(programs).collect(),
        allowed,
        denied,
        denied_habits,
        session_capabilities: capabilities::needed(&sessions, &mut Vec::new()),
        startup_ms: None,
    };
    Ok(Hardening { edits, scratch, limits, degraded, notes })
}

/// Of what was denied, what the workload was seen to do. Files may have another name each time, so that of these a pattern counts.
fn habits_among(denied: &BTreeSet<String>, habits: &BTreeSet<String>) -> BTreeSet<String> {
    let is_file = |item: &str| item.starts_with("write /");
    let is_habit = |item: &&String| match is_file(item) {
        true => habits.iter().any(|habit| generalise::covers(item, habit)),
        false => habits.contains(*item),
    };
    denied.iter().filter(is_habit).cloned().collect()
}

struct Filtered {
    edit: Option<Edit>,
    listener: bool,
    deadly: BTreeSet<String>,
}

fn filtered(
    given: &Given<'_>,
    profile: &Profile,
    no_new_privileges: bool,
    degraded: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<Filtered> {
    let workload = &profile.workload;
    let asked = &given.document.value()["linux"]["seccomp"];
    let engine = match asked {
        Value::Null => EngineFilter::none(),
        // A filter that holds alone, in place of the profile's, would be far more than was learnt.
        asked => EngineFilter::parse(asked).with_context(|| {
            format!("failed to read the engine's own system call filter of {workload}; use mode \"observe\" for it")
        })?,
    };
    let always = layers::always()?;
    let needed = always.names(no_new_privileges).chain(given.needs.names(no_new_privileges));
    let filter = filter::filter(profile, needed, notes);
    let listener = given.listener.filter(|_| given.needs.listener);
    if given.listener.is_some() && listener.is_none() {
        let Needs { program, version, .. } = given.needs;
        degraded
            .push(format!("refused system calls are not told: {program} {version} hands no descriptors to a listener"));
    }
    // What nobody learnt and every filter lets through, the engine alone refuses, as it would without us: no news either.
    let is_learnt =
        |name: &&String| sides(profile).any(|side| side.syscalls.keys().any(|learnt| bare(learnt) == *name));
    let of_layers = filter.allowed.iter().filter(|name| !is_learnt(name)).cloned();
    let known_refusals = refused(profile).into_iter().chain(of_layers).collect();
    let facts = seccomp::Facts { listener, known_refusals, tried: tried(profile) };
    let planned = seccomp::plan(&filter, &engine, &facts, degraded, notes).with_context(|| {
        format!(
            "failed to plan the filter of {workload}; use mode \"observe\" for it, and 'lithifyctl profile show' to see its arguments"
        )
    })?;
    let engines = planned.allowed.len() + planned.taken;
    let edit = Edit {
        pointer: "/linux/seccomp".into(),
        what: format!("system calls: {} of the {engines} that the engine allows", planned.allowed.len()),
        why: whence(&planned.allowed, profile, &always, given.needs, no_new_privileges),
        value: planned.value,
    };
    Ok(Filtered { edit: Some(edit), listener: planned.listener, deadly: planned.deadly })
}

/// Where the calls that are allowed come from, in numbers.
fn whence(
    allowed: &BTreeSet<String>,
    profile: &Profile,
    always: &layers::Layer,
    needs: &Needs,
    no_new_privileges: bool,
) -> String {
    let always: BTreeSet<&str> = always.names(no_new_privileges).collect();
    let own: BTreeSet<&str> = needs.names(no_new_privileges).collect();
    let (mut seen, mut by_hand) = (BTreeSet::new(), BTreeSet::new());
    for (name, support) in [&profile.workload_behaviour, &profile.exec_behaviour].iter().flat_map(|side| &side.syscalls)
    {
        if support.is_seen() { &mut seen } else { &mut by_hand }.insert(bare(name));
    }
    let mut counts = [0; 5];
    for name in allowed.iter().map(String::as_str) {
        let sources = [seen.contains(name), by_hand.contains(name), always.contains(name), own.contains(name), true];
        counts[sources.iter().position(|is| *is).unwrap_or_default()] += 1;
    }
    let [seen, by_hand, always, own, families] = counts;
    let Needs { program, version, source, .. } = needs;
    format!(
        "{seen} were seen; {families} stand for these (another way to do the same); {always} every process may need; {own} \
         {program} {version} itself calls ({source}); {by_hand} are allowed by hand"
    )
}

/// Calls that the engine's filter refused while the workload was learnt: known, and silent. What is never learnt is not of
/// them: it is told each time.
fn refused(profile: &Profile) -> BTreeSet<String> {
    sides(profile).flat_map(|side| side.denied_syscalls.keys()).map(|name| bare(name).to_owned()).collect()
}

fn sides(profile: &Profile) -> impl Iterator<Item = &Behaviour<Support>> {
    [&profile.workload_behaviour, &profile.exec_behaviour].into_iter()
}

/// Calls that are never learnt, and that somebody tried while learning; not one that nobody has looked at, or that was denied.
fn tried(profile: &Profile) -> BTreeSet<String> {
    let items = profile.forbidden.keys().map(|item| item.strip_prefix("exec: ").unwrap_or(item));
    let calls = items.filter_map(|item| item.strip_prefix("denied ").unwrap_or(item).strip_prefix("syscall "));
    let is_open = |name: &str| {
        let item = format!("syscall {name}");
        profile.steering.waiting.contains_key(&item) || profile.steering.denied.contains_key(&item)
    };
    calls.filter(|name| !is_open(name)).map(bare).filter(|name| baseline::deadly(name)).map(str::to_owned).collect()
}

fn bare(name: &str) -> &str {
    name.strip_prefix("i386:").unwrap_or(name)
}

impl Hardening {
    /// Makes the changes.
    ///
    /// # Errors
    /// When the document has something else where an object is expected.
    pub fn apply(&self, document: &mut Document) -> Result<()> {
        self.edits.iter().try_for_each(|edit| document.set(&edit.pointer, edit.value.clone()))
    }
}
