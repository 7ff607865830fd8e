//! Collectors against the real kernel: containers that are learnt and observed, and what is left when somebody is killed.
//!
//! Needs root and overlayfs, and for most a kernel with BTF; no engine. A container here is a process in a mount namespace of
//! its own with an overlay as its root, which waits and then executes a shell. The program speaks the standard harness's
//! language (names, `--list`, `--exact`), but runs its tests on its only thread, so that it may fork collectors.

mod ends;
mod learning;
mod observing;
mod promoting;
mod world;

use std::panic::catch_unwind;
use std::process::ExitCode;

/// A test: its name, which is a claim, and what tries it.
pub type Test = (&'static str, fn());

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, root, script] = args.as_slice()
        && word == world::INIT
    {
        world::be_init(root, script);
    }
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let tests: Vec<Test> = [ends::TESTS, learning::TESTS, observing::TESTS, promoting::TESTS].concat();
    // `--format FORMAT` is the only option here that takes a value.
    let mut words = args.iter().filter(|a| !a.starts_with('-') && *a != "terse" && *a != "pretty");
    let filter = words.next();
    let wanted = tests.iter().filter(|(name, _)| match filter {
        Some(filter) if has("--exact") => name == filter,
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    });
    // None is ignored by default.
    let wanted: Vec<&Test> = if has("--ignored") { Vec::new() } else { wanted.collect() };
    if has("--list") {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    world::own_mounts();
    let mut failed = 0;
    for (name, test) in &wanted {
        let ended = catch_unwind(test);
        println!("test {name} ... {}", if ended.is_ok() { "ok" } else { "FAILED" });
        failed += usize::from(ended.is_err());
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {} passed; {failed} failed; 0 ignored; 0 measured", wanted.len() - failed);
    ExitCode::from(if failed == 0 { 0 } else { 101 })
}
