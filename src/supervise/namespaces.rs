//! The supervisor's own mount namespace, and who else lives in a container's namespaces.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::watch::mountinfo;

/// Gives this process a mount namespace of its own that receives the host's mounts and unmounts and shows it none of ours:
/// when everything is killed, no mount is left on the host.
///
/// Where the host's mounts are private (no systemd) its unmounts do not arrive: other containers' roots and network
/// namespaces would be held by our copies, so those are dropped, except what `needed` lies on or below.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn private_mounts(needed: &[PathBuf]) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("failed to make a mount namespace; lithify needs CAP_SYS_ADMIN")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .context("failed to make the mount namespace a slave of the host's")?;
    let table = std::fs::read("/proc/self/mountinfo").context("failed to read /proc/self/mountinfo")?;
    let mounts = mountinfo::parse(&table).entries;
    for entry in mounts.iter().rev() {
        let foreign = (entry.fs_type == "overlay" || entry.fs_type == "nsfs") && entry.master.is_none();
        if foreign
            && entry.mount_point != Path::new("/")
            && !needed.iter().any(|path| path.starts_with(&entry.mount_point))
        {
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
