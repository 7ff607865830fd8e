//! Which capabilities a profile's workload needs of those that it was granted.
//!
//! Owns: what use of one says of others (`seccomp-profiles/capabilities.json`), and what holds where none could be seen. Must
//! not: know a container's sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::document::Profile;
use super::{baseline, estimate, syscalls};

/// Format version.
const VERSION: u32 = 1;
const DOCUMENT: &str = include_str!("../../seccomp-profiles/capabilities.json");
/// What a sensor that saw no capabilities says.
const UNSEEN: &str = "capabilities";
/// What binds a port below 1024, where the node's `net.ipv4.ip_unprivileged_port_start` does not let everyone.
const BIND: &str = "CAP_NET_BIND_SERVICE";

const SEEN: &str = "seen in use";
const BY_HAND: &str = "allowed by hand";

static FAMILIES: LazyLock<Families> =
    LazyLock::new(|| Families::parse(DOCUMENT).expect("the embedded families are parsed by a test"));

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Families {
    version: u32,
    /// For people who read the file.
    #[serde(rename = "about")]
    _about: String,
    families: Vec<Family>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    when: BTreeSet<String>,
    members: BTreeSet<String>,
    reason: String,
}

impl Families {
    fn parse(text: &str) -> Result<Families> {
        let context = "failed to read the families of capabilities";
        let families: Families = serde_json::from_str(text).context(context)?;
        ensure!(families.version == VERSION, "{context}: expected version {VERSION}, found {}", families.version);
        for family in &families.families {
            ensure!(!family.reason.trim().is_empty(), "{context}: {:?} have no reason", family.members);
            for name in family.when.iter().chain(&family.members) {
                let known = syscalls::capability_number(name).is_some() && baseline::capability(name).is_none();
                ensure!(known, "{context}: {name:?} is none that may be learnt");
            }
        }
        Ok(families)
    }
}

/// Those that were used and what comes with them, of those granted; all that were granted where some generation's sensor
/// could not see. What a person should know is added to `notes`.
pub fn needed(profile: &Profile, notes: &mut Vec<String>) -> BTreeSet<String> {
    reasons(profile, notes).into_keys().collect()
}

/// [`needed`], each with why, to stand after its name: `seen in use`.
pub fn reasons(profile: &Profile, notes: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut all = found(profile, notes);
    for name in profile.denied_capabilities() {
        all.remove(name);
    }
    all
}

fn found(profile: &Profile, notes: &mut Vec<String>) -> BTreeMap<String, String> {
    let blind = |unseen: &String| unseen == UNSEEN || unseen == estimate::UNSEEN_EVERYTHING;
    let granted: BTreeSet<String> = profile.revision.capabilities.iter().cloned().collect();
    if profile.generations.values().any(|g| g.unseen.iter().any(blind)) {
        notes.push("capabilities were not seen on every node: all that the engine granted are kept".into());
        let (never, kept): (BTreeSet<String>, BTreeSet<String>) =
            granted.into_iter().partition(|name| baseline::capability(name).is_some());
        if !never.is_empty() {
            let never = never.into_iter().collect::<Vec<_>>().join(", ");
            notes.push(format!("of those, what is never learnt is left out: {never}"));
        }
        return kept.into_iter().map(|name| (name, "granted, and nobody saw whether it is used".to_owned())).collect();
    }
    let sides = [&profile.workload_behaviour, &profile.exec_behaviour];
    let mut named = BTreeMap::new();
    let mut nameless = BTreeSet::new();
    for (name, support) in sides.iter().flat_map(|side| &side.capabilities) {
        if name.starts_with('#') || syscalls::capability_number(name).is_none() {
            nameless.insert(name.as_str());
        } else if support.is_seen() {
            named.insert(name.clone(), SEEN.to_owned());
        } else {
            named.entry(name.clone()).or_insert_with(|| BY_HAND.to_owned());
        }
    }
    if !nameless.is_empty() {
        let nameless = nameless.into_iter().collect::<Vec<_>>().join(", ");
        notes.push(format!("capabilities that have no name can't be given: {nameless}"));
    }
    for family in &FAMILIES.families {
        if let Some(first) = family.when.iter().find(|name| named.contains_key(*name)).cloned() {
            for name in family.members.intersection(&granted) {
                named.entry(name.clone()).or_insert_with(|| format!("goes with {first}"));
            }
        }
    }
    // Docker lets everyone bind any port, so that nothing asks for the capability there; other engines do not.
    let low = sides.iter().flat_map(|side| side.listens.keys()).find(|address| is_low_port(address));
    if let Some(address) = low.filter(|_| granted.contains(BIND) && !named.contains_key(BIND)) {
        let address = address.escape_debug();
        named.insert(BIND.into(), format!("for {address}"));
        notes.push(format!(
            "{BIND} is kept for {address}, though it was not used: whether it is needed is the node's to say"
        ));
    }
    named
}

fn is_low_port(address: &str) -> bool {
    let inet = address.starts_with("tcp ") || address.starts_with("udp ");
    inet && address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).is_some_and(|port| port < 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_names_capabilities_that_may_be_learnt_and_a_reason() {
        assert!(!Families::parse(DOCUMENT).unwrap().families.is_empty());
        let with = |name: &str, reason: &str| {
            let family = format!(r#"{{"when":["CAP_CHOWN"],"members":["{name}"],"reason":"{reason}"}}"#);
            Families::parse(&format!(r#"{{"version":1,"about":"","families":[{family}]}}"#))
        };
        assert!(with("CAP_KILL", "r").is_ok());
        for (name, reason) in [("CAP_SYS_ADMIN", "r"), ("CAP_NET_RAW", "r"), ("CAP_KIL", "r"), ("CAP_KILL", " ")] {
            assert!(with(name, reason).is_err(), "{name}");
        }
    }
}
