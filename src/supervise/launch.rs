//! From an engine's `create` to a supervised container: the forks, and the first generation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::anchor::{self, Order, order};
use super::calls::RuntimeFailed;
use super::cgroup::Cgroups;
use super::companion::Companion;
use super::control::Listener;
use super::generation::CONFIG;
use super::plan::Plan;
use super::prepare::{inherited_fds, needed_paths, new_record, open_data_dir, preserve};
use super::refused::Inbox;
use super::root::Root;
use super::stdio::{self, Stream};
use super::supervisor::{Anchor, Parts, Supervisor};
use super::waiting::{self, hung_up};
use super::watches::Watches;
use super::{namespaces, root};
use crate::events::{Journal, Recorder};
use crate::record;
use crate::sys::process::{self, Exit, Fork};
use crate::sys::signals::{Mask, SignalFd};
use crate::sys::socket;
use crate::sys::{fds, proc_fd};

/// Exit status of a `create` that was given up for a reason of ours.
const FAILED: i32 = 1;

/// What the engine's call learns of its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The container exists and is watched.
    Ready,
    /// The low-level runtime failed and has told the engine why; this is its exit status.
    RuntimeFailed(i32),
    /// lithify failed, for this reason.
    Failed(String),
}

/// A container that was launched.
pub struct Launched {
    /// The process whose pid the engine is to have. Our child until we end.
    pub anchor_pid: i32,
    /// What became of it.
    pub outcome: Outcome,
}

/// Forks anchor and supervisor and waits until the container has been created, or not.
///
/// `stdio` are the container's standard streams; with `None` it gets ours. `callers` are descriptors of the caller that
/// nobody else may hold open; the caller keeps them.
///
/// # Errors
/// When not even the forks succeed.
pub fn launch(plan: Plan, stdio: Option<[OwnedFd; 3]>, callers: &[i32]) -> Result<Launched> {
    let inherited = inherited_fds().context("failed to list open descriptors")?;
    let (ours, supervisors) = socket::pair().context("failed to make a socket pair")?;
    let mask = Mask::current();
    let anchor_pid = match process::fork().context("failed to fork the anchor")? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            drop(ours);
            // Their owners are in frames that this process never returns to.
            for number in callers {
                let _ = nix::unistd::close(*number);
            }
            fork_supervisor(plan, supervisors, stdio, mask, &inherited)
        }
    };
    drop((supervisors, stdio));
    let outcome = match socket::receive(ours.as_fd()) {
        Ok((message, _)) => decode(&message),
        Err(error) => Outcome::Failed(format!("failed to hear the supervisor: {error}")),
    };
    Ok(Launched { anchor_pid, outcome })
}

fn encode(outcome: &Outcome) -> Vec<u8> {
    match outcome {
        Outcome::Ready => b"r".to_vec(),
        Outcome::RuntimeFailed(code) => format!("c{code}").into_bytes(),
        Outcome::Failed(text) => {
            let text: String = text.chars().take(socket::MAX_MESSAGE / 4 - 1).collect();
            format!("f{text}").into_bytes()
        }
    }
}

fn decode(message: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(message);
    match text.chars().next() {
        Some('r') => Outcome::Ready,
        Some('c') => Outcome::RuntimeFailed(text[1..].parse().unwrap_or(FAILED)),
        Some('f') => Outcome::Failed(text[1..].to_owned()),
        _ => Outcome::Failed(
            "the supervisor ended without a word; see the kernel's log for a crash or an OOM kill".to_owned(),
        ),
    }
}

/// In the anchor-to-be.
fn fork_supervisor(plan: Plan, launcher: OwnedFd, stdio: Option<[OwnedFd; 3]>, mask: Mask, inherited: &[i32]) -> ! {
    let _ = nix::unistd::setsid();
    let prepare = || -> io::Result<(SignalFd, OwnedFd, OwnedFd, i32)> {
        process::become_subreaper()?;
        let (to_anchor, to_supervisor) = socket::pair()?;
        Ok((SignalFd::all()?, to_anchor, to_supervisor, process::keep_proc()?))
    };
    let (signals, to_anchor, to_supervisor, proc) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => fail(&launcher, &anyhow::Error::from(error).context("failed to set up the anchor")),
    };
    let anchor_pid = std::process::id() as i32;
    match process::fork() {
        Err(error) => fail(&launcher, &anyhow::Error::from(error).context("failed to fork the supervisor")),
        Ok(Fork::Child) => {
            drop((to_supervisor, signals));
            supervise(plan, launcher, Anchor { pid: anchor_pid, socket: to_anchor }, stdio, mask, inherited)
        }
        Ok(Fork::Parent(supervisor_pid)) => {
            let mut keep = anchor::kept(&to_supervisor, &signals).to_vec();
            keep.extend([0, 1, 2, proc]);
            let _ = detach_stdio();
            // Whatever else is open belongs to the launcher or the supervisor; nothing of it is used here again.
            let _ = fds::close_all_except(&keep);
            std::mem::forget((plan, launcher, to_anchor, stdio));
            waiting::settle_down();
            let _ = std::env::set_current_dir("/");
            anchor::run(to_supervisor, supervisor_pid, signals)
        }
    }
}

fn fail(launcher: &OwnedFd, error: &anyhow::Error) -> ! {
    let _ = socket::send(launcher.as_fd(), &encode(&Outcome::Failed(format!("{error:#}"))), &[]);
    process::exit_now(FAILED)
}

/// Our own standard streams become `/dev/null`: those of the engine are the container's.
fn detach_stdio() -> io::Result<()> {
    let null = stdio::null()?;
    for number in 0..3 {
        fds::dup_to(null.as_fd(), number)?;
    }
    Ok(())
}

/// Is the supervisor: returns never.
fn supervise(
    plan: Plan,
    launcher: OwnedFd,
    anchor: Anchor,
    stdio: Option<[OwnedFd; 3]>,
    mask: Mask,
    inherited: &[i32],
) -> ! {
    process::set_name("lithify");
    let _ = nix::unistd::setsid();
    let dir = plan.dir.clone();
    let start_at_once = plan.start_at_once;
    // Both are kept here so that an early failure does not drop them: an anchor that loses its supervisor ends everything.
    let (mut anchor, mut unfinished) = (Some(anchor), None);
    let made = first_generation(plan, &launcher, &mut anchor, stdio, mask, inherited, &mut unfinished);
    let code = match made {
        Ok(mut supervisor) => {
            if !start_at_once {
                let _ = socket::send(launcher.as_fd(), &encode(&Outcome::Ready), &[]);
                drop(launcher);
            } else {
                supervisor.await_companion();
                supervisor.arm_guard();
                let begun = supervisor.watches.settle().and_then(|()| supervisor.begin());
                let begun = begun.or_else(|error| supervisor.start_anew(error));
                let begun = begun.and_then(|()| supervisor.join_anchor());
                match begun {
                    Ok(()) => {
                        supervisor.started();
                        let _ = socket::send(launcher.as_fd(), &encode(&Outcome::Ready), &[]);
                        drop(launcher);
                    }
                    Err(error) => give_up(Some(*supervisor), None, &dir, &launcher, error),
                }
            }
            supervisor.run();
            supervisor.root.unmount();
            supervisor.release_anchor();
            0
        }
        Err(error) => give_up(unfinished, anchor, &dir, &launcher, error),
    };
    process::exit_now(code)
}

/// Undoes everything and tells the launcher why.
fn give_up(
    supervisor: Option<Supervisor>,
    anchor: Option<Anchor>,
    dir: &std::path::Path,
    launcher: &OwnedFd,
    error: anyhow::Error,
) -> ! {
    let outcome = match error.downcast_ref::<RuntimeFailed>() {
        Some(failure) => Outcome::RuntimeFailed(failure.exit.shell_code()),
        None => Outcome::Failed(format!("{error:#}")),
    };
    if let Some(mut supervisor) = supervisor {
        supervisor.end_generation_now();
        supervisor.discard();
        supervisor.leave_guard();
        supervisor.root.unmount();
        root::remove_state(dir);
        let _ = socket::send(launcher.as_fd(), &encode(&outcome), &[]);
        supervisor.exit = Some(Exit::Code(FAILED));
        supervisor.release_anchor();
        process::exit_now(FAILED)
    }
    root::remove_state(dir);
    let _ = socket::send(launcher.as_fd(), &encode(&outcome), &[]);
    if let Some(anchor) = anchor {
        let _ = order(anchor.socket.as_fd(), Order::End(Exit::Code(FAILED)), None);
    }
    process::exit_now(FAILED)
}

#[allow(clippy::too_many_arguments)]
fn first_generation(
    mut plan: Plan,
    launcher: &OwnedFd,
    anchor: &mut Option<Anchor>,
    stdio: Option<[OwnedFd; 3]>,
    mask: Mask,
    inherited: &[i32],
    unfinished: &mut Option<Supervisor>,
) -> Result<Box<Supervisor>> {
    process::become_subreaper().context("failed to become a subreaper")?;
    let signals = SignalFd::all().context("failed to open a signal descriptor")?;
    let streams = match &stdio {
        Some([a, b, c]) => [Some(a.as_fd()), Some(b.as_fd()), Some(c.as_fd())],
        None => [0, 1, 2].map(fds::borrow_inherited),
    };
    let keep = |fd: Option<BorrowedFd<'_>>| match fd {
        Some(fd) => Stream::keep(fd),
        None => Ok(Stream::Held(stdio::null()?)),
    };
    let kept = [keep(streams[0])?, keep(streams[1])?, keep(streams[2])?];
    let [input, output, error] = streams.map(|fd| fd.map_or_else(stdio::null, |fd| fds::dup_above(fd, 3)));
    let first_streams = [input?, output?, error?];
    drop(stdio);
    let preserved = preserve(&plan, inherited)?;
    detach_stdio().context("failed to open /dev/null")?;
    std::env::set_current_dir("/").context("failed to change to /")?;

    let control = Listener::open(&plan.dir)
        .with_context(|| format!("failed to make the control socket in {}", plan.dir.display()))?;
    let home = Cgroups::of(std::process::id() as i32)?;
    let data = open_data_dir(&plan.data_dir);
    let mut document = plan.config.clone();
    if !plan.rootfs.host_namespace {
        namespaces::private_mounts(&namespaces::Needed::new(needed_paths(&plan)?))?;
    }
    let root = Root::build(&plan, &mut document)?;
    let config = plan.dir.join(CONFIG);
    std::fs::write(&config, document.to_json()).with_context(|| format!("failed to write {}", config.display()))?;
    if !plan.rootfs.host_namespace {
        namespaces::cover(&config, &plan.engine_bundle.join("config.json"))?;
    }
    let anchor = anchor.take().context("no anchor")?;
    let mut degraded: Vec<String> = root.degraded().to_vec();
    degraded.extend(plan.remarks.degraded.iter().cloned());
    let watches = match plan.policy.is_hands_off() {
        true => Watches::default(),
        false => Watches::on_root(&root, plan.raise_limits, &mut degraded)?,
    };
    if !process::protect_from_oom(anchor.pid) {
        degraded.push("without CAP_SYS_RESOURCE the anchor is not protected from the OOM killer".to_owned());
    }
    plan.remarks.notes.extend_from_slice(root.notes());
    let record = new_record(&plan, anchor.pid, degraded)?;
    let data_dir = data.as_ref().map_or(plan.data_dir.clone(), |fd| PathBuf::from(proc_fd::path(fd.as_fd())));
    let recorder = Recorder::new(Journal::open(&data_dir, plan.journal), &plan.id);
    let companion = plan.companion.take().map(Companion::new);
    let mut inbox = Inbox::new();
    if plan.limits.listener {
        let opened = inbox.gate.open(&plan.dir);
        opened.with_context(|| format!("failed to listen for refused system calls in {}", plan.dir.display()))?;
    }
    let supervisor = Supervisor::new(Parts {
        plan,
        companion,
        anchor,
        signals,
        mask,
        streams: kept,
        preserved,
        root,
        home,
        watches,
        recorder,
        data,
        record,
        control,
        inbox,
    });
    let supervisor = unfinished.insert(supervisor);
    supervisor.prepare_guard();
    // Kept only where a second attempt may be made.
    let again = match supervisor.plan.director {
        Some(_) => Some(duplicates(&first_streams).context("failed to keep the container's streams")?),
        None => None,
    };
    match (supervisor.create(Some((first_streams, launcher.as_fd()))), again) {
        (Err(error), Some(again)) if supervisor.is_to_be_created_anew(&error) => {
            supervisor.create(Some((again, launcher.as_fd())))?;
        }
        (created, _) => created?,
    }
    if !supervisor.plan.start_at_once {
        supervisor.join_anchor()?;
    }
    supervisor.watch_mounts();
    record::write_limits(&supervisor.plan.limits, &supervisor.plan.dir)?;
    supervisor.record.write(&supervisor.plan.dir)?;
    if hung_up(launcher.as_fd()) {
        bail!("failed to create container {}: the caller was killed", supervisor.plan.id);
    }
    Ok(Box::new(unfinished.take().context("no supervisor")?))
}

fn duplicates(streams: &[OwnedFd; 3]) -> io::Result<[OwnedFd; 3]> {
    let [input, output, error] = streams;
    Ok([input.try_clone()?, output.try_clone()?, error.try_clone()?])
}
