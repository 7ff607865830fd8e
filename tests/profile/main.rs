//! What is learnt, as documents: merging, estimating, storing, and refusing what is not to be trusted.

mod build;
mod ctl;
mod estimate;
mod export;
mod harden;
mod lattice;
mod model;
mod revisions;
mod schema;
mod steer;
mod store;
mod trust;
