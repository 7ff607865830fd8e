//! Our reading of a command line beside that of the real programs: they say which bundle they looked for.

use std::ffi::OsString;
use std::process::Command;

use lithify::cli::{Invocation, Verb};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The bundle that a low-level runtime could not change to, if it got as far as that.
fn asked_for(runtime: &str, root: &std::path::Path, line: &[String]) -> Option<String> {
    let mut command = Command::new(runtime);
    let output = command.arg("--root").arg(root).args(line).current_dir(root).output().expect("the runtime runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let helped = text.contains("USAGE:") || text.contains("Usage:");
    assert!(helped || !output.status.success(), "{runtime} {line:?} made something");
    let rest = text.split("chdir ").nth(1)?;
    let rest = rest.trim_start_matches('`');
    rest.split([':', '`', ' ']).next().map(str::to_owned)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// A bundle, in the spellings that there are.
fn bundle() -> impl Strategy<Value = Vec<String>> {
    let place = prop::sample::select(vec!["/none/a", "/none/b", "/none/c"]);
    let spelling = prop::sample::select(vec!["--bundle ", "-b ", "-bundle=", "--bundle=", "-b=", "--bun=", "-b"]);
    (spelling, place).prop_map(|(spelling, place)| format!("{spelling}{place}").split(' ').map(str::to_owned).collect())
}

/// A flag without much effect, or something odd.
fn other() -> impl Strategy<Value = Vec<String>> {
    let plain = prop::sample::select(vec![
        &["--no-pivot"][..],
        &["--no-pivot=false"],
        &["--pid-file", "/none/p"],
        &["--pid-file=/none/p"],
        &["--preserve-fds", "0"],
        &["--console-socket", "--no-pivot"],
        &["--"],
    ]);
    let odd = prop::sample::select(vec![
        &["id"][..],
        &["-"],
        &["--bundle"],
        &["-b"],
        &["--unknown"],
        &["other"],
        &["--help"],
    ]);
    prop_oneof![4 => plain.prop_map(words), 1 => odd.prop_map(words)]
}

/// Mostly a bundle and an id, in any order, with more among them.
fn pieces() -> impl Strategy<Value = Vec<Vec<String>>> {
    let likely = (proptest::collection::vec(bundle(), 1..3), proptest::collection::vec(other(), 0..2), any::<bool>())
        .prop_flat_map(|(bundles, others, last)| {
            let all: Vec<Vec<String>> = bundles.into_iter().chain(others).collect();
            let id = words(&["id"]);
            let shuffled = if last { all } else { all.into_iter().chain([id.clone()]).collect() };
            (Just(shuffled).prop_shuffle(), Just(last.then_some(id)))
        })
        .prop_map(|(shuffled, id)| shuffled.into_iter().chain(id).collect());
    prop_oneof![4 => likely, 1 => proptest::collection::vec(prop_oneof![bundle(), other()], 1..4)]
}

fn compare(runtime: &'static str, cases: u32) {
    let root = tempfile::tempdir().expect("a folder");
    let lines = (
        prop::sample::select(vec![&["create"][..], &["run"], &["--", "create"], &["--debug=false", "create"]]),
        pieces(),
    );
    let reached = std::cell::Cell::new(0);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&lines, |(verb, pieces)| {
            let line: Vec<String> = verb.iter().map(|w| (*w).to_owned()).chain(pieces.into_iter().flatten()).collect();
            let Some(bundle) = asked_for(runtime, root.path(), &line) else { return Ok(()) };
            reached.set(reached.get() + 1);
            // It would make a container of that bundle: then we have to see the same, or refuse.
            let read = Invocation::parse(line.iter().map(OsString::from));
            let Ok(Verb::Create(args) | Verb::Run(args)) = read.map(|read| read.verb) else {
                return Err(TestCaseError::fail(format!("{runtime} {line:?} uses {bundle}, and nothing was seen")));
            };
            let same = args.bundle.as_deref().is_some_and(|b| b.as_os_str() == bundle.as_str());
            prop_assert!(
                args.doubt.is_some() || same && !args.id.is_empty() && !args.help,
                "{} {:?} uses {}, we read {:?}",
                runtime,
                line,
                bundle,
                args
            );
            Ok(())
        })
        .expect("no command line has two readings");
    assert!(reached.get() > 20, "only {} of the lines say anything", reached.get());
}

#[test]
fn where_runc_would_make_a_container_we_see_the_same_bundle_or_refuse() {
    compare("runc", 150);
}

#[test]
fn where_crun_would_make_a_container_we_see_the_same_bundle_or_refuse() {
    compare("crun", 150);
}
