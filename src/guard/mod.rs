//! What an enforced container may not do, and what it was refused: plain data between whoever decides and whoever watches.
//!
//! Owns: those two shapes. Must not: decide, watch or tell anything.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What holds for one generation of an enforced container, beside what is in its config.json.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Limits {
    /// The profile that is enforced, `<workload>/<revision>`; `None`: immutability alone.
    pub profile: Option<String>,
    /// config.json names the container's own socket (`seccomp.sock` in its folder) as the listener of refused system calls.
    pub listener: bool,
    /// System calls that no honest workload makes: whoever tries one is killed, and not only refused.
    pub deadly_syscalls: BTreeSet<String>,
    /// Patterns of paths whose refused writes learning has seen already, or that programs live without: silent.
    pub known_writes: BTreeSet<String>,
    /// Capabilities (`CAP_CHOWN`) that the engine would have given and the profile takes: a check for one of these that
    /// fails is a refusal. What the engine itself withholds is none.
    pub withheld_capabilities: BTreeSet<String>,
    /// The container was seen to give capabilities away (capset(2)): what a process of root that has done so lacks, nobody may
    /// have taken from it.
    pub drops_capabilities: bool,
    /// The engine would have let programs gain privileges by being executed, and the profile does not.
    pub withheld_new_privileges: bool,
    /// A program that is not of the image is killed before its first instruction, unless `programs` has it.
    pub kill_foreign: bool,
    /// Patterns of programs that the workload was seen to run, or that somebody allowed.
    pub programs: BTreeSet<String>,
    /// The workload was seen to run so many programs of its image, as scripts do, that another one of the image's is told and
    /// nothing follows from it.
    pub runs_scripts: bool,
    /// Folders of the image that hold helpers of the workload, of which several were seen to run: of another one there, too,
    /// that is told and nothing follows.
    pub helpers: BTreeSet<String>,
    /// Patterns of programs that sessions were seen to run, or that somebody allowed them.
    pub session_programs: BTreeSet<String>,
    /// What somebody allowed by hand, as `profile show` names it: `program /tmp/x`.
    pub allowed: BTreeSet<String>,
    /// What somebody denied by hand, likewise. A program that is denied by its path is killed before its first instruction,
    /// one of the image as well, but for the one that the container begins with.
    pub denied: BTreeSet<String>,
    /// Of what was denied, what the container was seen to do by itself, and what it always tried in vain: that it tries is no news,
    /// and only told. Of writes, patterns.
    pub denied_habits: BTreeSet<String>,
    /// Capabilities (`CAP_CHOWN`) that sessions were seen to use.
    pub session_capabilities: BTreeSet<String>,
    /// A workload that was healthy and is refused something this soon after its start returns to observing, in
    /// milliseconds; `None`: never.
    pub startup_ms: Option<u64>,
}

impl Limits {
    /// Something is to be seen that no filter sees: refused writes and capabilities, programs.
    pub fn needs_guard(&self) -> bool {
        self.profile.is_some() || self.kill_foreign
    }

    /// Paths, or patterns of them, of the programs among what was decided by hand.
    pub fn programs_of(decided: &BTreeSet<String>) -> impl Iterator<Item = &str> {
        decided.iter().filter_map(|item| item.strip_prefix("program "))
    }
}

/// What was refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// A system call, by its name.
    Syscall {
        /// As profiles have it: `mkdir`, `i386:open`, `#463`; or `x32:mount`.
        name: String,
        /// Its six arguments, as the kernel had them; none where it was killed for, and of a clone3 the namespaces that it
        /// asked for.
        arguments: Vec<u64>,
        /// A path that it was given, where it takes one and it could be read; the caller may since have changed it.
        path: Option<String>,
    },
    /// A write to what can't be written (EROFS), or to a process's memory by its file (`/proc/17/mem`), or to one by which a
    /// container commands its node: nothing refuses those, and what follows has to be a response. Or so many that they could
    /// not be told one by one.
    Write {
        /// Path inside the container; `(unknown)`; `(beginning of) /a/b` where it is too long.
        path: String,
        /// `write`, `create`, `remove`, `rename`, `attributes`.
        operation: String,
        /// Nothing was there to be removed or renamed (or, of a name that something was to be renamed to: no such thing was
        /// there). A writable root would have said so, and nothing would have been done.
        of_nothing: bool,
    },
    /// A capability that the engine would have given.
    Capability {
        /// `CAP_CHOWN`.
        name: String,
    },
    /// A program that is not of the image (killed before its first instruction), or that the profile does not have.
    Program {
        /// Path inside the container; `/memfd:name` where it has none.
        path: String,
        /// `image`, `upper`, `tmpfs`, `anonymous`, `volume`, `root`.
        origin: String,
        /// It never ran: it was killed before it did anything, or its mount kept it from running.
        killed: bool,
    },
}

/// One refusal, and who met it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Refusal {
    /// What.
    pub refused: Refused,
    /// Process (thread group) in the node's pid namespace; 0 where it is not known.
    pub pid: i32,
    /// Its command name, or its program's path where that could be read.
    pub program: String,
    /// It was in a session that was let in (`exec`), not of the workload.
    pub session: bool,
    /// How often it was met: the same again is told at intervals only.
    pub count: u64,
}
