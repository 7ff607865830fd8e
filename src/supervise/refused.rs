//! What the container is refused: answered at once, then judged, and told.
//!
//! Owns: the order of these. A call that waits is answered wherever the supervisor waits, so that a low-level runtime that is
//! refused something can't hold us up; what follows from it is decided in the loop only. Contain first: where the generation
//! is to end for a refusal, it is killed before its caller has an answer. Must not: decide by itself what follows; that is
//! the machine's.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::caller;
use super::gate::{Gate, Waiting};
use super::machine::{Effect, Input, Phase};
use super::supervisor::Supervisor;
use super::weight::{is_denied, is_denied_habit, is_known, is_only_told, may_be_honest, response_to, strength};
use crate::guard::{Refusal, Refused};
use crate::policy::Response;
use crate::sys::process;

/// Calls that are answered in one turn; the loop has more to do than that.
const A_TURN: usize = 256;
/// Callers that are looked at within a second, of those whose calls are answered and as many of those that are only told; of
/// more, only their number is kept.
const LOOKS: u32 = 256;
/// Most refusals that wait to be judged; half of them may be such that are only told.
const MAX_WAITING: usize = 1024;
/// How long a call may go without an answer because the engine's `start` is still under way, which what follows has to wait
/// for. A hook that waits for the workload is not to wait for ever.
const HOLD: Duration = Duration::from_secs(1);

/// Refusals that have been answered and not judged yet.
pub(super) struct Inbox {
    /// Where refused calls arrive.
    pub gate: Gate,
    /// Of the workload and its sessions.
    met: Vec<Refusal>,
    /// Calls for which the generation is to end as soon as it can, and since when the first of them has waited.
    held: Vec<Waiting>,
    held_since: Option<Instant>,
    /// Calls that are answered, and those that are only told (of sessions, say), of which only the number was kept.
    beyond: (u64, u64),
    /// Calls that the low-level runtime's own init was refused, by name.
    runtimes: Vec<String>,
    /// The workload's filter has been let go for too many calls: the one that was too many.
    flood: Option<Refusal>,
    /// Sessions' filters that have been.
    session_floods: usize,
    /// Looks within the second that began then: what is answered, what is only told.
    looks: [(Instant, u32); 2],
}

/// What could be read of a caller.
#[derive(Default)]
struct Looked {
    pid: i32,
    program: String,
    path: Option<String>,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        let looks = [(Instant::now(), 0); 2];
        Inbox {
            gate: Gate::new(),
            met: Vec::new(),
            held: Vec::new(),
            held_since: None,
            beyond: (0, 0),
            runtimes: Vec::new(),
            flood: None,
            session_floods: 0,
            looks,
        }
    }

    /// Whether one more caller may be looked at. A flood of calls that are only told takes nothing from those that are answered.
    fn may_look(&mut self, only_told: bool, now: Instant) -> bool {
        let looks = &mut self.looks[usize::from(only_told)];
        if now.saturating_duration_since(looks.0) >= Duration::from_secs(1) {
            *looks = (now, 0);
        }
        looks.1 += 1;
        looks.1 <= LOOKS && self.has_room(only_told)
    }

    fn has_room(&self, only_told: bool) -> bool {
        self.met.len() < if only_told { MAX_WAITING / 2 } else { MAX_WAITING }
    }

    /// Keeps a call to be judged; only that there was one, where its caller was not looked at, or too many wait.
    fn keep(&mut self, waiting: &Waiting, name: String, looked: Option<Looked>, only_told: bool) {
        match looked.filter(|_| self.has_room(only_told)) {
            Some(Looked { pid, program, path }) => self.met.push(Refusal {
                refused: Refused::Syscall { name, arguments: waiting.call.arguments.to_vec(), path },
                pid,
                program,
                session: waiting.session,
                count: 1,
            }),
            None if only_told => self.beyond.1 += 1,
            None => self.beyond.0 += 1,
        }
    }

    /// Answers what was held back.
    fn let_held_go(&mut self) {
        self.held_since = None;
        for waiting in std::mem::take(&mut self.held) {
            self.gate.refuse(&waiting);
        }
    }

    fn is_empty(&self) -> bool {
        self.met.is_empty() && self.beyond == (0, 0) && self.flood.is_none() && self.session_floods == 0
    }
}

impl Supervisor {
    /// Whether something has been refused that is not judged yet.
    pub(super) fn has_met_refusals(&self) -> bool {
        !self.inbox.borrow().is_empty()
    }

    /// Answers the calls that wait. Never waits.
    pub(super) fn serve(&self) {
        let mut inbox = self.inbox.borrow_mut();
        inbox.gate.hear();
        for _ in 0..A_TURN {
            let Some(waiting) = inbox.gate.next() else { return };
            if inbox.gate.affords(&waiting) {
                self.answer_call(&mut inbox, &waiting);
            } else {
                self.end_flood(&mut inbox, &waiting);
            }
        }
    }

    /// Lets a filter go whose calls are too many. What a workload floods it with must not buy it silence, a denied habit
    /// neither: it is answered as any refusal that learning never saw.
    fn end_flood(&self, inbox: &mut Inbox, waiting: &Waiting) {
        if waiting.session {
            inbox.session_floods += 1;
        } else if !self.ending.get() {
            if matches!(self.verdict(false), Verdict::Kill) {
                self.hold_streams();
                self.kill_init();
            }
            let call = &waiting.call;
            let caller::Caller { pid, program, .. } = caller::look(call.tid);
            let refused = Refused::Syscall { name: caller::name(call), arguments: call.arguments.to_vec(), path: None };
            inbox.flood = Some(Refusal { refused, pid, program, session: false, count: 1 });
        }
        inbox.gate.let_go(waiting);
    }

    fn answer_call(&self, inbox: &mut Inbox, waiting: &Waiting) {
        let call = &waiting.call;
        let name = caller::name(call);
        let deadly = self.plan.limits.deadly_syscalls.contains(&name);
        let refused = Refused::Syscall { name: name.clone(), arguments: call.arguments.to_vec(), path: None };
        let only_told = waiting.session || is_denied_habit(&self.plan.limits, &refused);
        let looked = (inbox.may_look(only_told, Instant::now()) || deadly).then(|| {
            let pidfd = if deadly { process::pidfd_open(caller::look(call.tid).pid).ok() } else { None };
            (caller::look(call.tid), caller::path(call, &name), pidfd)
        });
        if !inbox.gate.waits(waiting) {
            // It was killed (who is killed before the call is taken leaves no trace with the kernel), and its number may be
            // another's: what was read is not told. Or a signal interrupted the call, which
            // may be made again, and then counts again. Either way it was not let through.
            let is_runtimes = match &looked {
                Some((who, _, _)) if self.is_runtimes_own(waiting, who) => true,
                // Until the workload has begun, threads of the low-level runtime's init come and go.
                _ => !waiting.session && self.machine.phase != Phase::Running,
            };
            if !is_runtimes && !self.ending.get() {
                inbox.keep(waiting, name, Some(Looked { pid: call.tid, ..Looked::default() }), waiting.session);
            }
            return;
        }
        if let Some((who, _, _)) = &looked
            && self.is_runtimes_own(waiting, who)
        {
            inbox.gate.refuse(waiting);
            if inbox.runtimes.len() < MAX_WAITING && !inbox.runtimes.contains(&name) {
                inbox.runtimes.push(name);
            }
            return;
        }
        let killed = looked.as_ref().and_then(|(_, _, pidfd)| pidfd.as_ref());
        if let Some(pidfd) = killed {
            let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
        match self.verdict(only_told) {
            Verdict::Refuse => inbox.gate.refuse(waiting),
            Verdict::Kill => {
                // Without an answer: nobody is left to do anything with it.
                self.hold_streams();
                self.kill_init();
            }
            Verdict::Hold if inbox.held.len() < MAX_WAITING => {
                inbox.held_since.get_or_insert_with(Instant::now);
                inbox.held.push(*waiting);
            }
            Verdict::Hold => inbox.gate.refuse(waiting),
        }
        let looked = looked.map(|(who, path, _)| Looked { pid: who.pid, program: who.program, path });
        inbox.keep(waiting, name, looked, only_told);
    }

    /// The low-level runtime's own init, which has the filter already and is not the workload yet. Once the workload has
    /// been executed, its program is another file.
    fn is_runtimes_own(&self, waiting: &Waiting, who: &caller::Caller) -> bool {
        match &self.init {
            None => !waiting.session,
            Some(init) => {
                let is_runtimes = || self.runtimes_image.as_ref().is_some_and(|image| image.is_of(who));
                !waiting.session && who.pid == init.pid && is_runtimes()
            }
        }
    }

    /// What is done with a call at once.
    fn verdict(&self, only_told: bool) -> Verdict {
        let early = match self.machine.phase {
            _ if only_told => return Verdict::Refuse,
            Phase::Running => false,
            // The workload's first instruction may be out before the loop has heard of it.
            Phase::Created | Phase::Backoff(_) => true,
            Phase::Paused | Phase::Ended => return Verdict::Refuse,
        };
        let mut machine = self.machine.clone();
        machine.phase = Phase::Running;
        let response = self.possible(self.plan.policy.on_refused_syscall);
        match kills(&machine.step(Input::Breach(response), self.now())) {
            true if early => Verdict::Hold,
            true => Verdict::Kill,
            false => Verdict::Refuse,
        }
    }

    /// When a call that is held back is answered at the latest.
    pub(super) fn held_until(&self) -> Option<Duration> {
        let since = self.inbox.borrow().held_since?;
        Some((since + HOLD).saturating_duration_since(self.epoch))
    }

    /// A response that this container can be given.
    pub(super) fn possible(&self, asked: Response) -> Response {
        if asked == Response::Restart && self.plan.loses_terminal() { Response::Stop } else { asked }
    }

    /// Judges what was refused since, and does what follows.
    pub(super) fn heed_refusals(&mut self) {
        self.serve();
        if self.machine.phase == Phase::Created {
            // What follows waits until the engine's `start` has been told.
            if self.held_until().is_some_and(|until| self.now() >= until) {
                self.inbox.borrow_mut().let_held_go();
            }
            return;
        }
        let (flood, session_floods) = self.take_floods();
        let (refusals, beyond) = self.take_refusals();
        if refusals.is_empty() && beyond == (0, 0) && flood.is_none() && session_floods == 0 {
            return;
        }
        let now = self.now();
        self.breach_seen = Some(Instant::now());
        let effects = match self.machine.phase {
            Phase::Running => self.judge(&refusals, beyond.0 > 0 || flood.is_some(), now),
            Phase::Created | Phase::Backoff(_) | Phase::Paused | Phase::Ended => Vec::new(),
        };
        // Contain first: the generation is killed before the disk is waited for.
        if kills(&effects) {
            self.hold_streams();
            self.kill_init();
        } else {
            self.inbox.borrow_mut().let_held_go();
        }
        self.count(refusals, beyond);
        self.tell_floods(flood, session_floods);
        if self.tally.is_due(now) || !effects.is_empty() {
            self.tell_refusals(!effects.is_empty());
        }
        self.carry_out(effects);
    }

    /// What was refused and told to nobody yet is told: the generation is over.
    pub(super) fn tell_last_refusals(&mut self) {
        self.serve();
        self.inbox.borrow_mut().let_held_go();
        let (flood, session_floods) = self.take_floods();
        let (refusals, beyond) = self.take_refusals();
        self.count(refusals, beyond);
        self.tell_floods(flood, session_floods);
        self.tell_refusals(true);
        self.check_guard();
    }

    fn take_refusals(&mut self) -> (Vec<Refusal>, (u64, u64)) {
        let (mut refusals, beyond) = {
            let mut inbox = self.inbox.borrow_mut();
            (std::mem::take(&mut inbox.met), std::mem::take(&mut inbox.beyond))
        };
        let (limits, exec) = (&self.plan.limits, self.plan.policy.exec);
        refusals.retain(|refusal| !is_known(limits, exec, refusal));
        // What the guard knows to be known, by more than its path, it has left out itself.
        refusals.extend(self.take_guarded());
        (refusals, beyond)
    }

    fn judge(&mut self, refusals: &[Refusal], beyond: bool, now: Duration) -> Vec<Effect> {
        let limits = &self.plan.limits;
        let mut of_workload = refusals.iter().filter(|refusal| !refusal.session && !is_only_told(limits, refusal));
        let mut news = of_workload.clone().filter(|refusal| !is_denied(limits, refusal));
        let (first, honest) = (news.clone().next(), news.find(|refusal| may_be_honest(&refusal.refused)));
        if of_workload.any(|refusal| !may_be_honest(&refusal.refused)) {
            self.machine.note_attack();
        }
        if let Some(first) = first
            && self.goes_back_to_observing(first)
        {
            return self.machine.step(Input::Anew, now);
        }
        if let Some(honest) = honest {
            self.hold_back_others(honest);
        }
        let mut responses: Vec<Response> = refusals.iter().map(|refusal| self.response_to(refusal)).collect();
        if beyond {
            responses.push(self.possible(self.plan.policy.on_refused_syscall));
        }
        // The strongest answers all of them.
        match responses.into_iter().max_by_key(|response| strength(*response)) {
            Some(response) => self.machine.step(Input::Breach(response), now),
            None => Vec::new(),
        }
    }

    fn response_to(&self, refusal: &Refusal) -> Response {
        self.possible(response_to(&self.plan.policy, &self.plan.limits, refusal))
    }

    fn count(&mut self, refusals: Vec<Refusal>, beyond: (u64, u64)) {
        for refusal in refusals {
            let response = self.response_to(&refusal);
            self.tally.add(refusal, response);
        }
        self.tally.add_unnamed(beyond.0, false);
        self.tally.add_unnamed(beyond.1, true);
    }

    fn take_floods(&self) -> (Option<Refusal>, usize) {
        let mut inbox = self.inbox.borrow_mut();
        (inbox.flood.take(), std::mem::take(&mut inbox.session_floods))
    }

    /// Each time: who reads the journal is to know since when it is not whole.
    fn tell_floods(&mut self, flood: Option<Refusal>, session_floods: usize) {
        if let Some(flood) = flood {
            let response = self.possible(self.plan.policy.on_refused_syscall);
            self.tally.add(flood, response);
            self.tell_loss(
                "too many refused system calls: in this generation the workload's are refused (ENOSYS) and no longer told",
            );
        }
        for _ in 0..session_floods {
            self.tell_loss(
                "too many refused system calls in a session: its own are refused (ENOSYS) and no longer told",
            );
        }
    }

    /// System calls that the low-level runtime's own init was refused since the last time that was asked.
    pub(super) fn take_runtimes_refusals(&self) -> Vec<String> {
        std::mem::take(&mut self.inbox.borrow_mut().runtimes)
    }
}

/// What is done with a call that is refused.
enum Verdict {
    /// It has its answer.
    Refuse,
    /// The generation ends for it.
    Kill,
    /// The generation is to end for it once the engine has been told that it has begun.
    Hold,
}

fn kills(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::KillGeneration | Effect::KillForGood))
}
