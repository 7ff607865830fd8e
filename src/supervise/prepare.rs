//! What a supervisor needs before its first generation: the caller's descriptors, folders that stay reachable, its record.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::plan::Plan;
use crate::policy::Response;
use crate::record::{self, Phase, ProcessRef, Record};
use crate::sys::fds;
use crate::sys::process;

/// Descriptors that the caller handed down: those that are not close-on-exec, as all of ours are.
pub(super) fn inherited_fds() -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let handed_down = fds::borrow_inherited(fd).is_some_and(|fd| !fds::is_cloexec(fd));
        if fd > 2 && handed_down {
            found.push(fd);
        }
    }
    Ok(found)
}

/// The data folder by a descriptor of the host's own mount of it: a mount namespace keeps the flags of the moment, and a
/// disk that is read-only now may be mended while the container runs.
pub(super) fn open_data_dir(data_dir: &Path) -> Option<OwnedFd> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    // What can't be made now is tried again with each event.
    let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    Some(std::fs::OpenOptions::new().read(true).custom_flags(flags).open(data_dir).ok()?.into())
}

/// Descriptors from 3 on that the container is to have, ours from now on; every other inherited one is closed: the first
/// create of a shim leaks a socket, for example.
pub(super) fn preserve(plan: &Plan, inherited: &[i32]) -> Result<Vec<OwnedFd>> {
    let mut preserved = Vec::new();
    for number in 3..3 + plan.preserved {
        let Some(fd) = fds::borrow_inherited(number) else {
            bail!("failed to preserve descriptor {number}: it is not open");
        };
        preserved.push(fds::dup_above(fd, 3 + plan.preserved).context("failed to keep a preserved descriptor")?);
    }
    for number in inherited {
        let _ = nix::unistd::close(*number);
    }
    Ok(preserved)
}

/// Where programs find what they are made of: hosts that extend themselves by overlays have them there, too.
const PROGRAMS: [&str; 4] = ["/usr/bin", "/usr/lib", "/usr/lib64", "/etc"];

/// Paths that the low-level runtime and our own programs will need, with whether what is mounted below them is needed as well.
pub(super) fn needed_paths(plan: &Plan) -> Result<Vec<(PathBuf, bool)>> {
    let mut paths: Vec<PathBuf> =
        vec![plan.engine_bundle.clone(), plan.rootfs.engine.clone(), plan.dir.clone(), plan.data_dir.clone()];
    paths.push(plan.runtime.clone());
    // The guard's loader is beside it.
    paths.extend(std::env::current_exe());
    paths.extend(PROGRAMS.map(PathBuf::from));
    paths.extend(plan.root.clone());
    paths.extend(plan.console_socket.clone());
    paths.extend(plan.config.namespaces()?.iter().filter_map(|n| n.path().clone()));
    paths.extend(plan.config.hook_paths());
    let mut paths: Vec<(PathBuf, bool)> = paths.into_iter().map(|path| (path, false)).collect();
    for mount in plan.config.mounts()? {
        let recursive = mount.options().iter().flatten().any(|o| o == "rbind");
        paths.extend(mount.source().clone().map(|source| (plan.engine_bundle.join(source), recursive)));
    }
    Ok(paths)
}

pub(super) fn new_record(plan: &Plan, anchor_pid: i32, degraded: Vec<String>) -> Result<Record> {
    let reference = |pid| -> Result<ProcessRef> {
        Ok(ProcessRef {
            pid,
            start_time_ticks: process::start_time_ticks(pid).context("failed to look at our own processes")?,
        })
    };
    let asked = plan.policy.on_write;
    let lost_terminal = plan.loses_terminal() && asked == Response::Restart;
    Ok(Record {
        version: record::VERSION,
        id: plan.id.clone(),
        root: plan.root.clone(),
        bundle: plan.engine_bundle.clone(),
        runtime: plan.runtime.clone(),
        anchor: reference(anchor_pid)?,
        supervisor: reference(std::process::id() as i32)?,
        init: None,
        workload: plan.workload.clone(),
        revision: plan.revision.clone(),
        names: plan.names.clone(),
        policy: plan.policy.clone(),
        response: if lost_terminal { Response::Stop } else { asked },
        generation: 1,
        phase: Phase::Created,
        created_at: plan.created_at.clone(),
        breaches: 0,
        last_breach: None,
        profile: plan.limits.profile.clone(),
        refusals: 0,
        last_refusal: None,
        degraded,
        notes: plan.remarks.notes.clone(),
        cgroups: Vec::new(),
    })
}
