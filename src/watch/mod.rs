//! Seeing change: the tripwire's tmpfs, the engine's upper, the container's mount table, and the scan that is the truth.
//!
//! Owns: fanotify, inotify, mountinfo and scans, each as a value with a pollable fd. Must not: respond, write events, or
//! know the supervisor.

mod collect;
mod culprit;
mod error;
mod fanevent;
mod image;
mod mounts;
pub mod scan;
mod settle;
mod touch;
mod tripwire;
mod upper;
mod walk;
mod watchtree;
mod xattrs;

pub use error::WatchError;
pub use image::Image;
pub use mounts::{MountWatch, open_mountinfo};
pub use tripwire::TripwireWatch;
pub use upper::{DEFAULT_MAX_DIRECTORIES, Kinds, UpperWatch};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// A name appeared.
    Create,
    /// Content changed, or was opened for writing (a copy-up).
    Modify,
    /// A name vanished.
    Delete,
    /// A name moved; `path` is the new one.
    Rename,
    /// Mode, owner, times or extended attributes.
    Attributes,
    /// The mount table of the container's namespace.
    Mount,
    /// The engine's upper was written from outside the container (`docker cp`).
    HostWrite,
}

/// Who did it, where the kernel tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Culprit {
    /// Thread group id in our pid namespace.
    pub pid: i32,
    /// `/proc/<pid>/exe`.
    pub exe: Option<PathBuf>,
    /// `/proc/<pid>/cmdline`, bounded to 64 arguments and 4096 bytes.
    pub cmdline: Vec<String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What.
    pub kind: ChangeKind,
    /// Absolute path inside the container.
    pub path: PathBuf,
    /// For a rename, the old path; for a mount, its type and source in words.
    pub detail: Option<String>,
    /// By whom.
    pub culprit: Option<Culprit>,
}

impl Change {
    /// The path that a rename took away.
    #[must_use]
    pub fn old_path(&self) -> Option<PathBuf> {
        self.detail.as_ref().filter(|_| self.kind == ChangeKind::Rename).map(PathBuf::from)
    }
}

/// What one call of a watch's `drain` brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// What happened, oldest first.
    pub changes: Vec<Change>,
    /// Something was lost: the kernel's queue or a bound of ours was too small, and only a scan tells the rest.
    pub overflow: bool,
}

impl Drained {
    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.overflow
    }
}
