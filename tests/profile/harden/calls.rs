//! Which system calls are made, refused, told and hidden.

use super::*;

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
    assert!(plan.notes.is_empty() && plan.degraded.is_empty(), "{:?} {:?}", plan.notes, plan.degraded);
}

#[test]
fn who_never_gave_a_file_a_mode_may_give_one_that_makes_no_program_of_it() {
    for engines in [DOCKER, PODMAN] {
        let plan = hardened(&profile(&["openat"]), &document(&engine(engines)), true);
        let filter = edit(&plan, "/linux/seccomp").unwrap();
        let gives = |mode: u64| {
            let by_second = |name| answer(filter, name, &[7, mode, 0, 0, 0, 0]);
            [by_second("chmod"), by_second("fchmod"), answer(filter, "fchmodat", &[7, 9, mode, 0, 0, 0])]
        };
        // A copy's, a key's, a pack's of git; with bits that the kernel does not look at.
        for mode in [0o600, 0o644, 0o660, 0o444, 0, 0xFFFF_0000_0180] {
            assert_eq!(gives(mode), ["ALLOW"; 3], "{mode:o}");
        }
        // A dropped program, one for its owner only, set-user-id, set-group-id, sticky.
        for mode in [0o755, 0o100, 0o010, 0o001, 0o4644, 0o2644, 0o1777, 0o4755] {
            assert_eq!(gives(mode), ["NOTIFY"; 3], "{mode:o}");
        }
        let plan = hardened(&profile(&["fchmod"]), &document(&engine(engines)), true);
        let filter = edit(&plan, "/linux/seccomp").unwrap();
        assert_eq!(answer(filter, "chmod", &[7, 0o755, 0, 0, 0, 0]), "ALLOW", "it was seen to give modes");
    }
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
    assert!(!plan.limits.listener && plan.degraded.iter().any(|n| n.contains("are not told")), "{:?}", plan.degraded);
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
fn what_every_filter_lets_through_and_the_engine_alone_refuses_is_no_news() {
    let plan = hardened(&profile(&["openat"]), &document(&engine(DOCKER)), true);
    // As ps and top call it at their start.
    assert_eq!(say(&plan, "get_mempolicy", 0), "ERRNO 1");
    assert_eq!(say(&plan, "mbind", 0), "NOTIFY");
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
    assert!(!plan.limits.listener && plan.degraded.iter().any(|n| n.contains("listener")), "{:?}", plan.degraded);
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
