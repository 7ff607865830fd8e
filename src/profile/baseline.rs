//! What is never learnt: an attack while learning must not become policy. It is reported instead.
//!
//! Owns: reading the baseline (`seccomp-profiles/baseline.json`, part of this program) and splitting a behaviour by it.
//! Must not: report, or hold the list itself.
//!
//! What was only tried and refused counts as well: nobody tries it in earnest by mistake. Programs from a volume are learnt:
//! whoever mounts one vouches for it, and plugins and mounted applications live there; so are those of which the kernel does
//! not tell the layer, since else nothing could be learnt there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

use super::behaviour::{Behaviour, Origin};
use super::items::Section;
use super::observation::{Forbidden, Observation, Sighting};

/// The document, as it is shipped.
pub const DOCUMENT: &str = include_str!("../../seccomp-profiles/baseline.json");

static BASELINE: LazyLock<Baseline> =
    LazyLock::new(|| serde_json::from_str(DOCUMENT).expect("the embedded baseline is parsed by a test"));

/// The whole list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Baseline {
    /// For people who read the file.
    #[serde(rename = "about")]
    _about: String,
    syscalls: Vec<Names>,
    arguments: Vec<Arguments>,
    capabilities: Vec<Names>,
    programs: Vec<Origins>,
    writes: Vec<Paths>,
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
        for rule in &BASELINE.programs {
            for origin in program.origins.intersection(&rule.origins) {
                note(Section::Programs, format!("{path} from {}", origin.name()), &rule.reason, &program.seen);
            }
        }
        program.origins.retain(|origin| !BASELINE.programs.iter().any(|rule| rule.origins.contains(origin)));
        !program.origins.is_empty()
    });
    behaviour.writes.retain(|path, write| match BASELINE.write(path) {
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

/// Whether programs from there must not be run; why.
pub fn foreign(origin: Origin) -> Option<&'static str> {
    let rule = BASELINE.programs.iter().find(|rule| rule.origins.contains(&origin))?;
    Some(&rule.reason)
}

/// Whether a call is never learnt, whatever its arguments.
pub fn forbids_call(name: &str) -> bool {
    BASELINE.syscall(name).is_some()
}

/// Whether a capability must not be used; why.
pub fn capability(name: &str) -> Option<&'static str> {
    reason_of(&BASELINE.capabilities, name)
}

impl Baseline {
    fn syscall(&self, name: &str) -> Option<&str> {
        reason_of(&self.syscalls, native(name))
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
mod tests {
    use super::super::syscalls;
    use super::*;

    fn seen() -> Sighting {
        let time = "2026-01-01T00:00:00.000000Z".to_string();
        Sighting { windows: 1, first: time.clone(), last: time }
    }

    #[test]
    fn every_entry_has_a_reason_and_every_name_exists() {
        let b: Baseline = serde_json::from_str(DOCUMENT).expect("the document is of its shape");
        let reasons = (b.syscalls.iter().chain(&b.capabilities).map(|r| &r.reason))
            .chain(b.arguments.iter().map(|r| &r.reason))
            .chain(b.programs.iter().map(|r| &r.reason))
            .chain(b.writes.iter().map(|r| &r.reason));
        for reason in reasons {
            assert!(reason.len() > 10 && !reason.ends_with('.'), "{reason:?}");
        }
        let calls = b.syscalls.iter().flat_map(|r| &r.names).chain(b.arguments.iter().flat_map(|r| &r.calls));
        for call in calls {
            let known = syscalls::parse(call).or_else(|| syscalls::parse(&format!("i386:{call}")));
            assert!(known.is_some() && !call.contains([':', '#']), "{call}");
        }
        for name in b.capabilities.iter().flat_map(|r| &r.names) {
            assert!(syscalls::capability_number(name).is_some(), "{name}");
        }
        let mut twice: Vec<&String> = b.syscalls.iter().chain(&b.capabilities).flat_map(|r| &r.names).collect();
        let count = twice.len();
        twice.sort();
        twice.dedup();
        assert_eq!(twice.len(), count, "a name has two reasons");
        assert!(b.programs.iter().all(|r| !r.origins.is_empty()));
        assert!(b.writes.iter().flat_map(|r| &r.paths).all(|p| p.starts_with('/') && !p.ends_with('/')));
    }

    #[test]
    fn forbidden_calls_are_taken_out_through_both_interfaces_and_where_they_were_refused() {
        let mut b = Behaviour::default();
        for name in ["read", "bpf", "i386:mount", "ptrace"] {
            b.syscalls.insert(name.to_string(), seen());
        }
        b.denied_syscalls.insert("init_module".to_string(), seen());
        b.denied_syscalls.insert("clone3".to_string(), seen());
        let (learnt, forbidden) = split(b);
        assert_eq!(learnt.syscalls.keys().collect::<Vec<_>>(), ["ptrace", "read"]);
        assert_eq!(learnt.denied_syscalls.keys().collect::<Vec<_>>(), ["clone3"]);
        let names: Vec<&String> = forbidden.keys().collect();
        assert_eq!(names, ["denied syscall init_module", "syscall bpf", "syscall i386:mount"]);
        assert!(forbidden["syscall bpf"].reason.contains("kernel"));
    }

    #[test]
    fn a_call_goes_with_its_last_allowed_argument_unless_it_has_uses_that_are_not_recorded() {
        let with = |call: &str, values: &[&str]| {
            let mut b = Behaviour::default();
            b.syscalls.insert(call.to_string(), seen());
            b.arguments.insert(call.to_string(), values.iter().map(|v| (v.to_string(), seen())).collect());
            let (learnt, forbidden) = split(b);
            let left: Vec<String> = learnt.arguments.get(call).into_iter().flatten().map(|(v, _)| v.clone()).collect();
            (learnt.syscalls.contains_key(call), left.join(" "), forbidden.len())
        };
        assert_eq!(with("ptrace", &["0"]), (true, "0".to_string(), 0));
        assert_eq!(with("ptrace", &["0", "16"]), (true, "0".to_string(), 1));
        assert_eq!(with("ptrace", &["16"]), (false, String::new(), 2));
        assert_eq!(with("i386:ptrace", &["16"]), (false, String::new(), 2));
        // AF_PACKET goes; raw netlink, which every getifaddrs(3) uses, stays; so does ping's datagram socket.
        assert_eq!(with("socket", &["17,3,768", "16,3,0", "2,2,1", "2,3,1"]), (true, "16,3,0 2,2,1".to_string(), 2));
        assert_eq!(with("clone", &["268435456"]), (true, String::new(), 1));
        // Asking is not turning off.
        assert_eq!(with("personality", &["4294967295", "262144", "8"]), (true, "4294967295 8".to_string(), 1));
        assert_eq!(with("ioctl", &["21522", "21505"]), (true, "21505".to_string(), 1));
    }

    #[test]
    fn a_program_is_learnt_with_the_places_it_may_come_from_and_reported_with_the_others() {
        use super::super::behaviour::Program;
        let mut b = Behaviour::default();
        for (path, origins) in [
            ("/bin/sh", vec![Origin::Image, Origin::Upper]),
            ("/memfd:x", vec![Origin::Anonymous]),
            ("/data/plugin", vec![Origin::Volume]),
            ("/bin/web", vec![Origin::Root]),
        ] {
            let program = Program { seen: seen(), origins: origins.into_iter().collect(), privileged: false };
            b.programs.insert(path.to_string(), program);
        }
        let (learnt, forbidden) = split(b);
        assert_eq!(learnt.programs.keys().collect::<Vec<_>>(), ["/bin/sh", "/bin/web", "/data/plugin"]);
        assert_eq!(learnt.programs["/bin/sh"].origins, [Origin::Image].into());
        let names: Vec<&String> = forbidden.keys().collect();
        assert_eq!(names, ["program /bin/sh from upper", "program /memfd:x from anonymous"]);
    }

    #[test]
    fn protected_places_are_whole_components() {
        for path in ["/etc", "/etc/passwd", "/usr/lib/x", "/home/ann/.ssh/authorized_keys", "/lib/x"] {
            assert!(protected(path).is_some(), "{path}");
        }
        for path in ["/etcetera/x", "/var/lib/x", "/home/ann/x", "/home/ann", "/root/.sshx", "/", "/opt/usr/x"] {
            assert!(protected(path).is_none(), "{path}");
        }
    }
}
