//! Documents for tests: an observation of a few things, and random ones.

use std::collections::BTreeMap;

use lithify::events::clock;
use lithify::profile::behaviour::{Operation, Origin, Program, Write};
use lithify::profile::check::ARCHITECTURE;
use lithify::profile::steering::{Canary, Decision, Quiet, Steering, Step};
use lithify::profile::{Behaviour, Observation, Revision, Sighting, Stage};

/// The start of every generation in tests: 2026-01-01.
const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

/// An id that sorts by `n`.
pub fn id(n: u64) -> String {
    format!("{n:032x}")
}

/// When window `n` begins.
pub fn time(n: u64) -> String {
    clock::format(EPOCH_MICROS + n as i64 * 60_000_000)
}

pub fn revision(n: u64) -> Revision {
    Revision {
        digest: id(n),
        image: "sha256:00".to_string(),
        image_name: Some("web:1".to_string()),
        args: vec!["web".to_string()],
        env: vec!["PATH".to_string()],
        mounts: Vec::new(),
        user: "0:0".to_string(),
        capabilities: Vec::new(),
    }
}

/// An observation that saw nothing in 10 windows.
pub fn observation(n: u64) -> Observation {
    Observation {
        version: 1,
        id: id(n),
        workload: "web".to_string(),
        revision: revision(1),
        architecture: ARCHITECTURE.to_string(),
        node: "node".to_string(),
        container: format!("c{n}"),
        generation: 1,
        started: time(0),
        until: time(10),
        ended: true,
        window_seconds: 60,
        windows: 10,
        unseen: Vec::new(),
        loss: Default::default(),
        workload_behaviour: Behaviour::default(),
        exec_behaviour: Behaviour::default(),
        forbidden: BTreeMap::new(),
        peaks: Default::default(),
    }
}

/// Seen in these windows.
pub fn seen(first: u64, last: u64, windows: u32) -> Sighting {
    Sighting { windows, first: time(first), last: time(last) }
}

/// Everything that can be decided about a profile, once.
pub fn steering() -> Steering {
    let decision = |n: u64| Decision { at: time(n), why: format!("reason {n}") };
    let step = |n: u64, from, to| Step { at: time(n), from, to, why: format!("step {n}") };
    Steering {
        held: true,
        candidate: Some(id(2)),
        demoted: Some(decision(3)),
        allowed: BTreeMap::from([("syscall mkdir".to_string(), decision(1))]),
        denied: BTreeMap::from([("write /srv/*".to_string(), decision(2))]),
        waiting: BTreeMap::from([("program /data/x".to_string(), decision(5))]),
        quiet: Some(Quiet { since: time(3), generations: BTreeMap::from([(id(1), 4)]) }),
        canary: Some(Canary { container: "c1".to_string(), since: time(4), refused: true }),
        history: vec![step(1, Stage::Learning, Stage::Observing), step(2, Stage::Observing, Stage::Enforcing)],
    }
}

/// One item of each kind, in both behaviours.
pub fn full(n: u64) -> Observation {
    let mut o = observation(n);
    let w = &mut o.workload_behaviour;
    w.syscalls.insert("openat".to_string(), seen(0, 9, 10));
    w.syscalls.insert("i386:open".to_string(), seen(0, 0, 1));
    w.denied_syscalls.insert("#4000".to_string(), seen(2, 2, 1));
    w.arguments.insert("socket".to_string(), BTreeMap::from([("2,1,0".to_string(), seen(0, 0, 1))]));
    w.capabilities.insert("CAP_CHOWN".to_string(), seen(0, 0, 1));
    w.writes.insert("/run/web.pid".to_string(), write(seen(0, 0, 1)));
    w.programs.insert("/usr/sbin/web".to_string(), program(seen(0, 0, 1), Origin::Image));
    w.listens.insert("tcp 0.0.0.0:80".to_string(), seen(0, 0, 1));
    w.connects.insert("unix /run/db.sock".to_string(), seen(0, 8, 3));
    o.exec_behaviour.programs.insert("/bin/sh".to_string(), program(seen(3, 3, 1), Origin::Image));
    o.peaks.memory_bytes = Some(1 << 20);
    o.peaks.pids = Some(5);
    o.peaks.cpu_millis = Some(250);
    o
}

pub fn write(seen: Sighting) -> Write<Sighting> {
    Write {
        seen,
        operations: [Operation::Create, Operation::Write].into(),
        size_bytes: 3,
        directory: false,
        executed: false,
        by: ["web".to_string()].into(),
        refused: Default::default(),
        succeeded: true,
    }
}

pub fn program(seen: Sighting, origin: Origin) -> Program<Sighting> {
    Program { seen, origins: [origin].into(), privileged: false }
}
