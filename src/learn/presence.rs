//! Which collectors live: a locked file each, `<state-dir>/learn/<observation id>`.
//!
//! Owns: telling the observation of a living collector from one that a crash left behind, and waiting for a collector to end.
//! Must not: signal anyone.
//!
//! The lock is the truth: it goes with its process, however that ends, and the folder goes with the boot.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::sys::process;

/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;
/// Most files that are looked at.
const MAX_FILES: usize = 65_536;

/// What a living collector says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Id of the observation it makes.
    pub observation: String,
    /// Container id.
    pub container: String,
    /// The container's root filesystem: ids are unique under one runtime root only.
    pub rootfs: PathBuf,
    /// What stays the same over updates.
    pub workload: String,
    /// The collector.
    pub pid: i32,
}

/// A collector's own file, locked; dropping it removes the file.
#[derive(Debug)]
pub(super) struct Presence {
    path: PathBuf,
    _lock: File,
}

impl Presence {
    /// Says that this process makes an observation.
    ///
    /// # Errors
    /// When the folder or the file can't be made.
    pub(super) fn claim(state_dir: &Path, entry: &Entry) -> Result<Presence> {
        let dir = folder(state_dir);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("failed to make {}", dir.display()))?;
        let path = dir.join(&entry.observation);
        let claim = || -> std::io::Result<File> {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.lock()?;
            file.write_all(&serde_json::to_vec(entry)?)?;
            Ok(file)
        };
        let lock = claim().with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Presence { path, _lock: lock })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // What stays is unlocked, and so counts as nobody's.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("learn")
}

/// Whether the collector of an observation lives.
pub fn is_alive(state_dir: &Path, observation: &str) -> bool {
    living(&folder(state_dir).join(observation)).is_some()
}

/// Every collector that lives.
///
/// # Errors
/// When the folder is there and can't be listed.
pub fn list(state_dir: &Path) -> Result<Vec<Entry>> {
    let dir = folder(state_dir);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("failed to list {}", dir.display())),
    };
    Ok(entries.flatten().take(MAX_FILES).filter_map(|file| living(&file.path())).collect())
}

/// Waits until the collectors of one container have ended, which they do once their observation is on disk.
///
/// Returns whether they had within `patience`; true where there is none.
///
/// # Errors
/// As [`list`].
pub fn wait(state_dir: &Path, container: &str, rootfs: &Path, patience: Duration) -> Result<bool> {
    let until = Instant::now() + patience;
    for entry in list(state_dir)?.into_iter().filter(|e| e.container == container && e.rootfs == rootfs) {
        let Ok(pidfd) = process::pidfd_open(entry.pid) else { continue };
        // Between the look at the lock and the pidfd it may have ended, and its pid be another's.
        if !is_alive(state_dir, &entry.observation) {
            continue;
        }
        let left = until.saturating_duration_since(Instant::now()).as_millis().min(i32::MAX as u128) as i32;
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)) != Ok(1) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The entry in a file that a living process has locked.
fn living(path: &Path) -> Option<Entry> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    held.then(|| serde_json::from_slice(&text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(observation: &str, pid: i32) -> Entry {
        let [container, workload] = ["c", "w"].map(str::to_owned);
        Entry { observation: observation.to_owned(), container, rootfs: "/rootfs".into(), workload, pid }
    }

    #[test]
    fn a_collector_lives_for_as_long_as_its_lock_is_held_and_no_longer() {
        let dir = tempfile::tempdir().expect("a folder");
        let mine = entry("01", std::process::id() as i32);
        let presence = Presence::claim(dir.path(), &mine).expect("claimed");
        assert!(is_alive(dir.path(), "01") && !is_alive(dir.path(), "02"));
        assert_eq!(list(dir.path()).expect("listed"), [mine]);
        drop(presence);
        assert!(!is_alive(dir.path(), "01"));
        assert_eq!(list(dir.path()).expect("listed"), []);
    }

    #[test]
    fn a_file_that_a_crash_left_behind_is_nobodys() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("learn")).expect("a folder");
        let text = serde_json::to_vec(&entry("01", 1)).expect("JSON");
        std::fs::write(dir.path().join("learn/01"), text).expect("written");
        assert!(!is_alive(dir.path(), "01"));
        assert!(wait(dir.path(), "c", Path::new("/rootfs"), Duration::from_secs(9)).expect("waited"));
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_is_for_the_container_that_was_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let _presence = Presence::claim(dir.path(), &entry("01", std::process::id() as i32)).expect("claimed");
        let wait = |container, rootfs| {
            wait(dir.path(), container, Path::new(rootfs), Duration::from_millis(20)).expect("waited")
        };
        assert!(!wait("c", "/rootfs"), "it lives on");
        assert!(wait("c", "/other") && wait("d", "/rootfs"));
    }
}
