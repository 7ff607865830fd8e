//! The watches against the real kernel: overlays, fanotify, inotify and mount tables in a private mount namespace.
//!
//! Needs root. Without it the tests fail: a watch that was not tried is not known to see.

mod mounts;
mod ops;
mod scan;
mod tripwire;
mod upper;
mod world;
