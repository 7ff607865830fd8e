//! System calls: made, refused, by which interface, with which arguments, in which window, by whom.

use std::collections::BTreeSet;
use std::io::BufRead;

use lithify::sensor::reading::{Abi, Argument, Facts, Loss, Seen, Syscall};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::act::{COMPAT_GETPID, MARKERS, REFUSED};
use crate::container::{Container, World, called, options, session, session_in, within};
use crate::harness::Test;

pub const TESTS: &[Test] = &[
    ("calls::fifty_markers_of_processes_that_are_gone_at_once_are_all_there_twenty_times", markers),
    ("calls::a_call_that_seccomp_refuses_is_seen_as_refused_and_not_as_made", denied),
    ("calls::a_call_by_the_32_bit_interface_is_told_apart", compat),
    ("calls::arguments_that_matter_are_seen", arguments),
    ("calls::windows_count_where_something_was_seen_and_time_does_not", windows),
    ("calls::the_bell_rings_for_what_is_new_and_only_for_that", bell),
    ("calls::what_another_process_does_is_nobodys", others),
    ("calls::an_exec_session_is_kept_apart_from_the_workload", exec_session),
    ("calls::a_session_is_not_taken_for_one_after_the_container_has_ended", late_session),
    ("calls::a_container_that_shares_the_nodes_mounts_has_no_sessions", shared_mounts),
    ("calls::the_most_tasks_at_one_time_are_counted", tasks),
];

fn native(number: i64) -> Syscall {
    Syscall { abi: Abi::Native, number: number as u32 }
}

fn markers() {
    let world = World::new();
    // It stays loaded over the runs.
    let (held, _idle) = world.armed(&["nothing"]);
    let mut profiles = BTreeSet::new();
    for run in 0..20 {
        let reading = world.seen_of(&["markers"]);
        let missing: Vec<_> = MARKERS.iter().filter(|m| !called(&reading.workload, **m)).collect();
        assert!(missing.is_empty(), "run {run} lacks {missing:?}");
        assert_eq!(reading.loss, Loss::default(), "run {run}");
        profiles.insert(reading.workload.syscalls.keys().copied().collect::<Vec<_>>());
    }
    assert_eq!(profiles.len(), 1, "twenty runs of the same are the same");
    held.disarm().unwrap();
}

fn denied() {
    let reading = World::new().seen_of(&["denied"]);
    assert!(reading.workload.denied.contains_key(&native(REFUSED)), "{:?}", reading.workload.denied);
    assert_eq!(reading.workload.denied.len(), 1, "{:?}", reading.workload.denied);
    assert!(!called(&reading.workload, REFUSED));
}

fn compat() {
    let reading = World::new().seen_of(&["compat"]);
    let seen = &reading.workload.syscalls;
    assert!(seen.contains_key(&Syscall { abi: Abi::Compat, number: COMPAT_GETPID }), "{seen:?}");
    // The same number is another call, writev, by the other interface.
    assert!(!called(&reading.workload, i64::from(COMPAT_GETPID)));
}

fn arguments() {
    let seen = World::new().seen_of(&["arguments"]).workload.arguments;
    let (unshare, clone) = (native(libc::SYS_unshare), native(libc::SYS_clone));
    for wanted in [
        Argument::Socket { family: libc::AF_INET6 as u32, kind: libc::SOCK_DGRAM as u32, protocol: 0 },
        Argument::Namespaces { syscall: unshare, flags: libc::CLONE_NEWUTS as u64 },
        Argument::Namespaces { syscall: clone, flags: 0x7000_0000 },
        Argument::Personality(0xffff_ffff),
        Argument::Prctl { syscall: native(libc::SYS_prctl), option: libc::PR_GET_KEEPCAPS as u64 },
        Argument::Ioctl(libc::TIOCGWINSZ),
        Argument::Ptrace(u64::from(libc::PTRACE_DETACH)),
    ] {
        assert!(seen.contains_key(&wanted), "{wanted:?} is not in {seen:?}");
    }
}

/// A container that makes the calls it is told, one after another.
fn stepping(world: &World, bell: bool) -> (lithify::sensor::Armed, Container, impl FnMut(&mut Container, i64)) {
    let mut container = Container::heard(&["steps"]);
    let options = lithify::sensor::Options { bell, ..options() };
    let armed = world.sensor().arm(container.pid(), options).unwrap_or_else(|e| panic!("{e:#}"));
    let mut output = container.output();
    container.go();
    let mut step = move |container: &mut Container, number: i64| {
        container.tell(&format!("{number}\n"));
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
    };
    // The byte that let it go is the beginning of its first line.
    step(&mut container, 0);
    (armed, container, step)
}

fn windows() {
    let world = World::new();
    let (armed, mut container, mut step) = stepping(&world, false);
    let (a, b) = (MARKERS[0], MARKERS[1]);
    step(&mut container, a);
    step(&mut container, a);
    for window in [1, 2, 7] {
        armed.set_window(window).unwrap();
        if window != 2 {
            step(&mut container, a);
        }
        if window == 7 {
            step(&mut container, b);
        }
    }
    let reading = armed.read().unwrap();
    let seen = &reading.workload.syscalls;
    assert_eq!(seen[&native(a)], Seen { first: 0, last: 7, windows: 3 });
    assert_eq!(seen[&native(b)], Seen { first: 7, last: 7, windows: 1 });
    assert_eq!((reading.window, reading.active_windows), (7, 3), "nothing was done in window 2");
    container.end();
    armed.disarm().unwrap();
}

fn bell() {
    let world = World::new();
    let (armed, mut container, mut step) = stepping(&world, true);
    let rings = || {
        let mut fds = [PollFd::new(armed.bell().unwrap(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    };
    assert!(rings(), "all was new");
    step(&mut container, MARKERS[0]);
    armed.hush();
    assert!(!rings());
    step(&mut container, MARKERS[0]);
    armed.set_window(1).unwrap();
    step(&mut container, MARKERS[0]);
    assert!(!rings(), "a new window makes nothing new");
    step(&mut container, MARKERS[1]);
    assert!(rings());
    container.end();
    armed.disarm().unwrap();
}

fn others() {
    let world = World::new();
    let (armed, mut container) = world.armed(&["until-told"]);
    container.go();
    let mut other = Container::new(&["call", &MARKERS[0].to_string()]);
    other.go();
    other.end();
    container.end();
    let reading = armed.read().unwrap();
    assert!(!called(&reading.workload, MARKERS[0]) && !called(&reading.exec, MARKERS[0]));
    armed.disarm().unwrap();
}

fn exec_session() {
    let world = World::new();
    let (armed, mut container, mut step) = stepping(&world, false);
    step(&mut container, MARKERS[0]);
    assert_eq!(session(&container, &["call", &MARKERS[1].to_string()]), 0);
    let reading = armed.read().unwrap();
    assert!(called(&reading.workload, MARKERS[0]) && !called(&reading.workload, MARKERS[1]));
    assert!(called(&reading.exec, MARKERS[1]) && !called(&reading.exec, MARKERS[0]));
    assert_eq!(reading.exec.programs.len(), 1, "{:?}", reading.exec.programs);
    container.end();
    armed.disarm().unwrap();
}

fn late_session() {
    let world = World::new();
    let (armed, mut container, _step) = stepping(&world, false);
    let ns = container.namespace();
    assert_eq!(session_in(&ns, &["call", &MARKERS[0].to_string()]), 0);
    container.end();
    // The namespace lives on, as one with the same number would.
    assert_eq!(session_in(&ns, &["call", &MARKERS[1].to_string()]), 0);
    let reading = armed.read().unwrap();
    assert!(called(&reading.exec, MARKERS[0]) && !called(&reading.exec, MARKERS[1]));
    armed.disarm().unwrap();
}

fn shared_mounts() {
    let world = World::new();
    let mut container = Container::sharing(&["steps"]);
    let armed = world.sensor().arm(container.pid(), options()).unwrap();
    container.go();
    // Anything that the node starts would be a session, if sharing its mounts were enough.
    let ns = std::fs::File::open("/proc/self/ns/mnt").unwrap();
    within(|| armed.read().is_ok_and(|r| !r.workload.programs.is_empty()));
    assert_eq!(session_in(&ns, &["call", &MARKERS[0].to_string()]), 0);
    container.end();
    let reading = armed.read().unwrap();
    assert_eq!(reading.exec, Facts::default());
    assert!(!called(&reading.workload, MARKERS[0]) && called(&reading.workload, libc::SYS_read));
    armed.disarm().unwrap();
}

fn tasks() {
    let reading = World::new().seen_of(&["tasks", "12"]);
    assert_eq!(reading.tasks_peak, 13);
}
