//! Mounts and limits: where the workload may write, what of /proc and /sys it does not see, how many tasks it may have.
//!
//! Owns: those edits. Pure. Must not: take the place of a mount of the engine's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::Edit;
use crate::policy::{Policy, RootfsKind, Scratch};
use crate::profile::export::LEAST_TASKS;
use crate::profile::export::places::{EVERYONES, places};
use crate::profile::{Profile, baseline, commanded, generalise};
use crate::spec::Document;
use crate::spec::seal::clean;

/// How many times the peak of tasks a container may have, and how many more: sessions, and us.
const PIDS_HEADROOM: (u64, u64) = (4, 64);
/// What engines mask today (moby 28, containerd 2, Podman 5). One that masks less is older.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Scratch mounts for what the workload was seen to write, beside those of the policy and where the engine mounts nothing; and
/// [`EVERYONES`], whatever was seen.
///
/// # Errors
/// When the engine's mounts can't be read.
pub fn scratch(
    profile: &Profile,
    document: &Document,
    policy: &Policy,
    notes: &mut Vec<String>,
) -> Result<Vec<Scratch>> {
    if policy.rootfs == RootfsKind::Engine {
        return Ok(Vec::new());
    }
    let mounted: BTreeSet<PathBuf> = document.mounts()?.iter().map(|m| clean(m.destination())).collect();
    let covered = |path: &Path| {
        let mut by = mounted.iter().chain(policy.scratch.iter().map(|s| &s.path));
        by.any(|mount| mount != Path::new("/") && path.starts_with(mount))
    };
    let all = places(profile, notes).into_iter().filter(|place| !covered(Path::new(&place.path)));
    let scratch = all.map(|place| Scratch {
        size_bytes: Some(place.size_bytes.max(policy.scratch_size_bytes)),
        exec: false,
        learnt: true,
        path: PathBuf::from(place.path),
    });
    let mut scratch: Vec<Scratch> = scratch.collect();
    let everyones = Path::new(EVERYONES);
    if !covered(everyones) && scratch.iter().all(|s| s.path != everyones) {
        let size_bytes = Some(policy.scratch_size_bytes);
        scratch.push(Scratch { path: everyones.to_owned(), size_bytes, exec: false, learnt: true });
        // What is below it is mounted after it.
        scratch.sort_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(scratch)
}

/// Lets programs run in the scratch mounts that hold one that somebody allowed by hand, and in no others. One of the policy's
/// that has to is added to `scratch`, as it is to be then.
///
/// # Errors
/// When the engine's mounts can't be read.
pub fn let_run(
    scratch: &mut Vec<Scratch>,
    allowed: &BTreeSet<String>,
    document: &Document,
    policy: &Policy,
    notes: &mut Vec<String>,
) -> Result<()> {
    for program in allowed {
        let fixed = Path::new(program.split('*').next().unwrap_or_default());
        let holds = |path: &Path| path != Path::new("/") && fixed.starts_with(path);
        let deepest = |all: &[Scratch]| {
            let fits = all.iter().enumerate().filter(|(_, s)| holds(&s.path));
            fits.max_by_key(|(_, s)| s.path.components().count()).map(|(n, s)| (s.path.components().count(), n))
        };
        let mounts = document.mounts()?;
        let engines = mounts.iter().filter(|m| holds(&clean(m.destination())));
        let engines = engines.map(|m| (clean(m.destination()).components().count(), m)).max_by_key(|(depth, _)| *depth);
        let depth = engines.as_ref().map_or(0, |(depth, _)| *depth);
        let (ours, policys) = (deepest(scratch), deepest(&policy.scratch));
        match (ours, policys) {
            (Some((own, n)), other) if own > depth && other.is_none_or(|(other, _)| own >= other) => {
                scratch[n].exec = true
            }
            (_, Some((own, n))) if own > depth => scratch.push(Scratch { exec: true, ..policy.scratch[n].clone() }),
            (None, _) | (Some(_), _) => {
                let keeps =
                    |m: &oci_spec::runtime::Mount| m.options().iter().flatten().any(|option| option == "noexec");
                if let Some((_, mount)) = engines.filter(|(_, mount)| keeps(mount)) {
                    notes.push(format!(
                        "program {} is allowed, and can't run: the engine's own mount of {} keeps programs from it (noexec)",
                        program.escape_debug(),
                        mount.destination().display()
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Patterns of writes that are refused without a word: those that were only tried while learning, whatever refused them then
/// (a read-only root does before permissions are looked at), and those that any program lives without.
pub fn known_writes(profile: &Profile) -> BTreeSet<String> {
    let sides = [&profile.workload_behaviour, &profile.exec_behaviour];
    // What is written there though nothing refuses it was allowed by somebody.
    let is_silent = |path: &str, succeeded: bool| !succeeded || baseline::kernel_file(path).is_some();
    let tried = sides.iter().flat_map(|side| &side.writes).filter(|(path, write)| is_silent(path, write.succeeded));
    tried.map(|(path, _)| path.clone()).chain(baseline::tolerated().map(str::to_owned)).collect()
}

/// Masks what today's engines mask, where the engine masks anything at all and mounts nothing there.
///
/// # Errors
/// When the engine's mounts can't be read.
pub fn masked(document: &Document) -> Result<Option<Edit>> {
    let given = &document.value()["linux"]["maskedPaths"];
    let masked: Vec<&str> = given.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if masked.is_empty() {
        return Ok(None);
    }
    let mounted: BTreeSet<PathBuf> = document.mounts()?.iter().map(|m| clean(m.destination())).collect();
    let hidden = |path: &Path| {
        masked.iter().any(|m| path.starts_with(clean(Path::new(m))))
            || mounted.iter().any(|m| m.starts_with(path) || m == path)
    };
    let added: Vec<&str> = MASKED.into_iter().filter(|path| !hidden(Path::new(path))).collect();
    if added.is_empty() {
        return Ok(None);
    }
    let all: Vec<&str> = masked.into_iter().chain(added.iter().copied()).collect();
    Ok(Some(Edit {
        pointer: "/linux/maskedPaths".into(),
        value: json!(all),
        what: format!("masked: {}", added.join(", ")),
        why: "engines of today mask these; the one that made this container masks less".into(),
    }))
}

/// Makes read-only what of /proc commands the node, where the workload does not write and the engine mounts nothing.
///
/// # Errors
/// When the engine's mounts can't be read.
pub fn read_only(profile: &Profile, document: &Document) -> Result<Option<Edit>> {
    let given = &document.value()["linux"]["readonlyPaths"];
    let given: Vec<&str> = given.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let masked = &document.value()["linux"]["maskedPaths"];
    let refused: Vec<&str> =
        masked.as_array().into_iter().flatten().filter_map(Value::as_str).chain(given.clone()).collect();
    let mounted: BTreeSet<PathBuf> = document.mounts()?.iter().map(|m| clean(m.destination())).collect();
    let is_done = |path: &Path| {
        refused.iter().any(|done| path.starts_with(clean(Path::new(done))))
            || mounted.iter().any(|mount| mount.starts_with(path))
    };
    let sides = [&profile.workload_behaviour, &profile.exec_behaviour];
    let written: Vec<&String> =
        sides.iter().flat_map(|side| &side.writes).filter(|(_, write)| write.succeeded).map(|(path, _)| path).collect();
    // Somebody may have allowed a file of a part.
    let is_in = |pattern: &str, place| generalise::covers(pattern, place) || commanded::part(pattern) == Some(place);
    let places = commanded::without(|place| written.iter().any(|pattern| is_in(pattern, place)));
    let added: Vec<&str> = places.into_iter().filter(|place| !is_done(Path::new(place))).collect();
    if added.is_empty() {
        return Ok(None);
    }
    let all: Vec<&str> = given.into_iter().chain(added.iter().copied()).collect();
    Ok(Some(Edit {
        pointer: "/linux/readonlyPaths".into(),
        value: json!(all),
        what: format!("read-only: {}", added.join(", ")),
        why: "these command the node's kernel, and the workload was not seen to write there".into(),
    }))
}

/// Limits the tasks to several times the peak, or to what the engine says where that is less.
pub fn pids(profile: &Profile, document: &Document) -> Option<Edit> {
    let peak = profile.peaks.pids?;
    let limit = peak.saturating_mul(PIDS_HEADROOM.0).saturating_add(PIDS_HEADROOM.1);
    let limit = limit.clamp(LEAST_TASKS, i64::MAX as u64);
    let given = document.value()["linux"]["resources"]["pids"]["limit"].as_i64().filter(|limit| *limit > 0);
    let lower = given.is_none_or(|given| given as u64 > limit);
    lower.then(|| Edit {
        pointer: "/linux/resources/pids/limit".into(),
        value: json!(limit),
        what: format!("at most {limit} tasks"),
        why: format!("{peak} at one time were the most that were seen"),
    })
}
