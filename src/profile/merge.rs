//! Folding observations into a profile, and profiles into each other: the join of a lattice. Merging is commutative,
//! associative and idempotent, so that it does not matter in which order replicas and nodes are folded, or how often.
//!
//! Owns: what the join of each field is, and its bounds. Must not: read files, or judge behaviour.
//!
//! Sets grow by union, times to the earliest and the latest, sizes and counts to the largest. Where a set is bounded, the
//! smallest keys are kept, which is a lattice as well; of the stages the earlier one counts: what is merged with a profile
//! that still learns, still learns.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};

use super::behaviour::{Behaviour, MAX_ITEMS, MAX_WRITERS, Program, Write};
use super::document::{Forbidden, Generation, MAX_WITNESSES, Profile, Stage, Support, VERSION};
use super::generalise;
use super::observation::{self, Loss, Observation, Peaks, Sighting};

/// Most generations that a profile holds. By then those that say least are left out ([`Profile::fold`]).
pub const MAX_GENERATIONS: usize = 4096;

/// What two profiles may differ in and be merged all the same; the result bears the first one's. Where they do differ,
/// the order matters in that respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Across {
    /// The workload's name.
    pub workloads: bool,
    /// Image and parameters.
    pub revisions: bool,
}

impl Profile {
    /// The profile of one observation alone; it learns.
    pub fn of(observation: &Observation) -> Profile {
        let id = &observation.id;
        let mut profile = Profile {
            version: VERSION,
            workload: observation.workload.clone(),
            revision: observation.revision.clone(),
            architecture: observation.architecture.clone(),
            stage: Stage::Learning,
            generations: BTreeMap::from([(id.clone(), generation(observation))]),
            steering: Default::default(),
            workload_behaviour: observation.workload_behaviour.map(|seen| support(id, seen)),
            exec_behaviour: observation.exec_behaviour.map(|seen| support(id, seen)),
            forbidden: (observation.forbidden.iter())
                .map(|(item, observation::Forbidden { reason, seen })| {
                    (item.clone(), Forbidden { reason: reason.clone(), seen: support(id, seen) })
                })
                .collect(),
            cut: BTreeSet::new(),
            peaks: observation.peaks,
        };
        for write in profile.workload_behaviour.writes.values_mut().chain(profile.exec_behaviour.writes.values_mut()) {
            keep_smallest_names(&mut write.by, MAX_WRITERS);
        }
        profile.generalise();
        profile.bound(MAX_ITEMS);
        profile
    }

    /// This profile with one more observation. One that is part of it already changes nothing; a later state of one that was
    /// still growing takes the place of the earlier one, whose names may since have become a pattern. The stage stays.
    ///
    /// # Errors
    /// As [`merge`].
    pub fn fold(&self, observation: &Observation) -> Result<Profile> {
        ensure!(
            observation.version == observation::VERSION,
            "failed to fold observation {}: expected version {}, found {}; use the lithify that wrote it, or a later one",
            observation.id,
            observation::VERSION,
            observation.version
        );
        let mut base = self.clone();
        if let Some(known) = self.generations.get(&observation.id) {
            match (observation.ended, &observation.until).cmp(&(known.ended, &known.until)) {
                Ordering::Less => return Ok(base),
                Ordering::Equal => {}
                Ordering::Greater => base.forget(&observation.id),
            }
        }
        // What is started every minute comes to it in days, and is to be learnt all the same.
        if base.generations.len() >= MAX_GENERATIONS && !base.generations.contains_key(&observation.id) {
            base.shorten();
        }
        let folded = merge(&base, &Profile::of(observation), Across::default())?;
        Ok(Profile { stage: self.stage, ..folded })
    }

    /// Takes back what one generation alone has shown. What it shares with others keeps their evidence.
    fn forget(&mut self, id: &str) {
        self.generations.remove(id);
        for behaviour in [&mut self.workload_behaviour, &mut self.exec_behaviour] {
            behaviour.forget(id);
        }
        self.forbidden.retain(|_, forbidden| forbidden.seen.survives_without(id));
    }

    /// Names that are few in each generation may be many in all of them.
    fn generalise(&mut self) {
        let sides = [&mut self.workload_behaviour, &mut self.exec_behaviour];
        let patterns = generalise::written(sides.iter().flat_map(|side| side.writes.keys()).map(String::as_str));
        for side in sides {
            for (path, write) in std::mem::take(&mut side.writes) {
                let pattern = patterns.get(&path).cloned().unwrap_or(path);
                join_map(&mut side.writes, &BTreeMap::from([(pattern, write)]), join_write);
            }
        }
    }

    /// Cuts each section to its first `items`, and names those that were longer in `cut`.
    pub(super) fn bound(&mut self, items: usize) {
        for (side, behaviour) in [("workload", &mut self.workload_behaviour), ("exec", &mut self.exec_behaviour)] {
            for section in behaviour.bound(items) {
                self.cut.insert(format!("{side} {section}"));
            }
        }
        if keep_smallest(&mut self.forbidden, items) {
            self.cut.insert("forbidden".to_string());
        }
    }
}

/// The join of two profiles of one revision.
///
/// # Errors
/// When they are of different versions or architectures, of different workloads or revisions and `across` does not say
/// that this is meant, or have more than [`MAX_GENERATIONS`] together.
pub fn merge(a: &Profile, b: &Profile, across: Across) -> Result<Profile> {
    for profile in [a, b] {
        ensure!(
            profile.version == VERSION,
            "failed to merge profiles of {}: expected version {VERSION}, found {}; run 'lithifyctl profile migrate', or use the lithify that wrote it",
            profile.workload,
            profile.version
        );
    }
    ensure!(
        a.architecture == b.architecture,
        "failed to merge profiles of {}: one is for {}, the other for {}; system calls differ between them, so keep one profile for each",
        a.workload,
        a.architecture,
        b.architecture
    );
    ensure!(
        across.workloads || a.workload == b.workload,
        "failed to merge profiles: one is of {:?}, the other of {:?}; --across-workloads merges them all the same",
        a.workload,
        b.workload
    );
    ensure!(
        across.revisions || a.revision.digest == b.revision.digest,
        "failed to merge profiles of {}: one is of revision {}, the other of {}; --across-revisions merges them all the same",
        a.workload,
        a.revision.digest,
        b.revision.digest
    );
    let mut joined = a.clone();
    // Not part of the digest: the same image under another name.
    if a.revision.digest == b.revision.digest {
        joined.revision.image_name = a.revision.image_name.clone().max(b.revision.image_name.clone());
    }
    joined.stage = a.stage.min(b.stage);
    joined.steering.join(&b.steering);
    join_map(&mut joined.generations, &b.generations, join_generation);
    if joined.generations.len() > MAX_GENERATIONS {
        bail!(
            "failed to merge profiles of {}: {} generations are more than the {MAX_GENERATIONS} that a profile holds; end learning with 'lithifyctl profile finish'",
            a.workload,
            joined.generations.len()
        );
    }
    joined.workload_behaviour.join(&b.workload_behaviour);
    joined.exec_behaviour.join(&b.exec_behaviour);
    join_map(&mut joined.forbidden, &b.forbidden, |mine, other| {
        mine.reason = mine.reason.clone().max(other.reason.clone());
        join_support(&mut mine.seen, &other.seen);
    });
    joined.cut.extend(b.cut.iter().cloned());
    joined.peaks = join_peaks(a.peaks, b.peaks);
    joined.generalise();
    joined.bound(MAX_ITEMS);
    Ok(joined)
}

impl Support {
    fn survives_without(&mut self, id: &str) -> bool {
        self.generations.remove(id);
        !self.generations.is_empty()
    }
}

impl Behaviour<Support> {
    fn forget(&mut self, id: &str) {
        let plain = [
            &mut self.syscalls,
            &mut self.denied_syscalls,
            &mut self.capabilities,
            &mut self.listens,
            &mut self.connects,
        ];
        for map in plain.into_iter().chain(self.arguments.values_mut()) {
            map.retain(|_, seen| seen.survives_without(id));
        }
        self.arguments.retain(|_, values| !values.is_empty());
        self.writes.retain(|_, write| write.seen.survives_without(id));
        self.programs.retain(|_, program| program.seen.survives_without(id));
    }

    fn join(&mut self, other: &Behaviour<Support>) {
        join_map(&mut self.syscalls, &other.syscalls, join_support);
        join_map(&mut self.denied_syscalls, &other.denied_syscalls, join_support);
        join_map(&mut self.arguments, &other.arguments, |mine, other| join_map(mine, other, join_support));
        join_map(&mut self.capabilities, &other.capabilities, join_support);
        join_map(&mut self.writes, &other.writes, join_write);
        join_map(&mut self.programs, &other.programs, join_program);
        join_map(&mut self.listens, &other.listens, join_support);
        join_map(&mut self.connects, &other.connects, join_support);
    }

    /// Cuts sections that are too long; says which.
    fn bound(&mut self, items: usize) -> Vec<&'static str> {
        // All of it: each section has to be cut, not only the first that is too long.
        let arguments = keep_smallest(&mut self.arguments, items)
            | self.arguments.values_mut().fold(false, |cut, values| cut | keep_smallest(values, items));
        let cuts = [
            ("syscalls", keep_smallest(&mut self.syscalls, items)),
            ("denied-syscalls", keep_smallest(&mut self.denied_syscalls, items)),
            ("arguments", arguments),
            ("capabilities", keep_smallest(&mut self.capabilities, items)),
            ("writes", keep_smallest(&mut self.writes, items)),
            ("programs", keep_smallest(&mut self.programs, items)),
            ("listens", keep_smallest(&mut self.listens, items)),
            ("connects", keep_smallest(&mut self.connects, items)),
        ];
        cuts.into_iter().filter(|(_, cut)| *cut).map(|(section, _)| section).collect()
    }
}

fn generation(o: &Observation) -> Generation {
    Generation {
        node: o.node.clone(),
        container: o.container.clone(),
        started: o.started.clone(),
        until: o.until.clone(),
        ended: o.ended,
        window_seconds: o.window_seconds,
        windows: o.windows,
        loss: o.loss,
        unseen: o.unseen.iter().cloned().collect(),
    }
}

fn support(id: &str, seen: &Sighting) -> Support {
    Support {
        generations: BTreeMap::from([(id.to_string(), seen.windows)]),
        first: seen.first.clone(),
        last: seen.last.clone(),
    }
}

fn join_map<V: Clone>(mine: &mut BTreeMap<String, V>, other: &BTreeMap<String, V>, join: impl Fn(&mut V, &V)) {
    for (key, value) in other {
        match mine.get_mut(key) {
            Some(old) => join(old, value),
            None => drop(mine.insert(key.clone(), value.clone())),
        }
    }
}

fn join_support(mine: &mut Support, other: &Support) {
    join_map(&mut mine.generations, &other.generations, |mine, other| *mine = (*mine).max(*other));
    keep_smallest(&mut mine.generations, MAX_WITNESSES);
    earliest(&mut mine.first, &other.first);
    latest(&mut mine.last, &other.last);
}

fn join_write(mine: &mut Write<Support>, other: &Write<Support>) {
    join_support(&mut mine.seen, &other.seen);
    mine.operations.extend(&other.operations);
    mine.size_bytes = mine.size_bytes.max(other.size_bytes);
    mine.directory |= other.directory;
    mine.executed |= other.executed;
    mine.by.extend(other.by.iter().cloned());
    keep_smallest_names(&mut mine.by, MAX_WRITERS);
    mine.refused.extend(other.refused.iter().cloned());
    mine.succeeded |= other.succeeded;
}

fn join_program(mine: &mut Program<Support>, other: &Program<Support>) {
    join_support(&mut mine.seen, &other.seen);
    mine.origins.extend(&other.origins);
    mine.privileged |= other.privileged;
}

/// Two states of one generation: what a crash left, say, and what was written later. The fuller one, in each respect.
fn join_generation(mine: &mut Generation, other: &Generation) {
    latest(&mut mine.node, &other.node);
    latest(&mut mine.container, &other.container);
    earliest(&mut mine.started, &other.started);
    latest(&mut mine.until, &other.until);
    mine.ended |= other.ended;
    mine.window_seconds = mine.window_seconds.max(other.window_seconds);
    mine.windows = mine.windows.max(other.windows);
    mine.loss = Loss {
        table_full: mine.loss.table_full.max(other.loss.table_full),
        unreadable: mine.loss.unreadable.max(other.loss.unreadable),
        untracked: mine.loss.untracked.max(other.loss.untracked),
    };
    mine.unseen.extend(other.unseen.iter().cloned());
}

fn join_peaks(a: Peaks, b: Peaks) -> Peaks {
    Peaks {
        memory_bytes: a.memory_bytes.max(b.memory_bytes),
        pids: a.pids.max(b.pids),
        cpu_millis: a.cpu_millis.max(b.cpu_millis),
    }
}

/// Times in a document have one form, in which the order of texts is that of times.
fn earliest(mine: &mut String, other: &str) {
    if other < mine.as_str() {
        *mine = other.to_string();
    }
}

fn latest(mine: &mut String, other: &str) {
    if other > mine.as_str() {
        *mine = other.to_string();
    }
}

/// Whether something was left out.
fn keep_smallest<V>(map: &mut BTreeMap<String, V>, limit: usize) -> bool {
    let Some(beyond) = map.keys().nth(limit).cloned() else { return false };
    drop(map.split_off(&beyond));
    true
}

fn keep_smallest_names(names: &mut BTreeSet<String>, limit: usize) {
    if let Some(beyond) = names.iter().nth(limit).cloned() {
        drop(names.split_off(&beyond));
    }
}
