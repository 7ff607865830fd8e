//! What the journal and the supervisor must look like after a storm.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::writer::Heard;
use crate::corner::Corner;
use crate::setup::Setup;

/// How much more memory a supervisor may use after a storm: an allocator's rounding, no leak of 900 generations.
const SLACK_KIB: u64 = 128;

/// What one supervisor holds.
#[derive(Debug, Clone)]
pub struct Footprint {
    descriptors: usize,
    anonymous_kib: u64,
    mounts: usize,
    cgroups: usize,
    children: usize,
}

impl Footprint {
    /// Of the only supervisor in the corner.
    pub fn of(corner: &Corner) -> Result<Footprint> {
        let state = corner.inside(corner.state());
        let dir = fs::read_dir(&state)?.next().context("no container under the state folder")??.path();
        let record: Value = serde_json::from_slice(&fs::read(dir.join("record.json"))?)?;
        let pid = record["supervisor"]["pid"].as_i64().context("no supervisor in the record")?;
        let proc = corner.inside(format!("/proc/{pid}"));
        let rollup = fs::read_to_string(proc.join("smaps_rollup"))?;
        // Code that was run comes and goes with the page cache; what would grow is the memory of its own.
        let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:")).context("no Pss_Anon")?;
        let children = fs::read_to_string(proc.join(format!("task/{pid}/children")))?;
        Ok(Footprint {
            descriptors: entries(&proc.join("fd"))?,
            anonymous_kib: anonymous.trim().trim_end_matches(" kB").parse()?,
            mounts: fs::read_to_string(proc.join("mountinfo"))?.lines().count(),
            cgroups: corner.cgroups()?.len(),
            children: children.split_whitespace().count(),
        })
    }

    /// Fails where the later one is larger.
    pub fn not_outgrown_by(&self, later: &Footprint) -> Result<()> {
        let counts = |f: &Footprint| [f.descriptors, f.mounts, f.cgroups, f.children];
        let larger = counts(self).iter().zip(counts(later)).any(|(before, after)| after > *before);
        ensure!(
            !larger && later.anonymous_kib <= self.anonymous_kib + SLACK_KIB,
            "the supervisor grew from {self:?} to {later:?}"
        );
        Ok(())
    }
}

fn entries(dir: &Path) -> Result<usize> {
    Ok(fs::read_dir(dir).with_context(|| format!("failed to list {}", dir.display()))?.count())
}

/// What the journal told last, for whoever reads of a failure.
pub fn last_events(setup: &Setup) -> String {
    let events = setup.journal().events().unwrap_or_default();
    events[events.len().saturating_sub(5)..].iter().map(|event| format!("\n  {event}")).collect()
}

/// Sequence n ran in generation n + 1: its first operation must have been told, and nothing but what was announced, each
/// once; one operation on one path in one event.
pub fn breaches(events: &[Value], sequences: &[Vec<Heard>]) -> Result<()> {
    let mut told: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for event in events {
        told.entry(event["data"]["generation"].as_u64().context("a breach without a generation")?)
            .or_default()
            .push(event);
    }
    let mut wrong = Vec::new();
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for (seed, heard) in sequences.iter().enumerate() {
        let ops = heard.iter().filter_map(|said| match said {
            Heard::Op { name, paths } => Some((name, paths)),
            _ => None,
        });
        let ops: Vec<_> = ops.collect();
        let events = told.remove(&(seed as u64 + 1)).unwrap_or_default();
        let verdict = judge(&ops, &events);
        if let Err(error) = verdict {
            wrong.push(format!("seed {seed}: {error:#}\n  announced {ops:?}\n  told {}", brief(&events)));
        }
        for (name, _) in ops {
            *kinds.entry(name.clone()).or_default() += 1;
        }
    }
    println!("operations: {kinds:?}");
    ensure!(wrong.is_empty(), "{} of {} sequences:\n{}", wrong.len(), sequences.len(), wrong.join("\n"));
    ensure!(told.is_empty(), "breaches of generations without a write: {told:?}");
    Ok(())
}

fn judge(ops: &[(&String, &Vec<String>)], events: &[&Value]) -> Result<()> {
    let (name, first) = ops.first().context("nothing was announced")?;
    ensure!(!events.is_empty(), "no breach");
    let told: Vec<Told> = events.iter().flat_map(|event| changes(event)).collect();
    // A directory's time follows from what is done in it: where more was, that is told.
    if *name != "utimes-dir" || ops.len() == 1 {
        ensure!(told.iter().any(|t| first.contains(&t.path)), "not the path of the first operation");
    }
    let own = events[0]["data"]["path"].as_str().context("a breach without a path")?;
    ensure!(own == told[0].path, "the event's own path is not the first that it lists");
    for (at, one @ Told { kind, path, .. }) in told.iter().enumerate() {
        let announced = ops.iter().any(|(name, paths)| paths.contains(path) || one.is_cut_short(name, paths));
        ensure!(announced, "a change that nobody made: {kind} of {path:?}");
        ensure!(!told[..at].iter().any(|t| (&t.kind, &t.path) == (kind, path)), "told twice: {kind} of {path:?}");
    }
    if ops.len() == 1 && first.len() == 1 {
        ensure!(events.len() == 1, "{} events for one operation", events.len());
    }
    Ok(())
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    kind: String,
    path: String,
    detail: String,
}

impl Told {
    /// The response came between the write to a file without a name and the link that would have given it one: it has
    /// the kernel's name for it, in the directory of the link.
    fn is_cut_short(&self, operation: &str, paths: &[String]) -> bool {
        let directory = |path: &str| Path::new(path).parent().map(Path::to_path_buf);
        operation == "tmpfile-linkat"
            && self.detail.contains("without a name")
            && paths.iter().any(|path| directory(path) == directory(&self.path))
    }
}

/// Every change that an event names.
fn changes(event: &Value) -> Vec<Told> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one =
        |value: &Value| Told { kind: text(&value["kind"]), path: text(&value["path"]), detail: text(&value["detail"]) };
    match event["data"]["changes"].as_array() {
        Some(changes) => changes.iter().map(one).collect(),
        None => vec![one(&event["data"])],
    }
}

fn brief(events: &[&Value]) -> String {
    let one = |event: &&Value| format!("{} {:?}", event["data"]["source"], changes(event));
    events.iter().map(one).collect::<Vec<_>>().join("; ")
}
