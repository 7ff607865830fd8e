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
    assert!(!output.status.success(), "{runtime} {line:?} made something");
    let rest = text.split("chdir ").nth(1)?;
    let rest = rest.trim_start_matches('`');
    rest.split([':', '`', ' ']).next().map(str::to_owned)
}

fn piece() -> impl Strategy<Value = Vec<String>> {
    let place = || prop::sample::select(vec!["/none/a", "/none/b", "/none/c"]);
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let fixed = prop::sample::select(vec![
        &["id"][..],
        &["id"],
        &["other"],
        &["--no-pivot"],
        &["--no-pivot=false"],
        &["-no-new-keyring"],
        &["--"],
        &["--pid-file", "/none/p"],
        &["--pid-file=/none/p"],
        &["--bundle"],
        &["-b"],
        &["--preserve-fds", "0"],
        &["-"],
        &["--unknown"],
        &["--console-socket", "--no-pivot"],
    ]);
    prop_oneof![
        3 => fixed.prop_map(words),
        1 => place().prop_map(|p| vec!["--bundle".to_owned(), p.to_owned()]),
        1 => place().prop_map(|p| vec!["-b".to_owned(), p.to_owned()]),
        1 => place().prop_map(|p| vec![format!("-bundle={p}")]),
        1 => place().prop_map(|p| vec![format!("--bundle={p}")]),
        1 => place().prop_map(|p| vec![format!("--bun={p}")]),
        1 => place().prop_map(|p| vec![format!("-b{p}")]),
    ]
}

fn compare(runtime: &'static str, cases: u32) {
    let root = tempfile::tempdir().expect("a folder");
    let lines = (
        prop::sample::select(vec![&["create"][..], &["run"], &["--", "create"], &["--debug=false", "create"]]),
        proptest::collection::vec(piece(), 1..4),
    );
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&lines, |(verb, pieces)| {
            let line: Vec<String> = verb.iter().map(|w| (*w).to_owned()).chain(pieces.into_iter().flatten()).collect();
            let Some(bundle) = asked_for(runtime, root.path(), &line) else { return Ok(()) };
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
}

#[test]
fn where_runc_would_make_a_container_we_see_the_same_bundle_or_refuse() {
    compare("runc", 150);
}

#[test]
fn where_crun_would_make_a_container_we_see_the_same_bundle_or_refuse() {
    compare("crun", 150);
}
