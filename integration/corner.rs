//! A private corner of the machine: its own mounts, network and process tree, and its own cgroup parent.
//!
//! Engines write to places that no option moves (/run/containerd/s, /run/netns, /var/lib/cni, /var/lib/containers): here those
//! are a tmpfs of the corner's own. What is left behind can be told exactly, because nobody else is in here, and when the
//! corner's first process ends, everything in it ends. Propagation is shared as on a host under systemd. On cgroup v1 the
//! tmpfs that holds the hierarchies is the corner's own, too: Podman makes plain folders there for those that are missing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lithify::sensor::Place;
use tempfile::TempDir;

use crate::command::{Outcome, PATIENCE, eventually, run};
use crate::images;

/// What can be left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    mounts: BTreeSet<String>,
    processes: BTreeSet<(i32, String)>,
    cgroups: BTreeSet<PathBuf>,
}

/// See the module.
pub struct Corner {
    holder: Child,
    dir: TempDir,
}

/// What the name of a corner's folder begins with.
const PREFIX: &str = "lithify-it-";

const ENTER: &str = "\
set -e
mount -t tmpfs -o mode=755 tmpfs /run; mkdir /run/lock
mount -t tmpfs -o mode=755 tmpfs /var/lib
if mountpoint -q /sys/fs/cgroup/memory; then
  mkdir /run/cgroup; mount --rbind /sys/fs/cgroup /run/cgroup; mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
  for one in /run/cgroup/*; do mountpoint -q $one || continue; mkdir /sys/fs/cgroup/${one##*/}; mount --bind $one /sys/fs/cgroup/${one##*/}; done
  umount -R -l /run/cgroup; rmdir /run/cgroup
fi
[ -z \"$2\" ] || ! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
# Else the first sensor here would mount it, for all who come after.
mountpoint -q /sys/fs/bpf || mount -t bpf -o nosuid,nodev,noexec,mode=700 bpf /sys/fs/bpf
mount --make-rshared /
ip link set lo up
echo ready
exec \"$1\" >/dev/null
";

impl Corner {
    /// A corner as engines see a machine.
    pub fn new() -> Result<Corner> {
        Corner::open("")
    }

    /// A corner for crun 1.8, which refuses a hybrid cgroup hierarchy: without /sys/fs/cgroup/unified.
    pub fn without_unified() -> Result<Corner> {
        Corner::open("without-unified")
    }

    fn open(without_unified: &str) -> Result<Corner> {
        ensure!(nix::unistd::geteuid().is_root(), "failed to open a corner: the integration tests need root");
        let init = images::folder()?.join("pause/rootfs/pause");
        // Short: containerd's and our own sockets below it must fit 108 bytes. Not in /run or /var/lib, which are covered.
        let base = std::env::var_os("LITHIFY_IT_DIR").unwrap_or_else(|| "/var/tmp".into());
        let dir = tempfile::Builder::new().prefix(PREFIX).rand_bytes(6).tempdir_in(base)?;
        // Two ties, because unshare has a child: each dies with its parent, so a killed test leaves nothing.
        let mut holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--fork", "--kill-child", "--pid", "--mount-proc"])
            .args(["--mount", "--net", "--propagation", "slave", "bash", "-c", ENTER, "enter"])
            .arg(init)
            .arg(without_unified)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to run setpriv and unshare; install util-linux")?;
        let mut ready = String::new();
        let stdout = holder.stdout.take().context("no stdout")?;
        let corner = Corner { holder, dir };
        BufReader::new(stdout).read_line(&mut ready)?;
        ensure!(ready == "ready\n", "failed to open a corner: this machine refused a namespace or a mount");
        Ok(corner)
    }

    /// The corner's folder, the same path inside and outside; on disk.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the corner's folder as text.
    pub fn path(&self, name: &str) -> String {
        self.dir().join(name).display().to_string()
    }

    /// lithify's folder of live state, as the corner sees it: in its own /run and about as long as /run/lithify, because the
    /// path of a socket below it is at most 107 bytes. What the kernel pins is named after it, so each corner has its own.
    pub fn state(&self) -> PathBuf {
        let name = self.dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
        Path::new("/run").join(name.trim_start_matches(PREFIX))
    }

    /// The parent of all cgroups of this corner, as engines' `--cgroup-parent` takes it.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.dir().file_name().unwrap_or_default().to_string_lossy())
    }

    /// A path as the corner sees it (its /proc, /run, mounts), reachable from here.
    pub fn inside(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A command to be run in the corner.
    pub fn command(&self, program: &str) -> Command {
        let holder = self.holder.id();
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &holder.to_string(), "--mount", "--net"])
            .arg(format!("--pid=/proc/{holder}/ns/pid_for_children"))
            .args(["--", program])
            .env("HOME", self.dir());
        command
    }

    /// Runs a program in the corner.
    pub fn run(&self, argv: &[&str]) -> Result<Outcome> {
        run(self.command(argv[0]).args(&argv[1..]))
    }

    /// Runs a bash script in the corner, with `$1`… as given.
    pub fn bash(&self, script: &str, args: &[&str]) -> Result<Outcome> {
        run(self.command("bash").args(["-c", script, "bash"]).args(args))
    }

    /// Starts a daemon in the corner, with its output in `<dir>/<log>`.
    pub fn daemon(&self, command: &mut Command, log: &str) -> Result<Child> {
        let file = fs::File::create(self.dir().join(log))?;
        let what = format!("{command:?}");
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("failed to start {what}"))
    }

    /// Every process in here but its first one and whoever looks: pid as the corner counts, and command line.
    pub fn processes(&self) -> Result<BTreeSet<(i32, String)>> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(self.inside("/proc"))? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // A process may end between the listing and the reading; a zombie has no command line and will be reaped.
            let Ok(cmdline) = fs::read(entry.path().join("cmdline")) else { continue };
            if pid != 1 && !cmdline.is_empty() {
                found.insert((pid, String::from_utf8_lossy(&cmdline).replace('\0', " ").trim().to_owned()));
            }
        }
        Ok(found)
    }

    /// Every cgroup directory of the corner, in every hierarchy, children after parents.
    pub fn cgroups(&self) -> Result<BTreeSet<PathBuf>> {
        let mut found = BTreeSet::new();
        let name = self.cgroup();
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        roots.extend(fs::read_dir("/sys/fs/cgroup")?.filter_map(|entry| entry.ok()).map(|entry| entry.path()));
        for root in roots {
            let mut queue = vec![root.join(&name[1..])];
            while let Some(dir) = queue.pop() {
                let Ok(entries) = fs::read_dir(&dir) else { continue };
                queue.extend(
                    entries
                        .filter_map(|e| e.ok())
                        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                        .map(|e| e.path()),
                );
                found.insert(dir);
            }
        }
        Ok(found)
    }

    /// What is here now.
    pub fn traces(&self) -> Result<Traces> {
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", self.holder.id()))?;
        Ok(Traces {
            mounts: mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect(),
            processes: self.processes()?,
            // The parent itself stays: engines make it and leave it to whoever named it.
            cgroups: self.cgroups()?.into_iter().filter(|dir| !dir.ends_with(&self.cgroup()[1..])).collect(),
        })
    }

    /// Waits until nothing is here that was not before: no process, mount or cgroup.
    pub fn left_nothing_since(&self, before: &Traces) -> Result<()> {
        eventually("nothing left behind", Duration::from_secs(20), || {
            let now = self.traces()?;
            let mounts: Vec<_> = now.mounts.difference(&before.mounts).collect();
            let processes: Vec<_> = now.processes.difference(&before.processes).collect();
            let cgroups: Vec<_> = now.cgroups.difference(&before.cgroups).collect();
            ensure!(
                mounts.is_empty() && processes.is_empty() && cgroups.is_empty(),
                "mounts {mounts:?}, processes {processes:?}, cgroups {cgroups:?}"
            );
            Ok(Some(()))
        })
    }

    fn close(&mut self) -> Result<()> {
        let cgroups = self.cgroups()?;
        // A frozen process does not die: thaw what a test has paused.
        for dir in &cgroups {
            for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                if dir.join(file).exists() {
                    fs::write(dir.join(file), thawed)?;
                }
            }
        }
        self.holder.kill()?;
        self.holder.wait()?;
        // The kernel's programs are the node's: what a test that failed has left of them would outlive the corner.
        let sensor = Place::of(&self.state());
        for pins in [sensor.guard().pins, sensor.pins] {
            match fs::remove_dir_all(&pins) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("failed to remove {}", pins.display()));
                }
                _ => {}
            }
        }
        for dir in cgroups.iter().rev() {
            eventually("removal of a cgroup", PATIENCE, || match fs::remove_dir(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(Some(())),
            })
            .with_context(|| format!("failed to remove {}", dir.display()))?;
        }
        Ok(())
    }
}

impl Drop for Corner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["containerd.log", "dockerd.log"] {
                if let Ok(text) = fs::read_to_string(self.dir().join(log)) {
                    let tail: Vec<_> = text.lines().rev().take(15).collect();
                    eprintln!("the end of {log}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
                }
            }
            let _ = self.close();
        } else if let Err(error) = self.close() {
            panic!("failed to close a corner: {error:#}");
        }
    }
}
