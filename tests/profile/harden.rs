//! What a profile makes of an engine's config.json: never wider, each refusal as it is meant.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lithify::harden::{Given, Hardening, harden};
use lithify::policy::{self, Config, ExecRule, Policy, RootfsKind};
use lithify::profile::behaviour::Origin;
use lithify::profile::export::oci_seccomp;
use lithify::profile::steering::Decision;
use lithify::profile::{Profile, filter, layers};
use lithify::runtime::needs::Needs;
use lithify::spec::Document;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::build::{self, program, seen, write};
use super::model::{answer, answers};

const DOCKER: &str = include_str!("engines/docker-20.10.json");
const PODMAN: &str = include_str!("engines/podman-4.3.json");
const SOCKET: &str = "/run/lithify/x/seccomp.sock";
const NEW_USER: u64 = 0x1000_0000;

fn needs() -> Needs {
    let layer = layers::runtimes(Some("runc")).unwrap().remove(0);
    Needs {
        program: "runc".into(),
        version: "1.1.5".into(),
        digest: String::new(),
        source: "built in".into(),
        always: layer.names(true).map(str::to_owned).collect(),
        without_no_new_privileges: layer.names(false).map(str::to_owned).collect(),
        listener: true,
        notes: Vec::new(),
    }
}

fn policy() -> Policy {
    let mut policy = policy::resolve(&Config::default(), &Default::default(), &BTreeMap::new(), None).unwrap();
    policy.rootfs = RootfsKind::Sealed;
    policy
}

/// A profile that saw these calls, of a container with the capabilities that engines give.
fn profile(calls: &[&str]) -> Profile {
    let mut observation = build::observation(1);
    observation.revision.capabilities =
        ["CAP_CHOWN", "CAP_FOWNER", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"].map(str::to_string).to_vec();
    for name in calls {
        observation.workload_behaviour.syscalls.insert(name.to_string(), seen(0, 9, 10));
    }
    Profile::of(&observation)
}

/// A profile of which an observation was changed first.
fn changed(change: impl FnOnce(&mut lithify::profile::Observation)) -> Profile {
    let mut observation = build::observation(1);
    change(&mut observation);
    Profile::of(&observation)
}

fn hardened(profile: &Profile, document: &Document, listener: bool) -> Hardening {
    let (needs, policy) = (needs(), policy());
    let listener = listener.then(|| Path::new(SOCKET));
    harden(&Given { profile, document, policy: &policy, needs: &needs, listener }).unwrap()
}

fn document(value: &Value) -> Document {
    Document::parse(value.to_string().as_bytes()).unwrap()
}

fn engine(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn with_filter(filter: &Value) -> Document {
    let mut value = engine(DOCKER);
    value["linux"]["seccomp"] = filter.clone();
    document(&value)
}

fn edit<'h>(hardening: &'h Hardening, pointer: &str) -> Option<&'h Value> {
    hardening.edits.iter().find(|edit| edit.pointer == pointer).map(|edit| &edit.value)
}

/// The planned filter's answers to calls with this first argument.
fn say(hardening: &Hardening, name: &str, first: u64) -> String {
    answer(edit(hardening, "/linux/seccomp").expect("a filter"), name, &[first, 0, 0, 0, 0, 0])
}

#[test]
fn under_dockers_own_filter_what_is_refused_is_told_and_what_is_newer_is_not_there() {
    let learnt = profile(&["openat", "writev", "socket", "clone", "statx"]);
    let plan = hardened(&learnt, &document(&engine(DOCKER)), true);
    for name in ["openat", "read", "statx", "pwritev", "exit_group", "execve", "clone"] {
        assert_eq!(say(&plan, name, 0), "ALLOW", "{name}");
    }
    // Docker refuses some of these itself: no matter who refuses, it is told.
    for name in ["unshare", "mount", "keyctl", "ptrace", "chroot", "memfd_create", "io_uring_setup", "fsopen"] {
        assert_eq!(say(&plan, name, 0), "NOTIFY", "{name}");
    }
    assert_eq!(say(&plan, "clone", NEW_USER), "NOTIFY");
    for name in ["clone3", "pidfd_getfd_of_the_future", "landlock_create_ruleset"] {
        assert_eq!(say(&plan, name, 0), "ERRNO 38", "{name}");
    }
    assert_eq!(say(&plan, "init_module", 0), "NOTIFY");
    assert!(plan.limits.deadly_syscalls.contains("init_module") && plan.limits.listener);
    assert!(!plan.limits.deadly_syscalls.contains("mount"));
    let filter = edit(&plan, "/linux/seccomp").unwrap();
    assert_eq!(filter["listenerPath"], SOCKET);
    assert_eq!(filter["architectures"], json!(["SCMP_ARCH_X86_64"]));
    assert!(plan.notes.is_empty(), "{:?}", plan.notes);
}

#[test]
fn without_a_listener_the_same_is_refused_and_the_deadly_ends_the_process() {
    let plan = hardened(&profile(&["openat"]), &document(&engine(DOCKER)), false);
    assert_eq!((say(&plan, "mount", 0), say(&plan, "unshare", 0)), ("ERRNO 1".into(), "ERRNO 1".into()));
    assert_eq!(say(&plan, "kexec_load", 0), "KILL_PROCESS");
    assert!(edit(&plan, "/linux/seccomp").unwrap()["listenerPath"].is_null());
    assert!(!plan.limits.listener && plan.limits.deadly_syscalls.is_empty());
}

#[test]
fn a_runtime_that_hands_no_descriptors_over_gets_no_listener_and_that_is_said() {
    let (profile, document, policy) = (profile(&["openat"]), document(&engine(DOCKER)), policy());
    let needs = Needs { listener: false, ..needs() };
    let given = Given {
        profile: &profile,
        document: &document,
        policy: &policy,
        needs: &needs,
        listener: Some(Path::new(SOCKET)),
    };
    let plan = harden(&given).unwrap();
    assert_eq!(say(&plan, "mount", 0), "ERRNO 1");
    assert!(!plan.limits.listener && plan.notes.iter().any(|n| n.contains("are not told")), "{:?}", plan.notes);
}

#[test]
fn podmans_errors_are_kept_where_they_mean_something_and_its_filter_is_never_widened() {
    let plan = hardened(&profile(&["openat", "socket", "kcmp"]), &document(&engine(PODMAN)), true);
    assert_eq!(say(&plan, "socket", 2), "ALLOW");
    assert_eq!(say(&plan, "clone3", 0), "ERRNO 38");
    // Learnt, and refused by the engine all the same.
    assert_eq!(say(&plan, "kcmp", 0), "NOTIFY");
    assert_eq!(say(&plan, "keyctl", 0), "NOTIFY");
}

#[test]
fn what_learning_saw_refused_is_refused_in_silence_and_what_is_never_learnt_is_told_each_time() {
    let learnt = changed(|o| {
        for name in ["keyctl", "init_module", "mincore", "clone3", "get_mempolicy"] {
            o.workload_behaviour.denied_syscalls.insert(name.into(), seen(0, 0, 1));
        }
        o.forbid();
    });
    let plan = hardened(&learnt, &document(&engine(DOCKER)), true);
    assert_eq!(say(&plan, "get_mempolicy", 0), "ERRNO 1");
    assert_eq!(say(&plan, "keyctl", 0), "NOTIFY");
    assert_eq!(say(&plan, "clone3", 0), "ERRNO 38");
    // Somebody tried it while learning: it is told, and kills nobody.
    assert_eq!(say(&plan, "init_module", 0), "NOTIFY");
    assert!(!plan.limits.deadly_syscalls.contains("init_module") && plan.limits.deadly_syscalls.contains("kexec_load"));
}

#[test]
fn families_of_sockets_that_were_not_learnt_are_told() {
    let learnt = changed(|o| {
        o.workload_behaviour.syscalls.insert("socket".into(), seen(0, 0, 1));
        o.workload_behaviour.arguments.insert("socket".into(), BTreeMap::from([("2,1,0".to_string(), seen(0, 0, 1))]));
    });
    let plan = hardened(&learnt, &document(&engine(DOCKER)), true);
    for (family, want) in [(2, "ALLOW"), (10, "ALLOW"), (16, "ALLOW"), (1, "NOTIFY"), (17, "NOTIFY"), (40, "NOTIFY")] {
        assert_eq!(say(&plan, "socket", family), want, "{family}");
    }
    assert_eq!(say(&plan, "socket", 1 << 32 | 17), "NOTIFY", "the kernel looks at the lower half");
}

#[test]
fn typing_into_terminals_is_refused_in_whatever_register_it_hides() {
    let plan = hardened(&profile(&["openat"]), &document(&engine(DOCKER)), true);
    let ioctl = |command: u64| answer(edit(&plan, "/linux/seccomp").unwrap(), "ioctl", &[0, command, 0, 0, 0, 0]);
    for (command, want) in [(0x5401, "ALLOW"), (0x5421, "ALLOW"), (0x5412, "NOTIFY"), (0x541C, "NOTIFY")] {
        assert_eq!((ioctl(command).as_str(), ioctl(command | 7 << 32).as_str()), (want, want), "{command:#x}");
    }
}

#[test]
fn the_32_bit_interface_is_closed_unless_it_was_seen_and_the_engine_has_it() {
    let seen_it = profile(&["openat", "i386:open"]);
    let architectures = |document: &Document| {
        let plan = hardened(&seen_it, document, true);
        edit(&plan, "/linux/seccomp").unwrap()["architectures"].clone()
    };
    let both = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]);
    assert_eq!(architectures(&document(&engine(DOCKER))), both);
    assert_eq!(architectures(&with_filter(&Value::Null)), both);
    let native = with_filter(&json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}));
    assert_eq!(architectures(&native), json!(["SCMP_ARCH_X86_64"]));
}

#[test]
fn a_privileged_container_without_a_filter_gets_the_profiles_alone() {
    let plan = hardened(&profile(&["openat"]), &with_filter(&Value::Null), true);
    assert_eq!((say(&plan, "openat", 0), say(&plan, "mount", 0)), ("ALLOW".into(), "NOTIFY".into()));
}

#[test]
fn an_engines_own_listener_keeps_its_calls_and_gets_none_of_ours() {
    let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/run/agent.sock", "listenerMetadata": "m",
        "syscalls": [{"names": ["read", "openat", "write", "exit_group"], "action": "SCMP_ACT_ALLOW"},
                     {"names": ["mkdirat", "mknodat"], "action": "SCMP_ACT_NOTIFY"}]});
    let plan = hardened(&profile(&["openat", "mkdirat"]), &with_filter(&filter), true);
    assert_eq!((say(&plan, "mkdirat", 0), say(&plan, "mknodat", 0)), ("NOTIFY".into(), "ERRNO 1".into()));
    assert_eq!(say(&plan, "init_module", 0), "KILL_PROCESS");
    let planned = edit(&plan, "/linux/seccomp").unwrap();
    assert_eq!((&planned["listenerPath"], &planned["listenerMetadata"]), (&json!("/run/agent.sock"), &json!("m")));
    assert!(!plan.limits.listener && plan.notes.iter().any(|n| n.contains("listener")), "{:?}", plan.notes);
}

#[test]
fn a_filter_that_can_be_read_in_two_ways_is_kept_whole_and_that_is_said() {
    for odd in [
        json!({"defaultAction": "SCMP_ACT_WHATEVER"}),
        json!({"defaultAction": "SCMP_ACT_ERRNO", "unheardOf": 1}),
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRACE"}]}),
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]}]}),
    ] {
        let plan = hardened(&profile(&["openat"]), &with_filter(&odd), true);
        assert!(edit(&plan, "/linux/seccomp").is_none() && !plan.limits.listener, "{odd}");
        assert!(plan.notes.iter().any(|n| n.contains("kept whole")), "{odd}: {:?}", plan.notes);
    }
}

#[test]
fn of_two_rules_that_contradict_each_other_the_harder_one_holds_and_that_is_said() {
    let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read", "openat"], "action": "SCMP_ACT_ALLOW"}, {"names": ["openat"], "action": "SCMP_ACT_KILL"}]});
    let plan = hardened(&profile(&["openat"]), &with_filter(&filter), true);
    assert_eq!((say(&plan, "read", 0), say(&plan, "openat", 0)), ("ALLOW".into(), "KILL".into()));
    assert!(plan.notes.iter().any(|n| n.contains("two things of openat")), "{:?}", plan.notes);
}

#[test]
fn what_the_engine_refuses_by_killing_still_kills() {
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mount"], "action": "SCMP_ACT_KILL_PROCESS"}, {"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]});
    let plan = hardened(&profile(&["openat", "mount", "keyctl"]), &with_filter(&filter), true);
    assert_eq!((say(&plan, "mount", 0), say(&plan, "keyctl", 0)), ("KILL_PROCESS".into(), "ERRNO 95".into()));
}

#[test]
fn all_five_sets_keep_what_was_used_and_what_is_withheld_is_watched() {
    let learnt = {
        let mut learnt = changed(|o| {
            o.workload_behaviour.capabilities.insert("CAP_SETUID".into(), seen(0, 0, 1));
            o.workload_behaviour.capabilities.insert("CAP_SYS_CHROOT".into(), seen(0, 0, 1));
        });
        learnt.revision.capabilities = vec!["CAP_SETUID".into(), "CAP_SETGID".into(), "CAP_KILL".into()];
        learnt
    };
    let mut value = engine(DOCKER);
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        value["process"]["capabilities"][set] = json!(["CAP_CHOWN", "CAP_SETUID", "CAP_KILL"]);
    }
    let plan = hardened(&learnt, &document(&value), true);
    let sets = edit(&plan, "/process/capabilities").unwrap().as_object().unwrap();
    assert_eq!(sets.len(), 5);
    // CAP_KILL comes with becoming another user; the engine gives no CAP_SETGID and no CAP_SYS_CHROOT.
    assert!(sets.values().all(|set| *set == json!(["CAP_SETUID", "CAP_KILL"])), "{sets:?}");
    assert_eq!(plan.limits.withheld_capabilities, BTreeSet::from(["CAP_CHOWN".to_string()]));
    assert!(plan.notes.iter().any(|n| n.contains("CAP_SYS_CHROOT")), "{:?}", plan.notes);
}

#[test]
fn no_new_privileges_is_set_unless_a_program_needs_them() {
    let docker = document(&engine(DOCKER));
    assert_eq!(edit(&hardened(&profile(&[]), &docker, true), "/process/noNewPrivileges"), Some(&json!(true)));
    let sudo = changed(|o| {
        let mut sudo = program(seen(0, 0, 1), Origin::Image);
        sudo.privileged = true;
        o.exec_behaviour.programs.insert("/usr/bin/sudo".into(), sudo);
    });
    let plan = hardened(&sudo, &docker, true);
    assert_eq!(edit(&plan, "/process/noNewPrivileges"), None);
    assert!(say(&plan, "capset", 0) == "ALLOW", "the runtime is filtered earlier then, and needs more");
}

#[test]
fn written_places_become_scratch_but_not_where_the_engine_or_the_policy_mounts() {
    let learnt = changed(|o| {
        for path in ["/tmp/x", "/run/web.pid", "/srv/cache/a", "/data/db", "/etc/x", "/usr/lib/__pycache__/x.pyc"] {
            o.workload_behaviour.writes.insert(path.into(), write(seen(0, 0, 1)));
        }
        let mut tried = write(seen(0, 0, 1));
        (tried.succeeded, tried.refused) = (false, ["EACCES".to_string()].into());
        o.workload_behaviour.writes.insert("/opt/tried".into(), tried);
        o.forbid();
    });
    let mut value = engine(DOCKER);
    value["mounts"].as_array_mut().unwrap().push(json!({"destination": "/data/", "type": "bind", "source": "/x"}));
    let (document, needs, mut policy) = (document(&value), needs(), policy());
    policy.scratch = policy::values::scratch("/srv:8m").unwrap();
    let given = |policy: &Policy| {
        harden(&Given { profile: &learnt, document: &document, policy, needs: &needs, listener: None }).unwrap()
    };
    let plan = given(&policy);
    let places: Vec<&str> = plan.scratch.iter().map(|s| s.path.to_str().unwrap()).collect();
    assert_eq!(places, ["/run", "/tmp"]);
    assert!(plan.scratch.iter().all(|s| !s.exec && s.size_bytes >= Some(policy.scratch_size_bytes)));
    let known: Vec<&str> = plan.limits.known_writes.iter().map(String::as_str).collect();
    assert_eq!(known, ["/**/__pycache__", "/**/__pycache__/*.pyc", "/**/__pycache__/*.pyc.*", "/opt/tried"]);
    policy.rootfs = RootfsKind::Engine;
    assert!(given(&policy).scratch.is_empty(), "the engine's own root is written to");
}

#[test]
fn programs_of_volumes_run_and_other_foreign_ones_do_not() {
    let mut learnt = changed(|o| {
        for (path, origin) in [("/bin/sh", Origin::Image), ("/data/plugin", Origin::Volume), ("/tmp/x", Origin::Tmpfs)]
        {
            o.workload_behaviour.programs.insert(path.into(), program(seen(0, 0, 1), origin));
        }
        o.exec_behaviour.programs.insert("/bin/probe".into(), program(seen(0, 0, 1), Origin::Image));
        o.forbid();
    });
    let docker = document(&engine(DOCKER));
    let limits = hardened(&learnt, &docker, true).limits;
    assert!(limits.kill_foreign);
    assert_eq!(limits.programs, BTreeSet::from(["/data/plugin".to_string()]));
    assert_eq!(limits.session_programs, BTreeSet::from(["/bin/probe".to_string()]));
    let by_hand = Decision { at: build::time(1), why: "ours".into() };
    learnt.steering.allowed.insert("program /tmp/x from tmpfs".into(), by_hand.clone());
    learnt.steering.denied.insert("program /data/plugin".into(), by_hand);
    assert_eq!(hardened(&learnt, &docker, true).limits.programs, BTreeSet::from(["/tmp/x".to_string()]));
}

#[test]
fn a_denial_holds_against_what_was_seen_and_against_families_and_what_was_allowed_is_there() {
    let mut learnt = changed(|o| {
        for name in ["fork", "connect"] {
            o.workload_behaviour.syscalls.insert(name.into(), seen(0, 0, 1));
        }
        o.workload_behaviour.capabilities.insert("CAP_CHOWN".into(), seen(0, 0, 1));
    });
    let decision = Decision { at: build::time(1), why: "ours".into() };
    for item in ["syscall connect", "syscall kill", "syscall exit_group", "capability CAP_CHOWN"] {
        learnt.steering.denied.insert(item.into(), decision.clone());
    }
    for item in ["syscall mincore", "syscall connect", "write /srv/x/y", "capability CAP_KILL", "nonsense"] {
        learnt.steering.allowed.insert(item.into(), decision.clone());
    }
    let plan = hardened(&learnt, &document(&engine(DOCKER)), true);
    assert_eq!((say(&plan, "connect", 0), say(&plan, "kill", 0)), ("NOTIFY".into(), "NOTIFY".into()));
    assert_eq!((say(&plan, "mincore", 0), say(&plan, "exit_group", 0)), ("ALLOW".into(), "ALLOW".into()));
    assert_eq!(edit(&plan, "/process/capabilities").unwrap()["bounding"], json!(["CAP_KILL"]));
    assert_eq!(plan.scratch[0].path, Path::new("/srv/x"));
    assert!(plan.notes.iter().any(|n| n.contains("exit_group can't be denied")), "{:?}", plan.notes);
    assert!(plan.notes.iter().any(|n| n.contains("nonsense")), "{:?}", plan.notes);
}

#[test]
fn where_sessions_are_refused_nothing_is_open_for_them() {
    let learnt = changed(|o| {
        o.exec_behaviour.syscalls.insert("mknod".into(), seen(0, 0, 1));
    });
    let (document, needs, mut policy) = (document(&engine(DOCKER)), needs(), policy());
    let mut mknod = |exec| {
        policy.exec = exec;
        let plan =
            harden(&Given { profile: &learnt, document: &document, policy: &policy, needs: &needs, listener: None });
        say(&plan.unwrap(), "mknod", 0)
    };
    assert_eq!((mknod(ExecRule::Allow), mknod(ExecRule::Deny)), ("ALLOW".into(), "ERRNO 1".into()));
}

#[test]
fn tasks_are_limited_generously_and_never_above_the_engine() {
    let learnt = changed(|o| o.peaks.pids = Some(10));
    let limit = |given: Value| {
        let mut value = engine(DOCKER);
        value["linux"]["resources"]["pids"]["limit"] = given;
        edit(&hardened(&learnt, &document(&value), true), "/linux/resources/pids/limit").cloned()
    };
    assert_eq!(
        (limit(Value::Null), limit(json!(-1)), limit(json!(0))),
        (Some(json!(104)), Some(json!(104)), Some(json!(104)))
    );
    assert_eq!((limit(json!(2048)), limit(json!(20))), (Some(json!(104)), None));
}

#[test]
fn what_todays_engines_mask_is_masked_only_where_the_engine_masks_at_all() {
    let mut value = engine(DOCKER);
    let plan = hardened(&profile(&[]), &document(&value), true);
    let masked = edit(&plan, "/linux/maskedPaths").unwrap().as_array().unwrap();
    assert!(masked.contains(&json!("/sys/devices/virtual/powercap")) && masked.contains(&json!("/proc/kcore")));
    value["linux"]["maskedPaths"] = json!([]);
    assert_eq!(edit(&hardened(&profile(&[]), &document(&value), true), "/linux/maskedPaths"), None);
}

#[test]
fn edits_are_applied_where_they_say_and_nothing_else_changes() {
    let before = document(&engine(DOCKER));
    let plan = hardened(&changed(|o| o.peaks.pids = Some(1)), &before, true);
    let mut after = before.clone();
    plan.apply(&mut after).unwrap();
    for edit in &plan.edits {
        assert_eq!(after.value().pointer(&edit.pointer), Some(&edit.value));
        assert!(!edit.what.is_empty() && !edit.why.is_empty());
    }
    for key in ["mounts", "root", "ociVersion"] {
        assert_eq!(before.value()[key], after.value()[key]);
    }
    assert_eq!(after.value()["linux"]["namespaces"], before.value()["linux"]["namespaces"]);
}

/// Whether the call is made.
fn is_made(answer: &str) -> bool {
    matches!(answer, "ALLOW" | "LOG")
}

const CALLS: [&str; 9] =
    ["read", "clone", "socket", "personality", "ioctl", "mount", "io_uring_setup", "keyctl", "init_module"];
const NUMBERS: [u64; 9] = [0, 1, 2, 8, 9, 16, 0x5412, NEW_USER, 1 << 32 | 2];

fn number() -> impl Strategy<Value = u64> {
    proptest::sample::select(NUMBERS.as_slice())
}

fn filter_of_an_engine() -> impl Strategy<Value = Value> {
    const ACTIONS: [&str; 7] = ["ALLOW", "ERRNO", "LOG", "KILL", "KILL_PROCESS", "TRAP", "NOTIFY"];
    let action = || proptest::sample::select(ACTIONS.as_slice());
    let ops = proptest::sample::select(["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"].as_slice());
    let arg = (0usize..3, ops, number(), number()).prop_map(|(index, op, value, two)| {
        json!({"index": index, "value": value, "valueTwo": two & value, "op": format!("SCMP_CMP_{op}")})
    });
    let names = proptest::sample::subsequence(CALLS.as_slice(), 1..4);
    let errno = proptest::option::of(proptest::sample::select([1, 22, 38].as_slice()));
    let rule = (names, action(), errno, proptest::collection::vec(arg, 0..3)).prop_map(|(names, action, errno, args)| {
        json!({"names": names, "action": format!("SCMP_ACT_{action}"), "errnoRet": errno, "args": args})
    });
    let errno = proptest::option::of(proptest::sample::select([1, 38].as_slice()));
    (action(), errno, proptest::collection::vec(rule, 0..6)).prop_map(|(default, errno, rules)| {
        json!({"defaultAction": format!("SCMP_ACT_{default}"), "defaultErrnoRet": errno, "syscalls": rules})
    })
}

fn learnt() -> impl Strategy<Value = Profile> {
    let calls = proptest::sample::subsequence(CALLS.as_slice(), 0..6);
    let arguments = proptest::collection::vec(
        (proptest::sample::select(["clone", "socket", "ioctl", "personality"].as_slice()), number()),
        0..4,
    );
    let denied = proptest::sample::subsequence(CALLS.as_slice(), 0..3);
    (calls, arguments, denied).prop_map(|(calls, arguments, denied)| {
        changed(|o| {
            for name in calls {
                o.workload_behaviour.syscalls.insert(name.into(), seen(0, 0, 1));
            }
            for (call, value) in arguments {
                let value = if call == "socket" { format!("{value},1,0") } else { value.to_string() };
                o.workload_behaviour.arguments.entry(call.into()).or_default().insert(value, seen(0, 0, 1));
            }
            for name in denied {
                o.workload_behaviour.denied_syscalls.insert(name.into(), seen(0, 0, 1));
            }
        })
    })
}

proptest! {
    // Each case plans a whole filter.
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_planned_filter_makes_exactly_the_calls_that_profile_and_engine_both_make(
        engine in filter_of_an_engine(), profile in learnt(), listener in any::<bool>(), twice in any::<bool>(),
        tries in proptest::collection::vec((proptest::sample::select(CALLS.as_slice()), [number(), number(), number()]), 40),
    ) {
        let (document, needs, policy) = (with_filter(&engine), needs(), policy());
        let listener = listener.then(|| Path::new(SOCKET));
        let plan = match harden(&Given { profile: &profile, document: &document, policy: &policy, needs: &needs, listener }) {
            Ok(plan) => plan,
            // No engine's filter is like that: it is refused before a container is made with it.
            Err(e) => return Ok(prop_assert!(format!("{e:#}").contains("instructions"), "{e:#}")),
        };
        let Some(planned) = edit(&plan, "/linux/seccomp") else {
            prop_assert!(plan.notes.iter().any(|n| n.contains("kept whole")));
            return Ok(());
        };
        let always = layers::always().unwrap();
        let needed = always.names(true).chain(needs.names(true));
        let own = oci_seccomp::value(&filter::filter(&profile, needed, &mut Vec::new()));
        for (name, [a, b, c]) in tries {
            let arguments = [a, if twice { a } else { b }, c, 0, 0, 0];
            let (all, ours) = (answers(&engine, name, &arguments), answer(&own, name, &arguments));
            let theirs = all.iter().find(|a| !is_made(a)).unwrap_or(&all[0]).clone();
            let both = answer(planned, name, &arguments);
            let context = format!("{name} {arguments:x?}: engine {theirs}, profile {ours}, planned {both}");
            prop_assert_eq!(is_made(&both), is_made(&theirs) && is_made(&ours), "{}", context);
            if all.len() > 1 {
                continue;
            }
            // A listener of the engine's is asked only where it was, and where the profile allows it.
            if !plan.limits.listener {
                prop_assert_eq!(both == "NOTIFY", theirs == "NOTIFY" && is_made(&ours), "{}", context);
            }
            // What the engine ends a process for ends it still.
            if ["KILL", "KILL_PROCESS", "TRAP"].contains(&theirs.as_str()) {
                prop_assert_eq!(&both, &theirs, "{}", context);
            }
        }
    }
}
