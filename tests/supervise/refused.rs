//! Refused system calls: told, answered, and never in the way.

use std::time::{Duration, Instant};

use lithify::guard::Limits;
use lithify::policy::{Policy, Response};
use lithify::record::Phase;
use lithify::supervise::launch::Outcome;
use serde_json::Value;

use crate::Test;
use crate::world::{CRUN, RUNC, World};

pub const TESTS: &[Test] = &[
    ("refused::runc_reported_and_refused_and_the_workload_goes_on", || report(RUNC, false)),
    ("refused::runc_reported_and_refused_with_no_new_privileges", || report(RUNC, true)),
    ("refused::crun_reported_and_refused_and_the_workload_goes_on", || report(CRUN, false)),
    ("refused::crun_reported_and_refused_with_no_new_privileges", || report(CRUN, true)),
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
    let record = world.eventually("the record", || Some(world.record()).filter(|record| record.refusals == 2));
    assert_eq!((record.phase, record.generation), (Phase::Running, 1));
    let last = record.last_refusal.expect("the newest refusal");
    assert!(last.what.ends_with(" /out/session") && last.session, "{last:?}");
    world.end();
    assert_eq!(world.of("exited").len(), 1, "{:#?}", world.events());
}
