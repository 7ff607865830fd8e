//! `lithifyctl hook`: learning under a plain runc or crun, called by them as an OCI hook.
//!
//! Owns: what the two hooks do. Must not: fail a container because nobody records it, unless it was told to, or stay longer
//! than its deadlines: the container waits.
//!
//! What is read here was written by the low-level runtime from what an engine gave it; sizes are bounded, names are checked,
//! and nothing of it is a path that is written to.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;

use super::{Call, Given, Outcome, plain, text, usage};
use crate::engine::learning::{self, Container};
use crate::events::{Durability, EngineNames, Event, EventType, Journal, Recorder};
use crate::identity;
use crate::learn::{self, Handle, Reply, Request, presence};
use crate::policy::config::Loosen;
use crate::policy::suggest::{quote, remedy};
use crate::policy::{self, Config, Mode, Overrides, values};
use crate::spec::Document;
use crate::sys::socket;

const HELP: &str = "\
usage: lithifyctl hook create-runtime|poststop [--mode MODE] [--strict] <STATE

What the OCI hooks in hooks/ call, with the container's state on standard input.

  create-runtime  starts recording what the container does, where lithify.dev/mode is learn or observe
  poststop        waits until what was recorded is on disk

options:
  --mode MODE   the mode of containers without an annotation of their own: off (unless given), learn or observe
  --strict      let the container fail if nothing can be recorded; otherwise that is an event, and the container goes on
";

/// Largest state that is read, in bytes: it holds the container's annotations.
const MAX_STATE: u64 = 4 << 20;
/// How long a start waits for the recording to begin; loading the node's sensor is part of it.
const ARM_PATIENCE: Duration = Duration::from_secs(5);
/// How long an end waits for what was recorded to be on disk.
const END_PATIENCE: Duration = Duration::from_secs(8);

/// What the runtime specification gives a hook.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct State {
    id: String,
    #[serde(default)]
    pid: i32,
    bundle: PathBuf,
}

impl State {
    fn read(from: impl Read) -> Result<State> {
        let mut text = Vec::new();
        from.take(MAX_STATE + 1).read_to_end(&mut text).context("failed to read the container's state")?;
        ensure!(text.len() as u64 <= MAX_STATE, "failed to read the container's state: larger than {MAX_STATE} bytes");
        let state: State = serde_json::from_slice(&text).context(
            "failed to read the container's state on standard input; a low-level runtime calls this as a hook",
        )?;
        let id = Path::new(&state.id);
        let plain_name = id.file_name() == Some(OsStr::new(&state.id)) && state.id.len() <= 240;
        ensure!(plain_name, "failed to read the container's state: {} is not a container's id", quote(&state.id));
        ensure!(
            state.bundle.is_absolute(),
            "failed to read the container's state: its bundle {} is not an absolute path",
            quote(&state.bundle.to_string_lossy())
        );
        Ok(state)
    }
}

/// Runs one of the hooks.
///
/// # Errors
/// When the arguments are wrong, or, with `--strict`, when nothing can be recorded.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    const STAGES: [&str; 2] = ["create-runtime", "poststop"];
    let (mut stage, mut mode, mut strict) = (None, Mode::Off, false);
    while let Some(given) = call.next(args)? {
        match given {
            Given::Option(name) if name == "strict" => strict = true,
            Given::Option(name) if name == "mode" => {
                mode = match values::mode(&text(args)?).map_err(|e| usage(format!("--mode: {e}")))? {
                    mode @ (Mode::Off | Mode::Learn | Mode::Observe) => mode,
                    Mode::Auto | Mode::Enforce => {
                        return Err(usage("--mode: a hook enforces nothing; use off, learn or observe"));
                    }
                };
            }
            Given::Word(word) if stage.is_none() => {
                let word = word.to_string_lossy().into_owned();
                let known = STAGES.into_iter().find(|stage| *stage == word);
                stage = Some(
                    known.ok_or_else(|| usage(format!("unknown hook {}; {}", quote(&word), remedy(&word, &STAGES))))?,
                );
            }
            other => return Err(other.refuse(&["strict", "mode"])),
        }
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let stage = stage.ok_or_else(|| usage("expected create-runtime or poststop"))?;
    let (config, settings) = match call.settings() {
        Ok(config) => (config, Ok(())),
        Err(error) => (Config::default(), Err(error)),
    };
    let mut subject = String::from("-");
    let done = settings.and_then(|()| {
        let state = State::read(std::io::stdin().lock())?;
        subject.clone_from(&state.id);
        if stage == "poststop" { poststop(&config, &state) } else { create_runtime(config.clone(), &state, mode) }
    });
    let Err(error) = done else { return Ok(Outcome::Well) };
    let reason = format!("learning: {error:#}");
    let event = Event::new(EventType::Degraded, &subject, BTreeMap::new()).with("reason", reason.clone());
    Recorder::new(Journal::open(&config.data_dir, config.journal), &subject).record(event, Durability::Synced);
    if strict {
        return Err(error);
    }
    eprintln!("lithifyctl: {}", plain(&reason));
    Ok(Outcome::Well)
}

/// The container's init is there and runs nothing of the image yet.
fn create_runtime(mut config: Config, state: &State, mode: Mode) -> Result<()> {
    let State { id, pid, bundle } = state;
    ensure!(*pid > 0, "failed to record container {id}: its state names no process; is this a createRuntime hook?");
    if is_supervised(&config.state_dir, id) {
        // It runs under lithify, which records it itself.
        return Ok(());
    }
    let document = Document::read(bundle).with_context(|| format!("failed to record container {id}"))?;
    let annotations = document.annotations()?;
    let names = EngineNames::from_annotations(&annotations);
    // Whatever the node wants of containers under lithify, this one runs under another runtime: there is nothing to loosen.
    config.allow_loosen.insert(Loosen::Mode);
    let overrides = Overrides { mode: Some(mode), ..Overrides::default() };
    let policy = policy::resolve(&config, &overrides, &annotations, names.container.as_deref())
        .with_context(|| format!("failed to record container {id}"))?;
    if names.sandbox {
        return Ok(());
    }
    let rootfs = document.rootfs(bundle)?;
    let workload = learning::workload(&policy, &names, &document, &rootfs, id);
    let revision = &identity::of(&document, &annotations, &names, &rootfs, id);
    let container = Container { id, workload: &workload, names: &names, rootfs: &rootfs, revision };
    let Some(subject) = learning::subject(&config, &policy, &container) else { return Ok(()) };
    let handle = learn::start(learn::Subject { unattended: true, ..subject })?;
    let degraded = arm(&handle, *pid).with_context(|| format!("failed to record container {id}"))?;
    if !degraded.is_empty() {
        bail!("container {id} is not recorded in full: {}", degraded.join("; "));
    }
    Ok(())
}

/// Whether lithify itself supervises, or is making, a container of this id.
fn is_supervised(state_dir: &Path, id: &str) -> bool {
    let entries = std::fs::read_dir(state_dir).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.any(|name| name.rsplit_once('@').is_some_and(|(theirs, _)| theirs == id))
}

fn arm(handle: &Handle, pid: i32) -> Result<Vec<String>> {
    let request = serde_json::to_vec(&Request::Arm { pid, generation: 1 })?;
    socket::send(handle.socket.as_fd(), &request, &[]).context("failed to reach the collector")?;
    let deadline = Instant::now() + ARM_PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis() as u16;
        ensure!(left > 0, "no answer of the collector within {} s", ARM_PATIENCE.as_secs());
        let mut fds = [PollFd::new(handle.socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(left)).is_ok_and(|n| n > 0) {
            break;
        }
    }
    let (answer, _) = socket::receive(handle.socket.as_fd()).context("failed to hear the collector")?;
    ensure!(!answer.is_empty(), "the collector has ended without a word");
    match serde_json::from_slice(&answer).context("failed to read the collector's answer")? {
        Reply::Armed { degraded } => Ok(degraded),
        Reply::Written { .. } => bail!("failed to read the collector's answer: it answers what nobody asked"),
    }
}

/// The container is gone: whoever looks for its observation now is to find it.
fn poststop(config: &Config, state: &State) -> Result<()> {
    let deadline = Instant::now() + END_PATIENCE;
    // Without config.json every collector of that id is waited for: ids are unique under one runtime root only.
    let rootfs = Document::read(&state.bundle).and_then(|document| document.rootfs(&state.bundle)).ok();
    for entry in presence::list(&config.state_dir)? {
        let theirs = entry.container == state.id && rootfs.as_ref().is_none_or(|rootfs| *rootfs == entry.rootfs);
        let left = deadline.saturating_duration_since(Instant::now());
        if theirs && !presence::wait(&config.state_dir, &state.id, &entry.rootfs, left)? {
            bail!(
                "what container {} did is not on disk after {} s; its collector is process {}",
                state.id,
                END_PATIENCE.as_secs(),
                entry.pid
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_runtimes_write_it() {
        let text =
            r#"{"ociVersion":"1.0.2","id":"c","status":"creating","pid":7,"bundle":"/b","annotations":{"a":"b"}}"#;
        let want = State { id: "c".to_owned(), pid: 7, bundle: "/b".into() };
        assert_eq!(State::read(text.as_bytes()).expect("a state"), want);
        let stopped = State::read(&br#"{"id":"c","bundle":"/b"}"#[..]).expect("a state");
        assert_eq!(stopped.pid, 0);
    }

    #[test]
    fn a_state_that_leads_elsewhere_or_has_no_end_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"id":"../c","bundle":"/b"}"#,
            r#"{"id":"","bundle":"/b"}"#,
            r#"{"id":"..","bundle":"/b"}"#,
            r#"{"id":"a/","bundle":"/b"}"#,
            r#"{"id":"c","bundle":"b"}"#,
            r#"{"id":"c","pid":"7","bundle":"/b"}"#,
        ] {
            assert!(State::read(text.as_bytes()).is_err(), "{text}");
        }
        let error = State::read(std::io::repeat(b' ')).expect_err("no end");
        assert!(format!("{error:#}").contains("larger than"));
    }

    #[test]
    fn a_container_of_lithifys_own_is_known_by_its_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("web@00000000")).expect("a folder");
        assert!(is_supervised(dir.path(), "web") && !is_supervised(dir.path(), "we"));
        assert!(!is_supervised(&dir.path().join("none"), "web"));
    }
}
