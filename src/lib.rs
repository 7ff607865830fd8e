//! lithify: an OCI runtime that decorates runc or crun.
//!
//! Data walks one way: argv → request → policy → edits to config.json → low-level runtime → supervisor → breach →
//! response → journal. Each folder is one stage; its `mod.rs` says what it owns and must not do.

pub mod cli;
pub mod ctl;
pub mod engine;
pub mod events;
pub mod logging;
pub mod mountinfo;
pub mod policy;
pub mod record;
pub mod rootfs;
pub mod runtime;
pub mod spec;
pub mod supervise;
pub mod sys;
pub mod watch;
