//! What one measurement sees, and what it leaves.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use lithify::profile::layers::{self, When};
use lithify::runtime::calibrate::{Seen, bundle, measure};
use lithify::sys::process::{self, Fork};

use crate::harness::Test;
use crate::world::{CRUN, RUNC, World, left_nothing_since, traces};

pub const TESTS: &[Test] = &[
    ("what_is_built_in_for_runc_is_what_is_measured", || what_is_built_in_is_what_is_measured(RUNC, "runc-1.1.5")),
    ("what_is_built_in_for_crun_is_what_is_measured", || what_is_built_in_is_what_is_measured(CRUN, "crun-1.8.1")),
    ("a_runtime_that_hangs_is_given_up_in_time_and_nothing_is_left", hangs),
    ("a_runtime_that_hangs_with_a_container_half_made_is_given_up_and_nothing_is_left", hangs_half_way),
    ("a_runtime_that_fails_is_told_with_its_own_words", fails),
    ("a_runtime_that_refuses_a_filter_with_a_listener_is_one_without", refuses_a_listener),
    ("a_runtime_that_ignores_the_listener_is_one_without", ignores_the_listener),
    ("who_measures_may_be_killed_and_nothing_is_left", killed),
];

/// Longer than any measurement takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn measured(runtime: &Path, patience: Duration) -> Result<Seen, String> {
    let before = traces();
    let seen = measure(runtime, patience);
    left_nothing_since(&before);
    seen.map_err(|e| format!("{e:#}"))
}

fn what_is_built_in_is_what_is_measured(runtime: &str, layer: &str) {
    let layer = layers::runtimes(Some(layer)).unwrap().remove(0);
    let seen = measured(Path::new(runtime), PATIENCE).unwrap();
    assert!(seen.listener && layer.listener);
    for (names, without_no_new_privileges) in [(&seen.always, false), (&seen.without_no_new_privileges, true)] {
        for name in names {
            let entry = layer.syscalls.get(name).unwrap_or_else(|| panic!("{name} is called and not built in"));
            let holds = entry.when == When::Always || without_no_new_privileges;
            assert!(holds, "{name} is called in containers with no-new-privileges, too");
        }
    }
    let all: BTreeSet<&String> = seen.always.iter().chain(&seen.without_no_new_privileges).collect();
    // strace saw crun give up by `exit`; here it did not.
    let can_be_seen = |name: &str| name != "exit" && !bundle::NEVER_ASKED.contains(&name);
    let unseen = layer.syscalls.iter().filter(|(name, e)| !e.chance && can_be_seen(name) && !all.contains(name));
    assert_eq!(unseen.map(|(name, _)| name).collect::<Vec<_>>(), Vec::<&String>::new(), "built in, but never called");
}

fn hangs() {
    let world = World::new();
    let began = Instant::now();
    let error = measured(&world.script("runc", "exec sleep 1000"), Duration::from_secs(1)).unwrap_err();
    assert!(error.contains("runc create'") && error.contains("did not end in time"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

fn hangs_half_way() {
    let world = World::new();
    let text = format!(r#"case "$*" in *" start "*) sleep 1000 ;; esac; exec {RUNC} "$@""#);
    let error = measured(&world.script("runc", &text), Duration::from_secs(3)).unwrap_err();
    assert!(error.contains("runc start'") && error.contains("did not end in time"), "{error}");
}

fn fails() {
    let world = World::new();
    let error = measured(&world.script("runc", "echo it burns >&2; exit 3"), PATIENCE).unwrap_err();
    assert!(error.contains("runc create'") && error.contains("it burns") && error.contains("status: 3"), "{error}");
}

fn refuses_a_listener() {
    let world = World::new();
    // As runc 1.0 does.
    let text = format!(
        r#"for word; do [ -f "$word/config.json" ] && grep -q NOTIFY "$word/config.json" &&
             echo "string SCMP_ACT_NOTIFY is not a valid action for seccomp" >&2 && exit 1; done
           exec {RUNC} "$@""#
    );
    assert_eq!(measured(&world.script("runc", &text), PATIENCE), Ok(Seen::default()));
}

fn ignores_the_listener() {
    let world = World::new();
    let text = format!(
        r#"for word; do [ -f "$word/config.json" ] && sed -i 's/listenerPath/nobody/; s/ACT_NOTIFY/ACT_ALLOW/' "$word/config.json"; done
           exec {RUNC} "$@""#
    );
    assert_eq!(measured(&world.script("runc", &text), PATIENCE), Ok(Seen::default()));
}

fn killed() {
    let world = World::new();
    let (before, runtime) = (traces(), world.runc_that_says("9.9"));
    let pid = match process::fork().unwrap() {
        Fork::Child => process::exit_now(measure(&runtime, PATIENCE).map_or(1, |_| 0)),
        Fork::Parent(pid) => pid,
    };
    let deadline = Instant::now() + PATIENCE;
    while world.created() < 2 {
        assert!(Instant::now() < deadline, "it never got to its second container");
        std::thread::yield_now();
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    process::wait_pid(pid).unwrap();
    left_nothing_since(&before);
}
