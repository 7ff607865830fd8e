//! The guard: what nothing refuses is told each time, what a filter ends is told by its name, and no flood hides either.

use std::io::BufRead;

use lithify::guard::{Refusal, Refused};
use lithify::sensor::guard::Rules;

use crate::container::{Container, World};
use crate::guard::{killing, times};
use crate::guard_acts;
use crate::harness::Test;

pub const TESTS: &[Test] = &[
    ("guard_told::memory_that_is_opened_by_creat_is_told_and_by_an_open_that_only_reads_is_not", created),
    ("guard_told::memory_that_is_opened_again_is_told_again", again),
    ("guard_told::a_flood_of_refused_writes_hides_no_memory_and_is_told_by_itself", after_flood),
    ("guard_told::known_writes_take_no_room_from_others_however_many_they_are", known),
    ("guard_told::a_file_by_which_a_container_commands_its_node_is_told_when_it_is_opened_for_writing", commands),
    ("guard_told::a_path_that_is_too_long_is_told_by_its_beginning", long),
    ("guard_told::the_call_that_a_filter_killed_for_is_told_and_no_other_threads_nor_a_signals", killed),
    ("guard_told::a_clone3_that_asks_for_a_namespace_is_told_and_any_other_is_not", namespaces),
    ("guard_told::a_refused_capability_is_told_if_it_was_taken_and_not_if_it_was_given_away", capability),
];

fn opens_of(refused: &[Refusal], end: &str) -> usize {
    let of = |r: &&Refusal| matches!(&r.refused, Refused::Write { path, .. } if path.ends_with(end));
    refused.iter().filter(of).count()
}

fn created() {
    let refused = World::new().refused_to(Container::new(&["guard", "memory", "created"]), &killing());
    assert_eq!(opens_of(&refused, "/mem"), 1, "{refused:?}");
}

fn again() {
    let world = World::new();
    let mut container = Container::heard(&["guard", "memory", "steps"]);
    let mut output = container.output();
    let mut guarded = world.guard().arm(container.pid(), &killing()).unwrap();
    container.go();
    for round in 1..=3 {
        if round == 3 {
            // No power of two: it is told in another second.
            std::thread::sleep(std::time::Duration::from_millis(1100));
        }
        container.tell("next\n");
        output.read_line(&mut String::new()).unwrap();
        assert_eq!(opens_of(&guarded.take(), "/mem"), 1, "round {round}");
    }
    container.end();
    guarded.disarm().unwrap();
}

/// In a folder of its own; what was refused and how much was lost, read as it comes.
fn read_as_it_comes(act: &[&str], is_known: impl Fn(&Refusal) -> bool) -> (Vec<Refusal>, u64) {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let path = dir.path().canonicalize().unwrap().to_str().unwrap().to_string();
    let act: Vec<&str> = act.iter().map(|word| if *word == "DIR" { path.as_str() } else { word }).collect();
    let mut container = Container::new(&act);
    let mut guarded = world.guard().arm(container.pid(), &Rules::default()).unwrap();
    container.go();
    let mut refused = Vec::new();
    while !container.has_ended() {
        refused.extend(guarded.take_news(&is_known));
    }
    refused.extend(guarded.take_news(&is_known));
    let lost = guarded.lost();
    guarded.disarm().unwrap();
    (refused, lost)
}

fn after_flood() {
    let (refused, lost) = read_as_it_comes(&["guard", "memory", "after", "DIR", "3000"], |_| false);
    assert!(lost > 1000, "{lost}");
    assert_eq!(opens_of(&refused, "/mem"), 1, "{refused:?}");
    let flood = Refused::Write { path: "(unknown)".into(), operation: "write".into(), of_nothing: false };
    assert!(times(&refused, &flood) >= 1, "{refused:?}");
}

fn known() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let path = dir.path().canonicalize().unwrap().to_str().unwrap().to_string();
    let mut container = Container::heard(&["guard", "read-only", &path, "steps", &path]);
    let mut output = container.output();
    let mut guarded = world.guard().arm(container.pid(), &Rules::default()).unwrap();
    container.go();
    let mut refused = Vec::new();
    for i in 0..3000 {
        let name = if i == 2900 { "news".to_string() } else { format!("known-{i}") };
        container.tell(&format!("{name}\n"));
        output.read_line(&mut String::new()).unwrap();
        refused.extend(guarded.take_news(|r| format!("{:?}", r.refused).contains("/known-")));
    }
    container.end();
    assert_eq!((opens_of(&refused, "/news"), guarded.lost()), (1, 0), "{refused:?}");
    assert!(!guarded.has_lost() && opens_of(&refused, "(unknown)") == 0, "{refused:?}");
    guarded.disarm().unwrap();
}

fn commands() {
    let refused = World::new().refused_to(Container::new(&["guard", "commands"]), &killing());
    assert_eq!(opens_of(&refused, guard_acts::COMMAND), 1, "{refused:?}");
    assert_eq!(opens_of(&refused, ""), 1, "{refused:?}");
}

fn long() {
    let (refused, _) = read_as_it_comes(&["guard", "long", "DIR"], |_| false);
    let told: Vec<&str> = refused
        .iter()
        .filter_map(|r| match &r.refused {
            Refused::Write { path, .. } => Some(path.as_str()),
            _ => None,
        })
        .collect();
    assert!(matches!(told[..], [one] if one.starts_with("(beginning of) /")), "{told:?}");
}

fn killed() {
    let refused = World::new().refused_to(Container::new(&["guard", "killed"]), &killing());
    let mut told: Vec<&str> = refused
        .iter()
        .filter_map(|r| match &r.refused {
            Refused::Syscall { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    told.sort_unstable();
    assert_eq!(told, ["getppid", "getuid", "x32:getpid"], "{refused:?}");
}

fn namespaces() {
    let refused = World::new().refused_to(Container::new(&["guard", "namespaces"]), &killing());
    let calls: Vec<&Refused> =
        refused.iter().map(|r| &r.refused).filter(|r| matches!(r, Refused::Syscall { .. })).collect();
    let clone3 = |arguments| Refused::Syscall { name: "clone3".into(), arguments, path: None };
    assert_eq!(calls, [&clone3(vec![libc::CLONE_NEWUSER as u64]), &clone3(vec![])], "{refused:?}");
}

fn capability() {
    const SYS_CHROOT: u64 = 1 << 18;
    let world = World::new();
    let rules = Rules { capabilities: SYS_CHROOT, may_drop: true, ..Rules::default() };
    let refused = world.refused_to(Container::new(&["guard", "capabilities"]), &rules);
    let told: Vec<&Refusal> = refused.iter().filter(|r| matches!(r.refused, Refused::Capability { .. })).collect();
    if world.guard().unseen().contains(&"capabilities".to_string()) {
        assert!(told.is_empty(), "what can't be seen is not guessed");
        return;
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].refused, Refused::Capability { name: "CAP_SYS_CHROOT".into() });
    let told = |act, rules: &Rules| {
        let refused = world.refused_to(Container::new(&["guard", act]), rules);
        refused.iter().filter(|r| matches!(r.refused, Refused::Capability { .. })).count()
    };
    assert_eq!(told("capabilities", &Rules::default()), 0);
    let strict = Rules { may_drop: false, ..rules.clone() };
    assert_eq!((told("gives-away", &rules), told("gives-away", &strict)), (0, 1), "where nobody was seen to");
}
