//! The journal's files: `<data-dir>/events/journal.jsonl`, and `journal.1.jsonl` (newest) onwards once rotated.
//!
//! Owns: appending, rotation, and what makes both safe among many processes. Must not: keep what it can't write (that is
//! [`super::recorder`]).
//!
//! Writers append with one `write(2)` in `O_APPEND` mode while they hold a shared lock on the folder; whoever rotates
//! holds it exclusively. A writer waits for the lock for a bounded time only: a process that is frozen while it holds it
//! must not stop another one's response. Correctness does not rest on the lock but on two looks at the file: a line
//! that does not begin after a newline is written again, and the file is opened anew when its name has moved on.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollTimeout, poll};

use super::Event;
use crate::policy::config::JournalLimits;
use crate::sys::durable;

/// Name of the file that is being written.
pub const CURRENT: &str = "journal.jsonl";
/// How long a lock is waited for.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);

/// Whether an append returns before the event is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk when it returns (fdatasync(2)).
    Synced,
    /// Written to the file; survives the process, not a power cut.
    Buffered,
}

/// The journal of one data folder, for appending.
///
/// Nothing is opened before the first append. A process that forks must not share one with its child: locks belong to
/// the open file.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    limits: JournalLimits,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    dir: File,
    file: File,
}

/// Folder of the journal's files below a data folder.
pub fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("events")
}

/// Name of a rotated file; 1 is the newest.
pub(super) fn rotated(n: u32) -> String {
    format!("journal.{n}.jsonl")
}

/// The number in a rotated file's name.
pub(super) fn rotated_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("journal.")?.strip_suffix(".jsonl")?;
    digits.parse().ok().filter(|n| *n > 0 && rotated(*n) == name)
}

impl Journal {
    /// The journal below `data_dir`. Opens and creates nothing yet.
    pub fn open(data_dir: &Path, limits: JournalLimits) -> Journal {
        Journal { dir: dir(data_dir), limits, open: None }
    }

    /// Appends one event.
    ///
    /// # Errors
    /// When the folder or file can't be made, or the disk is full, read-only or broken. The journal stays usable, and
    /// the event is then not in it, or in it and not yet durable if it is the sync that failed.
    pub fn append(&mut self, event: &Event, durability: Durability) -> Result<()> {
        let line = event.to_line();
        let result = self.try_append(&line, durability);
        if result.is_err() {
            // Whatever was wrong with the open files must not outlive its cause.
            self.open = None;
        }
        result.with_context(|| format!("failed to append to journal {}", self.dir.join(CURRENT).display()))
    }

    fn try_append(&mut self, line: &[u8], durability: Durability) -> io::Result<()> {
        let max_bytes = self.limits.max_bytes;
        let open = match self.open.take() {
            Some(open) => self.open.insert(open),
            None => self.open.insert(Open::new(&self.dir)?),
        };
        let mut locked = open.lock_shared()?;
        open.follow_name(&self.dir)?;
        let size = open.file.metadata()?.len();
        if size > 0 && size + line.len() as u64 > max_bytes {
            if locked {
                open.dir.unlock()?;
            }
            rotate(open, &self.dir, self.limits, line.len() as u64)?;
            locked = open.lock_shared()?;
            open.follow_name(&self.dir)?;
        }
        let written = open.write_line(line);
        if locked {
            open.dir.unlock()?;
        }
        written?;
        match durability {
            Durability::Synced => open.file.sync_data(),
            Durability::Buffered => Ok(()),
        }
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Open> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let dir = File::open(path)?;
        let file = create(path, dir.as_fd())?;
        Ok(Open { dir, file })
    }

    /// Whether the shared lock was had within the patience.
    fn lock_shared(&self) -> io::Result<bool> {
        wait_for_lock(LOCK_PATIENCE, || self.dir.try_lock_shared())
    }

    /// Opens the file anew if another process rotated, or someone removed, the one that is open.
    fn follow_name(&mut self, path: &Path) -> io::Result<()> {
        let open = self.file.metadata()?;
        match std::fs::symlink_metadata(path.join(CURRENT)) {
            Ok(named) if (named.dev(), named.ino()) == (open.dev(), open.ino()) => return Ok(()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if !same_place(&self.dir, path) {
            *self = Open::new(path)?;
            return Ok(());
        }
        self.file = create(path, self.dir.as_fd())?;
        Ok(())
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        let torn = size > 0 && self.byte_at(size - 1)? != Some(b'\n');
        self.put_line(line, torn)
    }

    /// `torn`: whether the file was seen to end in the middle of a line.
    fn put_line(&mut self, line: &[u8], torn: bool) -> io::Result<()> {
        let start = if torn { self.write_all(&[b"\n", line].concat())? + 1 } else { self.write_all(line)? };
        // Another writer may have left a torn line between the look and the write: then ours is glued to it and lost
        // to readers, who skip what is no JSON. Written again, it stands alone.
        if start > 0 && self.byte_at(start - 1)? != Some(b'\n') {
            self.write_all(&[b"\n", line].concat())?;
        }
        Ok(())
    }

    /// One write; returns where it began. What of it got through before an error is taken back where that is safe.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let written = loop {
            match self.file.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => break other?,
            }
        };
        // In O_APPEND mode the offset after a write is the end of what it wrote (write(2)).
        let end = io::Seek::stream_position(&mut self.file)?;
        let start = end - written as u64;
        if written == bytes.len() {
            return Ok(start);
        }
        self.take_back(start, end);
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    /// Cuts off a part of a line, if nobody else can have written after it. Otherwise the next writer heals it.
    fn take_back(&self, start: u64, end: u64) {
        let alone = self.dir.try_lock().is_ok();
        if alone && self.file.metadata().is_ok_and(|m| m.len() == end) {
            // On failure the torn line stays, which readers and writers bear.
            let _ = self.file.set_len(start);
        }
    }

    fn byte_at(&self, offset: u64) -> io::Result<Option<u8>> {
        let mut byte = [0];
        Ok((self.file.read_at(&mut byte, offset)? == 1).then_some(byte[0]))
    }
}

fn create(path: &Path, dir: BorrowedFd<'_>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    let path = path.join(CURRENT);
    match options.open(&path) {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "the journal is not a regular file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let file = options.create(true).open(&path)?;
            // A synced event in a file whose name a power cut takes away would not be durable.
            durable::sync_dir(dir)?;
            Ok(file)
        }
        Err(e) => Err(e),
    }
}

fn same_place(dir: &File, path: &Path) -> bool {
    match (dir.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Renames the files one number up and begins a new one, unless another process just did, or has the lock: then the
/// file grows past its limit by a few lines, and the next writer tries again.
fn rotate(open: &mut Open, path: &Path, limits: JournalLimits, more: u64) -> io::Result<()> {
    if !wait_for_lock(LOCK_PATIENCE, || open.dir.try_lock())? {
        return Ok(());
    }
    let current = path.join(CURRENT);
    let result = (|| {
        let full = std::fs::symlink_metadata(&current).is_ok_and(|m| m.len() > 0 && m.len() + more > limits.max_bytes);
        if !full {
            return Ok(());
        }
        let last = limits.max_files.max(2) - 1;
        remove_beyond(path, last)?;
        for n in (1..last).rev() {
            rename(&path.join(rotated(n)), &path.join(rotated(n + 1)))?;
        }
        rename(&current, &path.join(rotated(1)))?;
        open.file = create(path, open.dir.as_fd())?;
        Ok(())
    })();
    open.dir.unlock()?;
    result
}

/// Removes files numbered past the limit, which was larger once.
fn remove_beyond(path: &Path, last: u32) -> io::Result<()> {
    for entry in std::fs::read_dir(path)?.filter_map(Result::ok) {
        if entry.file_name().to_str().and_then(rotated_number).is_some_and(|n| n > last) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Tries for a lock until it is had or the patience ends. flock(2) has no deadline and no descriptor to poll.
pub(crate) fn wait_for_lock(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<(), TryLockError>,
) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(e)) => return Err(e),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(false),
            Err(TryLockError::WouldBlock) => {
                let none: &mut [PollFd<'_>] = &mut [];
                // An interrupted wait is only a shorter one.
                let _ = poll(none, PollTimeout::from(1u8));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_another_writer_tore_in_the_last_moment_does_not_take_ours_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = Open::new(dir.path()).unwrap();
        open.file.write_all(b"whole\ntorn").unwrap();
        open.put_line(b"ours\n", false).unwrap();
        let text = std::fs::read_to_string(dir.path().join(CURRENT)).unwrap();
        assert!(text.lines().any(|l| l == "ours"), "{text:?}");
    }

    #[test]
    fn a_part_of_a_line_is_taken_back_only_if_nothing_came_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = Open::new(dir.path()).unwrap();
        let text = || std::fs::read_to_string(dir.path().join(CURRENT)).unwrap();
        (&open.file).write_all(b"whole\npart").unwrap();
        open.take_back(6, 10);
        assert_eq!(text(), "whole\n");
        (&open.file).write_all(b"part\nnext\n").unwrap();
        open.take_back(6, 10);
        assert_eq!(text(), "whole\npart\nnext\n");
    }

    #[test]
    fn only_names_that_rotation_makes_count_as_rotated() {
        assert_eq!(rotated_number("journal.12.jsonl"), Some(12));
        for name in ["journal.0.jsonl", "journal.01.jsonl", "journal.jsonl", "journal.x.jsonl", "journal.1.jsonl~"] {
            assert_eq!(rotated_number(name), None, "{name}");
        }
    }
}
