//! Filters of real engines and odd ones: a call of which too much is said, or what nobody can tell, takes nothing but itself away.

use super::*;

const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// NETLINK_AUDIT, which is netlink's ninth protocol.
const AUDIT: u64 = 9;

/// A service as nginx, redis and postgres are: what it calls beside what all do, and its sockets.
fn service(calls: &[&str], sockets: &[&str]) -> Profile {
    changed(|o| {
        for name in calls.iter().chain(&["socket", "clone", "ioctl", "openat", "write", "prctl"]) {
            o.workload_behaviour.syscalls.insert(name.to_string(), seen(0, 9, 10));
        }
        let sockets = sockets.iter().map(|socket| (socket.to_string(), seen(0, 9, 10)));
        o.workload_behaviour.arguments.insert("socket".into(), sockets.collect());
        o.workload_behaviour.arguments.insert("clone".into(), [("18874385".to_string(), seen(0, 9, 10))].into());
    })
}

fn services() -> [Profile; 3] {
    [
        service(&["accept4", "epoll_wait", "io_setup", "setgroups"], &["1,1,0", "2,1,0", "10,1,0", "16,3,0"]),
        service(&["epoll_create1", "fdatasync", "personality"], &["1,1,0", "2,526337,6", "16,524291,0"]),
        service(&["shmget", "semctl", "fallocate"], &["1,526337,0", "2,2,0", "10,1,6", "16,524291,0"]),
    ]
}

fn answer_of(plan: &Hardening, name: &str, arguments: [u64; 3]) -> String {
    let [a, b, c] = arguments;
    answer(edit(plan, "/linux/seccomp").expect("a filter"), name, &[a, b, c, 0, 0, 0])
}

#[test]
fn under_podmans_own_filter_a_service_with_sockets_keeps_them_and_gets_nothing_else() {
    for learnt in services() {
        let plan = hardened(&learnt, &document(&engine(PODMAN_WITHOUT_AUDIT)), true);
        assert!(plan.notes.is_empty() && plan.degraded.is_empty() && plan.limits.listener, "{:?}", plan.notes);
        for name in ["keyctl", "memfd_create", "mount", "unshare", "ptrace", "process_vm_writev"] {
            assert_eq!(say(&plan, name, 0), "NOTIFY", "{name}");
        }
        for family in [1, 2, 10, 16] {
            assert_eq!(answer_of(&plan, "socket", [family, 1, 0]), "ALLOW", "{family}");
        }
        for family in [0, 3, 9, 11, 15, 17, 31, AF_ALG, AF_VSOCK, 1 << 32 | 2, u64::MAX] {
            assert_eq!(answer_of(&plan, "socket", [family, 1, 0]), "NOTIFY", "{family}");
            assert_eq!(answer_of(&plan, "socket", [family, 1, AUDIT]), "NOTIFY", "{family}");
        }
        // Podman's own answer to who wants to speak to audit.
        assert_eq!(answer_of(&plan, "socket", [16, 3, AUDIT]), "ERRNO 22");
        assert_eq!(answer_of(&plan, "socket", [2, 1, AUDIT]), "ALLOW");
        let rules = edit(&plan, "/linux/seccomp").unwrap()["syscalls"].as_array().unwrap();
        let of_socket =
            rules.iter().filter(|rule| rule["names"].as_array().unwrap().contains(&json!("socket"))).count();
        assert!(of_socket < 24, "{of_socket} rules");
    }
}

#[test]
fn a_family_that_dockers_newer_filters_leave_out_is_left_out_and_the_learnt_ones_are_not() {
    let arg = |op: &str, value: u64| json!([{"index": 0, "value": value, "op": format!("SCMP_CMP_{op}")}]);
    let socket = |args: Value| json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args});
    for allowed in [vec![arg("LT", AF_ALG), arg("EQ", 39), arg("GT", AF_VSOCK)], vec![arg("NE", AF_VSOCK)]] {
        let mut rules: Vec<Value> = allowed.into_iter().map(socket).collect();
        rules.push(json!({"names": ["read", "openat", "write"], "action": "SCMP_ACT_ALLOW"}));
        let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules});
        let learnt = service(&[], &["1,1,0", "2,1,0", "40,1,0"]);
        let plan = hardened(&learnt, &with_filter(&filter), false);
        for (family, want) in
            [(1, "ALLOW"), (2, "ALLOW"), (10, "ALLOW"), (AF_VSOCK, "ERRNO 1"), (AF_ALG, "ERRNO 1"), (17, "ERRNO 1")]
        {
            assert_eq!(say(&plan, "socket", family), want, "{family}");
        }
        assert!(plan.notes.is_empty(), "{:?}", plan.notes);
    }
}

fn allow(name: &str, args: Value) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args})
}

#[test]
fn a_call_of_which_nobody_can_tell_what_is_meant_is_refused_and_named_and_the_rest_is_enforced() {
    let odd = |op: &str| json!([{"index": 0, "value": 1, "valueTwo": 2, "op": op}]);
    let refuse =
        |args: Value| json!({"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": args});
    for (rule, default, want) in [
        (allow("personality", odd("SCMP_CMP_MASKED_EQ")), "SCMP_ACT_ERRNO", "ERRNO 1"),
        (allow("personality", odd("SCMP_CMP_UNHEARD_OF")), "SCMP_ACT_ERRNO", "ERRNO 1"),
        (allow("personality", json!([{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}])), "SCMP_ACT_ERRNO", "ERRNO 1"),
        (refuse(odd("SCMP_CMP_MASKED_EQ")), "SCMP_ACT_ALLOW", "ERRNO 95"),
        (json!({"names": ["personality"], "action": "SCMP_ACT_TRACE"}), "SCMP_ACT_ALLOW", "ERRNO 1"),
    ] {
        let filter = json!({"defaultAction": default, "defaultErrnoRet": 1, "syscalls": [
            rule, {"names": ["read", "openat", "mount"], "action": if default.ends_with("ALLOW") { "SCMP_ACT_LOG" } else { "SCMP_ACT_ALLOW" }}]});
        let plan = hardened(&profile(&["openat", "personality"]), &with_filter(&filter), false);
        for persona in [0, 1, 2, 0xFFFF_FFFF] {
            assert_eq!(say(&plan, "personality", persona), want, "{filter}");
        }
        assert_eq!((say(&plan, "mount", 0).as_str(), say(&plan, "keyctl", 0).as_str()), ("ERRNO 1", "ERRNO 1"));
        assert!(["ALLOW", "LOG"].contains(&say(&plan, "openat", 0).as_str()), "{filter}");
        assert!(plan.notes.iter().any(|n| n.contains("of personality can't be put together")), "{:?}", plan.notes);
    }
}

#[test]
fn what_is_too_fine_of_one_call_is_refused_there_and_never_more_than_both_allow() {
    // Numbers with nothing in common, in two arguments: each rule for itself is short.
    let number = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let fine = |i: u64| {
        allow(
            "socket",
            json!([{"index": 0, "value": 0xFFFF_0000_FFFF_0000_u64, "valueTwo": number(i) & 0xFFFF_0000_FFFF_0000, "op": "SCMP_CMP_MASKED_EQ"},
        {"index": 2, "value": number(i + 1), "op": "SCMP_CMP_GT"}]),
        )
    };
    let mut rules: Vec<Value> = (0..300).map(fine).collect();
    rules.push(json!({"names": ["read", "openat", "mount", "bind"], "action": "SCMP_ACT_ALLOW"}));
    let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
    for learnt in [service(&[], &["2,1,0"]), profile(&["openat", "socket", "bind"])] {
        let plan = hardened(&learnt, &with_filter(&filter), true);
        assert_eq!((say(&plan, "openat", 0), say(&plan, "mount", 0)), ("ALLOW".into(), "NOTIFY".into()));
        assert!(plan.notes.iter().any(|n| n.contains("of socket can't be put together")), "{:?}", plan.notes);
        for i in 0..300 {
            let arguments = [number(i), 0, u64::MAX];
            let theirs = answer(&filter, "socket", &[arguments[0], 0, u64::MAX, 0, 0, 0]);
            assert!(theirs == "ALLOW" || answer_of(&plan, "socket", arguments) != "ALLOW", "{arguments:x?}");
        }
    }
}

#[test]
fn more_learnt_arguments_than_a_filter_can_hold_leave_the_others_refused() {
    let learnt = changed(|o| {
        for call in ["personality", "ptrace", "socket"] {
            o.workload_behaviour.syscalls.insert(call.into(), seen(0, 0, 1));
            let values = (0..120u64).map(|n| (format!("{},1,0", n * 3), seen(0, 0, 1)));
            o.workload_behaviour.arguments.insert(call.into(), values.collect());
        }
    });
    let plan = hardened(&learnt, &with_filter(&Value::Null), true);
    assert_eq!((say(&plan, "mount", 0), say(&plan, "keyctl", 0)), ("NOTIFY".into(), "NOTIFY".into()));
    assert!(
        plan.degraded.iter().any(|n| n.contains("the filter would be too long for the kernel: ")),
        "{:?}",
        plan.degraded
    );
    assert_eq!((say(&plan, "socket", 3), say(&plan, "socket", 6)), ("ALLOW".into(), "ALLOW".into()));
}

#[test]
fn a_filter_that_is_none_of_the_specification_is_no_reason_to_start_without_the_profile() {
    for odd in [
        json!({"defaultAction": "SCMP_ACT_WHATEVER"}),
        json!({"defaultAction": "SCMP_ACT_ERRNO", "unheardOf": 1}),
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": vec![allow("read", json!([])); 5000]}),
    ] {
        let (profile, document, needs, policy) = (profile(&["openat"]), with_filter(&odd), needs(), policy());
        let given = Given { profile: &profile, document: &document, policy: &policy, needs: &needs, listener: None };
        let error = format!("{:#}", harden(&given).unwrap_err());
        assert!(error.contains("failed to read the engine's own system call filter of web; use mode"), "{error}");
    }
}
