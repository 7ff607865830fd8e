//! One folder of the store, held open: nothing in it is reached by a path that could be exchanged under us.
//!
//! Owns: whom the store trusts, bounded reading, locks. Must not: know what the files mean.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, TryLockError};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::check::MAX_BYTES;
use crate::events::journal::wait_for_lock;
use crate::sys::durable;

/// How long to wait for another process that folds into the same workload: it reads and writes one file.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Most names that are listed.
const MAX_NAMES: usize = 100_000;

/// A document's file, or a folder. The one that was written first is the least.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// When it was written: seconds since 1970, and nanoseconds.
    pub written: (i64, i64),
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// What there is in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Documents.
    pub total: usize,
    /// The size of all of them.
    pub bytes: u64,
    /// Those that were written last, the newest first.
    pub newest: Vec<Entry>,
}

/// An open folder.
pub struct Folder {
    dir: File,
    path: PathBuf,
}

impl Folder {
    /// Opens `<top>/<names…>`; `None` if it is not there. `top` itself may be a symbolic link: it is the administrator's to
    /// place.
    ///
    /// # Errors
    /// When it can't be opened, is a symbolic link below `top`, or someone other than root could change what is in it.
    pub fn open(top: &Path, names: &[&str]) -> Result<Option<Folder>> {
        let dir = match File::open(top) {
            Ok(dir) => dir,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("failed to open folder {}", top.display())),
        };
        let mut folder = Folder::top(dir, top)?;
        for name in names {
            match folder.enter(name)? {
                Some(next) => folder = next,
                None => return Ok(None),
            }
        }
        Ok(Some(folder))
    }

    /// As [`Folder::open`], and makes what is missing, for root alone.
    ///
    /// # Errors
    /// As [`Folder::open`], or when a folder can't be made.
    pub fn create(top: &Path, names: &[&str]) -> Result<Folder> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(top)
            .with_context(|| format!("failed to make folder {}", top.display()))?;
        let dir = File::open(top).with_context(|| format!("failed to open folder {}", top.display()))?;
        let mut folder = Folder::top(dir, top)?;
        for name in names {
            match mkdirat(&folder.dir, *name, Mode::S_IRWXU) {
                Ok(()) => durable::sync_dir(folder.dir.as_fd())?,
                Err(nix::Error::EEXIST) => {}
                Err(e) => {
                    let path = folder.path.join(name);
                    return Err(e).with_context(|| format!("failed to make folder {}", path.display()));
                }
            }
            let path = folder.path.join(name);
            folder = folder.enter(name)?.with_context(|| format!("folder {} vanished", path.display()))?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn top(dir: File, path: &Path) -> Result<Folder> {
        trusted(&dir).with_context(|| format!("failed to open folder {}", path.display()))?;
        Ok(Folder { dir, path: path.to_path_buf() })
    }

    fn enter(&self, name: &str) -> Result<Option<Folder>> {
        let path = self.path.join(name);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(nix::Error::ELOOP | nix::Error::ENOTDIR) => {
                bail!(
                    "failed to open folder {}: it is a file or a symbolic link, and the store follows none; remove it",
                    path.display()
                )
            }
            Err(e) => return Err(e).with_context(|| format!("failed to open folder {}", path.display())),
        };
        trusted(&dir).with_context(|| format!("failed to open folder {}", path.display()))?;
        Ok(Some(Folder { dir, path }))
    }

    /// The content of a file; `None` if it is not there.
    ///
    /// # Errors
    /// When it can't be read, is no regular file, is larger than [`MAX_BYTES`], or someone other than root could have
    /// written it.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        // A pipe must not make us wait.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(nix::Error::ELOOP) => bail!("it is a symbolic link, and the store follows none; remove it"),
            Err(e) => return Err(e.into()),
        };
        ensure!(file.metadata()?.is_file(), "it is no regular file; remove it");
        trusted(&file)?;
        bounded(file).map(Some)
    }

    /// Replaces or makes a file, durably and in one step.
    ///
    /// # Errors
    /// When it is larger than what could be read again, or can't be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        ensure!(bytes.len() <= MAX_BYTES, "{} bytes are more than the {MAX_BYTES} that can be read again", bytes.len());
        Ok(durable::write_in(self.dir.as_fd(), Path::new(name), bytes, 0o600)?)
    }

    /// Removes a file; one that is gone is well.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("failed to remove {}", self.path.join(name).display())),
        }
    }

    /// Removes a folder in it with the documents that it has; what else is in it, or comes to be, keeps it there.
    ///
    /// # Errors
    /// When it, or one of them, can't be removed.
    pub fn remove_folder(&self, name: &str) -> Result<()> {
        let Some(folder) = self.enter(name)? else { return Ok(()) };
        for Entry { name, .. } in folder.listing(usize::MAX)?.newest {
            folder.remove(&name)?;
        }
        match unlinkat(&self.dir, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT | nix::Error::ENOTEMPTY | nix::Error::EEXIST) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("failed to remove {}", folder.path.display())),
        }
    }

    /// The names in it that do not begin with a dot, sorted.
    ///
    /// # Errors
    /// When it can't be listed, or has more names than is reasonable.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.each(|name| {
            names.push(name.to_string());
            ensure!(
                names.len() <= MAX_NAMES,
                "failed to list folder {}: more than {MAX_NAMES} names; run 'lithifyctl profile gc'",
                self.path.display()
            );
            Ok(())
        })?;
        names.sort();
        Ok(names)
    }

    /// How many documents there are, how large all of them, and the `most` of them that were written last. None is opened.
    ///
    /// # Errors
    /// When it can't be listed.
    pub fn listing(&self, most: usize) -> Result<Listing> {
        self.list(most, |name| name.ends_with(".json"))
    }

    /// The same of what the folder has by names that are wanted.
    ///
    /// # Errors
    /// When it can't be listed.
    pub fn list(&self, most: usize, is_wanted: impl Fn(&str) -> bool) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut newest = BinaryHeap::new();
        self.each(|name| {
            if !is_wanted(name) {
                return Ok(());
            }
            // One that was removed in the meantime is none.
            let Ok(meta) = fstatat(&self.dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { return Ok(()) };
            let bytes = u64::try_from(meta.st_size).unwrap_or(0);
            listing.total += 1;
            listing.bytes = listing.bytes.saturating_add(bytes);
            newest.push(Reverse(Entry { written: (meta.st_mtime, meta.st_mtime_nsec), name: name.to_owned(), bytes }));
            if newest.len() > most {
                newest.pop();
            }
            Ok(())
        })?;
        listing.newest = newest.into_sorted_vec().into_iter().map(|Reverse(entry)| entry).collect();
        Ok(listing)
    }

    /// Calls `with` for each name that does not begin with a dot.
    fn each(&self, mut with: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let listing = || format!("failed to list folder {}", self.path.display());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        for entry in Dir::openat(&self.dir, ".", flags, Mode::empty()).with_context(listing)? {
            let entry = entry.with_context(listing)?;
            // Ours are ASCII; another's need not be shown.
            if let Some(name) = entry.file_name().to_str().ok().filter(|name| !name.starts_with('.')) {
                with(name)?;
            }
        }
        Ok(())
    }

    /// Waits until no other process of ours changes this folder; until the lock is dropped, none does.
    ///
    /// # Errors
    /// When another process holds it for longer than is reasonable.
    pub fn lock(&self) -> Result<Lock<'_>> {
        self.lock_within(LOCK_PATIENCE)
    }

    /// As [`Folder::lock`], for work that may take another while.
    ///
    /// # Errors
    /// When another process holds it for longer than `patience`.
    pub fn lock_within(&self, patience: Duration) -> Result<Lock<'_>> {
        let locking = || format!("failed to lock folder {}", self.path.display());
        let had = wait_for_lock(patience, || -> Result<(), TryLockError> { self.dir.try_lock() });
        ensure!(had.with_context(locking)?, "{}: another process holds it; see 'fuser {0}'", self.path.display());
        Ok(Lock(self))
    }
}

/// A held lock.
pub struct Lock<'f>(&'f Folder);

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // Closing the folder gives it up, too.
        let _ = self.0.dir.unlock();
    }
}

/// Reads all of a file, unless it is larger than a document may be.
///
/// # Errors
/// When it is, or can't be read.
pub fn bounded(file: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() <= MAX_BYTES, "it is larger than {MAX_BYTES} bytes, and no honest one is; remove it");
    Ok(bytes)
}

/// What decides over a workload may only be root's to write (or, without root, this user's).
fn trusted(file: &File) -> Result<()> {
    let meta = file.metadata()?;
    let us = nix::unistd::geteuid().as_raw();
    let (uid, mode) = (meta.uid(), meta.mode() & 0o7777);
    ensure!(
        uid == 0 || uid == us,
        "it belongs to uid {uid}, who could have widened it; look at what it says, then 'chown root' it, or remove it"
    );
    ensure!(
        mode & 0o022 == 0,
        "its mode is {mode:04o}, and others could have widened it; look at what it says, then 'chmod go-w' it, or remove it"
    );
    Ok(())
}
