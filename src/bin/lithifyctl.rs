//! The tool for people and the node.

use std::process::ExitCode;

fn main() -> ExitCode {
    lithify::ctl::main(lexopt::Parser::from_env())
}
