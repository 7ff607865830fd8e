//! What a low-level runtime itself calls between loading a container's filter and the workload's `execve`: no filter may
//! refuse it that, or nothing starts.
//!
//! Owns: what is known of the runtimes that were looked at by people (`seccomp-profiles/`), and which knowledge holds for
//! the program at hand. Must not: run a container ([`super::calibrate`]), or know a workload.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::calibrate::{self, Seen, bundle};
use super::identity::{Identity, Stamp};
use super::kept::Keeper;
use crate::profile::layers::{self, Layer, When};

/// What a version is followed by where a distribution built it: `1.1.5+ds1`, `1.1.7-0ubuntu1`.
const SUFFIXES: [char; 3] = ['+', '-', '~'];

/// What one low-level runtime needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// `runc`, as the program calls itself.
    pub program: String,
    /// `1.1.5`, as the program says; `unknown` where it does not.
    pub version: String,
    /// SHA-256 of the program's file, as lower-case hex.
    pub digest: String,
    /// Where this knowledge is from, in words.
    pub source: String,
    /// Names of system calls that it needs in each container.
    pub always: BTreeSet<String>,
    /// Names that it needs besides where the container has no no-new-privileges: the filter is loaded earlier then.
    pub without_no_new_privileges: BTreeSet<String>,
    /// It hands the descriptor of refused calls to a listener (`linux.seccomp.listenerPath`).
    pub listener: bool,
    /// What a person should know: it could not be measured, or kept.
    pub notes: Vec<String>,
}

impl Needs {
    /// The names that are needed, given whether the container has no-new-privileges.
    pub fn names(&self, no_new_privileges: bool) -> impl Iterator<Item = &str> {
        let besides = self.without_no_new_privileges.iter().filter(move |_| !no_new_privileges);
        self.always.iter().chain(besides).map(String::as_str)
    }

    fn nothing(identity: &Identity, source: String) -> Needs {
        Needs {
            program: identity.program.clone(),
            version: identity.version.clone(),
            digest: identity.digest.clone(),
            source,
            always: BTreeSet::new(),
            without_no_new_privileges: BTreeSet::new(),
            listener: false,
            notes: Vec::new(),
        }
    }

    /// Adds calls of a layer: all, or only those that no measurement brings about.
    fn widen(&mut self, layer: &Layer, only_chance: bool) {
        for (name, entry) in layer.syscalls.iter().filter(|(_, e)| e.chance || !only_chance) {
            match entry.when {
                When::Always => self.always.insert(name.clone()),
                When::WithoutNoNewPrivileges => self.without_no_new_privileges.insert(name.clone()),
            };
        }
        self.without_no_new_privileges.retain(|name| !self.always.contains(name));
    }
}

/// The layers of a program in any version; of all programs, where it is none that we know.
fn akin(program: &str) -> Result<Vec<Layer>> {
    let all = layers::runtimes(None)?;
    let known = all.iter().any(|layer| layer.program == program);
    Ok(all.into_iter().filter(|layer| !known || layer.program == program).collect())
}

/// How long a measurement may take. It took 0.8 s for runc 1.1.5 and 0.4 s for crun 1.8.1 on two cores that others used, too.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was found out of a program, from which follows what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// It is a version that people looked at.
    BuiltIn,
    /// It was measured.
    Measured(Seen),
    /// It could not be, for this reason.
    NotMeasured(String),
}

impl Finding {
    /// What follows; `None`: nothing any more, for another version of ours found this out.
    fn needs(self, identity: &Identity) -> Result<Option<Needs>> {
        match self {
            Finding::BuiltIn => built_in(identity),
            Finding::Measured(seen) => measured(identity, seen).map(Some),
            Finding::NotMeasured(why) => guessed(identity, why).map(Some),
        }
    }
}

/// What a runtime needs: what is kept of it; what is built in for its version; what is measured then and there. The first
/// takes microseconds, and is what each start of a container finds.
///
/// A wrapper is known by its own file: that what it calls was exchanged shows when a start fails, and is for [`measure`].
///
/// A runtime that can't be measured gets what all known versions of it need, and says so: a start is never lost to that.
///
/// # Errors
/// When it is not there, or does not tell what it is.
pub fn of(runtime: &Path, data_dir: &Path) -> Result<Needs> {
    let stamp = stamp_of(runtime)?;
    // What can't be opened is told by who wants to write there.
    let keeper = Keeper::open(data_dir, runtime, &stamp).ok().flatten();
    match keeper.map(|keeper| kept(&keeper)).transpose()?.flatten() {
        Some(needs) => Ok(needs),
        None => learn(runtime, data_dir, &stamp, false),
    }
}

/// Measures a runtime, whatever is known of it, and keeps that.
///
/// # Errors
/// When it is not there, does not tell what it is, or can't be measured.
pub fn measure(runtime: &Path, data_dir: &Path) -> Result<Needs> {
    learn(runtime, data_dir, &stamp_of(runtime)?, true)
}

/// What is known of a runtime without running it.
///
/// # Errors
/// When it is not there, or the folder can't be opened.
pub fn known(runtime: &Path, data_dir: &Path) -> Result<Option<Needs>> {
    let stamp = stamp_of(runtime)?;
    Keeper::open(data_dir, runtime, &stamp)?.map_or(Ok(None), |keeper| kept(&keeper))
}

fn stamp_of(runtime: &Path) -> Result<Stamp> {
    Stamp::of(runtime).with_context(|| format!("failed to look at {}", runtime.display()))
}

fn kept(keeper: &Keeper<'_>) -> Result<Option<Needs>> {
    keeper.read().map_or(Ok(None), |(identity, finding)| finding.needs(&identity))
}

fn learn(runtime: &Path, data_dir: &Path, stamp: &Stamp, anew: bool) -> Result<Needs> {
    let keeper = Keeper::create(data_dir, runtime, stamp);
    // Others that begin meanwhile wait for what comes of it, and find it kept. Without the lock it is only done twice.
    let lock = keeper.as_ref().map(|keeper| keeper.lock(PATIENCE * 2));
    if let (Ok(keeper), false) = (&keeper, anew)
        && let Some(needs) = kept(keeper)?
    {
        return Ok(needs);
    }
    let identity = Identity::of(runtime)?;
    let again = keeper.as_ref().ok().filter(|_| !anew).and_then(|keeper| keeper.measured(&identity.digest));
    let finding = match again {
        Some(seen) => Finding::Measured(seen),
        None if !anew && built_in(&identity)?.is_some() => Finding::BuiltIn,
        None => match calibrate::measure(runtime, PATIENCE) {
            Ok(seen) => Finding::Measured(seen),
            Err(e) if anew => return Err(e).with_context(|| format!("failed to measure {}", runtime.display())),
            Err(e) => Finding::NotMeasured(format!("failed to measure {}: {e:#}", runtime.display())),
        },
    };
    let written = match &keeper {
        // Exchanged meanwhile: nobody knows which of the two was looked at.
        _ if stamp_of(runtime).ok().as_ref() != Some(stamp) => Err(anyhow!("it was exchanged meanwhile")),
        Ok(keeper) => keeper.write(&identity, &finding),
        Err(e) => Err(anyhow!("{e:#}")),
    };
    drop(lock);
    let mut needs = finding.needs(&identity)?.context("a finding of just now means nothing")?;
    if let Err(e) = written {
        let what = format!("what {} needs could not be kept, and is found out each time: {e:#}", runtime.display());
        needs.notes.push(what);
    }
    Ok(needs)
}

/// What people found out of just this version, whoever built it.
fn built_in(identity: &Identity) -> Result<Option<Needs>> {
    let upstream = identity.version.split(SUFFIXES).next().unwrap_or_default();
    let fits = |layer: &Layer| layer.program == identity.program && layer.program_version == upstream;
    let Some(layer) = layers::runtimes(None)?.into_iter().find(fits) else { return Ok(None) };
    let mut needs = Needs::nothing(identity, format!("built in for {} {upstream}", layer.program));
    needs.widen(&layer, false);
    needs.listener = layer.listener;
    Ok(Some(needs))
}

/// What was seen, and what can't be brought about.
fn measured(identity: &Identity, seen: Seen) -> Result<Needs> {
    if !seen.listener {
        let why = "it hands no descriptors to a listener, and can't be measured";
        return all_that_is_known(identity, format!("what all known versions need: {why}"));
    }
    let mut needs = Needs::nothing(identity, "measured on this node".into());
    needs.listener = true;
    needs.always = seen.always;
    needs.always.extend(bundle::NEVER_ASKED.map(str::to_string));
    needs.without_no_new_privileges = seen.without_no_new_privileges;
    for layer in akin(&identity.program)? {
        needs.widen(&layer, true);
    }
    Ok(needs)
}

/// For one that could not be measured, and why it could not.
fn guessed(identity: &Identity, failure: String) -> Result<Needs> {
    let mut needs = all_that_is_known(identity, "what all known versions need: it could not be measured".into())?;
    needs.notes.push(failure);
    Ok(needs)
}

fn all_that_is_known(identity: &Identity, source: String) -> Result<Needs> {
    let mut needs = Needs::nothing(identity, source);
    for layer in akin(&identity.program)? {
        needs.widen(&layer, false);
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(program: &str, version: &str) -> Identity {
        Identity { program: program.into(), version: version.into(), digest: "d".repeat(64) }
    }

    #[test]
    fn what_is_built_in_holds_for_its_version_whoever_built_it_and_for_no_other() {
        for version in ["1.1.5", "1.1.5+ds1", "1.1.5-0ubuntu1~22.04.1"] {
            let needs = built_in(&identity("runc", version)).unwrap().expect(version);
            assert!(needs.listener && needs.always.contains("execve"), "{needs:?}");
        }
        for (program, version) in [("runc", "1.1.50"), ("runc", "1.1"), ("runc", "unknown"), ("crun", "1.1.5")] {
            assert_eq!(built_in(&identity(program, version)).unwrap(), None, "{program} {version}");
        }
    }

    #[test]
    fn both_built_in_runtimes_are_left_what_handing_a_descriptor_over_takes() {
        // Each would wait for an answer that nobody can give: the listener does not have the descriptor yet.
        for (program, version, calls) in
            [("runc", "1.1.5", ["read", "write", "futex"]), ("crun", "1.8.1", ["wait4", "kill", "munmap"])]
        {
            let needs = built_in(&identity(program, version)).unwrap().unwrap();
            let names: Vec<&str> = needs.names(true).collect();
            assert!(calls.iter().all(|call| names.contains(call)), "{program}: {names:?}");
        }
    }

    #[test]
    fn a_measured_version_gets_what_chance_decides_besides_and_nothing_else() {
        let set = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<BTreeSet<_>>();
        let seen = Seen {
            listener: true,
            always: set(&["execve", "ioprio_set"]),
            without_no_new_privileges: set(&["capset"]),
        };
        let needs = measured(&identity("runc", "9.9"), seen.clone()).unwrap();
        assert!(needs.always.is_superset(&seen.always) && needs.always.contains("sched_yield"), "{needs:?}");
        assert!(!needs.always.contains("chdir") && !needs.names(false).any(|name| name == "chdir"), "{needs:?}");
        assert_eq!(needs.without_no_new_privileges, set(&["capset"]));
    }

    #[test]
    fn one_that_serves_no_listener_gets_what_all_versions_of_its_program_need_and_an_unknown_program_what_all_do() {
        let old = measured(&identity("runc", "1.0.3"), Seen::default()).unwrap();
        assert!(!old.listener && old.source.contains("can't be measured"), "{old:?}");
        assert!(old.always.contains("fstatfs") && !old.names(false).any(|name| name == "pselect6"), "{old:?}");
        let strange = guessed(&identity("youki", "0.3"), "it burns".into()).unwrap();
        assert!(["fstatfs", "pselect6"].iter().all(|call| strange.names(false).any(|name| name == *call)));
        assert_eq!(strange.notes, ["it burns"]);
    }
}
