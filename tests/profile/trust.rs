//! What is malformed, or could have been changed by someone else, is refused with its reason and a remedy.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use lithify::profile::{Observation, Profile, store};
use serde_json::{Value, json};

use super::build;
use super::store::profile_path;

fn stored() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    store::fold_observation(dir.path(), &build::full(1)).unwrap();
    dir
}

/// Why the stored profile can't be read now.
fn refusal(data: &Path) -> String {
    let e = store::newest_profile(data, "web").unwrap_err();
    let text = format!("{e:#}");
    assert!(text.contains("failed to"), "{text}");
    // And nothing is folded into what can't be trusted, nor put in its place.
    let before = std::fs::symlink_metadata(profile_path(data)).ok().map(|m| m.len());
    assert!(store::fold_observation(data, &build::full(2)).is_err());
    assert_eq!(std::fs::symlink_metadata(profile_path(data)).ok().map(|m| m.len()), before);
    text
}

/// What is said of the stored profile after this change to its JSON.
fn edited(change: impl Fn(&mut Value)) -> String {
    let dir = stored();
    let mut value: Value = serde_json::from_slice(&std::fs::read(profile_path(dir.path())).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(profile_path(dir.path()), serde_json::to_vec(&value).unwrap()).unwrap();
    let text = refusal(dir.path());
    assert!(text.contains(&profile_path(dir.path()).display().to_string()), "{text}");
    text
}

#[test]
fn a_profile_that_is_no_json_or_cut_short_is_refused() {
    let dir = stored();
    let whole = std::fs::read(profile_path(dir.path())).unwrap();
    for bytes in [&b""[..], b"{", b"null", b"[]", b"\xff\xfe", &whole[..whole.len() / 2], &[b"[".repeat(5000)].concat()]
    {
        std::fs::write(profile_path(dir.path()), bytes).unwrap();
        assert!(refusal(dir.path()).contains("not a JSON document with a version"), "{bytes:?}");
    }
}

#[test]
fn a_later_version_asks_for_a_later_lithify_and_an_earlier_one_for_migration() {
    let later = edited(|v| {
        v["version"] = json!(7);
        // What a later version says otherwise is not the reason to give.
        v["new-field"] = json!({"x": 1});
    });
    assert!(later.contains("expected version 1, found 7; a later lithify wrote it: upgrade this one"), "{later}");
    assert!(edited(|v| v["version"] = json!(0)).contains("found 0; run 'lithifyctl profile migrate'"));
    assert!(edited(|v| v["version"] = json!("1")).contains("version"));
}

#[test]
fn unknown_fields_names_and_values_are_refused_and_named() {
    assert!(edited(|v| v["permissive"] = json!(true)).contains("unknown field `permissive`"));
    assert!(
        edited(|v| v["workload-behaviour"]["writes"]["/run/web.pid"]["x"] = json!(1)).contains("unknown field `x`")
    );
    assert!(edited(|v| v["stage"] = json!("open")).contains("unknown variant `open`"));
    let other = edited(|v| v["architecture"] = json!("aarch64"));
    assert!(
        other.contains("it is for architecture \"aarch64\", and this is \"x86_64\"")
            || other.contains("this is x86_64"),
        "{other}"
    );
    let seen = json!({"generations": {build::id(1): 1}, "first": build::time(0), "last": build::time(0)});
    let with = |section: &str, name: &str| edited(|v| v["workload-behaviour"][section][name] = seen.clone());
    assert!(with("syscalls", "openat3").contains("unknown system call \"openat3\""));
    assert!(with("denied-syscalls", "i386:socketcal").contains("unknown system call \"i386:socketcal\""));
    assert!(with("capabilities", "CAP_ALL").contains("unknown capability \"CAP_ALL\""));
    // Under its number and its name: which of them is meant?
    assert!(with("syscalls", "#257").contains("is there twice"));
}

#[test]
fn documents_that_contradict_themselves_are_refused() {
    let write = "/run/web.pid";
    assert!(
        edited(|v| v["workload-behaviour"]["syscalls"]["openat"]["generations"] = json!({build::id(9): 1}))
            .contains("names a generation")
    );
    assert!(
        edited(|v| v["workload-behaviour"]["syscalls"]["openat"]["generations"] = json!({})).contains("0 generations")
    );
    assert!(
        edited(|v| v["workload-behaviour"]["syscalls"]["openat"]["first"] = json!("yesterday"))
            .contains("time \"yesterday\"")
    );
    assert!(edited(|v| v["revision"]["digest"] = json!("../../../etc/x")).contains("32 lower-case hex digits"));
    assert!(edited(|v| v["revision"]["digest"] = json!(build::id(2))).contains("does not belong here"));
    assert!(edited(|v| v["workload"] = json!("db")).contains("does not belong here"));
    assert!(edited(|v| v["workload"] = json!("a\u{1b}b")).contains("control characters"));
    assert!(
        edited(|v| v["workload-behaviour"]["arguments"]["socket"] =
            json!({"2,x,0": v["workload-behaviour"]["syscalls"]["openat"]}))
        .contains("argument")
    );
    for path in ["../x", "/a/../b", "relative"] {
        let text = edited(|v| {
            let entry = v["workload-behaviour"]["writes"][write].clone();
            v["workload-behaviour"]["writes"][path] = entry;
        });
        assert!(text.contains("not absolute and normal"), "{text}");
    }
}

#[test]
fn ten_megabytes_and_more_are_not_read() {
    let dir = stored();
    let mut text = std::fs::read(profile_path(dir.path())).unwrap();
    text.resize(10_000_000, b' ');
    std::fs::write(profile_path(dir.path()), &text).unwrap();
    assert!(store::newest_profile(dir.path(), "web").unwrap().is_some());
    text.push(b' ');
    std::fs::write(profile_path(dir.path()), &text).unwrap();
    assert!(refusal(dir.path()).contains("larger than 10000000 bytes"));
    // Of a file that never ends, no more than that is read.
    let file = std::fs::OpenOptions::new().write(true).open(profile_path(dir.path())).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(refusal(dir.path()).contains("larger than 10000000 bytes"));
    assert!(Profile::parse(&text).is_err() && Observation::parse(&text).is_err());
}

#[test]
fn what_another_user_could_have_changed_is_refused_with_the_remedy() {
    let dir = stored();
    let path = profile_path(dir.path());
    for place in [path.clone(), dir.path().join("profiles/web"), dir.path().join("profiles"), dir.path().to_path_buf()]
    {
        chown(&place, Some(1000), None).unwrap();
        let text = refusal(dir.path());
        assert!(text.contains("it belongs to uid 1000") && text.contains("'chown root'"), "{text}");
        assert!(text.contains(&place.display().to_string()), "{text}");
        chown(&place, Some(0), None).unwrap();
        let mode = std::fs::metadata(&place).unwrap().permissions().mode() & 0o7777;
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode | 0o020)).unwrap();
        let text = refusal(dir.path());
        assert!(text.contains("its mode is 07") || text.contains("its mode is 06"), "{text}");
        assert!(text.contains("'chmod go-w'"), "{text}");
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(store::newest_profile(dir.path(), "web").unwrap().is_some());
    }
}

#[test]
fn no_link_pipe_or_folder_in_the_store_is_followed_or_waited_for() {
    let dir = stored();
    let (path, elsewhere) = (profile_path(dir.path()), dir.path().join("elsewhere.json"));
    std::fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(refusal(dir.path()).contains("it is a symbolic link"));
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(refusal(dir.path()).contains("no regular file"));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(refusal(dir.path()).contains("no regular file"));
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&elsewhere, &path).unwrap();
    let folder = dir.path().join("profiles/web");
    std::fs::rename(&folder, dir.path().join("moved")).unwrap();
    symlink(dir.path().join("moved"), &folder).unwrap();
    assert!(refusal(dir.path()).contains("the store follows none"));
}

#[test]
fn a_broken_profile_does_not_hide_the_others() {
    let dir = stored();
    let mut other = build::full(1);
    other.workload = "db".to_string();
    store::fold_observation(dir.path(), &other).unwrap();
    std::fs::write(profile_path(dir.path()), "{").unwrap();
    let all = store::all_profiles(dir.path()).unwrap();
    assert_eq!(all.iter().filter(|s| s.document.is_ok()).count(), 1);
    assert_eq!(all.len(), 2);
}

#[test]
fn an_observation_that_is_wrong_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut o = build::full(1);
    o.id = "../x".to_string();
    assert!(
        format!("{:#}", store::write_observation(dir.path(), &o).unwrap_err()).contains("32 lower-case hex digits")
    );
    let mut o = build::full(1);
    o.workload_behaviour.syscalls.insert("read".to_string(), build::seen(0, 0, 0));
    assert!(format!("{:#}", store::fold_observation(dir.path(), &o).unwrap_err()).contains("seen in no window"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
