//! `create` and `run`.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::claim::{Claim, claim};
use super::director::{self, Desk};
use super::seat::{Asked, Seat, Settled};
use super::{Node, delete, foreground, forward, join, node, overrides, place};
use crate::cli::{CreateArgs, Globals, Invocation};
use crate::events::{EngineNames, clock};
use crate::policy::{self, Config, Mode};
use crate::runtime;
use crate::sensor::Place;
use crate::spec::Document;
use crate::supervise::director::Director;
use crate::supervise::launch::{Outcome, launch};
use crate::supervise::{Plan, RootPlan, root};
use crate::sys::fds;

/// What was decided for a `create`, `run` or `restore`.
enum Decision {
    Off(Node),
    Protect(Box<Protect>),
}

struct Protect {
    asked: Asked,
    document: Document,
    bundle: PathBuf,
}

/// Creates a container, and starts it where the verb is `run`.
pub(super) fn create(invocation: &Invocation, args: &CreateArgs, run: bool) -> Result<i32> {
    if is_only_words(args) {
        return forward(invocation, &node(invocation));
    }
    match decide(invocation, args)? {
        Decision::Off(node) => {
            // What a protected container of this id left would keep this one from being started.
            let dir = place::of(&node.state_dir, &invocation.globals, &args.id);
            if place::is_name(&args.id) && dir.exists() {
                let _ = delete::remove_stale(&dir);
            }
            forward(invocation, &node)
        }
        Decision::Protect(protect) => {
            certain(args)?;
            protected(invocation, args, *protect, run)
        }
    }
}

/// Refuses to restore a checkpoint in a protected mode: the container would run unprotected.
pub(super) fn restore(invocation: &Invocation, args: &CreateArgs) -> Result<i32> {
    if is_only_words(args) {
        return forward(invocation, &node(invocation));
    }
    match decide(invocation, args)? {
        Decision::Off(node) => forward(invocation, &node),
        Decision::Protect(_) => bail!(
            "failed to restore container {}: a restored container can't be protected yet; restore it with mode 'off'",
            args.id.to_string_lossy()
        ),
    }
}

/// A call that makes no container, whatever the mode: help, or not exactly one id.
fn is_only_words(args: &CreateArgs) -> bool {
    args.doubt.is_none() && (args.help || args.id.is_empty())
}

/// What can't be read as the low-level runtime reads it must not be made.
fn certain(args: &CreateArgs) -> Result<()> {
    let id = args.id.to_string_lossy();
    if let Some(doubt) = &args.doubt {
        bail!(
            "failed to protect container {id}: {doubt}; write the command's flags in full, as 'runc create --help' has them"
        );
    }
    ensure!(place::is_name(&args.id), "failed to protect container {id}: not a name of at most 240 bytes");
    Ok(())
}

fn decide(invocation: &Invocation, args: &CreateArgs) -> Result<Decision> {
    let overrides = overrides(&invocation.own)?;
    let config = match Config::load(invocation.own.config.as_deref()) {
        Ok(config) => config,
        // Whoever set `--mode off` on the command line is the node's administrator: such a container always starts.
        Err(_) if overrides.mode == Some(Mode::Off) => Config::default(),
        Err(error) => return Err(error),
    };
    let off_by_default = overrides.mode.unwrap_or(config.mode) == Mode::Off;
    let node = |config: Config| {
        Decision::Off(Node {
            runtimes: config.runtimes,
            state_dir: config.state_dir,
            data_dir: config.data_dir,
            journal: config.journal,
        })
    };
    let bundle = match &args.bundle {
        // The current directory may be gone: it is not asked for where it does not matter.
        Some(bundle) if bundle.is_absolute() => bundle.clone(),
        bundle => {
            let cwd = std::env::current_dir().context("failed to find the current directory")?;
            cwd.join(bundle.as_deref().unwrap_or(Path::new("")))
        }
    };
    let read = Document::read(&bundle).and_then(|document| Ok((document.annotations()?, document)));
    let (annotations, document) = match read {
        Ok(read) => read,
        // The low-level runtime has the words that the engine expects.
        Err(_) if off_by_default => return Ok(node(config)),
        Err(error) => {
            return Err(error.context(format!("failed to protect container {}", args.id.to_string_lossy())));
        }
    };
    let names = EngineNames::from_annotations(&annotations);
    let policy = policy::resolve(&config, &overrides, &annotations, names.container.as_deref())
        .with_context(|| format!("failed to protect container {}", args.id.to_string_lossy()))?;
    // A pause container does nothing that anyone would learn from.
    if policy.mode == Mode::Off || names.sandbox && policy.is_hands_off() {
        join::refuse_hosts(&document, &config.state_dir, &args.id)?;
        return Ok(node(config));
    }
    let asked = Asked { config, overrides, annotations, names };
    Ok(Decision::Protect(Box::new(Protect { asked, document, bundle })))
}

fn protected(invocation: &Invocation, args: &CreateArgs, protect: Protect, run: bool) -> Result<i32> {
    let id = args.id.to_str().context("failed to read the container id: not UTF-8")?.to_owned();
    ensure!(
        args.config_file.is_none(),
        "failed to protect container {id}: --config after the verb names another file than config.json; leave it out"
    );
    let config = &protect.asked.config;
    let runtime = runtime::find(&config.runtimes)?;
    let dir = place::of(&config.state_dir, &invocation.globals, &args.id);
    // Held by us and, through the fork, by the supervisor for as long as it lives.
    let claimed = match claim(invocation, &runtime, &dir)? {
        Claim::Ours(claimed) => claimed,
        Claim::Exists(status) => return Ok(status),
    };
    let made = make(invocation, args, protect, run, id, runtime, &dir);
    if made.is_err() && !dir.join(crate::record::FILE).exists() {
        root::remove_state(&dir);
    }
    drop(claimed);
    made
}

#[allow(clippy::too_many_arguments)]
fn make(
    invocation: &Invocation,
    args: &CreateArgs,
    protect: Protect,
    run: bool,
    id: String,
    runtime: PathBuf,
    dir: &Path,
) -> Result<i32> {
    let Protect { asked, mut document, bundle } = protect;
    let protecting = || format!("failed to protect container {id}");
    let engine_rootfs = document.rootfs(&bundle)?;
    let mut seat = Seat::of(asked, id.clone(), engine_rootfs.clone(), &document, runtime.clone(), dir.to_owned())?;
    join::to_init(&mut document, &seat.config.state_dir)?;
    seat.begin_with(document, &bundle)?;
    let mark = director::mark(&seat);
    let settled = seat.decide().with_context(protecting)?;
    let Settled { policy, config: document, limits, mut remarks, .. } = settled.clone();
    // As soon as it is known that there is one: a sensor that has to be loaded is loaded while the low-level runtime works.
    let (companion, missing) = seat.companion(&policy, false);
    remarks.degraded.extend(missing);
    let host_namespace = seat.host_namespace;
    let target = seat.target(&policy);
    let given_bundle = if host_namespace { dir.to_owned() } else { bundle.clone() };
    if target != engine_rootfs {
        std::fs::create_dir(&target).with_context(|| format!("failed to make {}", target.display()))?;
    }
    let terminal = document.terminal();
    let in_foreground = run && !args.detach;
    let front = if in_foreground {
        Some(foreground::Front::open(dir, terminal && args.console_socket.is_none())?)
    } else {
        None
    };
    let (stdio, console) = match &front {
        Some(front) => (front.container_side()?, front.console()),
        None => (None, None),
    };
    let (preserved, listening) = preserved(args.preserve_fds as i32);
    let globals = absolute_globals(&invocation.globals)?;
    let Seat { config, workload, names, revision, .. } = &seat;
    let (evidence, journal, raise_limits) = (config.evidence, config.journal, config.raise_limits);
    let (data_dir, workload, names) = (config.data_dir.clone(), workload.clone(), names.clone());
    let revision = Some(revision.digest.clone());
    let sensor = Place::of(&config.state_dir);
    let director: Box<dyn Director> = Box::new(Desk::new(seat, settled, mark, companion.is_some()));
    let plan = Plan {
        root: globals.root,
        globals: globals.forwarded,
        quiet_globals: globals.quiet,
        create_flags: args.others.clone(),
        bundle: given_bundle,
        engine_bundle: bundle,
        console_is_ours: console.is_some(),
        console_socket: console.or(args.console_socket.clone()),
        preserved,
        listening,
        preserve_fds: args.preserve_fds,
        dir: dir.to_owned(),
        data_dir,
        rootfs: RootPlan { engine: engine_rootfs, target, host_namespace },
        own_pid_namespace: document.has_own_pid_namespace()?,
        terminal,
        systemd_cgroup: invocation.globals.systemd_cgroup,
        poststart_hooks: document.has_hooks("poststart"),
        poststop_hooks: document.has_hooks("poststop"),
        start_at_once: run,
        workload,
        companion,
        remarks,
        limits,
        sensor,
        director: Some(director),
        policy,
        evidence,
        journal,
        raise_limits,
        revision,
        names,
        created_at: clock::format(clock::now_micros()),
        config: document,
        id,
        runtime,
    };
    let callers = front.as_ref().map(foreground::Front::descriptors).unwrap_or_default();
    let launched = launch(plan, stdio, &callers)?;
    match launched.outcome {
        Outcome::Ready => {}
        Outcome::RuntimeFailed(code) => {
            // What it said before it failed is in the container's pipes.
            front.iter().for_each(foreground::Front::drain);
            return Ok(code);
        }
        Outcome::Failed(reason) => bail!("failed to protect container {}: {reason}", args.id.to_string_lossy()),
    }
    if let Some(path) = &args.pid_file
        && let Err(error) = write_pid_file(path, launched.anchor_pid)
    {
        delete::force(invocation, dir);
        return Err(error);
    }
    match front {
        Some(front) => {
            let relayed = front.relay(dir, launched.anchor_pid);
            match &relayed {
                Ok(_) if args.keep => {}
                Ok(_) => delete::finished(invocation, dir),
                // Nobody is left to hear it.
                Err(_) => delete::force(invocation, dir),
            }
            relayed
        }
        None => Ok(0),
    }
}

/// How many descriptors from 3 on belong to the container, and whether systemd's protocol hands some of them to this
/// process (sd_listen_fds(3)), which passes them on. `LISTEN_FDS` may be stale, inherited from an engine that was itself
/// activated by a socket: crun takes it for its own, and what of it is not open must not fail a container.
fn preserved(asked: i32) -> (i32, bool) {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<i32>().ok()).unwrap_or(0);
    let handed = number("LISTEN_FDS").clamp(0, 1024);
    if number("LISTEN_PID") == std::process::id() as i32 {
        return (asked + handed, handed > 0);
    }
    let handed_down = |fd: &i32| fds::borrow_inherited(*fd).is_some_and(|fd| !fds::is_cloexec(fd));
    let open = (3..3 + asked + handed).take_while(handed_down).count();
    (asked.max(open as i32), false)
}

/// Global flags with absolute paths: the supervisor does not keep the caller's current directory.
fn absolute_globals(globals: &Globals) -> Result<Globals> {
    let mut globals = globals.clone();
    let absolute = |path: &Path| std::path::absolute(path).context("failed to find the current directory");
    if let Some(root) = globals.root.take_if(|r| r.is_relative()) {
        let root = absolute(&root)?;
        let words = [OsString::from("--root"), root.clone().into_os_string()];
        // The last one counts.
        globals.forwarded.extend(words.clone());
        globals.quiet.extend(words);
        globals.root = Some(root);
    }
    if let Some(log) = globals.log.take_if(|l| l.is_relative()) {
        globals.forwarded.extend(["--log".into(), absolute(&log)?.into_os_string()]);
    }
    Ok(globals)
}

/// In one step, as runc does: an engine may be waiting for the file to appear.
fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name =
        path.file_name().with_context(|| format!("failed to write pid file {}: no file name", path.display()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let new = path.with_file_name(hidden);
    let write = || -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o666).open(&new)?;
        write!(file, "{pid}")?;
        std::fs::rename(&new, path)
    };
    write().with_context(|| format!("failed to write pid file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_activation_that_names_us_is_taken_for_ours() {
        // No LISTEN_FDS in a test's environment, and no descriptors handed down.
        assert_eq!(preserved(0), (0, false));
        assert_eq!(preserved(2), (2, false));
    }

    #[test]
    fn a_pid_file_is_whole_from_its_first_moment() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("pid");
        std::fs::write(&path, "12345678").expect("an older one");
        write_pid_file(&path, 42).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "42");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
        assert!(write_pid_file(Path::new("/"), 1).is_err());
    }
}
