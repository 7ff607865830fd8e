//! Everything of a plan but its filter.

use super::super::build::{program, write};
use super::*;

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
    assert!(!plan.limits.drops_capabilities, "nobody was seen to give any away");
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
fn tmp_can_be_written_whatever_was_seen_but_where_the_engine_or_the_policy_has_something_there() {
    let (learnt, needs, mut policy) = (profile(&["read"]), needs(), policy());
    let given = |policy: &Policy, value: &Value| {
        let document = document(value);
        let given = Given { profile: &learnt, document: &document, policy, needs: &needs, listener: None };
        harden(&given).unwrap().scratch
    };
    let mut value = engine(DOCKER);
    let scratch = given(&policy, &value);
    assert_eq!((scratch.len(), scratch[0].path.as_path(), scratch[0].exec), (1, Path::new("/tmp"), false));
    assert_eq!(scratch[0].size_bytes, Some(policy.scratch_size_bytes));
    policy.scratch = policy::values::scratch("/tmp:8m").unwrap();
    assert!(given(&policy, &value).is_empty());
    policy.scratch.clear();
    value["mounts"].as_array_mut().unwrap().push(json!({"destination": "/tmp", "type": "bind", "source": "/x"}));
    assert!(given(&policy, &value).is_empty());
}

#[test]
fn a_folder_below_tmp_is_mounted_after_it() {
    let learnt = changed(|o| {
        o.workload_behaviour.writes.insert("/tmp/deep/file".into(), write(seen(0, 0, 1)));
    });
    let plan = hardened(&learnt, &document(&engine(DOCKER)), true);
    let places: Vec<&str> = plan.scratch.iter().map(|s| s.path.to_str().unwrap()).collect();
    assert_eq!(places, ["/tmp", "/tmp/deep"]);
}

#[test]
fn a_server_of_which_few_tasks_were_seen_may_have_one_for_each_of_many_connections() {
    let limit = |peak| {
        let mut learnt = profile(&[]);
        learnt.peaks.pids = Some(peak);
        edit(&hardened(&learnt, &document(&engine(DOCKER)), true), "/linux/resources/pids/limit").cloned()
    };
    assert_eq!((limit(7), limit(400)), (Some(json!(1024)), Some(json!(1664))));
}

#[test]
fn what_is_refused_life_after_life_is_only_told_and_what_was_denied_after_it_was_seen_also_under_other_names() {
    let mut learnt = changed(|o| {
        o.workload_behaviour.writes.insert("/etc/web/a-1".into(), write(seen(0, 0, 1)));
        o.workload_behaviour.denied_syscalls.insert("keyctl".into(), seen(0, 0, 1));
        o.exec_behaviour.denied_syscalls.insert("bpf".into(), seen(0, 0, 1));
        o.forbid();
    });
    let habits = |learnt: &Profile| hardened(learnt, &document(&engine(DOCKER)), true).limits.denied_habits;
    assert_eq!(habits(&learnt), BTreeSet::new(), "once is no habit");
    let seen = &mut learnt.forbidden.get_mut("denied syscall keyctl").unwrap().seen;
    seen.generations.insert("another".into(), 1);
    let by_hand = Decision { at: build::time(1), why: "ours".into() };
    for item in ["write /etc/web/*", "write /srv/*", "syscall bpf"] {
        learnt.steering.denied.insert(item.into(), by_hand.clone());
    }
    let expected = ["syscall keyctl", "write /etc/web/*"].map(str::to_owned);
    assert_eq!(habits(&learnt), expected.into());
}

#[test]
fn only_the_scratch_that_holds_a_program_that_was_allowed_by_hand_lets_programs_run() {
    let mut learnt = changed(|o| {
        for path in ["/tmp/x", "/run/web.pid", "/srv/cache/a"] {
            o.workload_behaviour.writes.insert(path.into(), write(seen(0, 0, 1)));
        }
    });
    for item in ["program /tmp/tool", "program /srv/*/run", "program /data/tool"] {
        learnt.steering.allowed.insert(item.into(), Decision { at: build::time(1), why: "ours".into() });
    }
    let mut value = engine(DOCKER);
    let data = json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["rw", "noexec"]});
    value["mounts"].as_array_mut().unwrap().push(data);
    let (document, needs, mut policy) = (document(&value), needs(), policy());
    policy.scratch = policy::values::scratch("/srv:8m,/tmp/other").unwrap();
    let given = Given { profile: &learnt, document: &document, policy: &policy, needs: &needs, listener: None };
    let plan = harden(&given).unwrap();
    let places: Vec<(&str, bool)> = plan.scratch.iter().map(|s| (s.path.to_str().unwrap(), s.exec)).collect();
    assert_eq!(places, [("/run", false), ("/tmp", true), ("/srv", true)]);
    assert_eq!(plan.scratch[2].size_bytes, policy.scratch[0].size_bytes, "the policy's, but for that");
    assert!(plan.limits.allowed.contains("program /tmp/tool") && plan.limits.programs.contains("/tmp/tool"));
    let note = "program /data/tool is allowed, and can't run: the engine's own mount of /data";
    assert!(plan.notes.iter().any(|n| n.starts_with(note)), "{:?}", plan.notes);
}

#[test]
fn a_plan_tells_what_was_seen_from_what_comes_with_it_and_from_what_was_allowed_by_hand() {
    let mut learnt = profile(&["openat", "pwrite64"]);
    learnt.workload_behaviour.capabilities = changed(|o| {
        o.workload_behaviour.capabilities.insert("CAP_SETUID".into(), seen(0, 0, 1));
    })
    .workload_behaviour
    .capabilities;
    for item in ["capability CAP_CHOWN", "syscall mincore", "syscall openat"] {
        learnt.steering.allowed.insert(item.into(), Decision { at: build::time(1), why: "ours".into() });
    }
    let mut value = engine(DOCKER);
    value["process"]["capabilities"]["bounding"] =
        json!(["CAP_CHOWN", "CAP_SETUID", "CAP_KILL", "CAP_FOWNER", "CAP_MKNOD"]);
    let plan = hardened(&learnt, &document(&value), true);
    let why = |pointer: &str| &plan.edits.iter().find(|edit| edit.pointer == pointer).unwrap().why;
    let parts = [
        "CAP_CHOWN: allowed by hand",
        "CAP_SETUID: seen in use",
        "CAP_KILL: goes with CAP_SET",
        "CAP_FOWNER: goes with CAP_CHOWN",
    ];
    for part in parts {
        assert!(why("/process/capabilities").contains(part), "{part}: {}", why("/process/capabilities"));
    }
    let calls = why("/linux/seccomp");
    assert!(calls.starts_with("2 were seen; ") && calls.ends_with("; 1 are allowed by hand"), "{calls}");
}

#[test]
fn programs_of_image_and_volumes_run_and_other_foreign_ones_do_not() {
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
    assert_eq!(limits.programs, BTreeSet::from(["/bin/sh".to_string(), "/data/plugin".to_string()]));
    assert_eq!(limits.session_programs, BTreeSet::from(["/bin/probe".to_string()]));
    let by_hand = Decision { at: build::time(1), why: "ours".into() };
    learnt.steering.allowed.insert("program /tmp/x from tmpfs".into(), by_hand.clone());
    learnt.steering.denied.insert("program /data/plugin".into(), by_hand);
    let allowed = BTreeSet::from(["/bin/sh".to_string(), "/tmp/x".to_string()]);
    let limits = hardened(&learnt, &docker, true).limits;
    assert_eq!((limits.programs, limits.denied_habits), (allowed, ["program /data/plugin".to_string()].into()));
}

#[test]
fn a_workload_that_ran_many_programs_of_its_image_is_one_of_scripts() {
    let ran = |count: usize, origin| {
        let profile = changed(|o| {
            o.workload_behaviour.programs.clear();
            for n in 0..count {
                o.workload_behaviour.programs.insert(format!("/bin/{n}"), program(seen(0, 0, 1), origin));
            }
        });
        hardened(&profile, &document(&engine(DOCKER)), true).limits.runs_scripts
    };
    assert!(!ran(7, Origin::Image) && ran(8, Origin::Image));
    assert!(!ran(30, Origin::Volume), "what others bring says nothing of the image's scripts");
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
    let learnt = changed(|o| o.peaks.pids = Some(400));
    let limit = |given: Value| {
        let mut value = engine(DOCKER);
        value["linux"]["resources"]["pids"]["limit"] = given;
        edit(&hardened(&learnt, &document(&value), true), "/linux/resources/pids/limit").cloned()
    };
    assert_eq!(
        (limit(Value::Null), limit(json!(-1)), limit(json!(0))),
        (Some(json!(1664)), Some(json!(1664)), Some(json!(1664)))
    );
    assert_eq!((limit(json!(2048)), limit(json!(20))), (Some(json!(1664)), None));
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
fn what_commands_the_node_is_read_only_but_for_what_the_workload_writes_and_the_engine_mounts() {
    let mut value = engine(DOCKER);
    let read_only = |learnt: &Profile, value: &Value| {
        edit(&hardened(learnt, &document(value), true), "/linux/readonlyPaths").cloned()
    };
    assert_eq!(read_only(&profile(&[]), &value), None, "the engine has done it");
    let whole = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger", "/proc/sys"];
    for none in [json!([]), Value::Null] {
        value["linux"]["readonlyPaths"] = none;
        assert_eq!(read_only(&profile(&[]), &value), Some(json!(whole)));
    }
    let writes = changed(|o| {
        o.workload_behaviour.writes.insert("/proc/sys/net".to_owned(), write(seen(0, 0, 1)));
    });
    let left = read_only(&writes, &value).unwrap();
    let has = |path: &str| left.as_array().unwrap().contains(&json!(path));
    assert!(!has("/proc/sys") && !has("/proc/sys/net") && has("/proc/sys/kernel") && has("/proc/irq"), "{left}");
    value["mounts"].as_array_mut().unwrap().push(json!({"destination": "/proc/irq/1", "type": "bind", "source": "/x"}));
    assert!(!read_only(&profile(&[]), &value).unwrap().as_array().unwrap().contains(&json!("/proc/irq")));
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
