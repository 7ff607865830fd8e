//! What the container has written on its root filesystem, by looking at it: sizes, which the sensor does not know, and what
//! came or went while nobody looked.
//!
//! Owns: the baseline of an engine's writable layer, and the high-water of what scans find. Must not: hold a mount of the
//! engine's busy (layers are directories, and a root that is not an overlay is opened anew for each look), follow a symbolic
//! link, or read a file's content.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::time::{ClockId, clock_gettime};

use super::observe::Found;
use crate::profile::behaviour::Operation;
use crate::rootfs::Layers;
use crate::sensor::reading::Seen;
use crate::sys::statx::statx;
use crate::watch::scan::{Baseline, Limits};
use crate::watch::{ChangeKind, Image};

/// Most paths that are kept; the sensor's table has fewer.
const MAX_FOUND: usize = 32_768;

/// Where the container writes.
enum Place {
    /// The engine's writable layer, and the image beneath it.
    Upper { upper: OwnedFd, image: Image },
    /// A root that is one directory: which of its files are new, it does not tell.
    Directory(PathBuf),
}

/// The root filesystem of one container, looked at from outside.
pub(super) struct Written {
    place: Place,
    baseline: Baseline,
    found: BTreeMap<String, Found>,
}

/// When nothing later counts as having been there, in nanoseconds since 1970. The kernel stamps files by a clock that lags
/// behind this one by a tick at most, and since 6.13 by this one itself where somebody looks: nothing that was there is
/// ever stamped later. What the workload writes within a tick the sensor still tells.
pub(super) fn instant_ns() -> i128 {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map_or(i128::MAX, |now| i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
}

impl Written {
    /// Opens what the root consists of, in the mount namespace that the engine made it in. Says what is missing, in words.
    ///
    /// # Errors
    /// When the root is missing or no directory.
    pub(super) fn open(rootfs: &Path) -> Result<(Written, Option<String>)> {
        let table =
            std::fs::read("/proc/thread-self/mountinfo").context("failed to read /proc/thread-self/mountinfo")?;
        let Layers { lowers, upper, degraded, .. } = Layers::of(rootfs, &table)?;
        let place = match upper {
            Some(upper) => Place::Upper { upper, image: Image::new(lowers) },
            None => Place::Directory(rootfs.to_owned()),
        };
        Ok((Written { place, baseline: Baseline::default(), found: BTreeMap::new() }, degraded))
    }

    /// What is there now and was there at `instant_ns` is the engine's own: mount points, `/etc/hosts`, what an earlier life
    /// left. To be called soon after that instant; what the workload did since is told apart by its time.
    ///
    /// # Errors
    /// When the layer can't be read.
    pub(super) fn begin(&mut self, instant_ns: i128) -> Result<()> {
        self.found.clear();
        if let Place::Upper { upper, .. } = &self.place {
            let baseline = Baseline::take(upper.as_fd(), Limits::default());
            self.baseline = baseline.context("failed to look at the writable layer")?.until(instant_ns);
        }
        Ok(())
    }

    /// Looks at what is there in `window`, and at `named`, paths that the sensor saw written. Returns whether a limit cut it
    /// short.
    ///
    /// # Errors
    /// When the layer can't be read; what was found by then is kept.
    pub(super) fn look<'a>(&mut self, window: u32, named: impl Iterator<Item = &'a str>) -> Result<bool> {
        let Written { place, baseline, found } = self;
        let mut truncated = false;
        if let Place::Upper { upper, image } = place {
            truncated = baseline
                .differing(upper.as_fd(), Limits::default(), Some(image), |differing| {
                    // Something was made in it and is gone again, of which the sensor knows more.
                    if !differing.in_time_alone {
                        let path = Path::new("/").join(OsStr::from_bytes(differing.path));
                        let path = path.to_string_lossy().into_owned();
                        note(found, path, window, Some(differing.kind), differing.size_bytes, differing.is_dir);
                    }
                })
                .context("failed to look at the writable layer")?;
        }
        let root = match place {
            Place::Upper { upper, .. } => upper.try_clone().ok(),
            Place::Directory(path) => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                nix::fcntl::open(&*path, flags, nix::sys::stat::Mode::empty()).ok()
            }
        };
        // The engine has taken a directory away that is no layer: its files can't be looked at any more.
        let Some(root) = root else { return Ok(true) };
        for path in named {
            if let Some((size_bytes, is_dir)) = size_of(&root, path) {
                note(found, path.to_owned(), window, None, size_bytes, is_dir);
            }
        }
        Ok(truncated || found.len() >= MAX_FOUND)
    }

    /// By path inside the container, what looks have found so far.
    pub(super) fn found(&self) -> &BTreeMap<String, Found> {
        &self.found
    }
}

fn size_of(root: &OwnedFd, path: &str) -> Option<(u64, bool)> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    let fd = openat2(root, path.trim_start_matches('/'), how).ok()?;
    let status = statx(fd.as_fd()).ok().filter(|status| !status.is_whiteout())?;
    Some((if status.kind() == libc::S_IFREG { status.size } else { 0 }, status.is_dir()))
}

/// `kind`: what the scan says of it; of a path that the sensor named, the sensor has said it.
fn note(
    found: &mut BTreeMap<String, Found>,
    path: String,
    window: u32,
    kind: Option<ChangeKind>,
    size_bytes: u64,
    directory: bool,
) {
    let operation = kind.map(|kind| match kind {
        ChangeKind::Create => Operation::Create,
        ChangeKind::Delete => Operation::Remove,
        ChangeKind::Attributes => Operation::Attributes,
        ChangeKind::Rename => Operation::Rename,
        ChangeKind::Modify | ChangeKind::Mount | ChangeKind::HostWrite => Operation::Write,
    });
    let full = found.len() >= MAX_FOUND;
    match found.get_mut(&path) {
        Some(known) => {
            known.operation = operation.or(known.operation);
            known.directory |= directory;
            // A look that finds it no larger has seen nothing new.
            if size_bytes > known.size_bytes {
                known.size_bytes = size_bytes;
                known.seen.windows += u32::from(window > known.seen.last);
                known.seen.last = window;
            }
        }
        None if full => {}
        None => {
            let seen = Seen { first: window, last: window, windows: 1 };
            found.insert(path, Found { operation, size_bytes, directory, seen });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A writable layer over an image, with its own files in it; whiteouts are made as overlay makes them.
    fn written(dir: &Path) -> Written {
        let open = |name: &str| -> OwnedFd {
            std::fs::create_dir_all(dir.join(name)).expect("a folder");
            std::fs::File::open(dir.join(name)).expect("opened").into()
        };
        let place = Place::Upper { upper: open("upper"), image: Image::new(vec![open("image")]) };
        Written { place, baseline: Baseline::default(), found: BTreeMap::new() }
    }

    fn told(written: &Written) -> Vec<(&str, Option<Operation>, u64)> {
        written.found.iter().map(|(path, f)| (path.as_str(), f.operation, f.size_bytes)).collect()
    }

    #[test]
    fn the_engines_own_files_are_no_writes_and_what_comes_later_is_with_its_largest_size() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut written = written(dir.path());
        let upper = dir.path().join("upper");
        std::fs::create_dir(upper.join("etc")).expect("a folder");
        std::fs::write(upper.join("etc/hosts"), "").expect("a file");
        written.begin(i128::MAX).expect("a baseline");
        std::fs::write(upper.join("log"), "0123456789").expect("a file");
        written.look(1, std::iter::empty()).expect("looked");
        std::fs::write(upper.join("log"), "0").expect("a file");
        std::fs::write(upper.join("etc/hosts"), "changed").expect("a file");
        assert!(!written.look(4, std::iter::empty()).expect("looked"));
        let got = told(&written);
        assert_eq!(got, [("/etc/hosts", Some(Operation::Write), 7), ("/log", Some(Operation::Create), 10)]);
        assert_eq!(written.found["/log"].seen, Seen { first: 1, last: 1, windows: 1 });
    }

    #[test]
    fn what_was_written_before_the_baseline_was_taken_is_told_apart_by_its_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut written = written(dir.path());
        std::fs::write(dir.path().join("upper/before"), "").expect("a file");
        let instant = instant_ns();
        // Files are stamped by a clock that ticks.
        let stamp = || clock_gettime(ClockId::CLOCK_REALTIME_COARSE).expect("a clock");
        while i128::from(stamp().tv_sec()) * 1_000_000_000 + i128::from(stamp().tv_nsec()) <= instant {}
        std::fs::write(dir.path().join("upper/after"), "").expect("a file");
        written.begin(instant).expect("a baseline");
        written.look(0, std::iter::empty()).expect("looked");
        assert_eq!(told(&written), [("/after", Some(Operation::Create), 0)]);
    }

    #[test]
    fn a_removed_file_of_the_image_is_a_removal_and_a_copied_up_one_a_write() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut written = written(dir.path());
        for name in ["gone", "changed", "chmod"] {
            std::fs::write(dir.path().join("image").join(name), "x").expect("a file");
        }
        written.begin(i128::MAX).expect("a baseline");
        let upper = dir.path().join("upper");
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        mknod(&upper.join("gone"), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).expect("a whiteout");
        std::fs::write(upper.join("changed"), "xyz").expect("a file");
        std::fs::create_dir(upper.join("new")).expect("a folder");
        std::fs::set_permissions(upper.join("new"), std::fs::Permissions::from_mode(0o700)).expect("a mode");
        written.look(0, std::iter::empty()).expect("looked");
        let expected = [
            ("/changed", Some(Operation::Write), 3),
            ("/gone", Some(Operation::Remove), 0),
            ("/new", Some(Operation::Create), 0),
        ];
        assert_eq!(told(&written), expected);
        assert!(written.found["/new"].directory && !written.found["/changed"].directory);
    }

    #[test]
    fn in_a_root_without_layers_the_sensors_paths_get_their_sizes_and_no_link_is_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("data"), "12345").expect("a file");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).expect("a link");
        std::os::unix::fs::symlink("/etc", dir.path().join("etc")).expect("a link");
        let (mut written, degraded) = Written::open(dir.path()).expect("opened");
        assert_eq!(degraded, None);
        written.begin(instant_ns()).expect("nothing to do");
        let named = ["/data", "/link", "/etc/passwd", "/../etc/passwd", "/none", "/"];
        written.look(2, named.into_iter()).expect("looked");
        assert_eq!(told(&written), [("/data", None, 5), ("/link", None, 0)]);
        std::fs::remove_dir_all(dir.path()).expect("removed");
        assert!(written.look(3, named.into_iter()).expect("no error"), "it is gone, and that is said");
    }
}
