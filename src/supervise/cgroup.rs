//! The container's cgroups: where they are, who is in them, and moving the anchor in and out (cgroups(7)).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::watch::mountinfo;

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
            let mount = mounts.iter().rfind(|m| {
                let options: BTreeSet<&str> = m.super_options.to_str().unwrap_or("").split(',').collect();
                if controllers.is_empty() {
                    m.fs_type == "cgroup2"
                } else {
                    m.fs_type == "cgroup" && controllers.iter().all(|c| options.contains(c.as_str()))
                }
            });
            let Some(mount) = mount else { continue };
            // A hierarchy may be mounted from below its root (in a container, say).
            let below = Path::new(path)
                .strip_prefix(&mount.root)
                .unwrap_or(Path::new(path).strip_prefix("/").unwrap_or(Path::new("")));
            let is_root = below == Path::new("");
            found.push(Cgroup { controllers, path: mount.mount_point.join(below), is_root });
        }
        Ok(Cgroups(found))
    }

    /// Directories that are not the same process's in `other`: the container's own ones, where `other` is the engine's.
    pub fn apart_from(&self, other: &Cgroups) -> Cgroups {
        Cgroups(self.0.iter().filter(|c| !c.is_root && !other.0.contains(c)).cloned().collect())
    }

    /// Moves a process in, hierarchy by hierarchy, but for those of the named v1 controllers.
    ///
    /// # Errors
    /// Names the first directory that refused it.
    pub fn enter(&self, pid: i32, except: &[&str]) -> Result<()> {
        for cgroup in self.0.iter().filter(|c| !c.has(except)) {
            cgroup
                .put(pid)
                .with_context(|| format!("failed to move process {pid} to cgroup {}", cgroup.path.display()))?;
        }
        Ok(())
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

    /// Whether one of them is v2.
    pub fn has_v2(&self) -> bool {
        self.0.iter().any(Cgroup::is_v2)
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
