//! What the node and the pod's author want for one container, resolved to plain data.
//!
//! Owns: config.toml, our annotations, and the rule that annotations may tighten and loosen only where the node allows.
//! Must not: look at a container, a profile or the clock.

pub mod annotations;
pub mod config;
pub mod document;
pub mod names;
mod show;
pub mod suggest;
pub mod tighten;
pub mod values;

pub use annotations::{resolve, settle};
pub use config::{Auto, Config, EvidenceLimits, JournalLimits, Learning, Overrides};

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much lithify does for a container (annotation `lithify.dev/mode`), the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Pass through: indistinguishable from the low-level runtime.
    Off,
    /// What the workload does is recorded into its profile.
    Learn,
    /// What the workload does is compared with its profile, and what goes beyond it is told.
    Observe,
    /// Whichever of learning, observing and enforcing the workload's profile has come to.
    Auto,
    /// Sealed, watched and answered.
    Enforce,
}

impl Mode {
    /// Every mode, the least first.
    pub const ALL: [Mode; 5] = [Mode::Off, Mode::Learn, Mode::Observe, Mode::Auto, Mode::Enforce];

    /// What the workload does is recorded, whatever its profile has come to.
    pub fn records(self) -> bool {
        match self {
            Mode::Learn | Mode::Observe => true,
            Mode::Off | Mode::Auto | Mode::Enforce => false,
        }
    }
}

/// What the profile of a container's revision, or the want of one, has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// There is none, or it learns.
    Learning,
    /// What goes beyond it is told.
    Observing,
    /// Nothing is enforced but that the root does not change.
    Immutable,
    /// What goes beyond it is refused.
    Enforced,
}

impl Standing {
    /// What `auto` is then.
    pub fn mode(self) -> Mode {
        match self {
            Standing::Learning => Mode::Learn,
            Standing::Observing => Mode::Observe,
            Standing::Immutable | Standing::Enforced => Mode::Enforce,
        }
    }
}

/// What the container's root filesystem is made of (annotation `lithify.dev/rootfs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootfsKind {
    /// An overlay without an upper: nothing can write to it.
    Sealed,
    /// An overlay whose upper is a private tmpfs: writes land, are seen, and are thrown away.
    Tripwire,
    /// Left as the engine made it; its upper is watched.
    Engine,
}

/// What a breach leads to (annotation `lithify.dev/on-write`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// An event, nothing else.
    Report,
    /// Freeze the container for an operator to look at.
    Pause,
    /// End the container; the engine sees it exit with SIGKILL.
    Stop,
    /// Start it again from a pristine image, in place.
    Restart,
}

/// Who may run a program in a running container (annotation `lithify.dev/exec`), the widest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecRule {
    /// Any session, with no more than the container has.
    Allow,
    /// Sessions that run a program which sessions were seen to run, with the capabilities that those used.
    Profile,
    /// None.
    Deny,
}

/// At most `count` restarts within `window`; the next one escalates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartLimit {
    /// Restarts allowed in the window.
    pub count: u32,
    /// Length of the sliding window.
    pub window: Duration,
}

/// One scratch mount: a tmpfs where the workload is known to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scratch {
    /// Absolute path inside the container, without `.` or `..`.
    pub path: PathBuf,
    /// Size limit; `None` uses the node's default.
    pub size_bytes: Option<u64>,
    /// Whether programs in it may be executed (default: `noexec`).
    pub exec: bool,
    /// Nobody wrote it down, the workload was seen to write there: where it can't be had, it is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learnt: bool,
}

/// Everything that was decided for one container before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// How much is done. What becomes a container's plan is never `auto`: that has been resolved by its profile then.
    pub mode: Mode,
    /// `mode` is what `auto` has come to, and moves on.
    #[serde(default)]
    pub auto: bool,
    /// Root filesystem.
    pub rootfs: RootfsKind,
    /// Answer to a breach.
    pub on_write: Response,
    /// Answer to a write that was refused and that learning never saw.
    pub on_refused_write: Response,
    /// Answer to a system call, a capability or a program that was refused and that learning never saw.
    pub on_refused_syscall: Response,
    /// Sessions.
    pub exec: ExecRule,
    /// How often `restart` may be the answer.
    pub restart_limit: RestartLimit,
    /// The node's own configuration sets that: within it restarts don't wait, however many there are.
    #[serde(default)]
    pub restarts_unpaced: bool,
    /// What a breach leads to once the limit is reached: `Pause` or `Stop`.
    pub escalate_to: Response,
    /// A fresh generation on a schedule.
    pub renew_every: Option<Duration>,
    /// The workload's name, where an annotation gives one.
    pub workload: Option<String>,
    /// The stored profile to compare with or to enforce, where an annotation names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Scratch mounts, in the order given.
    pub scratch: Vec<Scratch>,
    /// Size limit of a scratch mount that names none.
    pub scratch_size_bytes: u64,
    /// Size limit of the tmpfs upper of a tripwire rootfs.
    pub tripwire_size_bytes: u64,
}

impl Policy {
    /// The container is only listened to: it keeps the engine's own root, and what it writes there is what is to be learnt,
    /// not a breach.
    pub fn is_hands_off(&self) -> bool {
        self.mode.records() && self.rootfs == RootfsKind::Engine
    }
}

/// The folders of the running system, which configuration can move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// Live state, one folder a container; default `/run/lithify`.
    pub state: PathBuf,
    /// Events, evidence, profiles; default `/var/lib/lithify`.
    pub data: PathBuf,
}

/// The word by which a mode, rootfs or response is written in configuration, annotations and events.
pub fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        // Only unit variants are passed here, and those always become strings.
        _ => String::new(),
    }
}
