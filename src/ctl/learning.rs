//! How far learning has come, for `lithifyctl status`: what the profile of its revision (of a container under
//! another runtime: the workload's newest) says, and the observation that is
//! being made now. Must not: decide that learning is over.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::events::clock;
use crate::learn::presence::Entry;
use crate::policy::{Auto, Config, Mode, values, word};
use crate::profile::{Profile, Progress, Stage, stages, store};

/// How far the learning of one container's workload has come.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Learning {
    /// Whether somebody records this container at this moment.
    pub recording: bool,
    /// Windows of this generation that are on disk; more may have been seen since.
    pub windows: u32,
    /// The workload's newest profile, where it has one.
    pub profile: Option<Newest>,
    /// Why it can't be read.
    pub error: Option<String>,
    /// Longest time until what is seen is saved.
    #[serde(skip)]
    pub interval: Duration,
}

/// What there is to say of a profile in one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Newest {
    /// Revision.
    pub digest: String,
    /// Stage.
    pub stage: Stage,
    /// Lives that went into it.
    pub generations: usize,
    /// How sure it is.
    pub progress: Progress,
    /// What it waits for before it moves on by itself, in words.
    pub waits_for: Option<String>,
    /// Once it is enforced, the container that is enforced before the others are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
}

impl Newest {
    fn of(profile: &Profile, auto: &Auto) -> Newest {
        Newest {
            digest: profile.revision.digest.clone(),
            stage: profile.stage,
            generations: profile.generations.len(),
            progress: Progress::of(profile),
            waits_for: stages::waits_for(profile, auto),
            leader: stages::leader(profile, auto, clock::now_micros()).map(str::to_owned),
        }
    }
}

impl Learning {
    /// Of a workload, or one revision of it, and of the container with this collector.
    pub fn of(config: &Config, workload: &str, revision: Option<&str>, collector: Option<&Entry>) -> Learning {
        let data_dir = &config.data_dir;
        let current =
            collector.and_then(|c| store::read_observation(data_dir, workload, &c.observation).ok().flatten());
        let own = revision.and_then(|digest| store::read_profile(data_dir, workload, digest).transpose());
        let (profile, error) = match own.map_or_else(|| store::newest_profile(data_dir, workload), |own| own.map(Some))
        {
            Ok(profile) => (profile.as_ref().map(|profile| Newest::of(profile, &config.auto)), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        Learning {
            recording: collector.is_some(),
            windows: current.map_or(0, |o| o.windows),
            profile,
            error,
            interval: config.learning.interval,
        }
    }

    /// In words; `mode` is the container's, where it is known; `auto`: it follows from the profile, and what that waits for
    /// is said.
    pub fn text(&self, mode: Mode, auto: bool) -> String {
        let doing = match (mode, self.recording) {
            (Mode::Observe, true) => "observing".to_owned(),
            (_, true) => "learning".to_owned(),
            (mode, false) => format!("{}, but nobody records", word(&mode)),
        };
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        match (&self.profile, &self.error) {
            (_, Some(error)) => format!("{doing}; profile UNREADABLE: {error}"),
            (None, None) if self.windows == 0 => {
                let interval = values::show_duration(self.interval);
                format!("{doing}; no profile yet: it is saved every {interval}, and when the container ends")
            }
            (None, None) => {
                format!("{doing}; no profile yet, {} window{} so far", self.windows, plural(self.windows as usize))
            }
            (Some(newest), None) => {
                let Newest { stage, generations, progress, waits_for, leader, .. } = newest;
                let waits = waits_for.as_ref().filter(|_| auto);
                let mut waits = waits.map_or(String::new(), |waits| format!("; waits for {waits}"));
                if auto && *stage == Stage::Enforcing {
                    waits.push_str(&match leader {
                        None => "; enforced from its next start on".to_owned(),
                        Some(leader) => format!("; container {} is enforced first", leader.get(..12).unwrap_or(leader)),
                    });
                }
                let windows = progress.next_window.total;
                let partial = if progress.partial.is_empty() { "" } else { ", partial" };
                format!(
                    "{doing}; profile {}{partial}: {generations} generation{}, {windows} window{}; {progress}{waits}",
                    word(stage),
                    plural(*generations),
                    plural(windows as usize)
                )
            }
        }
    }
}

/// A collector of a container that does not run under lithify: its line of `status`.
pub fn row(config: &Config, entry: &Entry) -> [String; 10] {
    let mut row = ["-"; 10].map(String::from);
    row[0] = entry.container.chars().take(12).collect();
    row[1] = entry.workload.clone();
    row[2] = "learning (set)".to_owned();
    row[3] = "engine".to_owned();
    row[9] = format!(
        "not under lithify, {}",
        Learning::of(config, &entry.workload, None, Some(entry)).text(Mode::Learn, false)
    );
    row
}

/// The same as JSON.
pub fn as_json(config: &Config, entry: &Entry) -> Value {
    json!({
        "protected": false,
        "collector": entry,
        "learning": Learning::of(config, &entry.workload, None, Some(entry)),
    })
}
