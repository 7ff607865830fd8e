//! lithify: an OCI runtime that decorates runc or crun. It seals a container's root filesystem, sees every change, tells
//! it, and starts the container again from its image, in place.
//!
//! # The way through
//!
//! Data walks one way:
//!
//! ```text
//! argv → cli → engine → policy → spec, rootfs → runtime (runc or crun)
//!                  └──→ supervise ← watch          (anchor and supervisor, as long as the container lives)
//!                           └──→ events → journal ← ctl (lithifyctl)
//! ```
//!
//! Deciding is pure (values in, values out); acting is at the edges. Each folder's `mod.rs` says what it owns and must not
//! do, and each behaviour has one place:
//!
//! | you look for | it is in |
//! | --- | --- |
//! | a flag of runc or of ours, which verb a call is | [`cli`] |
//! | what a verb does to a protected container; the only place where the stages meet | [`engine`]: `create.rs` for `create` and `run`, `exec.rs`, `delete.rs`, `verbs.rs` for the rest; `seat.rs` what a container's profile makes of it, `director.rs` the same for each generation |
//! | config.toml, annotations, what may loosen what | [`policy`]: `config.rs` and `document.rs`, `annotations.rs`, `tighten.rs`, `values.rs`, `names.rs` |
//! | what is changed in config.json | [`spec`] |
//! | what a profile allows: seccomp, capabilities, scratch, limits, each edit with its reason | [`harden`]; `profile/filter.rs` and `families.rs` say which calls |
//! | finding runc or crun, calling it, its own state folder | [`runtime`] |
//! | what runc or crun itself calls under a container's filter | [`runtime`]: `needs.rs` knows, `calibrate/` measures, `kept.rs` keeps |
//! | layers, sealed and tripwire overlays, scratch, evidence | [`rootfs`] |
//! | the processes that stay: restarts, responses, limits, cgroups, stdio | [`supervise`]: `supervisor.rs` is the loop, `machine.rs` decides, `generation.rs` does, `tell.rs` says it |
//! | what a container is refused: answered, judged, told | [`supervise`]: `gate.rs` takes refused system calls, `guarding.rs` the rest, `refused.rs` judges, `tell_refused.rs` tells |
//! | how often what goes on is told, and how much of it is kept | [`supervise`]: `pace.rs` for `tally.rs` and `storm.rs`, `evidence.rs` |
//! | a generation that is decided anew | [`supervise`]: `director.rs` is who decides, `anew.rs` takes it over |
//! | how a change is seen | [`watch`]: `tripwire.rs` (fanotify), `upper.rs` (inotify), `mounts.rs`, `scan.rs` |
//! | the process beside a container that is learnt | [`learn`]: its work; `engine/learning.rs` starts it, `supervise/companion.rs` is the supervisor's side, `ctl/hook.rs` that of OCI hooks |
//! | what workloads were seen to do: the documents, merging, the estimate, what is never learnt, the store | [`profile`]: `merge.rs`, `estimate.rs`, `stages.rs`, `baseline.rs`, `store.rs` |
//! | what is learnt of a container, by whom, when | [`learn`] |
//! | which revision of a workload a container is | [`identity`] |
//! | the event types, the journal's files, reading them back | [`events`] |
//! | a container's live state on disk | [`record`] |
//! | what a failure looks like to an engine | [`logging`] |
//! | what a container is seen to do while it is learnt | [`sensor`]: `bpf/` are the programs, `armed.rs` one container, `load.rs` is `lithifyctl`'s |
//! | what an enforced container is refused without a call of its own to us, and what of it is killed | [`sensor`]: `bpf/guard.bpf.c`, `guard.rs` |
//! | `lithifyctl`, one file a verb | [`ctl`] |
//! | a look at memory or files that a container controls, which may never end | [`look`]: a process of its own, with a deadline |
//! | system calls, and every `unsafe` | [`sys`] |
//!
//! The supervisor never reads configuration, annotations or argv: it is given a [`supervise::Plan`] as plain data.
//! Nothing here needs a daemon or a network.

pub mod cli;
pub mod ctl;
pub mod engine;
pub mod events;
pub mod guard;
pub mod harden;
pub mod identity;
pub mod learn;
pub mod logging;
pub mod look;
pub mod mountinfo;
pub mod policy;
pub mod profile;
pub mod record;
pub mod rootfs;
pub mod runtime;
pub mod sensor;
pub mod spec;
pub mod supervise;
pub mod sys;
pub mod watch;
