//! `lithifyctl install`: registers the runtime with an engine, and takes that back.
//!
//! Owns: what is written where for each engine. Must not: restart an engine, change a byte of the user's file outside our
//! own entry, or write through a symbolic link.

pub mod containerd;
pub mod docker;
pub mod dropin;
pub mod place;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Call, Given, Outcome, diff, plain, usage, value};
use crate::runtime;
use place::Root;

const HELP: &str = "\
usage: lithifyctl install --containerd|--docker|--podman|--crio [--dry-run] [--uninstall] [--json]

Registers the runtime 'lithify' with an engine, and shows the difference that makes. The engine's own files keep every
other byte; --uninstall gives them back as they were. Done twice it changes nothing.

  --dry-run        show the difference and write nothing
  --uninstall      take it back
  --binary PATH    the runtime's program, instead of 'lithify' beside lithifyctl
  --root DIR       another root folder in which the engines' files are
";

/// The name under which engines know the runtime.
pub const NAME: &str = "lithify";

/// An engine that the runtime can be registered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// containerd's CRI.
    Containerd,
    /// Docker's daemon.
    Docker,
    /// Podman.
    Podman,
    /// CRI-O.
    Crio,
}

impl Engine {
    /// All of them.
    pub const ALL: [Engine; 4] = [Engine::Containerd, Engine::Docker, Engine::Podman, Engine::Crio];

    /// As in the option, e.g. `containerd`.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Containerd => "containerd",
            Engine::Docker => "docker",
            Engine::Podman => "podman",
            Engine::Crio => "crio",
        }
    }

    /// What has to be done for the engine to see the change.
    fn afterwards(self, uninstall: bool) -> &'static str {
        match self {
            Engine::Containerd => "restart containerd: systemctl restart containerd (containers go on)",
            // A reload adds runtimes and forgets none (seen with 20.10).
            Engine::Docker if uninstall => "Docker forgets it at its next restart: systemctl restart docker",
            Engine::Docker => "let Docker read it: systemctl reload docker",
            Engine::Podman if uninstall => "nothing else to do",
            Engine::Podman => "nothing else to do: podman reads it at its next start (podman run --runtime lithify …)",
            Engine::Crio => "restart CRI-O: systemctl restart crio (containers go on)",
        }
    }

    /// What registering, or taking it back, makes of the engine's file.
    ///
    /// # Errors
    /// When a file of the engine can't be read or is not of the form that the engine itself wants.
    pub fn plan(self, root: &Root, binary: &str, uninstall: bool) -> Result<Change> {
        let path = match self {
            Engine::Containerd => containerd::place(root)?,
            Engine::Docker => PathBuf::from(docker::PATH),
            Engine::Podman => PathBuf::from(dropin::PODMAN_PATH),
            Engine::Crio => PathBuf::from(dropin::CRIO_PATH),
        };
        let before = root.read(&path)?;
        let text = before.as_deref();
        let context = || format!("failed to edit {}", path.display());
        let after = match self {
            Engine::Containerd if uninstall => containerd::remove(text),
            Engine::Containerd => {
                let main = if containerd::is_drop_in(&path) { root.read(Path::new(containerd::PATH))? } else { None };
                containerd::add(text, main.as_deref(), binary).with_context(context)?
            }
            Engine::Docker if uninstall => docker::remove(text).with_context(context)?,
            Engine::Docker => Some(docker::add(text, binary).with_context(context)?),
            Engine::Podman => dropin::edit(text, dropin::podman(binary), uninstall).with_context(context)?,
            Engine::Crio => dropin::edit(text, dropin::crio(binary), uninstall).with_context(context)?,
        };
        Ok(Change { path, before, after })
    }
}

/// One file before and after; `None` where it does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute, seen from the root folder.
    pub path: PathBuf,
    /// Its text now.
    pub before: Option<String>,
    /// Its text then.
    pub after: Option<String>,
}

impl Change {
    /// Writes it, durably.
    ///
    /// # Errors
    /// When the file or its folder can't be written.
    fn apply(&self, root: &Root) -> Result<()> {
        if self.before == self.after {
            return Ok(());
        }
        match &self.after {
            Some(text) => root.write(&self.path, text),
            None => root.remove(&self.path),
        }
    }
}

/// Registers or unregisters.
///
/// # Errors
/// When a file can't be read, understood or written, or the arguments are wrong.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let (mut engine, mut dry_run, mut uninstall) = (None, false, false);
    let (mut root, mut binary) = (PathBuf::from("/"), None);
    while let Some(given) = call.next(args)? {
        let Given::Option(name) = &given else { return Err(given.refuse(&[])) };
        match name.as_str() {
            "dry-run" => dry_run = true,
            "uninstall" => uninstall = true,
            "root" => root = value(args)?.into(),
            "binary" => binary = Some(PathBuf::from(value(args)?)),
            _ => match Engine::ALL.into_iter().find(|e| e.name() == name) {
                Some(e) if engine.is_none_or(|other| other == e) => engine = Some(e),
                Some(_) => return Err(usage("name one engine at a time")),
                None => {
                    let own = ["containerd", "docker", "podman", "crio", "dry-run", "uninstall", "root", "binary"];
                    return Err(given.refuse(&own));
                }
            },
        }
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let engine = engine.ok_or_else(|| usage("expected --containerd, --docker, --podman or --crio"))?;
    let binary = program(binary, uninstall)?;
    let whole = root == Path::new("/");
    let root = Root::open(&root)?;
    let change = engine.plan(&root, &binary, uninstall)?;
    let changed = change.before != change.after;
    if !dry_run {
        change.apply(&root)?;
    }
    // Another root folder's runtimes are not ours to run.
    let looks = !dry_run && !uninstall && whole;
    let runtimes = if looks { look_at_runtimes(call) } else { Vec::new() };
    let shown = change.path.display().to_string();
    let difference = diff::unified(&shown, change.before.as_deref(), change.after.as_deref());
    let next = if changed { engine.afterwards(uninstall) } else { "nothing to do" };
    if call.json {
        call.print_json(&serde_json::json!({
            "engine": engine.name(), "file": shown, "changed": changed, "written": changed && !dry_run,
            "diff": difference, "next": next, "runtimes": runtimes,
        }))?;
        return Ok(Outcome::Well);
    }
    let verb = match (changed, dry_run) {
        (false, _) => "is as it should be",
        (true, true) => "would be changed",
        (true, false) => "was changed",
    };
    // The user's own text goes through here: tabs and newlines must stay, escape sequences must not.
    for line in difference.split_inclusive('\n') {
        let body = line.trim_end_matches('\n');
        writeln!(call.out, "{}", body.split('\t').map(plain).collect::<Vec<_>>().join("\t"))?;
    }
    for line in &runtimes {
        writeln!(call.out, "{}", plain(line))?;
    }
    writeln!(call.out, "{} {verb}; {next}", plain(&shown))?;
    Ok(Outcome::Well)
}

/// Finds out what the node's low-level runtimes need, so that the first container does not wait for that. A failure is only
/// told: that container tries again.
fn look_at_runtimes(call: &Call<'_>) -> Vec<String> {
    let config = match call.settings() {
        Ok(config) => config,
        Err(e) => return vec![format!("the configuration can't be read, and no container starts until it can: {e:#}")],
    };
    let found = config.runtimes.iter().filter_map(|name| runtime::find(std::slice::from_ref(name)).ok());
    let look = |path: PathBuf| match runtime::needs::of(&path, &config.data_dir) {
        Ok(needs) => {
            let notes: String = needs.notes.iter().map(|note| format!("; {note}")).collect();
            format!("{}: {} {}; what it needs: {}{notes}", path.display(), needs.program, needs.version, needs.source)
        }
        Err(e) => format!("{}: {e:#}", path.display()),
    };
    found.map(look).collect()
}

/// The runtime's program as engines' files name it.
fn program(named: Option<PathBuf>, uninstall: bool) -> Result<String> {
    let path = match named {
        Some(path) => path,
        None => std::env::current_exe().context("failed to find lithifyctl's own folder")?.with_file_name(NAME),
    };
    let path = if uninstall { path } else { existing(&path)? };
    let text = path.to_str().with_context(|| format!("{} is not UTF-8; use --binary", path.display()))?;
    // The path is written into JSON and TOML files: without these nothing in it needs escaping.
    ensure!(
        !text.contains(['"', '\\', '\'']) && !text.chars().any(char::is_control),
        "{text:?} can't be written into an engine's file; use --binary with a plain path"
    );
    Ok(text.to_string())
}

fn existing(path: &Path) -> Result<PathBuf> {
    let context = || format!("failed to find the runtime {}; use --binary", path.display());
    let path = std::path::absolute(path).with_context(context)?;
    ensure!(path.metadata().with_context(context)?.is_file(), "{}: it is not a file", context());
    Ok(path)
}
