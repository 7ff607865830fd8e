//! `exec`: a session in a protected container gets no more than the container has, and is told. In a container that is only
//! listened to, it gets what the engine asked for.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{forward, node_of, place, session};
use crate::cli::{ExecArgs, Invocation};
use crate::events::{Durability, Event, EventType, Journal, Recorder};
use crate::policy::ExecRule;
use crate::profile::generalise;
use crate::record::read_limits;
use crate::runtime;
use crate::spec::{Document, exec as clamp};
use crate::supervise::control::{Intent, Lease};
use crate::supervise::generation::CONFIG;
use crate::sys::fds;

/// Largest process document that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Becomes the low-level runtime with a process document that was narrowed to the container.
pub(super) fn exec(invocation: &Invocation, args: &ExecArgs) -> Result<i32> {
    let (node, dir) = node_of(invocation, &args.id);
    if let Some(doubt) = &args.doubt {
        // Which of the words is the container can't be told: none of them may be a protected one.
        for word in &invocation.argv[invocation.verb_at..] {
            let named = place::is_name(word) && place::of(&node.state_dir, &invocation.globals, word).exists();
            ensure!(
                !named,
                "failed to exec in container {}: {doubt}; write the command's flags in full, as 'runc exec --help' has them",
                word.to_string_lossy()
            );
        }
    }
    let Some(record) = place::protected(&dir, &args.id)? else { return forward(invocation, &node) };
    let id = args.id.to_string_lossy();
    if record.phase == crate::record::Phase::Stopped {
        return forward(invocation, &node);
    }
    // Held until the low-level runtime takes over.
    let _lease = Lease::take(&dir, Intent::Session).with_context(|| {
        format!("failed to exec in container {id}: its supervisor does not answer; delete it with --force and create it again")
    })?;
    let mut event = Event::new(EventType::Exec, &record.id, Default::default())
        .with("workload", record.workload.clone())
        .with("generation", record.generation)
        .named(&record.names);
    let mut recorder = Recorder::new(Journal::open(&node.data_dir, node.journal), &record.id);
    if record.policy.exec == ExecRule::Deny {
        let event = event.with("cmdline", json!(asked(args))).with("denied", "no sessions are let in");
        recorder.record(event, Durability::Synced);
        bail!(
            "failed to exec in container {id}: 'exec' is \"deny\" for it; set annotation lithify.dev/exec, or 'exec' in \
             config.toml, to \"profile\" or \"allow\" and create it again"
        );
    }
    if record.policy.is_hands_off() {
        // Whom it was for is in its observation, apart from the workload's own.
        return forward(invocation, &node);
    }
    let path = dir.join(CONFIG);
    let text = std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let container = Document::parse(&text).with_context(|| format!("failed to parse {}", path.display()))?;
    let mut process = match &args.process {
        Some(path) => read_process(path)?,
        None => clamp::from_arguments(args, &container)?,
    };
    let mut taken =
        clamp::clamp(&mut process, &container).with_context(|| format!("failed to exec in container {id}"))?;

    let program: Vec<&str> = words(&process).collect();
    event = event.with("cmdline", json!(program)).with("user", process["user"].clone());
    if record.profile.is_some() {
        clamp::keep_asked(&mut taken, &read_limits(&dir)?);
    }
    if let Some(profile) = record.profile.as_deref().filter(|_| record.policy.exec == ExecRule::Profile) {
        let limits = read_limits(&dir)?;
        let init = record.init.with_context(|| format!("failed to exec in container {id}: it has no init"))?;
        let allowed = |path: &str| {
            let item = generalise::escape(path);
            limits.session_programs.iter().any(|pattern| generalise::covers(pattern, &item))
        };
        let paths = session::programs(&process, init.pid);
        if !paths.iter().any(|path| allowed(path)) {
            let named = paths.first().map_or_else(|| program.first().copied().unwrap_or_default(), String::as_str);
            recorder.record(event.with("denied", format!("no session was seen to run {named}")), Durability::Synced);
            bail!(
                "failed to exec in container {id}: profile {profile} has no session that runs {named}, and 'exec' is \
                 \"profile\" for it; allow the program with 'lithifyctl profile allow', or set annotation \
                 lithify.dev/exec to \"allow\""
            );
        }
        clamp::narrow(&mut process, &container, &limits.session_capabilities)?;
    }
    if !taken.is_empty() {
        event = event.with("refused", json!(taken));
    }
    recorder.record(event, Durability::Buffered);

    let document = crate::sys::memory::file("process.json", &serde_json::to_vec(&process)?)
        .context("failed to hand the process on")?;
    // Above what is preserved for the session, so that the low-level runtime closes it there.
    let document =
        fds::dup_above(document.as_fd(), 64 + args.preserve_fds as i32).context("failed to hand the process on")?;
    fds::set_cloexec(document.as_fd(), false).context("failed to hand the process on")?;
    let mut argv = invocation.globals.forwarded.clone();
    argv.push("exec".into());
    argv.extend(args.others.iter().cloned());
    argv.extend(["--process".into(), format!("/proc/self/fd/{}", document.as_raw_fd()).into(), args.id.clone()]);
    let runtime = runtime::find(&node.runtimes)?;
    let error = runtime::become_runtime(&runtime, &argv);
    Err(error).with_context(|| format!("failed to start {}", runtime.display()))
}

/// Most words of a session's command that are told.
const MAX_WORDS: usize = 64;

fn words(process: &Value) -> impl Iterator<Item = &str> {
    process["args"].as_array().into_iter().flatten().filter_map(Value::as_str).take(MAX_WORDS)
}

/// The command of a session that is not looked into any further.
fn asked(args: &ExecArgs) -> Vec<String> {
    match &args.process {
        Some(path) => read_process(path).iter().flat_map(words).map(str::to_owned).collect(),
        None => args.args.iter().take(MAX_WORDS).map(|word| word.to_string_lossy().into_owned()).collect(),
    }
}

fn read_process(path: &std::path::Path) -> Result<Value> {
    let shown = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("failed to open process file {shown}"))?;
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text).with_context(|| format!("failed to read process file {shown}"))?;
    ensure!(text.len() as u64 <= MAX_BYTES, "failed to read process file {shown}: larger than {MAX_BYTES} bytes");
    let process: Value =
        serde_json::from_slice(&text).with_context(|| format!("failed to parse process file {shown}"))?;
    ensure!(process.is_object(), "failed to parse process file {shown}: expected a JSON object");
    Ok(process)
}
