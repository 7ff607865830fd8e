//! The root filesystem of one container over its generations.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use super::plan::Plan;
use crate::policy::RootfsKind;
use crate::rootfs::{
    Baseline, Ground, Layers, Leads, MountPoint, Mounted, ScratchMount, Skeleton, Staging, Tripwire, mount_sealed,
    mount_tripwire, mounted_places, restore_modes, scratch_mount, seal_mark,
};
use crate::spec::{Document, mounts, seal};
use crate::sys::mount::attach;

/// Content that a skeleton may have: what the engine wrote before the first start is in it.
const STAGING_BYTES: u64 = 128 << 20;
/// Folder in the container's own one on which the staging tmpfs is mounted.
const STAGING: &str = "staging";
/// Folder in the container's own one that is the root of a container built in the host's mount namespace.
pub const ROOTFS: &str = "rootfs";

/// A built root filesystem.
pub struct Root {
    kind: RootfsKind,
    layers: Layers,
    sealing: Option<Sealing>,
    host_namespace: bool,
    /// What the plan's scratch mounts have come to on this image.
    scratch: Vec<ScratchMount>,
    /// The last generation's upper, until it has been kept as evidence.
    spent: Option<OwnedFd>,
    /// What about it is not as it should be, in words.
    degraded: Vec<String>,
    /// What else is to be known of it.
    notes: Vec<String>,
}

/// What a sealed or tripwire root is made of.
struct Sealing {
    staging: Staging,
    skeleton: Skeleton,
    target: std::path::PathBuf,
    mounted: Option<Mounted>,
    tripwire: Option<Tripwire>,
    /// The last generation's root, moved out of the way.
    aside: Option<Mounted>,
}

impl Root {
    /// Builds the root filesystem that the plan asks for, in the mount namespace of the caller, and edits the document so
    /// that the low-level runtime uses it.
    ///
    /// # Errors
    /// When the engine's rootfs is missing or is not a directory, or a mount is refused.
    pub fn build(plan: &Plan, document: &mut Document) -> Result<Root> {
        let table = std::fs::read("/proc/self/mountinfo").context("failed to read /proc/self/mountinfo")?;
        let layers = Layers::of(&plan.rootfs.engine, &table)?;
        let kind = plan.policy.rootfs;
        let host_namespace = plan.rootfs.host_namespace;
        let degraded = layers.degraded.iter().cloned().collect();
        let mut root = Root {
            kind,
            layers,
            sealing: None,
            host_namespace,
            scratch: Vec::new(),
            spent: None,
            degraded,
            notes: Vec::new(),
        };
        // The mark is set in every kind: what a workload writes under `engine` is no part of a sealed root later.
        let since = root.layers.upper.as_ref().map(|upper| seal_mark(upper.as_fd(), SystemTime::now()));
        if kind == RootfsKind::Engine && plan.policy.scratch.is_empty() {
            return Ok(root);
        }
        let dir = plan.dir.join(STAGING);
        // There is one already where a root is built in another's place.
        std::fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        let staging = Staging::new(&dir, STAGING_BYTES)?;
        let baseline = match since.filter(|_| kind != RootfsKind::Engine) {
            Some(Ok(since)) => Some(Baseline::until(since)),
            Some(Err(error)) => {
                root.degraded.push(format!("{error:#}"));
                None
            }
            None => None,
        };
        let ground = staging.ground(&root.layers, baseline.as_ref())?;
        root.degraded.extend_from_slice(&ground.left_out);
        root.notes.extend(ground.own.clone());
        let points = mounts::mount_points(document, &plan.engine_bundle)?;
        root.set_up_scratch(plan, &points, document.user(), &ground)?;
        root.edit(document);
        if kind == RootfsKind::Engine {
            drop(ground);
            staging.remove()?;
            return Ok(root);
        }
        let points = mounts::mount_points(document, &plan.engine_bundle)?;
        let skeleton = ground.skeleton(&root.layers, &points, &document.cwd())?;
        let target = plan.rootfs.target.clone();
        root.sealing = Some(Sealing { staging, skeleton, target, mounted: None, tripwire: None, aside: None });
        root.mount(plan.policy.tripwire_size_bytes)?;
        Ok(root)
    }

    /// Works out the plan's scratch mounts on this image. `points` are the engine's own mounts.
    fn set_up_scratch(&mut self, plan: &Plan, points: &[MountPoint], owner: (u32, u32), ground: &Ground) -> Result<()> {
        if plan.policy.scratch.is_empty() {
            return Ok(());
        }
        let mounted = mounted_places(ground.view(), points)?;
        for scratch in &plan.policy.scratch {
            let size_bytes = plan.policy.scratch_size_bytes;
            match scratch_mount(ground.view(), scratch, size_bytes, owner, &mounted) {
                Ok(Leads::Here(mount)) => self.scratch.push(mount),
                Ok(Leads::Taken) => {}
                Ok(Leads::Into(place)) => self.notes.push(format!(
                    "scratch path {} is left out: the engine mounts {} and says what is in it",
                    scratch.path.display(),
                    place.display()
                )),
                // An image may have become another one since.
                Err(error) if scratch.learnt => {
                    self.notes.push(format!("what was learnt is left out, writes there are refused: {error:#}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Edits another document so that the low-level runtime uses this root.
    pub fn edit(&self, document: &mut Document) {
        seal::add_scratch(document, &self.scratch);
        if self.kind == RootfsKind::Sealed {
            seal::read_only_root(document);
        }
    }

    fn mount(&mut self, tripwire_size_bytes: u64) -> Result<()> {
        let Some(sealing) = &mut self.sealing else { return Ok(()) };
        let Sealing { staging, skeleton, target, .. } = sealing;
        if self.kind == RootfsKind::Sealed {
            sealing.mounted = Some(mount_sealed(&self.layers, skeleton, staging, target)?);
        } else {
            sealing.tripwire = Some(mount_tripwire(&self.layers, skeleton, staging, target, tripwire_size_bytes)?);
        }
        Ok(())
    }

    /// Makes sure that the root directory of a process is the one built here. A mount on `/` (a link in a volume may lead
    /// there, too) or a mount namespace of somebody else's would give the container another one, which nobody watches.
    ///
    /// # Errors
    /// When it is another directory, or either can't be looked at.
    pub fn is_root_of(&self, pid: i32) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let built = self.built();
        let facts = |path: &Path| {
            let found = std::fs::metadata(path).with_context(|| format!("failed to look at {}", path.display()))?;
            Ok::<_, anyhow::Error>((found.dev(), found.ino()))
        };
        let theirs = std::path::PathBuf::from(format!("/proc/{pid}/root/"));
        ensure!(
            facts(&built)? == facts(&theirs)?,
            "the container would get another root filesystem than the protected one; mount nothing on /, and give it a \
             mount namespace of its own"
        );
        Ok(())
    }

    /// Where this process sees it, without what is mounted on it.
    fn built(&self) -> PathBuf {
        match &self.sealing {
            Some(sealing) => sealing.target.clone(),
            None => crate::sys::proc_fd::path(self.layers.root.as_fd()).into(),
        }
    }

    /// What was copied into the scratch mounts of a container that has run nothing yet gets the image's permissions.
    ///
    /// # Errors
    /// Names the scratch mount where that could not be done.
    pub fn restore_modes(&self, init: i32) -> Result<()> {
        let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        for scratch in self.scratch.iter().filter(|scratch| scratch.is_copied()) {
            let below = scratch.destination.strip_prefix("/").unwrap_or(&scratch.destination);
            let at = |root: &Path| -> Result<OwnedFd> {
                let root = nix::fcntl::open(root, folder, Mode::empty())?;
                let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
                Ok(openat2(&root, below, OpenHow::new().flags(folder).resolve(resolve))?)
            };
            let restored = at(&self.built()).and_then(|original| {
                let copy = at(Path::new(&format!("/proc/{init}/root/")))?;
                restore_modes(original.as_fd(), copy.as_fd())
            });
            restored.with_context(|| format!("failed to copy permissions into {}", scratch.destination.display()))?;
        }
        Ok(())
    }

    /// A pristine root for the next generation. A sealed one can't have been changed.
    ///
    /// # Errors
    /// When a mount is refused.
    pub fn renew(&mut self, tripwire_size_bytes: u64) -> Result<()> {
        let Some(sealing) = &mut self.sealing else { return Ok(()) };
        let Some(tripwire) = sealing.tripwire.take() else { return Ok(()) };
        self.spent = Some(tripwire.upper);
        // Out of the way first and unmounted later: that takes the kernel a grace period.
        match attach(tripwire.mounted.root(), sealing.staging.aside()) {
            Ok(()) => sealing.aside = Some(tripwire.mounted),
            Err(_) => tripwire.mounted.detach()?,
        }
        self.mount(tripwire_size_bytes)
    }

    /// Unmounts what the last generation had.
    pub fn let_go(&mut self) {
        if let Some(aside) = self.sealing.as_mut().and_then(|sealing| sealing.aside.take()) {
            let _ = aside.detach();
        }
    }

    /// The upper of the generation that has ended, once.
    pub fn take_spent(&mut self) -> Option<OwnedFd> {
        self.spent.take()
    }

    /// Takes the mounts away, so that another root can be built in this one's place; gives the upper of the generation that
    /// has ended to whoever keeps it as evidence.
    pub fn dismantle(&mut self) -> Option<OwnedFd> {
        self.let_go();
        if let Some(sealing) = self.sealing.take() {
            if let Some(mounted) = sealing.mounted {
                let _ = mounted.detach();
            }
            if let Some(tripwire) = sealing.tripwire {
                self.spent = Some(tripwire.upper);
                let _ = tripwire.mounted.detach();
            }
            let _ = sealing.staging.remove();
        }
        self.spent.take()
    }

    /// Puts what [`Root::dismantle`] gave where [`Root::take_spent`] finds it.
    pub fn keep_spent(&mut self, spent: Option<OwnedFd>) {
        self.spent = spent;
    }

    /// Which kind it is.
    pub fn kind(&self) -> RootfsKind {
        self.kind
    }

    /// The tripwire of this generation.
    pub fn tripwire(&self) -> Option<&Tripwire> {
        self.sealing.as_ref()?.tripwire.as_ref()
    }

    /// The engine's writable layer; for a plain directory that is left as it is, that directory.
    pub fn engine_upper(&self) -> Option<BorrowedFd<'_>> {
        match &self.layers.upper {
            Some(upper) => Some(upper.as_fd()),
            None if self.kind == RootfsKind::Engine => Some(self.layers.root.as_fd()),
            None => None,
        }
    }

    /// The image's layers for a watch to tell a new file from a changed one, topmost first.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn lowers(&self) -> Result<Vec<OwnedFd>> {
        let skeleton = self.sealing.iter().map(|s| s.skeleton.root());
        let lowers = self.layers.lowers.iter().map(AsFd::as_fd);
        let all = skeleton.chain(lowers).map(|fd| fd.try_clone_to_owned());
        all.collect::<std::io::Result<_>>().context("failed to keep the image's layers")
    }

    /// What about it is not as it should be, in words.
    pub fn degraded(&self) -> &[String] {
        &self.degraded
    }

    /// What else is to be known of it, in words: nothing is missing.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Takes the mounts away again. In a private mount namespace they go with it.
    pub fn unmount(&mut self) {
        self.let_go();
        if self.host_namespace {
            self.dismantle();
        }
        self.sealing = None;
    }
}

/// Removes a container's folder and unmounts what a killed supervisor left there in the host's mount namespace. It holds
/// files and empty folders only; nothing is removed from within a folder, so that a mount that would not go (and the image
/// or a volume behind it) is never emptied.
pub fn remove_state(dir: &Path) {
    use nix::mount::{MntFlags, umount2};
    for name in [ROOTFS, STAGING] {
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        while umount2(&dir.join(name), flags).is_ok() {}
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
    }
    let _ = std::fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_removed_from_within_a_folder_of_the_container() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = dir.path().join("c@1");
        std::fs::create_dir_all(state.join(ROOTFS).join("etc")).expect("what a mount that would not go shows");
        std::fs::create_dir(state.join(STAGING)).expect("a mount point");
        std::os::unix::fs::symlink(dir.path(), state.join("link")).expect("a link");
        std::fs::write(state.join("record.json"), "{}").expect("a file");
        remove_state(&state);
        let left: Vec<_> = std::fs::read_dir(&state).expect("listed").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [ROOTFS]);
        assert!(state.join(ROOTFS).join("etc").exists());
        std::fs::remove_dir(state.join(ROOTFS).join("etc")).expect("removed");
        remove_state(&state);
        assert!(!state.exists() && dir.path().exists());
    }
}
