//! Refusals that have been met and not told yet: a storm of them becomes few events, with exact counts. Each kind on each side
//! has its own pace, so that a storm of one delays no other.

use std::collections::HashSet;
use std::time::Duration;

use super::pace::{NAMED, Pace};
use super::weight::is_of_image;
use crate::guard::{Refusal, Refused};
use crate::policy::Response;
use crate::profile::baseline;

/// Names that are remembered as told in a storm: what comes new into it is named first.
const REMEMBERED: usize = 256;

/// One refusal, how often it was met, and what followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Met {
    /// How often.
    pub count: u64,
    /// The first of them.
    pub refusal: Refusal,
    /// What followed.
    pub response: Response,
}

/// Refusals of one kind on one side, for one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// As in the event: `refused-syscall`.
    pub kind: &'static str,
    /// In sessions.
    pub session: bool,
    /// In the order in which they were met first; in a storm that goes on, what is new in it before the rest.
    pub named: Vec<Met>,
    /// How many more there were.
    pub unnamed: u64,
    /// Part of a storm that has been told of before, and more than once.
    pub goes_on: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// A few: one for each kind and side.
    storms: Vec<Storm>,
}

/// What one kind on one side has come to.
#[derive(Debug)]
struct Storm {
    kind: &'static str,
    session: bool,
    pace: Pace,
    met: Vec<Met>,
    unnamed: u64,
    /// What has been named since it began.
    told: HashSet<String>,
}

impl Tally {
    /// Takes one in. The same program that meets the same again is counted.
    pub(super) fn add(&mut self, refusal: Refusal, response: Response) {
        self.storm(kind(&refusal.refused), refusal.session).add(refusal, response);
    }

    /// Takes in so many calls of one side of which nothing more is known.
    pub(super) fn add_unnamed(&mut self, count: u64, session: bool) {
        if count > 0 {
            self.storm("refused-syscall", session).unnamed += count;
        }
    }

    fn storm(&mut self, kind: &'static str, session: bool) -> &mut Storm {
        let found = self.storms.iter().position(|storm| (storm.kind, storm.session) == (kind, session));
        let at = found.unwrap_or_else(|| {
            let (pace, met, told) = (Pace::default(), Vec::new(), HashSet::new());
            self.storms.push(Storm { kind, session, pace, met, unnamed: 0, told });
            self.storms.len() - 1
        });
        &mut self.storms[at]
    }

    /// Whether there is something that is to be told now.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.storms.iter().any(|storm| storm.total() > 0 && storm.pace.allows(now))
    }

    /// When refusals that wait for their time are to be told.
    pub(super) fn due(&self) -> Option<Duration> {
        self.storms.iter().filter(|storm| storm.total() > 0).filter_map(|storm| storm.pace.until()).min()
    }

    /// Takes out what is to be told, by kind and side: what is due, or `all`.
    pub(super) fn take(&mut self, now: Duration, all: bool) -> Vec<Group> {
        let due = self.storms.iter_mut().filter(|storm| storm.total() > 0 && (all || storm.pace.allows(now)));
        due.map(|storm| storm.take(now)).collect()
    }
}

impl Storm {
    fn total(&self) -> u64 {
        self.met.iter().map(|met| met.count).sum::<u64>() + self.unnamed
    }

    fn add(&mut self, refusal: Refusal, response: Response) {
        if let Some(met) = self.met.iter_mut().find(|met| is_same(&met.refusal, &refusal)) {
            met.count += refusal.count;
            if met.response == Response::Report {
                met.response = response;
            }
            return;
        }
        let met = Met { count: refusal.count, refusal, response };
        if self.met.len() == NAMED {
            match self.met.iter().rposition(|lesser| self.rank(lesser) < self.rank(&met)) {
                Some(lesser) => self.unnamed += self.met.remove(lesser).count,
                None => {
                    self.unnamed += met.count;
                    return;
                }
            }
        }
        self.met.push(met);
    }

    /// What is named first where not all can be: what is answered, what is grave, what no event has named yet.
    fn rank(&self, met: &Met) -> (bool, bool, bool) {
        let is_new = !self.told.contains(subject(&met.refusal.refused));
        (met.response != Response::Report, is_grave(&met.refusal), is_new)
    }

    fn take(&mut self, now: Duration) -> Group {
        if self.pace.tell(now) {
            self.told.clear();
        }
        let mut named = std::mem::take(&mut self.met);
        let room = self.pace.room();
        if named.len() > room {
            named.sort_by_key(|met| std::cmp::Reverse(self.rank(met)));
        }
        let left_out: u64 = named.drain(room.min(named.len())..).map(|met| met.count).sum();
        for met in &named {
            if self.told.len() < REMEMBERED {
                self.told.insert(subject(&met.refusal.refused).to_owned());
            }
        }
        let unnamed = std::mem::take(&mut self.unnamed) + left_out;
        Group { kind: self.kind, session: self.session, named, unnamed, goes_on: self.pace.goes_on() }
    }
}

/// Whether a flood of refused writes must not keep it from being named: it is no refused write, or no write that was refused.
fn is_grave(refusal: &Refusal) -> bool {
    match &refusal.refused {
        Refused::Write { path, .. } => !path.starts_with('/') || baseline::kernel_file(path).is_some(),
        Refused::Syscall { .. } | Refused::Capability { .. } | Refused::Program { .. } => true,
    }
}

/// What an event calls it.
pub(super) fn kind(refused: &Refused) -> &'static str {
    match refused {
        Refused::Syscall { .. } => "refused-syscall",
        Refused::Write { .. } => "refused-write",
        Refused::Capability { .. } => "refused-capability",
        Refused::Program { killed: true, origin, .. } if is_of_image(origin) => "denied-program",
        Refused::Program { killed: true, .. } => "foreign-program",
        Refused::Program { killed: false, .. } => "unknown-program",
    }
}

/// What it is about, for a line of text: the path, or the name.
fn subject(refused: &Refused) -> &str {
    match refused {
        Refused::Syscall { name, .. } | Refused::Capability { name } => name,
        Refused::Write { path, .. } | Refused::Program { path, .. } => path,
    }
}

/// For the event and the record.
pub(super) fn text(refused: &Refused) -> String {
    match refused {
        Refused::Syscall { name, path: Some(path), .. } => format!("{name} {path}"),
        other => subject(other).to_owned(),
    }
}

/// Arguments are left out: a call that is repeated has other buffers each time. Its path counts.
fn is_same(one: &Refusal, other: &Refusal) -> bool {
    let path = |refused: &Refused| match refused {
        Refused::Syscall { path, .. } => path.clone(),
        Refused::Write { .. } | Refused::Capability { .. } | Refused::Program { .. } => None,
    };
    kind(&one.refused) == kind(&other.refused)
        && subject(&one.refused) == subject(&other.refused)
        && path(&one.refused) == path(&other.refused)
        && one.program == other.program
        && one.session == other.session
}

#[cfg(test)]
mod tests {
    use super::super::pace::FIRST;
    use super::*;

    fn syscall(name: &str, pid: i32, session: bool) -> Refusal {
        let refused = Refused::Syscall { name: name.to_owned(), arguments: vec![pid as u64], path: None };
        Refusal { refused, pid, program: "/bin/sh".to_owned(), session, count: 1 }
    }

    fn all_of(tally: &mut Tally) -> Vec<Group> {
        tally.take(Duration::ZERO, true)
    }

    fn total(groups: &[Group]) -> u64 {
        let named = groups.iter().flat_map(|group| &group.named).map(|met| met.count).sum::<u64>();
        named + groups.iter().map(|group| group.unnamed).sum::<u64>()
    }

    fn names(group: &Group) -> Vec<String> {
        group.named.iter().map(|met| text(&met.refusal.refused)).collect()
    }

    #[test]
    fn what_a_program_meets_again_is_counted_and_no_number_gets_lost() {
        let mut tally = Tally::default();
        for pid in 0..500 {
            tally.add(syscall("mkdir", pid, false), Response::Report);
        }
        for n in 0..100 {
            tally.add(syscall(&format!("#{n}"), 1, false), Response::Report);
        }
        tally.add_unnamed(9, false);
        assert!(tally.is_due(Duration::ZERO));
        let groups = all_of(&mut tally);
        assert_eq!(groups.len(), 1);
        assert_eq!((groups[0].named[0].count, groups[0].named.len()), (500, NAMED));
        assert_eq!(total(&groups), 609);
        tally.add_unnamed(7, true);
        let alone = all_of(&mut tally);
        assert_eq!((alone[0].kind, alone[0].named.len(), alone[0].unnamed), ("refused-syscall", 0, 7));
    }

    #[test]
    fn a_flood_of_refused_writes_keeps_nothing_worse_from_being_named() {
        let write = |path: String| {
            let refused = Refused::Write { path, operation: "write".to_owned(), of_nothing: false };
            Refusal { refused, ..syscall("", 1, false) }
        };
        let mut tally = Tally::default();
        (0..100).for_each(|n| tally.add(write(format!("/etc/{n}")), Response::Report));
        tally.add(write("/proc/7/mem".to_owned()), Response::Report);
        tally.add(write("(unknown)".to_owned()), Response::Report);
        tally.add(syscall("mount", 1, false), Response::Report);
        let groups = all_of(&mut tally);
        let named: Vec<String> = groups.iter().flat_map(names).collect();
        for grave in ["/proc/7/mem", "(unknown)", "mount"] {
            assert!(named.iter().any(|name| name == grave), "{grave}");
        }
        assert_eq!((groups[0].named.len(), total(&groups)), (NAMED, 103));
    }

    #[test]
    fn what_sessions_meet_keeps_nothing_that_the_workload_met_from_being_named() {
        let mut tally = Tally::default();
        (0..100).for_each(|n| tally.add(syscall(&format!("#{n}"), 1, true), Response::Report));
        tally.add(syscall("mount", 1, false), Response::Restart);
        tally.add(syscall("chroot", 1, true), Response::Report);
        let groups = tally.take(Duration::ZERO, true);
        let named: Vec<&Met> = groups.iter().flat_map(|group| &group.named).collect();
        let unnamed: u64 = groups.iter().map(|group| group.unnamed).sum();
        let is_named = |name: &str| named.iter().any(|met| text(&met.refusal.refused) == name);
        assert!(is_named("mount"));
        assert_eq!((named.len(), named.len() as u64 + unnamed), (NAMED + 1, 102));
    }

    #[test]
    fn the_first_is_told_at_once_and_the_next_ones_once_a_window() {
        let mut tally = Tally::default();
        let start = Duration::from_secs(9);
        tally.add(syscall("mkdir", 1, false), Response::Report);
        assert!(tally.is_due(start));
        assert_eq!(total(&tally.take(start, false)), 1);
        assert_eq!(tally.due(), None, "with nothing to tell nothing wakes up");
        tally.add(syscall("mkdir", 1, false), Response::Report);
        let window = start + FIRST;
        assert!(!tally.is_due(start) && tally.due() == Some(window) && tally.is_due(window));
        assert!(tally.take(start, false).is_empty());
        assert_eq!(total(&tally.take(start, true)), 1, "a generation that ends leaves nothing untold");
    }

    /// What a session can do by itself: it must not rotate other containers' events out of the journal.
    #[test]
    fn an_hour_of_refusals_without_end_is_some_sixty_short_events_with_every_count() {
        let mut tally = Tally::default();
        let (mut told, mut met) = (Vec::new(), 0);
        for tenth in 0..36_000u64 {
            let now = Duration::from_millis(tenth * 100);
            for n in 0..10 {
                tally.add(syscall(&format!("#{}", (tenth * 10 + n) % 400), 1, true), Response::Report);
                met += 1;
            }
            told.extend(tally.take(now, false));
        }
        assert!((50..70).contains(&told.len()), "{} events", told.len());
        assert!(told.iter().skip(4).all(|group| group.named.len() <= 8 && group.goes_on), "the lists are short");
        assert_eq!(total(&told) + total(&all_of(&mut tally)), met);
    }

    #[test]
    fn a_storm_delays_no_other_kind_and_hides_nothing_that_is_new_in_it() {
        let mut tally = Tally::default();
        let mut now = Duration::ZERO;
        let noise = |tally: &mut Tally| {
            (0..40).for_each(|n| tally.add(syscall(&format!("#{n}"), 1, true), Response::Report));
        };
        for _ in 0..6 {
            noise(&mut tally);
            tally.take(now, false);
            noise(&mut tally);
            now = tally.due().expect("it goes on");
        }
        assert!(!tally.is_due(now - FIRST));
        tally.add(syscall("mount", 1, false), Response::Report);
        let other = tally.take(now - FIRST, false);
        assert_eq!((other.len(), other[0].session, names(&other[0])), (1, false, vec!["mount".to_owned()]));
        tally.add(syscall("chroot", 1, true), Response::Report);
        let groups = tally.take(now, false);
        assert!(groups[0].goes_on && names(&groups[0]).contains(&"chroot".to_owned()), "{:?}", names(&groups[0]));
    }

    #[test]
    fn workload_and_sessions_and_kinds_are_told_apart() {
        let mut tally = Tally::default();
        tally.add(syscall("mkdir", 1, false), Response::Restart);
        tally.add(syscall("mkdir", 1, true), Response::Report);
        let write = Refused::Write { path: "/etc/passwd".to_owned(), operation: "write".to_owned(), of_nothing: false };
        tally.add(Refusal { refused: write, ..syscall("", 1, false) }, Response::Report);
        let told: Vec<_> = all_of(&mut tally).iter().map(|group| (group.kind, group.session)).collect();
        assert_eq!(told, [("refused-syscall", false), ("refused-syscall", true), ("refused-write", false)]);
    }
}
