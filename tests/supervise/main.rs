//! Supervisors against the real kernel, runc and crun: what a container is refused, and what follows.
//!
//! Needs root, runc, crun, a static busybox and /dev/fuse; no engine. The tests run on the program's only thread, so that it may fork
//! supervisors.

mod anew;
mod fuse;
mod guarded;
mod hanging;
#[path = "../harness/mod.rs"]
mod harness;
mod refused;
mod scratch;
mod sessions;
mod silent;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|word| word == hanging::WORD) {
        return hanging::act(&args[2..]);
    }
    harness::run(
        &[refused::TESTS, guarded::TESTS, sessions::TESTS, anew::TESTS, hanging::TESTS, silent::TESTS, scratch::TESTS]
            .concat(),
        world::own_mounts,
    )
}
