//! The supervisor's loop: what it waits for, and what it does about it.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::anchor::{Order, Report, order};
use super::cgroup::Cgroups;
use super::clients::Client;
use super::companion::Companion;
use super::control::Listener;
use super::machine::{Effect, Input, Machine, Phase};
use super::plan::Plan;
use super::root::Root;
use super::stdio::Stream;
use super::storm::{Storm, leave_out, paths_of};
use super::watches::Watches;
use crate::events::{Recorder, clock};
use crate::policy::{Response, RootfsKind};
use crate::record::{self, Record};
use crate::runtime::layout::Layout;
use crate::sys::memory;
use crate::sys::process::{self, Exit};
use crate::sys::signals::{Mask, SignalFd};
use crate::sys::socket;
use crate::sys::spawn::Child;
use crate::watch::{Change, ChangeKind};

/// How long nothing has to happen before a supervisor gives back what it does not need for waiting.
const SETTLING: Duration = Duration::from_secs(1);

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
    pub held: Option<[OwnedFd; 3]>,
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
    epoch: Instant,
    renew_at: Option<Duration>,
    /// Something happened since it last settled down.
    restless: bool,
    /// The engine's `start` is under way: what changes from now on is the workload's doing.
    pub armed: bool,
    /// A session was let in before the engine's `start`.
    pub entered: bool,
    /// The anchor has been told, or is gone.
    over: bool,
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
}

impl Supervisor {
    pub(super) fn new(parts: Parts) -> Supervisor {
        let policy = &parts.plan.policy;
        let machine = Machine::new(parts.record.response, policy.restart_limit, policy.escalate_to);
        Supervisor {
            machine,
            plan: parts.plan,
            anchor: parts.anchor,
            signals: parts.signals,
            mask: parts.mask,
            streams: parts.streams,
            held: None,
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
        let steps =
            [Self::reap, Self::hear_anchor, Self::hear_clients, Self::hear_companion, Self::look, Self::keep_time];
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

    /// Sleeps until something happens. Idle, nothing does.
    fn wait(&mut self) {
        let quiet = self.next_deadline().is_none().then_some(SETTLING);
        if self.sleep(quiet.filter(|_| self.restless)) == 0 && self.restless && quiet.is_some() {
            settle_down();
            self.restless = false;
            self.sleep(None);
        }
        self.restless = true;
    }

    /// Sleeps until something happens, the next deadline, or at most for a time; says how much has happened.
    fn sleep(&self, at_most: Option<Duration>) -> i32 {
        let (watched, mounts) = self.watches.fds();
        let readable = [self.signals.as_fd(), self.anchor.socket.as_fd(), self.control.as_fd()].into_iter();
        let readable = readable.chain(self.init.iter().map(|i| i.pidfd.as_fd()));
        let readable = readable.chain(self.clients.iter().map(|c| c.socket.as_fd())).chain(watched);
        let readable = readable.chain(self.companion.iter().map(Companion::as_fd));
        let mut fds: Vec<PollFd<'_>> = readable.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        fds.extend(mounts.map(|fd| PollFd::new(fd, PollFlags::POLLPRI)));
        let deadline = self.next_deadline().map(|at| at.saturating_sub(self.now()) + Duration::from_millis(1));
        let timeout = [deadline, at_most].into_iter().flatten().min().map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis().min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX)
        });
        poll(&mut fds, timeout).unwrap_or(0)
    }

    fn next_deadline(&self) -> Option<Duration> {
        let backoff = match self.machine.phase {
            Phase::Backoff(at) => Some(at),
            Phase::Created | Phase::Running | Phase::Paused | Phase::Ended => None,
        };
        [self.renew_at, backoff, self.storm.due()].into_iter().flatten().min()
    }

    /// Takes leave of children that have ended: the container's init, and orphans that became ours.
    fn reap(&mut self) {
        while self.signals.next().is_some() {}
        if let Some(init) = &self.init
            && let Ok(Some(exit)) = process::reap_pidfd(init.pidfd.as_fd())
        {
            self.exit = Some(exit);
            self.init = None;
            self.take(Input::InitEnded);
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
        let answered = landed || self.machine.response() != Response::Restart;
        let tell = self.storm.add(changes, now);
        let effects = if answered { self.machine.step(Input::Breach, now) } else { Vec::new() };
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
        if self.renew_at.is_some_and(|at| now >= at) {
            self.renew_at = None;
            self.take(Input::RenewDue);
        }
        if matches!(self.machine.phase, Phase::Backoff(at) if now >= at) {
            self.take(Input::BackoffOver);
        }
    }

    pub(super) fn take(&mut self, input: Input) {
        let now = self.now();
        let effects = self.machine.step(input, now);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Freeze => self.freeze(),
                Effect::KillGeneration => {
                    self.end_generation_now();
                    self.scan_generation();
                    self.set_phase(record::Phase::Restarting);
                }
                Effect::RetireGeneration => {
                    self.hold_streams();
                    self.breach_seen = Some(Instant::now());
                    self.retire_generation();
                    self.scan_generation();
                    self.set_phase(record::Phase::Restarting);
                }
                Effect::BeginGeneration => self.begin_generation(),
                Effect::KillForGood => {
                    self.end_generation_now();
                    self.exit = Some(Exit::Signal(libc::SIGKILL));
                }
                Effect::TellEscalation(to) => self.tell_escalation(to),
                Effect::TellExit => self.tell_exit(),
            }
        }
        // With no delay there is nothing to wait for.
        if matches!(self.machine.phase, Phase::Backoff(at) if self.now() >= at) {
            self.take(Input::BackoffOver);
        }
    }

    /// The next generation, or the end.
    fn begin_generation(&mut self) {
        self.let_verbs_finish();
        match self.restart() {
            Ok(()) => {
                self.renew_at = self.plan.policy.renew_every.map(|every| self.now() + every);
                self.take(Input::Started);
                self.set_phase(record::Phase::Running);
                self.tell_restarted();
                for signal in std::mem::take(&mut self.late_signals) {
                    self.forward(signal);
                }
            }
            Err(error) => {
                self.record.degraded.push(format!("the restart failed: {error:#}"));
                self.end_generation_now();
                self.take(Input::RestartFailed);
            }
        }
    }

    fn freeze(&mut self) {
        match self.pause() {
            Ok(()) => self.set_phase(record::Phase::Paused),
            Err(error) => {
                // What can't be frozen must not go on.
                self.record.degraded.push(format!("the container could not be frozen: {error:#}"));
                self.tell_escalation(Response::Stop);
                self.end_generation_now();
                self.exit = Some(Exit::Signal(libc::SIGKILL));
                self.tell_exit();
            }
        }
    }

    /// The container is over: the last look, the last event.
    fn tell_exit(&mut self) {
        self.machine.phase = Phase::Ended;
        self.kill_stragglers();
        self.scan_generation();
        let observation = self.close_companion();
        let exit = self.exit.unwrap_or(Exit::Signal(libc::SIGKILL));
        self.tell_exited(exit, observation);
        self.set_phase(record::Phase::Stopped);
        self.over = true;
    }

    pub(super) fn set_phase(&mut self, phase: record::Phase) {
        self.record.phase = phase;
        self.save_record();
    }

    /// Writes the record; a full disk must not stop a response.
    pub(super) fn save_record(&mut self) {
        let _ = self.record.write(&self.plan.dir);
    }

    /// What the scan finds beyond what the watches told is a breach too.
    fn scan_generation(&mut self) {
        if self.root.kind() == RootfsKind::Engine && self.machine.response() == Response::Report {
            // Every change stays there and has been told as it happened; the scan would tell all of them again.
            return;
        }
        let told = std::mem::take(&mut self.told);
        let mut seen = self.watches.look();
        let mut scanned = self.watches.scan();
        self.tell_failures(std::mem::take(&mut seen.failures));
        self.tell_failures(std::mem::take(&mut scanned.failures));
        leave_out(&mut seen.changes, &told);
        let looked: HashSet<PathBuf> = paths_of(&seen.changes).collect();
        leave_out(&mut scanned.changes, &told);
        leave_out(&mut scanned.changes, &looked);
        seen.changes.extend(scanned.changes);
        self.told = told;
        let now = self.now();
        self.storm.add(seen.changes, now);
        if self.storm.has_changes() {
            self.tell_breach("scan");
        }
    }
}

/// Whether the other end of a socket is closed.
pub(super) fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLHUP))
}

pub(super) enum Heard {
    Nothing,
    Gone,
    Message(Vec<u8>),
}

pub(super) fn receive_now(fd: BorrowedFd<'_>) -> Heard {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    if !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0) {
        return Heard::Nothing;
    }
    match socket::receive(fd) {
        Ok((message, _)) if message.is_empty() => Heard::Gone,
        Ok((message, _)) => Heard::Message(message),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Heard::Nothing,
        Err(_) => Heard::Gone,
    }
}

/// A supervisor lives for months and has nothing to do: it keeps no page that waiting does not need.
pub(super) fn settle_down() {
    process::trim_heap();
    memory::release_code();
}

/// The time of day for events and records.
pub(super) fn timestamp() -> String {
    clock::format(clock::now_micros())
}
