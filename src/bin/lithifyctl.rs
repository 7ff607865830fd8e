//! The tool for people and the node.
fn main() {}
