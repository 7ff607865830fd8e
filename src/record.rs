//! What lithify knows of one live container: `<state-dir>/<id>@<root tag>/record.json`.
//!
//! Owns: the record's shape and its place. The supervisor is its only writer after `create`; the other verbs and
//! `lithifyctl` read it. Must not: act on a container.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::events::EngineNames;
use crate::guard::Limits;
use crate::policy::{Policy, Response};

/// Format version of [`Record`]; readers refuse others.
pub const VERSION: u32 = 1;

/// A process that is named across time: its pid and its start time, so that a reused pid is not mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRef {
    /// Pid in the host's pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot (proc_pid_stat(5)).
    pub start_time_ticks: u64,
}

/// Where a container's supervision stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The engine's `create` is under way or done; the workload has not begun.
    Created,
    /// The workload runs and is watched.
    Running,
    /// Between two generations.
    Restarting,
    /// Frozen by a response.
    Paused,
    /// The workload has ended.
    Stopped,
}

/// The newest breach, for `lithifyctl status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBreach {
    /// Event id in the journal.
    pub event: String,
    /// Kind as in the event, e.g. `create`.
    pub kind: String,
    /// Path inside the container.
    pub path: String,
    /// RFC 3339, UTC.
    pub time: String,
}

/// The newest refusal, for `lithifyctl status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRefusal {
    /// Event id in the journal.
    pub event: String,
    /// Kind as in the event, e.g. `refused-syscall`.
    pub kind: String,
    /// What was refused: a call with its path, a path, a capability.
    pub what: String,
    /// Who met it: the program's path or name.
    pub program: String,
    /// Its process, in the node's pid namespace.
    pub pid: i32,
    /// It was in a session.
    pub session: bool,
    /// RFC 3339, UTC.
    pub time: String,
}

/// What there is to say of how a container is protected, one sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What protection lacks.
    pub degraded: Vec<String>,
    /// What else is to be known: nothing is missing.
    pub notes: Vec<String>,
}

/// One container's live state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// The id the engine gave.
    pub id: String,
    /// The `--root` the engine gave, if any.
    pub root: Option<PathBuf>,
    /// The bundle the engine gave, absolute.
    pub bundle: PathBuf,
    /// The low-level runtime, absolute.
    pub runtime: PathBuf,
    /// The process whose pid the engine has.
    pub anchor: ProcessRef,
    /// The process that watches and answers.
    pub supervisor: ProcessRef,
    /// The container's init of this generation.
    pub init: Option<ProcessRef>,
    /// What stays the same over updates.
    pub workload: String,
    /// Digest of its revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What the engine calls it.
    pub names: EngineNames,
    /// What was decided at create.
    pub policy: Policy,
    /// The response in force (a terminal, say, turns `restart` into `stop`).
    pub response: Response,
    /// 1 for the first life.
    pub generation: u64,
    /// Phase.
    pub phase: Phase,
    /// RFC 3339, UTC: when the engine called `create`.
    pub created_at: String,
    /// Breaches so far.
    pub breaches: u64,
    /// The newest one.
    pub last_breach: Option<LastBreach>,
    /// The profile that is enforced, `<workload>/<revision>`; `None`: immutability alone, or nothing.
    #[serde(default)]
    pub profile: Option<String>,
    /// Refusals so far, which are breaches, too.
    #[serde(default)]
    pub refusals: u64,
    /// The newest one.
    #[serde(default)]
    pub last_refusal: Option<LastRefusal>,
    /// What protection lacks on this host, in words; empty when nothing does.
    pub degraded: Vec<String>,
    /// What else is to be known of it, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// cgroup directories of the container, absolute host paths.
    pub cgroups: Vec<PathBuf>,
}

/// File name of what is refused, inside a container's state folder.
const LIMITS: &str = "limits.json";

/// Writes what is refused, in one step for readers. Not durable, as [`Record::write`].
///
/// # Errors
/// When the folder is gone, full or read-only.
pub fn write_limits(limits: &Limits, dir: &Path) -> Result<()> {
    let (path, new) = (dir.join(LIMITS), dir.join("limits.json.new"));
    let text = serde_json::to_vec(limits).context("failed to write a container's limits")?;
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, &path))
        .with_context(|| format!("failed to write a container's limits to {}", path.display()))
}

/// Reads what is refused.
///
/// # Errors
/// When it can't be read or is not JSON of this shape.
pub fn read_limits(dir: &Path) -> Result<Limits> {
    let path = dir.join(LIMITS);
    let text = std::fs::read(&path).with_context(|| format!("failed to read container limits {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("failed to parse container limits {}", path.display()))
}

/// File name of the record inside a container's state folder.
pub const FILE: &str = "record.json";

impl Record {
    /// Reads the record in a container's state folder.
    ///
    /// # Errors
    /// When it can't be read, is not JSON of this shape, or has another version.
    pub fn read(dir: &Path) -> Result<Record> {
        let path = dir.join(FILE);
        let text =
            std::fs::read(&path).with_context(|| format!("failed to read container record {}", path.display()))?;
        let record: Record = serde_json::from_slice(&text)
            .with_context(|| format!("failed to parse container record {}", path.display()))?;
        anyhow::ensure!(
            record.version == VERSION,
            "failed to read container record {}: expected version {VERSION}, found {}; stop the container with the lithify that started it",
            path.display(),
            record.version
        );
        Ok(record)
    }

    /// Writes the record, in one step for readers. Not durable: it describes processes, which do not outlive a crash.
    ///
    /// # Errors
    /// When the folder is gone, full or read-only.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let (path, new) = (dir.join(FILE), dir.join("record.json.new"));
        let text = serde_json::to_vec(self).context("failed to write a container record")?;
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("failed to write container record {}", path.display()))
    }

    /// Every container that has a record under the state folder, in the order of their folder names. Unreadable ones
    /// come as errors beside the others, so that one broken record hides nothing.
    ///
    /// # Errors
    /// When the state folder exists and can't be listed.
    pub fn list(state_dir: &Path) -> Result<Vec<(PathBuf, Result<Record>)>> {
        let entries = match std::fs::read_dir(state_dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("failed to list state folder {}", state_dir.display())),
        };
        let mut dirs: Vec<PathBuf> =
            entries.filter_map(|e| e.ok()).map(|e| e.path()).filter(|p| p.join(FILE).exists()).collect();
        dirs.sort();
        Ok(dirs
            .into_iter()
            .map(|dir| {
                let record = Record::read(&dir);
                (dir, record)
            })
            .collect())
    }
}
