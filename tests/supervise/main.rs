//! Supervisors against the real kernel, runc and crun: what a container is refused, and what follows.
//!
//! Needs root, runc, crun and a static busybox; no engine. The program speaks the standard harness's language (names,
//! `--list`, `--exact`), but runs its tests on its only thread, so that it may fork supervisors.

mod anew;
mod guarded;
mod refused;
mod sessions;
mod world;

use std::panic::catch_unwind;
use std::process::ExitCode;

/// A test: its name, which is a claim, and what tries it.
pub type Test = (&'static str, fn());

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let tests: Vec<Test> = [refused::TESTS, guarded::TESTS, sessions::TESTS, anew::TESTS].concat();
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
