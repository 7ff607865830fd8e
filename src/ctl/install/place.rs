//! Files below a root folder, reached so that no symbolic link leads out of it.
//!
//! Owns: reading, writing and removing them. Must not: follow a link in the file's own place, for a rename would replace
//! it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys::durable;

/// Larger files are refused, in bytes.
const MAX_LEN: u64 = 4 << 20;

/// An open root folder.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the folder that stands for `/`.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(path: &Path) -> Result<Root> {
        let file = File::open(path).with_context(|| format!("failed to open root folder {}", path.display()))?;
        Ok(Root(file.into()))
    }

    /// The text of a file; `None` if it or its folder does not exist.
    ///
    /// # Errors
    /// When it is a symbolic link, no regular file, larger than 4 MiB, not UTF-8, or can't be read.
    pub fn read(&self, path: &Path) -> Result<Option<String>> {
        let context = || format!("failed to read {}", path.display());
        let (parent, name) = split(path)?;
        let Some(dir) = self.dir(parent, false)? else { return Ok(None) };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&dir, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => bail!("{}: it is a symbolic link; replace it by the file itself", context()),
            Err(e) => return Err(e).with_context(context),
        };
        let meta = file.metadata().with_context(context)?;
        if !meta.is_file() || meta.len() > MAX_LEN {
            bail!("{}: it is no regular file, or larger than {MAX_LEN} bytes", context());
        }
        let mut text = String::new();
        file.take(MAX_LEN).read_to_string(&mut text).with_context(context)?;
        Ok(Some(text))
    }

    /// Replaces or creates a file, durably; its folders are made.
    ///
    /// # Errors
    /// When a folder or the file can't be written.
    pub fn write(&self, path: &Path, text: &str) -> Result<()> {
        let context = || format!("failed to write {}", path.display());
        let (parent, name) = split(path)?;
        let dir = self.dir(parent, true)?.with_context(context)?;
        durable::write_in(dir.as_fd(), name, text.as_bytes(), 0o644).with_context(context)
    }

    /// Removes a file, durably.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(&self, path: &Path) -> Result<()> {
        let context = || format!("failed to remove {}", path.display());
        let (parent, name) = split(path)?;
        let Some(dir) = self.dir(parent, false)? else { return Ok(()) };
        unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir).with_context(context)?;
        durable::sync_dir(dir.as_fd()).with_context(context)
    }

    /// Opens a folder below the root; links in the way lead where they would if the root were `/` (openat2(2), Linux
    /// 5.6).
    fn dir(&self, path: &Path, create: bool) -> Result<Option<OwnedFd>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = || OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let context = || format!("failed to open folder {}", path.display());
        match openat2(&self.0, path, how()) {
            Ok(dir) => return Ok(Some(dir)),
            Err(Errno::ENOENT) if !create => return Ok(None),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(e).with_context(context),
        }
        let mut sofar = PathBuf::from(".");
        let mut dir = openat2(&self.0, &sofar, how()).with_context(context)?;
        for part in path.components().filter(|c| matches!(c, Component::Normal(_))) {
            sofar.push(part);
            match mkdirat(&dir, part.as_os_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) => durable::sync_dir(dir.as_fd()).with_context(context)?,
                Err(Errno::EEXIST) => {}
                Err(e) => return Err(e).with_context(context),
            }
            dir = openat2(&self.0, &sofar, how()).with_context(context)?;
        }
        Ok(Some(dir))
    }
}

fn split(path: &Path) -> Result<(&Path, &Path)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, Path::new(name))),
        _ => bail!("{} names no file", path.display()),
    }
}
