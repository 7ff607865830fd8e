//! config.json as a document: read within bounds, edited in place, everything we do not mean to change left as it was.
//!
//! Owns: the edits (pure: a document in, a document out). Must not: mount, write files, or know the supervisor.

pub mod document;
pub mod exec;
pub mod generation;
pub mod mounts;
pub mod names;
pub mod seal;

pub use document::Document;
