//! Documents from bytes: strict, bounded, and checked across their fields before anyone uses them.
//!
//! Owns: what a well-formed observation and profile is. Must not: open files, or repair what is wrong.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::behaviour::{Behaviour, MAX_ITEMS, MAX_WRITERS};
use super::document::{self, MAX_WITNESSES, Profile, Support};
use super::merge::MAX_GENERATIONS;
use super::observation::{self, Observation, Sighting};
use super::revision::Revision;
use super::steering::{Decision, MAX_DECISIONS, MAX_STEPS, Steering};
use super::{items, syscalls};
use crate::events::clock;
use crate::policy::suggest::quote;

/// Most bytes of a document. Ten times what the largest honest one takes.
pub const MAX_BYTES: usize = 10_000_000;
/// Longest name of an item, in bytes: PATH_MAX of bytes that are no UTF-8, each shown by three, and what stands around it. A
/// workload must not be able to make its own observation unreadable by a name.
const MAX_NAME: usize = 3 * 4096 + 64;
/// Longest reason, in bytes.
pub const MAX_WHY: usize = 1024;
/// Longest name of a workload: two names of an engine and what joins them.
const MAX_WORKLOAD: usize = 1100;
/// The architecture whose system calls this program knows by name.
pub const ARCHITECTURE: &str = std::env::consts::ARCH;

impl Observation {
    /// Reads an observation.
    ///
    /// # Errors
    /// When it is too large, not JSON of this shape, of another version or architecture, or contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Observation> {
        let mut observation: Observation = document(bytes, observation::VERSION)?;
        settle(&mut observation.workload_behaviour)?;
        settle(&mut observation.exec_behaviour)?;
        observation.check()?;
        Ok(observation)
    }

    /// Checks what the types do not say. Who makes an observation calls this before it is written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<()> {
        identity(&self.workload, &self.revision, &self.architecture)?;
        ensure!(is_id(&self.id), "id {} is not 32 lower-case hex digits", quote(&self.id));
        times(&self.started, &self.until)?;
        ensure!(self.window_seconds > 0, "a window of 0 seconds");
        ensure!(self.generation > 0, "generation 0; the first life is 1");
        for behaviour in [&self.workload_behaviour, &self.exec_behaviour] {
            behaviour.check(sighting)?;
        }
        for (item, forbidden) in &self.forbidden {
            sighting(&forbidden.seen).with_context(|| format!("forbidden {}", quote(item)))?;
        }
        Ok(())
    }
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// When it is too large, not JSON of this shape, of another version or architecture, or contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Profile> {
        let mut profile: Profile = document(bytes, document::VERSION)?;
        settle(&mut profile.workload_behaviour)?;
        settle(&mut profile.exec_behaviour)?;
        profile.check()?;
        Ok(profile)
    }

    /// Checks what the types do not say.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<()> {
        identity(&self.workload, &self.revision, &self.architecture)?;
        let count = self.generations.len();
        ensure!(count <= MAX_GENERATIONS, "{count} generations; at most {MAX_GENERATIONS}");
        for (id, generation) in &self.generations {
            ensure!(is_id(id), "generation {} is not 32 lower-case hex digits", quote(id));
            times(&generation.started, &generation.until).with_context(|| format!("generation {id}"))?;
            ensure!(generation.window_seconds > 0, "generation {id} has windows of 0 seconds");
        }
        let support = |seen: &Support| self.support(seen);
        for behaviour in [&self.workload_behaviour, &self.exec_behaviour] {
            behaviour.check(support)?;
            behaviour.check_bounds()?;
        }
        ensure!(self.forbidden.len() <= MAX_ITEMS, "{} forbidden items; at most {MAX_ITEMS}", self.forbidden.len());
        for (item, forbidden) in &self.forbidden {
            support(&forbidden.seen).with_context(|| format!("forbidden {}", quote(item)))?;
        }
        self.steering.check().context("steering")
    }

    fn support(&self, seen: &Support) -> Result<()> {
        let count = seen.generations.len();
        ensure!((1..=MAX_WITNESSES).contains(&count), "{count} generations saw it; expected 1 to {MAX_WITNESSES}");
        for (id, windows) in &seen.generations {
            ensure!(
                self.generations.contains_key(id),
                "it names a generation {}, which the profile has not",
                quote(id)
            );
            ensure!(*windows > 0, "generation {id} saw it in no window");
        }
        times(&seen.first, &seen.last)
    }
}

impl Steering {
    fn check(&self) -> Result<()> {
        let decisions = [("allowed", &self.allowed), ("denied", &self.denied)];
        for (what, items) in decisions {
            ensure!(items.len() <= MAX_DECISIONS, "{} {what} items; at most {MAX_DECISIONS}", items.len());
            for (item, decision) in items {
                let known = items::decided(item).with_context(|| format!("{what} {}", quote(item)))?;
                ensure!(known == *item, "{what} {} is written as {}", quote(item), quote(&known));
                decision.check()?;
            }
        }
        if let Some(item) = self.allowed.keys().find(|item| self.denied.contains_key(*item)) {
            bail!("{} is both allowed and denied", quote(item));
        }
        ensure!(self.waiting.len() <= MAX_DECISIONS, "{} items wait; at most {MAX_DECISIONS}", self.waiting.len());
        for (item, doubt) in &self.waiting {
            ensure!((1..=MAX_NAME).contains(&item.len()), "an item that waits has {} bytes", item.len());
            doubt.check()?;
        }
        self.demoted.iter().try_for_each(Decision::check)?;
        if let Some(digest) = &self.candidate {
            ensure!(is_id(digest), "candidate {} is not 32 lower-case hex digits", quote(digest));
        }
        if let Some(quiet) = &self.quiet {
            times(&quiet.since, &quiet.since)?;
            ensure!(quiet.generations.len() <= MAX_GENERATIONS, "{} quiet generations", quiet.generations.len());
            ensure!(quiet.generations.keys().all(|id| is_id(id)), "a quiet generation is not 32 lower-case hex digits");
        }
        if let Some(canary) = &self.canary {
            times(&canary.since, &canary.since)?;
            ensure!(is_sentence(&canary.container), "canary {}", quote(&canary.container));
        }
        ensure!(self.history.len() <= MAX_STEPS, "{} steps; at most {MAX_STEPS}", self.history.len());
        for step in &self.history {
            times(&step.at, &step.at)?;
            ensure!(is_sentence(&step.why), "a step's reason is empty, or longer than {MAX_WHY} bytes");
        }
        Ok(())
    }
}

impl Decision {
    fn check(&self) -> Result<()> {
        times(&self.at, &self.at)?;
        ensure!(is_sentence(&self.why), "a reason is empty, longer than {MAX_WHY} bytes, or has control characters");
        Ok(())
    }
}

/// Whether somebody may give this as a reason.
pub fn is_sentence(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_WHY && !text.chars().any(char::is_control)
}

impl<E> Behaviour<E> {
    fn check(&self, evidence: impl Fn(&E) -> Result<()>) -> Result<()> {
        for (section, name, seen) in self.items() {
            let item = || format!("{} {}", section.singular(), quote(&name));
            ensure!(!name.is_empty() && name.len() <= MAX_NAME, "{}: its name has {} bytes", item(), name.len());
            evidence(seen).with_context(item)?;
        }
        for (call, value) in self.arguments.iter().flat_map(|(call, values)| values.keys().map(move |v| (call, v))) {
            ensure!(
                is_argument(call, value),
                "argument {}: not one that is recorded",
                quote(&format!("{call} {value}"))
            );
        }
        for name in self.capabilities.keys() {
            ensure!(syscalls::capability_number(name).is_some(), "unknown capability {}", quote(name));
        }
        for path in self.writes.keys().chain(self.programs.keys()) {
            let normal = path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == ".");
            ensure!(normal, "path {} is not absolute and normal", quote(path));
        }
        for (path, write) in &self.writes {
            ensure!(write.by.iter().all(|by| by.len() <= 64), "write {}: a writer's name is too long", quote(path));
            ensure!(write.refused.iter().all(|e| is_errno(e)), "write {}: no name of an error", quote(path));
            ensure!(write.succeeded || !write.refused.is_empty(), "write {}: neither done nor refused", quote(path));
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<()> {
        let sections = [
            ("syscalls", self.syscalls.len()),
            ("denied-syscalls", self.denied_syscalls.len()),
            ("arguments", self.arguments.values().map(BTreeMap::len).max().unwrap_or(0)),
            ("capabilities", self.capabilities.len()),
            ("writes", self.writes.len()),
            ("programs", self.programs.len()),
            ("listens", self.listens.len()),
            ("connects", self.connects.len()),
        ];
        for (section, count) in sections {
            ensure!(count <= MAX_ITEMS, "{section}: {count} items; at most {MAX_ITEMS}");
        }
        for (path, write) in &self.writes {
            ensure!(write.by.len() <= MAX_WRITERS, "write {}: {} writers", quote(path), write.by.len());
        }
        Ok(())
    }
}

/// Parses a document whose version is looked at first: of another version, other fields may be right.
fn document<T: DeserializeOwned>(bytes: &[u8], version: u32) -> Result<T> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    ensure!(bytes.len() <= MAX_BYTES, "more than {MAX_BYTES} bytes");
    let head: Head = serde_json::from_slice(bytes).context("not a JSON document with a version")?;
    if head.version > version {
        bail!("expected version {version}, found {}; a later lithify wrote it: upgrade this one", head.version);
    }
    ensure!(
        head.version == version,
        "expected version {version}, found {}; run 'lithifyctl profile migrate'",
        head.version
    );
    serde_json::from_slice(bytes).context("not a document of this shape")
}

/// Gives system calls that another version spelt by number the name that this version knows.
fn settle<E>(behaviour: &mut Behaviour<E>) -> Result<()> {
    rename(&mut behaviour.syscalls)?;
    rename(&mut behaviour.denied_syscalls)?;
    rename(&mut behaviour.arguments)
}

fn rename<V>(map: &mut BTreeMap<String, V>) -> Result<()> {
    let mut renamed = BTreeMap::new();
    for (name, value) in std::mem::take(map) {
        let Some(canonical) = syscalls::canonical(&name) else {
            bail!(
                "unknown system call {} for {ARCHITECTURE}; a later lithify may know it: upgrade this one",
                quote(&name)
            );
        };
        ensure!(renamed.insert(canonical, value).is_none(), "system call {} is there twice", quote(&name));
    }
    *map = renamed;
    Ok(())
}

fn identity(workload: &str, revision: &Revision, architecture: &str) -> Result<()> {
    ensure!(
        architecture == ARCHITECTURE,
        "it is for architecture {}, and this is {ARCHITECTURE}: system calls differ; learn it here",
        quote(architecture)
    );
    let named = !workload.is_empty() && workload.len() <= MAX_WORKLOAD && !workload.chars().any(char::is_control);
    ensure!(
        named,
        "workload {} is empty, longer than {MAX_WORKLOAD} bytes, or has control characters",
        quote(workload)
    );
    ensure!(is_id(&revision.digest), "revision {} is not 32 lower-case hex digits", quote(&revision.digest));
    Ok(())
}

fn sighting(seen: &Sighting) -> Result<()> {
    ensure!(seen.windows > 0, "seen in no window");
    times(&seen.first, &seen.last)
}

/// Times have the one form in which texts sort as times do.
fn times(first: &str, last: &str) -> Result<()> {
    for time in [first, last] {
        let canonical = clock::parse(time).map(clock::format);
        ensure!(canonical.as_deref() == Some(time), "time {} is not like 2026-01-31T12:34:56.789012Z", quote(time));
    }
    // A clock that was set back can make `last` the earlier one: that is the clock's fault, and no reason to lose a document.
    Ok(())
}

/// Whether this is the form of an observation's id, and of a revision's digest.
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether this is an argument that is recorded of a call.
pub(super) fn is_argument(call: &str, value: &str) -> bool {
    let numbers = match call.strip_prefix("i386:").unwrap_or(call) {
        "socket" | "socketpair" => 3,
        "clone" | "clone3" | "unshare" | "personality" | "prctl" | "arch_prctl" | "ioctl" | "ptrace" => 1,
        _ => return false,
    };
    let is_number = |text: &str| text.parse::<u64>().is_ok_and(|n| n.to_string() == text);
    value.split(',').count() == numbers && value.split(',').all(is_number)
}

fn is_errno(text: &str) -> bool {
    text.len() <= 16 && text.starts_with('E') && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}
