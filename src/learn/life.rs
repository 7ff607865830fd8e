//! One generation, from the moment it is armed: its windows, its observation, its end.
//!
//! Owns: when is what looked at, and putting an observation together. Must not: talk to anyone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

use super::ground::{Berth, Ground};
use super::observe::{Items, Material, Windows, assemble};
use super::peaks::Peaks;
use super::presence::Presence;
use super::written;
use crate::events::clock;
use crate::profile::generalise;
use crate::profile::observation::{self, Loss, Observation};
use crate::sensor::{Armed, Options, Reading};
use crate::sys::process;

/// Time since boot, suspended time included: no clock that is set moves it (clock_gettime(2), Linux 2.6.39).
pub(super) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// How closely is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// At what the sensor has; files are as they were when they were looked at.
    Quick,
    /// At everything.
    Whole,
    /// At everything, and nothing comes after it.
    Last,
}

/// One life of a container.
pub(super) struct Life {
    pub(super) id: String,
    generation: u64,
    init: i32,
    pidfd: Option<OwnedFd>,
    armed: Option<Armed>,
    unseen: Vec<String>,
    windows: Windows,
    /// When, since boot, window 0 began.
    began: Duration,
    /// By the clock that files are stamped with.
    began_ns: i128,
    window: u32,
    next_write: Duration,
    peaks: Option<Peaks>,
    /// What is missing, in words, each once; those before `said` have been told.
    degraded: Vec<String>,
    said: usize,
    /// When, since boot, its init had ended.
    pub(super) over: Option<Duration>,
    /// The first thing of the workload has been seen, and with it its mounts.
    looked: bool,
    _presence: Option<Presence>,
}

impl Life {
    /// Begins to record. What takes time is left to [`Life::settle`]: the container waits for this.
    pub(super) fn arm(ground: &mut Ground, init: i32, generation: u64) -> Life {
        let Berth { id, presence } = ground.berth();
        let mut degraded = ground.degraded.clone();
        let mut unseen = vec!["everything".to_owned()];
        let pidfd =
            process::pidfd_open(init).map_err(|e| degraded.push(format!("failed to watch init {init}: {e}"))).ok();
        let options = Options { table_entries: ground.subject.table_entries, bell: true };
        let armed = ground.sensor.as_ref().and_then(|sensor| match sensor.arm(init, options) {
            Ok(armed) => {
                unseen = sensor.unseen();
                Some(armed)
            }
            Err(error) => {
                degraded.push(format!("{error:#}"));
                None
            }
        });
        let seconds = u32::try_from(ground.subject.window.as_secs()).unwrap_or(u32::MAX).max(1);
        let began = now();
        Life {
            id,
            generation,
            init,
            pidfd,
            armed,
            unseen,
            windows: Windows { started_micros: clock::now_micros(), seconds },
            began,
            began_ns: written::instant_ns(),
            window: 0,
            next_write: began + ground.subject.interval,
            peaks: None,
            degraded,
            said: 0,
            over: None,
            looked: false,
            _presence: presence,
        }
    }

    /// What can be done while the workload already begins.
    pub(super) fn settle(&mut self, ground: &mut Ground) {
        self.peaks = Peaks::of(self.init, now())
            .map_err(|error| self.complain(&format!("memory, tasks and CPU are not recorded: {error:#}")))
            .ok();
        if let Some(written) = &mut ground.written
            && let Err(error) = written.begin(self.began_ns)
        {
            self.complain(&format!("{error:#}"));
        }
    }

    /// Readable when init has ended.
    pub(super) fn init_ended(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().filter(|_| self.over.is_none()).map(AsFd::as_fd)
    }

    /// Readable when something came into the sensor's table.
    pub(super) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.armed.as_ref().and_then(Armed::bell)
    }

    /// The bell rang: from its first time on the container's mounts are its own, and a look at them tells its files from
    /// others'; `looks`: any time is one to look. Returns whether the table was filling.
    pub(super) fn rang(&mut self, looks: bool) -> bool {
        let first = !std::mem::replace(&mut self.looked, true);
        if let Some(armed) = &self.armed {
            armed.hush();
            if first || looks {
                // Only the look counts; what can't be read now is read at the end of the window, and its failure told then.
                let _ = armed.read();
            }
        }
        self.relieve()
    }

    /// Makes room in the sensor's table where it fills; returns whether it did.
    fn relieve(&mut self) -> bool {
        let relieved = self.armed.as_ref().map_or(Ok(false), |armed| armed.relieve(generalise::alone));
        relieved.unwrap_or_else(|error| {
            self.complain(&format!("{error:#}"));
            false
        })
    }

    /// Init has ended: the last numbers of its cgroups, before the engine removes them.
    pub(super) fn is_over(&mut self) {
        let now = now();
        self.over = Some(now);
        if let Some(peaks) = &mut self.peaks {
            peaks.look(now);
        }
    }

    /// When, since boot, the next window begins.
    pub(super) fn next_window(&self) -> Duration {
        self.began + Duration::from_secs(u64::from(self.windows.seconds)) * self.window.saturating_add(1)
    }

    /// Turns the clock if it is time. Returns whether a window ended, and whether the observation is due.
    pub(super) fn turn(&mut self, now: Duration, interval: Duration) -> (bool, bool) {
        if now < self.next_window() {
            return (false, false);
        }
        self.relieve();
        self.window = window_at(now.saturating_sub(self.began), self.windows.seconds);
        if let Some(Err(error)) = self.armed.as_ref().map(|armed| armed.set_window(self.window)) {
            self.complain(&format!("{error:#}"));
        }
        if let Some(peaks) = self.peaks.as_mut().filter(|_| self.over.is_none()) {
            peaks.look(now);
        }
        let due = now >= self.next_write;
        if due {
            self.next_write = now + interval;
        }
        (true, due)
    }

    /// Looks at everything, and puts the observation together.
    ///
    /// # Errors
    /// When the sensor can't be read: then the last observation that was written stays as it is.
    pub(super) fn observation(&mut self, ground: &mut Ground, look: Look) -> Result<Observation> {
        let now = now();
        if let Some(peaks) = self.peaks.as_mut().filter(|_| look == Look::Last && self.over.is_none()) {
            peaks.look(now);
        }
        let reading = match &self.armed {
            Some(armed) => armed.read().context("failed to read what was recorded")?,
            // Without a sensor, nobody knows in which windows it did something: in any of them it may have.
            None => Reading { active_windows: self.window.saturating_add(1), ..Reading::default() },
        };
        if self.armed.as_ref().is_some_and(Armed::is_broken) {
            self.complain(
                "the sensor was unloaded by someone else: what the container has done since is not recorded; start it again \
                 to record it",
            );
        }
        if let Some(written) = ground.written.as_mut().filter(|_| look != Look::Quick) {
            let succeeded = |side: &'_ crate::sensor::reading::Facts| -> Vec<String> {
                side.paths.keys().filter(|u| u.on_root && u.errno == 0).map(|u| u.path.clone()).collect()
            };
            let named: Vec<String> = [succeeded(&reading.workload), succeeded(&reading.exec)].concat();
            match written.look(self.window, named.iter().map(String::as_str)) {
                Ok(false) => {}
                Ok(true) => self.complain("not every file that was written could be looked at for its size"),
                Err(error) => self.complain(&format!("{error:#}")),
            }
        }
        let none = Default::default();
        let found = ground.written.as_ref().map_or(&none, |written| written.found());
        let material = Material { reading: &reading, found, ephemeral: ground.ephemeral, windows: self.windows };
        let Items { workload, exec, left_out, unseen } = assemble(&material);
        let elapsed = now.saturating_sub(self.began).as_micros().min(i64::MAX as u128) as i64;
        let mut observation = Observation {
            version: observation::VERSION,
            id: self.id.clone(),
            workload: ground.subject.workload.clone(),
            revision: ground.subject.revision.clone(),
            architecture: std::env::consts::ARCH.to_owned(),
            node: ground.node.clone(),
            container: ground.subject.container.clone(),
            generation: self.generation.max(1),
            started: clock::format(self.windows.started_micros),
            until: clock::format(self.windows.started_micros.saturating_add(elapsed)),
            ended: look == Look::Last,
            window_seconds: self.windows.seconds,
            windows: reading.active_windows,
            unseen: self.unseen.iter().cloned().chain(unseen).collect(),
            loss: Loss {
                table_full: reading.loss.table_full + left_out,
                unreadable: reading.loss.unreadable,
                untracked: reading.loss.untracked,
            },
            workload_behaviour: workload,
            exec_behaviour: exec,
            forbidden: Default::default(),
            peaks: self.peaks.as_ref().map(|peaks| peaks.most(reading.tasks_peak)).unwrap_or_default(),
        };
        observation.forbid();
        Ok(observation)
    }

    /// Something is missing.
    pub(super) fn complain(&mut self, reason: &str) {
        if !self.degraded.iter().any(|known| known == reason) {
            self.degraded.push(reason.to_owned());
        }
    }

    /// What is missing and has not been told yet.
    pub(super) fn unsaid(&mut self) -> Vec<String> {
        let new = self.degraded[self.said..].to_vec();
        self.said = self.degraded.len();
        new
    }

    /// Ends recording, and gives what has not been told yet.
    pub(super) fn end(mut self) -> Vec<String> {
        if let Some(Err(error)) = self.armed.take().map(Armed::disarm) {
            self.complain(&format!("{error:#}"));
        }
        self.unsaid()
    }
}

/// Which window it is, a time after window 0 began.
fn window_at(elapsed: Duration, seconds: u32) -> u32 {
    u32::try_from(elapsed.as_secs() / u64::from(seconds.max(1))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A life without a sensor, whose init is this process.
    fn life(dir: &std::path::Path) -> (Ground, Life) {
        let subject = crate::learn::Subject {
            container: "c".to_owned(),
            workload: "w".to_owned(),
            names: Default::default(),
            revision: crate::profile::Revision {
                digest: "0".repeat(32),
                image: "rootfs:".to_owned(),
                image_name: None,
                args: Vec::new(),
                env: Vec::new(),
                mounts: Vec::new(),
                user: "0:0".to_owned(),
                capabilities: Vec::new(),
            },
            rootfs: dir.to_owned(),
            purpose: crate::learn::Purpose::Learn,
            exec: crate::policy::ExecRule::Allow,
            window: Duration::from_secs(60),
            interval: Duration::from_secs(300),
            table_entries: 16,
            unattended: false,
            covered: false,
            state_dir: dir.join("state"),
            data_dir: dir.join("data"),
            journal: Default::default(),
        };
        let mut ground = Ground::survey(subject);
        let life = Life::arm(&mut ground, std::process::id() as i32, 1);
        (ground, life)
    }

    #[test]
    fn windows_and_writes_are_due_by_the_time_since_boot_whatever_the_clock_says() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut ground, mut life) = life(dir.path());
        let interval = ground.subject.interval;
        let at = |seconds| life.began + Duration::from_secs(seconds);
        let times = [at(59), at(60), at(61), at(299), at(301), at(3600), at(3601)];
        // The clock was set back by fifty years right after the start.
        life.windows.started_micros -= 50 * 365 * 86_400 * 1_000_000;
        let due = times.map(|now| (life.turn(now, interval), life.window));
        let expected = [
            ((false, false), 0),
            ((true, false), 1),
            ((false, false), 1),
            ((true, false), 4),
            ((true, true), 5),
            ((true, true), 60),
            ((false, false), 60),
        ];
        assert_eq!(due, expected);
        let observation = life.observation(&mut ground, Look::Last).expect("an observation");
        assert_eq!(observation.started, clock::format(life.windows.started_micros));
        let (from, to) = (clock::parse(&observation.started), clock::parse(&observation.until));
        assert!(
            to >= from && to < from.map(|from| from + 60_000_000),
            "it lasted for as long as it did: {observation:?}"
        );
    }

    #[test]
    fn what_is_missing_is_said_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let (_ground, mut life) = life(dir.path());
        assert!(life.unsaid().iter().any(|reason| reason.contains("sensor")), "there is no loader beside this program");
        life.complain("a disk is full");
        life.complain("a disk is full");
        assert_eq!(life.unsaid(), ["a disk is full"]);
        life.complain("a disk is full");
        assert_eq!(life.end(), Vec::<String>::new());
    }

    #[test]
    fn windows_are_counted_by_the_time_that_passed_however_late_anyone_looks() {
        let at = |millis| window_at(Duration::from_millis(millis), 60);
        assert_eq!([at(0), at(59_999), at(60_000), at(119_999), at(3_600_000)], [0, 0, 1, 1, 60]);
        assert_eq!(window_at(Duration::MAX, 1), u32::MAX);
        assert_eq!(window_at(Duration::from_secs(5), 0), 5, "and never by nothing");
    }
}
