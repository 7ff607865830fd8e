//! What is never learnt: an attack while learning must not become policy. It is reported instead.
//!
//! Owns: reading the baseline (`seccomp-profiles/baseline.json`, part of this program) and splitting a behaviour by it.
//! Must not: report, or hold the list itself.
//!
//! What was only tried and refused counts as well: nobody tries it in earnest by mistake. Programs from a volume are learnt:
//! whoever mounts one vouches for it, and plugins and mounted applications live there (not what engines mount by themselves); so are those of which the kernel does
//! not tell the layer, since else nothing could be learnt there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

use super::behaviour::{Behaviour, Origin};
use super::generalise;
use super::items::Section;
use super::observation::{Forbidden, Observation, Sighting};

/// The document, as it is shipped.
pub const DOCUMENT: &str = include_str!("../../seccomp-profiles/baseline.json");

/// `CLONE_NEWNS` and the other flags that make namespaces (linux/sched.h), but for that of time, whose bit in `clone` is a signal's.
const NAMESPACES: u64 = 0x7e02_0000;
/// The type in `socket`'s second argument, without flags (`SOCK_TYPE_MASK`, linux/net.h).
const SOCKET_TYPE: u64 = 0xf;

static BASELINE: LazyLock<Baseline> =
    LazyLock::new(|| serde_json::from_str(DOCUMENT).expect("the embedded baseline is parsed by a test"));

/// The whole list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Baseline {
    /// For people who read the file.
    #[serde(rename = "about")]
    _about: String,
    syscalls: Vec<Calls>,
    /// May be learnt; who tries one unlearnt is told of, though callers have a way to do without it.
    told: Vec<Names>,
    arguments: Vec<Arguments>,
    capabilities: Vec<Names>,
    programs: Vec<Origins>,
    /// As [`generalise::covers`] takes them.
    tolerated: Vec<Paths>,
    /// Of the root file system.
    writes: Vec<Paths>,
    /// Of the kernel's own, /proc and /sys, which are mounts of their own in every container.
    kernel_files: Vec<Paths>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Calls {
    names: Vec<String>,
    /// No honest workload makes it: who tries is killed.
    #[serde(default)]
    deadly: bool,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    names: Vec<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Arguments {
    calls: Vec<String>,
    /// All must hold.
    when: Vec<Condition>,
    /// The call is learnt all the same: not every use of it has an argument that is recorded. Otherwise it is not, once no
    /// other argument of it is left.
    #[serde(default)]
    keeps_call: bool,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Condition {
    position: usize,
    #[serde(default, rename = "in")]
    one_of: Option<Vec<u64>>,
    #[serde(default)]
    not_in: Vec<u64>,
    #[serde(default)]
    any_bits: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Origins {
    origins: BTreeSet<Origin>,
    /// Only there, and below; empty: anywhere.
    #[serde(default)]
    paths: Vec<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paths {
    /// A path stands for itself and what is below it; `*` for one component.
    paths: Vec<String>,
    reason: String,
}

/// Takes what must not be learnt out of a behaviour: what may be, and the rest by item, with the reason.
///
/// Items are named as `syscall bpf`, `denied syscall mount`, `argument socket 17,3,768`, `capability CAP_SYS_ADMIN`, `program
/// /tmp/x from tmpfs`, `write /etc/passwd`.
pub fn split(mut behaviour: Behaviour<Sighting>) -> (Behaviour<Sighting>, BTreeMap<String, Forbidden>) {
    let mut forbidden = BTreeMap::new();
    let mut note = |section: Section, name: String, reason: &str, seen: &Sighting| {
        let forbidden_item = Forbidden { reason: reason.to_string(), seen: seen.clone() };
        forbidden.insert(format!("{} {name}", section.singular()), forbidden_item);
    };
    behaviour.syscalls.retain(|name, seen| match BASELINE.syscall(name) {
        Some(reason) => {
            note(Section::Syscalls, name.clone(), reason, seen);
            false
        }
        None => true,
    });
    behaviour.denied_syscalls.retain(|name, seen| match BASELINE.syscall(name) {
        Some(reason) => {
            note(Section::DeniedSyscalls, name.clone(), reason, seen);
            false
        }
        None => true,
    });
    let mut bare_calls = BTreeMap::new();
    behaviour.arguments.retain(|call, values| {
        let mut drops_call = None;
        values.retain(|value, seen| match BASELINE.argument(call, value) {
            Some(rule) => {
                note(Section::Arguments, format!("{call} {value}"), &rule.reason, seen);
                drops_call = (!rule.keeps_call).then(|| rule.reason.clone()).or(drops_call.take());
                false
            }
            None => true,
        });
        if let (true, Some(reason)) = (values.is_empty(), drops_call) {
            bare_calls.insert(call.clone(), reason);
        }
        !values.is_empty()
    });
    for (call, reason) in bare_calls {
        if let Some(seen) = behaviour.syscalls.remove(&call) {
            note(Section::Syscalls, call, &reason, &seen);
        }
    }
    behaviour.capabilities.retain(|name, seen| match reason_of(&BASELINE.capabilities, name) {
        Some(reason) => {
            note(Section::Capabilities, name.clone(), reason, seen);
            false
        }
        None => true,
    });
    behaviour.programs.retain(|path, program| {
        let rules = || BASELINE.programs.iter().filter(|rule| rule.is_of(path));
        for rule in rules() {
            for origin in program.origins.intersection(&rule.origins) {
                note(Section::Programs, format!("{path} from {}", origin.name()), &rule.reason, &program.seen);
            }
        }
        program.origins.retain(|origin| !rules().any(|rule| rule.origins.contains(origin)));
        !program.origins.is_empty()
    });
    // No place is made for these, and nobody misses them.
    behaviour.writes.retain(|path, _| !tolerates(path));
    behaviour.writes.retain(|path, write| match BASELINE.write(path).or_else(|| Some(BASELINE.kernel_file(path)?.1)) {
        Some(reason) => {
            note(Section::Writes, path.clone(), reason, &write.seen);
            false
        }
        None => true,
    });
    (behaviour, forbidden)
}

impl Observation {
    /// Takes what must not be learnt out of both behaviours and puts it into `forbidden`, that of later sessions with
    /// `exec: ` before its name.
    pub fn forbid(&mut self) {
        let (learnt, forbidden) = split(std::mem::take(&mut self.workload_behaviour));
        self.workload_behaviour = learnt;
        self.forbidden.extend(forbidden);
        let (learnt, forbidden) = split(std::mem::take(&mut self.exec_behaviour));
        self.exec_behaviour = learnt;
        self.forbidden.extend(forbidden.into_iter().map(|(item, why)| (format!("exec: {item}"), why)));
    }
}

/// Whether a path of the root file system must not be written; why.
pub fn protected(path: &str) -> Option<&'static str> {
    BASELINE.write(path)
}

/// The place in the kernel's own file systems that a path means and that must not be written: one name for all processes.
pub fn kernel_file(path: &str) -> Option<&'static str> {
    Some(BASELINE.kernel_file(path)?.0)
}

/// Patterns of paths whose writes are neither learnt nor told of: programs live without.
pub fn tolerated() -> impl Iterator<Item = &'static str> {
    BASELINE.tolerated.iter().flat_map(|rule| &rule.paths).map(String::as_str)
}

/// Whether a write there is neither learnt nor told of.
pub fn tolerates(path: &str) -> bool {
    tolerated().any(|pattern| generalise::covers(pattern, path))
}

/// Whether programs from there must not be run; why.
pub fn foreign(origin: Origin, path: &str) -> Option<&'static str> {
    let rule = BASELINE.programs.iter().find(|rule| rule.origins.contains(&origin) && rule.is_of(path))?;
    Some(&rule.reason)
}

/// Whether a call is never learnt, whatever its arguments.
pub fn forbids_call(name: &str) -> bool {
    BASELINE.syscall(name).is_some()
}

/// Why a call is never learnt with these arguments, as the kernel had them, whether they would be recorded or not; `None`: it
/// may be, or what tells is in the caller's memory.
pub fn forbids_arguments(call: &str, arguments: &[u64]) -> Option<&'static str> {
    let at = |position: usize| arguments.get(position).map(|argument| argument & u64::from(u32::MAX));
    let value = match native(call) {
        "socket" => format!("{},{},{}", at(0)?, at(1)? & SOCKET_TYPE, at(2)?),
        "clone" | "unshare" if at(0)? & NAMESPACES == 0 => return None,
        "clone3" => return None,
        "ioctl" => at(1)?.to_string(),
        _ => at(0)?.to_string(),
    };
    BASELINE.argument(call, &value).map(|rule| rule.reason.as_str())
}

/// Whether no honest workload makes this call.
pub fn deadly(name: &str) -> bool {
    BASELINE.syscalls.iter().any(|rule| rule.deadly && rule.names.iter().any(|n| n == name))
}

/// Why somebody is told of this call though it may be learnt; `None`: nobody is.
pub fn reason_to_tell(name: &str) -> Option<&'static str> {
    reason_of(&BASELINE.told, name)
}

/// Whether a refusal of this call is told even where its callers have a way to do without it.
pub fn told(name: &str) -> bool {
    forbids_call(name) || reason_to_tell(name).is_some()
}

/// Whether a capability must not be used; why.
pub fn capability(name: &str) -> Option<&'static str> {
    reason_of(&BASELINE.capabilities, name)
}

impl Baseline {
    fn syscall(&self, name: &str) -> Option<&str> {
        let rule = self.syscalls.iter().find(|rule| rule.names.iter().any(|n| n == native(name)))?;
        Some(&rule.reason)
    }

    fn argument(&self, call: &str, value: &str) -> Option<&Arguments> {
        let numbers: Vec<u64> = value.split(',').filter_map(|n| n.parse().ok()).collect();
        let holds = |rule: &&Arguments| {
            rule.calls.iter().any(|c| c == native(call)) && rule.when.iter().all(|condition| condition.holds(&numbers))
        };
        self.arguments.iter().find(holds)
    }

    fn write(&self, path: &str) -> Option<&str> {
        let rule = self.writes.iter().find(|rule| rule.paths.iter().any(|place| is_below(path, place)))?;
        Some(&rule.reason)
    }

    /// Place and reason.
    fn kernel_file(&self, path: &str) -> Option<(&str, &str)> {
        let places = self.kernel_files.iter().flat_map(|rule| rule.paths.iter().map(move |place| (place, rule)));
        let (place, rule) = places.into_iter().find(|(place, _)| is_below(path, place))?;
        Some((place, &rule.reason))
    }
}

impl Origins {
    fn is_of(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|place| is_below(path, place))
    }
}

impl Condition {
    fn holds(&self, numbers: &[u64]) -> bool {
        let Some(number) = numbers.get(self.position) else { return false };
        self.one_of.as_ref().is_none_or(|list| list.contains(number))
            && !self.not_in.contains(number)
            && self.any_bits.is_none_or(|bits| number & bits != 0)
    }
}

fn native(name: &str) -> &str {
    name.strip_prefix("i386:").unwrap_or(name)
}

fn reason_of<'b>(rules: &'b [Names], name: &str) -> Option<&'b str> {
    rules.iter().find(|rule| rule.names.iter().any(|n| n == name)).map(|rule| rule.reason.as_str())
}

fn is_below(path: &str, place: &str) -> bool {
    let mut parts = path.split('/');
    place.split('/').all(|want| parts.next().is_some_and(|part| want == "*" || want == part))
}

#[cfg(test)]
mod tests;
