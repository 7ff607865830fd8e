//! Memory and files of a container that nobody ever gets an answer from, and supervisors that go on.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lithify::guard::Limits;
use lithify::policy::{Policy, Response};
use lithify::supervise::launch::Outcome;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::fuse::{Fuse, READ, STATFS};
use crate::harness::Test;
use crate::world::{RUNC, World};

pub const TESTS: &[Test] = &[
    ("hanging::a_call_whose_path_is_in_memory_that_never_comes_is_told_and_the_container_begins_again", memory),
    ("hanging::a_flood_of_paths_that_never_come_holds_nobody_up", flood),
    ("hanging::a_script_on_a_file_system_that_never_answers_is_told_as_foreign_and_holds_nobody_up", script),
];

/// First argument of this program when it is a container's.
pub const WORD: &str = "act";

/// `mkdir` of a path in a page of a file: so often.
pub fn act(words: &[String]) -> ExitCode {
    let [path, times] = words else { return ExitCode::FAILURE };
    let file = std::fs::File::open(path).expect("opened");
    for _ in 0..times.parse::<usize>().expect("a number") {
        // SAFETY: a new mapping, which nobody here reads; the kernel reads it, or does not.
        unsafe {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
            let page = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0);
            assert_ne!(page, libc::MAP_FAILED);
            libc::mkdir(page.cast(), 0o755);
        }
    }
    ExitCode::SUCCESS
}

/// A container with a volume whose server never answers `silent`.
fn begun(world: &mut World, fuse: (&str, u32), script: &str, policy: Policy, limits: Limits) -> Fuse {
    let volume = world.path("hang");
    let fuse = Fuse::new(&volume, fuse.0, fuse.1);
    world.bring_own_program();
    let mut config = world.config(script);
    let mount = serde_json::json!({ "destination": "/hang", "source": volume, "type": "bind", "options": ["rbind"] });
    config["mounts"].as_array_mut().expect("mounts").push(mount);
    if limits.listener {
        config["linux"]["seccomp"] = world.filter(&["mkdir"]);
    }
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    fuse
}

fn answered(world: &World, response: Response) -> Policy {
    Policy { on_write: response, on_refused_write: response, on_refused_syscall: response, ..world.policy() }
}

fn says_so(data: &Value) -> bool {
    data["reason"].as_str().is_some_and(|reason| reason.contains("do not answer"))
}

/// The container ends as any other, and its anchor with it.
fn ends_soon(world: &mut World) {
    let init = world.record().init.expect("an init").pid;
    kill(Pid::from_raw(init), Signal::SIGKILL).expect("sent");
    let start = Instant::now();
    world.wait_end();
    eprintln!("the end took {:?}", start.elapsed());
    assert_eq!(world.of("exited").len(), 1);
}

fn memory() {
    let mut world = World::new(RUNC);
    let (policy, limits) = (answered(&world, Response::Restart), world.limits());
    let script = "[ -e /out/once ] && { echo again >/out/again; exec sleep 1000; }; : >/out/once; /bin/act act /hang/x 1; echo after >/out/after; exec sleep 1000";
    let limits = Limits { programs: ["/bin/busybox".to_owned(), "/bin/act".to_owned()].into(), ..limits };
    let start = Instant::now();
    let fuse = begun(&mut world, ("never read", READ), script, policy, limits);
    let breach = world.wait_for("breach", |data| data["kind"] == "refused-syscall");
    eprintln!("the breach was told after {:?}", start.elapsed());
    assert_eq!((&breach["syscall"], &breach["path"]), (&"mkdir".into(), &"(unknown)".into()), "{breach}");
    assert_eq!((&breach["response"], &breach["program"]), (&"restart".into(), &"/bin/act".into()), "{breach}");
    assert!(fuse.is_waited_for());
    world.wait_written("again");
    assert_eq!(world.written("after"), None, "the caller had no answer");
    world.wait_for("degraded", says_so);
    assert_eq!(world.exec("exit 7"), Some(7));
    ends_soon(&mut world);
}

fn flood() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Report);
    let limits = Limits { programs: ["/bin/*".to_owned()].into(), ..world.limits() };
    let script = "echo up >/out/up; /bin/act act /hang/x 3000; echo after >/out/after; exec sleep 1000";
    let _fuse = begun(&mut world, ("never read", READ), script, policy, limits);
    world.wait_written("up");
    let start = Instant::now();
    assert_eq!(world.exec("exit 7"), Some(7), "others are served meanwhile");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    world.wait_written("after");
    world.wait_for("degraded", says_so);
    world.eventually("all calls", || (world.record().refusals == 3000).then_some(()));
    ends_soon(&mut world);
}

fn script() {
    let mut world = World::new(RUNC);
    let policy = answered(&world, Response::Report);
    let limits = Limits { listener: false, ..world.limits() };
    let fuse = begun(
        &mut world,
        ("#!/bin/sh\nexec touch /etc\n", STATFS),
        "/hang/x; echo after >/out/after; exec sleep 1000",
        policy,
        limits,
    );
    let told = |data: &Value| data["path"] == "/hang/x" && data["origin"] == "volume";
    let breach = world.wait_for("breach", told);
    assert_eq!((&breach["kind"], &breach["killed"]), (&"unknown-program".into(), &false.into()), "{breach}");
    assert!(fuse.is_waited_for());
    world.wait_written("after");
    ends_soon(&mut world);
}
