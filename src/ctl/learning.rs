//! How far learning has come, for `lithifyctl status`: what the workload's newest profile says, and the observation that is
//! being made now. Must not: decide that learning is over.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::learn::presence::Entry;
use crate::policy::{Mode, word};
use crate::profile::{Profile, Progress, Stage, store};

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
}

impl Newest {
    fn of(profile: &Profile) -> Newest {
        Newest {
            digest: profile.revision.digest.clone(),
            stage: profile.stage,
            generations: profile.generations.len(),
            progress: Progress::of(profile),
        }
    }
}

impl Learning {
    /// Of a workload, and of the container with this collector.
    pub fn of(data_dir: &Path, workload: &str, collector: Option<&Entry>) -> Learning {
        let current =
            collector.and_then(|c| store::read_observation(data_dir, workload, &c.observation).ok().flatten());
        let (profile, error) = match store::newest_profile(data_dir, workload) {
            Ok(profile) => (profile.as_ref().map(Newest::of), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        Learning { recording: collector.is_some(), windows: current.map_or(0, |o| o.windows), profile, error }
    }

    /// In words; `mode` is the container's, where it is known.
    pub fn text(&self, mode: Mode) -> String {
        let doing = match (mode, self.recording) {
            (Mode::Observe, true) => "observing".to_owned(),
            (_, true) => "learning".to_owned(),
            (mode, false) => format!("{}, but nobody records", word(&mode)),
        };
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        match (&self.profile, &self.error) {
            (_, Some(error)) => format!("{doing}; profile UNREADABLE: {error}"),
            (None, None) if self.windows == 0 => format!("{doing}; no profile yet"),
            (None, None) => {
                format!("{doing}; no profile yet, {} window{} so far", self.windows, plural(self.windows as usize))
            }
            (Some(newest), None) => {
                let Newest { stage, generations, progress, .. } = newest;
                let windows = progress.next_window.total;
                let partial = if progress.partial.is_empty() { "" } else { ", partial" };
                format!(
                    "{doing}; profile {}{partial}: {generations} generation{}, {windows} window{}; {progress}",
                    word(stage),
                    plural(*generations),
                    plural(windows as usize)
                )
            }
        }
    }
}

/// A collector of a container that does not run under lithify: its line of `status`.
pub fn row(data_dir: &Path, entry: &Entry) -> [String; 9] {
    let mut row = ["-"; 9].map(String::from);
    row[0] = entry.container.chars().take(12).collect();
    row[1] = entry.workload.clone();
    row[2] = "engine".to_owned();
    row[8] = format!("not under lithify, {}", Learning::of(data_dir, &entry.workload, Some(entry)).text(Mode::Learn));
    row
}

/// The same as JSON.
pub fn as_json(data_dir: &Path, entry: &Entry) -> Value {
    json!({
        "protected": false,
        "collector": entry,
        "learning": Learning::of(data_dir, &entry.workload, Some(entry)),
    })
}
