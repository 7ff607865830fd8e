//! One function a request: the only place where the stages meet.
//!
//! Owns: which verb touches a protected container how, and what is forwarded untouched. Must not: parse argv, edit
//! config.json or watch anything itself.

mod claim;
mod create;
mod delete;
mod director;
mod exec;
mod foreground;
mod help;
mod join;
pub mod learning;
mod lived;
mod pids;
mod place;
mod seat;
mod session;
mod silent;
mod updates;
mod verbs;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cli::{Invocation, OwnFlags, Verb};
use crate::logging;
use crate::policy::{Config, Overrides};
use crate::runtime;

/// Exit status of a failure of our own; runc's is the same.
const FAILED: i32 = 1;

/// Carries out one call of the runtime and returns its exit status. Forwarded calls do not return.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    crate::sys::fds::fill_standard();
    let invocation = match Invocation::parse(args) {
        Ok(invocation) => invocation,
        Err(error) => {
            logging::report(None, false, &error);
            return FAILED;
        }
    };
    match carry_out(&invocation) {
        Ok(status) => status,
        Err(error) => {
            logging::report(invocation.globals.log.as_deref(), invocation.globals.log_json, &error);
            FAILED
        }
    }
}

fn carry_out(invocation: &Invocation) -> Result<i32> {
    match &invocation.verb {
        Verb::Create(args) => create::create(invocation, args, false),
        Verb::Run(args) => create::create(invocation, args, true),
        Verb::Restore(args) => create::restore(invocation, args),
        Verb::Exec(args) => exec::exec(invocation, args),
        Verb::Delete { id, force } => delete::delete(invocation, id, *force),
        Verb::Start(id) => verbs::start(invocation, id),
        Verb::Kill { id, all, sigkill } => verbs::kill(invocation, id, *all, *sigkill),
        Verb::Ps { id, json } => verbs::ps(invocation, id, *json),
        Verb::Update { id, resources } => verbs::update(invocation, id, resources.as_deref()),
        Verb::State(id) => verbs::state(invocation, id),
        Verb::List => verbs::list(invocation),
        Verb::Brief(id) => verbs::brief(invocation, id),
        Verb::Resume(id) => verbs::resume(invocation, id),
        Verb::Help => help::help(invocation),
        Verb::Other => forward(invocation, &node_of_any(invocation)),
    }
}

/// The node's settings, as far as they can be read.
struct Node {
    runtimes: Vec<PathBuf>,
    state_dir: PathBuf,
    data_dir: PathBuf,
    journal: crate::policy::JournalLimits,
}

/// For verbs that must work whatever state the configuration is in: a container that was started under a good one has to
/// be killed and deleted under a bad one.
fn node(invocation: &Invocation) -> Node {
    let config = Config::load_readable(invocation.own.config.as_deref()).0;
    Node { runtimes: config.runtimes, state_dir: config.state_dir, data_dir: config.data_dir, journal: config.journal }
}

/// The node's settings and the container's folder. A container that is protected keeps the low-level runtime that it was made
/// by, whatever the configuration has come to name: no other one knows it.
fn node_of(invocation: &Invocation, id: &OsStr) -> (Node, PathBuf) {
    let mut node = node(invocation);
    let dir = place::of(&node.state_dir, &invocation.globals, id);
    if let Some(record) = place::record(&dir).filter(|_| place::is_name(id)) {
        node.runtimes.insert(0, record.runtime);
    }
    (node, dir)
}

/// The same for verbs that are not looked into (`pause`, `events`): whichever of the words names a container.
fn node_of_any(invocation: &Invocation) -> Node {
    let plain = node(invocation);
    let words = &invocation.argv[invocation.verb_at..];
    let is_ours =
        |word: &&OsString| place::is_name(word) && place::of(&plain.state_dir, &invocation.globals, word).exists();
    words.iter().skip(1).find(is_ours).map_or(plain, |id| node_of(invocation, id).0)
}

/// Becomes the low-level runtime with the engine's own arguments.
fn forward(invocation: &Invocation, node: &Node) -> Result<i32> {
    let runtime = runtime::find(&node.runtimes)?;
    let error = runtime::become_runtime(&runtime, &invocation.argv);
    Err(error).with_context(|| format!("failed to start {}", runtime.display()))
}

/// Own flags as settings of the node.
fn overrides(own: &OwnFlags) -> Result<Overrides> {
    Overrides::from_flags(own.mode.as_deref(), own.rootfs.as_deref(), own.on_write.as_deref())
}
