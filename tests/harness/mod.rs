//! Runs tests on the program's only thread, so that they may fork. Speaks the standard harness's language (names, `--list`,
//! `--exact`).
//!
//! Must not: know what is tested.

use std::panic::catch_unwind;
use std::process::ExitCode;

/// A test: its name, which is a claim, and what tries it.
pub type Test = (&'static str, fn());

/// Runs those that the program's arguments name; all, if none is named. `prepare` makes the process ready for them: it is
/// called before the first, and not for a list.
pub fn run(tests: &[Test], prepare: fn()) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    // `--format FORMAT` is the only option here that takes a value.
    let filter = args.iter().find(|a| !a.starts_with('-') && *a != "terse" && *a != "pretty");
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
    prepare();
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
