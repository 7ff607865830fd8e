//! System calls behind typed wrappers: the only place for `unsafe`.
//!
//! Owns: wrappers that the standard library and nix lack, with man page and kernel version. Must not: know a container,
//! a policy or any other part of lithify.

pub mod durable;
pub mod probe;
pub mod random;
