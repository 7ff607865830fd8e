//! The sensor against the real kernel: programs loaded, containers made, what they did read back.
//!
//! Needs root and a kernel with BTF, and nothing else: no engine, no compiler. A container here is a process in a mount
//! namespace of its own that executes this very program, whose acts are in `act.rs`. The tests run on the program's
//! only thread, so that it may fork. `LITHIFY_CTL` is the loader, if not this package's own lithifyctl. The only word
//! `measure` prints what the sensor costs.

mod act;
mod calls;
mod container;
mod files;
mod guard;
mod guard_acts;
mod guard_filtered;
mod guard_life;
mod guard_told;
#[path = "../harness/mod.rs"]
mod harness;
mod life;
mod measure;
mod network;
mod programs;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == act::WORD) {
        return act::run(&args[1..]);
    }
    if args.first().is_some_and(|a| a == measure::WORD) {
        measure::run();
        return ExitCode::SUCCESS;
    }
    let tests = [
        calls::TESTS,
        files::TESTS,
        guard::TESTS,
        guard_life::TESTS,
        guard_told::TESTS,
        life::TESTS,
        network::TESTS,
        programs::TESTS,
    ];
    harness::run(&tests.concat(), || ())
}
