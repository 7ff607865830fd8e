//! Supervisors against the real kernel, runc and crun: what a container is refused, and what follows.
//!
//! Needs root, runc, crun and a static busybox; no engine. The tests run on the program's only thread, so that it may fork
//! supervisors.

mod anew;
mod guarded;
#[path = "../harness/mod.rs"]
mod harness;
mod refused;
mod scratch;
mod sessions;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run(
        &[refused::TESTS, guarded::TESTS, sessions::TESTS, anew::TESTS, scratch::TESTS].concat(),
        world::own_mounts,
    )
}
