//! A tripwire's difference to the image, as a tar with OCI whiteouts (OCI image layer specification): `.wh.NAME` for what
//! was deleted, `.wh..wh..opq` in a directory whose content was replaced.
//!
//! Whoever wrote it is an attacker until shown otherwise: nothing is followed, opened as a device or waited for, and
//! content, entries and depth are bounded.

use std::ffi::{CStr, OsStr};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use tar::{Builder, EntryType, Header};

use super::attributes::Attributes;
use super::listing::{entry, is_opaque, names};
use crate::sys::statx::Instant;
use crate::sys::{proc_fd, xattr};

/// Directories within each other that are kept: a bound on open files.
const MAX_DEPTH: usize = 128;

/// overlayfs's own attributes that tell what happened: a directory that was moved, a file whose content did not change.
const TELLING: [&str; 4] =
    ["trusted.overlay.redirect", "trusted.overlay.metacopy", "user.overlay.redirect", "user.overlay.metacopy"];

/// What an archive holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Archived {
    /// Entries of the difference, whiteouts among them.
    pub entries: usize,
    /// Content, in bytes, without the tar's own.
    pub bytes: u64,
    /// Whether a limit left something out.
    pub truncated: bool,
}

/// Bounds of one archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Size of the tar, in bytes.
    pub max_bytes: u64,
    /// Entries.
    pub max_entries: usize,
}

impl Default for ArchiveLimits {
    /// 64 MiB, 10,000 entries.
    fn default() -> Self {
        Self { max_bytes: 64 << 20, max_entries: 10_000 }
    }
}

struct Archive<W: Write> {
    tar: Builder<W>,
    limits: ArchiveLimits,
    used_bytes: u64,
    done: Archived,
}

/// Writes the upper directory of a tripwire (readable or `O_PATH`) to `out`. What vanishes meanwhile is left out; a file
/// that is cut short carries its full size as PAX record `LITHIFY.size`.
///
/// # Errors
/// When `out` can't be written, or the upper not be read.
pub fn archive<W: Write>(upper: BorrowedFd<'_>, out: W, limits: ArchiveLimits) -> Result<Archived> {
    // The end of a tar is two empty blocks.
    let mut archive = Archive { tar: Builder::new(out), limits, used_bytes: 1024, done: Archived::default() };
    archive.children(upper, b"", 0)?;
    archive.tar.into_inner().and_then(|mut out| out.flush()).context("failed to end the archive")?;
    Ok(archive.done)
}

impl<W: Write> Archive<W> {
    fn children(&mut self, dir: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<()> {
        let left = self.limits.max_entries - self.done.entries;
        let mut names = names(dir, left + 1).context("failed to list a directory of the difference")?;
        if names.len() > left {
            names.truncate(left);
            self.done.truncated = true;
        }
        for name in names {
            if self.done.entries >= self.limits.max_entries {
                self.done.truncated = true;
                break;
            }
            let shown = [path, name.to_bytes()].concat();
            match self.one(dir, &name, path, depth) {
                Err(e) if vanished(&e) => {}
                other => other.with_context(|| format!("failed to archive /{}", String::from_utf8_lossy(&shown)))?,
            }
        }
        Ok(())
    }

    fn one(&mut self, dir: BorrowedFd<'_>, name: &CStr, parent: &[u8], depth: usize) -> Result<()> {
        let fd = entry(dir, name)?;
        let attributes = Attributes::of(fd.as_fd())?;
        let status = &attributes.status;
        let mut path = [parent, name.to_bytes()].concat();
        if status.is_whiteout() {
            let path = [parent, b".wh.", name.to_bytes()].concat();
            return self.plain(&path, EntryType::Regular, status.modified);
        }
        let mut header = Header::new_ustar();
        header.set_size(0);
        header.set_mode(status.mode & 0o7777);
        header.set_uid(u64::from(status.uid));
        header.set_gid(u64::from(status.gid));
        header.set_mtime(u64::try_from(status.modified.secs).unwrap_or(0));
        let mut records = self.records(&fd, &attributes)?;
        match status.kind() {
            libc::S_IFDIR => {
                header.set_entry_type(EntryType::Directory);
                path.push(b'/');
                self.append(header, &path, None, records, io::empty())?;
                if is_opaque(fd.as_fd())? {
                    self.plain(&[&path, &b".wh..wh..opq"[..]].concat(), EntryType::Regular, status.modified)?;
                }
                if depth >= MAX_DEPTH {
                    self.done.truncated = true;
                    return Ok(());
                }
                return self.children(fd.as_fd(), &path, depth + 1);
            }
            libc::S_IFREG => {
                header.set_entry_type(EntryType::Regular);
                let unchanged = records.iter().any(|(key, _)| key.ends_with(".overlay.metacopy"));
                let left = self.limits.max_bytes.saturating_sub(self.used_bytes + room(&path, &records));
                // Half of what is left, so that one big file does not push out the names of all that follow it.
                let kept = if unchanged { 0 } else { status.size.min(left / 2) };
                if kept < status.size {
                    self.done.truncated |= !unchanged;
                    records.push(("LITHIFY.size".to_owned(), status.size.to_string().into_bytes()));
                }
                header.set_size(kept);
                let content = std::fs::File::from(proc_fd::reopen(fd.as_fd(), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
                // Somebody may cut the file while it is read: a tar has to have what its header promised.
                let exact = content.chain(io::repeat(0)).take(kept);
                return self.append(header, &path, None, records, exact);
            }
            libc::S_IFLNK => {
                header.set_entry_type(EntryType::Symlink);
                let target = readlinkat(&fd, "")?;
                return self.append(header, &path, Some(target.as_bytes()), records, io::empty());
            }
            libc::S_IFIFO => header.set_entry_type(EntryType::Fifo),
            libc::S_IFCHR | libc::S_IFBLK => {
                let character = status.kind() == libc::S_IFCHR;
                header.set_entry_type(if character { EntryType::Char } else { EntryType::Block });
                header.set_device_major(status.rdev.0)?;
                header.set_device_minor(status.rdev.1)?;
            }
            _ => {
                // A tar knows no sockets.
                header.set_entry_type(EntryType::Regular);
                records.push(("LITHIFY.type".to_owned(), b"socket".to_vec()));
            }
        }
        self.append(header, &path, None, records, io::empty())
    }

    /// An entry that only its name matters of.
    fn plain(&mut self, path: &[u8], kind: EntryType, at: Instant) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_size(0);
        header.set_entry_type(kind);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(at.secs).unwrap_or(0));
        self.append(header, path, None, Vec::new(), io::empty())
    }

    fn records(&self, fd: &OwnedFd, attributes: &Attributes) -> Result<Vec<(String, Vec<u8>)>> {
        let at = attributes.status.modified;
        // A negative time with nanoseconds counts them backwards in decimal notation; seconds will do for those.
        let time = if at.secs < 0 { at.secs.to_string() } else { format!("{}.{:09}", at.secs, at.nanos) };
        let mut records = vec![("mtime".to_owned(), time.into_bytes())];
        for (name, value) in &attributes.xattrs {
            // The format has no way to write an equals sign in a name.
            if let Some(name) = name.to_str().filter(|name| !name.contains('=')) {
                records.push((format!("SCHILY.xattr.{name}"), value.clone()));
            }
        }
        for name in TELLING {
            if let Some(value) = xattr::get(fd, OsStr::new(name)).context("failed to read an overlay attribute")? {
                records.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        Ok(records)
    }

    fn append(
        &mut self,
        mut header: Header,
        path: &[u8],
        link: Option<&[u8]>,
        mut records: Vec<(String, Vec<u8>)>,
        content: impl Read,
    ) -> Result<()> {
        if path.len() > 99 {
            records.push(("path".to_owned(), path.to_vec()));
        }
        if let Some(link) = link.filter(|link| link.len() > 99) {
            records.push(("linkpath".to_owned(), link.to_vec()));
        }
        let size = header.entry_size().unwrap_or(0);
        let needed = room(path, &records) + link.map_or(0, |l| l.len() as u64) + size.next_multiple_of(512);
        if self.used_bytes + needed > self.limits.max_bytes || self.done.entries >= self.limits.max_entries {
            self.done.truncated = true;
            return Ok(());
        }
        self.tar
            .append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
            .context("failed to write the archive")?;
        let ustar = header.as_ustar_mut().context("failed to write a header")?;
        let (name, linkname) = (&path[..path.len().min(99)], link.unwrap_or_default());
        ustar.name[..name.len()].copy_from_slice(name);
        ustar.linkname[..linkname.len().min(99)].copy_from_slice(&linkname[..linkname.len().min(99)]);
        header.set_cksum();
        self.tar.append(&header, content).context("failed to write the archive")?;
        self.used_bytes += needed;
        self.done.entries += 1;
        self.done.bytes += size;
        Ok(())
    }
}

/// What an entry's header and PAX records take at most, in bytes.
fn room(path: &[u8], records: &[(String, Vec<u8>)]) -> u64 {
    let records: usize = records.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
    // Header, PAX header, PAX records and their padding, path and link as records, padding of the content.
    (512 * 5 + records + path.len() + 128) as u64
}

/// Whether an error only says that an entry went away while the tree was read.
fn vanished(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref::<Errno>(), Some(Errno::ENOENT | Errno::ESTALE))
            || cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
    })
}
