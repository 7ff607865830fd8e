//! One life of the workload: made, begun, ended.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::anchor::{Order, Report, order};
use super::caller;
use super::calls::RUNTIME_LOG;
use super::cgroup::Cgroups;
use super::machine::Phase;
use super::namespaces;
use super::supervisor::Supervisor;
use crate::record::ProcessRef;
use crate::runtime::layout::Layout;
use crate::spec::{Document, generation};
use crate::sys::process;
use crate::sys::socket;
use crate::sys::spawn::Child;

/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a workload has to end by itself when its generation is renewed.
const RENEW_GRACE: Duration = Duration::from_secs(8);
/// Controllers (v1) whose cgroup the anchor does not enter: `freezer`, so that `pause` leaves it alone; `devices`, in which
/// runc looks for the container's processes (`ps`, `kill --all`).
const NOT_ENTERED: [&str; 2] = ["freezer", "devices"];
/// Names of files in the container's folder.
pub(super) const INIT_PID: &str = "init.pid";
/// The edited config.json.
pub const CONFIG: &str = "config.json";
/// Calls of `update` to repeat for every new generation.
pub const UPDATES: &str = "updates.json";

impl Supervisor {
    /// Runs `create` of the low-level runtime, for the first generation on the engine's own streams and as long as the
    /// launcher lives, and takes the container's init as our child.
    ///
    /// # Errors
    /// The exit status of a `create` that failed by itself comes as [`super::calls::RuntimeFailed`].
    pub(super) fn create(&mut self, first: Option<([OwnedFd; 3], BorrowedFd<'_>)>) -> Result<()> {
        let (first_streams, launcher) =
            first.map_or((None, None), |(streams, launcher)| (Some(streams), Some(launcher)));
        let first = first_streams.is_some();
        let pid_file = self.plan.dir.join(INIT_PID);
        let _ = std::fs::remove_file(&pid_file);
        let mut args = if first { self.plan.globals.clone() } else { self.own_globals() };
        args.push("create".into());
        args.extend(["--bundle".into(), self.plan.bundle.clone().into_os_string()]);
        args.extend(["--pid-file".into(), pid_file.clone().into_os_string()]);
        if let Some(socket) = self.plan.console_socket.as_ref().filter(|_| first || self.plan.console_is_ours) {
            args.extend(["--console-socket".into(), socket.clone().into_os_string()]);
        }
        if self.plan.preserve_fds > 0 {
            args.extend(["--preserve-fds".into(), self.plan.preserve_fds.to_string().into()]);
        }
        args.extend(self.plan.create_flags.iter().cloned());
        args.push(self.plan.id.clone().into());
        let streams = match first_streams {
            Some(streams) => streams,
            None => match self.held.borrow_mut().take() {
                Some(streams) => streams,
                None => self.open_streams()?,
            },
        };
        self.ending.set(false);
        self.inbox.borrow_mut().gate.begin_creating();
        let created = self.call(&args, streams, launcher);
        self.serve();
        self.inbox.borrow_mut().gate.end_creating();
        created?;
        self.made = true;

        let text = std::fs::read_to_string(&pid_file).with_context(|| {
            format!("failed to read {}, which {} should have written", pid_file.display(), self.plan.runtime.display())
        })?;
        let pid: i32 = text.trim().parse().with_context(|| format!("failed to read {}", pid_file.display()))?;
        let pidfd = process::pidfd_open(pid).context("failed to find the container's init")?;
        let parent = process::parent_of(pid).context("failed to find the container's init")?;
        ensure!(
            parent == std::process::id() as i32,
            "failed to supervise the container's init {pid}: its parent is {parent}; {} detaches it from its caller",
            self.plan.runtime.display()
        );
        self.init = Some(Child { pid, pidfd });
        self.runtimes_image = caller::Image::of(pid);
        // Init has its final root now, and runs nothing of the image yet.
        if !self.plan.policy.is_hands_off() {
            self.root.is_root_of(pid)?;
        }
        if let Err(error) = self.root.restore_modes(pid) {
            let failure = format!("what the image lets others write may be read-only to them: {error:#}");
            self.record.degraded.retain(|known| *known != failure);
            self.record.degraded.push(failure);
        }
        self.layout = Layout::created(self.plan.root.as_deref(), &self.plan.id, pid);
        // Now: a process that has ended is in no cgroup of its own any more.
        let cgroups = Cgroups::of(pid)?.apart_from(&self.home);
        self.anchor_stays = cgroups == self.cgroups && !cgroups.is_unified();
        self.record.cgroups = cgroups.0.iter().map(|c| c.path.clone()).collect();
        self.cgroups = cgroups;
        self.record.init = Some(ProcessRef { pid, start_time_ticks: process::start_time_ticks(pid).unwrap_or(0) });
        let generation = if first { self.record.generation } else { self.record.generation + 1 };
        self.arm_companion(pid, generation);
        Ok(())
    }

    fn open_streams(&self) -> io::Result<[OwnedFd; 3]> {
        Ok([self.streams[0].open()?, self.streams[1].open()?, self.streams[2].open()?])
    }

    /// Before a generation that another follows is ended: whoever reads its output is not to see the end of it.
    pub(super) fn hold_streams(&self) {
        *self.held.borrow_mut() = self.open_streams().ok();
    }

    /// Brings the anchor to where the engine looks for it.
    ///
    /// # Errors
    /// When the kernel refuses, or the anchor is gone.
    pub(super) fn join_anchor(&mut self) -> Result<()> {
        let Some(init) = &self.init else { return Ok(()) };
        if !self.anchor_stays
            && let Err(error) = self.cgroups.enter(self.anchor.pid, &NOT_ENTERED)
        {
            // What the engine reads of the container's use is less then; the container is none the worse.
            self.record.degraded.push(format!("the engine can't see all that the container uses: {error:#}"));
        }
        order(self.anchor.socket.as_fd(), Order::Join, Some(init.pidfd.as_fd()))
            .context("failed to reach the anchor")?;
        let deadline = Instant::now() + KILL_PATIENCE;
        loop {
            ensure!(
                self.wait_readable(&[self.anchor.socket.as_fd()], deadline)?,
                "failed to reach the anchor: no answer"
            );
            let (message, _) = socket::receive(self.anchor.socket.as_fd()).context("failed to hear the anchor")?;
            match Report::decode(&message) {
                // A short workload has no namespaces any more to be brought into.
                Some(Report::Done(0 | libc::ESRCH)) => return Ok(()),
                Some(Report::Done(errno)) => {
                    return Err(io::Error::from_raw_os_error(errno))
                        .context("failed to bring the anchor into the container's namespaces");
                }
                Some(Report::Signal(signal)) => self.late_signals.push(signal),
                None => bail!("failed to reach the anchor: it has ended"),
            }
        }
    }

    /// Lets the created container go.
    ///
    /// # Errors
    /// When the low-level runtime says so, or init ends before the workload has begun.
    pub(super) fn begin(&mut self) -> Result<()> {
        let gate = match &self.layout {
            Some(layout) if layout.has_gate() && !self.plan.poststart_hooks => layout.open_gate().ok(),
            _ => None,
        };
        let Some(gate) = gate else {
            let id = OsString::from(&self.plan.id);
            return self.quiet_call(&[OsStr::new("start"), &id], None).context("failed to start the container");
        };
        let init = self.init.as_ref().context("no init to start")?;
        let deadline = Instant::now() + KILL_PATIENCE;
        ensure!(
            self.wait_readable(&[gate.as_fd(), init.pidfd.as_fd()], deadline)?,
            "failed to start the container: its init does not go on"
        );
        if let Some(layout) = &self.layout {
            layout.mark_started().context("failed to tell the low-level runtime that the container runs")?;
        }
        Ok(())
    }

    /// The next generation, from nothing to its first instruction.
    pub(super) fn restart(&mut self) -> Result<()> {
        ensure!(self.init.is_none(), "failed to end the last generation: its init does not die");
        self.end_companion();
        self.set_guard_aside();
        let _ = std::fs::remove_file(self.plan.dir.join(RUNTIME_LOG));
        let rebuilt = self.decide_anew()?;
        self.prepare_config()?;
        self.forget_generation()?;
        let mut degraded = Vec::new();
        if !rebuilt {
            self.root.renew(self.plan.policy.tripwire_size_bytes)?;
            self.watches.renew(&self.root, self.plan.raise_limits, &mut degraded)?;
        }
        self.prepare_guard();
        self.create(None)?;
        self.repeat_updates()?;
        self.tell_failures(degraded);
        self.watch_mounts();
        self.watches.settle_tripwire()?;
        self.await_companion();
        self.arm_guard();
        self.begin()?;
        self.generation_began = Instant::now();
        self.record.generation += 1;
        self.join_anchor()?;
        if !self.anchor_stays {
            // Out of `pids` again: the low-level runtime made that cgroup anew and we entered it.
            let _ = self.home.only(&["pids"]).enter(self.anchor.pid, &[]);
        }
        self.let_go_of_last();
        Ok(())
    }

    /// Watches the mount table of this generation, where there is anything to protect.
    pub(super) fn watch_mounts(&mut self) {
        let mut degraded = Vec::new();
        if let Some(init) = self.init.as_ref().filter(|_| !self.plan.policy.is_hands_off()) {
            self.watches.on_mounts(init.pid, &mut degraded);
        }
        // Those of the first generation are told with its start.
        match self.machine.phase {
            Phase::Created => self.record.degraded.extend(degraded),
            Phase::Running | Phase::Backoff(_) | Phase::Paused | Phase::Ended => self.tell_failures(degraded),
        }
    }

    fn prepare_config(&self) -> Result<()> {
        let path = self.plan.dir.join(CONFIG);
        let text = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let mut document = Document::parse(&text).with_context(|| format!("failed to parse {}", path.display()))?;
        let mut ours: HashSet<i32> = self.cgroups.processes().into_iter().collect();
        ours.insert(self.anchor.pid);
        let anchor_pid = self.anchor.pid;
        let shared = |kind| namespaces::is_shared(anchor_pid, kind, &ours);
        generation::next(&mut document, generation::Kept { anchor_pid, ipc: shared("ipc"), uts: shared("uts") });
        // In place: the file is bound over the bundle's, and only the low-level runtime we start next reads it.
        std::fs::write(&path, document.to_json()).with_context(|| format!("failed to write {}", path.display()))
    }

    /// Makes the low-level runtime forget the generation that has ended.
    fn forget_generation(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.made) {
            // Its `create` failed, and there is nothing to forget.
            return Ok(());
        }
        match self.layout.take() {
            Some(layout) if !self.plan.systemd_cgroup => {
                layout.forget().context("failed to remove the low-level runtime's state of the last generation")?;
                self.cgroups.lift_pids();
                if self.cgroups.is_unified() {
                    self.home.enter(self.anchor.pid, &[])?;
                }
            }
            layout => {
                if let Some(layout) = layout.filter(|_| self.plan.poststop_hooks) {
                    layout.leave_out_poststop().context("failed to keep poststop hooks for the container's end")?;
                }
                self.home.enter(self.anchor.pid, &[])?;
                let id = OsString::from(&self.plan.id);
                self.quiet_call(&[OsStr::new("delete"), &id], None).context("failed to delete the last generation")?;
            }
        }
        Ok(())
    }

    /// Limits that the engine changed since `create` hold for the next generation too.
    fn repeat_updates(&self) -> Result<()> {
        let path = self.plan.dir.join(UPDATES);
        let Ok(text) = std::fs::read(&path) else { return Ok(()) };
        let updates: Vec<Update> =
            serde_json::from_slice(&text).with_context(|| format!("failed to read {}", path.display()))?;
        for update in updates {
            let words: Vec<&OsStr> = update.args.iter().map(OsStr::new).collect();
            let input = update
                .resources
                .as_deref()
                .map(|text| crate::sys::memory::file("resources", text.as_bytes()))
                .transpose()?;
            self.quiet_call(&words, input).context("failed to repeat an update of the container's limits")?;
        }
        Ok(())
    }

    /// Makes the low-level runtime forget a container that is not to be.
    pub(super) fn discard(&mut self) {
        // Only what our own call has made: where `create` failed, another container may have that id.
        if self.made {
            let _ = self.home.enter(self.anchor.pid, &[]);
            let id = OsString::from(&self.plan.id);
            let _ = self.quiet_call(&[OsStr::new("delete"), OsStr::new("--force"), &id], None);
        }
    }

    /// Freezes the container through the low-level runtime.
    pub(super) fn pause(&self) -> Result<()> {
        if self.cgroups.is_unified() {
            self.home.enter(self.anchor.pid, &[])?;
        }
        let id = OsString::from(&self.plan.id);
        self.quiet_call(&[OsStr::new("pause"), &id], None)
    }

    /// Kills the container's init, without waiting.
    pub(super) fn kill_init(&self) {
        self.ending.set(true);
        if let Some(init) = &self.init {
            let _ = process::pidfd_send_signal(init.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Ends everything that runs in the container, and waits until it is gone.
    pub(super) fn end_generation_now(&mut self) {
        self.kill_init();
        if self.cgroups.is_frozen() {
            let id = OsString::from(&self.plan.id);
            let _ = self.quiet_call(&[OsStr::new("resume"), &id], None);
        }
        self.wait_for_init(KILL_PATIENCE);
        self.kill_stragglers();
    }

    /// Asks the workload to end; kills it if it does not.
    pub(super) fn retire_generation(&mut self) {
        if let Some(init) = &self.init {
            let _ = process::pidfd_send_signal(init.pidfd.as_fd(), libc::SIGTERM);
        }
        self.wait_for_init(RENEW_GRACE);
        self.end_generation_now();
    }

    fn wait_for_init(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while let Some(init) = &self.init {
            match process::reap_pidfd(init.pidfd.as_fd()) {
                Ok(None) => {}
                Ok(Some(exit)) => {
                    self.exit = Some(exit);
                    self.init = None;
                    return;
                }
                Err(_) => {
                    self.init = None;
                    return;
                }
            }
            if !self.wait_readable(&[init.pidfd.as_fd()], deadline).unwrap_or(false) {
                return;
            }
        }
    }

    /// A container without a pid namespace of its own may have processes that outlive its init.
    pub(super) fn kill_stragglers(&mut self) {
        if self.plan.own_pid_namespace {
            return;
        }
        let deadline = Instant::now() + KILL_PATIENCE;
        loop {
            let left: Vec<i32> = self.cgroups.processes().into_iter().filter(|pid| *pid != self.anchor.pid).collect();
            let pidfds: Vec<OwnedFd> = left.iter().filter_map(|pid| process::pidfd_open(*pid).ok()).collect();
            if pidfds.is_empty() || Instant::now() >= deadline {
                return;
            }
            for pidfd in &pidfds {
                let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
            let _ = self.wait_readable(&[pidfds[0].as_fd()], deadline);
            while let Ok(Some(_)) = process::reap_any(self.init.as_ref().map(|i| i.pid)) {}
        }
    }
}

/// One recorded call of `update`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The verb and what followed it.
    pub args: Vec<String>,
    /// What it read from standard input.
    pub resources: Option<String>,
}

/// Where a foreground `run` receives its terminal.
pub fn console_path(dir: &std::path::Path) -> PathBuf {
    dir.join("console")
}
