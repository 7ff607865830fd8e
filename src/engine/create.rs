//! `create` and `run`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{Node, delete, foreground, forward, node, overrides, place};
use crate::cli::{CreateArgs, Invocation};
use crate::events::{EngineNames, clock};
use crate::policy::{self, Config, Mode, Policy, RootfsKind};
use crate::runtime;
use crate::spec::{Document, generation, seal};
use crate::supervise::launch::{Outcome, launch};
use crate::supervise::{Plan, RootPlan, control, root};

/// What was decided for a `create`, `run` or `restore`.
enum Decision {
    Off(Node),
    Protect(Box<Protect>),
}

struct Protect {
    config: Config,
    policy: Policy,
    names: EngineNames,
    document: Document,
    bundle: PathBuf,
}

/// Creates a container, and starts it where the verb is `run`.
pub(super) fn create(invocation: &Invocation, args: &CreateArgs, run: bool) -> Result<i32> {
    if !place::is_name(&args.id) {
        return forward(invocation, &node(invocation));
    }
    match decide(invocation, args)? {
        Decision::Off(node) => forward(invocation, &node),
        Decision::Protect(protect) => protected(invocation, args, *protect, run),
    }
}

/// Refuses to restore a checkpoint in a protected mode: the container would run unprotected.
pub(super) fn restore(invocation: &Invocation, args: &CreateArgs) -> Result<i32> {
    match decide(invocation, args)? {
        Decision::Off(node) => forward(invocation, &node),
        Decision::Protect(_) => bail!(
            "failed to restore container {}: a restored container can't be protected yet; restore it with mode 'off'",
            args.id.to_string_lossy()
        ),
    }
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
    let cwd = std::env::current_dir().context("failed to find the current directory")?;
    let bundle = cwd.join(args.bundle.as_deref().unwrap_or(Path::new("")));
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
    if policy.mode == Mode::Off {
        return Ok(node(config));
    }
    Ok(Decision::Protect(Box::new(Protect { config, policy, names, document, bundle })))
}

fn protected(invocation: &Invocation, args: &CreateArgs, protect: Protect, run: bool) -> Result<i32> {
    let id = args.id.to_str().context("failed to read the container id: not UTF-8")?.to_owned();
    ensure!(
        args.config_file.is_none(),
        "failed to protect container {id}: --config after the verb names another file than config.json; leave it out"
    );
    let runtime = runtime::find(&protect.config.runtimes)?;
    let dir = place::of(&protect.config.state_dir, &invocation.globals, &args.id);
    if let Some(status) = claim(invocation, &runtime, &dir)? {
        return Ok(status);
    }
    let made = make(invocation, args, protect, run, id, runtime, &dir);
    if made.is_err() && !dir.join(crate::record::FILE).exists() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    made
}

/// Takes the container's folder. A status is returned when the container exists: then the low-level runtime has said so.
fn claim(invocation: &Invocation, runtime: &Path, dir: &Path) -> Result<Option<i32>> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    let parent = dir.parent().unwrap_or(Path::new("/"));
    builder
        .recursive(true)
        .create(parent)
        .with_context(|| format!("failed to make state folder {}", parent.display()))?;
    for _ in 0..2 {
        match builder.recursive(false).create(dir) {
            Ok(()) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("failed to make {}", dir.display())),
        }
        if let Ok(_lease) = control::Lease::take(dir, control::Intent::Use) {
            let exit = runtime::run_and_wait(runtime, &invocation.argv)
                .with_context(|| format!("failed to start {}", runtime.display()))?;
            return Ok(Some(exit.shell_code()));
        }
        // Nobody supervises it: what an earlier container of that id left, or one that another create is making now.
        ensure!(
            delete::remove_stale(dir)?,
            "failed to create {}: another create of that id is under way; wait for it or delete the container",
            dir.display()
        );
    }
    bail!("failed to make {}: it is there again", dir.display())
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
    let Protect { config, policy, names, mut document, bundle } = protect;
    let engine_rootfs = document.rootfs(&bundle)?;
    rejoin_protected(&mut document, &config.state_dir)?;
    let host_namespace = policy.rootfs != RootfsKind::Engine && document.propagates_to_host()?;
    let (target, given_bundle) = if host_namespace {
        let target = dir.join(root::ROOTFS);
        std::fs::create_dir(&target).with_context(|| format!("failed to make {}", target.display()))?;
        seal::root_path(&mut document, &target);
        seal::absolute_sources(&mut document, &bundle);
        (target, dir.to_owned())
    } else {
        (engine_rootfs.clone(), bundle.clone())
    };
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
    let listen_fds = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<i32>().ok()).unwrap_or(0);
    let plan = Plan {
        root: invocation.globals.root.clone(),
        globals: invocation.globals.forwarded.clone(),
        quiet_globals: invocation.globals.quiet.clone(),
        create_flags: args.others.clone(),
        bundle: given_bundle,
        engine_bundle: bundle,
        console_is_ours: console.is_some(),
        console_socket: console.or(args.console_socket.clone()),
        preserved: args.preserve_fds as i32 + listen_fds.clamp(0, 1024),
        preserve_fds: args.preserve_fds,
        dir: dir.to_owned(),
        data_dir: config.data_dir.clone(),
        rootfs: RootPlan { engine: engine_rootfs, target, host_namespace },
        own_pid_namespace: document.has_own_pid_namespace()?,
        terminal,
        systemd_cgroup: invocation.globals.systemd_cgroup,
        poststart_hooks: document.has_hooks("poststart"),
        start_at_once: run,
        workload: workload(&policy, &names, &document, &id),
        policy,
        evidence: config.evidence,
        journal: config.journal,
        raise_limits: config.raise_limits,
        names,
        created_at: clock::format(clock::now_micros()),
        config: document,
        id,
        runtime,
    };
    let launched = launch(plan, stdio)?;
    match launched.outcome {
        Outcome::Ready => {}
        Outcome::RuntimeFailed(code) => return Ok(code),
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
            let status = front.relay(dir, launched.anchor_pid)?;
            if !args.keep {
                delete::finished(invocation, dir);
            }
            Ok(status)
        }
        None => Ok(0),
    }
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

/// An engine that joins another container's pid or user namespace names it by that container's pid, which is an anchor if
/// that container is protected too: the anchor lives in the host's. The join is meant for the container's init.
fn rejoin_protected(document: &mut Document, state_dir: &Path) -> Result<()> {
    let joined = generation::joined_through_proc(document);
    if joined.is_empty() {
        return Ok(());
    }
    for (dir, record) in crate::record::Record::list(state_dir)? {
        let Ok(record) = record else { continue };
        for (pid, _) in joined.iter().filter(|(pid, _)| *pid == record.anchor.pid) {
            let init = record
                .init
                .with_context(|| format!("failed to join the namespaces of {}: it has no init", dir.display()))?;
            generation::rejoin(document, *pid, init.pid);
        }
    }
    Ok(())
}

/// What stays the same over updates: the annotation's name, else the engine's for the container and its image, else the
/// program.
fn workload(policy: &Policy, names: &EngineNames, document: &Document, id: &str) -> String {
    if let Some(name) = &policy.workload {
        return name.clone();
    }
    let program = document.args().first().and_then(|a| a.rsplit('/').next().map(str::to_owned));
    match (&names.namespace, &names.container, &names.image) {
        (Some(namespace), Some(container), _) => format!("{namespace}/{container}"),
        (None, Some(container), _) => container.clone(),
        (_, None, Some(image)) => image.clone(),
        (_, None, None) => program.filter(|p| !p.is_empty()).unwrap_or_else(|| id.to_owned()),
    }
}
