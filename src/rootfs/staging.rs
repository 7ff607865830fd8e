//! A private tmpfs on which the skeletons of one container are built.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};

use super::layers::Layers;
use super::overlay::{Plan, Way};
use crate::sys::mount::{FsContext, MountAttributes, attach, detach};

/// Inodes that a tmpfs may have at least, whatever its size.
const MIN_INODES: u64 = 1024;

/// The staging tmpfs of one container. Dropping it leaves the mount, which ends with its mount namespace;
/// [`Staging::remove`] takes it away before.
#[derive(Debug)]
pub struct Staging {
    root: OwnedFd,
    mount_point: OwnedFd,
    aside: OwnedFd,
    empty: OwnedFd,
}

impl Staging {
    /// Mounts a tmpfs of at most `size_bytes` on an existing directory. The caller is in a mount namespace of its own.
    ///
    /// # Errors
    /// When the directory can't be opened or the tmpfs not be mounted.
    pub fn new(dir: &Path, size_bytes: u64) -> Result<Self> {
        let shown = dir.display();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let at = open(dir, flags, Mode::empty()).with_context(|| format!("failed to open staging folder {shown}"))?;
        let attributes = MountAttributes::NOSUID.with(MountAttributes::NODEV).with(MountAttributes::NOEXEC);
        let root = tmpfs(size_bytes, attributes.with(MountAttributes::NOATIME))
            .with_context(|| format!("failed to make a tmpfs for staging folder {shown}"))?;
        attach(root.as_fd(), at.as_fd())
            .with_context(|| format!("failed to mount a tmpfs on staging folder {shown}"))?;
        let make = |name: &str| {
            directory(root.as_fd(), name).with_context(|| format!("failed to set up staging folder {shown}"))
        };
        Ok(Self { mount_point: make("mount")?, aside: make("aside")?, empty: make("empty")?, root })
    }

    /// A read-only view of the image: its layers without the engine's upper. It is mounted nowhere and lives as long as
    /// the descriptor.
    ///
    /// # Errors
    /// When the layers can't be mounted.
    pub fn image(&self, layers: &Layers) -> Result<OwnedFd> {
        self.view(layers, self.empty.as_fd())
    }

    /// The same with `top` above the image.
    pub(super) fn view(&self, layers: &Layers, top: BorrowedFd<'_>) -> Result<OwnedFd> {
        Plan::of(layers, top, None).mount(self, Way::Any).context("failed to look into the image")
    }

    /// A new empty directory on the tmpfs.
    pub(super) fn fresh(&self) -> Result<OwnedFd> {
        for n in 0..u32::MAX {
            match directory(self.root.as_fd(), &format!("skeleton.{n}")) {
                Err(nix::errno::Errno::EEXIST) => {}
                made => return made.context("failed to make a skeleton's directory"),
            }
        }
        anyhow::bail!("failed to make a skeleton's directory: no name is left")
    }

    /// A directory to which a root that is no longer used can be moved.
    #[must_use]
    pub fn aside(&self) -> BorrowedFd<'_> {
        self.aside.as_fd()
    }

    /// A directory to attach something to for a moment.
    pub(super) fn mount_point(&self) -> BorrowedFd<'_> {
        self.mount_point.as_fd()
    }

    /// The root of what is attached to [`Self::mount_point`] now.
    pub(super) fn mounted_there(&self) -> nix::Result<OwnedFd> {
        openat(&self.root, "mount", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Takes the tmpfs away. Overlays that were mounted with a skeleton on it go on.
    ///
    /// # Errors
    /// When it is no longer mounted in this namespace.
    pub fn remove(self) -> Result<()> {
        detach(&self.root).context("failed to unmount the staging tmpfs")
    }
}

/// A tmpfs that is attached nowhere, with at most `size_bytes` of content and an inode for each 4 KiB of them.
pub(super) fn tmpfs(size_bytes: u64, attributes: MountAttributes) -> Result<OwnedFd> {
    let context = FsContext::open(c"tmpfs").context("the kernel has no tmpfs")?;
    let inodes = (size_bytes / 4096).max(MIN_INODES);
    for (key, value) in [
        (c"source", "tmpfs".to_owned()),
        (c"size", size_bytes.to_string()),
        (c"nr_inodes", inodes.to_string()),
        (c"mode", "755".to_owned()),
    ] {
        let set = context.set(key, &CString::new(value)?);
        set.with_context(|| format!("tmpfs refused its option {}", key.to_string_lossy()))?;
    }
    context.create().context("tmpfs refused its options")?;
    context.mount(attributes).context("failed to make the mount")
}

/// Makes a directory, readable to all whatever the umask, and opens it.
pub(super) fn directory(parent: BorrowedFd<'_>, name: &str) -> nix::Result<OwnedFd> {
    let mode = Mode::from_bits_truncate(0o755);
    mkdirat(parent, name, mode)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    nix::sys::stat::fchmod(&fd, mode)?;
    Ok(fd)
}
