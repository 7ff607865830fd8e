//! Thin, typed wrappers of the system calls that no crate here offers. The only home of `unsafe`.
//!
//! Owns: nothing that lives. Must not: decide, log, or know any other module.

pub mod mount;
pub mod proc_fd;
pub mod statx;
pub mod xattr;
