//! Containers start, and sessions in them, under a filter that allows what their runtime needs and nothing else.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lithify::profile::syscalls;
use lithify::runtime::calibrate::bundle::{self, Kind};
use lithify::runtime::needs;
use lithify::sys::process::{self, Fork};
use lithify::sys::{seccomp, socket};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::harness::Test;
use crate::world::{CRUN, RUNC, World};

pub const TESTS: &[Test] = &[
    ("runc_starts_containers_and_sessions_with_what_it_needs_and_no_more", || starts(RUNC, false)),
    ("crun_starts_containers_and_sessions_with_what_it_needs_and_no_more", || starts(CRUN, false)),
    ("runc_starts_them_with_a_listener_that_refuses_all_else", || starts(RUNC, true)),
    ("crun_starts_them_with_a_listener_that_refuses_all_else", || starts(CRUN, true)),
];

fn starts(runtime: &str, listener: bool) {
    own_mounts();
    for no_new_privileges in [true, false] {
        for other_user in [false, true] {
            let kind = Kind { no_new_privileges, other_user, terminal: false, broken: false };
            let world = World::new();
            let ran = lifetime(runtime, kind, listener, &world);
            for (what, output) in ran {
                let words = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{what} with {kind:?}: {}: {words}", output.status);
            }
        }
    }
}

/// create, start, exec, kill and delete of one container: what was called, and how it ended.
fn lifetime(runtime: &str, kind: Kind, listener: bool, world: &World) -> Vec<(&'static str, Output)> {
    let needs = needs::of(Path::new(runtime), &world.data()).unwrap();
    let (root, dir) = (world.path("root"), world.path("bundle"));
    std::fs::create_dir(&dir).unwrap();
    bundle::write_root(&root).unwrap();
    let id = format!("lithify-needs-{}", std::process::id());
    let mut config = bundle::config(kind, &root, &format!("/{id}"), 0, None);
    // What the program itself calls, and what every process may.
    let allowed: Vec<&str> = needs.names(kind.no_new_privileges).chain(["pause", "exit_group"]).collect();
    let rest =
        (0..1000).map(|n| syscalls::name(false, n)).filter(|n| !n.starts_with('#') && !allowed.contains(&n.as_str()));
    let rest: Vec<String> = rest.collect();
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::ENOSYS, "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": allowed, "action": "SCMP_ACT_ALLOW"},
            {"names": rest, "action": if listener { "SCMP_ACT_NOTIFY" } else { "SCMP_ACT_ERRNO" }},
        ],
    });
    let refuser = listener.then(|| {
        let path = world.path("refusals");
        config["linux"]["seccomp"]["listenerPath"] = json!(path);
        refuser(&path)
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let session = bundle::process(kind, true, 0).to_string();
    std::fs::write(world.path("process.json"), session).unwrap();

    let call = |args: &[&str]| -> Output {
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "20", runtime, "--root"]).arg(world.path("state")).args(args);
        // Files, not pipes: a container keeps them open.
        let file = |name: &str| std::fs::File::create(world.path(name)).unwrap();
        let ended = command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).status().unwrap();
        let read = |name: &str| std::fs::read(world.path(name)).unwrap();
        Output { status: ended, stdout: read("out"), stderr: read("err") }
    };
    let bundle = dir.to_str().unwrap();
    let process: PathBuf = world.path("process.json");
    let created = call(&["create", "--bundle", bundle, &id]);
    let started = call(&["start", &id]);
    let session = call(&["exec", "--process", process.to_str().unwrap(), &id]);
    let killed = call(&["kill", &id, "KILL"]);
    call(&["delete", "--force", &id]);
    if let Some(pid) = refuser {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        process::wait_pid(pid).unwrap();
    }
    vec![("create", created), ("start", started), ("exec", session), ("kill", killed)]
}

/// A process that listens and refuses whatever it is asked about.
fn refuser(path: &Path) -> i32 {
    let listener = UnixListener::bind(path).unwrap();
    match process::fork().unwrap() {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            process::set_parent_death_signal(libc::SIGKILL).unwrap();
            let mut filters: Vec<OwnedFd> = Vec::new();
            loop {
                let all = filters.iter().map(AsFd::as_fd).chain([listener.as_fd()]);
                let mut polled: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
                poll(&mut polled, PollTimeout::NONE).unwrap();
                let ready: Vec<PollFlags> = polled.iter().map(|fd| fd.revents().unwrap()).collect();
                if !ready[filters.len()].is_empty() {
                    let (caller, _) = listener.accept().unwrap();
                    filters.extend(socket::receive(caller.as_fd()).unwrap().1);
                    continue;
                }
                for (number, events) in ready.iter().enumerate().rev().filter(|(_, events)| !events.is_empty()) {
                    if !events.contains(PollFlags::POLLIN) {
                        filters.remove(number);
                    } else if let Some(asked) = seccomp::receive(filters[number].as_fd()).unwrap() {
                        // Who gave up waiting is refused as well.
                        let _ = seccomp::refuse(filters[number].as_fd(), asked.id, libc::EPERM);
                    }
                }
            }
        }
    }
}

/// A mount namespace of our own, in which crun finds one cgroup hierarchy: it refuses a hybrid one.
fn own_mounts() {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        mount(Some("tmpfs"), "/sys/fs/cgroup/unified", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    }
}
