//! Refusals that have been met and not told yet: a storm of them becomes few events, with exact counts.

use std::time::Duration;

use super::weight::is_of_image;
use crate::guard::{Refusal, Refused};
use crate::policy::Response;
use crate::profile::baseline;

/// Distinct refusals that are named in a window; the rest is counted.
const NAMED: usize = 32;
/// For how long after an event the following refusals are gathered.
const WINDOW: Duration = Duration::from_secs(1);

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
    /// In the order in which they were met first.
    pub named: Vec<Met>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tally {
    until: Option<Duration>,
    met: Vec<Met>,
    unnamed: u64,
}

impl Tally {
    /// Takes one in. The same program that meets the same again is counted.
    pub(super) fn add(&mut self, refusal: Refusal, response: Response) {
        if let Some(met) = self.met.iter_mut().find(|met| is_same(&met.refusal, &refusal)) {
            met.count += refusal.count;
            if met.response == Response::Report {
                met.response = response;
            }
        } else if self.met.len() < NAMED {
            self.met.push(Met { count: refusal.count, refusal, response });
        } else if let Some(lesser) = self.met.iter().rposition(|met| rank(&met.refusal) < rank(&refusal)) {
            self.unnamed += self.met.remove(lesser).count;
            self.met.push(Met { count: refusal.count, refusal, response });
        } else {
            self.unnamed += refusal.count;
        }
    }

    /// Takes in so many of which nothing more is known.
    pub(super) fn add_unnamed(&mut self, count: u64) {
        self.unnamed += count;
    }

    fn is_empty(&self) -> bool {
        self.met.is_empty() && self.unnamed == 0
    }

    /// Whether there is something that is to be told now.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        !self.is_empty() && self.until.is_none_or(|until| now >= until)
    }

    /// When the open window ends, if refusals wait for that.
    pub(super) fn due(&self) -> Option<Duration> {
        self.until.filter(|_| !self.is_empty())
    }

    /// Takes out what is to be told, by kind and side, with how many were not named, and opens a window.
    pub(super) fn take(&mut self, now: Duration) -> (Vec<Group>, u64) {
        self.until = (!self.is_empty()).then_some(now + WINDOW);
        let mut groups: Vec<Group> = Vec::new();
        for met in std::mem::take(&mut self.met) {
            let (kind, session) = (kind(&met.refusal.refused), met.refusal.session);
            match groups.iter_mut().find(|group| (group.kind, group.session) == (kind, session)) {
                Some(group) => group.named.push(met),
                None => groups.push(Group { kind, session, named: vec![met] }),
            }
        }
        (groups, std::mem::take(&mut self.unnamed))
    }
}

/// Who comes first where not all can be named: the workload, before sessions that somebody let in; on each side what is grave.
fn rank(refusal: &Refusal) -> (bool, bool) {
    (!refusal.session, is_grave(refusal))
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
    use super::*;

    fn syscall(name: &str, pid: i32, session: bool) -> Refusal {
        let refused = Refused::Syscall { name: name.to_owned(), arguments: vec![pid as u64], path: None };
        Refusal { refused, pid, program: "/bin/sh".to_owned(), session, count: 1 }
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
        assert!(tally.is_due(Duration::ZERO));
        let (groups, unnamed) = tally.take(Duration::ZERO);
        assert_eq!(groups.len(), 1);
        assert_eq!((groups[0].named[0].count, groups[0].named.len()), (500, NAMED));
        assert_eq!(groups[0].named.iter().map(|met| met.count).sum::<u64>() + unnamed, 600);
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
        let (groups, unnamed) = tally.take(Duration::ZERO);
        let named: Vec<&Met> = groups.iter().flat_map(|group| &group.named).collect();
        for grave in ["/proc/7/mem", "(unknown)", "mount"] {
            assert!(named.iter().any(|met| text(&met.refusal.refused) == grave), "{grave}");
        }
        assert_eq!((named.len(), named.len() as u64 + unnamed), (NAMED, 103));
    }

    #[test]
    fn what_sessions_meet_keeps_nothing_that_the_workload_met_from_being_named() {
        let mut tally = Tally::default();
        (0..100).for_each(|n| tally.add(syscall(&format!("#{n}"), 1, true), Response::Report));
        tally.add(syscall("mount", 1, false), Response::Restart);
        tally.add(syscall("chroot", 1, true), Response::Report);
        let (groups, unnamed) = tally.take(Duration::ZERO);
        let named: Vec<&Met> = groups.iter().flat_map(|group| &group.named).collect();
        let is_named = |name: &str| named.iter().any(|met| text(&met.refusal.refused) == name);
        assert!(is_named("mount") && !is_named("chroot"));
        assert_eq!((named.len(), named.len() as u64 + unnamed), (NAMED, 102));
    }

    #[test]
    fn the_first_is_told_at_once_and_the_next_ones_once_a_window() {
        let mut tally = Tally::default();
        let start = Duration::from_secs(9);
        tally.add(syscall("mkdir", 1, false), Response::Report);
        assert!(tally.is_due(start));
        tally.take(start);
        assert_eq!(tally.due(), None, "with nothing to tell nothing wakes up");
        tally.add(syscall("mkdir", 1, false), Response::Report);
        assert!(!tally.is_due(start) && tally.due() == Some(start + WINDOW) && tally.is_due(start + WINDOW));
    }

    #[test]
    fn workload_and_sessions_and_kinds_are_told_apart() {
        let mut tally = Tally::default();
        tally.add(syscall("mkdir", 1, false), Response::Restart);
        tally.add(syscall("mkdir", 1, true), Response::Report);
        let write = Refused::Write { path: "/etc/passwd".to_owned(), operation: "write".to_owned(), of_nothing: false };
        tally.add(Refusal { refused: write, ..syscall("", 1, false) }, Response::Report);
        let (groups, _) = tally.take(Duration::ZERO);
        let told: Vec<_> = groups.iter().map(|group| (group.kind, group.session)).collect();
        assert_eq!(told, [("refused-syscall", false), ("refused-syscall", true), ("refused-write", false)]);
    }
}
