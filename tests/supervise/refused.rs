//! Refused system calls: told, answered, and never in the way.

use std::time::{Duration, Instant};

use lithify::guard::Limits;
use lithify::policy::{Policy, Response, RestartLimit};
use lithify::record::Phase;
use lithify::supervise::launch::Outcome;
use serde_json::Value;

use crate::harness::Test;
use crate::world::{CRUN, RUNC, World};

pub const TESTS: &[Test] = &[
    ("refused::runc_reported_and_refused_and_the_workload_goes_on", || report(RUNC, false)),
    ("refused::runc_reported_and_refused_with_no_new_privileges", || report(RUNC, true)),
    ("refused::crun_reported_and_refused_and_the_workload_goes_on", || report(CRUN, false)),
    ("refused::crun_reported_and_refused_with_no_new_privileges", || report(CRUN, true)),
    ("refused::restart_comes_before_the_caller_has_its_answer", restart),
    ("refused::a_call_that_was_denied_though_it_is_a_habit_is_told_and_nothing_follows", habit),
    ("refused::a_restart_limit_counts_refusals_and_escalates", escalate),
    ("refused::pause_freezes_and_the_workload_goes_on_when_it_is_resumed", pause),
    ("refused::a_deadly_call_kills_its_caller_and_nobody_else", deadly),
    ("refused::a_flood_is_counted_then_left_to_the_kernel_and_said_so", flood),
    (
        "refused::a_session_that_floods_its_own_filter_takes_nothing_from_what_its_workload_is_told_and_answered",
        flooding_session,
    ),
    (
        "refused::a_workload_that_floods_its_filter_with_a_denied_habit_is_answered_once_and_not_left_unheard",
        flooding_habit,
    ),
    ("refused::every_repetition_of_what_is_only_reported_is_counted", repeated),
    ("refused::a_call_whose_caller_was_killed_at_once_is_told_by_its_name", killed_at_once),
    ("refused::with_the_supervisor_gone_calls_are_refused_at_once", orphaned),
    ("refused::sessions_are_told_and_never_answered", session_only),
];

/// `mkdir`, however a libc makes it.
const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

fn report_policy(world: &World) -> Policy {
    Policy { on_refused_syscall: Response::Report, on_refused_write: Response::Report, ..world.policy() }
}

fn is_mkdir(data: &Value) -> bool {
    data["kind"] == "refused-syscall" && data["syscall"].as_str().is_some_and(|name| MKDIR.contains(&name))
}

/// Create and start apart, as engines call.
fn report(runtime: &'static str, no_new_privileges: bool) {
    let mut world = World::new(runtime);
    let mut config = world.config("mkdir /out/made 2>/out/said; echo $? >/out/status; exec sleep 1000");
    config["process"]["noNewPrivileges"] = no_new_privileges.into();
    config["linux"]["seccomp"] = world.filter(&MKDIR);
    let outcome = world.launch(config, report_policy(&world), world.limits(), None, false);
    assert_eq!(outcome, Outcome::Ready, "{}", world.log());
    world.start();
    assert_eq!(world.wait_written("status"), "1\n");
    assert!(world.written("said").is_some_and(|said| said.contains("Operation not permitted")));
    let breach = world.wait_for("breach", is_mkdir);
    assert_eq!((&breach["path"], &breach["session"]), (&"/out/made".into(), &false.into()), "{breach}");
    assert_eq!((&breach["response"], &breach["profile"]), (&"report".into(), &"test/1".into()), "{breach}");
    assert!(breach["program"].as_str().is_some_and(|program| program.ends_with("/bin/busybox")), "{breach}");
    assert!(breach["pid"].as_i64().is_some_and(|pid| pid > 0), "{breach}");

    assert_eq!(world.exec("mkdir /out/session"), Some(1));
    let session = world.wait_for("breach", |data| is_mkdir(data) && data["session"] == true);
    assert_eq!((&session["path"], &session["response"]), (&"/out/session".into(), &"report".into()), "{session}");
    for event in [&breach, &session] {
        assert_eq!(event["item"].as_str(), event["syscall"].as_str().map(|call| format!("syscall {call}")).as_deref());
    }
    let record = world.eventually("the record", || Some(world.record()).filter(|record| record.refusals == 2));
    assert_eq!((record.phase, record.generation), (Phase::Running, 1));
    let last = record.last_refusal.expect("the newest refusal");
    assert!(last.what.ends_with(" /out/session") && last.session, "{last:?}");
    world.end();
    assert_eq!(world.of("exited").len(), 1, "{:#?}", world.events());
}

fn answered(world: &World, response: Response) -> Policy {
    Policy { on_refused_syscall: response, ..report_policy(world) }
}

/// The first generation makes the call, the others do not.
const ONCE: &str = "[ -e /out/once ] && { echo again >/out/again; exec sleep 1000; }; : >/out/once; mkdir /out/made; echo after >/out/after; exec sleep 1000";

fn begun(world: &mut World, script: &str, told: &[&str], policy: Policy, limits: Limits) {
    let mut config = world.config(script);
    config["linux"]["seccomp"] = world.filter(told);
    let outcome = world.launch(config, policy, limits, None, true);
    assert_eq!(outcome, Outcome::Ready, "{}", world.log());
}

fn restart() {
    for runtime in [RUNC, CRUN] {
        let mut world = World::new(runtime);
        let policy = answered(&world, Response::Restart);
        let limits = world.limits();
        begun(&mut world, ONCE, &MKDIR, policy, limits);
        world.wait_written("again");
        assert_eq!(world.written("after"), None, "the caller had no answer");
        let breach = world.wait_for("breach", is_mkdir);
        assert_eq!((&breach["response"], &breach["generation"]), (&"restart".into(), &1.into()), "{breach}");
        let restarted = world.wait_for("restarted", |_| true);
        assert_eq!(restarted["generation"], 2, "{restarted}");
        let words: Vec<String> = world.events().iter().map(|e| e["type"].to_string()).collect();
        assert!(
            words.iter().position(|w| w.contains("breach")) < words.iter().position(|w| w.contains("restarted")),
            "{words:?}"
        );
        world.end();
        assert_eq!(world.of("exited").len(), 1);
    }
}

fn habit() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Restart);
    let habits = MKDIR.map(|call| format!("syscall {call}"));
    let limits = Limits { denied: habits.clone().into(), denied_habits: habits.into(), ..world.limits() };
    begun(&mut world, "mkdir /out/made; echo after >/out/after; exec sleep 1000", &MKDIR, policy, limits);
    world.wait_written("after");
    let breach = world.wait_for("breach", is_mkdir);
    assert_eq!((&breach["response"], world.record().generation), (&"report".into(), 1), "{breach}");
}

fn escalate() {
    let mut world = World::new(RUNC);
    let limit = RestartLimit { count: 2, window: Duration::from_secs(60) };
    let policy = Policy { restart_limit: limit, ..answered(&world, Response::Restart) };
    let limits = world.limits();
    begun(&mut world, "mkdir /out/made; exec sleep 1000", &MKDIR, policy, limits);
    let escalated = world.wait_for("escalated", |_| true);
    assert_eq!(escalated["response"], "stop", "{escalated}");
    world.wait_for("exited", |data| data["signal"] == libc::SIGKILL);
    assert_eq!(world.of("restarted").len(), 2);
    world.eventually("the count", || (world.record().refusals == 3).then_some(()));
}

fn pause() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Pause);
    let limits = world.limits();
    begun(&mut world, "mkdir /out/made; sleep 0.2; echo after >/out/after; exec sleep 1000", &MKDIR, policy, limits);
    let breach = world.wait_for("breach", is_mkdir);
    assert_eq!(breach["response"], "pause", "{breach}");
    world.eventually("the pause", || (world.record().phase == Phase::Paused).then_some(()));
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(world.written("after"), None, "it is frozen");
    assert!(world.runtime(&["resume", &world.id]).status.success());
    world.wait_written("after");
}

fn deadly() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Report);
    let limits = Limits { deadly_syscalls: MKDIR.map(str::to_owned).into(), ..world.limits() };
    let script = "sh -c 'mkdir /out/made; echo lived >/out/lived'; sh -c 'exec mkdir /out/made'; echo $? >/out/status; exec sleep 1000";
    begun(&mut world, script, &MKDIR, policy, limits);
    assert_eq!(world.wait_written("status"), "137\n", "killed, and its parent lives");
    let breach = world.wait_for("breach", is_mkdir);
    assert_eq!(breach["path"], "/out/made", "{breach}");
    assert_eq!(world.record().phase, Phase::Running);
}

/// `umask` is a call that a shell makes by itself, so often as the kernel lets it.
fn flood() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Report);
    let limits = world.limits();
    let script = "n=0; while [ $n -lt 30000 ]; do umask 0; n=$((n+1)); done; echo done >/out/done; exec sleep 1000";
    let start = Instant::now();
    begun(&mut world, script, &["umask"], policy, limits);
    world.wait_written("done");
    eprintln!("30,000 refused calls took {:?}", start.elapsed());
    world.wait_for("degraded", |data| data["reason"].as_str().is_some_and(|r| r.contains("too many refused")));
    let told = world.eventually("all that was answered", || {
        let told = world.of("breach");
        let counted: u64 = told.iter().filter_map(|event| event["data"]["count"].as_u64()).sum();
        (20_000..=30_000).contains(&counted).then_some(told)
    });
    assert!(told.len() < 30, "{} events", told.len());
    assert_eq!(world.exec("exit 7"), Some(7), "the container can be used");
}

/// More than is answered at once, and so many more that time earns none of it back.
const FLOOD: &str = "n=0; while [ $n -lt 30000 ]; do umask 0; n=$((n+1)); done";

fn flooding_session() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Restart);
    let limits = world.limits();
    let script = format!("until [ -e /out/go ]; do sleep 0.05; done; {ONCE}");
    begun(&mut world, &script, &[&MKDIR[..], &["umask"]].concat(), policy, limits);
    for _ in 0..2 {
        assert_eq!(world.exec(&format!("{FLOOD}; mkdir /out/session")), Some(1), "refused to its end");
    }
    let of_session = |data: &Value| data["reason"].as_str().is_some_and(|r| r.contains("in a session"));
    world.eventually("both sessions' losses", || {
        let told = world.of("degraded");
        (told.iter().filter(|event| of_session(&event["data"])).count() == 2).then_some(())
    });
    std::fs::write(world.path("out").join("go"), "").expect("written");
    world.wait_written("again");
    assert_eq!(world.written("after"), None, "the caller had no answer");
    let breach = world.wait_for("breach", |data| is_mkdir(data) && data["session"] == false);
    assert_eq!((&breach["path"], &breach["response"]), (&"/out/made".into(), &"restart".into()), "{breach}");
    let record = world.eventually("the second generation", || Some(world.record()).filter(|r| r.generation == 2));
    assert_eq!(record.degraded.iter().filter(|reason| reason.contains("in a session")).count(), 1, "{record:?}");
}

fn flooding_habit() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Restart);
    let habits: [String; 1] = ["syscall umask".to_owned()];
    let limits = Limits { denied: habits.clone().into(), denied_habits: habits.into(), ..world.limits() };
    let script = format!(
        "[ -e /out/once ] && {{ sleep 1; umask 0; echo again >/out/again; exec sleep 1000; }}; : >/out/once; {FLOOD}; echo after >/out/after; exec sleep 1000"
    );
    begun(&mut world, &script, &["umask"], policy, limits);
    world.wait_written("again");
    assert_eq!(world.written("after"), None, "its flood had no end");
    let breach = world.wait_for("breach", |data| data["response"] == "restart");
    assert_eq!((&breach["syscall"], &breach["generation"]), (&"umask".into(), &1.into()), "{breach}");
    let again = world.wait_for("breach", |data| data["generation"] == 2);
    assert_eq!((&again["syscall"], &again["response"]), (&"umask".into(), &"report".into()), "{again}");
    assert_eq!(world.record().generation, 2, "answered once");
}

fn orphaned() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Report);
    let limits = world.limits();
    let script = "while ! [ -e /out/go ]; do sleep 0.05; done; mkdir /out/made; echo $? >/out/status; exec sleep 1000";
    // Without a pid namespace that ends with it, and without an anchor: what is left is the kernel's alone.
    begun(&mut world, script, &MKDIR, policy, limits);
    let record = world.eventually("the start", || Some(world.record()).filter(|r| r.phase == Phase::Running));
    let init = record.init.expect("an init").pid;
    for pid in [record.supervisor.pid, record.anchor.pid] {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    std::fs::write(world.path("out").join("go"), "").expect("written");
    // Either it ends with its supervisor, or its call is refused at once; it never hangs.
    let gone = || !std::path::Path::new(&format!("/proc/{init}")).exists();
    world.eventually("an end or an answer", || (gone() || world.written("status").is_some()).then_some(()));
    assert!(!world.path("out").join("made").exists());
}

fn repeated() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Report);
    let limits = world.limits();
    let script = "n=0; while [ $n -lt 60 ]; do mkdir /out/made; n=$((n+1)); done; \
        while ! [ -e /out/go ]; do sleep 0.05; done; mkdir /out/made; mkdir /out/made; exec sleep 1000";
    begun(&mut world, script, &MKDIR, policy, limits);
    let counted = |count| world.eventually("the count", || (world.record().refusals == count).then_some(()));
    counted(60);
    std::fs::write(world.path("out").join("go"), "").expect("written");
    counted(62);
    let told: u64 = world.of("breach").iter().filter_map(|event| event["data"]["count"].as_u64()).sum();
    assert_eq!(told, 62);
}

/// Children that do nothing but the call, so that they are mostly in it when they are killed.
fn killed_at_once() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Report);
    let limits = world.limits();
    let script = "n=0; while [ $n -lt 80 ]; do ( while :; do umask 7; done ) & p=$!; sleep 0.001; kill -9 $p; wait $p; \
        sleep 0.03; n=$((n+1)); done; echo done >/out/done; exec sleep 1000";
    begun(&mut world, script, &["umask"], policy, limits);
    world.wait_written("done");
    // Of those nobody can say any more which program it was.
    let of_nobody = |refusal: &Value| refusal["program"] == "" && refusal["refused"] == "umask" && refusal["pid"] != 0;
    world.wait_for("breach", |data| data["refusals"].as_array().is_some_and(|all| all.iter().any(of_nobody)));
    assert_eq!(world.record().generation, 1);
}

fn session_only() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Restart);
    let limits = world.limits();
    begun(&mut world, "echo up >/out/up; exec sleep 1000", &MKDIR, policy, limits);
    world.wait_written("up");
    assert_eq!(world.exec("mkdir /out/made"), Some(1));
    let breach = world.wait_for("breach", is_mkdir);
    assert_eq!((&breach["session"], &breach["response"]), (&true.into(), &"report".into()), "{breach}");
    let record = world.record();
    assert_eq!((record.phase, record.generation), (Phase::Running, 1));
}
