//! System calls that the standard library and nix lack, each a thin typed wrapper that names its man page and kernel
//! version.
//!
//! Owns: every `unsafe` of the project. Must not: know anything of containers, or import another module of this crate.

pub mod bpf;
pub mod durable;
pub mod fanotify;
pub mod fds;
pub mod memory;
pub mod mount;
pub mod probe;
pub mod proc_fd;
pub mod process;
pub mod random;
pub mod ring;
pub mod seccomp;
pub mod signals;
pub mod socket;
pub mod spawn;
pub mod statx;
pub mod terminal;
pub mod xattr;
