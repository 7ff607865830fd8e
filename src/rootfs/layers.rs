//! What the root filesystem that an engine made consists of.
//!
//! Layers are opened once and from then on known by their descriptors, so that later steps neither escape a name nor
//! meet another directory of the same name. Descriptors have to be opened in the mount namespace that later mounts
//! them: the kernel refuses layers of another one.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::listing::{MAX_PROBED, names, shows};
use super::options::{self, OverlayOptions, PathGiven};
use crate::mountinfo::{self, MountEntry};
use crate::sys::mount::MountAttributes;
use crate::sys::proc_fd;
use crate::sys::statx::statx;

/// The layers of one root filesystem, open.
#[derive(Debug)]
pub struct Layers {
    /// Read-only layers, the topmost first; never empty.
    pub lowers: Vec<OwnedFd>,
    /// Data-only layers beneath them (overlayfs of Linux 6.6).
    pub data: Vec<OwnedFd>,
    /// The engine's writable layer, where there is one. It is not part of a sealed root.
    pub upper: Option<OwnedFd>,
    /// The root as the engine made it, writable layer included.
    pub root: OwnedFd,
    /// Options of the engine's overlay that the layers need to be read as the engine reads them.
    pub options: Vec<(String, Option<OsString>)>,
    /// `nosuid`, `nodev`, `noexec` … of the engine's mount, without `ro`.
    pub attributes: MountAttributes,
    /// Why the layers are not what they should be, in words; `None` when all is well.
    pub degraded: Option<String>,
}

impl Layers {
    /// Finds out what `rootfs` is made of. `mountinfo` is `/proc/thread-self/mountinfo`, read in the mount namespace of
    /// the caller before anything of ours is mounted on `rootfs`.
    ///
    /// # Errors
    /// When `rootfs` is missing, a symbolic link or not a directory.
    pub fn of(rootfs: &Path, mountinfo: &[u8]) -> Result<Self> {
        let root = open_rootfs(rootfs)?;
        let status = statx(root.as_fd()).with_context(|| format!("failed to read rootfs {}", rootfs.display()))?;
        let place = PathBuf::from(
            nix::fcntl::readlink(proc_fd::path(root.as_fd()).as_str())
                .with_context(|| format!("failed to find the path of rootfs {}", rootfs.display()))?,
        );
        let Some(entry) = status.mount_id.and_then(|id| find(mountinfo, id)) else {
            let why = format!("the mount table does not list the mount of rootfs {}", rootfs.display());
            return Self::single(root, MountAttributes::NONE, Vec::new(), Some(why));
        };
        if entry.mount_point != place {
            return Self::single(root, MountAttributes::NONE, Vec::new(), None);
        }
        if entry.fs_type != "overlay" || entry.root != Path::new("/") {
            return Self::single(root, attributes(&entry), Vec::new(), None);
        }
        let given = options::parse(entry.super_options.as_bytes());
        match Self::overlay(&given, &entry, root.as_fd()) {
            Ok((lowers, data, upper)) => Ok(Self {
                lowers,
                data,
                upper,
                root,
                options: given.carried,
                attributes: attributes(&entry),
                degraded: None,
            }),
            Err(why) => {
                let why = format!(
                    "the layers of rootfs {} can't be told apart ({why:#}): its writable layer is part of what is sealed",
                    rootfs.display()
                );
                // The context belongs to the filesystem that is mounted now, not to its layers: it stays.
                let context = given.carried.into_iter().filter(|(name, _)| name.ends_with("context")).collect();
                Self::single(root, attributes(&entry), context, Some(why))
            }
        }
    }

    fn single(
        root: OwnedFd,
        attributes: MountAttributes,
        options: Vec<(String, Option<OsString>)>,
        degraded: Option<String>,
    ) -> Result<Self> {
        let only = root.try_clone().context("failed to duplicate the rootfs's descriptor")?;
        Ok(Self { lowers: vec![only], data: Vec::new(), upper: None, root, options, attributes, degraded })
    }

    fn overlay(given: &OverlayOptions, entry: &MountEntry, root: BorrowedFd<'_>) -> Result<Opened> {
        if given.lowers.is_empty() {
            bail!("the mount table names no lower layer");
        }
        let mut why = None;
        for base in bases(given, &entry.mount_point) {
            match open_all(given, &base).and_then(|opened| check(&opened, root).map(|()| opened)) {
                Ok(opened) => return Ok(opened),
                Err(e) => why = why.or(Some(e)),
            }
        }
        Err(why.unwrap_or_else(|| anyhow::anyhow!("its layers have relative paths and no base directory is known")))
    }
}

type Opened = (Vec<OwnedFd>, Vec<OwnedFd>, Option<OwnedFd>);

fn open_rootfs(rootfs: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let shown = rootfs.display();
    let root = match open(rootfs, flags, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::ENOENT) => bail!("rootfs {shown} of bundle does not exist"),
        Err(e) => return Err(e).with_context(|| format!("failed to open rootfs {shown} of bundle")),
    };
    let status = statx(root.as_fd()).with_context(|| format!("failed to read rootfs {shown}"))?;
    match status.kind() {
        libc::S_IFDIR => Ok(root),
        libc::S_IFLNK => bail!(
            "rootfs {shown} of bundle is a symbolic link; name the directory it leads to in root.path of config.json"
        ),
        _ => bail!("rootfs {shown} of bundle is not a directory; root.path of config.json has to name one"),
    }
}

/// The line with a mount id: all that this module needs of that file.
fn find(table: &[u8], id: u64) -> Option<MountEntry> {
    let wanted = id.to_string();
    let line = table
        .split(|b| *b == b'\n')
        .find(|line| line.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&b' ')))?;
    mountinfo::parse_line(line)
}

/// `nosuid`, `nodev`, `noexec` … of a mount, without `ro`.
fn attributes(entry: &MountEntry) -> MountAttributes {
    let flags = entry.options.as_bytes().split(|b| *b == b',');
    flags.fold(MountAttributes::NONE, |attributes, flag| {
        attributes.with(match flag {
            b"nosuid" => MountAttributes::NOSUID,
            b"nodev" => MountAttributes::NODEV,
            b"noexec" => MountAttributes::NOEXEC,
            b"noatime" => MountAttributes::NOATIME,
            b"nodiratime" => MountAttributes::NODIRATIME,
            b"nosymfollow" => MountAttributes::NOSYMFOLLOW,
            _ => MountAttributes::NONE,
        })
    })
}

/// Directories that relative layers may be relative to. containerd changes to the directory that its layers have in
/// common and leaves the upper absolute; Docker and Podman change to their storage folder, which holds the mount point.
fn bases(given: &OverlayOptions, point: &Path) -> Vec<PathBuf> {
    let all = given.lowers.iter().chain(&given.data).chain(&given.upper);
    if all.clone().all(|path| path.raw.is_absolute()) {
        return vec![PathBuf::from("/")];
    }
    let known = [&given.upper, &given.work].into_iter().flatten().map(|p| p.unescaped.as_path());
    let known = known.chain(given.lowers.iter().map(|p| p.unescaped.as_path())).filter(|p| p.is_absolute()).take(3);
    let mut bases: Vec<PathBuf> = Vec::new();
    for path in known.chain([point]) {
        for base in path.ancestors().skip(1) {
            if !bases.iter().any(|known| known == base) {
                bases.push(base.to_owned());
            }
        }
    }
    bases
}

fn open_all(given: &OverlayOptions, base: &Path) -> Result<Opened> {
    let base = open(base, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("failed to open {}", base.display()))?;
    let each = |paths: &[PathGiven]| paths.iter().map(|path| open_layer(&base, path)).collect::<Result<Vec<_>>>();
    let upper = given.upper.as_ref().map(|path| open_layer(&base, path)).transpose()?;
    Ok((each(&given.lowers)?, each(&given.data)?, upper))
}

fn open_layer(base: &OwnedFd, path: &PathGiven) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(base, &path.unescaped, flags, Mode::empty())
        .or_else(|e| if path.raw == path.unescaped { Err(e) } else { openat(base, &path.raw, flags, Mode::empty()) })
        .with_context(|| format!("failed to open layer {}", path.unescaped.display()))
}

/// Whether the opened directories are the layers of the mounted root: what the topmost ones hold has to show in it. It
/// guards against a directory that only happens to have the right name.
fn check((lowers, _, upper): &Opened, root: BorrowedFd<'_>) -> Result<()> {
    let mut above: Vec<BorrowedFd<'_>> = upper.iter().map(AsFd::as_fd).collect();
    for (depth, lower) in lowers.iter().enumerate() {
        for name in names(lower.as_fd(), MAX_PROBED).context("failed to list a layer")? {
            if !shows(root, lower.as_fd(), &above, &name)? {
                bail!("layer {depth} from the top holds {:?}, which the mounted root does not show", name);
            }
        }
        above.push(lower.as_fd());
        // A wrong base would already have shown: layers further down are mostly hidden, and there may be hundreds.
        if depth >= 3 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &[u8] = b"21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        121 21 0:50 / /a\\040b ro,nosuid,noexec,relatime shared:9 master:2 - overlay overlay rw,lowerdir=/x\n";

    #[test]
    fn a_mount_is_found_by_its_whole_id_with_its_path_and_flags() {
        let entry = find(INFO, 121).unwrap();
        assert_eq!((entry.mount_point.as_path(), entry.root.as_path()), (Path::new("/a b"), Path::new("/")));
        assert_eq!(attributes(&entry), MountAttributes::NOSUID.with(MountAttributes::NOEXEC), "ro is left out");
        assert_eq!(entry.super_options, "rw,lowerdir=/x");
        assert!(find(INFO, 12).is_none() && find(b"", 1).is_none() && find(b"21 broken", 21).is_none());
    }

    #[test]
    fn relative_layers_are_looked_for_from_the_nearest_directory_on() {
        let given = options::parse(b"rw,lowerdir=2/fs:1/fs,upperdir=/s/3/fs,workdir=/s/3/work");
        let got = bases(&given, Path::new("/run/rootfs"));
        assert_eq!(got, ["/s/3", "/s", "/", "/run"].map(PathBuf::from));
        let absolute = options::parse(b"rw,lowerdir=/a:/b,upperdir=/c,workdir=/d");
        assert_eq!(bases(&absolute, Path::new("/run/rootfs")), [PathBuf::from("/")]);
    }
}
