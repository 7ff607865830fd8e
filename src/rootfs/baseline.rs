//! The engine's own writes before the first protected start: Docker makes the working directory and the mount points of
//! volumes in its writable layer, and people `docker cp` into a container before they start it. They belong to what is
//! sealed; what came later does not.
//!
//! Earlier and later are told apart by the time of an entry's last change (`ctime`), which no program can set (but whoever
//! may set the node's clock), against the instant of [`super::seal_mark`].

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::attributes::Attributes;
use super::listing::{entry, names, readable};
use super::resolve::{Found, resolve};
use super::sealed_since::Since;
use crate::sys::statx::{Status, statx, statx_at};
use crate::sys::{proc_fd, xattr};

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
    /// Entries that changed later are left out.
    pub since: Since,
    /// Most content that is taken.
    pub max_bytes: u64,
    /// Most entries that are taken: the engine's. How many the container has made beside them does not count.
    pub max_entries: usize,
    /// Most entries that are looked at, a few microseconds each; what lies beyond is left out.
    pub max_looked: usize,
}

impl Baseline {
    /// With the default limits: 64 MiB, 10,000 entries among 200,000.
    #[must_use]
    pub fn until(since: Since) -> Self {
        Self { since, max_bytes: 64 << 20, max_entries: 10_000, max_looked: 200_000 }
    }
}

struct Copy<'a> {
    skeleton: BorrowedFd<'a>,
    image: BorrowedFd<'a>,
    merged: BorrowedFd<'a>,
    limits: &'a Baseline,
    bytes: u64,
    entries: usize,
    looked: usize,
    passed_over: bool,
    /// Entries from between the instant and the first start.
    doubtful: usize,
    /// Entries from later, and one of them.
    own: usize,
    one_of_own: Option<PathBuf>,
    links: HashMap<u64, PathBuf>,
    lost: Vec<(PathBuf, OsString)>,
}

/// Whose an entry is, or what lies in it.
enum Whose {
    /// From before the instant: some of it may be the engine's.
    Engines,
    /// From between that and the first start.
    Doubtful,
    /// From later.
    Containers,
}

/// What came of a copy.
pub(super) struct Taken {
    /// There was something to take.
    pub(super) any: bool,
    /// Extended attributes that could not be kept.
    pub(super) lost: Vec<(PathBuf, OsString)>,
    /// What may be the engine's and was left out, in words.
    pub(super) left_out: Vec<String>,
    /// That the container's own was, in words.
    pub(super) own: Option<String>,
}

/// Copies the baseline of `upper` into `skeleton`. `image` is the view of the layers without `upper`, `merged` the one with
/// it.
pub(super) fn copy(
    upper: BorrowedFd<'_>,
    skeleton: BorrowedFd<'_>,
    image: BorrowedFd<'_>,
    merged: BorrowedFd<'_>,
    limits: &Baseline,
) -> Result<Taken> {
    let mut copy = Copy {
        skeleton,
        image,
        merged,
        limits,
        bytes: 0,
        entries: 0,
        looked: 0,
        passed_over: false,
        doubtful: 0,
        own: 0,
        one_of_own: None,
        links: HashMap::new(),
        lost: Vec::new(),
    };
    let any = copy.children(upper, skeleton, Path::new(""), 0)?;
    let mut left_out = Vec::new();
    if copy.passed_over {
        left_out.push(format!(
            "only {} entries of the engine's writable layer were looked at for what the engine wrote before the first start, \
             the others are not part of the root; let the container write to a volume",
            limits.max_looked
        ));
    }
    if copy.doubtful > 0 {
        left_out.push(format!(
            "{} entries of the engine's writable layer are older than the container's first start and not as old as the layer: \
             they may be of a life before and are not part of the root; create the container again if it needs them",
            copy.doubtful
        ));
    }
    let own = copy.one_of_own.map(|path| {
        let more = match copy.own {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        format!(
            "what was written into the container's own layer after its first start is not in its sealed root ({path:?}{more}): \
             what it has to keep belongs in a volume; with mode \"off\" it is all there"
        )
    });
    Ok(Taken { any, lost: copy.lost, left_out, own })
}

/// Of an entry that may be a folder something that lies in it: what overlayfs copied up says less.
fn example(from: BorrowedFd<'_>, name: &CStr, path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    let mut here = entry(from, name);
    for _ in 0..MAX_DEPTH {
        let Ok(dir) = here else { break };
        let Some(first) = names(dir.as_fd(), 1).ok().and_then(|mut names| names.pop()) else { break };
        path.push(OsStr::from_bytes(first.to_bytes()));
        here = entry(dir.as_fd(), &first);
    }
    path
}

impl Copy<'_> {
    fn children(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<bool> {
        let listing = || format!("failed to list /{} of the engine's writable layer", path.display());
        let mut any = false;
        // One by one: there may be any number that the container has made.
        for listed in readable(from).with_context(listing)?.iter() {
            let listed = listed.with_context(listing)?;
            let name = listed.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if self.looked >= self.limits.max_looked {
                self.passed_over = true;
                break;
            }
            self.looked += 1;
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let taking = || format!("failed to take /{} of the engine's writable layer", path.display());
            let status = statx_at(from, name).with_context(taking)?;
            match self.whose(&status) {
                Whose::Engines => {}
                Whose::Doubtful => {
                    self.doubtful += 1;
                    continue;
                }
                Whose::Containers => {
                    // What it removed is nothing that it could miss.
                    if !status.is_whiteout() {
                        self.own += 1;
                        self.one_of_own.get_or_insert_with(|| Path::new("/").join(example(from, name, &path)));
                    }
                    continue;
                }
            }
            self.entries += 1;
            if self.entries > self.limits.max_entries {
                bail!(
                    "failed to seal what the engine wrote before the start: with /{} it is more than {} entries; put them into the image or a volume",
                    path.display(),
                    self.limits.max_entries
                );
            }
            any |= self.one(from, to, name, &path, depth).with_context(taking)?;
        }
        Ok(any)
    }

    fn whose(&self, status: &Status) -> Whose {
        let Since { instant, first_start } = self.limits.since;
        let changed = SystemTime::from(status.changed);
        let born = status.born.map(SystemTime::from).filter(|_| status.is_dir());
        if changed <= instant || born.is_some_and(|born| born <= instant) {
            Whose::Engines
        } else if born.unwrap_or(changed) <= first_start {
            Whose::Doubtful
        } else {
            Whose::Containers
        }
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
        let early = SystemTime::from(status.changed) <= self.limits.since.instant;
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
        let born_early = attributes.status.born.is_some_and(|at| SystemTime::from(at) <= self.limits.since.instant);
        if !early && !born_early {
            return Ok(false);
        }
        if depth >= MAX_DEPTH {
            // The container may have moved one into the other.
            if !early {
                return Ok(false);
            }
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
