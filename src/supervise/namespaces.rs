//! The supervisor's own mount namespace, and who else lives in a container's namespaces.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::watch::mountinfo;

/// Paths whose mounts have to stay. Mount points have no symbolic links in them, so that each path is kept as it leads, too.
pub struct Needed(Vec<(PathBuf, bool)>);

impl Needed {
    /// Of paths, each with whether what is mounted below it is needed as well.
    pub fn new(paths: Vec<(PathBuf, bool)>) -> Needed {
        let real = paths.iter().filter_map(|(path, below)| Some((real(path)?, *below)));
        let real: Vec<(PathBuf, bool)> = real.collect();
        Needed(paths.into_iter().chain(real).collect())
    }

    fn has(&self, mount_point: &Path) -> bool {
        let lies = |(path, below): &(PathBuf, bool)| {
            path.starts_with(mount_point) || (*below && mount_point.starts_with(path))
        };
        self.0.iter().any(lies)
    }
}

/// Where a path leads, as far as it exists.
fn real(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        Some(ancestor.canonicalize().ok()?.join(rest))
    })
}

/// Gives this process a mount namespace of its own that receives the host's mounts and unmounts and shows it none of ours:
/// when everything is killed, no mount is left on the host.
///
/// Where the host's mounts are private (no systemd) its unmounts do not arrive: other containers' roots and network
/// namespaces would be held by our copies, so those are dropped, except what is `needed`.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn private_mounts(needed: &Needed) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("failed to make a mount namespace; lithify needs CAP_SYS_ADMIN")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .context("failed to make the mount namespace a slave of the host's")?;
    let table = std::fs::read("/proc/self/mountinfo").context("failed to read /proc/self/mountinfo")?;
    let mounts = mountinfo::parse(&table).entries;
    for entry in mounts.iter().rev() {
        let foreign = (entry.fs_type == "overlay" || entry.fs_type == "nsfs") && entry.master.is_none();
        if foreign && entry.mount_point != Path::new("/") && !needed.has(&entry.mount_point) {
            // What can't be dropped is only held longer than need be.
            let _ = umount2(&entry.mount_point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
    }
    Ok(())
}

/// Puts our edited config.json in the place of the bundle's, in this mount namespace only.
///
/// # Errors
/// When it can't be bound there.
pub fn cover(ours: &Path, theirs: &Path) -> Result<()> {
    mount(Some(ours), theirs, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("failed to put the edited configuration over {}", theirs.display()))
}

/// Whether a process other than those given lives in the same namespace (`ipc`, `uts`) as `pid`.
pub fn is_shared(pid: i32, kind: &str, ours: &HashSet<i32>) -> bool {
    let link = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let Some(namespace) = link(pid) else { return false };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    pids.filter(|other| !ours.contains(other)).any(|other| link(other).as_ref() == Some(&namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_needed_by_the_place_that_a_path_leads_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = dir.path().canonicalize().expect("its path");
        std::fs::create_dir_all(real.join("data/overlay/merged")).expect("folders");
        std::os::unix::fs::symlink(real.join("data"), real.join("docker")).expect("a link");
        let needed = Needed::new(vec![
            (real.join("docker/overlay/merged/etc/not-there"), false),
            (real.join("volumes"), true),
            (real.join("plain"), false),
        ]);
        assert!(needed.has(&real.join("data/overlay/merged")) && needed.has(&real.join("data")));
        assert!(!needed.has(&real.join("data/overlay/other")) && !needed.has(&real.join("data/overlay/merge")));
        assert!(needed.has(&real.join("volumes/below/it")), "a recursive bind takes what is below along");
        assert!(!needed.has(&real.join("plain/below/it")));
    }
}
