//! The sensor against the real kernel: programs loaded, containers made, what they did read back.
//!
//! Needs root and a kernel with BTF, and nothing else: no engine, no compiler. A container here is a process in a mount
//! namespace of its own that executes this very program, whose acts are in `act.rs`. The program speaks the standard
//! harness's language (names, `--list`, `--exact`), but runs its tests on its only thread, so that it may fork.
//! `LITHIFY_CTL` is the loader, if not this package's own lithifyctl. The only word `measure` prints what the sensor costs.

mod act;
mod calls;
mod container;
mod files;
mod guard;
mod guard_acts;
mod guard_life;
mod life;
mod measure;
mod network;
mod programs;

use std::panic::catch_unwind;
use std::process::ExitCode;

/// A test: its name, which is a claim, and what tries it.
pub type Test = (&'static str, fn());

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == act::WORD) {
        return act::run(&args[1..]);
    }
    if args.first().is_some_and(|a| a == measure::WORD) {
        measure::run();
        return ExitCode::SUCCESS;
    }
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let tests: Vec<Test> =
        [calls::TESTS, files::TESTS, guard::TESTS, guard_life::TESTS, life::TESTS, network::TESTS, programs::TESTS]
            .concat();
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
