//! The collector: one small process beside each container that is learnt, which turns what the sensor recorded and what the
//! engine's writable layer holds into observations, and those into the workload's profile.
//!
//! Owns: that process, and what becomes an observation's item. Must not: touch the container, or keep it
//! waiting: whatever fails here leaves the workload as it is and is said in an event.
//!
//! | file | what |
//! | --- | --- |
//! | `subject.rs`, `messages.rs` | what the collector is given, and what is said on its socket |
//! | `start.rs` | forking it |
//! | `collector.rs` | its loop: who speaks, what is due, the end |
//! | `ground.rs`, `life.rs` | what stays over a container's generations; one generation |
//! | `written.rs`, `peaks.rs` | looking at the writable layer, and at the cgroups |
//! | `observe.rs`, `addresses.rs` | pure: from what was seen to items |
//! | `tell.rs` | the events |
//! | `presence.rs` | which collectors live, and waiting for one to end |
//! | `living.rs` | which revisions of a workload are not to be missed |

pub mod addresses;
mod collector;
mod ground;
mod life;
mod living;
pub mod messages;
pub mod observe;
mod peaks;
pub mod presence;
mod start;
mod subject;
mod tell;
mod written;

pub use living::living;
pub use messages::{Reply, Request};
pub use start::{Handle, start};
pub use subject::{Purpose, Subject};
