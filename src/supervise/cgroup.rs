//! The container's cgroups: where they are, who is in them, and moving the anchor in and out (cgroups(7)).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::mountinfo;

/// One directory of one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// v1 controllers of the hierarchy; empty for v2.
    pub controllers: Vec<String>,
    /// Absolute path on the host.
    pub path: PathBuf,
    /// The root of its hierarchy, which is no container's own.
    pub is_root: bool,
}

impl Cgroup {
    /// Whether this is the v2 hierarchy.
    pub fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    fn has(&self, controllers: &[&str]) -> bool {
        self.controllers.iter().any(|c| controllers.contains(&c.as_str()))
    }

    fn put(&self, pid: i32) -> io::Result<()> {
        std::fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }
}

/// The directories of one process, a hierarchy each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups(pub Vec<Cgroup>);

impl Cgroups {
    /// Where a process is, from `/proc/<pid>/cgroup` and our own mount table.
    ///
    /// # Errors
    /// When either can't be read.
    pub fn of(pid: i32) -> Result<Cgroups> {
        let file = format!("/proc/{pid}/cgroup");
        let lines = std::fs::read_to_string(&file).with_context(|| format!("failed to read {file}"))?;
        let table = std::fs::read("/proc/self/mountinfo").context("failed to read /proc/self/mountinfo")?;
        let mounts = mountinfo::parse(&table).entries;
        let mut found = Vec::new();
        for line in lines.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
            let controllers: Vec<String> = names.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect();
            // The widest view of the hierarchy: a container's own folder may be mounted elsewhere, too.
            let views = mounts.iter().filter(|m| Path::new(path).starts_with(&m.root)).filter(|m| {
                let options: BTreeSet<&str> = m.super_options.to_str().unwrap_or("").split(',').collect();
                if controllers.is_empty() {
                    m.fs_type == "cgroup2"
                } else {
                    m.fs_type == "cgroup" && controllers.iter().all(|c| options.contains(c.as_str()))
                }
            });
            let Some(mount) = views.min_by_key(|m| m.root.as_os_str().len()) else { continue };
            // A hierarchy may be mounted from below its root (in a container, say).
            let below = Path::new(path).strip_prefix(&mount.root).unwrap_or(Path::new(""));
            let is_root = below == Path::new("");
            found.push(Cgroup { controllers, path: mount.mount_point.join(below), is_root });
        }
        Ok(Cgroups(found))
    }

    /// Directories that `other`'s process is not in, nor below: the container's own ones, where `other` is the supervisor's.
    /// A folder that has others in it (`cgroupsPath` may name any, a hierarchy's root too) is never emptied or removed.
    pub fn apart_from(&self, other: &Cgroups) -> Cgroups {
        let holds = |c: &Cgroup| other.0.iter().any(|o| o.controllers == c.controllers && o.path.starts_with(&c.path));
        Cgroups(self.0.iter().filter(|c| !c.is_root && !holds(c)).cloned().collect())
    }

    /// Moves a process in, hierarchy by hierarchy, but for those of the named v1 controllers.
    ///
    /// # Errors
    /// Names the first directory that refused it; the others have been entered.
    pub fn enter(&self, pid: i32, except: &[&str]) -> Result<()> {
        let mut refused = Ok(());
        for cgroup in self.0.iter().filter(|c| !c.has(except)) {
            let moved = cgroup
                .put(pid)
                .with_context(|| format!("failed to move process {pid} to cgroup {}", cgroup.path.display()));
            refused = refused.and(moved);
        }
        refused
    }

    /// Moves this process to where it is: nothing changes, but the kernel's lock for such moves stays at hand for a while.
    pub fn touch(&self) {
        if let Some(cgroup) = self.0.first() {
            let _ = cgroup.put(0);
        }
    }

    /// Those of the named v1 controllers.
    pub fn only(&self, controllers: &[&str]) -> Cgroups {
        Cgroups(self.0.iter().filter(|c| c.has(controllers)).cloned().collect())
    }

    /// Lifts the limit of processes, for a low-level runtime that makes the next generation in the same cgroups: it needs
    /// some five before it sets that limit again, the workload perhaps one.
    pub fn lift_pids(&self) {
        for cgroup in self.0.iter().filter(|c| c.is_v2() || c.has(&["pids"])) {
            // In v2 the file is there only where the controller is.
            let file = std::fs::OpenOptions::new().write(true).open(cgroup.path.join("pids.max"));
            let _ = file.and_then(|mut file| std::io::Write::write_all(&mut file, b"max"));
        }
    }

    /// Whether v2 is the only hierarchy: beside v1 (hybrid) it has no controllers, and low-level runtimes look into v1.
    pub fn is_unified(&self) -> bool {
        self.0.iter().all(Cgroup::is_v2)
    }

    /// The directory that tells the container's processes: v2's, or v1's `devices`, which runc itself asks.
    pub fn members(&self) -> Option<&Path> {
        let devices = self.0.iter().find(|c| c.has(&["devices"]));
        devices.or_else(|| self.0.iter().find(|c| c.is_v2())).or(self.0.first()).map(|c| c.path.as_path())
    }

    /// All processes of the container, sub-cgroups included, at most 65,536.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        let mut dirs: Vec<PathBuf> = self.members().map(Path::to_owned).into_iter().collect();
        while let Some(dir) = dirs.pop() {
            let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).take(65_536 - pids.len().min(65_536)));
            let children = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            dirs.extend(children.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        pids
    }

    /// Whether the container is frozen (`pause`), on v1 or v2.
    pub fn is_frozen(&self) -> bool {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        self.0.iter().any(|c| {
            if c.is_v2() {
                read(c.path.join("cgroup.freeze")).trim() == "1"
            } else {
                c.has(&["freezer"]) && read(c.path.join("freezer.state")).trim() != "THAWED"
            }
        })
    }

    /// Removes what is left and empty of them, children first; what is in use stays.
    pub fn remove_empty(paths: &[PathBuf]) {
        for path in paths {
            let children: Vec<PathBuf> = std::fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                .map(|e| e.path())
                .collect();
            Cgroups::remove_empty(&children);
            let _ = std::fs::remove_dir(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(controller: &str, path: &str) -> Cgroup {
        let controllers = if controller.is_empty() { Vec::new() } else { vec![controller.to_owned()] };
        let is_root = path.split('/').count() == 5;
        Cgroup { controllers, path: path.into(), is_root }
    }

    #[test]
    fn a_folder_with_the_supervisor_in_or_below_it_is_not_the_containers_own() {
        let home = Cgroups(vec![
            cgroup("cpu", "/sys/fs/cgroup/cpu/system/engine"),
            cgroup("", "/sys/fs/cgroup/unified/system"),
        ]);
        let container = Cgroups(vec![
            cgroup("cpu", "/sys/fs/cgroup/cpu/system"),
            cgroup("devices", "/sys/fs/cgroup/devices/system"),
            cgroup("memory", "/sys/fs/cgroup/memory"),
            cgroup("", "/sys/fs/cgroup/unified/system"),
        ]);
        let own = container.apart_from(&home);
        assert_eq!(own.0, [cgroup("devices", "/sys/fs/cgroup/devices/system")], "no root, and none that holds us");
        let below = Cgroups(vec![cgroup("cpu", "/sys/fs/cgroup/cpu/system/engine/c")]);
        assert_eq!(below.apart_from(&home), below);
    }

    #[test]
    fn this_process_is_where_the_kernel_says() {
        let own = Cgroups::of(std::process::id() as i32).expect("our cgroups");
        assert!(!own.0.is_empty());
        for cgroup in &own.0 {
            let members = std::fs::read_to_string(cgroup.path.join("cgroup.procs")).expect("its members");
            assert!(members.lines().any(|pid| pid == std::process::id().to_string()), "{}", cgroup.path.display());
        }
    }

    #[test]
    fn of_what_is_removed_only_the_empty_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(path("a/b/c")).expect("folders");
        std::fs::create_dir_all(path("x/y")).expect("folders");
        std::fs::write(path("x/y/used"), "").expect("a file");
        Cgroups::remove_empty(&[path("a"), path("x"), path("missing")]);
        assert!(!path("a").exists() && path("x/y/used").exists());
    }
}
