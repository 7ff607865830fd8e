//! What a profile makes of an engine's config.json: never wider, each refusal as it is meant.

mod calls;
mod engines;
mod exact;
mod others;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lithify::harden::{Given, Hardening, harden};
use lithify::policy::{self, Config, ExecRule, Policy, RootfsKind};
use lithify::profile::behaviour::Origin;
use lithify::profile::steering::Decision;
use lithify::profile::{Profile, layers};
use lithify::runtime::needs::Needs;
use lithify::spec::Document;
use serde_json::{Value, json};

use super::build::{self, seen};
use super::model::answer;

const DOCKER: &str = include_str!("../engines/docker-20.10.json");
const PODMAN: &str = include_str!("../engines/podman-4.3.json");
/// Without CAP_AUDIT_WRITE, which takes netlink's audit away: four rules of `socket`, two of them "is not".
const PODMAN_WITHOUT_AUDIT: &str = include_str!("../engines/podman-4.3-without-audit.json");
const SOCKET: &str = "/run/lithify/x/seccomp.sock";
const NEW_USER: u64 = 0x1000_0000;

fn needs() -> Needs {
    let layer = layers::runtimes(Some("runc")).unwrap().remove(0);
    Needs {
        program: "runc".into(),
        version: "1.1.5".into(),
        digest: String::new(),
        source: "built in".into(),
        always: layer.names(true).map(str::to_owned).collect(),
        without_no_new_privileges: layer.names(false).map(str::to_owned).collect(),
        listener: true,
        notes: Vec::new(),
    }
}

fn policy() -> Policy {
    let mut policy = policy::resolve(&Config::default(), &Default::default(), &BTreeMap::new(), None).unwrap();
    policy.rootfs = RootfsKind::Sealed;
    policy
}

/// A profile that saw these calls, of a container with the capabilities that engines give.
fn profile(calls: &[&str]) -> Profile {
    let mut observation = build::observation(1);
    observation.revision.capabilities =
        ["CAP_CHOWN", "CAP_FOWNER", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"].map(str::to_string).to_vec();
    for name in calls {
        observation.workload_behaviour.syscalls.insert(name.to_string(), seen(0, 9, 10));
    }
    Profile::of(&observation)
}

/// A profile of which an observation was changed first.
fn changed(change: impl FnOnce(&mut lithify::profile::Observation)) -> Profile {
    let mut observation = build::observation(1);
    change(&mut observation);
    Profile::of(&observation)
}

fn hardened(profile: &Profile, document: &Document, listener: bool) -> Hardening {
    let (needs, policy) = (needs(), policy());
    let listener = listener.then(|| Path::new(SOCKET));
    harden(&Given { profile, document, policy: &policy, needs: &needs, listener }).unwrap()
}

fn document(value: &Value) -> Document {
    Document::parse(value.to_string().as_bytes()).unwrap()
}

fn engine(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn with_filter(filter: &Value) -> Document {
    let mut value = engine(DOCKER);
    value["linux"]["seccomp"] = filter.clone();
    document(&value)
}

fn edit<'h>(hardening: &'h Hardening, pointer: &str) -> Option<&'h Value> {
    hardening.edits.iter().find(|edit| edit.pointer == pointer).map(|edit| &edit.value)
}

/// The planned filter's answers to calls with this first argument.
fn say(hardening: &Hardening, name: &str, first: u64) -> String {
    answer(edit(hardening, "/linux/seccomp").expect("a filter"), name, &[first, 0, 0, 0, 0, 0])
}
