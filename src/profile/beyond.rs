//! What an observation has and a profile has not: what is new. Of that, `enforced` says what would have been refused.
//!
//! Owns: that comparison. Pure. Must not: widen a profile, or report what the container was refused while it was learnt.

use std::collections::BTreeSet;

use super::behaviour::Write;
use super::families;
use super::generalise::covers;
use super::items::{Section, as_decided, item_name};
use super::steering::Steering;
use super::{Behaviour, Profile, Sighting, Support};

/// Calls that every filter lets through: the end of a process or a signal handler, and what the kernel restarts by itself.
const ALWAYS: [&str; 5] = ["exit", "exit_group", "futex", "restart_syscall", "rt_sigreturn"];

/// Which side of a container did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The workload.
    Workload,
    /// A session that was let in later.
    Exec,
}

impl Side {
    /// As in events.
    pub fn name(self) -> &'static str {
        match self {
            Side::Workload => "workload",
            Side::Exec => "exec",
        }
    }
}

/// One item beyond a profile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beyond {
    /// Whose.
    pub side: Side,
    /// Kind.
    pub section: Section,
    /// Name, as in the observation.
    pub item: String,
    /// Command names of who did it, where that is known.
    pub by: BTreeSet<String>,
    /// RFC 3339: the window that saw it first.
    pub first: String,
}

/// Everything that the workload and the sessions let into it did beyond a profile, and beyond what was allowed by hand, in
/// order. What was denied by hand is beyond it, whatever was seen.
pub fn beyond(profile: &Profile, workload: &Behaviour<Sighting>, exec: &Behaviour<Sighting>) -> Vec<Beyond> {
    let mut all = Vec::new();
    side(Side::Workload, workload, &profile.workload_behaviour, &profile.steering, &mut all);
    side(Side::Exec, exec, &profile.exec_behaviour, &profile.steering, &mut all);
    all
}

fn side(
    side: Side,
    seen: &Behaviour<Sighting>,
    known: &Behaviour<Support>,
    steering: &Steering,
    all: &mut Vec<Beyond>,
) {
    let calls = calls(known);
    for (section, item, sighting) in seen.items() {
        let write = seen.writes.get(&item).filter(|_| section == Section::Writes);
        let name = item_name(section, &item);
        let is_denied = steering.denied.keys().any(|pattern| covers(pattern, &name));
        let is_known =
            !is_denied && (steering.allows(&as_decided(&name)) || is_known(section, &item, write, known, &calls));
        if !is_known {
            let by = write.map(|write| write.by.clone()).unwrap_or_default();
            all.push(Beyond { side, section, item, by, first: sighting.first.clone() });
        }
    }
}

/// The calls of a side and those that stand for them, natively: a filter has both.
fn calls(known: &Behaviour<Support>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = known.syscalls.keys().filter(|name| !name.contains(':')).cloned().collect();
    if !names.is_empty() {
        families::widen(&mut names, false);
    }
    names
}

fn is_known(
    section: Section,
    item: &str,
    write: Option<&Write<Sighting>>,
    known: &Behaviour<Support>,
    calls: &BTreeSet<String>,
) -> bool {
    match section {
        Section::Syscalls => known.syscalls.contains_key(item) || calls.contains(item) || ALWAYS.contains(&item),
        // The engine's own filter refused it. Enforcement adds nothing to that, but tells what learning never saw.
        Section::DeniedSyscalls => {
            known.denied_syscalls.contains_key(item) || known.syscalls.contains_key(item) || calls.contains(item)
        }
        Section::Arguments => item
            .split_once(' ')
            .is_some_and(|(call, value)| known.arguments.get(call).is_some_and(|values| values.contains_key(value))),
        Section::Capabilities => known.capabilities.contains_key(item),
        Section::Writes => {
            // What failed without us would fail with us.
            write.is_some_and(|write| !write.succeeded)
                || any_covers(known.writes.iter().filter(|(_, w)| w.succeeded).map(|(name, _)| name), item)
        }
        Section::Programs => any_covers(known.programs.keys(), item),
        Section::Listens => any_covers(known.listens.keys(), item),
        Section::Connects => any_covers(known.connects.keys(), item),
    }
}

fn any_covers<'a>(mut patterns: impl Iterator<Item = &'a String>, item: &str) -> bool {
    patterns.any(|pattern| covers(pattern, item))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::learn::observe::{Items, Material, Windows, assemble};
    use crate::sensor::reading::{Abi, Direction, Operation, PathUse, Peer, Reading, Seen, Syscall};

    const WINDOWS: Windows = Windows { started_micros: 1_700_000_000_000_000, seconds: 60 };

    pub fn reading(calls: &[u32], paths: &[(&str, u32)], peers: &[&str]) -> Reading {
        let mut reading = Reading::default();
        let seen = Seen { first: 0, last: 0, windows: 1 };
        let call = |number: &u32| (Syscall { abi: Abi::Native, number: *number }, seen);
        reading.workload.syscalls = calls.iter().map(call).collect();
        for (path, errno) in paths {
            let (path, by) = ((*path).to_owned(), "sh".to_owned());
            let used = PathUse { path, operation: Operation::Create, errno: *errno, on_root: true, by };
            reading.workload.paths.insert(used, seen);
        }
        for address in peers {
            let (protocol, address) = ("tcp".to_owned(), (*address).to_owned());
            reading.workload.peers.insert(Peer { direction: Direction::Connect, protocol, address }, seen);
        }
        reading
    }

    pub fn items(reading: &Reading) -> Items {
        let found = BTreeMap::new();
        assemble(&Material { reading, found: &found, ephemeral: (32768, 60999), windows: WINDOWS })
    }

    pub fn profile(items: &Items) -> Profile {
        let support = |seen: &Sighting| Support {
            generations: BTreeMap::from([("0".repeat(32), seen.windows)]),
            first: seen.first.clone(),
            last: seen.last.clone(),
        };
        let revision = crate::profile::Revision {
            digest: "0".repeat(32),
            image: "rootfs:".to_owned(),
            image_name: None,
            args: Vec::new(),
            env: Vec::new(),
            mounts: Vec::new(),
            user: "0:0".to_owned(),
            capabilities: Vec::new(),
        };
        Profile {
            version: crate::profile::document::VERSION,
            workload: "w".to_owned(),
            revision,
            architecture: std::env::consts::ARCH.to_owned(),
            stage: crate::profile::Stage::Observing,
            generations: BTreeMap::new(),
            steering: Default::default(),
            workload_behaviour: items.workload.map(support),
            exec_behaviour: items.exec.map(support),
            forbidden: BTreeMap::new(),
            cut: BTreeSet::new(),
            peaks: Default::default(),
        }
    }

    fn beyond(profile: &Profile, items: &Items) -> Vec<Beyond> {
        super::beyond(profile, &items.workload, &items.exec)
    }

    #[test]
    fn a_call_that_stands_for_one_that_was_seen_is_not_beyond_it() {
        // pwrite64 and pwritev.
        let known = items(&reading(&[18], &[], &[]));
        assert_eq!(beyond(&profile(&known), &items(&reading(&[296], &[], &[]))), []);
    }

    #[test]
    fn what_somebody_decided_holds_against_what_was_seen() {
        use crate::profile::steering::Decision;
        let known = items(&reading(&[0], &[("/srv/a", 0)], &[]));
        let mut profile = profile(&known);
        let by_hand = || Decision { at: "2026-01-01T00:00:00.000000Z".to_owned(), why: "by hand".to_owned() };
        profile.steering.allowed.insert("syscall socket".to_owned(), by_hand());
        profile.steering.allowed.insert("write /srv/x/*".to_owned(), by_hand());
        profile.steering.allowed.insert("argument unshare 131072".to_owned(), by_hand());
        profile.steering.denied.insert("write /srv/a".to_owned(), by_hand());
        let seen = items(&reading(&[0, 41, 272], &[("/srv/a", 0), ("/srv/x/y", 0), ("/srv/x/y/z", 0)], &[]));
        let got: Vec<String> = beyond(&profile, &seen).into_iter().map(|b| b.item).collect();
        assert_eq!(got, ["/srv/a", "/srv/x/y/z"]);
    }

    #[test]
    fn what_a_profile_was_made_from_is_not_beyond_it() {
        let known = items(&reading(&[0, 1], &[("/tmp/tmp.aaaaaaaaA1", 0), ("/x", 30)], &["10.0.0.1:80"]));
        assert_eq!(beyond(&profile(&known), &known), []);
        let other_name = items(&reading(&[1], &[("/tmp/tmp.aaaaaaaaA2", 0)], &[]));
        assert_eq!(beyond(&profile(&known), &other_name), []);
    }

    #[test]
    fn everything_else_is_but_for_what_is_refused_or_allowed_anyway() {
        let known = items(&reading(&[0], &[("/tried", 30)], &[]));
        let seen = items(&reading(&[0, 41, 231], &[("/tried", 0), ("/refused", 13)], &["10.0.0.1:80"]));
        let got: Vec<(Section, String)> =
            beyond(&profile(&known), &seen).into_iter().map(|b| (b.section, b.item)).collect();
        let item = |section, name: &str| (section, name.to_owned());
        let expected = [
            item(Section::Syscalls, "socket"),
            item(Section::Writes, "/tried"),
            item(Section::Connects, "tcp 10.0.0.1:80"),
        ];
        assert_eq!(got, expected);
        assert_eq!(beyond(&profile(&known), &seen)[1].by, BTreeSet::from(["sh".to_owned()]));
    }

    #[test]
    fn a_call_that_the_engine_refuses_is_beyond_a_profile_that_never_saw_it_tried() {
        let denied = |calls: &[u32]| {
            let mut reading = reading(&[0], &[], &[]);
            let call =
                |number: &u32| (Syscall { abi: Abi::Native, number: *number }, Seen { first: 0, last: 0, windows: 1 });
            reading.workload.denied = calls.iter().map(call).collect();
            items(&reading)
        };
        let known = profile(&denied(&[435]));
        assert_eq!(beyond(&known, &denied(&[435])), []);
        let got: Vec<_> = beyond(&known, &denied(&[272, 435])).into_iter().map(|b| (b.section, b.item)).collect();
        assert_eq!(got, [(Section::DeniedSyscalls, "unshare".to_owned())]);
    }

    #[test]
    fn a_session_that_was_let_in_has_no_part_in_what_the_workload_may() {
        let known = items(&reading(&[0, 41], &[], &[]));
        let seen = Items { exec: known.workload.clone(), ..Items::default() };
        assert!(beyond(&profile(&known), &seen).iter().all(|b| b.side == Side::Exec));
        assert_eq!(beyond(&profile(&known), &seen).len(), 2);
    }
}
