//! What follows from what happened: a pure function over the supervisor's phases. Time is an input.

use std::collections::VecDeque;
use std::time::Duration;

use crate::policy::{Response, RestartLimit};

/// Where one container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Created, the engine has not started it yet.
    Created,
    /// The workload runs.
    Running,
    /// Ended by us; the next generation begins at this time (since an arbitrary start).
    Backoff(Duration),
    /// Frozen by a response.
    Paused,
    /// Over.
    Ended,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The engine starts the container, or a generation has been started.
    Started,
    /// Something changed that must not, or was refused; this is the response to it.
    Breach(Response),
    /// The generation is to give way to one that is decided anew: no fault of the workload's, and no restart that counts.
    Anew,
    /// A scheduled fresh generation is due.
    RenewDue,
    /// The container's init has ended by itself or by an engine's signal.
    InitEnded,
    /// The time of [`Phase::Backoff`] has come.
    BackoffOver,
    /// The next generation could not be made.
    RestartFailed,
    /// The container was resumed by an operator.
    Resumed,
}

/// What to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Freeze the container.
    Freeze,
    /// Kill the generation, to begin another.
    KillGeneration,
    /// Ask the workload to end and kill it if it does not, to begin another.
    RetireGeneration,
    /// Make the next generation now.
    BeginGeneration,
    /// Kill the container for good; the engine sees SIGKILL.
    KillForGood,
    /// Say that a stronger response was taken than the configured one.
    TellEscalation(Response),
    /// Tell the engine how the workload ended.
    TellExit,
}

/// The state, and the rules it follows.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where it stands.
    pub phase: Phase,
    response: Response,
    limit: RestartLimit,
    escalate_to: Response,
    restarts: VecDeque<Duration>,
    /// Something was done in this container that is answered as an attack.
    attacked: bool,
    /// A generation has lived under what holds now.
    lived: bool,
    /// The node's owner chose how often it may be restarted.
    unpaced: bool,
}

/// A restart costs the node more than the container. Where the node's owner did not choose the limit, restarts beyond so many
/// within [`MINUTE`] wait as those do that come near to the limit.
const UNPAUSED: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);
/// Pause before the first restart in the second half of the limit; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

impl Machine {
    /// A container that was just created.
    pub fn new(response: Response, limit: RestartLimit, escalate_to: Response) -> Machine {
        let restarts = VecDeque::new();
        let phase = Phase::Created;
        Machine { phase, response, limit, escalate_to, restarts, attacked: false, lived: false, unpaced: false }
    }

    /// Whether restarts wait for nothing but the limit.
    pub fn set_unpaced(&mut self, unpaced: bool) {
        self.unpaced = unpaced;
    }

    /// The response to a change.
    pub fn response(&self) -> Response {
        self.response
    }

    /// Whether this generation is the first under what holds now, begun by an engine's start or a schedule, in a container in
    /// which nothing was answered as an attack: only then may what it is refused be the start-up's own.
    pub fn is_first_start(&self) -> bool {
        !self.attacked && !self.lived
    }

    /// Something was done that is an attack, whatever follows from it.
    pub fn note_attack(&mut self) {
        self.attacked = true;
    }

    /// Takes one input at a time `now` (monotonic) and says what to do.
    pub fn step(&mut self, input: Input, now: Duration) -> Vec<Effect> {
        match (self.phase, input) {
            (Phase::Ended, _) => Vec::new(),
            (Phase::Created | Phase::Running | Phase::Paused, Input::InitEnded) => {
                self.phase = Phase::Ended;
                vec![Effect::TellExit]
            }
            (Phase::Created, Input::Started) => {
                self.phase = Phase::Running;
                Vec::new()
            }
            (Phase::Running, Input::Breach(response)) => self.answer(response, now),
            // Also before the engine's `start` has been told: an init may end before the workload has begun.
            (Phase::Created | Phase::Running, Input::Anew) => {
                self.phase = Phase::Backoff(now);
                vec![Effect::KillGeneration]
            }
            (Phase::Running, Input::RenewDue) => {
                self.lived = true;
                self.phase = Phase::Backoff(now);
                vec![Effect::RetireGeneration]
            }
            (Phase::Backoff(_), Input::BackoffOver) => vec![Effect::BeginGeneration],
            (Phase::Backoff(_), Input::Started) => {
                self.phase = Phase::Running;
                Vec::new()
            }
            (Phase::Backoff(_) | Phase::Running, Input::RestartFailed) => {
                self.phase = Phase::Ended;
                vec![Effect::TellEscalation(Response::Stop), Effect::KillForGood, Effect::TellExit]
            }
            (Phase::Paused, Input::Resumed) => {
                self.phase = Phase::Running;
                Vec::new()
            }
            // Before the start every change is the engine's own; a frozen or ended generation is beyond an answer.
            (
                Phase::Created,
                Input::Breach(_) | Input::RenewDue | Input::BackoffOver | Input::RestartFailed | Input::Resumed,
            )
            | (Phase::Running, Input::Started | Input::BackoffOver | Input::Resumed)
            | (
                Phase::Backoff(_),
                Input::Breach(_) | Input::Anew | Input::RenewDue | Input::InitEnded | Input::Resumed,
            )
            | (
                Phase::Paused,
                Input::Started
                | Input::Breach(_)
                | Input::Anew
                | Input::RenewDue
                | Input::BackoffOver
                | Input::RestartFailed,
            ) => Vec::new(),
        }
    }

    /// What holds from the next generation on. Restarts up to now still count.
    pub fn decide_anew(&mut self, response: Response, limit: RestartLimit, escalate_to: Response) {
        (self.response, self.limit, self.escalate_to) = (response, limit, escalate_to);
        self.lived = false;
    }

    fn answer(&mut self, response: Response, now: Duration) -> Vec<Effect> {
        self.attacked |= response != Response::Report;
        match response {
            Response::Report => Vec::new(),
            Response::Restart => {
                let within = |then: &Duration, span| now.saturating_sub(*then) < span;
                while self.restarts.front().is_some_and(|then| !within(then, self.limit.window.max(MINUTE))) {
                    self.restarts.pop_front();
                }
                let since = |span| self.restarts.iter().filter(|then| within(then, span)).count() as u32;
                let (recent, in_a_minute) = (since(self.limit.window), since(MINUTE));
                if recent >= self.limit.count {
                    let mut effects = vec![Effect::TellEscalation(self.escalate_to)];
                    effects.extend(self.settle(self.escalate_to));
                    return effects;
                }
                self.restarts.push_back(now);
                let pace = if self.unpaced { Duration::ZERO } else { pause(in_a_minute.checked_sub(UNPAUSED)) };
                self.phase = Phase::Backoff(now + pause(recent.checked_sub(self.limit.count.div_ceil(2))).max(pace));
                vec![Effect::KillGeneration]
            }
            other => self.settle(other),
        }
    }

    fn settle(&mut self, response: Response) -> Vec<Effect> {
        if response == Response::Pause {
            self.phase = Phase::Paused;
            vec![Effect::Freeze]
        } else {
            self.phase = Phase::Ended;
            vec![Effect::KillForGood, Effect::TellExit]
        }
    }
}

/// How long to wait before a restart: not at all before others were too many, doubling with each that is.
fn pause(doublings: Option<u32>) -> Duration {
    match doublings {
        None => Duration::ZERO,
        Some(doublings) => FIRST_DELAY.saturating_mul(1 << doublings.min(10)).min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(response: Response) -> Machine {
        let limit = RestartLimit { count: 3, window: Duration::from_secs(60) };
        let mut machine = Machine::new(response, limit, Response::Stop);
        assert!(breach(&mut machine, Duration::ZERO).is_empty(), "before the start a change is the engine's");
        assert!(machine.step(Input::Started, Duration::ZERO).is_empty());
        machine
    }

    /// A change, answered as configured.
    fn breach(machine: &mut Machine, now: Duration) -> Vec<Effect> {
        let response = machine.response();
        machine.step(Input::Breach(response), now)
    }

    fn breach_and_restart(machine: &mut Machine, now: Duration) -> Vec<Effect> {
        let effects = breach(machine, now);
        if let Phase::Backoff(at) = machine.phase {
            assert_eq!(machine.step(Input::BackoffOver, at), [Effect::BeginGeneration]);
            machine.step(Input::Started, at);
        }
        effects
    }

    #[test]
    fn the_first_restarts_do_not_wait_and_later_ones_back_off() {
        let delay = |recent: u32, limit: u32| pause(recent.checked_sub(limit.div_ceil(2)));
        let delays: Vec<u128> = (0..5).map(|recent| delay(recent, 5).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 100, 200]);
        assert_eq!(delay(999, 1000), LONGEST_DELAY);
        let mut machine = machine(Response::Restart);
        let now = Duration::from_secs(100);
        for _ in 0..2 {
            breach(&mut machine, now);
            assert_eq!(machine.phase, Phase::Backoff(now));
            machine.step(Input::Started, now);
        }
        breach(&mut machine, now);
        assert_eq!(machine.phase, Phase::Backoff(now + Duration::from_millis(100)));
    }

    #[test]
    fn past_the_limit_a_breach_escalates() {
        let mut machine = machine(Response::Restart);
        let now = Duration::from_secs(1);
        for _ in 0..3 {
            assert_eq!(breach_and_restart(&mut machine, now), [Effect::KillGeneration]);
        }
        assert_eq!(
            breach_and_restart(&mut machine, now),
            [Effect::TellEscalation(Response::Stop), Effect::KillForGood, Effect::TellExit]
        );
        assert_eq!(machine.phase, Phase::Ended);
    }

    #[test]
    fn the_limit_forgets_what_lies_before_its_window() {
        let mut machine = machine(Response::Restart);
        for minute in 0..20u64 {
            let now = Duration::from_secs(minute * 21);
            assert_eq!(breach_and_restart(&mut machine, now), [Effect::KillGeneration], "minute {minute}");
        }
    }

    #[test]
    fn a_limit_that_the_nodes_owner_did_not_choose_buys_no_restart_without_end() {
        let restarts_in_an_hour = |unpaced: bool| {
            let limit = RestartLimit { count: 1000, window: Duration::from_secs(1) };
            let mut machine = Machine::new(Response::Restart, limit, Response::Stop);
            machine.set_unpaced(unpaced);
            machine.step(Input::Started, Duration::ZERO);
            let (mut now, mut restarts) = (Duration::ZERO, Vec::new());
            while now < Duration::from_secs(3600) {
                assert_eq!(breach(&mut machine, now), [Effect::KillGeneration]);
                restarts.push(now);
                let Phase::Backoff(at) = machine.phase else { panic!("{:?}", machine.phase) };
                // What making a generation takes.
                now = at + Duration::from_millis(120);
                machine.step(Input::Started, now);
            }
            restarts
        };
        let paced = restarts_in_an_hour(false);
        assert!((1000..1600).contains(&paced.len()), "{} restarts", paced.len());
        assert!(paced[20] < Duration::from_secs(3), "the first ones don't wait: {:?}", paced[20]);
        assert!(restarts_in_an_hour(true).len() > 29_000);
    }

    #[test]
    fn report_never_touches_the_workload() {
        let mut machine = machine(Response::Report);
        for second in 0..100 {
            assert!(breach(&mut machine, Duration::from_secs(second)).is_empty());
        }
        assert_eq!(machine.phase, Phase::Running);
    }

    #[test]
    fn a_failed_restart_ends_the_container() {
        let mut machine = machine(Response::Restart);
        breach(&mut machine, Duration::ZERO);
        let effects = machine.step(Input::RestartFailed, Duration::ZERO);
        assert_eq!(effects.first(), Some(&Effect::TellEscalation(Response::Stop)));
        assert_eq!(machine.phase, Phase::Ended);
    }

    #[test]
    fn the_workloads_own_end_is_told_and_not_restarted() {
        let mut machine = machine(Response::Restart);
        assert_eq!(machine.step(Input::InitEnded, Duration::ZERO), [Effect::TellExit]);
        assert!(breach(&mut machine, Duration::ZERO).is_empty());
    }

    #[test]
    fn a_refusal_is_answered_by_its_own_response_and_counts_as_any_restart_does() {
        let mut machine = machine(Response::Report);
        let now = Duration::from_secs(1);
        assert!(machine.step(Input::Breach(Response::Report), now).is_empty());
        for _ in 0..3 {
            assert_eq!(machine.step(Input::Breach(Response::Restart), now), [Effect::KillGeneration]);
            machine.step(Input::Started, now);
        }
        let effects = machine.step(Input::Breach(Response::Restart), now);
        assert_eq!(effects.first(), Some(&Effect::TellEscalation(Response::Stop)));
    }

    #[test]
    fn a_start_up_that_follows_an_attack_or_that_was_lived_through_before_is_no_first_one() {
        let now = Duration::from_secs(1);
        let renewed = |machine: &mut Machine| {
            machine.step(Input::RenewDue, now);
            machine.step(Input::Started, now);
        };
        let mut container = machine(Response::Restart);
        assert!(container.is_first_start());
        assert!(container.step(Input::Breach(Response::Report), now).is_empty() && container.is_first_start());
        renewed(&mut container);
        assert!(!container.is_first_start(), "the last one has lived under the same");
        container.decide_anew(Response::Restart, container.limit, Response::Stop);
        assert!(container.is_first_start(), "it was promoted");
        breach_and_restart(&mut container, now);
        assert!(!container.is_first_start());
        container.decide_anew(Response::Restart, container.limit, Response::Stop);
        renewed(&mut container);
        assert!(!container.is_first_start(), "what was decided since does not undo the attack");
        let mut told = machine(Response::Report);
        told.note_attack();
        assert!(!told.is_first_start());
        let mut anew = machine(Response::Restart);
        anew.step(Input::Anew, now);
        anew.step(Input::Started, now);
        assert!(anew.is_first_start(), "its low-level runtime was refused something before the workload began");
    }

    #[test]
    fn a_generation_that_is_decided_anew_follows_at_once_and_counts_against_no_limit() {
        let mut machine = machine(Response::Restart);
        let now = Duration::from_secs(1);
        for _ in 0..50 {
            assert_eq!(machine.step(Input::Anew, now), [Effect::KillGeneration]);
            assert_eq!(machine.step(Input::BackoffOver, now), [Effect::BeginGeneration]);
            machine.step(Input::Started, now);
        }
        assert_eq!(breach_and_restart(&mut machine, now), [Effect::KillGeneration], "the limit is untouched");
        let mut created = Machine::new(Response::Stop, machine.limit, Response::Stop);
        assert_eq!(created.step(Input::Anew, now), [Effect::KillGeneration]);
        assert_eq!(created.phase, Phase::Backoff(now));
        machine.decide_anew(Response::Report, machine.limit, Response::Pause);
        assert!(breach(&mut machine, now).is_empty());
    }
}
