//! Recording that never stops its caller: what the journal can't take is kept, counted, and told afterwards.
//!
//! Owns: the events that wait. Must not: block, or grow without bound.

use std::collections::{BTreeMap, VecDeque};

use super::clock;
use super::journal::{Durability, Journal};
use super::{Event, EventType};

/// Most events that wait in memory.
pub const MAX_KEPT: usize = 256;

/// A journal, and what it still owes.
#[derive(Debug)]
pub struct Recorder {
    journal: Journal,
    subject: String,
    kept: VecDeque<(Event, Durability)>,
    gap: Option<Gap>,
}

/// A time in which events could not be saved.
#[derive(Debug)]
struct Gap {
    from: i64,
    to: i64,
    lost: u64,
    delayed: u64,
    cause: String,
}

/// Where an event is after [`Recorder::record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// In the journal, as durable as was asked.
    Saved,
    /// In memory; the next success writes it.
    Kept,
    /// Gone, but counted: memory is full as well.
    Lost,
}

impl Recorder {
    /// Records for one container; `subject` is its id, under which a gap is told.
    pub fn new(journal: Journal, subject: &str) -> Recorder {
        Recorder { journal, subject: subject.to_string(), kept: VecDeque::new(), gap: None }
    }

    /// Saves an event, or keeps it. Earlier ones that wait go first, then `dev.lithify.watch.degraded` with `reason`
    /// `journal`, `lost` (how many events are gone), `delayed` (how many were written late), `from`, `to` and `cause`.
    pub fn record(&mut self, event: Event, durability: Durability) -> Recorded {
        if self.flush() {
            match self.journal.append(&event, durability) {
                Ok(()) => return Recorded::Saved,
                Err(e) => self.failed(&e),
            }
        }
        self.keep(event, durability)
    }

    /// Writes what waits; true when nothing is owed any more. Worth a call before the process ends.
    pub fn flush(&mut self) -> bool {
        while let Some((event, durability)) = self.kept.front() {
            if let Err(e) = self.journal.append(event, *durability) {
                self.failed(&e);
                return false;
            }
            self.kept.pop_front();
        }
        let Some(gap) = &self.gap else { return true };
        let told = Event::new(EventType::Degraded, &self.subject, BTreeMap::new())
            .with("reason", "journal")
            .with("lost", gap.lost)
            .with("delayed", gap.delayed)
            .with("from", clock::format(gap.from))
            .with("to", clock::format(gap.to))
            .with("cause", gap.cause.as_str());
        match self.journal.append(&told, Durability::Synced) {
            Ok(()) => {
                self.gap = None;
                true
            }
            Err(e) => {
                self.failed(&e);
                false
            }
        }
    }

    /// How many events wait.
    pub fn waiting(&self) -> usize {
        self.kept.len()
    }

    /// Why the journal does not take events at the moment, for `Record::degraded`.
    pub fn trouble(&self) -> Option<&str> {
        self.gap.as_ref().map(|gap| gap.cause.as_str())
    }

    fn failed(&mut self, error: &anyhow::Error) {
        let now = clock::now_micros();
        let gap = self.gap.get_or_insert_with(|| Gap { from: now, to: now, lost: 0, delayed: 0, cause: String::new() });
        gap.to = now;
        gap.cause = format!("{error:#}");
    }

    /// The oldest are kept rather than the newest: how an attack began tells more than its repetitions.
    fn keep(&mut self, event: Event, durability: Durability) -> Recorded {
        let Some(gap) = &mut self.gap else { return Recorded::Lost };
        if self.kept.len() < MAX_KEPT {
            gap.delayed += 1;
            self.kept.push_back((event, durability));
            return Recorded::Kept;
        }
        gap.lost += 1;
        Recorded::Lost
    }
}
