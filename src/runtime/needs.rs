//! What a low-level runtime itself calls between loading a container's filter and the workload's `execve`: no filter may
//! refuse it that, or nothing starts.
//!
//! Owns: what is known of the runtimes that were looked at by people (`seccomp-profiles/`), and which knowledge holds for
//! the program at hand. Must not: run a container ([`super::calibrate`]), or know a workload.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::profile::layers::{self, Layer, When};

/// What one low-level runtime needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// `runc`, as the program calls itself.
    pub program: String,
    /// `1.1.5`, as the program says; `unknown` where it does not.
    pub version: String,
    /// SHA-256 of the program's file, as lower-case hex.
    pub digest: String,
    /// Where this knowledge is from, in words.
    pub source: String,
    /// Names of system calls that it needs in each container.
    pub always: BTreeSet<String>,
    /// Names that it needs besides where the container has no no-new-privileges: the filter is loaded earlier then.
    pub without_no_new_privileges: BTreeSet<String>,
    /// It hands the descriptor of refused calls to a listener (`linux.seccomp.listenerPath`).
    pub listener: bool,
    /// What a person should know: it could not be measured, or kept.
    pub notes: Vec<String>,
}

impl Needs {
    /// The names that are needed, given whether the container has no-new-privileges.
    pub fn names(&self, no_new_privileges: bool) -> impl Iterator<Item = &str> {
        let besides = self.without_no_new_privileges.iter().filter(move |_| !no_new_privileges);
        self.always.iter().chain(besides).map(String::as_str)
    }

    /// Adds calls of a layer: all, or only those that no measurement brings about.
    fn widen(&mut self, layer: &Layer, only_chance: bool) {
        for (name, entry) in layer.syscalls.iter().filter(|(_, e)| e.chance || !only_chance) {
            match entry.when {
                When::Always => self.always.insert(name.clone()),
                When::WithoutNoNewPrivileges => self.without_no_new_privileges.insert(name.clone()),
            };
        }
        self.without_no_new_privileges.retain(|name| !self.always.contains(name));
    }
}

/// The layers of a program in any version; of all programs, where it is none that we know.
fn akin(program: &str) -> Result<Vec<Layer>> {
    let all = layers::runtimes(None)?;
    let known = all.iter().any(|layer| layer.program == program);
    Ok(all.into_iter().filter(|layer| !known || layer.program == program).collect())
}
