//! The node's sensor: BPF programs that record what containers do, in the kernel, with no process of ours running.
//!
//! Owns: the programs, loading and unloading them, arming a container, reading what was recorded. Must not: know profiles,
//! names or policy. The hot path opens pinned maps with bpf(2) only; libbpf is in `load.rs`, which `lithifyctl` alone uses.

pub mod reading;

pub use reading::Reading;
