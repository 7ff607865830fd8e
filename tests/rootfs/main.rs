//! Sealed and tripwire roots, as root in a mount namespace of each test's own (nextest gives each its own process).

mod baseline;
mod evidence;
mod layers;
mod runtime;
mod sealed;
mod support;
