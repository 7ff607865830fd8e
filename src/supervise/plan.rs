//! What the supervisor is given: plain data, decided before it is forked.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::director::Director;
use crate::events::EngineNames;
use crate::guard::Limits;
use crate::policy::{EvidenceLimits, JournalLimits, Policy};
use crate::record::Remarks;
use crate::sensor::Place;
use crate::spec::Document;

/// The root filesystem to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPlan {
    /// The engine's rootfs, absolute.
    pub engine: PathBuf,
    /// Where ours is mounted: on top of the engine's, or in our own folder if it has to be in the host's mount namespace.
    pub target: PathBuf,
    /// Mounts made in the container are meant to reach the host: no private mount namespace.
    pub host_namespace: bool,
}

/// Everything the supervisor needs to know.
#[derive(Debug)]
pub struct Plan {
    /// Container id.
    pub id: String,
    /// The `--root` given, if any.
    pub root: Option<PathBuf>,
    /// The low-level runtime, absolute.
    pub runtime: PathBuf,
    /// Global flags for the engine's own call.
    pub globals: Vec<OsString>,
    /// Global flags for calls of ours.
    pub quiet_globals: Vec<OsString>,
    /// Flags of `create` that are handed on.
    pub create_flags: Vec<OsString>,
    /// The bundle as the low-level runtime is given it, absolute.
    pub bundle: PathBuf,
    /// The engine's bundle, absolute.
    pub engine_bundle: PathBuf,
    /// The socket that gets the terminal's master side.
    pub console_socket: Option<PathBuf>,
    /// Later generations may send their terminal there too (a foreground `run` relays it itself).
    pub console_is_ours: bool,
    /// How many descriptors from 3 on are handed to the container.
    pub preserved: i32,
    /// Some of them are passed by systemd's protocol.
    pub listening: bool,
    /// `--preserve-fds` as given; what `LISTEN_FDS` adds the low-level runtime finds out itself.
    pub preserve_fds: u32,
    /// The container's folder under the state folder, which exists.
    pub dir: PathBuf,
    /// Folder of events and evidence.
    pub data_dir: PathBuf,
    /// The engine's config.json, edited as far as that can be done without looking into the image.
    pub config: Document,
    /// Root filesystem.
    pub rootfs: RootPlan,
    /// The container's init is the first process of a pid namespace of its own: its death ends all the others.
    pub own_pid_namespace: bool,
    /// config.json asks for a terminal.
    pub terminal: bool,
    /// The driver is systemd's: cgroups come and go with a scope, so that restarts go by `delete`.
    pub systemd_cgroup: bool,
    /// config.json has `poststart` hooks, which only the low-level runtime's own `start` runs.
    pub poststart_hooks: bool,
    /// config.json has `poststop` hooks, which run when the container ends and not between generations.
    pub poststop_hooks: bool,
    /// `run`: start at once, without waiting for the engine's `start`.
    pub start_at_once: bool,
    /// What was decided.
    pub policy: Policy,
    /// Limits of kept evidence.
    pub evidence: EvidenceLimits,
    /// Limits of the journal.
    pub journal: JournalLimits,
    /// Node limits of the kernel's watches may be raised.
    pub raise_limits: bool,
    /// Workload name.
    pub workload: String,
    /// Digest of its revision.
    pub revision: Option<String>,
    /// The engine's names.
    pub names: EngineNames,
    /// RFC 3339: when the engine called.
    pub created_at: String,
    /// The process that records what the workload does, where one does.
    pub companion: Option<OwnedFd>,
    /// What could not be had before the supervisor began, and what should be known.
    pub remarks: Remarks,
    /// What is refused, beside what config.json says.
    pub limits: Limits,
    /// Where the node's sensor and guard are.
    pub sensor: Place,
    /// Who decides anew for each generation; `None`: every generation is as the first one.
    pub director: Option<Box<dyn Director>>,
}

impl Plan {
    /// The engine holds the terminal of the first generation: a second one would have nobody at its other end.
    pub fn loses_terminal(&self) -> bool {
        self.terminal && !self.console_is_ours
    }

    /// The low-level runtime is given a filter that was made from a profile.
    pub fn is_filtered(&self) -> bool {
        self.limits.profile.is_some()
    }
}
