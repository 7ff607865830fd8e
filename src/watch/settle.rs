//! Reading on until a change can be told whole, and the view of the files it is judged by.
//!
//! Owns: the bounded wait of a drain; the look at an upper directory. Must not: know which kernel interface is read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, fstatat};

use super::collect::{Collector, Verdict};
use super::culprit::Culprits;
use super::touch::{Now, View};
use super::{Change, ChangeKind, Drained, Image, image, xattrs};

/// How long a drain may wait for the rest of an operation whose first half it has read.
const SETTLE: Duration = Duration::from_millis(2);

/// The same while all that was read may be a by-product: so far nothing has changed that a user can see, and on a busy
/// machine the writer may have to wait for its turn.
const SETTLE_WEAK: Duration = Duration::from_millis(10);

/// The same where it surely is one, in the middle of a copy-up.
const SETTLE_PASSING: Duration = Duration::from_millis(100);

/// Directories of the upper whose look is remembered.
const MAX_LOOKS: usize = 512;

/// Files whose naming is remembered.
const MAX_NAMED: usize = 512;

/// An upper directory, and the image below it.
#[derive(Debug)]
pub(super) struct UpperView {
    upper: OwnedFd,
    image: Image,
    /// How directories looked when they were last told of; one that is not here came from the image as it is there.
    looks: HashMap<PathBuf, Look>,
    /// Handles of files whose naming has been told: they may be closed, under the name that they had not, later.
    named: HashSet<Box<[u8]>>,
}

/// What a user can see of a directory: mode, owner, group, time of modification, a hash of the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look(u32, u32, u32, i64, i64, u64);

impl Look {
    fn at(dir: BorrowedFd<'_>) -> Option<Look> {
        let stat = nix::sys::stat::fstat(dir).ok()?;
        let attributes = xattrs::hash_of(&xattrs::path_of(dir, c".")).ok()?;
        Some(Look(stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime, stat.st_mtime_nsec, attributes))
    }
}

impl UpperView {
    pub(super) fn new(upper: OwnedFd, image: Image) -> UpperView {
        let mut view = UpperView { upper, image, looks: HashMap::new(), named: HashSet::new() };
        view.remember(Path::new(""));
        view
    }

    fn remember(&mut self, path: &Path) {
        let look = open_beneath(self.upper.as_fd(), path).ok().and_then(|dir| Look::at(dir.as_fd()));
        match look {
            Some(look) => self.looks.insert(path.to_path_buf(), look),
            None => self.looks.remove(path),
        };
    }

    /// Remembers the directories that changes are in, and those that changed themselves.
    fn remember_all(&mut self, verdicts: &[Verdict]) {
        if self.looks.len() > MAX_LOOKS {
            self.looks.retain(|path, _| path.as_os_str().is_empty());
        }
        let mut paths = BTreeSet::new();
        for Verdict { change, old, .. } in verdicts {
            let own = (change.kind == ChangeKind::Attributes).then_some(change.path.as_path());
            let above = [Some(change.path.as_path()), old.as_deref()].into_iter().flatten().filter_map(Path::parent);
            paths.extend(above.chain(own).filter_map(|p| p.strip_prefix("/").ok()).map(Path::to_path_buf));
        }
        paths.iter().take(MAX_LOOKS).for_each(|path| self.remember(path));
    }

    fn remember_named(&mut self, collector: &Collector) {
        if self.named.len() > MAX_NAMED {
            self.named.clear();
        }
        self.named.extend(collector.named().take(MAX_NAMED).map(Into::into));
    }

    pub(super) fn upper(&self) -> BorrowedFd<'_> {
        self.upper.as_fd()
    }
}

impl View for UpperView {
    fn now(&self, path: &Path) -> Now {
        if path.as_os_str().is_empty() {
            return match nix::sys::stat::fstat(&self.upper) {
                Ok(stat) => Now::Present { stat: Box::new(stat), opaque: false },
                Err(_) => Now::Absent,
            };
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        let Ok(dir) = open_beneath(self.upper.as_fd(), parent) else { return Now::Absent };
        let Some(name) = path.file_name() else { return Now::Absent };
        match fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(_) => Now::Absent,
            Ok(stat) if image::is_whiteout(&stat) => Now::Whiteout,
            Ok(stat) => {
                let opaque = image::is_dir(&stat) && image::is_opaque(dir.as_fd(), name);
                Now::Present { stat: Box::new(stat), opaque }
            }
        }
    }

    fn image(&self, path: &Path) -> Option<FileStat> {
        self.image.lookup(path)
    }

    fn looks_as_before(&self, path: &Path) -> bool {
        let known = self.looks.get(path).copied();
        let before = known.or_else(|| self.image.find(path).and_then(|(dir, _)| Look::at(dir.as_fd())));
        let now = open_beneath(self.upper.as_fd(), path).ok().and_then(|dir| Look::at(dir.as_fd()));
        now.is_some() && now == before
    }

    fn xattrs_differ(&self, path: &Path) -> bool {
        let hash = |dir: OwnedFd| xattrs::hash_of(&xattrs::path_of(dir.as_fd(), c".")).ok();
        let Some((original, _)) = self.image.find(path) else { return false };
        open_beneath(self.upper.as_fd(), path).is_ok_and(|dir| hash(dir) != hash(original))
    }

    fn was_named(&self, target: &[u8]) -> bool {
        self.named.contains(target)
    }
}

/// Opens a directory below another as `O_PATH`, with no symlink, no mount and no `..` on the way.
///
/// # Errors
/// Those of openat2(2) (Linux 5.6).
pub(super) fn open_beneath(dir: BorrowedFd<'_>, path: &Path) -> anyhow::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    openat2(dir, path, how).with_context(|| format!("failed to open watched directory {}", path.display()))
}

/// The name by which this process can reach an open file.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Calls `read` until what it collected is clear or the time is up. `read` takes all there is and says whether it
/// may be called again in this drain; it is given the upper's directory.
pub(super) fn until_clear(
    fd: BorrowedFd<'_>,
    view: &mut UpperView,
    mut read: impl FnMut(&mut Collector, BorrowedFd<'_>) -> anyhow::Result<bool>,
) -> anyhow::Result<Drained> {
    let start = Instant::now();
    let mut collector = Collector::default();
    let mut culprits = Culprits::default();
    loop {
        let more = read(&mut collector, view.upper())?;
        // At once, not when the change is clear: a shell may run its next program in the meantime.
        collector.pids().for_each(|pid| drop(culprits.name(pid)));
        if collector.is_empty() {
            return Ok(Drained::default());
        }
        let (verdicts, unclear) = collector.verdicts(view);
        let patience = if !verdicts.iter().all(Verdict::is_weak) {
            SETTLE
        } else if verdicts.iter().any(Verdict::is_passing) {
            SETTLE_PASSING
        } else {
            SETTLE_WEAK
        };
        let left = patience.saturating_sub(start.elapsed());
        if unclear && more && wait(fd, left)? {
            continue;
        }
        view.remember_all(&verdicts);
        view.remember_named(&collector);
        let changes = verdicts.into_iter().map(|v| Change { culprit: culprits.name(v.pid), ..v.change }).collect();
        return Ok(Drained { changes, overflow: collector.overflowed() });
    }
}

/// Whether the descriptor became readable within `left` (rounded up to a millisecond).
fn wait(fd: BorrowedFd<'_>, left: Duration) -> anyhow::Result<bool> {
    if left.is_zero() {
        return Ok(false);
    }
    let millis = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(millis)) {
        Ok(n) => Ok(n > 0),
        Err(nix::errno::Errno::EINTR) => Ok(true),
        Err(e) => Err(e).context("failed to poll for the rest of a change"),
    }
}
