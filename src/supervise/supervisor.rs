//! The supervisor's loop: what it waits for, and what it does about it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::anchor::{Order, Report, order};
use super::caller::Image;
use super::cgroup::Cgroups;
use super::clients::Client;
use super::companion::Companion;
use super::control::Listener;
use super::evidence::Allowance;
use super::guarding::Guarding;
use super::machine::{Effect, Input, Machine, Phase};
use super::plan::Plan;
use super::refused::Inbox;
use super::root::Root;
use super::stdio::Stream;
use super::storm::Storm;
use super::tally::Tally;
use super::waiting::{Heard, receive_now};
use super::watches::Watches;
use crate::events::{Recorder, clock};
use crate::look;
use crate::policy::Response;
use crate::record::{self, Record};
use crate::runtime::layout::Layout;
use crate::sys::process::{self, Exit};
use crate::sys::signals::{Mask, SignalFd};
use crate::sys::spawn::Child;
use crate::watch::{Change, ChangeKind};

/// The engine's side: the process whose pid it has.
pub(super) struct Anchor {
    pub pid: i32,
    pub socket: OwnedFd,
}

/// One container's supervisor.
pub(super) struct Supervisor {
    pub plan: Plan,
    pub anchor: Anchor,
    pub signals: SignalFd,
    pub mask: Mask,
    pub streams: [Stream; 3],
    /// The streams, open, between two generations.
    pub held: RefCell<Option<[OwnedFd; 3]>>,
    pub preserved: Vec<OwnedFd>,
    pub root: Root,
    pub init: Option<Child>,
    pub layout: Option<Layout>,
    pub home: Cgroups,
    pub cgroups: Cgroups,
    /// In v1 the anchor stays in the container's cgroups while the generations change.
    pub anchor_stays: bool,
    /// The low-level runtime has made a container for us.
    pub made: bool,
    /// Signals to the pid the engine has that came while no generation could take them.
    pub late_signals: Vec<i32>,
    pub watches: Watches,
    pub machine: Machine,
    pub storm: Storm,
    /// Of archives.
    pub evidence: Allowance,
    pub recorder: Recorder,
    /// The data folder, on the host's own mount of it.
    pub data: Option<OwnedFd>,
    pub record: Record,
    pub generation_began: Instant,
    pub breach_seen: Option<Instant>,
    /// From the sight of the first breach of this generation until its event was durable, in µs.
    pub durable_us: Option<u64>,
    /// Paths that breach events of this generation have named: the scan need not tell them again.
    pub told: HashSet<PathBuf>,
    /// How the workload ended, once it has.
    pub exit: Option<Exit>,
    pub control: Listener,
    pub clients: Vec<Client>,
    /// Who records what the workload does.
    pub companion: Option<Companion>,
    /// This generation was sent its end by us: what its processes call meanwhile, they don't live to be refused.
    pub ending: Cell<bool>,
    /// What the container was refused, as it comes in.
    pub inbox: RefCell<Inbox>,
    /// Who sees what no filter sees.
    pub guarding: Guarding,
    /// What it was refused, as it is told.
    pub tally: Tally,
    /// The low-level runtime's program, as this generation's init runs it before it is the workload.
    pub runtimes_image: Option<Image>,
    /// What the low-level runtime needs has been found out anew for this container: once is enough.
    pub recalibrated: bool,
    pub epoch: Instant,
    pub renew_at: Option<Duration>,
    /// Something happened since it last settled down.
    pub restless: bool,
    /// The engine's `start` is under way: what changes from now on is the workload's doing.
    pub armed: bool,
    /// A session was let in before the engine's `start`.
    pub entered: bool,
    /// The anchor has been told, or is gone.
    pub over: bool,
}

/// What a supervisor is made of once the first generation has been created.
pub(super) struct Parts {
    pub plan: Plan,
    pub companion: Option<Companion>,
    pub anchor: Anchor,
    pub signals: SignalFd,
    pub mask: Mask,
    pub streams: [Stream; 3],
    pub preserved: Vec<OwnedFd>,
    pub root: Root,
    pub home: Cgroups,
    pub watches: Watches,
    pub recorder: Recorder,
    pub data: Option<OwnedFd>,
    pub record: Record,
    pub control: Listener,
    pub inbox: Inbox,
}

impl Supervisor {
    pub(super) fn new(parts: Parts) -> Supervisor {
        let policy = &parts.plan.policy;
        let mut machine = Machine::new(parts.record.response, policy.restart_limit, policy.escalate_to);
        machine.set_unpaced(policy.restarts_unpaced);
        Supervisor {
            machine,
            plan: parts.plan,
            anchor: parts.anchor,
            signals: parts.signals,
            mask: parts.mask,
            streams: parts.streams,
            held: RefCell::new(None),
            preserved: parts.preserved,
            root: parts.root,
            init: None,
            layout: None,
            home: parts.home,
            cgroups: Cgroups::default(),
            anchor_stays: false,
            made: false,
            late_signals: Vec::new(),
            watches: parts.watches,
            storm: Storm::default(),
            evidence: Allowance::default(),
            recorder: parts.recorder,
            data: parts.data,
            record: parts.record,
            generation_began: Instant::now(),
            breach_seen: None,
            durable_us: None,
            told: HashSet::new(),
            exit: None,
            control: parts.control,
            clients: Vec::new(),
            companion: parts.companion,
            ending: Cell::new(false),
            inbox: RefCell::new(parts.inbox),
            guarding: Guarding::default(),
            tally: Tally::default(),
            runtimes_image: None,
            recalibrated: false,
            epoch: Instant::now(),
            renew_at: None,
            restless: true,
            armed: false,
            entered: false,
            over: false,
        }
    }

    /// Time since this supervisor began, the machine's clock.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Supervises until the container is over.
    pub(super) fn run(&mut self) {
        // Refusals first: a generation that was killed for one must not be taken for one that ended by itself.
        let steps = [
            Self::heed_refusals,
            Self::reap,
            Self::hear_anchor,
            Self::hear_clients,
            Self::hear_companion,
            Self::look,
            Self::keep_time,
        ];
        while !self.over {
            self.wait();
            for step in steps {
                if !self.over {
                    step(self);
                }
            }
        }
        self.recorder.flush();
    }

    /// The last thing a supervisor does: lets the engine see how the workload ended.
    pub(super) fn release_anchor(&self) {
        let exit = self.exit.unwrap_or(Exit::Signal(libc::SIGKILL));
        let _ = order(self.anchor.socket.as_fd(), Order::End(exit), None);
    }

    /// Takes leave of children that have ended: the container's init, and orphans that became ours.
    fn reap(&mut self) {
        while self.signals.next().is_some() {}
        if let Some(init) = &self.init
            && let Ok(Some(exit)) = process::reap_pidfd(init.pidfd.as_fd())
        {
            self.exit = Some(exit);
            let ended = if self.is_to_be_started_anew() { Input::Anew } else { Input::InitEnded };
            self.init = None;
            self.take(ended);
        }
        while let Ok(Some(_)) = process::reap_any(self.init.as_ref().map(|i| i.pid)) {}
    }

    fn hear_anchor(&mut self) {
        match receive_now(self.anchor.socket.as_fd()) {
            Heard::Nothing => {}
            Heard::Gone => {
                // Somebody killed the process that stands for the container: then the container is to end.
                self.end_generation_now();
                self.tell_exit();
            }
            Heard::Message(message) => {
                if let Some(Report::Signal(signal)) = Report::decode(&message)
                    && !self.is_killing_all()
                {
                    self.forward(signal);
                }
            }
        }
    }

    /// A signal that was sent to the pid the engine has was meant for the workload.
    pub(super) fn forward(&self, signal: i32) {
        if let Some(init) = &self.init {
            let _ = process::pidfd_send_signal(init.pidfd.as_fd(), signal);
        }
    }

    /// The workload's first instruction is out: from now on a change is a breach.
    pub(super) fn started(&mut self) {
        if self.machine.phase == Phase::Running {
            return;
        }
        self.generation_began = Instant::now();
        self.take(Input::Started);
        self.renew_at = self.plan.policy.renew_every.map(|every| self.now() + every);
        // stats have been set up by now; from here on the anchor is not to be counted among the container's processes.
        if let Err(error) = self.home.only(&["pids"]).enter(self.anchor.pid, &[]) {
            self.record.degraded.push(format!("the anchor is counted among the container's processes: {error:#}"));
        }
        self.set_phase(record::Phase::Running);
        self.tell_started();
    }

    fn look(&mut self) {
        let seen = self.watches.look();
        self.tell_failures(seen.failures);
        let armed = self.armed;
        match self.machine.phase {
            Phase::Running => {
                // The workload may have been faster than the engine's `start`.
                self.armed = false;
                if !seen.changes.is_empty() || armed && self.storm.has_changes() {
                    self.answer(seen.changes);
                }
            }
            Phase::Created if armed => {
                // Not before `start` has been told to the engine: until then the low-level runtime is at work.
                let now = self.now();
                self.storm.add(seen.changes, now);
            }
            Phase::Created | Phase::Backoff(_) | Phase::Paused | Phase::Ended => {}
        }
    }

    /// Answers changes that must not be.
    fn answer(&mut self, changes: Vec<Change>) {
        self.breach_seen = Some(Instant::now());
        let now = self.now();
        // What the host writes to the engine's upper is in no generation: there is nothing that a restart would put right.
        let landed = self.storm.has_landed() || changes.iter().any(|c| c.kind != ChangeKind::HostWrite);
        if landed && self.plan.limits.profile.is_some() {
            self.machine.note_attack();
        }
        let answered = landed || self.machine.response() != Response::Restart;
        let tell = self.storm.add(changes, now);
        let effects =
            if answered { self.machine.step(Input::Breach(self.machine.response()), now) } else { Vec::new() };
        // Contain first: the generation is killed before the disk is waited for.
        if effects.iter().any(|e| matches!(e, Effect::KillGeneration | Effect::KillForGood)) {
            self.hold_streams();
            self.kill_init();
        }
        if tell || !effects.is_empty() {
            self.tell_breach("watch");
        }
        self.carry_out(effects);
    }

    fn keep_time(&mut self) {
        let now = self.now();
        if self.storm.due().is_some_and(|due| now >= due) {
            self.tell_breach("watch");
        }
        if self.tally.is_due(now) {
            self.tell_refusals(false);
        }
        if look::take_unanswered() > 0 {
            self.tell_failures(vec![
                "memory or files of the container's do not answer: what was to be read there is told as unknown"
                    .to_owned(),
            ]);
        }
        if self.renew_at.is_some_and(|at| now >= at) {
            self.renew_at = None;
            self.take(Input::RenewDue);
        }
        if matches!(self.machine.phase, Phase::Backoff(at) if now >= at) {
            self.take(Input::BackoffOver);
        }
    }
}

/// The time of day for events and records.
pub(super) fn timestamp() -> String {
    clock::format(clock::now_micros())
}
