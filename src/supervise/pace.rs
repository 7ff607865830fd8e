//! When one kind of thing is told again: at once the first time, and while it goes on ever more seldom, so that one container's
//! flood leaves room in the node's journal for what others have to tell. Time is an input. Must not: delay an answer.

use std::time::Duration;

/// For how long after the first event what follows is gathered; each time that it goes on, twice as long.
pub(super) const FIRST: Duration = Duration::from_secs(1);
/// The longest; and so long after it has to be quiet for the next one to be a first again.
pub(super) const LONGEST: Duration = Duration::from_secs(64);
/// Most that the first events name; later ones name fewer.
pub(super) const NAMED: usize = 32;
/// Most that an event of a long storm names.
const NAMED_LATE: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    interval: Duration,
    until: Option<Duration>,
}

impl Pace {
    /// Whether it may be told now.
    pub(super) fn allows(&self, now: Duration) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// When it may be told next; `None`: at any time.
    pub(super) fn until(&self) -> Option<Duration> {
        self.until
    }

    /// It is told now, be it its time or not. True where that is the first time, or the first after a quiet time.
    pub(super) fn tell(&mut self, now: Duration) -> bool {
        let first = self.until.is_none_or(|until| now >= until + LONGEST);
        self.interval = if first { FIRST } else { self.interval.saturating_mul(2).min(LONGEST) };
        self.until = Some(now + self.interval);
        first
    }

    /// Most that the event that was told last names.
    pub(super) fn room(&self) -> usize {
        // That of a second event was gathered in the first interval: how a storm begins tells most.
        match self.interval.as_secs() {
            0..=2 => NAMED,
            3..=4 => NAMED / 2,
            _ => NAMED_LATE,
        }
    }

    /// Whether what was told last belongs to a storm that goes on.
    pub(super) fn goes_on(&self) -> bool {
        self.room() < NAMED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_told_ever_more_seldom_and_after_a_quiet_time_at_once_and_in_full_again() {
        let (mut pace, mut now, mut waits, mut rooms) =
            (Pace::default(), Duration::from_secs(5), Vec::new(), Vec::new());
        for _ in 0..9 {
            assert!(pace.allows(now));
            assert_eq!(pace.tell(now), waits.is_empty());
            let until = pace.until().expect("a time");
            assert!(!pace.allows(until - Duration::from_millis(1)));
            waits.push((until - now).as_secs());
            rooms.push(pace.room());
            now = until;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(rooms, [32, 32, 16, 8, 8, 8, 8, 8, 8]);
        // One now and then is told at once, and not for that a first.
        let drop = now + LONGEST - FIRST;
        assert!(pace.allows(drop) && !pace.tell(drop) && pace.goes_on());
        let quiet = drop + LONGEST + LONGEST;
        assert!(pace.tell(quiet) && pace.room() == NAMED && !pace.goes_on());
        assert_eq!(pace.until(), Some(quiet + FIRST));
    }
}
