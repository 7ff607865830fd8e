//! The node's configuration and annotations, from text to policy.

mod auto;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use lithify::policy::annotations::resolve;
use lithify::policy::config::{Config, Loosen, Overrides};
use lithify::policy::{ExecRule, Mode, Policy, Response, RootfsKind, tighten, word};

fn config(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn with(text: &str, pairs: &[(&str, &str)]) -> anyhow::Result<Policy> {
    named(text, pairs, Some("web"))
}

fn named(text: &str, pairs: &[(&str, &str)], container: Option<&str>) -> anyhow::Result<Policy> {
    let annotations: BTreeMap<String, String> =
        pairs.iter().map(|(k, v)| (format!("lithify.dev/{k}"), v.to_string())).collect();
    resolve(&config(text), &Overrides::default(), &annotations, container)
}

fn refused(text: &str, pairs: &[(&str, &str)]) -> String {
    format!("{:#}", with(text, pairs).expect_err("was accepted"))
}

#[test]
fn without_configuration_or_annotations_a_container_goes_its_way_to_a_sealed_root_that_restarts() {
    let policy = with("", &[]).unwrap();
    assert_eq!((policy.mode, policy.rootfs, policy.on_write), (Mode::Auto, RootfsKind::Sealed, Response::Restart));
    assert_eq!((policy.on_refused_write, policy.on_refused_syscall), (Response::Restart, Response::Restart));
    assert_eq!(policy.exec, ExecRule::Allow);
    assert_eq!((policy.restart_limit.count, policy.restart_limit.window), (5, Duration::from_secs(60)));
    assert_eq!((policy.escalate_to, policy.renew_every), (Response::Stop, None));
}

#[test]
fn annotations_tighten_every_key_without_being_allowed_to() {
    let node = "mode = \"off\"\nrootfs = \"engine\"\non-write = \"report\"\nrenew-every = \"24h\"\non-refused-write = \"report\"\non-refused-syscall = \"report\"\nexec = \"allow\"";
    let policy = with(
        node,
        &[
            ("mode", "enforce"),
            ("rootfs", "tripwire"),
            ("on-write", "restart"),
            ("on-refused-write", "pause"),
            ("on-refused-syscall", "stop"),
            ("exec", "deny"),
            ("restart-limit", "2/60s"),
            ("renew-every", "1h"),
            ("workload", "shop"),
            ("scratch", "/tmp:1m,/var/cache"),
        ],
    )
    .unwrap();
    assert_eq!((policy.mode, policy.rootfs, policy.on_write), (Mode::Enforce, RootfsKind::Tripwire, Response::Restart));
    assert_eq!((policy.restart_limit.count, policy.renew_every), (2, Some(Duration::from_secs(3600))));
    assert_eq!((policy.on_refused_write, policy.on_refused_syscall), (Response::Pause, Response::Stop));
    assert_eq!((policy.workload.as_deref(), policy.exec), (Some("shop"), ExecRule::Deny));
    assert_eq!(policy.scratch.len(), 2);
}

#[test]
fn each_loosening_is_refused_unless_the_node_names_its_key() {
    let node = "mode = \"enforce\"\nrootfs = \"sealed\"\non-write = \"restart\"\nrestart-limit = \"5/60s\"\nrenew-every = \"1h\"\n\
                on-refused-write = \"pause\"\non-refused-syscall = \"stop\"\nexec = \"profile\"\n";
    for (key, value, loosen) in [
        ("mode", "off", "mode"),
        ("mode", "auto", "mode"),
        ("on-refused-write", "report", "on-refused-write"),
        ("on-refused-syscall", "pause", "on-refused-syscall"),
        ("exec", "allow", "exec"),
        ("rootfs", "tripwire", "rootfs"),
        ("on-write", "pause", "on-write"),
        ("on-write", "report", "on-write"),
        ("restart-limit", "6/60s", "restart-limit"),
        ("restart-limit", "5/59s", "restart-limit"),
        ("renew-every", "2h", "renew-every"),
        ("renew-every", "off", "renew-every"),
        ("scratch", "/etc/app", "scratch"),
        ("scratch", "/tmp:exec", "scratch-exec"),
    ] {
        let message = refused(node, &[(key, value)]);
        assert!(message.contains(&format!("lithify.dev/{key}")), "{message}");
        assert!(message.contains(&format!("allow-loosen = [\"{loosen}\"]")), "{message}");
        let allowed = format!("{node}allow-loosen = [\"{loosen}\"]");
        with(&allowed, &[(key, value)]).unwrap_or_else(|e| panic!("{key}={value}: {e:#}"));
    }
    assert!(refused(node, &[("rootfs", "engine")]).contains("from sealed to engine"));
}

#[test]
fn what_the_node_does_not_set_an_annotation_may_choose() {
    let policy = with("", &[("rootfs", "tripwire"), ("on-write", "report"), ("restart-limit", "9/60s")]).unwrap();
    assert_eq!((policy.rootfs, policy.on_write), (RootfsKind::Tripwire, Response::Report));
    assert!(!policy.restarts_unpaced, "but not that its restarts cost the node as much as they like");
    assert!(with("restart-limit = \"1000/1s\"\n", &[("restart-limit", "9/60s")]).unwrap().restarts_unpaced);
    assert_eq!(with("", &[("mode", "off")]).unwrap().mode, Mode::Off);
}

#[test]
fn a_node_that_sets_anything_that_binds_binds_the_mode_too() {
    assert!(refused("rootfs = \"sealed\"", &[("mode", "off")]).contains("lithify.dev/mode"));
    assert_eq!(with("rootfs = \"sealed\"\nallow-loosen = [\"mode\"]", &[("mode", "off")]).unwrap().mode, Mode::Off);
}

#[test]
fn a_flag_of_the_registered_runtime_binds_as_the_file_does() {
    let overrides = Overrides::from_flags(Some("enforce"), Some("sealed"), Some("restart")).unwrap();
    for (key, value) in [("mode", "off"), ("rootfs", "tripwire"), ("on-write", "report")] {
        let annotations = BTreeMap::from([(format!("lithify.dev/{key}"), value.to_string())]);
        assert!(resolve(&Config::default(), &overrides, &annotations, None).is_err(), "{key}");
    }
}

#[test]
fn stop_and_restart_take_each_others_place() {
    assert_eq!(with("on-write = \"restart\"", &[("on-write", "stop")]).unwrap().on_write, Response::Stop);
    assert_eq!(with("on-write = \"stop\"", &[("on-write", "restart")]).unwrap().on_write, Response::Restart);
}

#[test]
fn one_containers_annotation_wins_over_the_pods_and_leaves_others_alone() {
    let node = "rootfs = \"engine\"\non-write = \"report\"";
    let pairs = [("rootfs", "tripwire"), ("rootfs.web", "sealed"), ("on-write.db", "stop")];
    let web = with(node, &pairs).unwrap();
    assert_eq!((web.rootfs, web.on_write), (RootfsKind::Sealed, Response::Report));
    let db = named(node, &pairs, Some("db")).unwrap();
    assert_eq!((db.rootfs, db.on_write), (RootfsKind::Tripwire, Response::Stop));
    assert_eq!(named(node, &pairs, None).unwrap().rootfs, RootfsKind::Tripwire);
    let dotted = [("rootfs.a.b", "sealed")];
    assert_eq!(named(node, &dotted, Some("a.b")).unwrap().rootfs, RootfsKind::Sealed);
}

#[test]
fn unknown_keys_and_values_fail_for_whomever_they_are() {
    assert!(refused("", &[("rotofs", "sealed")]).contains("did you mean \"rootfs\"?"));
    assert!(refused("", &[("rootfs", "seald")]).contains("did you mean \"sealed\"?"));
    assert!(refused("", &[("rootfs.db", "seald")]).contains("lithify.dev/rootfs.db"));
    assert!(refused("", &[("on-wirte.db", "stop")]).contains("did you mean \"on-write\"?"));
    assert!(refused("", &[("rootfs.", "sealed")]).contains("container's name"));
    assert!(refused("", &[("", "sealed")]).contains("unknown key"));
    assert!(refused("", &[("on-refused-syscall.db", "kill")]).contains("lithify.dev/on-refused-syscall.db"));
    assert!(refused("", &[("exec", "denny")]).contains("did you mean \"deny\"?"));
    assert!(refused("", &[("profile.db", "../x")]).contains("lithify.dev/profile.db"));
    assert!(refused("", &[("workload", "../../etc")]).contains("not a workload name"));
    assert!(refused("", &[("scratch", &"/a,".repeat(5000))]).contains("longer than"));
}

#[test]
fn a_hostile_value_reaches_a_message_only_escaped_and_cut() {
    let message = refused("", &[("rootfs", &"\u{1b}]0;x\n".repeat(100))]);
    assert!(message.len() < 400 && !message.contains(['\u{1b}', '\n']), "{message}");
}

#[test]
fn a_flood_of_annotations_is_refused() {
    let names: Vec<String> = (0..300).map(|i| format!("rootfs.c{i}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "sealed")).collect();
    assert!(refused("", &pairs).contains("more than 256"));
}

#[test]
fn other_peoples_annotations_are_not_looked_at() {
    let annotations = BTreeMap::from([
        ("lithify.device/mode".to_string(), "x".to_string()),
        ("lithify.dev".to_string(), "x".to_string()),
        ("other/mode".to_string(), "x".to_string()),
    ]);
    assert!(resolve(&Config::default(), &Overrides::default(), &annotations, None).is_ok());
}

#[test]
fn a_container_that_is_off_starts_whatever_its_other_annotations_say() {
    let pairs = [("rootfs", "nonsense"), ("nonsense", "x"), ("scratch", "/")];
    assert_eq!(with("mode = \"off\"", &pairs).unwrap().mode, Mode::Off);
    let off = [&pairs[..], &[("mode.web", "off"), ("mode", "nonsense")]].concat();
    assert_eq!(with("allow-loosen = [\"mode\"]", &off).unwrap().mode, Mode::Off);
    assert_eq!(with("mode = \"off\"\nrequire-profile = true", &[]).unwrap().mode, Mode::Off);
    assert!(refused("mode = \"off\"", &[("mode", "of")]).contains("did you mean \"off\"?"));
}

#[test]
fn the_engines_rootfs_is_reported_on_and_never_restarted() {
    let node = "allow-loosen = [\"rootfs\"]\nrenew-every = \"1h\"";
    let policy = with(node, &[("rootfs", "engine")]).unwrap();
    assert_eq!((policy.on_write, policy.renew_every), (Response::Report, None));
    assert_eq!(with(node, &[("rootfs", "engine"), ("on-write", "pause")]).unwrap().on_write, Response::Pause);
    let message = refused(node, &[("rootfs", "engine"), ("on-write", "restart")]);
    assert!(message.contains("pristine") && message.contains("sealed or tripwire"), "{message}");
    let node_restart = format!("{node}\non-write = \"restart\"");
    assert!(refused(&node_restart, &[("rootfs", "engine")]).contains("the node's on-write"));
    assert!(refused(node, &[("rootfs", "engine"), ("renew-every", "1m")]).contains("can't be renewed"));
}

#[test]
fn learning_leaves_the_workload_the_engines_root_whatever_the_node_does_elsewhere() {
    for mode in ["learn", "observe"] {
        let node = format!("mode = {mode:?}\non-write = \"restart\"\nrenew-every = \"1h\"\nscratch = \"/tmp\"");
        let policy = with(&node, &[]).unwrap();
        assert_eq!((policy.rootfs, policy.on_write), (RootfsKind::Engine, Response::Report), "{mode}");
        assert_eq!((policy.renew_every, policy.scratch.len(), policy.is_hands_off()), (None, 0, true), "{mode}");
        // A pod that is written for enforcing can learn as it is.
        let pod = [("on-write", "restart"), ("renew-every", "30m"), ("scratch", "/run"), ("workload", "shop")];
        let policy = with(&node, &pod).unwrap();
        assert!(policy.is_hands_off() && policy.scratch.is_empty() && policy.workload.as_deref() == Some("shop"));
        assert!(refused(&node, &[("on-write", "restrat")]).contains("did you mean \"restart\"?"));
    }
    assert!(!with("rootfs = \"engine\"", &[]).unwrap().is_hands_off(), "enforcing on the engine's root watches it");
}

#[test]
fn a_rootfs_that_somebody_sets_holds_while_learning_and_reports() {
    let flags = Overrides { rootfs: Some(RootfsKind::Tripwire), ..Overrides::default() };
    let annotations = BTreeMap::from([("lithify.dev/mode".to_string(), "learn".to_string())]);
    let flagged = resolve(&Config::default(), &flags, &annotations, None).unwrap();
    assert_eq!((flagged.mode, flagged.rootfs, flagged.on_write), (Mode::Learn, RootfsKind::Tripwire, Response::Report));
    let annotated = with("mode = \"observe\"", &[("rootfs", "sealed"), ("scratch", "/tmp")]).unwrap();
    assert_eq!((annotated.rootfs, annotated.on_write), (RootfsKind::Sealed, Response::Report));
    assert_eq!((annotated.is_hands_off(), annotated.scratch.len()), (false, 1));
    assert_eq!(with("mode = \"learn\"\nrootfs = \"sealed\"", &[]).unwrap().rootfs, RootfsKind::Sealed);
    let stops = with("mode = \"learn\"", &[("rootfs", "tripwire"), ("on-write", "stop")]).unwrap();
    assert_eq!(stops.on_write, Response::Stop);
}

#[test]
fn modes_tighten_from_off_over_learn_observe_and_auto_to_enforce() {
    let modes = ["off", "learn", "observe", "auto", "enforce"];
    for (i, node) in modes.iter().enumerate() {
        for (j, asked) in modes.iter().enumerate() {
            let resolved = with(&format!("mode = {node:?}"), &[("mode", asked)]);
            assert_eq!(resolved.is_ok(), j >= i, "{node} to {asked}");
        }
    }
    assert!(refused("rootfs = \"sealed\"", &[("mode", "learn")]).contains("from auto to learn"));
    assert_eq!(
        with("", &[("mode", "learn")]).unwrap().mode,
        Mode::Learn,
        "where nobody sets anything it may be chosen"
    );
}

#[test]
fn a_profile_is_named_where_one_is_compared_with_or_enforced_and_nowhere_else() {
    let policy = with("", &[("mode", "observe"), ("profile", "shop/web@0123")]).unwrap();
    assert_eq!(policy.profile.as_deref(), Some("shop/web@0123"));
    assert_eq!(with("", &[("mode", "enforce"), ("profile", "web")]).unwrap().profile.as_deref(), Some("web"));
    for mode in ["learn", "auto"] {
        let message = refused("", &[("mode", mode), ("profile", "web")]);
        assert!(message.contains("lithify.dev/profile") && message.contains(&format!("mode is {mode}")), "{message}");
    }
}

#[test]
fn flags_of_the_registered_runtime_are_the_nodes_settings() {
    let flags =
        Overrides { mode: Some(Mode::Enforce), rootfs: Some(RootfsKind::Tripwire), on_write: Some(Response::Stop) };
    let node = config("mode = \"off\"\nrootfs = \"sealed\"\non-write = \"report\"");
    let none = BTreeMap::new();
    let policy = resolve(&node, &flags, &none, None).unwrap();
    assert_eq!((policy.mode, policy.rootfs, policy.on_write), (Mode::Enforce, RootfsKind::Tripwire, Response::Stop));
    let loosen = BTreeMap::from([("lithify.dev/on-write".to_string(), "report".to_string())]);
    assert!(format!("{:#}", resolve(&node, &flags, &loosen, None).unwrap_err()).contains("from stop to report"));
}

#[test]
fn scratch_of_node_and_workload_are_joined_by_path() {
    let node = "scratch = \"/tmp:1m,/run:exec,/etc/app\"";
    let policy = with(node, &[("scratch", "/tmp:2m,/run:exec,/var/x,/etc/app:1m")]).unwrap();
    let sizes: Vec<_> = policy.scratch.iter().map(|s| (s.path.to_str().unwrap(), s.size_bytes, s.exec)).collect();
    let m = 1 << 20;
    let want =
        [("/tmp", Some(2 * m), false), ("/run", None, true), ("/etc/app", Some(m), false), ("/var/x", None, false)];
    assert_eq!(sizes, want);
}

#[test]
fn a_whole_configuration_is_read() {
    let read = config(
        r#"
runtimes = ["/usr/sbin/runc", "crun"]
state-dir = "/run/other"
data-dir = "/srv/lithify"
mode = "enforce"
rootfs = "tripwire"
on-write = "pause"
on-refused-write = "report"
on-refused-syscall = "stop"
exec = "profile"
restart-limit = "3/10m"
escalate-to = "pause"
renew-every = "24h"
scratch = "/tmp:64m,/run:exec"
scratch-size = "32m"
tripwire-size = 1048576
allow-loosen = ["mode", "scratch-exec"]
require-profile = false
raise-limits = true
[evidence]
max-files = 7
max-bytes = "2g"
max-file-bytes = "1g"
[journal]
max-bytes = "1m"
max-files = 3
[learning]
window = "30s"
interval = "10m"
table-entries = 4096
[auto]
risk = 0.02
"#,
    );
    assert_eq!(read.dirs().state, Path::new("/run/other"));
    assert_eq!(read.dirs().data, Path::new("/srv/lithify"));
    assert_eq!((read.scratch_size_bytes, read.tripwire_size_bytes), (32 << 20, 1 << 20));
    assert_eq!((read.evidence.max_files, read.evidence.max_bytes, read.journal.max_files), (7, 2 << 30, 3));
    assert_eq!((read.learning.window, read.learning.interval), (Duration::from_secs(30), Duration::from_secs(600)));
    assert_eq!((read.learning.table_entries, read.auto.risk_ppm, read.exec), (4096, 20_000, ExecRule::Profile));
    assert_eq!((read.on_refused_write, read.on_refused_syscall), (Some(Response::Report), Some(Response::Stop)));
    assert!(read.raise_limits && read.allow_loosen.len() == 2 && read.on_write == Some(Response::Pause));
}

#[test]
fn the_flag_wins_over_the_environment_and_the_environment_over_the_default() {
    let (a, b) = (Path::new("/a"), Path::new("/b"));
    assert_eq!(Config::locate(Some(a), Some(b)), (a.into(), true));
    assert_eq!(Config::locate(None, Some(b)), (b.into(), true));
    assert_eq!(Config::locate(None, Some(Path::new(""))), ("/etc/lithify/config.toml".into(), false));
}

#[test]
fn a_named_file_that_is_missing_or_wrong_is_an_error_that_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    assert!(Config::load(Some(&path)).is_err());
    std::fs::write(&path, "mode = \"off\"\nroofts = 1\nstate = 2\n").unwrap();
    let message = format!("{:#}", Config::load(Some(&path)).unwrap_err());
    assert!(message.contains(path.to_str().unwrap()) && message.contains("line 2"), "{message}");
    assert!(message.contains("1 more") && message.contains("config check"), "{message}");
    nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(format!("{:#}", Config::load(Some(&dir.path().join("fifo"))).unwrap_err()).contains("regular file"));
    std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(format!("{:#}", Config::load(Some(&path)).unwrap_err()).contains("larger than"));
}

#[test]
fn no_combination_of_annotations_is_weaker_than_the_node() {
    let rootfs_kinds = [RootfsKind::Engine, RootfsKind::Tripwire, RootfsKind::Sealed];
    let responses = [Response::Report, Response::Pause, Response::Stop, Response::Restart];
    let mut accepted = 0;
    for node_rootfs in rootfs_kinds {
        for node_response in responses.map(Some).into_iter().chain([None]) {
            let mut binding = BTreeSet::from([Loosen::Rootfs]);
            if node_response.is_some() {
                binding.insert(Loosen::OnWrite);
            }
            let node = Config { rootfs: node_rootfs, on_write: node_response, binding, ..Config::default() };
            for rootfs in rootfs_kinds {
                for response in responses {
                    let annotations = BTreeMap::from([
                        ("lithify.dev/rootfs.web".to_string(), word(&rootfs)),
                        ("lithify.dev/on-write".to_string(), word(&response)),
                    ]);
                    let Ok(policy) = resolve(&node, &Overrides::default(), &annotations, Some("web")) else { continue };
                    accepted += 1;
                    assert!(tighten::rootfs(policy.rootfs, node_rootfs));
                    let least = node_response.unwrap_or(Response::Report);
                    assert!(tighten::response(policy.on_write, least), "{node:?} {annotations:?}");
                    assert!((policy.rootfs, policy.on_write) != (RootfsKind::Engine, Response::Restart));
                }
            }
        }
    }
    assert!(accepted > 20, "{accepted}");
}
