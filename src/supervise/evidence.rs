//! What a tripwire's last generation wrote is kept, so often as one container may have it.
//!
//! Owns: that bound, on what one container makes the node write to disk. Must not: archive, or prune the folder.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use super::supervisor::Supervisor;
use crate::rootfs::keep_evidence;
use crate::sys::proc_fd;

/// Most archives of one container within [`HOUR`]: how an attack begins tells more than its repetitions, and each may be as large
/// as `[evidence] max-file-bytes`.
const AN_HOUR: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);

/// When this container's last archives were written.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    written: VecDeque<Duration>,
}

impl Allowance {
    /// Whether one more may be written now; then it counts.
    fn take(&mut self, now: Duration) -> bool {
        while self.written.front().is_some_and(|then| now.saturating_sub(*then) >= HOUR) {
            self.written.pop_front();
        }
        let allowed = self.written.len() < AN_HOUR;
        if allowed {
            self.written.push_back(now);
        }
        allowed
    }
}

impl Supervisor {
    /// Keeps what the last generation wrote, under the id of the event that told it: where, or why not, as the event has it.
    pub(super) fn keep_evidence(&mut self) -> Option<(&'static str, String)> {
        let upper = self.root.take_spent()?;
        let id = self.record.last_breach.as_ref()?.event.clone();
        if !self.evidence.take(self.now()) {
            return Some(("evidence_left_out", format!("{AN_HOUR} were kept within an hour")));
        }
        let data_dir = self.data.as_ref().map_or(self.plan.data_dir.clone(), |fd| proc_fd::path(fd.as_fd()).into());
        let dir = data_dir.join("evidence");
        match keep_evidence(upper.as_fd(), &dir, &id, &self.record.id, self.plan.evidence) {
            Ok(kept) => {
                let name = kept.path.file_name().unwrap_or_default();
                Some(("evidence", self.plan.data_dir.join("evidence").join(name).display().to_string()))
            }
            Err(error) => {
                self.tell_failures(vec![format!("evidence was not kept: {error:#}")]);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_restarts_without_end_has_the_node_write_no_more_than_so_many_archives_an_hour() {
        let mut allowance = Allowance::default();
        let mut written = |hours: std::ops::Range<u64>| {
            // Eight restarts a second, as a tripwire can do.
            let times = (hours.start * 28_800..hours.end * 28_800).map(|n| Duration::from_millis(n * 125));
            times.filter(|now| allowance.take(*now)).count()
        };
        assert_eq!((written(0..1), written(1..2), written(2..12)), (AN_HOUR, AN_HOUR, 10 * AN_HOUR));
    }
}
