//! What one side of a container (its workload, or the sessions let into it) was seen to do: items, each with its evidence.
//!
//! The same shape serves an observation, whose evidence is [`super::observation::Sighting`], and a profile, whose evidence
//! is [`super::document::Support`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Items by kind. Keys are what a person reads, and are sorted, so that equal behaviour is equal text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case", bound(deserialize = "E: Deserialize<'de>"))]
pub struct Behaviour<E> {
    /// System calls by name; one through the 32-bit interface as `i386:open`; one without a name as `#463`.
    pub syscalls: BTreeMap<String, E>,
    /// System calls that the engine's filter refused, named the same way.
    pub denied_syscalls: BTreeMap<String, E>,
    /// By system call, the arguments that matter, as decimal numbers with commas: `socket` → `2,1,0` (family, type, protocol);
    /// `clone`, `clone3`, `unshare` → namespace flags; `personality`, `prctl`, `arch_prctl`, `ioctl`, `ptrace` → their first number.
    pub arguments: BTreeMap<String, BTreeMap<String, E>>,
    /// Capabilities used, `CAP_CHOWN`.
    pub capabilities: BTreeMap<String, E>,
    /// Paths written on the root file system, generalised (`/tmp/tmp.*`).
    pub writes: BTreeMap<String, Write<E>>,
    /// Programs run, by path.
    pub programs: BTreeMap<String, Program<E>>,
    /// Addresses listened on: `tcp 0.0.0.0:80`, `unix /run/x.sock`. A port from the ephemeral range is `*`.
    pub listens: BTreeMap<String, E>,
    /// Addresses connected to.
    pub connects: BTreeMap<String, E>,
}

// Derived, it would ask for `E: Default`, which a map does not need.
impl<E> Default for Behaviour<E> {
    fn default() -> Self {
        Behaviour {
            syscalls: BTreeMap::new(),
            denied_syscalls: BTreeMap::new(),
            arguments: BTreeMap::new(),
            capabilities: BTreeMap::new(),
            writes: BTreeMap::new(),
            programs: BTreeMap::new(),
            listens: BTreeMap::new(),
            connects: BTreeMap::new(),
        }
    }
}

/// What was done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Content written.
    Write,
    /// Made.
    Create,
    /// Removed.
    Remove,
    /// Renamed or linked.
    Rename,
    /// Mode, owner, times or extended attributes changed.
    Attributes,
}

/// A path that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Write<E> {
    /// Evidence.
    pub seen: E,
    /// In which ways.
    pub operations: BTreeSet<Operation>,
    /// Most bytes seen there, generalised paths together.
    pub size_bytes: u64,
    /// It is a directory that was made, or one that holds what a generalised path stands for.
    #[serde(default)]
    pub directory: bool,
    /// A program from there was executed.
    #[serde(default)]
    pub executed: bool,
    /// Command names of the writers; at most [`MAX_WRITERS`], the alphabetically first.
    #[serde(default)]
    pub by: BTreeSet<String>,
    /// Errors it met, `EROFS`: empty where every attempt succeeded. With `succeeded` false, it was only tried.
    #[serde(default)]
    pub refused: BTreeSet<String>,
    /// At least one attempt succeeded.
    pub succeeded: bool,
}

/// Most command names kept for one path.
pub const MAX_WRITERS: usize = 8;
/// Most items kept in one section of a profile (of the arguments: for one system call).
pub const MAX_ITEMS: usize = 2048;

/// Where a program came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The image.
    Image,
    /// Written by the container, or into its writable layer.
    Upper,
    /// A tmpfs.
    Tmpfs,
    /// memfd, or a file that was unlinked.
    Anonymous,
    /// A volume or bind mount.
    Volume,
    /// The root file system; which of its layers is not known.
    Root,
}

impl Origin {
    /// As in the document: `upper`.
    pub fn name(self) -> &'static str {
        match self {
            Origin::Image => "image",
            Origin::Upper => "upper",
            Origin::Tmpfs => "tmpfs",
            Origin::Anonymous => "anonymous",
            Origin::Volume => "volume",
            Origin::Root => "root",
        }
    }
}

/// A program that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Program<E> {
    /// Evidence.
    pub seen: E,
    /// From where; more than one if it changed.
    pub origins: BTreeSet<Origin>,
    /// It gained privileges by being executed (set-id or file capabilities).
    #[serde(default)]
    pub privileged: bool,
}
