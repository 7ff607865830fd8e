//! What a collector is given: plain data, decided before it is forked.

use std::path::PathBuf;
use std::time::Duration;

use crate::events::EngineNames;
use crate::policy::{Auto, ExecRule, JournalLimits};
use crate::profile::Revision;

/// What the observations are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// They become part of the workload's profile; of one that is finished, what goes beyond it is told.
    Learn,
    /// As its profile stands: while that learns or is observed they become part of it, and it moves on by these rules; once
    /// it is observed, what is new is told.
    Auto(Auto),
    /// They are compared with a profile, and nothing is added to it.
    Observe {
        /// The stored profile: `WORKLOAD`, whose newest it is, or `WORKLOAD@` and the beginning of a revision's digest. `None`:
        /// the revision's own, else the newest of its workload.
        profile: Option<String>,
    },
}

/// One container, from the moment that its engine asked for it.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Container id.
    pub container: String,
    /// What stays the same over updates.
    pub workload: String,
    /// What the engine calls it.
    pub names: EngineNames,
    /// Image and parameters, as the engine asked for them.
    pub revision: Revision,
    /// The root filesystem that the engine made, absolute. Read in the caller's mount namespace.
    pub rootfs: PathBuf,
    /// What for.
    pub purpose: Purpose,
    /// Who is let in later: what is told of sessions is what this would refuse them.
    pub exec: ExecRule,
    /// Length of an observation window, at least a second.
    pub window: Duration,
    /// How often the observation is written; what a crash loses at most.
    pub interval: Duration,
    /// Entries of the sensor's table for what has no bound.
    pub table_entries: u32,
    /// Nobody stays at the socket (an OCI hook, which has to end before the container starts): its end means nothing, and
    /// the container's init ends the observation by ending.
    pub unattended: bool,
    /// Whoever starts it has mounted something over the engine's root: it is looked at where the node's first process is.
    pub covered: bool,
    /// Live state: `<state-dir>/learn/` tells living collectors from dead ones.
    pub state_dir: PathBuf,
    /// Observations, profiles, the journal.
    pub data_dir: PathBuf,
    /// Limits of the journal.
    pub journal: JournalLimits,
}

impl Subject {
    /// [`Subject::window`] unless configured.
    pub const WINDOW: Duration = Duration::from_secs(60);
    /// [`Subject::interval`] unless configured.
    pub const INTERVAL: Duration = Duration::from_secs(300);
    /// [`Subject::table_entries`] unless configured.
    pub const TABLE_ENTRIES: u32 = 16_384;
}
