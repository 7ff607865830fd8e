//! Supervision: the anchor whose pid the engine has, and the supervisor that starts, watches, answers and restarts.
//!
//! Owns: the life of one container under one engine id. Must not: read configuration, annotations or argv; it is given a
//! [`Plan`] as plain data.
//!
//! Two processes rather than one: the engine reads cgroup and namespaces of the pid it was given, so that process has to sit
//! in the container's cgroup, where `pause` freezes it, `pids.max` counts it and the OOM killer may find it. The **anchor**
//! sits there and does nothing but wait. The **supervisor**, its child, stays outside, and none of that touches it. Each
//! ends the container if the other dies.

mod anchor;
mod anew;
mod caller;
mod calls;
pub mod cgroup;
mod clients;
mod companion;
pub mod control;
pub mod director;
mod effects;
mod evidence;
mod gate;
pub mod generation;
mod guarding;
pub mod launch;
mod machine;
mod namespaces;
mod pace;
mod plan;
mod prepare;
mod refused;
pub mod root;
mod stdio;
mod storm;
mod supervisor;
mod tally;
mod tell;
mod tell_refused;
mod waiting;
mod watches;
mod weight;

pub use gate::SOCKET;
pub use plan::{Plan, RootPlan};
