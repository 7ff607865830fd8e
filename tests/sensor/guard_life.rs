//! The guard's coming and going: loaded for the first container, gone with the last, whole after a crash, each to its own.

use std::collections::BTreeMap;
use std::io::BufRead;

use lithify::guard::{Refusal, Refused};
use lithify::sensor::guard::{Guarded, Rules};
use lithify::sensor::owners;
use lithify::sys::process::{self, Fork};

use crate::container::{Container, World, ctl, session_in, within};
use crate::harness::Test;

pub const TESTS: &[Test] = &[
    ("guard_life::the_first_container_loads_it_and_the_last_one_unloads_it_whatever_the_sensor_does", first_and_last),
    ("guard_life::a_container_whose_armer_died_is_swept_and_the_guard_unloaded", dead_armer),
    ("guard_life::two_containers_are_told_of_apart", apart),
    ("guard_life::a_session_is_told_from_the_workload", sessions),
    ("guard_life::two_containers_that_get_the_same_namespace_number_are_not_mixed", recycled),
    ("guard_life::a_process_that_has_ended_can_not_be_guarded", ended),
    ("guard_life::a_guard_that_is_taken_away_is_a_loss", taken_away),
];

/// A folder of the node, and a guarded container that may not write there.
fn guarded(world: &World, act: &[&str]) -> (Guarded, Container) {
    let container = Container::heard(act);
    let guarded = world.guard().arm(container.pid(), &Rules::default()).unwrap_or_else(|e| panic!("{e:#}"));
    (guarded, container)
}

fn is_loaded(world: &World) -> bool {
    let place = world.place.guard();
    place.pins.exists() || place.loading().exists()
}

fn writes(refused: &[Refusal]) -> Vec<(&str, bool)> {
    let write = |r: &'_ Refusal| matches!(r.refused, Refused::Write { .. });
    let all = refused.iter().filter(|r| write(r));
    all.map(|r| if let Refused::Write { path, .. } = &r.refused { (path.as_str(), r.session) } else { ("", false) })
        .collect()
}

fn first_and_last() {
    let world = World::new();
    let (a, _one) = guarded(&world, &["nothing"]);
    assert!(is_loaded(&world) && !world.is_loaded());
    let (recorded, _other) = world.armed(&["nothing"]);
    let (b, _two) = guarded(&world, &["nothing"]);
    a.disarm().unwrap();
    recorded.disarm().unwrap();
    assert!(is_loaded(&world) && !world.is_loaded());
    let unload = || ctl(&["sensor", "unload", "--guard", "--state-dir"], &world.place).output().unwrap().status;
    assert!(!unload().success(), "it is in use");
    b.disarm().unwrap();
    assert!(!is_loaded(&world));
    world.guard().leave().unwrap();
    assert!(!is_loaded(&world), "nobody has armed anything");
    assert!(unload().success(), "nothing to unload is well");
}

fn dead_armer() {
    let world = World::new();
    let container = Container::new(&["nothing"]);
    match process::fork().unwrap() {
        Fork::Parent(pid) => assert_eq!(process::wait_pid(pid).unwrap(), process::Exit::Code(0)),
        Fork::Child => {
            let armed = world.guard().arm(container.pid(), &Rules::default());
            // Its end runs nothing that lets go.
            process::exit_now(i32::from(armed.is_err()))
        }
    }
    assert!(is_loaded(&world));
    assert_eq!(owners::holders(&world.place.guard()).unwrap(), None);
    assert!(!is_loaded(&world));
}

/// Makes its folder read-only before it is told what to write.
fn writer(world: &World) -> (Guarded, Container, tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().to_str().unwrap().to_string();
    let (guard, mut container) = guarded(world, &["guard", "read-only", &path, "steps", &path]);
    container.go();
    container.until_program();
    (guard, container, dir, path)
}

fn apart() {
    let world = World::new();
    let mut all: Vec<_> = (0..3).map(|_| writer(&world)).collect();
    for (i, (_, container, ..)) in all.iter_mut().enumerate() {
        container.tell(&format!("of-{i}\n"));
    }
    for (i, (guard, container, _dir, path)) in all.iter_mut().enumerate() {
        assert_eq!(container.end(), 0);
        let refused = guard.take();
        assert_eq!(writes(&refused), [(format!("{path}/of-{i}").as_str(), false)], "{refused:?}");
    }
}

fn sessions() {
    let world = World::new();
    let (mut guard, mut container, _dir, path) = writer(&world);
    container.tell("own\n");
    container.hears("own");
    assert_eq!(session_in(&container.namespace(), &["guard", "one-write", &path]), 0);
    let refused = guard.take();
    let wanted = [(format!("{path}/own"), false), (format!("{path}/one"), true)];
    let wanted: Vec<(&str, bool)> = wanted.iter().map(|(p, s)| (p.as_str(), *s)).collect();
    assert_eq!(writes(&refused), wanted, "{refused:?}");
    assert_eq!(container.end(), 0);
    guard.disarm().unwrap();
}

fn recycled() {
    let world = World::new();
    // It stays loaded over the rounds.
    let (held, _idle) = guarded(&world, &["nothing"]);
    let mut numbers = BTreeMap::new();
    for _ in 0..12 {
        let (mut guard, mut container, _dir, path) = writer(&world);
        let ns = std::fs::read_link(format!("/proc/{}/ns/mnt", container.pid())).unwrap();
        *numbers.entry(ns).or_insert(0) += 1;
        assert_eq!(container.end(), 0);
        // It has ended and is still guarded; the next one may get its namespace's number and is not.
        let mut next = Container::new(&["guard", "read-only", &path, "one-write", &path]);
        let same = std::fs::read_link(format!("/proc/{}/ns/mnt", next.pid())).unwrap();
        *numbers.entry(same).or_insert(0) += 1;
        next.go();
        assert_eq!(next.end(), 0);
        let refused = guard.take();
        assert!(writes(&refused).is_empty(), "{refused:?}");
        guard.disarm().unwrap();
    }
    held.disarm().unwrap();
    assert!(numbers.values().any(|n| *n > 1), "the kernel recycles numbers, or this has tried nothing");
}

fn ended() {
    let world = World::new();
    let mut container = Container::new(&["nothing"]);
    let pid = container.pid();
    container.kill();
    let error = world.guard().arm(pid, &Rules::default()).unwrap_err();
    assert!(format!("{error:#}").contains(&pid.to_string()), "{error:#}");
}

fn taken_away() {
    let world = World::new();
    let (mut guard, mut container, _dir, _path) = writer(&world);
    assert_eq!(guard.lost(), 0);
    assert!(!guard.is_broken());
    std::fs::remove_file(world.place.guard().pins.join("link-leave")).unwrap();
    assert!(guard.is_broken());
    // The kernel takes its time until the program is gone for good.
    let (mut output, mut steps) = (container.output(), 0);
    within(|| {
        steps += 1;
        container.tell(&format!("{steps}\n"));
        output.read_line(&mut String::new()).unwrap();
        writes(&guard.take()).is_empty()
    });
    assert_eq!(container.end(), 0);
    assert_eq!(guard.lost(), 1);
    guard.disarm().unwrap();
}
