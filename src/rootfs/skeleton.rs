//! The skeleton: a layer above the image with the mount points that the image lacks.
//!
//! The low-level runtime makes missing mount points in the root it is given. A sealed root can't take them, and in a
//! tripwire they would look like a breach: so they are there before.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::attributes::Attributes;
use super::baseline::{self, Baseline};
use super::layers::Layers;
use super::overlay::OPAQUE;
use super::resolve::{Found, resolve};
use super::staging::Staging;
use crate::sys::statx::statx;
use crate::sys::xattr;

/// Most entries that a skeleton's mount points may need: a bound on a hostile config.json.
const MAX_ENTRIES: usize = 16 * 1024;

/// Mode of what the low-level runtime makes where a mount point is missing, whatever the umask.
const MODE: u32 = 0o755;

/// A mount of config.json, as far as its place matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Path inside the container.
    pub destination: PathBuf,
    /// Whether a file is mounted there, rather than a directory.
    pub is_file: bool,
}

/// A built skeleton.
#[derive(Debug)]
pub struct Skeleton {
    root: OwnedFd,
    /// Extended attributes of the image's directories that the staging tmpfs does not keep (before Linux 6.6 `user.*`):
    /// path and name, for an event.
    pub lost: Vec<(PathBuf, OsString)>,
}

impl Skeleton {
    /// Its root directory.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

#[derive(Debug)]
enum Node {
    /// A directory of the image that only leads to something new; the layer on top decides its attributes.
    Image(Box<Attributes>),
    NewDir,
    NewFile,
}

/// What a container is sealed with before its mount points are made: the image, and what the engine wrote before the first
/// start.
#[derive(Debug)]
pub struct Ground {
    root: OwnedFd,
    view: OwnedFd,
    lost: Vec<(PathBuf, OsString)>,
    /// What the engine may have written before the first start and that is not in it, in words.
    pub left_out: Vec<String>,
    /// That what the container itself wrote before is not in it, in words; `None`: it wrote nothing.
    pub own: Option<String>,
}

impl Staging {
    /// Takes over what the engine wrote before the first start (see [`Baseline`]), where there is any.
    ///
    /// # Errors
    /// A baseline over its limits, a full staging tmpfs, errors of the filesystem.
    pub fn ground(&self, layers: &Layers, baseline: Option<&Baseline>) -> Result<Ground> {
        let root = self.fresh()?;
        let view = self.image(layers)?;
        let mut ground = Ground { root, view, lost: Vec::new(), left_out: Vec::new(), own: None };
        if let (Some(upper), Some(baseline)) = (&layers.upper, baseline) {
            let (root, image) = (ground.root.as_fd(), ground.view.as_fd());
            let taken = baseline::copy(upper.as_fd(), root, image, layers.root.as_fd(), baseline)?;
            (ground.lost, ground.left_out, ground.own) = (taken.lost, taken.left_out, taken.own);
            if taken.any {
                // Only now: a layer must not change beneath a mounted overlay.
                top(layers)?.put(ground.root.as_fd()).context("failed to set up the skeleton's root")?;
                ground.view = self.view(layers, ground.root.as_fd())?;
            }
        }
        Ok(ground)
    }
}

impl Ground {
    /// Its root directory, as the container will see it but for mount points.
    #[must_use]
    pub fn view(&self) -> BorrowedFd<'_> {
        self.view.as_fd()
    }

    /// Makes it a skeleton: the mount points in the order of config.json and the process's working directory, as far as they
    /// are missing. A destination inside another mount is left to the low-level runtime, and so is one that leads through a
    /// file, where it fails with the words that engines know.
    ///
    /// # Errors
    /// A destination with too many links, a full staging tmpfs, errors of the filesystem.
    pub fn skeleton(self, layers: &Layers, mount_points: &[MountPoint], cwd: &Path) -> Result<Skeleton> {
        let Ground { root, view, mut lost, .. } = self;
        let nodes = plan(view.as_fd(), top(layers)?, mount_points, cwd)?;
        drop(view);
        lost.extend(build(root.as_fd(), &nodes)?);
        Ok(Skeleton { root, lost })
    }
}

/// The attributes of the image's root directory. The view of the image can't tell them: its root shows those of the empty
/// directory that is its topmost layer.
fn top(layers: &Layers) -> Result<Attributes> {
    let top = layers.lowers.first().context("the image has no layer")?;
    Attributes::of(top.as_fd()).context("failed to read the image's root directory")
}

/// Which entries the skeleton needs, by their resolved paths: parents sort before children.
fn plan(
    image: BorrowedFd<'_>,
    root: Attributes,
    mount_points: &[MountPoint],
    cwd: &Path,
) -> Result<BTreeMap<PathBuf, Node>> {
    let mut nodes = BTreeMap::new();
    let of = |fd: BorrowedFd<'_>| Attributes::of(fd).map(|a| Node::Image(Box::new(a)));
    nodes.insert(PathBuf::new(), Node::Image(Box::new(root)));
    let mut covered: Vec<PathBuf> = Vec::new();
    let last = MountPoint { destination: cwd.to_owned(), is_file: false };
    for (n, point) in mount_points.iter().chain([&last]).enumerate() {
        let at = resolve(image, &point.destination, |path| covered.iter().any(|c| c == path))?;
        if let Found::Part { existing, missing } = &at.found {
            let mut path = PathBuf::new();
            let mut dir = image.try_clone_to_owned().context("failed to duplicate the image's descriptor")?;
            for name in existing {
                path.push(name);
                let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                dir = openat(&dir, name, flags, Mode::empty())
                    .with_context(|| format!("failed to open /{} of the image", path.display()))?;
                if !nodes.contains_key(&path) {
                    let node = of(dir.as_fd()).with_context(|| format!("failed to read /{}", path.display()))?;
                    nodes.insert(path.clone(), node);
                }
            }
            for name in missing {
                path.push(name);
                nodes.entry(path.clone()).or_insert(Node::NewDir);
            }
            if point.is_file {
                nodes.insert(path, Node::NewFile);
            }
        }
        if nodes.len() > MAX_ENTRIES {
            bail!(
                "failed to make mount point {} of config.json: the mounts need more than {MAX_ENTRIES} new entries",
                point.destination.display()
            );
        }
        // A mount on the root itself covers everything, but is not one that a low-level runtime makes.
        if n < mount_points.len() && !matches!(at.found, Found::Covered) && !at.path.as_os_str().is_empty() {
            covered.push(at.path);
        }
    }
    Ok(nodes)
}

/// Makes the entries, then sets the attributes of the image's directories from the innermost out, so that nothing touches
/// their times afterwards.
fn build(root: BorrowedFd<'_>, nodes: &BTreeMap<PathBuf, Node>) -> Result<Vec<(PathBuf, OsString)>> {
    for (path, node) in nodes {
        make(root, path, node).with_context(|| format!("failed to make /{} of the skeleton", path.display()))?;
    }
    let mut lost = Vec::new();
    for (path, node) in nodes.iter().rev() {
        if let Node::Image(attributes) = node {
            let put = beneath(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(anyhow::Error::from);
            let names = put.and_then(|dir| attributes.put(dir.as_fd())).with_context(|| {
                format!("failed to give /{} of the skeleton the image's attributes", path.display())
            })?;
            lost.extend(names.into_iter().map(|name| (path.clone(), name)));
        }
    }
    Ok(lost)
}

fn make(root: BorrowedFd<'_>, path: &Path, node: &Node) -> Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let parent = beneath(root, path.parent().unwrap_or(Path::new("")), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let mode = Mode::from_bits_truncate(MODE);
    let file = matches!(node, Node::NewFile);
    let create = || {
        if file {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(&parent, name, flags, mode).and_then(|fd| fchmod(fd, mode))
        } else {
            mkdirat(&parent, name, mode)?;
            beneath(parent.as_fd(), Path::new(name), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
                .and_then(|fd| fchmod(fd, mode))
        }
    };
    match create() {
        Err(Errno::EEXIST) => {}
        made => return Ok(made?),
    }
    // The baseline brought something of this name: the directory itself, or the mark of a deleted one.
    let there = beneath(parent.as_fd(), Path::new(name), OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
    let status = statx(there.as_fd())?;
    if status.is_dir() && !file {
        return Ok(());
    }
    if !status.is_whiteout() {
        bail!("the engine's writable layer has something else there");
    }
    unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
    create()?;
    if !file {
        let dir = beneath(parent.as_fd(), Path::new(name), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        xattr::set(&dir, OPAQUE.as_ref(), b"y").context("failed to mark a directory as opaque")?;
    }
    Ok(())
}

/// Opens a resolved path: whatever the baseline brought, no link of it is followed.
fn beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let path = if path.as_os_str().as_bytes().is_empty() { Path::new(".") } else { path };
    openat2(root, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
}
