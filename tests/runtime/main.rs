//! What is found out about low-level runtimes, with the machine's own runc and crun: as they are, behind scripts that say
//! another version, or that do not work.
//!
//! Needs root, runc and crun; no engine, no image. Runs its tests on its only thread, so that it may fork.

#[path = "../harness/mod.rs"]
mod harness;
mod knowing;
mod measuring;
mod starting;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run(&[knowing::TESTS, measuring::TESTS, starting::TESTS].concat(), || ())
}
