//! The runtime: runc's command line.
fn main() {}
