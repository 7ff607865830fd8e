//! Where a profile goes from learning to enforcing, and what a container that starts makes of where it is.
//!
//! Owns: those decisions. Pure: values in, values out, no clock, no files. Must not: carry any of them out.
//!
//! | from | to | when |
//! | --- | --- | --- |
//! | learning | observing | the chance of something new in the next window is within the risk, over enough generations seen in full, and one of them lived through its start-up |
//! | observing | enforcing | enough generations began after the last new thing, lived through their start-up and showed nothing new, in enough windows with work in them; the first row still holds; and nothing waits for somebody to look at it |
//! | enforcing | observing | a start-up was refused something that an honest one might need (once); or somebody says so |
//!
//! Each holds from a container's next generation on. What somebody holds, and what was demoted, does not move by itself; nor does
//! what a new revision begins with, where it begins with what was demoted.

use super::beyond::{Side, beyond};
use super::document::{Generation, Profile, Stage};
use super::doubtful::{decision_wanted, doubtful, never_learnt};
use super::estimate::{Progress, UNSEEN_EVERYTHING};
use super::observation::{Loss, Observation};
use super::revision::Revision;
use super::steering::{Canary, Decision, Quiet, Steering, Step};
use crate::events::clock;
use crate::policy::{Auto, Mode};

/// What a container that starts makes of its profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// What it does becomes part of its profile.
    Learn,
    /// What goes beyond its profile is told.
    Observe,
    /// So it is, and its profile begins as a copy of the workload's newest one.
    Candidate,
    /// Its root does not change, and nothing else is enforced; why.
    Immutable(String),
    /// What goes beyond its profile is refused.
    Enforce,
    /// It does, while the others of its revision wait: to be written down.
    Lead,
    /// The replica with this id enforces before this one does.
    Follow(String),
}

/// Whatever decides beside the mode.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The profile of the container's revision.
    pub own: Option<&'a Profile>,
    /// The profile of another revision of its workload, where its own has none: one that is past learning, if there is any.
    pub sibling: Option<&'a Profile>,
    /// Nothing that is learnt would mean anything: a pod's pause container.
    pub is_sandbox: bool,
    /// The container's id.
    pub container: &'a str,
    /// Ids of the other containers of its revision that live on this node.
    pub replicas: &'a [String],
    /// Microseconds since 1970.
    pub now_micros: i64,
}

/// What a container that starts in this mode does; `None` for modes in which its profile decides nothing.
pub fn at_start(mode: Mode, situation: &Situation<'_>, auto: &Auto) -> Option<Start> {
    let immutable = |why: &str| Some(Start::Immutable(why.to_owned()));
    match (mode, situation.own) {
        (Mode::Off | Mode::Learn | Mode::Observe, _) => None,
        (Mode::Auto | Mode::Enforce, _) if situation.is_sandbox => {
            immutable("a pause container does nothing to learn from")
        }
        (Mode::Auto, None) => Some(match situation.sibling {
            Some(sibling) if sibling.stage > Stage::Learning => Start::Candidate,
            Some(_) | None => Start::Learn,
        }),
        (Mode::Auto, Some(own)) => Some(match own.stage {
            Stage::Learning => Start::Learn,
            Stage::Observing => Start::Observe,
            Stage::Enforcing => turn(&own.steering, situation, auto),
        }),
        (Mode::Enforce, None) => immutable("its revision has no profile"),
        (Mode::Enforce, Some(own)) if own.stage == Stage::Learning && !is_complete(own, auto) => {
            immutable("its profile still learns")
        }
        (Mode::Enforce, Some(_)) => Some(Start::Enforce),
    }
}

/// How long a container may take from its decision until it is listed among those that live, in microseconds.
const STARTING_MICROS: i64 = 30_000_000;

/// Whose turn it is to enforce.
fn turn(steering: &Steering, situation: &Situation<'_>, auto: &Auto) -> Start {
    let now_micros = situation.now_micros;
    if auto.canary_for.is_zero() {
        return Start::Enforce;
    }
    let Some(canary) = &steering.canary else { return Start::Lead };
    let Canary { container, since, refused } = canary;
    if container == situation.container {
        return Start::Enforce;
    }
    if *refused && !steering.waiting.is_empty() {
        return Start::Follow(container.clone());
    }
    if !is_first(canary, auto, now_micros) {
        return Start::Enforce;
    }
    let began = clock::parse(since).unwrap_or(now_micros);
    let is_young = now_micros.saturating_sub(began) < STARTING_MICROS;
    // One that is gone has shown nothing.
    match is_young || situation.replicas.contains(container) {
        true => Start::Follow(container.clone()),
        false => Start::Lead,
    }
}

/// Whether the time in which this replica alone enforces is not over.
fn is_first(canary: &Canary, auto: &Auto, now_micros: i64) -> bool {
    let wanted = i64::try_from(auto.canary_for.as_micros()).unwrap_or(i64::MAX);
    let began = clock::parse(&canary.since).unwrap_or(now_micros);
    now_micros.saturating_sub(began) < wanted
}

/// The replica for which those of an enforced profile wait that are not enforced yet, where they do.
pub fn leader<'p>(profile: &'p Profile, auto: &Auto, now_micros: i64) -> Option<&'p str> {
    let Steering { canary, waiting, .. } = &profile.steering;
    let canary = canary.as_ref().filter(|_| profile.stage == Stage::Enforcing && !auto.canary_for.is_zero())?;
    let holds = canary.refused && !waiting.is_empty() || is_first(canary, auto, now_micros);
    holds.then_some(canary.container.as_str())
}

/// A container was refused an item that an honest workload might need. Where it is the replica that goes first, the others do
/// not follow until somebody has looked; true if that is news. It itself stays enforced. `now`: RFC 3339, UTC.
pub fn refused_first(profile: &mut Profile, container: &str, item: &str, auto: &Auto, now: &str) -> bool {
    let Steering { canary, waiting, .. } = &profile.steering;
    let goes_first = |canary: &&Canary| {
        canary.container == container && is_first(canary, auto, clock::parse(now).unwrap_or(i64::MAX))
    };
    let is_known = waiting.contains_key(item) || profile.steering.is_decided(item);
    if profile.stage != Stage::Enforcing || is_known || canary.as_ref().filter(goes_first).is_none() {
        return false;
    }
    let why = "the replica that enforces first was refused it".to_owned();
    profile.steering.wait_for([(item.to_owned(), Decision { at: now.to_owned(), why })].into());
    profile.steering.canary.iter_mut().for_each(|canary| canary.refused = true);
    true
}

/// What the reason of a demotion begins with.
pub const DEMOTED: &str = "a start-up was refused";

/// Whether it returned to being observed once already; it does so only once by itself.
pub fn was_demoted(profile: &Profile) -> bool {
    profile.steering.demoted.is_some() || profile.steering.history.iter().any(is_demotion)
}

fn is_demotion(step: &Step) -> bool {
    step.to < step.from && step.why.starts_with(DEMOTED)
}

/// Enough was seen for nothing new to be likely.
pub fn is_complete(profile: &Profile, auto: &Auto) -> bool {
    Progress::of(profile).is_complete(f64::from(auto.risk_ppm) / 1e6, u64::from(auto.generations))
}

/// What a profile waits for before it moves by itself, in words; `None`: nothing, or it does not move.
pub fn waits_for(profile: &Profile, auto: &Auto) -> Option<String> {
    let Steering { held, demoted, quiet, waiting, .. } = &profile.steering;
    match (profile.stage, demoted) {
        (Stage::Enforcing, _) => return (!waiting.is_empty()).then(|| decision_wanted(profile)),
        _ if *held => return Some("somebody to release it: it is held".to_owned()),
        (_, Some(demoted)) => return Some(format!("somebody to promote it: {}", demoted.why)),
        (Stage::Learning | Stage::Observing, None) => {}
    }
    if profile.stage == Stage::Observing && !waiting.is_empty() {
        return Some(decision_wanted(profile));
    }
    let progress = Progress::of(profile);
    let mut wants = Vec::new();
    let plural = |n: u64, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let more = u64::from(auto.generations).saturating_sub(progress.next_start.total);
    if more > 0 {
        wants.push(plural(more, "more generation"));
    }
    let risk = f64::from(auto.risk_ppm) / 1e6;
    if progress.next_window.bound > risk {
        let windows = plural(progress.next_window.missing(risk), "more window");
        let length = progress.window_seconds.map_or(String::new(), |seconds| format!(" of {seconds} s"));
        wants.push(format!("a chance of something new under {} % ({windows}{length} with work in them)", risk * 100.0));
    }
    if !progress.seen_in_full {
        wants.push("all to be seen in full".to_owned());
    }
    if profile.stage == Stage::Learning && !profile.generations.values().any(|g| lived(g, auto)) {
        wants.push("a full start-up".to_owned());
    }
    if profile.stage == Stage::Observing {
        let (generations, windows) = quiet.as_ref().map_or((0, 0), seen);
        let more = u64::from(auto.observe_generations).saturating_sub(generations);
        if more > 0 {
            wants.push(format!("{} with nothing new", plural(more, "generation")));
        }
        let more = u64::from(auto.observe_windows).saturating_sub(windows);
        if more > 0 {
            let length = progress.window_seconds.map_or(String::new(), |seconds| format!(" of {seconds} s"));
            wants.push(format!("{}{length} with work and nothing new in them", plural(more, "window")));
        }
    }
    (!wants.is_empty()).then(|| wants.join(", "))
}

/// A profile after `observation` was folded into it; `before` is what it was. The step that it takes, where it takes one.
/// `now`: RFC 3339, UTC.
pub fn after_fold(
    before: Option<&Profile>,
    mut profile: Profile,
    observation: &Observation,
    auto: &Auto,
    now: &str,
) -> (Profile, Option<Step>) {
    if let Some(before) = before.filter(|_| profile.stage > Stage::Learning) {
        let doubts = doubtful(before, observation, auto).into_iter();
        profile.steering.wait_for(doubts.map(|(item, why)| (item, Decision { at: now.to_owned(), why })).collect());
    }
    if profile.stage == Stage::Observing {
        let is_new = before.is_none_or(|before| {
            let all = beyond(before, &observation.workload_behaviour, &observation.exec_behaviour);
            // What people do in sessions follows no law; what is new there becomes part of the profile, and no more.
            all.iter().any(|b| b.side == Side::Workload)
        });
        let quiet = profile.steering.quiet.get_or_insert_with(|| Quiet { since: now.to_owned(), ..Quiet::default() });
        let generation = profile.generations.get(&observation.id);
        if is_new {
            *quiet = Quiet { since: now.to_owned(), ..Quiet::default() };
        } else if let Some(generation) = generation.filter(|g| g.started >= quiet.since && lived(g, auto)) {
            quiet.generations.insert(observation.id.clone(), generation.windows);
        }
    }
    let step = due(&profile, auto).map(|(to, why)| profile.step(to, &why, now));
    (profile, step)
}

/// The stage that is due, and why.
fn due(profile: &Profile, auto: &Auto) -> Option<(Stage, String)> {
    let Steering { held, demoted, quiet, waiting, .. } = &profile.steering;
    if *held || demoted.is_some() || !is_complete(profile, auto) {
        return None;
    }
    let sentence = Progress::of(profile).to_string();
    match profile.stage {
        Stage::Learning if profile.generations.values().any(|g| lived(g, auto)) => {
            let count = profile.generations.len();
            Some((Stage::Observing, format!("after {count} generations, {sentence}")))
        }
        Stage::Observing => {
            if !waiting.is_empty() {
                return None;
            }
            let quiet = quiet.as_ref()?;
            let (count, windows) = seen(quiet);
            if count < u64::from(auto.observe_generations) || windows < u64::from(auto.observe_windows) {
                return None;
            }
            let generations = if count == 1 { "1 generation".to_owned() } else { format!("{count} generations") };
            let why =
                format!("{generations} showed nothing new since {}, in {windows} windows, and {sentence}", quiet.since);
            Some((Stage::Enforcing, why))
        }
        Stage::Learning | Stage::Enforcing => None,
    }
}

/// How many generations showed nothing new, and in how many windows.
fn seen(quiet: &Quiet) -> (u64, u64) {
    (quiet.generations.len() as u64, quiet.generations.values().map(|&windows| u64::from(windows)).sum())
}

/// It went through its start-up, and all of that could be seen.
fn lived(generation: &Generation, auto: &Auto) -> bool {
    let in_full = generation.loss == Loss::default() && !generation.unseen.contains(UNSEEN_EVERYTHING);
    let micros = |time: &str| clock::parse(time).unwrap_or(0);
    let age = micros(&generation.until).saturating_sub(micros(&generation.started));
    in_full && age >= i64::try_from(auto.startup.as_micros()).unwrap_or(i64::MAX)
}

/// The profile of a revision that nobody has seen yet: what the workload was seen to do before, to be observed anew. Where
/// somebody is to look at a demotion first, they still are: what was done since is in the copy. Of a long past it has so much as
/// matters. `now`: RFC 3339, UTC.
pub fn candidate(newest: &Profile, revision: Revision, now: &str) -> Profile {
    let mut why = format!("a new revision begins with what {} was seen to do", newest.revision.digest);
    let demoted = newest.steering.demoted.clone();
    let mut history = Vec::new();
    if let Some(demoted) = &demoted {
        why.push_str(&format!(", which waits for somebody to promote it: {}", demoted.why));
        history.extend(newest.steering.history.iter().filter(|step| is_demotion(step)).cloned());
    }
    let step = Step { at: now.to_owned(), from: Stage::Learning, to: Stage::Observing, why };
    history.push(step);
    let steering = Steering {
        demoted,
        candidate: Some(newest.revision.digest.clone()),
        allowed: newest.steering.allowed.clone(),
        denied: newest.steering.denied.clone(),
        waiting: newest.steering.waiting.clone(),
        quiet: Some(Quiet { since: now.to_owned(), ..Quiet::default() }),
        history,
        ..Steering::default()
    };
    // What was forbidden before is known as well: it is no news that somebody would have to look at.
    let mut copy = Profile { revision, stage: Stage::Observing, steering, ..newest.clone() };
    copy.shorten();
    copy
}

/// In what two revisions differ, by the names of their fields.
pub fn differing(a: &Revision, b: &Revision) -> Vec<&'static str> {
    let pairs = [
        ("image", a.image != b.image),
        ("args", a.args != b.args),
        ("env", a.env != b.env),
        ("mounts", a.mounts != b.mounts),
        ("user", a.user != b.user),
        ("capabilities", a.capabilities != b.capabilities),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

impl Profile {
    /// Moves to a stage, and writes down why. What belonged to the old one is over.
    pub fn step(&mut self, to: Stage, why: &str, now: &str) -> Step {
        let step = Step { at: now.to_owned(), from: self.stage, to, why: why.to_owned() };
        self.stage = to;
        self.steering.canary = None;
        match to {
            // Whoever moves it here has looked.
            Stage::Enforcing => self.steering.waiting.clear(),
            Stage::Observing if step.from == Stage::Learning => {
                let doubts = never_learnt(self).into_iter();
                let at = |why| Decision { at: now.to_owned(), why };
                self.steering.wait_for(doubts.map(|(item, why)| (item, at(why))).collect());
            }
            Stage::Learning | Stage::Observing => {}
        }
        self.steering.quiet = (to == Stage::Observing).then(|| Quiet { since: now.to_owned(), ..Quiet::default() });
        self.steering.remember(step.clone());
        step
    }
}

#[cfg(test)]
mod tests;
