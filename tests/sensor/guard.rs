//! The guard: foreign programs end before they begin, refused writes and capabilities are told, and nothing else is.

use std::collections::BTreeSet;
use std::io::{BufRead, Read};
use std::time::{Duration, Instant};

use lithify::guard::{Refusal, Refused};
use lithify::sensor::guard::Rules;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use crate::container::{Container, World, session, session_of};
use crate::harness::Test;

pub const TESTS: &[Test] = &[
    ("guard::a_foreign_program_never_gets_a_write_out_three_hundred_times_each", foreign),
    ("guard::the_first_process_of_a_pid_namespace_is_killed_as_any_other", first),
    ("guard::a_foreign_program_runs_where_nobody_kills_and_is_told_once", only_told),
    ("guard::what_its_mount_keeps_from_running_is_told_and_what_lacks_permission_is_not", kept),
    ("guard::a_processs_memory_that_is_opened_for_writing_is_told_and_for_reading_is_not", memory),
    ("guard::a_call_by_an_interface_that_the_filter_does_not_have_is_told_by_its_name", interface),
    ("guard::an_allowed_program_runs_in_silence_and_one_that_a_pattern_may_mean_is_told", allowed),
    ("guard::a_moved_root_or_a_mount_over_a_program_of_the_image_hides_nothing", moved_root),
    ("guard::a_program_of_the_image_is_told_once_for_each_side_unless_it_is_allowed", image),
    ("guard::a_denied_program_of_the_image_never_begins_but_for_the_one_that_the_container_begins_with", denied),
    ("guard::a_foreign_script_is_told_by_whatever_name_and_killed_by_its_descriptor", scripts),
    ("guard::every_kind_of_refused_write_is_told_with_its_path_and_a_question_is_not", writes),
    ("guard::what_is_removed_or_renamed_and_was_not_there_is_told_apart_by_no_link_that_could_be_changed", tidy),
    ("guard::a_flood_is_bounded_and_counted_and_leaves_room_for_a_program", flood),
    ("guard::what_goes_on_is_told_again_after_a_quiet_time_that_doubles_with_how_often_it_was_met", again),
    ("guard::its_descriptor_is_readable_when_something_was_refused_and_only_then", readable),
];

const SHOUT: &str = "/target/shout";

pub fn killing() -> Rules {
    Rules { kill_foreign: true, ..Rules::default() }
}

/// Runs an act in an overlay; its output and what was refused.
fn in_overlay(world: &World, act: &[&str], rules: &Rules) -> (String, Vec<Refusal>) {
    let dir = tempfile::tempdir().unwrap();
    let mut container = Container::heard_in_overlay(dir.path(), act);
    let mut output = container.output();
    let refused = world.refused_to(container, rules);
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    (said, refused)
}

fn program(path: &str, origin: &str, killed: bool) -> Refused {
    Refused::Program { path: path.into(), origin: origin.into(), killed }
}

/// How often it is among what was refused.
pub fn times(refused: &[Refusal], what: &Refused) -> usize {
    refused.iter().filter(|r| r.refused == *what).count()
}

fn foreign() {
    let tries: [(&[&str], &str, &str); 3] = [
        (&["guard", "shout", "/target", "300"], SHOUT, "upper"),
        (&["guard", "tmpfs", "shout", "/target", "300"], SHOUT, "tmpfs"),
        (&["guard", "shout", "memfd", "300"], "/memfd:hidden", "anonymous"),
    ];
    for (act, path, origin) in tries {
        let (said, refused) = in_overlay(&World::new(), act, &killing());
        assert_eq!(said, "killed 300\n", "of {origin}");
        assert_eq!(times(&refused, &program(path, origin, true)), 1, "{refused:?}");
        let told = refused.iter().find(|r| matches!(r.refused, Refused::Program { killed: true, .. })).unwrap();
        assert!(told.pid > 1 && !told.session, "{told:?}");
    }
}

fn first() {
    let (said, refused) = in_overlay(&World::new(), &["guard", "first"], &killing());
    assert_eq!(said, "killed 1\n");
    assert_eq!(times(&refused, &program("/shout", "upper", true)), 1, "{refused:?}");
}

fn only_told() {
    let (said, refused) = in_overlay(&World::new(), &["guard", "shout", "/target", "3"], &Rules::default());
    assert_eq!(said, "xxxkilled 0\n");
    assert_eq!(times(&refused, &program(SHOUT, "upper", false)), 1, "{refused:?}");
}

fn kept() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let mut container = Container::heard_in_overlay(dir.path(), &["guard", "noexec", "kept-and-wait", "/target"]);
    let mut guarded = world.guard().arm(container.pid(), &killing()).unwrap();
    container.go();
    container.hears("library Err(EPERM)");
    let refused = guarded.take();
    container.end();
    guarded.disarm().unwrap();
    for path in ["/target/kept", "/target/gone", "/target/library"] {
        assert_eq!(times(&refused, &program(path, "tmpfs", true)), 1, "{path}: {refused:?}");
    }
    assert!(!format!("{refused:?}").contains("/permission"), "{refused:?}");
}

fn interface() {
    let world = World::new();
    let refused = world.refused_to(Container::new(&["guard", "interface"]), &killing());
    let call = Refused::Syscall { name: "i386:getpid".into(), arguments: Vec::new(), path: None };
    assert_eq!(times(&refused, &call), 1, "{refused:?}");
}

fn memory() {
    let world = World::new();
    let told = |act: &[&str]| world.refused_to(Container::new(act), &killing());
    let wrote = |r: &Refusal| matches!(&r.refused, Refused::Write { path, .. } if path.starts_with("/proc/") && path.ends_with("/mem"));
    let refused = told(&["guard", "memory", "write"]);
    assert_eq!(refused.iter().filter(|r| wrote(r)).count(), 1, "{refused:?}");
    let refused = told(&["guard", "memory", "read"]);
    assert!(!refused.iter().any(|r| matches!(r.refused, Refused::Write { .. })), "{refused:?}");
}

fn allowed() {
    let world = World::new();
    // It stays loaded over the rounds.
    let idle = Container::new(&["nothing"]);
    let _held = world.guard().arm(idle.pid(), &Rules::default()).unwrap();
    let with = |allowed: &[&str], folder: &str| {
        let allowed = allowed.iter().map(ToString::to_string).collect();
        in_overlay(&world, &["guard", "shout", folder, "2"], &Rules { allowed, ..killing() })
    };
    let (said, refused) = with(&["/program", "/scratch/shout"], "/scratch");
    assert_eq!((said.as_str(), refused.as_slice()), ("xxkilled 0\n", [].as_slice()));
    for pattern in ["/scratch/*", "/scratch/sh*", "/scra*/shout", "/*/other"] {
        let (said, refused) = with(&[pattern], "/scratch");
        assert_eq!(said, "xxkilled 0\n", "with {pattern}");
        assert_eq!(times(&refused, &program("/scratch/shout", "tmpfs", false)), 1, "with {pattern}: {refused:?}");
    }
    for other in ["/scratch", "/scratch/shou", "/scratch/shout/x", "/scratch/\\052", "/scra/*", "/scratch/x/*", ""] {
        let (said, _) = with(&[other], "/scratch");
        assert_eq!(said, "killed 2\n", "with {other}");
    }
    let by_hand = |path: &str, folder: &str| {
        let path = vec![path.to_string()];
        let rules = Rules { allowed: path.clone(), by_hand: path, ..killing() };
        in_overlay(&world, &["guard", "shout", folder, "2"], &rules).0
    };
    assert_eq!(by_hand(SHOUT, "/target"), "xxkilled 0\n", "what was not there was not the image's that was meant");
    assert_eq!(by_hand("/target/other", "/target"), "killed 2\n", "another one there");
    // On the root, the image's is meant.
    for pattern in [SHOUT, "/target/*"] {
        assert_eq!(with(&[pattern], "/target").0, "killed 2\n", "with {pattern}");
    }
}

fn moved_root() {
    let program = vec!["/program".to_string()];
    let both = Rules { allowed: program.clone(), by_hand: program, ..killing() };
    for act in [["guard", "chroot", "/scratch"], ["guard", "over", "/program"]] {
        let (said, refused) = in_overlay(&World::new(), &act, &both);
        assert_eq!(said, "killed 1\n", "{refused:?}");
        let told =
            |r: &Refusal| matches!(&r.refused, Refused::Program { origin, killed: true, .. } if origin == "tmpfs");
        assert!(refused.iter().any(told), "{refused:?}");
    }
}

fn image() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let run = |rules: &Rules| {
        let mut container = Container::in_overlay(dir.path().join("c").as_path(), &["until-told"]);
        let mut guarded = world.guard().arm(container.pid(), rules).unwrap();
        container.go();
        container.until_program();
        for _ in 0..2 {
            assert_eq!(session_of(&container.namespace(), "/program", &["nothing"]), 0);
        }
        container.tell("\n");
        assert_eq!(container.end(), 0);
        let refused = guarded.take();
        guarded.disarm().unwrap();
        refused
    };
    std::fs::create_dir(dir.path().join("c")).unwrap();
    let refused = run(&killing());
    let of = |session: bool| refused.iter().filter(|r| r.session == session).collect::<Vec<_>>();
    assert_eq!(of(false).len(), 1, "{refused:?}");
    assert_eq!(of(false)[0].refused, program("/program", "image", false));
    assert_eq!(of(true).len(), 1, "{refused:?}");
    assert_eq!(of(true)[0].refused, program("/program", "image", false));
    std::fs::remove_dir_all(dir.path().join("c")).unwrap();
    std::fs::create_dir(dir.path().join("c")).unwrap();
    let refused = run(&Rules { allowed: vec!["/program".into()], ..killing() });
    assert!(refused.is_empty(), "{refused:?}");
}

fn denied() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let mut container = Container::in_overlay(dir.path(), &["until-told"]);
    let denying = Rules { denied: vec!["/program".into()], ..Rules::default() };
    let mut guarded = world.guard().arm(container.pid(), &denying).unwrap();
    container.go();
    container.until_program();
    assert_ne!(session_of(&container.namespace(), "/program", &["nothing"]), 0);
    container.tell("\n");
    assert_eq!(container.end(), 0, "what it begins with");
    let refused: Vec<Refused> = guarded.take().into_iter().map(|r| r.refused).collect();
    assert_eq!(refused, [program("/program", "image", true)]);
    guarded.disarm().unwrap();
}

fn scripts() {
    let world = World::new();
    let act = ["guard", "tmpfs", "script", "/target"];
    let dir = tempfile::tempdir().unwrap();
    let mut container = Container::heard_in_overlay(dir.path(), &act);
    let mut output = container.output();
    let mut guarded = world.guard().arm(container.pid(), &killing()).unwrap();
    container.go();
    let mut said = String::new();
    output.read_line(&mut said).unwrap();
    let refused = guarded.take();
    container.end();
    assert_eq!(said, "ran ran ran ran killed\n");
    let scripts = ["/target/by-path", "/link/linked", "/target/relative"].map(|path| (path.to_string(), false));
    let wanted = scripts.into_iter().chain([("/target/by-file".to_string(), true)]);
    let told = refused.iter().filter_map(|r| match &r.refused {
        Refused::Program { path, origin, killed } if origin == "tmpfs" => Some((path.clone(), *killed)),
        _ => None,
    });
    assert_eq!(told.collect::<BTreeSet<_>>(), wanted.collect::<BTreeSet<_>>(), "{refused:?}");
    assert!(!refused.iter().any(|r| matches!(&r.refused, Refused::Program { path, .. } if path.contains("of-root"))));
    guarded.disarm().unwrap();
}

fn writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().to_str().unwrap().to_string();
    let refused = World::new().refused_to(Container::new(&["guard", "writes", &path]), &Rules::default());
    let told: BTreeSet<(String, String)> = refused
        .iter()
        .filter_map(|r| match &r.refused {
            Refused::Write { path, operation, .. } => Some((operation.clone(), path.clone())),
            _ => None,
        })
        .collect();
    let wanted = [
        ("write", "there"),
        ("create", "new"),
        ("create", "made"),
        ("create", "link"),
        ("create", "fifo"),
        ("create", "socket"),
        ("remove", "there"),
        ("remove", "folder"),
        ("rename", "there"),
        ("create", "moved"),
        ("create", "hard"),
        ("attributes", "folder"),
        ("attributes", "there"),
    ];
    let wanted: BTreeSet<(String, String)> =
        wanted.iter().map(|(operation, name)| (operation.to_string(), format!("{path}/{name}"))).collect();
    assert_eq!(told, wanted);
    assert!(refused.iter().all(|r| r.pid > 1 && !r.program.is_empty()), "{refused:?}");
}

fn tidy() {
    let (_, refused) = in_overlay(&World::new(), &["guard", "tidy"], &Rules::default());
    let told: BTreeSet<(&str, &str, bool)> = refused
        .iter()
        .filter_map(|r| match &r.refused {
            Refused::Write { path, operation, of_nothing } => Some((operation.as_str(), path.as_str(), *of_nothing)),
            _ => None,
        })
        .collect();
    let of_nothing = [
        ("remove", "/missing"),
        ("remove", "/way/missing"),
        ("remove", "/absent"),
        ("rename", "/old"),
        ("create", "/new"),
    ];
    let of_something = [
        ("remove", "/scratch/up/missing"),
        ("remove", "/missing"),
        ("remove", "/file"),
        ("remove", "/way"),
        ("remove", "/odd\u{fffd}"),
        ("remove", "/target"),
        ("rename", "/file"),
        ("create", "/moved"),
        ("rename", "/program"),
        ("create", "/hard"),
        ("create", "/made"),
    ];
    let wanted = |all: &[(&'static str, &'static str)], of_nothing| -> Vec<(&str, &str, bool)> {
        all.iter().map(|(operation, path)| (*operation, *path, of_nothing)).collect()
    };
    let wanted: BTreeSet<_> = [wanted(&of_nothing, true), wanted(&of_something, false)].concat().into_iter().collect();
    assert_eq!(told, wanted, "'/target/../missing' is left to the kernel");
}

fn flood() {
    const TIMES: usize = 20_000;
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().to_str().unwrap().to_string();
    let mut container = Container::new(&["guard", "flood", &path, &TIMES.to_string()]);
    let mut guarded = world.guard().arm(container.pid(), &Rules::default()).unwrap();
    container.go();
    let mut refused = Vec::new();
    while !container.has_ended() {
        refused.extend(guarded.take());
    }
    refused.extend(guarded.take());
    let writes = refused.iter().filter(|r| matches!(r.refused, Refused::Write { .. })).count();
    assert!((64..=1024 + 64).contains(&writes), "{writes} of {TIMES} were told");
    assert!(
        guarded.has_lost() && guarded.lost() >= (TIMES + 1 - writes) as u64,
        "{} of {TIMES} were lost",
        guarded.lost()
    );
    let same = Refused::Write { path: format!("{path}/same"), operation: "create".into(), of_nothing: false };
    assert_eq!(times(&refused, &same), 1);
    let programs = refused.iter().filter(|r| matches!(r.refused, Refused::Program { .. })).count();
    assert_eq!(programs, 1, "both of its programs are one path");
    guarded.disarm().unwrap();
}

fn again() {
    let world = World::new();
    let mut container = Container::heard(&["until-told"]);
    let rules = Rules { quiet_seconds: 2, ..Rules::default() };
    let mut guarded = world.guard().arm(container.pid(), &rules).unwrap();
    container.go();
    container.until_program();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    let began = Instant::now();
    let (mut sessions, mut counts) = (0, Vec::new());
    // Told at once, once after two seconds, once after four more.
    while began.elapsed() < Duration::from_secs(9) {
        let act = if sessions == 0 { "writes" } else { "writes-again" };
        assert_eq!(session(&container, &["guard", act, &path]), 0);
        sessions += 1;
        let all = guarded.take();
        let made = |r: &&Refusal| matches!(&r.refused, Refused::Write { path, .. } if path.ends_with("/new"));
        counts.push(all.iter().filter(made).map(|r| r.count).next());
        std::thread::sleep(Duration::from_millis(100));
    }
    let told: Vec<u64> = counts.iter().flatten().copied().collect();
    assert_eq!((told.len(), told[0]), (3, 1), "{counts:?}");
    assert!(told[1] > 1 && told[2] > told[1] && told.iter().sum::<u64>() <= sessions, "{counts:?} of {sessions}");
    container.tell("\n");
    assert_eq!(container.end(), 0);
    guarded.disarm().unwrap();
}

fn readable() {
    let world = World::new();
    let mut container = Container::heard(&["until-told"]);
    let exe = std::env::current_exe().unwrap().canonicalize().unwrap().to_str().unwrap().to_string();
    let rules = Rules { allowed: vec![exe], ..Rules::default() };
    let mut guarded = world.guard().arm(container.pid(), &rules).unwrap();
    container.go();
    container.until_program();
    let is_readable = |guarded: &lithify::sensor::guard::Guarded, ms: u16| {
        poll(&mut [PollFd::new(guarded.as_fd(), PollFlags::POLLIN)], PollTimeout::from(ms)).unwrap() == 1
    };
    assert!(!is_readable(&guarded, 50));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(session(&container, &["guard", "writes", dir.path().to_str().unwrap()]), 0);
    assert!(is_readable(&guarded, 10_000));
    let refused = guarded.take();
    assert!(refused.iter().any(|r| r.session && matches!(r.refused, Refused::Write { .. })), "{refused:?}");
    assert!(!is_readable(&guarded, 50));
    assert!(guarded.take().is_empty());
    container.tell("\n");
    assert_eq!(container.end(), 0);
    guarded.disarm().unwrap();
}
