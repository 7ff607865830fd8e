//! What a profile becomes for other tools: filters, security contexts, flags, so that it holds without lithify.
//!
//! Owns: one plan from a profile, and its text in each format. Pure. Must not: read or write files, or widen what was learnt
//! by more than the layers of `seccomp-profiles/` say.

pub mod docker;
pub mod kubernetes;
pub mod oci_seccomp;
pub mod places;
pub mod spo;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use anyhow::Result;

use super::document::Profile;
use super::estimate::Progress;
use super::filter::{self, Filter};
use super::{capabilities, layers};
use places::{Place, places};

/// How many times the peak of tasks a container may have, and how many more.
const PIDS_HEADROOM: (u64, u64) = (2, 16);
/// Tasks that any container may have, however few were seen: a server has one for each of its connections, and learning may not
/// have met a day with many (Apache begins with 6 and is at 151 by default, Tomcat at 200, MariaDB at 152). It holds a fork bomb
/// as well as less would.
pub const LEAST_TASKS: u64 = 1024;
/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `linux.seccomp` of an OCI configuration; Docker's and Podman's `--security-opt seccomp=FILE`, a kubelet's localhost
    /// profile.
    OciSeccomp,
    /// A part of a pod's specification, as YAML.
    Kubernetes,
    /// A SeccompProfile of the Security Profiles Operator.
    Spo,
    /// Flags of `docker run`.
    Docker,
}

impl Format {
    /// The words of `--format`.
    pub const WORDS: [&str; 4] = ["oci-seccomp", "kubernetes", "spo", "docker"];

    /// The format of a word.
    pub fn parse(word: &str) -> Option<Format> {
        match word {
            "oci-seccomp" => Some(Format::OciSeccomp),
            "kubernetes" => Some(Format::Kubernetes),
            "spo" => Some(Format::Spo),
            "docker" => Some(Format::Docker),
            _ => None,
        }
    }
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name, without a folder.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// What a container needs, whoever runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Workload and revision in letters, digits and dashes; at most 63 characters.
    pub name: String,
    /// Repository and tag, or the image's digest.
    pub image: String,
    /// The filter.
    pub filter: Filter,
    /// Capabilities to add after all were dropped: `CAP_CHOWN`.
    pub capabilities: BTreeSet<String>,
    /// No program gains privileges by being executed.
    pub no_new_privileges: bool,
    /// Directories that stay writable.
    pub places: Vec<Place>,
    /// Limit of tasks; `None`: the peak is not known.
    pub pids_limit: Option<u64>,
    /// User and group.
    pub user: (u32, u32),
    /// What a person should know, one sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// The plan of a profile. `runtime` names the low-level runtime (`runc`, `crun-1.8.1`); without it, what all need is
    /// allowed.
    ///
    /// # Errors
    /// When the runtime is not known.
    pub fn of(profile: &Profile, runtime: Option<&str>) -> Result<Plan> {
        let mut notes: Vec<String> = Progress::of(profile).partial;
        notes.iter_mut().for_each(|reason| reason.insert_str(0, "the profile is partial: "));
        let profile = &profile.steered(&mut notes);
        let sides = [&profile.workload_behaviour, &profile.exec_behaviour];
        if !profile.exec_behaviour.syscalls.is_empty() {
            notes.push(
                "what exec sessions and health probes did is allowed as well: an engine has one filter for both".into(),
            );
        }
        let programs = sides.iter().flat_map(|side| &side.programs);
        let privileged: Vec<&str> = programs.filter(|(_, p)| p.privileged).map(|(path, _)| path.as_str()).collect();
        if let Some(first) = privileged.first() {
            notes.push(format!("no-new-privileges is left out: {} gains privileges", first.escape_debug()));
        }
        let no_new_privileges = privileged.is_empty();
        let (always, runtimes) = (layers::always()?, layers::runtimes(runtime)?);
        let needed = [&always].into_iter().chain(&runtimes).flat_map(|layer| layer.names(no_new_privileges));
        let filter = filter::filter(profile, needed, &mut notes);
        let places = places(profile, &mut notes);
        Ok(Plan {
            name: name(&profile.workload, &profile.revision.digest),
            image: profile.revision.image_name.clone().unwrap_or_else(|| profile.revision.image.clone()),
            filter,
            capabilities: capabilities::needed(profile, &mut notes),
            no_new_privileges,
            places,
            pids_limit: (profile.peaks.pids)
                .map(|n| n.saturating_mul(PIDS_HEADROOM.0).saturating_add(PIDS_HEADROOM.1).max(LEAST_TASKS)),
            user: places::owner(&profile.revision.user).unwrap_or((0, group(&profile.revision.user))),
            notes,
        })
    }

    /// The name of the file that holds the filter.
    pub fn seccomp_file(&self) -> String {
        format!("{}.seccomp.json", self.name)
    }
}

fn group(user: &str) -> u32 {
    user.split_once(':').and_then(|(_, gid)| gid.parse().ok()).unwrap_or(0)
}

/// A name that files, Kubernetes and shells take: of the workload what is possible, and the revision's beginning.
fn name(workload: &str, digest: &str) -> String {
    let lower = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let plain: String = workload.chars().map(lower).take(48).collect();
    let plain = plain.trim_matches('-');
    let revision: String = digest.chars().filter(char::is_ascii_alphanumeric).map(lower).take(8).collect();
    format!("{}-{revision}", if plain.is_empty() { "workload" } else { plain })
}
