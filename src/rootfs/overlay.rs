//! Mounting the two kinds of root: sealed (no upper: nothing can be written, whoever tries) and tripwire (a small private
//! tmpfs as upper: writes land, are seen, and are thrown away).

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open, openat};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, mkdirat};

use super::attributes::Attributes;
use super::layers::Layers;
use super::skeleton::Skeleton;
use super::staging::{Staging, tmpfs};
use crate::sys::mount::{FsContext, MountAttributes, attach, clone_mount, detach};
use crate::sys::proc_fd;

/// The attribute that makes a directory hide what the layers beneath it have of the same name.
pub const OPAQUE: &str = "trusted.overlay.opaque";

/// The same, as overlayfs writes it and as it writes it with `userxattr`.
pub(super) const OPAQUE_NAMES: [&str; 2] = [OPAQUE, "user.overlay.opaque"];

/// Most layers that overlayfs takes (`OVL_MAX_STACK`, Linux 4.19 to 6.18).
const MAX_LAYERS: usize = 500;

/// What mount(2) copies of its data, in bytes: a page, its end included.
const MAX_DATA_BYTES: usize = 4095;

/// A mounted root. Dropping it leaves the mount; [`Mounted::detach`] takes it away.
#[derive(Debug)]
pub struct Mounted {
    root: OwnedFd,
}

impl Mounted {
    /// The root directory of the mount.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Takes the mount away from its target, whatever is mounted above it or busy in it.
    ///
    /// # Errors
    /// When it is no longer mounted in this namespace.
    pub fn detach(self) -> Result<()> {
        detach(&self.root).context("failed to unmount a root filesystem")
    }
}

/// A mounted tripwire root, and the tmpfs beneath it. The tmpfs is attached nowhere: it lives as long as the overlay or
/// one of these descriptors does, and stays readable after [`Mounted::detach`].
#[derive(Debug)]
pub struct Tripwire {
    /// The overlay.
    pub mounted: Mounted,
    /// Root directory of the tmpfs: what a filesystem mark of fanotify is put on.
    pub tmpfs: OwnedFd,
    /// Upper directory: the difference to the image.
    pub upper: OwnedFd,
    /// Work directory, where overlayfs prepares what it then moves into the upper.
    pub work: OwnedFd,
}

/// Mounts the image's layers with the skeleton on top, and no upper, on the directory `target`.
///
/// # Errors
/// When the kernel refuses the layers: the error says how many they are and what overlayfs said.
pub fn mount_sealed(layers: &Layers, skeleton: &Skeleton, staging: &Staging, target: &Path) -> Result<Mounted> {
    let plan = Plan::of(layers, skeleton.root(), None);
    let root = plan.mount(staging, Way::Any)?;
    place(root, target)
}

/// Mounts the image's layers and the skeleton beneath a fresh tmpfs of at most `size_bytes` on the directory `target`.
/// The root directory has the image's attributes.
///
/// # Errors
/// As [`mount_sealed`], and when the tmpfs can't be made.
pub fn mount_tripwire(
    layers: &Layers,
    skeleton: &Skeleton,
    staging: &Staging,
    target: &Path,
    size_bytes: u64,
) -> Result<Tripwire> {
    tripwire(layers, skeleton, staging, target, size_bytes, Way::Any)
}

/// The way to ask the kernel; `Any` tries fsconfig(2) and takes mount(2) where that can't name layers one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Any,
    #[cfg(test)]
    Old,
}

pub(super) fn tripwire(
    layers: &Layers,
    skeleton: &Skeleton,
    staging: &Staging,
    target: &Path,
    size_bytes: u64,
    way: Way,
) -> Result<Tripwire> {
    let tmpfs = tmpfs(size_bytes, MountAttributes::NOSUID.with(MountAttributes::NODEV))
        .context("failed to make the tmpfs of a tripwire root")?;
    // Overlayfs takes an upper only from a mount of this namespace: attach it for as long as that takes.
    attach(tmpfs.as_fd(), staging.mount_point()).context("failed to attach the tmpfs of a tripwire root")?;
    let made = (|| -> Result<_> {
        let make = |name: &str| -> Result<OwnedFd> {
            mkdirat(&tmpfs, name, Mode::from_bits_truncate(0o755))
                .context("failed to make a directory on the tmpfs")?;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(&tmpfs, name, flags, Mode::empty()).context("failed to open a directory on the tmpfs")
        };
        let (upper, work) = (make("upper")?, make("work")?);
        Attributes::of(skeleton.root())
            .and_then(|root| root.put(upper.as_fd()))
            .context("failed to set up the upper")?;
        let root = Plan::of(layers, skeleton.root(), Some((upper.as_fd(), work.as_fd()))).mount(staging, way)?;
        Ok((upper, work, root))
    })();
    detach(&tmpfs).context("failed to detach the tmpfs of a tripwire root")?;
    let (upper, work, root) = made?;
    Ok(Tripwire { mounted: place(root, target)?, tmpfs, upper, work })
}

fn place(root: OwnedFd, target: &Path) -> Result<Mounted> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let at = open(target, flags, Mode::empty())
        .with_context(|| format!("failed to open {} to mount a root filesystem on it", target.display()))?;
    attach(root.as_fd(), at.as_fd())
        .with_context(|| format!("failed to mount a root filesystem on {}", target.display()))?;
    Ok(Mounted { root })
}

/// One overlay to be mounted.
pub(super) struct Plan<'a> {
    lowers: Vec<BorrowedFd<'a>>,
    data: Vec<BorrowedFd<'a>>,
    upper: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    options: &'a [(String, Option<OsString>)],
    attributes: MountAttributes,
}

impl<'a> Plan<'a> {
    /// `top` above the image's layers.
    pub(super) fn of(layers: &'a Layers, top: BorrowedFd<'a>, upper: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>) -> Self {
        let lowers = std::iter::once(top).chain(layers.lowers.iter().map(AsFd::as_fd)).collect();
        let data = layers.data.iter().map(AsFd::as_fd).collect();
        Self { lowers, data, upper, options: &layers.options, attributes: layers.attributes }
    }

    /// A mount of it that is attached nowhere.
    pub(super) fn mount(&self, staging: &Staging, way: Way) -> Result<OwnedFd> {
        let count = self.lowers.len() + self.data.len();
        if count > MAX_LAYERS {
            bail!(
                "failed to mount an overlay of {count} layers: overlayfs takes at most {MAX_LAYERS}; squash the image"
            );
        }
        if way == Way::Any
            && let Some(root) =
                self.by_fsconfig().with_context(|| format!("failed to mount an overlay of {count} layers"))?
        {
            return Ok(root);
        }
        self.by_mount(staging).with_context(|| format!("failed to mount an overlay of {count} layers with mount(2)"))
    }

    /// With `lowerdir+` (6.5) and `datadir+` (6.8), which take each layer's name as it is; `None` where the kernel does
    /// not know them.
    fn by_fsconfig(&self) -> Result<Option<OwnedFd>> {
        let open = match FsContext::open(c"overlay") {
            Ok(context) if takes_any_option(&context) => return Ok(None),
            Ok(_) => FsContext::open(c"overlay"),
            Err(e) => Err(e),
        };
        let context = match open {
            Ok(context) => context,
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return Ok(None),
            Err(e) => return Err(e).context("the kernel has no overlay filesystem; load the module overlay"),
        };
        let told = |e: io::Error, what: &str| {
            let said = context.messages();
            anyhow::Error::from(e).context(if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") })
        };
        context.set(c"source", c"overlay").map_err(|e| told(e, "overlayfs refused its source"))?;
        for (key, layers) in [(c"lowerdir+", &self.lowers), (c"datadir+", &self.data)] {
            for (n, layer) in layers.iter().enumerate() {
                match context.set(key, &CString::new(proc_fd::path(*layer))?) {
                    Ok(()) => {}
                    Err(e) if n == 0 && e.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
                    Err(e) => return Err(told(e, &format!("overlayfs refused layer {} from the top", n + 1))),
                }
            }
        }
        if let Some((upper, work)) = self.upper {
            for (key, fd) in [(c"upperdir", upper), (c"workdir", work)] {
                let set = context.set(key, &CString::new(proc_fd::path(fd))?);
                set.map_err(|e| told(e, "overlayfs refused the upper directory"))?;
            }
        }
        for (name, value) in self.options {
            let key = CString::new(name.as_str())?;
            let set = match value {
                Some(value) => context.set(&key, &CString::new(value.as_bytes())?),
                None => context.flag(&key),
            };
            set.map_err(|e| told(e, &format!("overlayfs refused the engine's option {name}")))?;
        }
        context.create().map_err(|e| told(e, "overlayfs refused the layers"))?;
        let root = context.mount(self.attributes).map_err(|e| told(e, "failed to make the mount"))?;
        Ok(Some(root))
    }

    /// With mount(2)'s one string. It attaches what it mounts: a detached copy is taken, and the original removed.
    fn by_mount(&self, staging: &Staging) -> Result<OwnedFd> {
        let join = |fds: &[BorrowedFd<'_>], between: &str| -> String {
            fds.iter().map(|fd| proc_fd::path(*fd)).collect::<Vec<_>>().join(between)
        };
        let mut data = format!("lowerdir={}", join(&self.lowers, ":")).into_bytes();
        if !self.data.is_empty() {
            data.extend_from_slice(format!("::{}", join(&self.data, "::")).as_bytes());
        }
        if let Some((upper, work)) = self.upper {
            let pair = format!(",upperdir={},workdir={}", proc_fd::path(upper), proc_fd::path(work));
            data.extend_from_slice(pair.as_bytes());
        }
        for (name, value) in self.options {
            data.extend_from_slice(format!(",{name}").as_bytes());
            if let Some(value) = value {
                // Only a context can have a comma in it, and the kernel takes a quoted one.
                let quote: &[u8] = if value.as_bytes().contains(&b',') { b"\"" } else { b"" };
                data.extend_from_slice(&[b"=", quote, value.as_bytes(), quote].concat());
            }
        }
        if data.len() > MAX_DATA_BYTES {
            bail!(
                "their names take {} bytes and the kernel reads {MAX_DATA_BYTES}; Linux 6.5 has no such limit",
                data.len()
            );
        }
        let at = proc_fd::path(staging.mount_point());
        nix::mount::mount(Some("overlay"), at.as_str(), Some("overlay"), self.flags(), Some(data.as_slice()))?;
        // The staging directory's own descriptor lies beneath the new mount: its name has to be looked up again.
        let top = staging.mounted_there().context("failed to open the new overlay")?;
        let copy = clone_mount(top.as_fd()).context("failed to copy the new overlay");
        detach(&top).context("failed to detach the new overlay")?;
        copy
    }

    fn flags(&self) -> MsFlags {
        [
            (MountAttributes::NOSUID, MsFlags::MS_NOSUID),
            (MountAttributes::NODEV, MsFlags::MS_NODEV),
            (MountAttributes::NOEXEC, MsFlags::MS_NOEXEC),
            (MountAttributes::NOATIME, MsFlags::MS_NOATIME),
            (MountAttributes::NODIRATIME, MsFlags::MS_NODIRATIME),
            (MountAttributes::NOSYMFOLLOW, MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW)),
        ]
        .into_iter()
        .filter(|(attribute, _)| self.attributes.has(*attribute))
        .fold(MsFlags::empty(), |flags, (_, flag)| flags | flag)
    }
}

/// Whether overlayfs is older than its part of fsconfig(2) (6.5): then the kernel only gathers options, any at all, and
/// refuses them together at the end. Spoils the context.
fn takes_any_option(context: &FsContext) -> bool {
    context.flag(c"no such option").is_ok()
}

#[cfg(test)]
mod tests;
