//! The engine's own writes before the first protected start: Docker makes the working directory and the mount points of
//! volumes in its writable layer, and people `docker cp` into a container before they start it. They belong to what is
//! sealed; what came later does not.
//!
//! Earlier and later are told apart by the time of an entry's last change (`ctime`), which no program can set, against
//! an instant that is kept as an extended attribute of the layer.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::attributes::Attributes;
use super::listing::{entry, names};
use super::resolve::{Found, resolve};
use crate::sys::statx::{Status, statx};
use crate::sys::{proc_fd, xattr};

/// The attribute of a writable layer that says when it was sealed: seconds and nanoseconds since 1970, `s.nnnnnnnnn`.
pub const SEALED: &str = "trusted.lithify.sealed";

/// Directories within each other that are copied: a bound on open files.
const MAX_DEPTH: usize = 128;

/// Marks of overlayfs that mean the same on the skeleton as on the layer they come from.
const KEPT_MARKS: [&str; 4] =
    ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "user.overlay.redirect"];

/// With these, an entry has attributes only, and its content is in a layer beneath.
const METACOPY: [&str; 2] = ["trusted.overlay.metacopy", "user.overlay.metacopy"];

/// What of the engine's writable layer is taken into the sealed root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    /// Entries that changed later are left out; from [`seal_mark`].
    pub instant: SystemTime,
    /// Most content that is taken.
    pub max_bytes: u64,
    /// Most entries that are looked at.
    pub max_entries: usize,
}

impl Baseline {
    /// With the default limits: 64 MiB, 10,000 entries.
    #[must_use]
    pub fn until(instant: SystemTime) -> Self {
        Self { instant, max_bytes: 64 << 20, max_entries: 10_000 }
    }
}

/// Marks a writable layer as sealed `now` and returns that instant, or the earlier one that the mark already tells.
///
/// # Errors
/// When the layer's filesystem keeps no such attributes or is read-only, or the mark can't be read.
pub fn seal_mark(upper: BorrowedFd<'_>, now: SystemTime) -> Result<SystemTime> {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970; set it")?;
    let text = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
    match xattr::create(upper, SEALED.as_ref(), text.as_bytes()) {
        // What was written is what counts: SystemTime may be finer than the text.
        Ok(()) => return parse_mark(text.as_bytes()),
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
        Err(e) => return Err(e).with_context(|| format!("failed to set {SEALED} on the engine's writable layer")),
    }
    let value = xattr::get(upper, SEALED.as_ref())
        .with_context(|| format!("failed to read {SEALED} of the engine's writable layer"))?;
    parse_mark(&value.unwrap_or_default())
}

fn parse_mark(value: &[u8]) -> Result<SystemTime> {
    let parsed = (|| {
        let (secs, nanos) = std::str::from_utf8(value).ok()?.split_once('.')?;
        if nanos.len() != 9 || !nanos.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        SystemTime::UNIX_EPOCH.checked_add(Duration::new(secs.parse().ok()?, nanos.parse().ok()?))
    })();
    parsed.with_context(|| {
        format!(
            "failed to read {SEALED} of the engine's writable layer: expected seconds.nanoseconds, found {:?}; create the container again",
            String::from_utf8_lossy(&value[..value.len().min(64)])
        )
    })
}

struct Copy<'a> {
    skeleton: BorrowedFd<'a>,
    image: BorrowedFd<'a>,
    merged: BorrowedFd<'a>,
    limits: &'a Baseline,
    bytes: u64,
    entries: usize,
    links: HashMap<u64, PathBuf>,
    lost: Vec<(PathBuf, OsString)>,
}

/// Copies the baseline of `upper` into `skeleton`; `None` where there is none, else the extended attributes that could not
/// be kept. `image` is the view of the layers
/// without `upper`, `merged` the one with it.
pub(super) fn copy(
    upper: BorrowedFd<'_>,
    skeleton: BorrowedFd<'_>,
    image: BorrowedFd<'_>,
    merged: BorrowedFd<'_>,
    limits: &Baseline,
) -> Result<Option<Vec<(PathBuf, OsString)>>> {
    let mut copy =
        Copy { skeleton, image, merged, limits, bytes: 0, entries: 0, links: HashMap::new(), lost: Vec::new() };
    let any = copy.children(upper, skeleton, Path::new(""), 0)?;
    Ok(any.then_some(copy.lost))
}

impl Copy<'_> {
    fn children(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<bool> {
        let left = self.limits.max_entries - self.entries;
        let names = names(from, left + 1)
            .with_context(|| format!("failed to list /{} of the engine's writable layer", path.display()))?;
        if names.len() > left {
            bail!(
                "failed to seal what the engine wrote before the start: with /{} it is more than {} entries; put them into the image or a volume",
                path.display(),
                self.limits.max_entries
            );
        }
        self.entries += names.len();
        let mut any = false;
        for name in names {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            any |= self
                .one(from, to, &name, &path, depth)
                .with_context(|| format!("failed to take /{} of the engine's writable layer", path.display()))?;
        }
        Ok(any)
    }

    fn one(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        path: &Path,
        depth: usize,
    ) -> Result<bool> {
        let source = entry(from, name)?;
        let attributes = Attributes::of(source.as_fd())?;
        let status = &attributes.status;
        let early = SystemTime::from(status.changed) <= self.limits.instant;
        if status.is_dir() {
            return self.dir(&source, to, name, path, depth, &attributes, early);
        }
        if !early {
            return Ok(false);
        }
        if status.links > 1
            && let Some(first) = self.links.get(&status.ino)
        {
            linkat(self.skeleton, first, to, name, AtFlags::empty()).context("failed to make a hard link")?;
            return Ok(true);
        }
        match status.kind() {
            libc::S_IFLNK => symlinkat(readlinkat(&source, "")?.as_os_str(), to, name)?,
            libc::S_IFREG => self.file(&source, to, name, path, status)?,
            kind => {
                let device = makedev(u64::from(status.rdev.0), u64::from(status.rdev.1));
                mknodat(to, name, SFlag::from_bits_truncate(kind), Mode::empty(), device)?;
            }
        }
        let made = entry(to, name)?;
        if !status.is_whiteout() {
            self.put(&attributes, made.as_fd(), path)?;
        }
        let after = statx(source.as_fd())?;
        if after.changed != status.changed {
            // Somebody writes there now: that is later than the instant.
            unlinkat(to, name, UnlinkatFlags::NoRemoveDir)?;
            return Ok(false);
        }
        if status.links > 1 && !status.is_whiteout() {
            self.links.insert(status.ino, path.to_owned());
        }
        Ok(true)
    }

    /// A directory that changed later still is looked into, if it was made before: a later `docker cp` of one file into
    /// it does not take the others away. Its attributes are then the image's, or else the engine's without the right of
    /// others to write.
    #[allow(clippy::too_many_arguments)]
    fn dir(
        &mut self,
        source: &OwnedFd,
        to: BorrowedFd<'_>,
        name: &CStr,
        path: &Path,
        depth: usize,
        attributes: &Attributes,
        early: bool,
    ) -> Result<bool> {
        let born_early = attributes.status.born.is_some_and(|at| SystemTime::from(at) <= self.limits.instant);
        if !early && !born_early {
            return Ok(false);
        }
        if depth >= MAX_DEPTH {
            bail!("it lies more than {MAX_DEPTH} directories deep; put it into the image or a volume");
        }
        mkdirat(to, name, Mode::S_IRWXU)?;
        let made = openat(
            to,
            name,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let any = self.children(source.as_fd(), made.as_fd(), path, depth + 1)?;
        if !early && !any {
            unlinkat(to, name, UnlinkatFlags::RemoveDir)?;
            return Ok(false);
        }
        if early {
            for mark in KEPT_MARKS {
                if let Some(value) = xattr::get(source, mark.as_ref())? {
                    xattr::set(&made, mark.as_ref(), &value)?;
                }
            }
            self.put(attributes, made.as_fd(), path)?;
            return Ok(true);
        }
        let of_image = resolve(self.image, path, |_| false)?;
        let mut kept = attributes.clone();
        match of_image.found {
            Found::Whole(dir) if of_image.path == path && statx(dir.as_fd())?.is_dir() => {
                kept = Attributes::of(dir.as_fd())?;
            }
            _ => {
                kept.status.mode &= !0o022;
                kept.xattrs.clear();
            }
        }
        self.put(&kept, made.as_fd(), path)?;
        Ok(true)
    }

    fn put(&mut self, attributes: &Attributes, made: BorrowedFd<'_>, path: &Path) -> Result<()> {
        let names = attributes.put(made)?;
        self.lost.extend(names.into_iter().map(|name| (path.to_owned(), name)));
        Ok(())
    }

    fn file(&mut self, source: &OwnedFd, to: BorrowedFd<'_>, name: &CStr, path: &Path, status: &Status) -> Result<()> {
        self.bytes = self.bytes.saturating_add(status.size);
        if self.bytes > self.limits.max_bytes {
            bail!(
                "what the engine wrote before the start is more than {} bytes; put it into the image or a volume",
                self.limits.max_bytes
            );
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let mut metacopy = false;
        for mark in METACOPY {
            metacopy |= xattr::get(source, mark.as_ref())?.is_some();
        }
        let content = if metacopy {
            let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat2(self.merged, path, OpenHow::new().flags(flags).resolve(resolve))?
        } else {
            proc_fd::reopen(source.as_fd(), OFlag::O_RDONLY)?
        };
        let mut content = std::fs::File::from(content).take(status.size);
        io::copy(&mut content, &mut std::fs::File::from(made)).context("failed to copy its content")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_written_and_nothing_else_is() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
        assert_eq!(parse_mark(b"1700000000.000000005").unwrap(), at);
        for bad in ["", "1700000000", "1700000000.5", "-1.000000000", "1.00000000x", "99999999999999999999.000000000"] {
            let error = parse_mark(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("create the container again"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_first_mark_stays() {
        let dir = tempfile::tempdir().unwrap();
        let fd: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let first = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123);
        assert_eq!(seal_mark(fd.as_fd(), first).unwrap(), first);
        assert_eq!(seal_mark(fd.as_fd(), SystemTime::now()).unwrap(), first);
    }
}
