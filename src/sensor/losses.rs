//! Refusals that the guard had no room for: whose they were. Each side is told of its own, so that a session's loss does not
//! stand for the workload's, which weighs more. Must not: read what the kernel keeps.

use super::guard::UNKNOWN;
use crate::guard::{Refusal, Refused};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Refusals for which there was no room, as far as that was told.
    told: u64,
    /// Of any kind.
    all: u64,
    /// Met since they were taken: the workload's, then sessions'.
    met: [Option<Lost>; 2],
    /// The last ones that were told were sessions' alone.
    of_sessions: bool,
}

/// Who met it last, and how often it was met.
#[derive(Debug, Default)]
struct Lost {
    pid: i32,
    program: String,
    count: u64,
}

impl Losses {
    /// The kernel told of a loss.
    pub(super) fn meet(&mut self, session: bool, pid: i32, program: String, count: u64) {
        let before = self.met[usize::from(session)].take().map_or(0, |lost| lost.count);
        self.met[usize::from(session)] = Some(Lost { pid, program, count: before + count });
    }

    /// What is to be told, for each side. `full` is how many the kernel found no room for so far: it says when, and where its
    /// ring was too full for that, its count does. `all`: those that could not be followed or read among them.
    pub(super) fn take(&mut self, full: u64, all: u64) -> Vec<Refusal> {
        self.all = all;
        let [workload, sessions] = std::mem::take(&mut self.met);
        let met = workload.is_some() || sessions.is_some();
        if !met && full <= 2 * self.told {
            return Vec::new();
        }
        self.told = full;
        if !met {
            return vec![lost(Lost::default(), self.of_sessions)];
        }
        self.of_sessions = workload.is_none();
        [(workload, false), (sessions, true)].into_iter().filter_map(|(by, side)| Some(lost(by?, side))).collect()
    }

    /// Whether anything was, as of the last [`Losses::take`].
    pub(super) fn any(&self) -> bool {
        self.all > 0
    }
}

/// What tells that there is more than was told.
fn lost(by: Lost, session: bool) -> Refusal {
    let refused = Refused::Write { path: UNKNOWN.into(), operation: "write".into(), of_nothing: false };
    Refusal { refused, pid: by.pid, program: by.program, session, count: by.count.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(refusals: &[Refusal]) -> Vec<(bool, &str, u64)> {
        refusals.iter().map(|r| (r.session, r.program.as_str(), r.count)).collect()
    }

    #[test]
    fn a_loss_of_the_workloads_is_its_own_whatever_a_session_loses_before_or_after_it() {
        let mut losses = Losses::default();
        losses.meet(false, 1, "server".into(), 2);
        losses.meet(true, 2, "sh".into(), 500);
        losses.meet(false, 1, "server".into(), 3);
        losses.meet(true, 2, "sh".into(), 500);
        assert_eq!(sides(&losses.take(1005, 1005)), [(false, "server", 5), (true, "sh", 1000)]);
        assert!(losses.take(2010, 2010).is_empty() && losses.any());
    }

    #[test]
    fn a_ring_without_room_for_a_loss_is_put_down_to_sessions_only_where_theirs_alone_was_told_last() {
        let mut losses = Losses::default();
        assert_eq!(sides(&losses.take(1, 1)), [(false, "", 1)]);
        losses.meet(true, 2, "sh".into(), 1);
        assert_eq!(sides(&losses.take(2, 2)), [(true, "sh", 1)]);
        assert_eq!(sides(&losses.take(5, 5)), [(true, "", 1)]);
        losses.meet(false, 1, "server".into(), 1);
        losses.meet(true, 2, "sh".into(), 1);
        losses.take(6, 6);
        assert_eq!(sides(&losses.take(13, 13)), [(false, "", 1)]);
    }
}
