//! Paths: written, made, removed, renamed, changed, and what was refused.

use std::fs;
use std::io::BufRead;

use lithify::sensor::reading::{Abi, Facts, Loss, Operation, PathUse, Syscall};

use crate::container::{Container, World, called, options};
use crate::harness::Test;

pub const TESTS: &[Test] = &[
    ("files::a_file_that_is_written_and_removed_leaves_a_record_of_both", write_then_remove),
    ("files::relative_names_and_names_by_descriptor_are_told_as_absolute_paths", names),
    ("files::what_was_opened_through_a_link_is_told_and_not_the_link", through_link),
    ("files::what_a_read_only_mount_refuses_is_seen_with_its_error", refused),
    ("files::a_fork_bomb_and_a_hundred_thousand_paths_are_bounded_and_their_loss_is_counted", flood),
    ("files::of_more_paths_than_the_table_holds_none_is_lost_if_it_is_relieved_in_between", relieved),
];

/// A temporary folder outside /tmp's own rules, by its real path.
fn folder() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().to_str().unwrap().to_string();
    (dir, path)
}

fn has(facts: &Facts, operation: Operation, path: &str) -> bool {
    find(facts, operation, path).is_some()
}

fn find<'f>(facts: &'f Facts, operation: Operation, path: &str) -> Option<&'f PathUse> {
    facts.paths.keys().find(|p| p.operation == operation && p.path == path && p.errno == 0)
}

fn write_then_remove() {
    let (_dir, path) = folder();
    let reading = World::new().seen_of(&["writes", &path]);
    let facts = &reading.workload;
    let all = &facts.paths;
    for name in ["kept", "gone"] {
        assert!(has(facts, Operation::Create, &format!("{path}/{name}")), "{all:?}");
        assert!(has(facts, Operation::Write, &format!("{path}/{name}")), "{all:?}");
    }
    let removed = find(facts, Operation::Remove, &format!("{path}/gone")).unwrap_or_else(|| panic!("{all:?}"));
    assert!(!removed.by.is_empty());
    assert!(!has(facts, Operation::Remove, &format!("{path}/kept")));
    assert!(has(facts, Operation::Create, &path), "a file without a name is made in its folder: {all:?}");
    assert!(!all.keys().any(|p| p.path == "/dev/null"), "writing to a device changes no file system");
    assert!(!all.keys().any(|p| p.path.contains("nowhere")), "nor does a file that is in none: {all:?}");
    assert_eq!(reading.loss, Loss::default());
}

fn names() {
    let (_dir, path) = folder();
    let facts = World::new().seen_of(&["names", &path]).workload;
    for (operation, name) in [
        (Operation::Create, "sub"),
        (Operation::Create, "a"),
        (Operation::Rename, "a"),
        (Operation::Create, "sub/b"),
        (Operation::Rename, "sub/b"),
        (Operation::Create, "c"),
        (Operation::Create, "l"),
        (Operation::Attributes, "c"),
        (Operation::Write, "c"),
        (Operation::Create, "sub/deep"),
        (Operation::Remove, "sub/deep"),
    ] {
        assert!(has(&facts, operation, &format!("{path}/{name}")), "no {operation:?} of {name}: {:?}", facts.paths);
    }
}

fn through_link() {
    let (_dir, path) = folder();
    fs::write(format!("{path}/real"), "x").unwrap();
    std::os::unix::fs::symlink("real", format!("{path}/link")).unwrap();
    let facts = World::new().seen_of(&["link-to", &format!("{path}/link")]).workload;
    assert!(has(&facts, Operation::Write, &format!("{path}/real")), "{:?}", facts.paths);
    assert!(!has(&facts, Operation::Write, &format!("{path}/link")), "{:?}", facts.paths);
}

fn refused() {
    let (_dir, path) = folder();
    fs::write(format!("{path}/there"), "x").unwrap();
    let facts = World::new().seen_of(&["refused", &path]).workload;
    let refused = |operation, name: &str| {
        let path = format!("{path}/{name}");
        facts.paths.keys().any(|p| p.operation == operation && p.path == path && p.errno == libc::EROFS as u32)
    };
    assert!(refused(Operation::Create, "new"), "{:?}", facts.paths);
    assert!(refused(Operation::Write, "there"), "{:?}", facts.paths);
    assert!(refused(Operation::Remove, "there"), "{:?}", facts.paths);
    assert!(refused(Operation::Create, "folder"), "{:?}", facts.paths);
}

fn flood() {
    let world = World::new();
    let mut container = Container::new(&["flood", "100000"]);
    let limit = 4096;
    let options = lithify::sensor::Options { table_entries: limit, ..options() };
    let armed = world.sensor().arm(container.pid(), options).unwrap();
    container.go();
    assert_eq!(container.end(), 0);
    let reading = armed.read().unwrap();
    let facts = &reading.workload;
    let unbounded = facts.paths.len() + facts.arguments.len() + facts.programs.len() + facts.peers.len();
    assert_eq!(unbounded, limit as usize, "the table is full and no more");
    assert!(reading.loss.table_full > 50_000, "{:?}", reading.loss);
    assert!(called(facts, crate::act::MARKERS[0]), "a call has room that paths can't take");
    armed.disarm().unwrap();
}

fn relieved() {
    let world = World::new();
    let (limit, steps, each) = (512, 6, 400);
    let mut container = Container::heard(&["flood-by-steps", &steps.to_string(), &each.to_string()]);
    let options = lithify::sensor::Options { table_entries: limit, bell: true };
    let armed = world.sensor().arm(container.pid(), options).unwrap();
    container.go();
    let mut output = container.output();
    for step in 0..steps {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{step}\n"));
        // Calls come even now: it begins to wait.
        let paths = || armed.read().unwrap().workload.paths;
        let before = paths();
        assert!(armed.relieve(|_| None).unwrap(), "more than half of the table is taken in step {step}");
        assert!(!armed.relieve(|_| None).unwrap(), "and then nothing is");
        assert!(paths() == before, "and nothing of what was seen is gone");
        armed.hush();
        container.tell("g");
        output.read_line(&mut String::new()).unwrap();
        armed.set_window(2 * step + 2).unwrap();
        container.tell("g");
    }
    assert_eq!(container.end(), 0);
    let reading = armed.read().unwrap();
    assert_eq!(reading.loss, Loss::default());
    let of = |name: &str| {
        let found = reading.workload.paths.iter().find(|(used, _)| used.path == name);
        found.map(|(_, seen)| (seen.first, seen.last, seen.windows))
    };
    for (step, i) in (0..steps).flat_map(|step| (0..each).map(move |i| (step, i))) {
        assert_eq!(of(&format!("/sys/{step}-{i}")), Some((2 * step, 2 * step, 1)), "path {i} of step {step}");
    }
    let all = (0, 2 * (steps - 1), steps);
    assert_eq!(of("/sys/again"), Some(all), "made before and after each time the table was relieved, it is one");
    let number = libc::SYS_mkdir as u32;
    let call = reading.workload.syscalls[&Syscall { abi: Abi::Native, number }];
    assert_eq!((call.first, call.last, call.windows), all, "and so is a system call");
    armed.disarm().unwrap();
}
