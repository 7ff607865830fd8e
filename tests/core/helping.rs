//! Help on the program: the low-level runtime's, as an engine may read it, and below it ours, for people. Needs runc and crun.

use std::ffi::OsString;
use std::process::{Command, Output, Stdio};

use lithify::cli::{Invocation, OwnFlags};

const RUNTIMES: [&str; 2] = ["runc", "crun"];

fn run(program: &str, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).env_remove("LITHIFY_CONFIG").output().expect("the program runs")
}

/// What lithify says to these words in front of that runtime.
fn lithify(runtime: &str, words: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, format!("runtimes = [{runtime:?}]\n")).expect("a configuration");
    let config = config.to_str().expect("a plain path");
    run(env!("CARGO_BIN_EXE_lithify"), &[&["--config", config], words].concat())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the runtime says by itself, called by its whole path as lithify does: with that crun's errors begin.
fn plain(runtime: &str, words: &[&str]) -> Output {
    let found = lithify::runtime::find(&[runtime.into()]).expect("the runtime");
    run(found.to_str().expect("a plain path"), words)
}

#[test]
fn help_is_the_runtime_s_byte_for_byte_and_then_says_which_flags_are_lithify_s_and_where_to_read_on() {
    for runtime in RUNTIMES {
        for words in [&["--help"][..], &["-h"], &["help"], &["h"], &[], &["--debug", "--root", "/none", "help"]] {
            let (ours, theirs) = (lithify(runtime, words), plain(runtime, words));
            let said = format!("{runtime} {words:?}: {ours:?}");
            assert_eq!((ours.status, &ours.stderr), (theirs.status, &theirs.stderr), "{said}");
            let more = ours.stdout.strip_prefix(theirs.stdout.as_slice()).unwrap_or_else(|| panic!("{said}"));
            let more = text(more);
            let named: Vec<&str> = more.lines().filter_map(|line| line.trim().strip_prefix("--")).collect();
            let named: Vec<&str> = named.iter().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(named, ["mode", "rootfs", "on-write", "config"], "{said}");
            assert!(more.contains("lithifyctl --help") && more.contains("tripwire"), "{said}");
        }
    }
}

#[test]
fn each_flag_that_help_names_is_taken_and_not_forwarded() {
    let (ours, theirs) = (lithify("runc", &["--help"]), plain("runc", &["--help"]));
    let more = text(&ours.stdout[theirs.stdout.len()..]);
    let flags = more.lines().filter_map(|line| line.trim().split(' ').next()).filter(|word| word.starts_with("--"));
    let line: Vec<OsString> = flags.flat_map(|flag| [flag.into(), OsString::from("word")]).collect();
    let word = || Some("word".to_owned());
    let own = OwnFlags { config: Some("word".into()), mode: word(), rootfs: word(), on_write: word() };
    let read = Invocation::parse(line).expect("flags of lithify's own");
    assert_eq!((read.own, read.argv), (own, Vec::new()));
}

#[test]
fn what_engines_ask_to_know_a_runtime_is_answered_by_the_runtime_alone() {
    for runtime in RUNTIMES {
        for words in [
            &["--version"][..],
            &["-v"],
            &["--version", "--help"],
            &["features"],
            &["create", "--help"],
            &["run", "-h"],
            &["help", "create"],
            &["--unheard-of"],
            &["--unheard-of=1", "help"],
            &["unheard-of"],
        ] {
            let (ours, theirs) = (lithify(runtime, words), plain(runtime, words));
            let said = |output: &Output| (output.status, text(&output.stdout), text(&output.stderr));
            assert_eq!(said(&ours), said(&theirs), "{runtime} {words:?}");
        }
    }
}

#[test]
fn without_a_low_level_runtime_help_still_says_what_lithify_takes_and_fails() {
    let output = lithify("/none/runc", &["--help"]);
    assert!(!output.status.success());
    assert!(text(&output.stdout).contains("--mode"), "{output:?}");
    assert!(text(&output.stderr).contains("failed to find a low-level runtime"), "{output:?}");
}
