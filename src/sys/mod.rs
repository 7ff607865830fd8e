//! The kernel's calls that the crates we use lack: the only place with `unsafe`.
//!
//! Owns: thin, typed wrappers that name their man page. Must not: decide anything.

pub mod fanotify;
pub mod xattr;
