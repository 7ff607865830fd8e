//! What workloads were seen to do: observations, and the profiles that they fold into.
//!
//! Owns: the two documents, how they merge, where they are kept, what is never learnt, and what a profile becomes for
//! other tools. Deciding is pure. Must not: look at a live container, or know how anything was seen.

pub mod baseline;
pub mod behaviour;
pub mod beyond;
pub mod capabilities;
pub mod check;
pub mod commanded;
pub mod document;
pub mod doubtful;
pub mod enforced;
pub mod estimate;
pub mod export;
pub mod families;
pub mod filename;
pub mod filter;
pub(crate) mod folder;
pub mod gc;
pub mod generalise;
pub mod head;
pub mod items;
pub mod layers;
pub mod merge;
pub mod moved;
pub mod observation;
pub mod revision;
pub mod schema;
pub mod shorten;
pub mod stages;
pub mod steered;
pub mod steering;
pub mod store;
pub mod syscalls;

pub use behaviour::Behaviour;
pub use document::{Profile, Stage, Support};
pub use estimate::{Estimate, Progress};
pub use observation::{Observation, Sighting};
pub use revision::Revision;
