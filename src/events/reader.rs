//! Reading the journal: the rotated files in order, then the current one, then what comes.
//!
//! Owns: a reader's place in the files, and its filter. Must not: write, or hold a lock while it reads.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use inotify::{Inotify, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::journal::{self, CURRENT};
use super::{Event, EventType, MAX_LINE, clock};

/// Which events a reader wants; the default wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The container's id, or the beginning of it.
    pub container: Option<String>,
    /// Not before this, in microseconds since 1970.
    pub since_micros: Option<i64>,
    /// Of this type.
    pub event_type: Option<EventType>,
}

impl Filter {
    /// Whether an event is wanted.
    pub fn wants(&self, event: &Event) -> bool {
        self.container.as_deref().is_none_or(|id| event.subject.starts_with(id))
            && self.event_type.is_none_or(|t| t == event.event_type)
            && self.since_micros.is_none_or(|since| clock::parse(&event.time).is_none_or(|time| time >= since))
    }
}

/// One file with the reader's place in it.
#[derive(Debug)]
struct Place {
    lines: BufReader<File>,
    /// A line whose end has not been written yet.
    part: Vec<u8>,
    /// The line is longer than any event: skip to its end.
    overlong: bool,
}

/// Reads events, oldest first.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    filter: Filter,
    /// Files still to be read, oldest first; the last one is where new events come.
    files: VecDeque<Place>,
    skipped: u64,
}

impl Reader {
    /// Opens what the journal below `data_dir` has now. A journal that does not exist has no events.
    ///
    /// # Errors
    /// When the folder or a file in it can't be read.
    pub fn open(data_dir: &Path, filter: Filter) -> Result<Reader> {
        let dir = journal::dir(data_dir);
        let files = open_from(&dir, None).with_context(|| format!("failed to read journal {}", dir.display()))?;
        Ok(Reader { dir, filter, files, skipped: 0 })
    }

    /// The next event that is there, or `None` at the end for now.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        self.next_in_files().with_context(|| format!("failed to read journal {}", self.dir.display()))
    }

    /// Lines that were no events: torn by a crash, or foreign.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn next_in_files(&mut self) -> io::Result<Option<Event>> {
        loop {
            let last = self.files.len() <= 1;
            let Some(place) = self.files.front_mut() else { return Ok(None) };
            match place.next_line()? {
                Some(line) => match serde_json::from_slice::<Event>(&line) {
                    Ok(event) if self.filter.wants(&event) => return Ok(Some(event)),
                    Ok(_) => {}
                    Err(_) if line.iter().all(u8::is_ascii_whitespace) => {}
                    Err(_) => self.skipped += 1,
                },
                None if last => return Ok(None),
                None => {
                    self.skipped += u64::from(!place.part.is_empty());
                    self.files.pop_front();
                }
            }
        }
    }

    /// After the end was reached: looks whether the journal was rotated meanwhile, and takes up the newer files.
    fn catch_up(&mut self) -> io::Result<()> {
        let newest = match self.files.back() {
            Some(place) => Some(identity(place.lines.get_ref())?),
            None => None,
        };
        self.files.extend(open_from(&self.dir, newest)?);
        Ok(())
    }
}

impl Place {
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let chunk = self.lines.fill_buf()?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let end = chunk.iter().position(|b| *b == b'\n');
            let taken = end.map_or(chunk.len(), |i| i + 1);
            if self.part.len() + taken > MAX_LINE {
                self.overlong = true;
                self.part.clear();
            } else if !self.overlong {
                self.part.extend_from_slice(&chunk[..taken]);
            }
            self.lines.consume(taken);
            if end.is_some() {
                let overlong = std::mem::take(&mut self.overlong);
                let line = std::mem::take(&mut self.part);
                // An overlong line is handed on as something that is no event.
                return Ok(Some(if overlong { b"overlong".to_vec() } else { line }));
            }
        }
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|m| (m.dev(), m.ino()))
}

/// Opens the journal's files, oldest first; with `after`, only those newer than that one (all, if it is gone).
fn open_from(dir: &Path, after: Option<(u64, u64)>) -> io::Result<VecDeque<Place>> {
    let lock = match File::open(dir) {
        Ok(lock) => lock,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        Err(e) => return Err(e),
    };
    // Held while names are opened, so that no rotation hides or doubles a file. Without it the worst is just that.
    let locked = journal::wait_for_lock(Duration::from_secs(1), || lock.try_lock_shared())?;
    let files = open_all(dir);
    if locked {
        lock.unlock()?;
    }
    let mut files = files?;
    if let Some(after) = after {
        let known = files.iter().position(|f| identity(f).is_ok_and(|id| id == after));
        files.drain(..known.map_or(0, |i| i + 1));
    }
    let place = |file| Place { lines: BufReader::new(file), part: Vec::new(), overlong: false };
    Ok(files.into_iter().map(place).collect())
}

fn open_all(dir: &Path) -> io::Result<Vec<File>> {
    let mut names: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        match name.to_str() {
            Some(CURRENT) => names.push((0, entry.path())),
            Some(name) => names.extend(journal::rotated_number(name).map(|n| (n, entry.path()))),
            None => {}
        }
    }
    names.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    let mut files = Vec::new();
    for (_, path) in names {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) if file.metadata()?.is_file() => files.push(file),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(files)
}

/// A reader that also waits for events to come.
#[derive(Debug)]
pub struct Follower {
    reader: Reader,
    inotify: Inotify,
}

impl Follower {
    /// Follows the journal below `data_dir`. Its folder is made if it is missing, so that there is something to watch.
    ///
    /// # Errors
    /// When the folder can't be made or read, or inotify's limits are reached.
    pub fn open(data_dir: &Path, filter: Filter) -> Result<Follower> {
        let dir = journal::dir(data_dir);
        let context = || format!("failed to follow journal {}", dir.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).with_context(context)?;
        let inotify = Inotify::init().context("raise fs.inotify.max_user_instances").with_context(context)?;
        // Watched before it is read: what is written in between wakes us once for nothing, and is never missed.
        let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::DELETE_SELF;
        inotify.watches().add(&dir, mask).with_context(context)?;
        Ok(Follower { reader: Reader::open(data_dir, filter)?, inotify })
    }

    /// The next event, waiting for it as long as it takes, or until the other end of the pipe or socket `until` is
    /// closed: then `None`.
    ///
    /// # Errors
    /// When a file can't be read, or the folder was removed.
    pub fn next_event(&mut self, until: Option<BorrowedFd<'_>>) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.reader.next_event()? {
                return Ok(Some(event));
            }
            self.reader.catch_up().context("failed to follow the journal")?;
            if let Some(event) = self.reader.next_event()? {
                return Ok(Some(event));
            }
            if self.wait(until)? {
                return Ok(None);
            }
        }
    }

    /// The reader within, for its count of skipped lines.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    fn wait(&mut self, until: Option<BorrowedFd<'_>>) -> Result<bool> {
        let mut fds = vec![PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        // Errors and hang-ups are told without being asked for (poll(2)); what someone types is nothing to us.
        fds.extend(until.map(|fd| PollFd::new(fd, PollFlags::empty())));
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => continue,
                other => other.context("failed to wait for events")?,
            };
            break;
        }
        let ended = fds.get(1).and_then(PollFd::any).unwrap_or(false);
        if fds[0].any().unwrap_or(false) {
            let mut buffer = [0; 4096];
            let gone = self.inotify.read_events(&mut buffer).context("failed to read inotify events")?;
            anyhow::ensure!(
                !gone.into_iter().any(|e| e.mask.contains(inotify::EventMask::DELETE_SELF)),
                "the journal's folder {} was removed; start again to follow its successor",
                self.reader.dir.display()
            );
        }
        Ok(ended)
    }
}
