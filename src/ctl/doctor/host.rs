//! Checks of the kernel, its limits, our capabilities and our folders.

use std::io;
use std::path::Path;

use caps::{CapSet, Capability};

use super::{Check, Verdict};
use crate::policy::config::Config;
use crate::sensor::load;
use crate::sensor::place::Set;
use crate::sys::{durable, probe};

/// Kernel features, each tried out.
pub fn kernel() -> Vec<Check> {
    let mut checks = vec![release()];
    type Probe = fn(&Path) -> io::Result<()>;
    // What it is, whether protection needs it, the probe, and what to do.
    const MOUNTED: [(&str, Verdict, Probe, &str); 6] = [
        (
            "overlay without an upper",
            Verdict::Missing,
            probe::overlay_without_upper,
            "load the overlay module: modprobe overlay; rootfs sealed needs it",
        ),
        (
            "overlay on a tmpfs",
            Verdict::Missing,
            probe::overlay_on_tmpfs,
            "load the overlay module: modprobe overlay; rootfs tripwire needs it",
        ),
        (
            "overlay lowerdir+",
            Verdict::Warn,
            probe::overlay_lowerdir_append,
            "use Linux 6.5 or newer; without it, images of very many layers may not fit one mount call",
        ),
        (
            "fanotify with names",
            Verdict::Missing,
            probe::fanotify_names,
            "use Linux 5.9 or newer with CONFIG_FANOTIFY, or raise fs.fanotify.max_user_groups; rootfs tripwire needs it",
        ),
        ("inotify", Verdict::Missing, probe::inotify_works, "raise fs.inotify.max_user_instances and max_user_watches"),
        ("mountinfo wakes a poll", Verdict::Missing, probe::mountinfo_wakes, "use a kernel whose /proc is complete"),
    ];
    let results = probe::in_private_mounts(|at| MOUNTED.map(|(_, _, probe, _)| probe(at)));
    match results {
        Ok(results) => {
            checks.push(Check::new("mount namespaces", Verdict::Ok, "works"));
            for ((name, lack, _, remedy), result) in MOUNTED.iter().zip(results) {
                checks.push(probed(name, *lack, result, remedy));
            }
        }
        Err(e) => checks.push(probed("mount namespaces", Verdict::Missing, Err(e), "run as root with CAP_SYS_ADMIN")),
    }
    checks.push(probed("pidfd", Verdict::Missing, probe::pidfd(), "use Linux 5.3 or newer"));
    checks.push(probed("openat2", Verdict::Missing, probe::openat2_stays_below(), "use Linux 5.6 or newer"));
    checks.push(capability(Capability::CAP_SYS_ADMIN, Verdict::Missing, "run as root; engines do"));
    let remedy = "run engines as full root; without it a supervisor can't be kept from the OOM killer";
    checks.push(capability(Capability::CAP_SYS_RESOURCE, Verdict::Warn, remedy));
    checks.push(cgroups());
    checks.extend([Set::Sensor, Set::Guard].map(sensor));
    checks
}

/// Whether containers can be learnt and guarded, and what of them is seen: the programs are loaded for a moment.
fn sensor(set: Set) -> Check {
    let (name, needs) = match set {
        Set::Sensor => ("sensor", "learning needs it, protection does not"),
        Set::Guard => ("guard", "telling what an enforced container is refused needs it, refusing does not"),
    };
    match load::try_out(set) {
        Ok(unseen) if unseen.is_empty() => Check::new(name, Verdict::Ok, "sees all that it is meant to"),
        Ok(unseen) => Check::new(name, Verdict::Warn, format!("does not see {}", unseen.join(", ")))
            .remedy("use Linux 6.13 or newer; until then profiles leave these as they are"),
        Err(e) => Check::new(name, Verdict::Warn, format!("{e:#}"))
            .remedy(format!("{needs}; as root on a kernel with BTF it loads")),
    }
}

fn release() -> Check {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned());
    Check::new("release", Verdict::Info, release.unwrap_or_else(|e| e.to_string()))
}

fn probed(name: &str, lack: Verdict, result: io::Result<()>, remedy: &str) -> Check {
    match result {
        Ok(()) => Check::new(name, Verdict::Ok, "works"),
        Err(e) => Check::new(name, lack, e.to_string()).remedy(remedy),
    }
}

fn capability(cap: Capability, lack: Verdict, remedy: &str) -> Check {
    match caps::has_cap(None, CapSet::Effective, cap) {
        Ok(true) => Check::new(&cap.to_string(), Verdict::Ok, "held"),
        Ok(false) => Check::new(&cap.to_string(), lack, "not held").remedy(remedy),
        Err(e) => Check::new(&cap.to_string(), Verdict::Warn, e.to_string()),
    }
}

fn cgroups() -> Check {
    let has = |path: &str| Path::new(path).exists();
    let found = match (has("/sys/fs/cgroup/cgroup.controllers"), has("/sys/fs/cgroup/unified/cgroup.procs")) {
        (true, _) => "v2",
        (false, true) => "v1 with v2 beside it (hybrid)",
        (false, false) if has("/sys/fs/cgroup/memory") => "v1",
        (false, false) => return Check::new("cgroups", Verdict::Missing, "none found").remedy("mount /sys/fs/cgroup"),
    };
    Check::new("cgroups", Verdict::Ok, found)
}

/// Limits that hold for root as well, and that containerd's shims already use up.
pub fn limits() -> Vec<Check> {
    // Name below /proc/sys, least value that serves a few hundred containers, what runs out.
    const LIMITS: [(&str, u64, &str); 3] = [
        (
            "fs/inotify/max_user_instances",
            1024,
            "a containerd shim holds three to six, each protected container one more",
        ),
        ("fs/inotify/max_user_watches", 65_536, "each folder of a watched upper takes one"),
        ("fs/fanotify/max_user_groups", 1024, "each tripwire container takes one"),
    ];
    LIMITS
        .iter()
        .map(|(path, enough, why)| {
            let name = path.replace('/', ".");
            let value = std::fs::read_to_string(Path::new("/proc/sys").join(path));
            match value.ok().and_then(|v| v.trim().parse::<u64>().ok()) {
                Some(value) if value >= *enough => Check::new(&name, Verdict::Ok, value.to_string()),
                Some(value) => Check::new(&name, Verdict::Warn, format!("{value}; {why}")).remedy(format!(
                    "sysctl -w {name}={enough}, and in /etc/sysctl.d to keep it; or raise-limits = true in the configuration"
                )),
                None => Check::new(&name, Verdict::Warn, "can't be read").remedy("mount /proc; use Linux 5.13 or newer"),
            }
        })
        .collect()
}

/// Whether our folders can be written, without making them.
pub fn folders(config: &Config) -> Vec<Check> {
    [("state-dir", &config.state_dir), ("data-dir", &config.data_dir)]
        .into_iter()
        .map(|(name, dir)| {
            let there = dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
            let result = try_write(there);
            let shown = dir.display();
            match result {
                Ok(()) if there == dir => Check::new(name, Verdict::Ok, format!("{shown} can be written")),
                Ok(()) => Check::new(name, Verdict::Ok, format!("{shown} will be made")),
                Err(e) => Check::new(name, Verdict::Missing, format!("{}: {e}", there.display()))
                    .remedy(format!("make {shown} writable and not full, or set {name} in the configuration")),
            }
        })
        .collect()
}

/// Whether the runtime's program is beside ours, where `install` takes it from.
pub fn program() -> Check {
    let path = std::env::current_exe().unwrap_or_default().with_file_name(crate::ctl::install::NAME);
    if nix::unistd::access(&path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file() {
        return Check::new("lithify", Verdict::Ok, path.display().to_string());
    }
    Check::new("lithify", Verdict::Missing, format!("{} is not there", path.display()))
        .remedy("put the programs lithify and lithifyctl into one folder, e.g. /usr/local/bin")
}

fn try_write(dir: &Path) -> io::Result<()> {
    if !dir.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    let name = format!(".lithify-doctor-{}", crate::sys::random::hex(8)?);
    let path = dir.join(name);
    durable::write(&path, b"doctor\n", 0o600)?;
    std::fs::remove_file(path)
}
