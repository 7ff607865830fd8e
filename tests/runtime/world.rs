//! A node's data folder, runtimes that are scripts, and the traces that nothing may leave.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const RUNC: &str = "/usr/sbin/runc";
pub const CRUN: &str = "/usr/bin/crun";

/// Folders of a test.
pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        World { dir: tempfile::tempdir().expect("a folder") }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program of that name that is a shell script.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    /// A runtime that says it is another version of runc. Each container that it creates adds a line to `created`.
    pub fn runc_that_says(&self, version: &str) -> PathBuf {
        let created = self.path("created");
        let text = format!(
            r#"[ "$1" = --version ] && echo "runc version {version}" && exit
               case "$*" in *" create "*) echo x >>{} ;; esac
               exec {RUNC} "$@""#,
            created.display()
        );
        self.script("runc", &text)
    }

    /// How many containers were created by [`World::runc_that_says`].
    pub fn created(&self) -> usize {
        std::fs::read_to_string(self.path("created")).unwrap_or_default().lines().count()
    }

    /// The files of the data folder's `runtimes`.
    pub fn kept(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("runtimes")).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}

/// What a measurement could leave: cgroups, processes of its runtimes, mounts where it has its own.
pub fn traces() -> BTreeSet<String> {
    let names = |path: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let top = names(Path::new("/sys/fs/cgroup"));
    let cgroups = top.iter().flat_map(|path| names(path)).chain(top.iter().cloned());
    let ours = cgroups.filter(|path| path.to_string_lossy().contains("/lithify-measure-"));
    let mut all: BTreeSet<String> = ours.map(|path| format!("cgroup {}", path.display())).collect();
    for process in names(Path::new("/proc")) {
        let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains("lithify-measure-") {
            all.insert(format!("process {}", process.display()));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    all.extend(mounts.lines().filter(|line| line.contains(" /mnt ")).map(|line| format!("mount {line}")));
    all
}

/// Waits until there is nothing that was not there before: another measurement may be under way on this machine.
pub fn left_nothing_since(before: &BTreeSet<String>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left: Vec<String> = traces().difference(before).cloned().collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {left:?}");
        std::thread::yield_now();
    }
}
