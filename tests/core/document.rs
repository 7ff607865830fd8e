//! Edits of config.json change what they mean to and nothing else.

use std::path::{Path, PathBuf};

use lithify::rootfs::ScratchMount;
use lithify::spec::generation::{Kept, joined_through_proc, next, rejoin};
use lithify::spec::seal::{absolute_sources, add_scratch, clean, read_only_root, root_path};
use lithify::spec::{Document, mounts};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Any JSON, numbers of any form among it.
pub fn any_json() -> impl Strategy<Value = Value> {
    let numbers = prop::sample::select(vec![
        "0",
        "-1",
        "1.0",
        "1e3",
        "1E+2",
        "0.10",
        "18446744073709551616",
        "123456789012345678901234567890.5",
        "-0",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        numbers.prop_map(|n| serde_json::from_str(n).unwrap()),
        "[ -~é\u{1f600}]{0,8}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec(("[a-zA-Z]{1,8}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A config.json with unknown fields at every level, some of the known ones, and some of those of the wrong type.
fn any_config() -> impl Strategy<Value = Value> {
    let mount = (
        any_json(),
        prop::sample::select(vec!["/a", "/a/b", "/a/b/c/", "relative", "/tmp//x", "/"]),
        any_json(),
    )
        .prop_map(
            |(extra, to, options)| json!({ "x-first": extra, "destination": to, "source": "s", "options": options }),
        );
    let namespace = (prop::sample::select(vec!["network", "ipc", "pid", "user", "mount", "later"]), any_json())
        .prop_map(|(kind, extra)| json!({ "type": kind, "x-extra": extra }));
    let namespaces = prop_oneof![
        3 => proptest::collection::vec(namespace, 0..4).prop_map(Value::Array),
        1 => any_json(),
    ];
    let hook = prop_oneof![any_json(), Just(json!({ "path": "/p", "args": ["p", "libnetwork-setkey"] }))];
    let hooks = prop_oneof![
        proptest::collection::vec(hook, 0..3).prop_map(|hooks| json!({ "x": 1, "prestart": hooks, "poststop": [1] })),
        any_json(),
    ];
    let mounts = prop_oneof![3 => proptest::collection::vec(mount, 0..5).prop_map(Value::Array), 1 => any_json()];
    let linux = prop_oneof![
        3 => (any_json(), namespaces).prop_map(|(extra, namespaces)| json!({ "x-z": extra, "namespaces": namespaces })),
        1 => any_json(),
    ];
    (any_json(), any_json(), mounts, linux, hooks, any::<u8>()).prop_map(
        |(extra, process, mounts, linux, hooks, has)| {
            let mut config = json!({ "zFirst": extra, "root": { "x": 1.0, "path": "rootfs" }, "ociVersion": "1.0.2" });
            for (bit, (name, value)) in
                [("process", process), ("mounts", mounts), ("linux", linux), ("hooks", hooks)].into_iter().enumerate()
            {
                if has & (1 << bit) != 0 {
                    config[name] = value;
                }
            }
            config
        },
    )
}

fn text(document: &Document) -> String {
    String::from_utf8(document.to_json()).unwrap()
}

fn parse(value: &Value) -> Option<Document> {
    Document::parse(value.to_string().as_bytes()).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_and_writing_changes_no_byte_of_a_compact_document(config in any_config()) {
        if let Some(document) = parse(&config) {
            prop_assert_eq!(text(&document), config.to_string());
        }
    }

    #[test]
    fn a_read_only_root_is_the_only_change_that_sealing_makes(config in any_config()) {
        let Some(mut document) = parse(&config) else { return Ok(()) };
        read_only_root(&mut document);
        let expected = config.to_string().replace(r#""path":"rootfs"}"#, r#""path":"rootfs","readonly":true}"#);
        prop_assert_eq!(text(&document), expected);
        root_path(&mut document, Path::new("/elsewhere"));
        prop_assert_eq!(document.rootfs(Path::new("/bundle")).unwrap(), PathBuf::from("/elsewhere"));
    }

    #[test]
    fn scratch_mounts_are_added_and_the_engines_stay_as_they_were(
        config in any_config(),
        scratch in proptest::collection::vec(prop::sample::select(vec!["/a", "/a/b", "/tmp", "/a/b/c/d", "/new"]), 0..4),
    ) {
        let Some(mut document) = parse(&config) else { return Ok(()) };
        let before = config["mounts"].as_array().cloned().unwrap_or_default();
        let made: Vec<ScratchMount> =
            scratch.iter().map(|p| ScratchMount { destination: p.into(), options: vec!["mode=1777".to_owned()] }).collect();
        add_scratch(&mut document, &made);
        let mut after = document.value().clone();
        let mounts = after["mounts"].as_array().cloned().unwrap_or_default();
        let ours = |m: &Value| m["options"] == json!(["mode=1777"]) && m["source"] == "tmpfs";
        let kept: Vec<Value> = mounts.iter().filter(|m| !ours(m)).cloned().collect();
        prop_assert_eq!(kept, before, "the engine's own, in their order");
        let place = |m: &Value| m["destination"].as_str().map(|d| clean(Path::new(d))).unwrap_or_default();
        for (at, mount) in mounts.iter().enumerate().filter(|(_, m)| ours(m)) {
            let own = place(mount);
            prop_assert!(mounts[..at].iter().all(|m| !place(m).starts_with(&own)), "it hides nothing mounted before it");
            prop_assert_eq!(mounts.iter().filter(|m| place(m) == own).count(), 1);
        }
        if let (Some(after), Some(before)) = (after.as_object_mut(), config.as_object()) {
            let without = |map: &serde_json::Map<String, Value>| {
                map.iter().filter(|(k, _)| *k != "mounts").map(|(k, v)| format!("{k}{v}")).collect::<Vec<_>>()
            };
            prop_assert_eq!(without(after), without(before));
            prop_assert!(!made.is_empty() || after.contains_key("mounts") == before.contains_key("mounts"));
        }
    }

    #[test]
    fn the_next_generation_differs_in_namespaces_and_network_hooks_and_going_on_changes_nothing_more(config in any_config()) {
        let Some(mut document) = parse(&config) else { return Ok(()) };
        let kept = Kept { anchor_pid: 77, ipc: true, uts: false };
        next(&mut document, kept);
        let once = text(&document);
        next(&mut document, kept);
        prop_assert_eq!(text(&document), once.clone(), "idempotent");
        let mut back = document.value().clone();
        if let Some(namespaces) = back.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
            for namespace in namespaces {
                let path = namespace["path"].as_str().unwrap_or_default();
                if path.starts_with("/proc/77/ns/") {
                    let right = matches!((namespace["type"].as_str(), path), (Some("network"), "/proc/77/ns/net") | (Some("ipc"), "/proc/77/ns/ipc"));
                    prop_assert!(right, "{}", namespace);
                    namespace.as_object_mut().map(|n| n.shift_remove("path"));
                }
            }
        }
        let mut expected = config.clone();
        if let Some(hooks) = expected.pointer_mut("/hooks/prestart").and_then(Value::as_array_mut) {
            hooks.retain(|h| h["args"].as_array().is_none_or(|a| !a.contains(&json!("libnetwork-setkey"))));
        }
        prop_assert_eq!(back.to_string(), expected.to_string());
    }

    #[test]
    fn no_question_and_no_edit_panics_on_any_json(config in any_json(), other in any_config()) {
        for config in [&config, &other] {
            let Some(mut document) = parse(config) else { continue };
            let bundle = Path::new("/bundle");
            let _ = (document.annotations(), document.rootfs(bundle), document.mounts(), document.namespaces());
            let _ = (document.has_own_pid_namespace(), document.terminal(), document.cwd(), document.user());
            let _ = (document.args(), document.propagates_to_host(), document.has_hooks("poststart"), document.hook_paths());
            let _ = mounts::mount_points(&document, bundle);
            absolute_sources(&mut document, bundle);
            read_only_root(&mut document);
            rejoin(&mut document, 1, 2);
        }
    }
}

#[test]
fn the_network_that_an_engine_gave_by_path_is_left_to_it() {
    let config = json!({ "linux": { "namespaces": [
        { "type": "network", "path": "/run/netns/x" }, { "type": "network", "path": "" }, { "type": "uts" },
    ] } });
    let mut document = parse(&config).unwrap();
    next(&mut document, Kept { anchor_pid: 5, ipc: false, uts: true });
    let namespaces = document.value()["linux"]["namespaces"].clone();
    assert_eq!(namespaces[0]["path"], "/run/netns/x");
    assert_eq!(namespaces[1]["path"], "/proc/5/ns/net");
    assert_eq!(namespaces[2]["path"], "/proc/5/ns/uts");
}

#[test]
fn joins_of_a_protected_containers_pid_and_user_namespaces_are_led_to_its_init() {
    let config = json!({ "linux": { "namespaces": [
        { "type": "pid", "path": "/proc/10/ns/pid" }, { "type": "network", "path": "/proc/10/ns/net" },
        { "type": "user", "path": "/proc/11/ns/user" }, { "type": "ipc", "path": "/proc/x/ns/ipc" },
    ] } });
    let mut document = parse(&config).unwrap();
    assert_eq!(joined_through_proc(&document), [(10, "pid".to_owned()), (11, "user".to_owned())]);
    rejoin(&mut document, 10, 99);
    let paths: Vec<String> =
        document.namespaces().unwrap().iter().map(|n| n.path().clone().unwrap().display().to_string()).collect();
    assert_eq!(paths, ["/proc/99/ns/pid", "/proc/10/ns/net", "/proc/11/ns/user", "/proc/x/ns/ipc"]);
}

#[test]
fn a_config_that_is_no_file_too_large_or_no_object_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let error = |what: &str| {
        let error = Document::read(dir.path()).expect_err(what);
        format!("{error:#}")
    };
    assert!(error("nothing").contains("failed to open"));
    std::fs::create_dir(&path).unwrap();
    assert!(error("a folder").contains("not a regular file"));
    std::fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(error("a fifo").contains("not a regular file"));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "[1]").unwrap();
    assert!(error("a list").contains("expected a JSON object"));
    std::fs::write(&path, "[".repeat(100_000)).unwrap();
    assert!(error("deep").contains("recursion limit"));
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(lithify::spec::document::MAX_BYTES + 1).unwrap();
    assert!(error("large").contains("larger than"));
}
