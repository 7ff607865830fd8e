//! What an exported profile allows, refuses and mounts, in each format.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::places::Kind;
use super::*;
use crate::profile::behaviour::{Operation, Origin, Program, Write};
use crate::profile::document::{Generation, Profile, Stage, Support};
use crate::profile::{Behaviour, Revision, document};

fn seen() -> Support {
    let time = "2026-11-22T01:02:03.000000Z".to_string();
    Support { generations: BTreeMap::from([("0".repeat(32), 3)]), first: time.clone(), last: time }
}

fn set(names: &[&str]) -> BTreeMap<String, Support> {
    names.iter().map(|name| (name.to_string(), seen())).collect()
}

fn write(operations: &[Operation], directory: bool, size_bytes: u64) -> Write<Support> {
    Write {
        seen: seen(),
        operations: operations.iter().copied().collect(),
        size_bytes,
        directory,
        executed: false,
        by: BTreeSet::new(),
        refused: BTreeSet::new(),
        succeeded: true,
    }
}

fn made(size_bytes: u64) -> Write<Support> {
    write(&[Operation::Write, Operation::Create], false, size_bytes)
}

/// A workload that runs as this user.
fn profile(user: &str) -> Profile {
    let time = seen().first;
    let generation = Generation {
        node: "n".into(),
        container: "c".into(),
        started: time.clone(),
        until: time,
        ended: true,
        window_seconds: 60,
        windows: 3,
        loss: Default::default(),
        unseen: BTreeSet::new(),
    };
    Profile {
        version: document::VERSION,
        workload: "web/front end".into(),
        revision: Revision {
            digest: "0123456789abcdef0123456789abcdef".into(),
            image: "sha256:00".into(),
            image_name: None,
            args: vec!["/bin/web".into()],
            env: vec![],
            mounts: vec![],
            user: user.into(),
            capabilities: vec!["CAP_CHOWN".into(), "CAP_KILL".into()],
        },
        architecture: "x86_64".into(),
        stage: Stage::Observing,
        generations: BTreeMap::from([("0".repeat(32), generation)]),
        steering: Default::default(),
        workload_behaviour: Behaviour { syscalls: set(&["read", "openat2"]), ..Default::default() },
        exec_behaviour: Behaviour::default(),
        forbidden: BTreeMap::new(),
        cut: BTreeSet::new(),
        peaks: Default::default(),
    }
}

fn plan(profile: &Profile) -> Plan {
    Plan::of(profile, None).unwrap()
}

/// What the filter says to a call with this number as each of its arguments: an errno, or 0.
fn answer(plan: &Plan, name: &str, first: u64) -> i32 {
    let value = oci_seccomp::value(&plan.filter);
    let mut answer = value["defaultErrnoRet"].as_i64().unwrap();
    for rule in value["syscalls"].as_array().unwrap() {
        let fits = |arg: &serde_json::Value| {
            let number = |key: &str| arg[key].as_u64().unwrap();
            match arg["op"].as_str().unwrap() {
                "SCMP_CMP_EQ" => first == number("value"),
                "SCMP_CMP_MASKED_EQ" => first & number("value") == number("valueTwo"),
                other => panic!("{other}"),
            }
        };
        let args = rule["args"].as_array().map(Vec::as_slice).unwrap_or_default();
        if rule["names"].as_array().unwrap().iter().any(|n| n == name) && args.iter().all(fits) {
            answer = rule["errnoRet"].as_i64().unwrap_or(0);
        }
    }
    answer.try_into().unwrap()
}

#[test]
fn what_was_learnt_is_allowed_what_is_known_gets_eperm_and_what_is_new_or_unknown_enosys() {
    let plan = plan(&profile("0:0"));
    for name in ["read", "openat2", "exit_group", "futex", "execve"] {
        assert_eq!(answer(&plan, name, 0), 0, "{name}");
    }
    for name in ["mount", "ptrace", "init_module", "add_key"] {
        assert_eq!(answer(&plan, name, 0), libc::EPERM, "{name}");
    }
    for name in ["clone3", "io_uring_setup", "a_call_of_the_future"] {
        assert_eq!(answer(&plan, name, 0), libc::ENOSYS, "{name}");
    }
}

#[test]
fn what_exec_sessions_did_is_allowed_too_and_said() {
    let mut profile = profile("0:0");
    profile.exec_behaviour.syscalls = set(&["mincore"]);
    profile.exec_behaviour.capabilities = set(&["CAP_KILL"]);
    let plan = plan(&profile);
    assert_eq!(answer(&plan, "mincore", 0), 0);
    assert!(plan.capabilities.contains("CAP_KILL"));
    assert!(plan.notes.iter().any(|note| note.contains("exec sessions")), "{:?}", plan.notes);
}

#[test]
fn clone_makes_threads_and_only_those_namespaces_that_were_learnt() {
    const NEW_USER: u64 = 0x1000_0000;
    let mut profile = profile("0:0");
    profile.workload_behaviour.syscalls = set(&["clone", "unshare"]);
    let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::SIGCHLD) as u64;
    let narrow = plan(&profile);
    assert_eq!(answer(&narrow, "clone", thread), 0);
    assert_ne!(answer(&narrow, "clone", thread | NEW_USER), 0);
    assert_ne!(answer(&narrow, "unshare", NEW_USER), 0);
    profile.workload_behaviour.arguments.insert("clone".into(), set(&[&NEW_USER.to_string()]));
    let wide = plan(&profile);
    assert_eq!(answer(&wide, "clone", thread | NEW_USER), 0);
    assert_ne!(answer(&wide, "clone", thread | NEW_USER | 0x2_0000), 0);
}

#[test]
fn clone3_is_hidden_so_that_clone_is_used_unless_it_was_seen_to_make_namespaces() {
    let mut profile = profile("0:0");
    profile.workload_behaviour.syscalls = set(&["clone3"]);
    let hidden = plan(&profile);
    assert_eq!((answer(&hidden, "clone3", 0), answer(&hidden, "clone", 0)), (libc::ENOSYS, 0));
    // The operator can't say ENOSYS.
    assert!(spo::document(&hidden).text.contains("- \"clone3\"\n"));
    profile.workload_behaviour.arguments.insert("clone3".into(), set(&["131072"]));
    assert_eq!(answer(&plan(&profile), "clone3", 0), 0);
}

#[test]
fn sockets_are_of_the_families_that_were_learnt_and_ipv4_brings_ipv6() {
    let mut profile = profile("0:0");
    profile.workload_behaviour.syscalls = set(&["socket", "personality"]);
    profile.workload_behaviour.arguments.insert("socket".into(), set(&["2,1,6"]));
    let plan = plan(&profile);
    let families: Vec<u64> = (0..50).filter(|family| answer(&plan, "socket", *family) == 0).collect();
    assert_eq!(families, [2, 10, 16]);
    assert_eq!(answer(&plan, "personality", 0xFFFF_FFFF), 0);
    assert_ne!(answer(&plan, "personality", 0x40000), 0);
}

#[test]
fn thirty_two_bit_calls_bring_their_interface_and_their_names() {
    let mut profile = profile("0:0");
    profile.workload_behaviour.syscalls = set(&["read", "i386:socketcall", "#999"]);
    let plan = plan(&profile);
    let value = oci_seccomp::value(&plan.filter);
    assert_eq!(value["architectures"], serde_json::json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
    assert_eq!((answer(&plan, "socketcall", 0), answer(&plan, "vm86", 0)), (0, libc::EPERM));
    assert!(!value.to_string().contains("#999") && !value.to_string().contains("i386:"));
    assert!(plan.notes.iter().any(|note| note.contains("#999")));
}

#[test]
fn a_privileged_program_keeps_its_way_up_and_the_runtime_needs_more_then() {
    let mut profile = profile("0:0");
    assert!(plan(&profile).no_new_privileges);
    assert_eq!(answer(&plan(&profile), "setgroups", 0), libc::EPERM);
    let su = Program { seen: seen(), origins: BTreeSet::from([Origin::Image]), privileged: true };
    profile.workload_behaviour.programs.insert("/bin/su".into(), su);
    let plan = plan(&profile);
    assert!(!plan.no_new_privileges && plan.notes.iter().any(|note| note.contains("/bin/su")));
    assert_eq!(answer(&plan, "setgroups", 0), 0);
    assert!(!docker::flags(&plan, ".").0.contains(&"no-new-privileges".to_string()));
    assert!(kubernetes::documents(&plan).0.text.contains("allowPrivilegeEscalation: true"));
}

#[test]
fn capabilities_that_no_sensor_could_see_are_kept() {
    let mut profile = profile("0:0");
    profile.workload_behaviour.capabilities = set(&["CAP_CHOWN", "#63"]);
    assert_eq!(plan(&profile).capabilities, BTreeSet::from(["CAP_CHOWN".to_string()]));
    profile.generations.values_mut().for_each(|g| g.unseen = BTreeSet::from(["capabilities".to_string()]));
    let plan = plan(&profile);
    assert_eq!(plan.capabilities.len(), 2);
    assert!(plan.notes.iter().any(|note| note.contains("partial")), "{:?}", plan.notes);
    profile.revision.capabilities.push("CAP_SYS_ADMIN".into());
    let plan = self::plan(&profile);
    assert_eq!(plan.capabilities.len(), 2, "what is never learnt is not granted for want of a look either");
    assert!(plan.notes.iter().any(|note| note.contains("CAP_SYS_ADMIN")), "{:?}", plan.notes);
}

#[test]
fn who_lets_itself_be_traced_may_not_trace_others() {
    let mut profile = profile("0:0");
    profile.workload_behaviour.syscalls = set(&["ptrace"]);
    profile.workload_behaviour.arguments.insert("ptrace".into(), set(&["0"]));
    let plan = plan(&profile);
    assert_eq!(answer(&plan, "ptrace", 0), 0);
    assert_ne!(answer(&plan, "ptrace", 16), 0, "PTRACE_ATTACH");
}

#[test]
fn a_low_port_keeps_the_capability_that_another_node_may_ask_for_if_it_was_granted() {
    let mut profile = profile("0:0");
    profile.workload_behaviour.listens = set(&["tcp [::]:80", "unix /run/x:1", "tcp 0.0.0.0:8080", "tcp *:*"]);
    assert!(plan(&profile).capabilities.is_empty());
    profile.revision.capabilities.push("CAP_NET_BIND_SERVICE".into());
    let kept = plan(&profile);
    assert_eq!(kept.capabilities, BTreeSet::from(["CAP_NET_BIND_SERVICE".to_string()]));
    assert!(kept.notes.iter().any(|note| note.contains("tcp [::]:80")), "{:?}", kept.notes);
    profile.workload_behaviour.listens.remove("tcp [::]:80");
    assert!(plan(&profile).capabilities.is_empty());
}

#[test]
fn writes_become_places_by_where_they_are_and_what_was_there() {
    let mut profile = profile("101:102");
    profile.workload_behaviour.writes = BTreeMap::from([
        ("/tmp/tmp.*".to_string(), made(10 << 20)),
        ("/var/run/web/web.sock".to_string(), made(0)),
        ("/var/lib/web/state".to_string(), made(0)),
        ("/var/lib/web/cache".to_string(), write(&[Operation::Create], true, 0)),
        ("/var/lib/web/cache/a*/x".to_string(), made(0)),
        ("/etc/web.conf".to_string(), made(0)),
        ("/core".to_string(), made(0)),
    ]);
    let plan = plan(&profile);
    let memory = |mode, owner| Kind::Memory { mode, owner };
    let places: Vec<(&str, Kind, u64)> = plan.places.iter().map(|p| (p.path.as_str(), p.kind, p.size_bytes)).collect();
    assert_eq!(
        places,
        [
            ("/run/web", memory(0o755, Some((101, 102))), 16 << 20),
            ("/tmp", memory(0o1777, None), 64 << 20),
            ("/var/lib/web", Kind::Volume, 16 << 20)
        ]
    );
    let notes = plan.notes.join("\n");
    assert!(notes.contains("/etc/web.conf") && notes.contains("hide system files"), "{notes}");
    assert!(notes.contains("/core") && notes.contains("directly in the root"), "{notes}");
}

#[test]
fn a_file_of_the_image_that_was_changed_asks_for_a_volume_and_one_that_was_only_tried_for_nothing() {
    let mut profile = profile("0:0");
    let mut tried = made(0);
    tried.succeeded = false;
    profile.workload_behaviour.writes = BTreeMap::from([
        ("/run/seed".to_string(), write(&[Operation::Write], false, 0)),
        ("/srv/tried".to_string(), tried),
    ]);
    let plan = plan(&profile);
    assert_eq!(plan.places.len(), 1);
    assert_eq!((plan.places[0].path.as_str(), plan.places[0].kind), ("/run", Kind::Volume));
}

#[test]
fn below_run_a_workload_that_gives_up_root_gets_a_volume_since_its_owner_is_the_images_to_say() {
    let mut profile = profile("0:0");
    profile.workload_behaviour.syscalls = set(&["setuid"]);
    profile.workload_behaviour.writes =
        BTreeMap::from([("/run/web/pid".to_string(), made(0)), ("/run/pid".to_string(), made(0))]);
    let places = plan(&profile).places;
    assert!(matches!(places[0].kind, Kind::Memory { .. }), "{places:?}");
    assert_eq!((places[1].path.as_str(), places[1].kind), ("/run/web", Kind::Volume));
    // What it makes there itself is covered.
    profile.workload_behaviour.writes.insert("/run/web".into(), write(&[Operation::Create], true, 0));
    assert_eq!(plan(&profile).places.len(), 1);
}

#[test]
fn docker_gets_one_line_that_a_shell_reads_as_it_is_meant() {
    let mut profile = profile("101:102");
    profile.workload_behaviour.capabilities = set(&["CAP_NET_BIND_SERVICE"]);
    profile.workload_behaviour.writes =
        BTreeMap::from([("/tmp/x".to_string(), made(0)), ("/srv/it's $HOME/x".to_string(), made(0))]);
    profile.peaks.pids = Some(1000);
    let (words, file) = docker::flags(&plan(&profile), "/some where/");
    assert_eq!(
        docker::line(&words),
        "--read-only --cap-drop ALL --cap-add NET_BIND_SERVICE --security-opt no-new-privileges --security-opt \
         'seccomp=/some where/web-front-end-01234567.seccomp.json' --pids-limit 2016 --user 101:102 --volume \
         '/srv/it'\\''s $HOME' --tmpfs /tmp:size=16777216,mode=1777"
    );
    assert_eq!(file.name, "web-front-end-01234567.seccomp.json");
}

#[test]
fn kubernetes_gets_a_security_context_and_empty_dirs() {
    let mut profile = profile("101:102");
    profile.workload_behaviour.capabilities = set(&["CAP_CHOWN"]);
    profile.workload_behaviour.writes =
        BTreeMap::from([("/tmp/x".to_string(), made(0)), ("/srv/a\"b: #/x".to_string(), made(0))]);
    let (document, filter) = kubernetes::documents(&plan(&profile));
    let name = "web-front-end-01234567";
    assert_eq!((document.name, filter.name), (format!("{name}.pod.yaml"), format!("{name}.seccomp.json")));
    let lines: Vec<&str> = document.text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let expected = format!(
        "spec:
  containers:
  - name: \"{name}\"
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      runAsUser: 101
      runAsGroup: 102
      runAsNonRoot: true
      capabilities:
        drop:
        - \"ALL\"
        add:
        - \"CHOWN\"
      seccompProfile:
        type: Localhost
        localhostProfile: \"lithify/{name}.seccomp.json\"
    volumeMounts:
    - name: \"scratch-0\"
      mountPath: \"/tmp\"
  volumes:
  - name: \"scratch-0\"
    emptyDir:
      medium: Memory
      sizeLimit: \"16Mi\""
    );
    assert_eq!(lines.join("\n"), expected);
    // A colon in a path is no engine's to take: it is told rather than mounted.
    assert!(document.text.contains("no engine takes such a name"));
}

#[test]
fn the_operators_profile_has_no_field_that_it_would_write_wrongly() {
    let text = spo::document(&plan(&profile("0:0"))).text;
    assert!(text.contains("apiVersion: security-profiles-operator.x-k8s.io/v1beta1\nkind: SeccompProfile\n"));
    assert!(text.contains("  defaultAction: SCMP_ACT_ERRNO\n") && text.contains("    - \"openat2\"\n"));
    assert!(!text.contains("errnoRet"));
}

proptest! {
    #[test]
    fn no_path_or_name_breaks_out_of_a_line_or_asks_for_a_mount_that_hides_the_system(
        paths in proptest::collection::vec("(/[a-z.*:,\"'\\\\ #\n\u{85}\u{2028}]{0,6}){0,4}|/(etc|usr|proc|tmp|var/run)/.{0,8}", 0..8),
        workload in ".{0,70}",
        user in "[0-9:]{0,6}",
    ) {
        let mut profile = profile(&user);
        profile.workload = workload;
        profile.workload_behaviour.writes = paths.into_iter().map(|path| (path, made(1))).collect();
        let plan = plan(&profile);
        prop_assert!(plan.name.len() <= 63 && plan.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        prop_assert!(!plan.name.starts_with('-'));
        for place in &plan.places {
            prop_assert!(place.path.starts_with('/') && place.path.len() > 1 && !place.path.contains([':', ',', '\n', '*']));
            prop_assert!(!place.path.split('/').any(|part| part == ".." || part == "."));
            prop_assert!(!crate::policy::values::is_protected(std::path::Path::new(&place.path)));
        }
        let (words, _) = docker::flags(&plan, "/out");
        prop_assert_eq!(docker::line(&words).lines().count(), 1);
        for text in [kubernetes::documents(&plan).0.text, spo::document(&plan).text] {
            prop_assert!(!text.chars().any(|c| c != '\n' && c.is_control()));
            for line in text.lines() {
                let start = line.trim_start();
                prop_assert!(start.starts_with('#') || start.starts_with("- ") || start.contains(": ") || start.ends_with(':'), "{line:?}");
            }
        }
    }
}
