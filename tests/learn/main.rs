//! Collectors against the real kernel: containers that are learnt and observed, and what is left when somebody is killed.
//!
//! Needs root and overlayfs, and for most a kernel with BTF; no engine. A container here is a process in a mount namespace of
//! its own with an overlay as its root, which waits and then executes a shell. The tests run on the program's only
//! thread, so that it may fork collectors.

mod ends;
#[path = "../harness/mod.rs"]
mod harness;
mod learning;
mod observing;
mod promoting;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, root, script] = args.as_slice()
        && word == world::INIT
    {
        world::be_init(root, script);
    }
    harness::run(&[ends::TESTS, learning::TESTS, observing::TESTS, promoting::TESTS].concat(), world::own_mounts)
}
