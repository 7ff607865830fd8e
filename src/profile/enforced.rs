//! What of an observation enforcing its profile would refuse: the same judgement as enforcing makes, on what was seen.
//!
//! Owns: that judgement, call by call and place by place, with all that a filter lets through beside what was learnt. Pure. Must
//! not: say what is new; that is `beyond`'s, and what learning and promotion go by: an item that a family lets through is no
//! alarm, and a sign of life that was not seen before all the same.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::behaviour::{Origin, Program, Write};
use super::beyond::{Beyond, Side, beyond};
use super::export::places::{EVERYONES, Place, places};
use super::filter::{self, Filter};
use super::generalise::covers;
use super::items::{Section, item_name};
use super::{Behaviour, Profile, Sighting, Support, baseline, capabilities, layers};
use crate::policy::ExecRule;

/// A profile as it would be enforced.
pub struct Enforced<'p> {
    profile: &'p Profile,
    /// With what people decided.
    steered: Profile,
    exec: ExecRule,
    filter: Filter,
    capabilities: BTreeSet<String>,
    session_capabilities: BTreeSet<String>,
    places: Vec<Place>,
}

impl<'p> Enforced<'p> {
    /// A profile as it would be enforced, with sessions let in by `exec`. Which low-level runtime it will be is not known here: what
    /// any of them needs is let through.
    ///
    /// # Errors
    /// When a built-in layer is wrong.
    pub fn new(profile: &'p Profile, exec: ExecRule) -> Result<Enforced<'p>> {
        let mut notes = Vec::new();
        let mut steered = profile.steered(&mut notes);
        if exec == ExecRule::Deny {
            // Nobody else is let in: what sessions needed, nobody needs.
            steered.exec_behaviour = Behaviour::default();
        }
        let sides = [&steered.workload_behaviour, &steered.exec_behaviour];
        let no_new_privileges = !sides.iter().flat_map(|side| side.programs.values()).any(|p| p.privileged);
        let layers = [vec![layers::always()?], layers::runtimes(None)?].concat();
        let needed = layers.iter().flat_map(|layer| layer.names(no_new_privileges));
        let filter = filter::filter(&steered, needed, &mut notes);
        let sessions = Profile { workload_behaviour: Behaviour::default(), ..steered.clone() };
        Ok(Enforced {
            profile,
            exec,
            filter,
            capabilities: capabilities::needed(&steered, &mut notes),
            session_capabilities: capabilities::needed(&sessions, &mut notes),
            places: places(&steered, &mut notes),
            steered,
        })
    }

    /// Everything that would have been refused, in order. What was denied by hand would be, whatever was seen.
    pub fn refuses(&self, workload: &Behaviour<Sighting>, exec: &Behaviour<Sighting>) -> Vec<Beyond> {
        let mut all = beyond(self.profile, workload, exec);
        all.retain(|new| {
            let seen = if new.side == Side::Workload { workload } else { exec };
            let name = item_name(new.section, &new.item);
            self.profile.steering.denied.keys().any(|pattern| covers(pattern, &name)) || !self.lets(new, seen)
        });
        all
    }

    fn lets(&self, new: &Beyond, seen: &Behaviour<Sighting>) -> bool {
        let (is_session, item) = (new.side == Side::Exec, new.item.as_str());
        match new.section {
            Section::Syscalls => self.calls(item, None) || is_session && asks_for_names(seen, item),
            Section::DeniedSyscalls => {
                self.calls(item, None) || self.sides().any(|side| side.denied_syscalls.contains_key(item))
            }
            Section::Arguments => {
                let (call, value) = item.split_once(' ').unwrap_or((item, ""));
                let first = value.split(',').next().and_then(|first| first.parse().ok());
                // Pairs are recorded as sockets are, and filtered apart: they connect nothing.
                let is_pair = call == "socket" && value.starts_with("1,") && seen.syscalls.contains_key("socketpair");
                self.calls(call, first)
                    || is_pair && self.calls("socketpair", None)
                    || is_session && asks_for_names(seen, call)
            }
            Section::Capabilities => match is_session && self.exec == ExecRule::Profile {
                true => self.session_capabilities.contains(item),
                false => self.capabilities.contains(item),
            },
            Section::Writes => seen.writes.get(item).is_none_or(|write| self.writes(item, write, is_session)),
            Section::Programs => seen.programs.get(item).is_none_or(|program| self.runs(item, program, is_session)),
            // Addresses are no part of a filter: who may listen may do so anywhere.
            Section::Listens => self.calls("bind", None),
            Section::Connects => {
                self.calls("connect", None) || is_session && asks_for_names(seen, "connect") && item.starts_with("unix")
            }
        }
    }

    /// Whether a call, with its first recorded argument where that is known, gets through; or an answer that makes its caller
    /// take another way, which nobody is told.
    fn calls(&self, name: &str, first: Option<u64>) -> bool {
        let bare = name.strip_prefix("i386:").unwrap_or(name);
        if bare.len() < name.len() && !self.filter.compat {
            return false;
        }
        if self.filter.allowed.contains(bare) {
            return true;
        }
        // Its flags are judged where it is answered: with `clone`, which takes its place.
        if bare == "clone3" {
            return self.calls("clone", first);
        }
        let mut rules = self.filter.conditional.iter().filter(|rule| rule.name == bare).peekable();
        if rules.peek().is_some() {
            if filter::is_by_mode(bare) {
                return false;
            }
            return first.is_none_or(|value| rules.any(|rule| rule.is.fits(value)));
        }
        self.filter.absent.contains(bare) && !baseline::told(bare)
    }

    /// Of the root, what becomes scratch can be written. What the workload writes there by a name that it never used is told all
    /// the same: where layers are not known, nothing else tells of a library that was dropped there.
    fn writes(&self, path: &str, write: &Write<Sighting>, is_session: bool) -> bool {
        let mut known = self.sides().flat_map(|side| &side.writes).filter(|(_, known)| known.succeeded);
        let mut scratch = self.places.iter().map(|place| place.path.as_str()).chain([EVERYONES]);
        let mut is_scratch = || scratch.any(|place| Path::new(path).starts_with(place));
        !write.succeeded || known.any(|(pattern, _)| covers(pattern, path)) || is_session && is_scratch()
    }

    fn runs(&self, path: &str, program: &Program<Sighting>, is_session: bool) -> bool {
        let is_foreign = |origin: &Origin| !matches!(origin, Origin::Image | Origin::Root);
        // Where any session is let in, it may run what the image has.
        if is_session && self.exec == ExecRule::Allow && !program.origins.iter().any(is_foreign) {
            return true;
        }
        let all = self.sides().filter(|side| is_session || std::ptr::eq(*side, &self.steered.workload_behaviour));
        let mut known = all.flat_map(|side| side.programs.keys());
        known.any(|pattern| covers(pattern, path))
    }

    fn sides(&self) -> impl Iterator<Item = &Behaviour<Support>> {
        [&self.steered.workload_behaviour, &self.steered.exec_behaviour].into_iter()
    }
}

/// Whether a call is of those by which glibc asks a name service for users and hosts, before it reads files, and all that was seen
/// of such calls may be that: it lives without, and nobody is told of a session that did.
fn asks_for_names(seen: &Behaviour<Sighting>, call: &str) -> bool {
    let sockets = seen.arguments.get("socket");
    matches!(call, "socket" | "connect")
        && sockets.is_some_and(|values| values.keys().all(|value| value == LOCAL_STREAM))
}

/// As an argument of `socket` is recorded: AF_UNIX, SOCK_STREAM, no protocol.
const LOCAL_STREAM: &str = "1,1,0";

#[cfg(test)]
mod tests {
    use super::super::beyond::tests::{items, profile, reading};
    use super::*;
    use crate::learn::observe::Items;
    use crate::sensor::reading::{Argument, Origin, Program, Reading, Seen};

    const SEEN: Seen = Seen { first: 0, last: 0, windows: 1 };
    const IMAGE: Origin = Origin::Image;

    fn numbers(calls: &[&str]) -> Vec<u32> {
        calls.iter().map(|name| crate::profile::syscalls::parse(name).expect("a call").1).collect()
    }

    fn seen(calls: &[&str], writes: &[&str], programs: &[(&str, Origin)]) -> Reading {
        let writes: Vec<(&str, u32)> = writes.iter().map(|path| (*path, 0)).collect();
        let mut reading = reading(&numbers(calls), &writes, &[]);
        for (path, origin) in programs {
            let program = Program { path: (*path).to_owned(), origin: *origin, privileged: false };
            reading.workload.programs.insert(program, SEEN);
        }
        reading
    }

    /// A server that makes files in /tmp and runs its own program, learnt without a session.
    fn learnt() -> Profile {
        let calls = ["openat", "mmap", "accept4", "socket", "bind", "listen"];
        let mut reading = seen(&calls, &["/tmp/state"], &[("/bin/server", IMAGE)]);
        reading.workload.arguments.insert(socket(2, 1), SEEN);
        profile(&items(&reading))
    }

    fn socket(family: u32, kind: u32) -> Argument {
        Argument::Socket { family, kind, protocol: 0 }
    }

    fn told(exec: ExecRule, workload: &Items, session: &Items) -> Vec<String> {
        let profile = learnt();
        let enforced = Enforced::new(&profile, exec).expect("the layers");
        let all = enforced.refuses(&workload.workload, &session.workload);
        all.iter().map(|b| format!("{}: {}", b.side.name(), item_name(b.section, &b.item))).collect()
    }

    #[test]
    fn a_session_that_enforcing_would_let_do_all_it_does_is_not_told_though_none_was_ever_learnt() {
        let calls = ["read", "write", "close", "execve", "clone", "pipe2", "wait4", "sendfile", "utimensat", "mkdir"];
        let session = items(&seen(&calls, &["/tmp/mine"], &[("/usr/bin/busybox", IMAGE)]));
        assert_eq!(told(ExecRule::Allow, &Items::default(), &session), Vec::<String>::new());
    }

    #[test]
    fn a_session_may_write_to_tmp_where_nobody_was_seen_to_and_the_workload_is_told_of_a_name_that_it_never_used() {
        let mut reading = seen(&["openat"], &[], &[("/bin/server", IMAGE)]);
        reading.workload.arguments.insert(socket(2, 1), SEEN);
        let profile = profile(&items(&reading));
        let enforced = Enforced::new(&profile, ExecRule::Allow).expect("the layers");
        let dump = items(&seen(&["openat"], &["/tmp/dump"], &[]));
        let none = Behaviour::default();
        assert_eq!(enforced.refuses(&none, &dump.workload).len(), 0);
        let told = enforced.refuses(&dump.workload, &none);
        assert_eq!(told.iter().map(|b| b.item.as_str()).collect::<Vec<_>>(), ["/tmp/dump"]);
    }

    #[test]
    fn a_session_is_told_of_what_enforcing_would_refuse_it() {
        let programs = [("/usr/bin/busybox", IMAGE), ("/bin/server", IMAGE), ("/tmp/tool", Origin::Tmpfs)];
        let mut reading = seen(&["connect", "setns", "chmod", "socket"], &["/etc/motd"], &programs);
        reading.workload.arguments.insert(socket(17, 3), SEEN);
        let mut expected = vec![
            "exec: syscall chmod",
            "exec: syscall connect",
            "exec: syscall setns",
            "exec: argument socket 17,3,0",
            "exec: write /etc/motd",
            "exec: program /tmp/tool",
        ];
        let forbidden = |items: &Items, all: &mut Vec<&str>| {
            // What the baseline forbids is no item of a behaviour that is compared.
            all.retain(|item| items.workload.items().any(|(s, n, _)| item.ends_with(&item_name(s, &n))));
        };
        let session = items(&reading);
        forbidden(&session, &mut expected);
        assert_eq!(told(ExecRule::Allow, &Items::default(), &session), expected);
        expected.push("exec: program /usr/bin/busybox");
        assert_eq!(told(ExecRule::Profile, &Items::default(), &session), expected);
    }

    #[test]
    fn a_workload_is_told_of_a_program_of_its_image_and_a_call_but_of_none_that_any_filter_lets_through() {
        let calls = ["pwritev", "pipe2", "clone", "getpid", "clone3", "mkdir", "chmod", "io_uring_setup"];
        let workload = items(&seen(&calls, &["/srv/page"], &[("/bin/sh", IMAGE)]));
        let expected = ["syscall chmod", "syscall io_uring_setup", "write /srv/page", "program /bin/sh"]
            .map(|i| format!("workload: {i}"));
        assert_eq!(told(ExecRule::Allow, &workload, &Items::default()), expected);
    }

    #[test]
    fn that_glibc_asks_a_session_for_names_is_not_told_and_that_it_connects_is() {
        let asks = |kinds: &[(u32, u32)]| {
            let mut reading = seen(&["socket", "connect"], &[], &[]);
            reading.workload.arguments.extend(kinds.iter().map(|(family, kind)| (socket(*family, *kind), SEEN)));
            told(ExecRule::Allow, &Items::default(), &items(&reading))
        };
        assert_eq!(asks(&[(1, 1)]), Vec::<String>::new());
        assert_eq!(asks(&[(1, 1), (2, 1)]), ["exec: syscall connect", "exec: argument socket 1,1,0"]);
    }

    #[test]
    fn what_was_denied_by_hand_is_told_whatever_was_seen() {
        let mut profile = learnt();
        let decision =
            crate::profile::steering::Decision { at: "2026-01-01T00:00:00Z".to_owned(), why: "test".to_owned() };
        profile.steering.decide("syscall accept4".to_owned(), true, decision);
        let enforced = Enforced::new(&profile, ExecRule::Allow).expect("the layers");
        let seen = items(&seen(&["accept4", "openat"], &[], &[]));
        let all = enforced.refuses(&seen.workload, &Behaviour::default());
        assert_eq!(all.iter().map(|b| b.item.as_str()).collect::<Vec<_>>(), ["accept4"]);
    }
}
