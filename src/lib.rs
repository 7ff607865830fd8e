//! lithify: an OCI runtime that decorates runc or crun.
//!
//! Data walks one way: argv → request → policy → edits to config.json → low-level runtime → supervisor → breach →
//! response → journal. Each folder is one stage; its `mod.rs` says what it owns and must not do.

pub mod ctl;
pub mod events;
pub mod policy;
pub mod record;
pub mod rootfs;
pub mod sys;
pub mod watch;
