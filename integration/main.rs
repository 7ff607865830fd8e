//! Real engines, real containers: what lithify promises, asked of Docker, containerd and Podman themselves.
//!
//! Owns: the harness (a private corner of the machine, the engines in it, the images) and the tests that need root.
//! Must not: touch an engine that already runs, or leave anything behind.
//!
//! The runtime under test is the package's own `lithify`; `LITHIFY_IT_RUNTIME` names another build of it. Everything here
//! needs root, Docker, containerd, Podman, runc, crun and conmon, and fails where one is missing: a skip would be a promise
//! that nobody checked.

// harness
mod attack;
mod attacks;
mod bare;
mod command;
mod containerd;
mod corner;
mod docker;
mod images;
mod journal;
mod podman;
mod setup;

// tests
mod alike;
mod bad_input;
mod canary;
mod contract;
mod cri;
mod crun;
mod export;
mod harden;
mod hooks;
mod killed;
mod layer;
mod learn;
mod limits;
mod noalarm;
mod plain;
mod sealed;
mod sessions;
mod siblings;
mod steered;
mod storm;
mod tidy;
mod tripwire;
