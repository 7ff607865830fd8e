//! Deciding anew for each generation of one container, in its supervisor's process.
//!
//! Owns: when there is anything to decide. Must not: touch the container; what holds is [`Seat::decide`]'s to say.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};

use super::lived;
use super::seat::{Seat, Settled};
use crate::events::clock;
use crate::guard::{Refusal, Refused};
use crate::policy::Mode;
use crate::profile::stages::{DEMOTED, was_demoted};
use crate::profile::steering::Decision;
use crate::profile::{Stage, items, moved, stages, store};
use crate::runtime::needs;
use crate::supervise::director::{Decided, Director};

/// A file's identity and time: one that was replaced differs.
type Mark = Option<(u64, u64, i64, i64, u64)>;

/// One container's director.
#[derive(Debug)]
pub(super) struct Desk {
    seat: Seat,
    /// What holds now.
    settled: Settled,
    /// The profile's file when that was decided.
    mark: Mark,
    /// Somebody records what the container does.
    has_companion: bool,
    /// When this life of it began, in microseconds since 1970.
    began_micros: i64,
    /// What it was refused and others were held back for, at most [`MOST_HELD_BACK`].
    held_back: BTreeSet<String>,
}

/// One is enough for somebody to look; a flood is no reason to write the profile for each.
const MOST_HELD_BACK: usize = 16;

impl Desk {
    pub(super) fn new(seat: Seat, settled: Settled, mark: Mark, has_companion: bool) -> Desk {
        Desk { seat, settled, mark, has_companion, began_micros: clock::now_micros(), held_back: BTreeSet::new() }
    }

    fn settle(&mut self) -> Result<Option<Decided>> {
        let mark = mark(&self.seat);
        let settled = self.seat.decide()?;
        self.mark = mark;
        if settled == self.settled {
            return Ok(None);
        }
        self.settled = settled.clone();
        let Settled { policy, config, limits, mut remarks, .. } = settled;
        let mut companion = None;
        match policy.mode {
            Mode::Learn | Mode::Observe if !self.has_companion => {
                let (socket, missing) = self.seat.companion(&policy, true);
                self.has_companion = socket.is_some();
                companion = socket;
                remarks.degraded.extend(missing);
            }
            Mode::Learn | Mode::Observe => {}
            // It is ended with the mode that had it.
            Mode::Off | Mode::Auto | Mode::Enforce => self.has_companion = false,
        }
        Ok(Some(Decided { policy, config, limits, companion, remarks }))
    }
}

/// Marks the profile that decides about a container; to be taken before it is read.
pub(super) fn mark(seat: &Seat) -> Mark {
    let path = store::profile_path(&seat.config.data_dir, &seat.workload, &seat.revision.digest);
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

impl Director for Desk {
    fn next(&mut self) -> Result<Option<Decided>> {
        // One that somebody named may be in any file.
        let is_elsewhere = self.settled.policy.profile.is_some();
        if !self.settled.waits && !is_elsewhere && mark(&self.seat) == self.mark {
            return Ok(None);
        }
        self.settle()
    }

    fn demote(&mut self, refusal: &Refusal) -> Result<bool> {
        if !self.settled.policy.auto {
            return Ok(false);
        }
        let Seat { config, workload, revision, id, .. } = &self.seat;
        // An update that does not start has no past; a service that somebody has ended has.
        let profile = format!("{workload}/{}", revision.digest);
        if lived::has_lived(&config.data_dir, &profile, id, self.began_micros)? {
            return Ok(false);
        }
        let now = clock::format(clock::now_micros());
        let why = format!("{DEMOTED} {} ({})", in_words(&refusal.refused), refusal.program);
        let why: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
        let mut step = None;
        let profile = store::update_profile(&config.data_dir, workload, &revision.digest, |old| {
            let mut profile = old.context("it was removed in the meantime")?;
            if profile.stage == Stage::Enforcing && !profile.steering.held && !was_demoted(&profile) {
                step = Some(profile.step(Stage::Observing, &why, &now));
                profile.steering.demoted = Some(Decision { at: now.clone(), why: why.clone() });
            }
            Ok(profile)
        })
        .context("failed to demote the profile")?;
        if let Some(step) = &step {
            let event = moved::event(&self.seat.id, step, &profile, None);
            self.seat.tell(event.with("refusal", serde_json::to_value(refusal).unwrap_or_default()));
        }
        // Another replica may have done it before.
        Ok(profile.stage < Stage::Enforcing)
    }

    fn refused(&mut self, refusal: &Refusal) -> Result<()> {
        let Seat { config, workload, revision, id, .. } = &self.seat;
        let item = items::of_refused(&refusal.refused).filter(|item| !self.held_back.contains(item));
        let (true, Some(item)) = (self.settled.policy.auto && !config.auto.canary_for.is_zero(), item) else {
            return Ok(());
        };
        if self.held_back.len() >= MOST_HELD_BACK {
            return Ok(());
        }
        let now = clock::format(clock::now_micros());
        let mut is_news = false;
        let profile = store::update_profile(&config.data_dir, workload, &revision.digest, |old| {
            let mut profile = old.context("it was removed in the meantime")?;
            is_news = stages::refused_first(&mut profile, id, &item, &config.auto, &now);
            Ok(profile)
        })
        .context("failed to write down what the replica that goes first was refused")?;
        if is_news {
            self.seat.tell(moved::waits(id, &profile, &[item.as_str()]));
        }
        self.held_back.insert(item);
        Ok(())
    }

    fn recalibrate(&mut self) -> Result<Option<Decided>> {
        let Some(known) = &self.settled.needs else { return Ok(None) };
        let measured = needs::measure(&self.seat.runtime, &self.seat.config.data_dir)?;
        let is_same = |no_new_privileges| measured.names(no_new_privileges).eq(known.names(no_new_privileges));
        if is_same(true) && is_same(false) && measured.listener == known.listener {
            return Ok(None);
        }
        self.settle()
    }
}

fn in_words(refused: &Refused) -> String {
    match refused {
        Refused::Syscall { name, path: Some(path), .. } => format!("syscall {name} of {path}"),
        Refused::Syscall { name, path: None, .. } => format!("syscall {name}"),
        Refused::Write { path, operation, .. } => format!("write ({operation}) {path}"),
        Refused::Capability { name } => format!("capability {name}"),
        Refused::Program { path, origin, .. } => format!("program {path} from {origin}"),
    }
}
