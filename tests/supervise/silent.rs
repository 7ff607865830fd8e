//! A supervisor that does not answer: every verb ends, and those that would have the container gone have it gone.

use std::time::{Duration, Instant};

use lithify::policy::Response;
use lithify::record::{Phase, Record};
use lithify::supervise::launch::Outcome;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::Test;
use crate::world::{RUNC, World};

pub const TESTS: &[Test] = &[
    ("silent::what_needs_the_supervisor_fails_in_time_and_says_why_and_sigkill_ends_the_container", killed),
    ("silent::a_forced_delete_leaves_nothing_of_the_container", deleted),
];

/// Longest time for a verb: what it waits for its answer, and as much again for what it does then.
const IN_TIME: Duration = Duration::from_secs(20);

fn begun(world: &mut World) -> Record {
    let policy = lithify::policy::Policy { on_refused_syscall: Response::Report, ..world.policy() };
    let limits = world.limits();
    let mut config = world.config("echo up >/out/up; exec sleep 1000");
    config["linux"]["seccomp"] = world.filter(&["mkdir"]);
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    world.wait_written("up");
    let record = world.eventually("the start", || Some(world.record()).filter(|r| r.phase == Phase::Running));
    kill(Pid::from_raw(record.supervisor.pid), Signal::SIGSTOP).expect("sent");
    record
}

/// What a verb says, and its status, in time.
fn called(world: &World, words: &[&str]) -> (Option<i32>, String, String) {
    let start = Instant::now();
    let output = world.lithify(words);
    eprintln!("{words:?} took {:?}", start.elapsed());
    assert!(start.elapsed() < IN_TIME, "{words:?} took {:?}", start.elapsed());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Nobody of it is left, and it has been told why.
fn is_gone(world: &World, record: &Record) {
    for pid in [record.supervisor.pid, record.init.expect("an init").pid] {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid}");
    }
    let told = |data: &Value| data["reason"].as_str().is_some_and(|reason| reason.contains("did not answer"));
    world.wait_for("degraded", told);
    assert_eq!(world.wait_for("exited", |_| true)["signal"], libc::SIGKILL);
}

fn killed() {
    let mut world = World::new(RUNC);
    let record = begun(&mut world);
    let id = world.id.clone();
    let (status, _, said) = called(&world, &["exec", &id, "true"]);
    assert_eq!(status, Some(1));
    assert!(said.contains("does not answer") && said.contains("no answer in 10 seconds"), "{said}");
    let (_, state, _) = called(&world, &["state", &id]);
    let state: Value = serde_json::from_str(&state).expect("a state");
    assert_eq!(state["pid"], record.anchor.pid, "the pid that the engine knows");
    let (status, _, said) = called(&world, &["kill", &id, "KILL"]);
    assert_eq!(status, Some(0), "{said}");
    is_gone(&world, &record);
    assert_eq!(world.record().phase, Phase::Stopped);
    world.wait_end();
    let (status, _, said) = called(&world, &["delete", &id]);
    assert_eq!(status, Some(0), "{said}");
}

fn deleted() {
    let mut world = World::new(RUNC);
    let (record, id, state) = (begun(&mut world), world.id.clone(), world.state());
    let (status, _, said) = called(&world, &["delete", "--force", &id]);
    assert_eq!(status, Some(0), "{said}");
    is_gone(&world, &record);
    assert!(!state.exists());
    world.wait_end();
}
