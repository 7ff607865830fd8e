//! The collector's loop: it sleeps until somebody speaks, init ends, or a window does.
//!
//! Owns: the order of things, and who is told. Must not: let a failure of one step keep another from being taken.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ground::Ground;
use super::life::{Life, Look, now};
use super::living::make_room;
use super::messages::{Reply, Request};
use super::presence;
use super::subject::{Purpose, Subject};
use super::tell::Teller;
use crate::events::clock;
use crate::profile::enforced::Enforced;
use crate::profile::steering::Steering;
use crate::profile::{Observation, Profile, Stage, store};
use crate::sys::signals::SignalFd;
use crate::sys::{memory, process, socket};

/// How long somebody who could say so may take to say that a generation has ended, once its init has.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// After the bell, what else is new at that moment is waited for, so that a storm of news is one look a second.
const COMPARE_AFTER: Duration = Duration::from_secs(1);
/// And a look that takes long is followed by a pause of so many times that: most of the processor stays the workload's.
const COMPARE_SPARINGLY: u32 = 20;
/// The bell is not listened to for so long after it rang, unless the table was filling: so that a workload that does new
/// things all the time wakes nobody more often.
const LISTEN_AFTER: Duration = Duration::from_millis(100);
/// The same while the table fills fast.
const LISTEN_SOON: Duration = Duration::from_millis(10);

/// Serves one container until its end, or the socket's.
pub(super) fn run(subject: Subject, socket: OwnedFd) {
    let unattended = subject.unattended;
    let teller = Teller::new(&subject);
    let ground = Ground::survey(subject);
    let mut collector = Collector {
        ground,
        teller,
        socket: Some(socket),
        life: None,
        last: None,
        items_before: None,
        profile: None,
        steering: Steering::default(),
        compare_at: None,
        look_took: Duration::ZERO,
        listen_at: None,
        prepared: false,
        unattended,
        closing: false,
    };
    let signals = SignalFd::all().ok();
    while !collector.closing {
        collector.step(signals.as_ref());
    }
    collector.finish_and_tell();
    if let Some(Err(error)) = collector.ground.leave() {
        collector.teller.degraded(&format!("{error:#}"));
    }
    collector.teller.flush();
}

struct Collector {
    ground: Ground,
    teller: Teller,
    socket: Option<OwnedFd>,
    life: Option<Life>,
    /// The last observation that was written, for an `end` that comes after its init's.
    last: Option<String>,
    /// How many items the profile had before this life's first observation was folded.
    items_before: Option<usize>,
    /// What is compared with: of a revision that is learnt, as it stood when this life began.
    profile: Option<Profile>,
    /// What somebody had decided when this life began.
    steering: Steering,
    /// The bell rang: when, since boot, what is new is to be compared.
    compare_at: Option<Duration>,
    /// The last look at what is new.
    look_took: Duration,
    /// The bell rang: from when on, since boot, it is listened to again.
    listen_at: Option<Duration>,
    /// What earlier collectors left has been seen to, or the profile that somebody named has been looked for.
    prepared: bool,
    unattended: bool,
    closing: bool,
}

/// What woke the loop.
#[derive(Default)]
struct Woken {
    socket: bool,
    signals: bool,
    init: bool,
    bell: bool,
}

impl Collector {
    /// What is seen is compared with a profile.
    fn is_observing(&self) -> bool {
        !self.folds() || self.profile.is_some()
    }

    /// What is seen becomes part of a profile, as far as that is not finished.
    fn folds(&self) -> bool {
        match self.ground.subject.purpose {
            Purpose::Learn | Purpose::Auto(_) => true,
            Purpose::Observe { .. } => false,
        }
    }

    fn step(&mut self, signals: Option<&SignalFd>) {
        let woken = self.sleep(signals);
        if woken.signals
            && let Some(signals) = signals
            && std::iter::from_fn(|| signals.next()).any(|received| received.signal == libc::SIGTERM)
        {
            self.closing = true;
            return;
        }
        if let Some(life) = self.life.as_mut().filter(|_| woken.init) {
            life.is_over();
        }
        if woken.bell {
            self.rang();
        }
        if woken.socket {
            self.hear();
        }
        self.pass();
    }

    /// Something came into the sensor's table: room is made where it fills, and if it may be news it is soon compared.
    fn rang(&mut self) {
        let news = self.is_observing() && self.compare_at.is_none();
        let Some(life) = &mut self.life else { return };
        let filling = life.rang(news);
        let now = now();
        self.listen_at = Some(now + if filling { LISTEN_SOON } else { LISTEN_AFTER });
        if news {
            self.compare_at = Some(now + COMPARE_AFTER.max(self.look_took * COMPARE_SPARINGLY));
        }
    }

    /// Until something happens, the next window begins, or the patience with whoever should say `end` does.
    fn sleep(&self, signals: Option<&SignalFd>) -> Woken {
        let init = self.life.as_ref().and_then(Life::init_ended);
        let bell = self.life.as_ref().filter(|_| self.listen_at.is_none()).and_then(Life::bell);
        let all = [self.socket.as_ref().map(AsFd::as_fd), signals.map(AsFd::as_fd), init, bell];
        let mut fds: Vec<PollFd<'_>> = all.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        let timeout = self.deadline().map_or(PollTimeout::NONE, |at| {
            // Rounded up, or the last fraction of a millisecond would be spent without sleep.
            let left = at.saturating_sub(now()).as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut fds, timeout).unwrap_or(0) <= 0 {
            return Woken::default();
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let mut next = |is_there: bool| is_there && ready.next().unwrap_or(false);
        let [socket, signals, init, bell] = all.map(|fd| next(fd.is_some()));
        Woken { socket, signals, init, bell }
    }

    fn deadline(&self) -> Option<Duration> {
        let life = self.life.as_ref()?;
        let patience = life.over.map(|over| over + END_PATIENCE);
        [Some(life.next_window()), patience, self.compare_at, self.listen_at].into_iter().flatten().min()
    }

    /// What is due by the clock.
    fn pass(&mut self) {
        let (unattended, interval) = (self.unattended, self.ground.subject.interval);
        let Some(life) = &mut self.life else { return };
        let now = now();
        self.listen_at = self.listen_at.filter(|at| now < *at);
        if life.over.is_some_and(|over| unattended || now >= over + END_PATIENCE) {
            self.finish_and_tell();
            self.closing = unattended;
            return;
        }
        let (ended, due) = life.turn(now, interval);
        let compares = self.is_observing() && (ended || self.compare_at.is_some_and(|at| now >= at));
        if due && self.folds() {
            self.write(Look::Whole);
        } else if compares {
            self.compare_at = None;
            self.observe(if ended { Look::Whole } else { Look::Quick });
        }
        if ended {
            self.tell_missing();
            settle_down();
        }
    }

    /// What nobody asks for an answer about.
    fn tell_missing(&mut self) {
        let missing = self.life.as_mut().map(Life::unsaid).unwrap_or_default();
        missing.iter().for_each(|reason| self.teller.degraded(reason));
    }

    fn hear(&mut self) {
        let Some(socket) = &self.socket else { return };
        let request = match socket::receive(socket.as_fd()) {
            Ok((message, _)) if !message.is_empty() => serde_json::from_slice::<Request>(&message),
            // Nobody is there any more.
            _ => {
                self.socket = None;
                // Where nobody was to stay, the life that was begun goes on.
                self.closing = !self.unattended || self.life.is_none();
                return;
            }
        };
        match request {
            Ok(Request::Arm { pid, generation }) => self.arm(pid, generation),
            Ok(Request::End {}) => {
                let (observation, degraded) = self.finish(true);
                let reply = Reply::Written { observation: observation.or(self.last.clone()), degraded };
                self.answer(&reply);
            }
            Err(error) => {
                // The two ends are of different versions: what was recorded so far is kept, and nobody is kept waiting.
                self.teller.degraded(&format!("failed to read a request: {error}; use one version of lithify"));
                self.socket = None;
                self.closing = true;
            }
        }
    }

    fn arm(&mut self, pid: i32, generation: u64) {
        if self.life.is_some() {
            self.finish_and_tell();
        }
        self.last = None;
        self.items_before = None;
        let mut life = Life::arm(&mut self.ground, pid, generation);
        let degraded = life.unsaid();
        self.answer(&Reply::Armed { degraded });
        life.settle(&mut self.ground);
        self.life = Some(life);
        let prepared = std::mem::replace(&mut self.prepared, true);
        match (self.folds(), prepared) {
            (true, prepared) => {
                if !prepared {
                    self.recover();
                }
                self.find_finished();
            }
            (false, false) => self.find_profile(),
            (false, true) => {}
        }
        self.tell_missing();
        settle_down();
    }

    fn answer(&mut self, reply: &Reply) {
        let reply = &reply.bounded();
        let sent = match (&self.socket, serde_json::to_vec(reply)) {
            (Some(socket), Ok(text)) => socket::send(socket.as_fd(), &text, &[]).is_ok(),
            _ => false,
        };
        if !sent {
            let (Reply::Armed { degraded } | Reply::Written { degraded, .. }) = reply;
            degraded.iter().for_each(|reason| self.teller.degraded(reason));
        }
    }

    /// Ends the life, if there is one: the last look, the document, its place in the profile. `asked`: whoever knows says
    /// that the generation has ended.
    fn finish(&mut self, asked: bool) -> (Option<String>, Vec<String>) {
        let Some(life) = &self.life else { return (None, Vec::new()) };
        let ended = asked || life.over.is_some();
        let written = if self.folds() {
            self.write(if ended { Look::Last } else { Look::Whole })
        } else {
            self.observe(Look::Whole);
            None
        };
        self.last.clone_from(&written);
        (written, self.life.take().map(Life::end).unwrap_or_default())
    }

    fn finish_and_tell(&mut self) {
        let (_, degraded) = self.finish(false);
        degraded.iter().for_each(|reason| self.teller.degraded(reason));
    }

    fn look(&mut self, look: Look) -> Option<Observation> {
        let life = self.life.as_mut()?;
        match life.observation(&mut self.ground, look) {
            Ok(observation) => {
                self.teller.forbidden(&observation, &self.steering);
                Some(observation)
            }
            Err(error) => {
                life.complain(&format!("{error:#}"));
                None
            }
        }
    }

    /// Writes the observation, folds it into its profile, and tells what is new beyond that; its id, if it is on disk.
    fn write(&mut self, look: Look) -> Option<String> {
        let observation = self.look(look)?;
        self.compare(&observation);
        let data_dir = &self.ground.subject.data_dir;
        let life = self.life.as_mut()?;
        if let Err(error) = store::write_observation(data_dir, &observation) {
            life.complain(&format!("{error:#}"));
            return None;
        }
        let digest = &observation.revision.digest;
        let count = |p: Profile| p.workload_behaviour.len() + p.exec_behaviour.len();
        let known = || store::read_profile(data_dir, &observation.workload, digest).ok().flatten().map_or(0, count);
        let items = *self.items_before.get_or_insert_with(known);
        let now = clock::format(clock::now_micros());
        let folded = match &self.ground.subject.purpose {
            Purpose::Auto(auto) => store::fold_by_rules(data_dir, &observation, auto, &now),
            Purpose::Learn | Purpose::Observe { .. } => {
                store::fold_observation(data_dir, &observation).map(|p| (p, None))
            }
        };
        match folded {
            Ok((profile, step)) => {
                if observation.ended && profile.generations.contains_key(&observation.id) {
                    self.teller.learnt(&observation, &profile, items);
                }
                self.teller.waits(&profile, &now);
                if let Some(step) = step {
                    self.teller.moved(&step, &profile, store::origin(data_dir, &profile).as_ref());
                }
            }
            Err(error) => life.complain(&format!("{error:#}")),
        }
        // Once learning is over, what this container goes on to do is told, though it is not held to it before its next start.
        self.find_finished();
        make_room(&self.ground.subject, &mut self.teller);
        Some(observation.id)
    }

    fn observe(&mut self, look: Look) {
        let began = now();
        self.look(look).iter().for_each(|observation| self.compare(observation));
        self.look_took = now().saturating_sub(began);
    }

    /// Tells what enforcing the profile would have refused.
    fn compare(&mut self, observation: &Observation) {
        let Some(profile) = &self.profile else { return };
        let (workload, exec) = (&observation.workload_behaviour, &observation.exec_behaviour);
        match Enforced::new(profile, self.ground.subject.exec) {
            Ok(enforced) => self.teller.would_refuse(&enforced.refuses(workload, exec), profile),
            Err(error) => self.teller.degraded(&format!("{error:#}")),
        }
    }

    /// A profile that learning is over for is what this life is compared with, though it may still grow by it.
    fn find_finished(&mut self) {
        let Subject { data_dir, workload, revision, .. } = &self.ground.subject;
        match store::read_profile(data_dir, workload, &revision.digest) {
            Ok(own) => {
                self.steering = own.as_ref().map(|own| own.steering.clone()).unwrap_or_default();
                self.profile = own.filter(|own| own.stage > Stage::Learning);
            }
            Err(error) => self.teller.degraded(&format!("{error:#}")),
        }
    }

    fn find_profile(&mut self) {
        match self.ground.profile() {
            Ok(Some(profile)) => (self.steering, self.profile) = (profile.steering.clone(), Some(profile)),
            Ok(None) => self.teller.has_no_profile(&self.ground.subject.workload),
            Err(error) => self.teller.degraded(&format!("{error:#}")),
        }
    }

    /// What earlier collectors of this workload did not live to fold.
    fn recover(&mut self) {
        let Ground { subject, .. } = &self.ground;
        let live = |o: &Observation| presence::is_alive(&subject.state_dir, &o.id);
        match store::recover(&subject.data_dir, &subject.workload, live) {
            Ok((folded, failed)) => {
                self.teller.recovered(folded);
                failed.iter().for_each(|error| self.teller.degraded(&format!("{error:#}")));
            }
            Err(error) => self.teller.degraded(&format!("{error:#}")),
        }
    }
}

/// A process that is to wait for months takes part in the node's memory with what it needs to wait.
fn settle_down() {
    process::trim_heap();
    memory::release_code();
}
