//! Who is let in: anybody, nobody, or who runs what sessions were seen to run.

use std::process::Output;

use lithify::guard::Limits;
use lithify::policy::{ExecRule, Policy, Response};
use lithify::supervise::launch::Outcome;

use crate::harness::Test;
use crate::world::{RUNC, World};

pub const TESTS: &[Test] = &[
    ("sessions::nobody_is_let_in_where_exec_is_deny", deny),
    ("sessions::only_known_programs_are_let_in_where_exec_is_profile_and_with_known_capabilities", profile),
];

fn running(world: &mut World, exec: ExecRule, limits: Limits) {
    let policy = Policy { exec, on_refused_syscall: Response::Report, ..world.policy() };
    let config = world.config("echo up >/out/up; exec sleep 1000");
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    world.wait_written("up");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn deny() {
    let mut world = World::new(RUNC);
    let limits = Limits { listener: false, ..world.limits() };
    running(&mut world, ExecRule::Deny, limits);
    let output = world.lithify(&["exec", &world.id, "touch", "/out/in"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("lithify.dev/exec"), "{}", said(&output));
    world.wait_for("exec", |data| data["denied"].is_string());
    assert_eq!(world.written("in"), None);
}

fn profile() {
    let mut world = World::new(RUNC);
    std::fs::copy("/bin/busybox", world.path("rootfs/bin").join("other")).expect("another program");
    let limits = Limits {
        listener: false,
        session_programs: ["/bin/busybox".to_owned()].into(),
        session_capabilities: ["CAP_KILL".to_owned()].into(),
        ..world.limits()
    };
    running(&mut world, ExecRule::Profile, limits);
    let output = world.lithify(&["exec", &world.id, "/bin/other", "touch", "/out/in"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("/bin/other") && said(&output).contains("test/1"), "{}", said(&output));
    world.wait_for("exec", |data| data["denied"].as_str().is_some_and(|d| d.contains("/bin/other")));
    assert_eq!(world.written("in"), None);
    let output = world.lithify(&[
        "exec",
        &world.id,
        "sh",
        "-c",
        "while read l; do case $l in Cap*) echo $l;; esac; done </proc/self/status",
    ]);
    assert!(output.status.success(), "{}", said(&output));
    // runc's own default has CAP_AUDIT_WRITE and CAP_NET_BIND_SERVICE beside CAP_KILL (5).
    let text = String::from_utf8_lossy(&output.stdout);
    let sets: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(sets[1..4], ["0000000000000020"; 3], "{text}");
}
