//! Arguments are forwarded byte for byte, whatever they are.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use lithify::cli::{Invocation, Verb};
use proptest::prelude::*;

fn words(line: &[&str]) -> Vec<OsString> {
    line.iter().map(OsString::from).collect()
}

fn parse(line: &[&str]) -> Invocation {
    Invocation::parse(words(line)).unwrap_or_else(|e| panic!("{line:?}: {e:#}"))
}

/// Any bytes but NUL, which no argument can have.
fn any_word() -> impl Strategy<Value = OsString> {
    proptest::collection::vec(1u8..=255, 0..12).prop_map(OsString::from_vec)
}

/// Bytes with a dash in front now and then, and words that mean something.
fn likely_word() -> impl Strategy<Value = OsString> {
    let known = prop::sample::select(vec![
        "--mode",
        "--rootfs=x",
        "--config",
        "--on-write",
        "create",
        "run",
        "exec",
        "--",
        "-",
        "--bundle",
        "-b",
        "--root",
        "--detach=false",
        "state",
        "--preserve-fds",
        "--config=x",
        "-mode",
        "--mode=off",
        "resume",
    ]);
    prop_oneof![any_word(), known.prop_map(OsString::from)]
}

/// What may stand before a verb: ours, as one word or two, and the low-level runtime's.
fn global() -> impl Strategy<Value = (bool, Vec<OsString>)> {
    let dashes = prop::sample::select(vec!["-", "--"]);
    let name = prop::sample::select(vec![
        (true, "config"),
        (true, "mode"),
        (true, "rootfs"),
        (true, "on-write"),
        (false, "root"),
        (false, "log"),
        (false, "log-format"),
        (false, "criu"),
        (false, "rootless"),
        (false, "cgroup-manager"),
        (false, "log-level"),
    ]);
    let valued = (dashes.clone(), name, any_word(), any::<bool>()).prop_map(|(dashes, (ours, name), value, inline)| {
        // Ours are words of a small language, in UTF-8; the low-level runtime's are anything.
        let value = if ours { OsString::from(value.to_string_lossy().into_owned()) } else { value };
        let flag = OsString::from(format!("{dashes}{name}"));
        if !inline {
            return (ours, vec![flag, value]);
        }
        let mut word = flag;
        word.push("=");
        word.push(value);
        (ours, vec![word])
    });
    let switch = prop::sample::select(vec!["debug", "systemd-cgroup", "debug=false", "systemd-cgroup=true"]);
    let switch = (dashes, switch).prop_map(|(dashes, name)| (false, vec![OsString::from(format!("{dashes}{name}"))]));
    prop_oneof![3 => valued, 1 => switch]
}

const VERBS: [&str; 17] = [
    "create",
    "run",
    "restore",
    "exec",
    "start",
    "kill",
    "delete",
    "ps",
    "update",
    "state",
    "pause",
    "resume",
    "events",
    "list",
    "checkpoint",
    "features",
    "what-comes-later",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn own_flags_before_the_verb_are_removed_and_nothing_else(
        globals in proptest::collection::vec(global(), 0..6),
        dashes in any::<bool>(),
        verb in prop::sample::select(VERBS.to_vec()),
        rest in proptest::collection::vec(likely_word(), 0..8),
    ) {
        let mut given: Vec<OsString> = globals.iter().flat_map(|(_, words)| words.clone()).collect();
        let mut expected: Vec<OsString> =
            globals.iter().filter(|(ours, _)| !ours).flat_map(|(_, words)| words.clone()).collect();
        prop_assert_eq!(&Invocation::parse(given.clone()).unwrap().globals.forwarded, &expected);
        let mut tail = if dashes { words(&["--"]) } else { Vec::new() };
        tail.push(verb.into());
        tail.extend(rest);
        given.extend(tail.iter().cloned());
        expected.extend(tail);
        let read = Invocation::parse(given).unwrap();
        prop_assert_eq!(read.argv[read.verb_at].to_str(), Some(verb));
        prop_assert_eq!(&read.argv, &expected);
    }

    #[test]
    fn any_words_at_all_are_read_without_a_panic_and_from_the_verb_on_all_are_kept(
        given in proptest::collection::vec(likely_word(), 0..10),
    ) {
        if let Ok(read) = Invocation::parse(given.clone()) {
            prop_assert!(read.verb_at <= read.argv.len());
            prop_assert!(given.ends_with(&read.argv[read.verb_at..]));
            prop_assert!(read.argv.starts_with(&read.globals.forwarded));
        }
    }
}

#[test]
fn a_verb_is_seen_in_every_spelling_that_a_low_level_runtime_takes() {
    for before in [
        &["--root", "/r"][..],
        &["-root", "/r"],
        &["--root=/r"],
        &["-root=/r", "--debug"],
        &["--debug=false", "--systemd-cgroup"],
        &["--log", "create", "--log-format", "run"],
        &["--log-level", "state"],
        &["--"],
        &["--root", "--", "--"],
        &["--unknown=state"],
        &["--mode", "enforce", "-rootfs=tripwire"],
    ] {
        for (verb, rest) in [("create", vec!["id"]), ("run", vec!["--bundle", "/b", "id"])] {
            let line: Vec<&str> = before.iter().copied().chain([verb]).chain(rest).collect();
            let (Verb::Create(args) | Verb::Run(args)) = parse(&line).verb else { panic!("{line:?} was not seen") };
            assert_eq!(args.id, OsString::from("id"), "{line:?}");
        }
    }
}

#[test]
fn a_command_line_in_which_a_verb_may_hide_is_refused() {
    for line in [
        &["--roo", "/r", "create", "id"][..],
        &["--roo", "state", "create", "--bundle", "/b", "id"],
        &["--unknown", "kill", "run", "id"],
        &["--unknown", "list", "exec", "id", "sh"],
        &["-x", "--root", "/r", "state", "--", "start"],
        &["--mode"],
        &["--unknown", "word"],
    ] {
        assert!(Invocation::parse(words(line)).is_err(), "{line:?}");
    }
    for line in [&["--unknown", "state", "id"][..], &["--unknown", "create", "id"], &["--unknown", "--debug", "list"]] {
        assert!(Invocation::parse(words(line)).is_ok(), "{line:?} has one reading that matters");
    }
}

#[test]
fn flags_of_create_are_read_with_the_id_before_between_or_behind_them() {
    for line in [
        &["create", "id", "--bundle", "/b", "--no-pivot", "--pid-file=/p"][..],
        &["create", "--bundle=/b", "id", "-pid-file", "/p", "--no-pivot"],
        &["create", "-b", "/b", "--no-pivot=true", "--pid-file", "/p", "id"],
        &["create", "--pid-file", "/p", "-b=/b", "-no-pivot", "--", "id"],
    ] {
        let Verb::Create(args) = parse(line).verb else { panic!("{line:?}") };
        assert_eq!(args.id, OsString::from("id"), "{line:?}");
        assert_eq!(args.bundle.as_deref(), Some(Path::new("/b")), "{line:?}");
        assert_eq!(args.pid_file.as_deref(), Some(Path::new("/p")), "{line:?}");
        assert_eq!((args.others.len(), &args.doubt), (1, &None), "{line:?}");
    }
}

#[test]
fn what_a_low_level_runtime_may_read_otherwise_is_doubted() {
    for line in [
        &["create", "--bund", "/b", "id"][..],
        &["create", "-b/b", "id"],
        &["run", "-db/b", "id"],
        &["create", "--preserve-fds", "0x10", "id"],
        &["create", "--preserve-fds=-1", "id"],
        &["create", "--preserve-fds", "4294967295", "id"],
        &["create", "/b", "id", "--bundle"],
        &["create", "---bundle", "id"],
    ] {
        let (Verb::Create(args) | Verb::Run(args)) = parse(line).verb else { panic!("{line:?}") };
        assert!(args.doubt.is_some(), "{line:?}");
    }
    for line in [&["exec", "--proc", "/p", "id"][..], &["exec", "-ti", "id", "sh"], &["exec", "-eA=b", "id", "sh"]] {
        let Verb::Exec(args) = parse(line).verb else { panic!("{line:?}") };
        assert!(args.doubt.is_some(), "{line:?}");
    }
    let Verb::Exec(args) = parse(&["exec", "-t", "-e", "A=b", "id", "sh", "--unknown", "-x"]).verb else { panic!() };
    assert_eq!((args.doubt, args.args.len()), (None, 3), "what follows the id is the program's");
}

#[test]
fn switches_follow_gos_truth_and_the_last_word_counts() {
    for (line, detach) in [
        (&["run", "-d", "id"][..], true),
        (&["run", "--detach=false", "id"], false),
        (&["run", "--detach=F", "id"], false),
        (&["run", "--detach=1", "id"], true),
        (&["run", "--detach", "--detach=0", "id"], false),
    ] {
        let Verb::Run(args) = parse(line).verb else { panic!("{line:?}") };
        assert_eq!(args.detach, detach, "{line:?}");
    }
    let Verb::Exec(args) = parse(&["exec", "--no-new-privs=false", "id", "sh"]).verb else { panic!() };
    assert_eq!(args.no_new_privs, Some(false));
}

#[test]
fn containers_may_be_called_like_verbs_and_flags_of_ours() {
    assert_eq!(parse(&["state", "resume"]).verb, Verb::State("resume".into()));
    assert_eq!(parse(&["resume", "state"]).verb, Verb::Resume("state".into()));
    assert_eq!(parse(&["delete", "--force", "mode"]).verb, Verb::Delete { id: "mode".into(), force: true });
    let kill = |all, sigkill| Verb::Kill { id: "create".into(), all, sigkill };
    assert_eq!(parse(&["kill", "--all", "create", "9"]).verb, kill(true, true));
    assert_eq!(parse(&["kill", "create", "SIGKILL"]).verb, kill(false, true));
    assert_eq!(parse(&["kill", "create", "kill"]).verb, kill(false, true));
    assert_eq!(parse(&["kill", "create", "TERM"]).verb, kill(false, false));
    assert_eq!(parse(&["kill", "create"]).verb, kill(false, false));
    let read = parse(&["--mode", "off", "exec", "id", "prog", "--mode", "x"]);
    assert_eq!(read.argv, words(&["exec", "id", "prog", "--mode", "x"]));
    assert_eq!(read.own.mode.as_deref().map(OsStr::new), Some(OsStr::new("off")));
}

#[test]
fn quiet_calls_leave_the_engines_log_alone() {
    let read =
        parse(&["--root", "/r", "--log=/l", "--debug", "--log-format", "json", "--log-level", "x", "state", "i"]);
    assert_eq!(read.globals.quiet, words(&["--root", "/r"]));
    assert!(read.globals.log_json);
}
