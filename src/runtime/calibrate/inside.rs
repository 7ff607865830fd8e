//! The measurement itself, in namespaces of its own: containers and sessions of every kind, and what was called for each.
//!
//! Must not: outlive the process that runs it: whatever it starts is in its pid namespace, what it mounts in its mount
//! namespace, what it writes on a tmpfs there.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Seen;
use super::bundle::{self, Kind};
use super::listener::Listener;
use crate::sys::process::{self, pidfd_open};

/// Folders that something may be put over: none of them is needed to run a low-level runtime.
const SPOTS: [&str; 5] = ["/mnt", "/srv", "/media", "/tmp", "/opt"];
/// Where a hybrid cgroup hierarchy has its second version: crun refuses to run with both.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// What a runtime is given to find programs in.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most of a runtime's own words that are shown, in bytes.
const MAX_WORDS: u64 = 2048;

/// A place to measure in.
pub struct Place<'a> {
    runtime: &'a Path,
    /// Below this, all cgroups are.
    cgroup: &'a str,
    dir: PathBuf,
    oom_score: i32,
    listener: Listener,
    containers: usize,
}

impl<'a> Place<'a> {
    /// Makes it, in a mount namespace and a pid namespace of its own.
    ///
    /// # Errors
    /// When something can't be mounted or written.
    pub fn new(runtime: &'a Path, cgroup: &'a str, deadline: Instant) -> Result<Place<'a>> {
        let dir = private(runtime)?;
        // Who asks waits for nobody else's turn. Where that is not to be had, answers are only later.
        let _ = process::be_quick();
        let root = dir.join("root");
        bundle::write_root(&root).context("failed to write the container's root")?;
        // What a container's process may have is what we have: raising it back may not be ours to do.
        let oom_score = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|t| t.trim().parse().ok());
        let program = root.join(bundle::PROGRAM);
        let listener = Listener::new(&dir.join("refusals"), &dir.join("consoles"), &program, deadline)?;
        Ok(Place { runtime, cgroup, dir, oom_score: oom_score.unwrap_or(0), listener, containers: 0 })
    }

    /// Measures.
    ///
    /// # Errors
    /// When the runtime fails to run a container, or does not end in time.
    pub fn measure(&mut self) -> Result<Seen> {
        let mut seen = Seen { listener: true, ..Seen::default() };
        for no_new_privileges in [true, false] {
            let simple = Kind { no_new_privileges, other_user: false, terminal: false, broken: false };
            let other = Kind { other_user: true, ..simple };
            for kind in [simple, other, Kind { terminal: true, ..other }, Kind { broken: true, ..simple }] {
                let ran = self.container(kind, true);
                if self.listener.handed_over() == 0 {
                    // For the filter's sake, or because it can't run a container here at all.
                    return ran.or_else(|e| self.container(kind, false).map_err(|_| e)).map(|()| Seen::default());
                }
                ran?;
            }
            let calls = self.listener.take_seen();
            match no_new_privileges {
                true => seen.always = calls,
                false => seen.without_no_new_privileges = calls.difference(&seen.always).cloned().collect(),
            }
        }
        Ok(seen)
    }

    /// One container up to its workload's first instruction, and two sessions in it: one like it, one whose program can't be
    /// executed.
    fn container(&mut self, kind: Kind, filtered: bool) -> Result<()> {
        self.containers += 1;
        let id = format!("{}-{}", self.cgroup, self.containers);
        let bundle = self.dir.join(&id);
        std::fs::create_dir(&bundle).context("failed to make a bundle")?;
        let (refusals, pid_file) = (self.dir.join("refusals"), bundle.join("pid"));
        let cgroup = format!("/{}/{}", self.cgroup, self.containers);
        let listener = filtered.then_some(refusals.as_path());
        let config = bundle::config(kind, &self.dir.join("root"), &cgroup, self.oom_score, listener);
        std::fs::write(bundle.join("config.json"), serde_json::to_vec(&config)?)
            .context("failed to write config.json")?;

        let mut create = vec!["create", "--bundle", text(&bundle)?, "--pid-file", text(&pid_file)?];
        let consoles = self.dir.join("consoles");
        let console = ["--console-socket", text(&consoles)?];
        create.extend(console.iter().filter(|_| kind.terminal));
        create.push(&id);
        self.run(&create)?;
        let init = read_pid(&pid_file)?;
        let ended = pidfd_open(init).context("failed to hold on to the container")?;
        let started = self.run(&["start", &id]);
        if kind.broken {
            // What `start` says of it differs between runtimes.
            return self.until_ended(ended.as_fd());
        }
        started?;
        let (exe, program) = (PathBuf::from(format!("/proc/{init}/exe")), self.dir.join("root").join(bundle::PROGRAM));
        let program = std::fs::metadata(program).context("failed to look at the program")?;
        let runs = || std::fs::metadata(&exe).is_ok_and(|m| (m.dev(), m.ino()) == (program.dev(), program.ino()));
        let waiting = self.listener.serve_until(Some(ended.as_fd()), || runs() || is_readable(ended.as_fd()));
        waiting.context("failed to wait for the workload")?;
        ensure!(runs(), "the container ended before its workload began: {}", self.words());
        if filtered {
            self.session(kind, &id)?;
            self.session(Kind { broken: true, ..kind }, &id)?;
        }
        Ok(())
    }

    fn session(&mut self, kind: Kind, id: &str) -> Result<()> {
        let (process, pid_file) = (self.dir.join("process.json"), self.dir.join("session"));
        let json = serde_json::to_vec(&bundle::process(kind, true, self.oom_score))?;
        std::fs::write(&process, json).context("failed to write a session's process")?;
        // The last session's number must not be taken for this one's; the first session has none to remove.
        let _ = std::fs::remove_file(&pid_file);
        let mut exec = vec!["exec", "--detach", "--process", text(&process)?, "--pid-file", text(&pid_file)?];
        let consoles = self.dir.join("consoles");
        let console = ["--console-socket", text(&consoles)?];
        exec.extend(console.iter().filter(|_| kind.terminal));
        exec.push(id);
        let ran = self.run(&exec);
        if kind.broken {
            // It is told that the program can't be executed.
            return Ok(());
        }
        ran?;
        // We are who reaps it, and do not: the number is its own.
        let ended = pidfd_open(read_pid(&pid_file)?).context("failed to hold on to a session")?;
        self.until_ended(ended.as_fd())
    }

    fn until_ended(&mut self, process: BorrowedFd<'_>) -> Result<()> {
        self.listener.serve_until(Some(process), || is_readable(process)).context("failed to wait for a process")
    }

    /// Calls the runtime and serves until it has ended.
    fn run(&mut self, args: &[&str]) -> Result<()> {
        let context = || format!("failed to run '{} {}'", self.runtime.display(), args[0]);
        let output = File::create(self.dir.join("output")).with_context(context)?;
        let mut command = Command::new(self.runtime);
        command.arg("--root").arg(self.dir.join("state")).args(args).current_dir("/").env_clear().env("PATH", PATH);
        command.stdin(Stdio::null()).stdout(output.try_clone().with_context(context)?).stderr(output);
        let mut child = command.spawn().with_context(context)?;
        let pidfd = pidfd_open(child.id() as i32).with_context(context)?;
        let served = self.listener.serve_until(Some(pidfd.as_fd()), || is_readable(pidfd.as_fd()));
        served.with_context(|| format!("{}: {}", context(), self.words()))?;
        let status = child.wait().with_context(context)?;
        ensure!(status.success(), "{}: {status}: {}", context(), self.words());
        Ok(())
    }

    /// What the runtime wrote last.
    fn words(&self) -> String {
        let mut words = Vec::new();
        if let Ok(file) = File::open(self.dir.join("output")) {
            // Less of it is better than none.
            let _ = file.take(MAX_WORDS).read_to_end(&mut words);
        }
        let words = String::from_utf8_lossy(&words).trim().to_string();
        if words.is_empty() { "it said nothing".into() } else { words }
    }
}

/// Puts an empty tmpfs and this pid namespace's own `/proc` where only this mount namespace sees them.
fn private(runtime: &Path) -> Result<PathBuf> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("failed to set mounts apart")?;
    let proc = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), proc, none).context("failed to mount /proc")?;
    let small = Some("size=8m,mode=755");
    if Path::new(UNIFIED).join("cgroup.procs").exists() {
        // Covered, not unmounted: without it crun would make its folders in what is below.
        let covered = mount(Some("tmpfs"), UNIFIED, Some("tmpfs"), proc, small);
        covered.with_context(|| format!("failed to cover {UNIFIED}"))?;
    }
    let free = |spot: &&str| Path::new(spot).is_dir() && !runtime.starts_with(spot);
    let Some(spot) = SPOTS.into_iter().find(free) else {
        bail!("failed to find a folder to mount on: none of {} is there", SPOTS.join(", "));
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), spot, Some("tmpfs"), flags, small)
        .with_context(|| format!("failed to mount a tmpfs on {spot}"))?;
    Ok(spot.into())
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    matches!(poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO), Ok(1..))
}

fn read_pid(path: &Path) -> Result<i32> {
    let text = std::fs::read_to_string(path).context("failed to read a pid file")?;
    text.trim().parse().context("failed to read a pid file")
}

/// These are our own paths, all ASCII.
fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
