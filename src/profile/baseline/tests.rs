//! What may be learnt, and what is reported instead.

use super::super::behaviour::Program;
use super::super::syscalls;
use super::*;

fn seen() -> Sighting {
    let time = "2026-01-01T00:00:00.000000Z".to_string();
    Sighting { windows: 1, first: time.clone(), last: time }
}

#[test]
fn every_entry_has_a_reason_and_every_name_exists() {
    let b: Baseline = serde_json::from_str(DOCUMENT).expect("the document is of its shape");
    let reasons = (b.told.iter().chain(&b.capabilities).map(|r| &r.reason))
        .chain(b.syscalls.iter().map(|r| &r.reason))
        .chain(b.arguments.iter().map(|r| &r.reason))
        .chain(b.programs.iter().map(|r| &r.reason))
        .chain(b.tolerated.iter().chain(&b.writes).chain(&b.kernel_files).map(|r| &r.reason));
    for reason in reasons {
        assert!(reason.len() > 10 && !reason.ends_with('.'), "{reason:?}");
    }
    let named = b.syscalls.iter().flat_map(|r| &r.names).chain(b.told.iter().flat_map(|r| &r.names));
    let calls = named.clone().chain(b.arguments.iter().flat_map(|r| &r.calls));
    for call in calls {
        let known = syscalls::parse(call).or_else(|| syscalls::parse(&format!("i386:{call}")));
        assert!(known.is_some() && !call.contains([':', '#']), "{call}");
    }
    for name in b.capabilities.iter().flat_map(|r| &r.names) {
        assert!(syscalls::capability_number(name).is_some(), "{name}");
    }
    let mut twice: Vec<&String> = named.chain(b.capabilities.iter().flat_map(|r| &r.names)).collect();
    let count = twice.len();
    twice.sort();
    twice.dedup();
    assert_eq!(twice.len(), count, "a name has two reasons");
    assert!(b.programs.iter().all(|r| !r.origins.is_empty()));
    assert!(b.writes.iter().flat_map(|r| &r.paths).all(|p| p.starts_with('/') && !p.ends_with('/')));
}

#[test]
fn forbidden_calls_are_taken_out_through_both_interfaces_and_where_they_were_refused() {
    let mut b = Behaviour::default();
    for name in ["read", "bpf", "i386:mount", "ptrace"] {
        b.syscalls.insert(name.to_string(), seen());
    }
    b.denied_syscalls.insert("init_module".to_string(), seen());
    b.denied_syscalls.insert("clone3".to_string(), seen());
    let (learnt, forbidden) = split(b);
    assert_eq!(learnt.syscalls.keys().collect::<Vec<_>>(), ["ptrace", "read"]);
    assert_eq!(learnt.denied_syscalls.keys().collect::<Vec<_>>(), ["clone3"]);
    let names: Vec<&String> = forbidden.keys().collect();
    assert_eq!(names, ["denied syscall init_module", "syscall bpf", "syscall i386:mount"]);
    assert!(forbidden["syscall bpf"].reason.contains("kernel"));
}

#[test]
fn a_call_goes_with_its_last_allowed_argument_unless_it_has_uses_that_are_not_recorded() {
    let with = |call: &str, values: &[&str]| {
        let mut b = Behaviour::default();
        b.syscalls.insert(call.to_string(), seen());
        b.arguments.insert(call.to_string(), values.iter().map(|v| (v.to_string(), seen())).collect());
        let (learnt, forbidden) = split(b);
        let left: Vec<String> = learnt.arguments.get(call).into_iter().flatten().map(|(v, _)| v.clone()).collect();
        (learnt.syscalls.contains_key(call), left.join(" "), forbidden.len())
    };
    assert_eq!(with("ptrace", &["0"]), (true, "0".to_string(), 0));
    assert_eq!(with("ptrace", &["0", "16"]), (true, "0".to_string(), 1));
    assert_eq!(with("ptrace", &["16"]), (false, String::new(), 2));
    assert_eq!(with("i386:ptrace", &["16"]), (false, String::new(), 2));
    // AF_PACKET goes; raw netlink, which every getifaddrs(3) uses, stays; so does ping's datagram socket.
    assert_eq!(with("socket", &["17,3,768", "16,3,0", "2,2,1", "2,3,1"]), (true, "16,3,0 2,2,1".to_string(), 2));
    assert_eq!(with("clone", &["268435456"]), (true, String::new(), 1));
    // Asking is not turning off.
    assert_eq!(with("personality", &["4294967295", "262144", "8"]), (true, "4294967295 8".to_string(), 1));
    assert_eq!(with("ioctl", &["21522", "21505"]), (true, "21505".to_string(), 1));
}

#[test]
fn a_program_is_learnt_with_the_places_it_may_come_from_and_reported_with_the_others() {
    let mut b = Behaviour::default();
    for (path, origins) in [
        ("/bin/sh", vec![Origin::Image, Origin::Upper]),
        ("/memfd:x", vec![Origin::Anonymous]),
        ("/data/plugin", vec![Origin::Volume]),
        ("/bin/web", vec![Origin::Root]),
    ] {
        let program = Program { seen: seen(), origins: origins.into_iter().collect(), privileged: false };
        b.programs.insert(path.to_string(), program);
    }
    let (learnt, forbidden) = split(b);
    assert_eq!(learnt.programs.keys().collect::<Vec<_>>(), ["/bin/sh", "/bin/web", "/data/plugin"]);
    assert_eq!(learnt.programs["/bin/sh"].origins, [Origin::Image].into());
    let names: Vec<&String> = forbidden.keys().collect();
    assert_eq!(names, ["program /bin/sh from upper", "program /memfd:x from anonymous"]);
}

#[test]
fn a_volumes_program_is_learnt_and_one_in_what_engines_mount_by_themselves_is_not() {
    let behaviour = || {
        let mut behaviour = Behaviour::default();
        for path in ["/data/tool", "/etc/hosts", "/dev/termination-log", "/etc/hosts.d/tool"] {
            let program = Program { seen: seen(), origins: [Origin::Volume].into(), privileged: false };
            behaviour.programs.insert(path.to_string(), program);
        }
        behaviour
    };
    let (learnt, forbidden) = split(behaviour());
    assert_eq!(learnt.programs.keys().collect::<Vec<_>>(), ["/data/tool", "/etc/hosts.d/tool"]);
    let expected = ["program /dev/termination-log from volume", "program /etc/hosts from volume"];
    assert_eq!(forbidden.keys().collect::<Vec<_>>(), expected);
}

#[test]
fn a_process_s_memory_has_one_name_and_is_never_learnt() {
    for path in ["/proc/1/mem", "/proc/17/mem"] {
        assert_eq!(kernel_file(path), Some("/proc/*/mem"), "{path}");
    }
    assert_eq!(kernel_file("/proc/17/task/18/mem"), Some("/proc/*/task/*/mem"));
    for path in ["/proc/17/oom_score_adj", "/proc/sys/net/core/somaxconn", "/proc/meminfo", "/srv/proc/1/mem"] {
        assert_eq!(kernel_file(path), None, "{path}");
    }
    let mut b = Behaviour::default();
    let write = super::super::behaviour::Write {
        seen: seen(),
        operations: BTreeSet::new(),
        size_bytes: 0,
        directory: false,
        executed: false,
        by: BTreeSet::new(),
        refused: BTreeSet::new(),
        succeeded: true,
    };
    b.writes.insert("/proc/*/mem".to_string(), write);
    let (learnt, forbidden) = split(b);
    assert!(learnt.writes.is_empty());
    assert_eq!(forbidden.keys().collect::<Vec<_>>(), ["write /proc/*/mem"]);
}

#[test]
fn what_a_program_lives_without_is_neither_learnt_nor_reported() {
    use super::super::behaviour::Write;
    let mut b = Behaviour::default();
    for path in ["/usr/lib/python3/__pycache__/x.pyc", "/app/__pycache__", "/usr/lib/python3/x.pyc", "/app/x"] {
        let write = Write {
            seen: seen(),
            operations: BTreeSet::new(),
            size_bytes: 0,
            directory: false,
            executed: false,
            by: BTreeSet::new(),
            refused: BTreeSet::new(),
            succeeded: true,
        };
        b.writes.insert(path.to_string(), write);
    }
    let (learnt, forbidden) = split(b);
    assert_eq!(learnt.writes.keys().collect::<Vec<_>>(), ["/app/x"]);
    assert_eq!(forbidden.keys().collect::<Vec<_>>(), ["write /usr/lib/python3/x.pyc"]);
}

#[test]
fn protected_places_are_whole_components() {
    for path in ["/etc", "/etc/passwd", "/usr/lib/x", "/home/ann/.ssh/authorized_keys", "/lib/x"] {
        assert!(protected(path).is_some(), "{path}");
    }
    for path in ["/etcetera/x", "/var/lib/x", "/home/ann/x", "/home/ann", "/root/.sshx", "/", "/opt/usr/x"] {
        assert!(protected(path).is_none(), "{path}");
    }
}
