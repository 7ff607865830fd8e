//! Coalescing: a storm of changes becomes few events, with exact counts, and ever fewer while it goes on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::pace::{NAMED, Pace};
use crate::watch::{Change, ChangeKind};

/// Changes that have been seen and not told yet.
#[derive(Debug, Default)]
pub struct Storm {
    pace: Pace,
    /// In the order in which they were first seen; few enough to be searched.
    seen: Vec<(u64, Change)>,
    unnamed: u64,
    total: u64,
}

/// What an event tells of a storm.
#[derive(Debug)]
pub struct Summary {
    /// The first ones that were seen, in that order, each with how often it was.
    pub named: Vec<(u64, Change)>,
    /// Changes beyond those.
    pub unnamed: u64,
    /// All.
    pub total: u64,
}

impl Storm {
    /// Takes changes in. True when they are to be told now, false when a window is open that will gather them.
    pub fn add(&mut self, changes: Vec<Change>, now: Duration) -> bool {
        for change in changes {
            self.total += 1;
            let same = |c: &Change| c.kind == change.kind && c.path == change.path;
            if let Some(entry) = self.seen.iter_mut().find(|(_, c)| same(c)) {
                entry.0 += 1;
            } else if self.seen.len() < NAMED {
                self.seen.push((1, change));
            } else {
                self.unnamed += 1;
            }
        }
        self.total > 0 && self.pace.allows(now)
    }

    /// Whether there is anything to tell.
    pub fn has_changes(&self) -> bool {
        self.total > 0
    }

    /// Whether one of them is in the container, and not only in the engine's upper.
    pub fn has_landed(&self) -> bool {
        self.seen.iter().any(|(_, change)| change.kind != ChangeKind::HostWrite)
    }

    /// Takes out what is to be told, and opens a window. `None` when there is nothing.
    pub fn take(&mut self, now: Duration) -> Option<Summary> {
        if self.total == 0 {
            return None;
        }
        self.pace.tell(now);
        let mut named = std::mem::take(&mut self.seen);
        let left_out: u64 = named.drain(self.pace.room().min(named.len())..).map(|(count, _)| count).sum();
        self.unnamed += left_out;
        let summary = Summary { named, unnamed: self.unnamed, total: self.total };
        (self.unnamed, self.total) = (0, 0);
        Some(summary)
    }

    /// When the open window ends, if changes wait for that.
    pub fn due(&self) -> Option<Duration> {
        self.pace.until().filter(|_| self.total > 0)
    }
}

/// The paths that changes name.
pub fn paths_of(changes: &[Change]) -> impl Iterator<Item = PathBuf> {
    changes.iter().flat_map(|change| [Some(change.path.clone()), change.old_path()]).flatten()
}

/// Leaves out what has been told, and the new time of a directory in which something was told to have changed.
pub fn leave_out(changes: &mut Vec<Change>, told: &HashSet<PathBuf>) {
    // A rename's old path was told as text.
    let is_told = |c: &Change| told.contains(&c.path) || told.contains(Path::new(&*c.path.to_string_lossy()));
    let is_around = |c: &Change| {
        let text = PathBuf::from(&*c.path.to_string_lossy());
        let below = |path: &PathBuf| path.parent().is_some_and(|p| p.starts_with(&c.path) || p.starts_with(&text));
        c.kind == ChangeKind::Attributes && told.iter().any(below)
    };
    changes.retain(|c| !is_told(c) && !is_around(c));
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::super::pace::FIRST;
    use super::*;

    fn change(path: &str) -> Change {
        Change { kind: ChangeKind::Create, path: PathBuf::from(path), detail: None, culprit: None }
    }

    #[test]
    fn the_first_change_is_told_at_once_and_the_storm_after_it_once_a_window() {
        let mut storm = Storm::default();
        let start = Duration::from_secs(5);
        assert!(storm.add(vec![change("/a")], start));
        assert_eq!(storm.take(start).expect("one").total, 1);
        for i in 0..1000 {
            assert!(!storm.add(vec![change(&format!("/storm/{i}"))], start + Duration::from_millis(i)));
        }
        assert_eq!(storm.due(), Some(start + FIRST));
        let summary = storm.take(start + FIRST).expect("the storm");
        assert_eq!((summary.total, summary.named.len() as u64 + summary.unnamed), (1000, 1000));
        assert_eq!(storm.due(), None, "with nothing to tell nothing wakes up");
    }

    #[test]
    fn a_storm_without_end_is_told_once_a_minute_in_short_and_every_change_of_it_is_counted() {
        let mut storm = Storm::default();
        let mut told = Vec::new();
        for second in 0..3600 {
            let changes = (0..40).map(|n| change(&format!("/{second}/{n}"))).collect();
            if storm.add(changes, Duration::from_secs(second)) {
                told.extend(storm.take(Duration::from_secs(second)));
            }
        }
        assert!((50..70).contains(&told.len()), "{} events", told.len());
        assert!(told.iter().skip(4).all(|summary| summary.named.len() <= 8));
        assert!(told.iter().all(|summary| summary.named.len() as u64 + summary.unnamed == summary.total));
        told.extend(storm.take(Duration::from_secs(3600)));
        assert_eq!(told.iter().map(|summary| summary.total).sum::<u64>(), 40 * 3600);
    }

    #[test]
    fn the_same_change_again_is_counted_not_listed() {
        let mut storm = Storm::default();
        storm.add((0..500).map(|_| change("/same")).collect(), Duration::ZERO);
        let summary = storm.take(Duration::ZERO).expect("changes");
        assert_eq!((summary.total, summary.unnamed, summary.named.len(), summary.named[0].0), (500, 0, 1, 500));
    }

    #[test]
    fn what_was_seen_first_is_told_first_whatever_its_name() {
        let mut storm = Storm::default();
        storm.add(["/z", "/a", "/m", "/a"].map(change).into(), Duration::ZERO);
        let named = storm.take(Duration::ZERO).expect("changes").named;
        let told: Vec<(u64, &str)> = named.iter().map(|(n, c)| (*n, c.path.to_str().expect("text"))).collect();
        assert_eq!(told, [(1, "/z"), (2, "/a"), (1, "/m")]);
    }

    #[test]
    fn what_was_told_is_left_out_with_the_old_name_of_a_rename_and_the_times_around_it() {
        let bytes = |b: &[u8]| PathBuf::from(OsStr::from_bytes(b));
        let mut rename = change("/d/new");
        rename.kind = ChangeKind::Rename;
        rename.detail = Some(bytes(b"/\xff/old\xfe").to_string_lossy().into_owned());
        let told: HashSet<PathBuf> = paths_of(&[rename]).collect();
        let with = |kind, path| Change { kind, path, detail: None, culprit: None };
        let mut changes = vec![
            with(ChangeKind::Create, bytes(b"/d/new")),
            with(ChangeKind::Delete, bytes(b"/\xff/old\xfe")),
            with(ChangeKind::Attributes, bytes(b"/\xff")),
            with(ChangeKind::Attributes, bytes(b"/d")),
            with(ChangeKind::Attributes, bytes(b"/other")),
            with(ChangeKind::Modify, bytes(b"/d/more")),
        ];
        leave_out(&mut changes, &told);
        let left: Vec<&Path> = changes.iter().map(|c| c.path.as_path()).collect();
        assert_eq!(left, [Path::new("/other"), Path::new("/d/more")]);
    }
}
