//! The most that a container used of memory, tasks and CPU, from its cgroups (v1 and v2).
//!
//! Owns: where those numbers are and what they mean. Must not: change a cgroup, or take a number of a cgroup that is not the
//! container's own: the root of a hierarchy holds the whole host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::profile::observation;
use crate::supervise::cgroup::Cgroups;

/// The CPU's share of a shorter time than this says more about the moment than about the container.
const LEAST: Duration = Duration::from_secs(1);

/// The gauges of one container, and the most they showed.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    /// Directories that the container has to itself, a hierarchy each.
    dirs: Vec<PathBuf>,
    most: observation::Peaks,
    /// When, since boot, the CPU time used was this, in microseconds.
    cpu: Option<(Duration, u64)>,
}

impl Peaks {
    /// The gauges of the container of `init`.
    ///
    /// # Errors
    /// When init has ended, or the mount table can't be read.
    pub(super) fn of(init: i32, now: Duration) -> Result<Peaks> {
        let own = Cgroups::of(init)?.apart_from(&Cgroups::of(std::process::id() as i32)?);
        let mut peaks = Peaks { dirs: own.0.into_iter().map(|c| c.path).collect(), ..Peaks::default() };
        peaks.cpu = peaks.cpu_micros().map(|used| (now, used));
        Ok(peaks)
    }

    /// Takes the numbers of now; at the end of a window, and once more when init has ended, before the engine removes the
    /// cgroups.
    pub(super) fn look(&mut self, now: Duration) {
        // Where the kernel keeps the peak itself it is exact; else it is the highest that was met.
        let memory =
            self.first(&["memory.peak", "memory.max_usage_in_bytes", "memory.current", "memory.usage_in_bytes"]);
        let pids = self.first(&["pids.peak", "pids.current"]);
        self.most.memory_bytes = self.most.memory_bytes.max(memory);
        self.most.pids = self.most.pids.max(pids);
        let Some(used) = self.cpu_micros() else { return };
        if let Some((since, before)) = self.cpu.replace((now, used)) {
            let millis = cpu_millis(used.saturating_sub(before), now.saturating_sub(since));
            self.most.cpu_millis = self.most.cpu_millis.max(Some(millis));
        }
    }

    /// The most so far. `tasks` is what the sensor counted, which is exact where the kernel's own peak is not kept.
    pub(super) fn most(&self, tasks: u32) -> observation::Peaks {
        let tasks = (tasks > 0).then_some(u64::from(tasks));
        observation::Peaks { pids: self.most.pids.max(tasks), ..self.most }
    }

    /// The first of these files that any hierarchy has.
    fn first(&self, names: &[&str]) -> Option<u64> {
        names.iter().find_map(|name| self.dirs.iter().find_map(|dir| number(&dir.join(name))))
    }

    fn cpu_micros(&self) -> Option<u64> {
        let v2 = self.dirs.iter().find_map(|dir| usage_usec(&std::fs::read_to_string(dir.join("cpu.stat")).ok()?));
        v2.or_else(|| self.first(&["cpuacct.usage"]).map(|nanos| nanos / 1000))
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// `usage_usec` of v2's `cpu.stat`; v1 has a file of that name without it.
fn usage_usec(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("usage_usec ")).and_then(|n| n.trim().parse().ok())
}

/// Thousandths of one CPU.
fn cpu_millis(used_micros: u64, time: Duration) -> u64 {
    let micros = time.max(LEAST).as_micros() as u64;
    used_micros.saturating_mul(1000) / micros
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauges(files: &[(&str, &str)]) -> (tempfile::TempDir, Peaks) {
        let dir = tempfile::tempdir().expect("a folder");
        put(dir.path(), files);
        let peaks = Peaks { dirs: vec![dir.path().to_owned()], ..Peaks::default() };
        (dir, peaks)
    }

    fn put(dir: &Path, files: &[(&str, &str)]) {
        files.iter().for_each(|(name, text)| std::fs::write(dir.join(name), text).expect("written"));
    }

    #[test]
    fn the_kernels_own_peaks_are_taken_in_v2() {
        let files =
            [("memory.current", "5\n"), ("memory.peak", "900\n"), ("pids.current", "2\n"), ("pids.peak", "7\n")];
        let (_dir, mut peaks) = gauges(&files);
        peaks.look(Duration::from_secs(1));
        assert_eq!((peaks.most(3).memory_bytes, peaks.most(3).pids, peaks.most(9).pids), (Some(900), Some(7), Some(9)));
        assert_eq!(peaks.most(0).cpu_millis, None, "of one look there is no rate");
    }

    #[test]
    fn without_them_the_highest_that_was_met_counts() {
        let (dir, mut peaks) = gauges(&[("memory.max_usage_in_bytes", "700\n"), ("pids.current", "8\n")]);
        peaks.look(Duration::from_secs(1));
        put(dir.path(), &[("pids.current", "3\n"), ("memory.max_usage_in_bytes", "800\n")]);
        peaks.look(Duration::from_secs(2));
        assert_eq!((peaks.most(0).memory_bytes, peaks.most(0).pids), (Some(800), Some(8)));
        std::fs::remove_file(dir.path().join("pids.current")).expect("removed");
        peaks.look(Duration::from_secs(3));
        assert_eq!(peaks.most(0).pids, Some(8), "the cgroup is gone, and what was seen stays");
    }

    #[test]
    fn cpu_time_is_a_share_of_the_busiest_window() {
        let (dir, mut peaks) = gauges(&[("cpu.stat", "nr_periods 0\nusage_usec 1000000\nuser_usec 1\n")]);
        peaks.look(Duration::from_secs(60));
        put(dir.path(), &[("cpu.stat", "usage_usec 31000000\n")]);
        peaks.look(Duration::from_secs(120));
        put(dir.path(), &[("cpu.stat", "usage_usec 32000000\n")]);
        peaks.look(Duration::from_secs(180));
        assert_eq!(peaks.most(0).cpu_millis, Some(500));
        let (dir, mut v1) = gauges(&[("cpuacct.usage", "0\n"), ("cpu.stat", "nr_periods 0\n")]);
        v1.look(Duration::ZERO);
        put(dir.path(), &[("cpuacct.usage", "250000000\n")]);
        v1.look(Duration::from_millis(10));
        assert_eq!(v1.most(0).cpu_millis, Some(250), "a moment is no window");
    }

    #[test]
    fn a_process_in_our_own_cgroups_has_none_of_its_own() {
        let own = Peaks::of(std::process::id() as i32, Duration::ZERO).expect("our cgroups");
        assert_eq!(own.dirs, Vec::<PathBuf>::new());
    }
}
