//! Annotations under `lithify.dev/`, resolved against the node's settings.
//!
//! Owns: which keys exist, for whom an annotation is meant, and that annotations tighten freely and loosen only what
//! `allow-loosen` names. Must not: read files, look at a container, or pass a misspelt option in silence.
//!
//! | annotation | values | order, loosest first | default |
//! | --- | --- | --- | --- |
//! | `mode` | `off`, `learn`, `observe`, `auto`, `enforce` | off < learn < observe < auto < enforce | `auto` |
//! | `rootfs` | `sealed`, `tripwire`, `engine` | engine < tripwire < sealed | `sealed`; `engine` while learning and observing |
//! | `on-write` | `report`, `pause`, `stop`, `restart` | report < pause < stop = restart | `restart`; `report` with `rootfs: engine`, while learning and observing |
//! | `on-refused-write`, `on-refused-syscall` | the same | the same | `report`; as `on-write` once a profile is enforced |
//! | `exec` | `allow`, `profile`, `deny` | allow < profile < deny | `allow` |
//! | `restart-limit` | `5/60s` | tighter: no more restarts and no higher rate | `5/60s` |
//! | `renew-every` | a duration, `off` | off < long < short | `off` |
//! | `workload` | a name, within the namespace that the engine names | free | the engine's names; Docker and Podman: the image's repository; else the first program's |
//! | `profile` | a stored profile, in `observe` and `enforce` | free | the workload's own |
//! | `scratch` | `/tmp:64m,/data` | free, except below system folders (`scratch`) and with `:exec` (`scratch-exec`) | none |
//!
//! The node's value is what annotations are held against, whether it was written down or is a default.
//!
//! While learning and observing on the engine's own rootfs ([`Policy::is_hands_off`]) what is written is what is to be learnt:
//! there are no breaches, so that `on-write`, `renew-every` and `scratch`, the node's and the annotations', are checked and
//! then left out. A `rootfs` that node, flag or annotation sets holds, and the others with it.
//!
//! In `auto` what holds follows from what the workload's profile has come to, which nobody knows here: [`resolve`] says what
//! will hold once it is enforced, so that a contradiction is told at the first start, and [`settle`] what holds now.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};

use super::config::{Config, Loosen, Overrides};
use super::show::Show;
use super::suggest::{quote, remedy};
use super::values::{self, Parsed};
use super::{Mode, Policy, Response, RootfsKind, Scratch, Standing, names, tighten};

/// What all our annotations begin with.
pub const PREFIX: &str = "lithify.dev/";
/// Most annotations under our prefix that are looked at.
pub const MAX_ANNOTATIONS: usize = 256;
/// Keys that this version understands.
pub const KEYS: [&str; 11] = [
    "mode",
    "rootfs",
    "on-write",
    "on-refused-write",
    "on-refused-syscall",
    "exec",
    "restart-limit",
    "renew-every",
    "workload",
    "profile",
    "scratch",
];

/// Resolves what holds for one container; in `auto`, once its profile is enforced.
///
/// `lithify.dev/<key>.<container name>` wins over `lithify.dev/<key>`. Entries for other containers don't apply, and are
/// still checked. Where the mode comes out as [`Mode::Off`] nothing else is looked at: such a container always starts.
///
/// # Errors
/// When a key or value under our prefix is unknown, an annotation loosens what it may not, the settings contradict each
/// other. The message names the annotation, the node's value and the remedy.
pub fn resolve(
    config: &Config,
    overrides: &Overrides,
    annotations: &BTreeMap<String, String>,
    container_name: Option<&str>,
) -> Result<Policy> {
    let node = Node::new(config, overrides);
    let mode = chosen_mode(&node, annotations, container_name)?;
    resolve_in(&node, mode, mode, Standing::Enforced, annotations, container_name)
}

/// What holds for one container whose profile, or want of one, has come to `standing`. Only in `auto` that decides the mode,
/// which is never `auto` here.
///
/// # Errors
/// As [`resolve`].
pub fn settle(
    config: &Config,
    overrides: &Overrides,
    annotations: &BTreeMap<String, String>,
    container_name: Option<&str>,
    standing: Standing,
) -> Result<Policy> {
    let node = Node::new(config, overrides);
    let chosen = chosen_mode(&node, annotations, container_name)?;
    let mode = if chosen == Mode::Auto { standing.mode() } else { chosen };
    resolve_in(&node, chosen, mode, standing, annotations, container_name)
}

fn chosen_mode(node: &Node<'_>, annotations: &BTreeMap<String, String>, container_name: Option<&str>) -> Result<Mode> {
    match pick(annotations, "mode", container_name) {
        None => Ok(node.mode),
        Some((name, text)) => node.hold(Loosen::Mode, name, said(name, text, values::mode)?, node.mode, tighten::mode),
    }
}

/// `chosen` is what somebody wants, `mode` what that is for now.
fn resolve_in(
    node: &Node<'_>,
    chosen: Mode,
    mode: Mode,
    standing: Standing,
    annotations: &BTreeMap<String, String>,
    container_name: Option<&str>,
) -> Result<Policy> {
    let config = node.config;
    if mode == Mode::Off {
        return Ok(node.policy(mode));
    }
    check_all(annotations)?;
    let mut policy = node.policy(mode);
    policy.auto = chosen == Mode::Auto && mode != Mode::Auto;
    let get = |key| pick(annotations, key, container_name);
    if let Some((name, text)) = get("rootfs") {
        let value = said(name, text, values::rootfs)?;
        policy.rootfs = node.hold(Loosen::Rootfs, name, value, policy.rootfs, tighten::rootfs)?;
    }
    if let Some((name, text)) = get("workload") {
        policy.workload = Some(said(name, text, names::workload)?);
    }
    if let Some((name, text)) = get("profile") {
        if !matches!(chosen, Mode::Observe | Mode::Enforce) {
            bail!(
                "annotation {}: only modes observe and enforce take a profile that is named, and this container's mode is \
                 {}; remove it, or set mode observe or enforce",
                show_name(name),
                chosen.show()
            );
        }
        policy.profile = Some(said(name, text, names::profile)?);
    }
    if let Some((name, text)) = get("exec") {
        let value = said(name, text, values::exec)?;
        policy.exec = node.hold(Loosen::Exec, name, value, config.exec, tighten::exec)?;
    }
    if policy.is_hands_off() {
        policy.on_write = Response::Report;
        policy.on_refused_write = Response::Report;
        policy.on_refused_syscall = Response::Report;
        policy.renew_every = None;
        policy.scratch = Vec::new();
        return Ok(policy);
    }
    let explicit = match get("on-write") {
        Some((name, text)) => {
            let value = said(name, text, values::response)?;
            let node_value = node.on_write.unwrap_or(default_response(mode, policy.rootfs));
            Some((name, node.hold(Loosen::OnWrite, name, value, node_value, tighten::response)?))
        }
        None => node.on_write.map(|value| ("the node's on-write", value)),
    };
    policy.on_write = explicit.map_or(default_response(mode, policy.rootfs), |(_, value)| value);
    if let (RootfsKind::Engine, Some((name, Response::Restart))) = (policy.rootfs, explicit) {
        bail!(
            "{name}: restart can't make the engine's own rootfs pristine; use rootfs sealed or tripwire, or on-write \
             report, pause or stop"
        );
    }
    for (key, loosen, of_node, place) in [
        ("on-refused-write", Loosen::OnRefusedWrite, config.on_refused_write, &mut policy.on_refused_write),
        ("on-refused-syscall", Loosen::OnRefusedSyscall, config.on_refused_syscall, &mut policy.on_refused_syscall),
    ] {
        let implied = if standing == Standing::Enforced { policy.on_write } else { Response::Report };
        let wanted = match get(key) {
            Some((name, text)) => {
                let value = said(name, text, values::response)?;
                Some((name, node.hold(loosen, name, value, of_node.unwrap_or(implied), tighten::response)?))
            }
            None => of_node.map(|value| (key, value)),
        };
        if let (RootfsKind::Engine, Some((name, Response::Restart))) = (policy.rootfs, wanted) {
            bail!(
                "{name}: restart can't make the engine's own rootfs pristine; use rootfs sealed or tripwire, or report, \
                 pause or stop"
            );
        }
        *place = wanted.map_or(implied, |(_, value)| value);
    }
    if let Some((name, text)) = get("restart-limit") {
        let value = said(name, text, values::restart_limit)?;
        policy.restart_limit =
            node.hold(Loosen::RestartLimit, name, value, config.restart_limit, tighten::restart_limit)?;
    }
    if let Some((name, text)) = get("renew-every") {
        let value = said(name, text, values::renew_every)?;
        policy.renew_every = node.hold(Loosen::RenewEvery, name, value, config.renew_every, tighten::renew_every)?;
        if value.is_some() && policy.rootfs == RootfsKind::Engine {
            bail!("{name}: the engine's own rootfs can't be renewed; use rootfs sealed or tripwire");
        }
    }
    if policy.rootfs == RootfsKind::Engine {
        // A node-wide schedule means the containers that can be made fresh.
        policy.renew_every = None;
    }
    if let Some((name, text)) = get("scratch") {
        add_scratch(config, name, said(name, text, values::scratch)?, &mut policy.scratch)?;
    }
    Ok(policy)
}

/// The response where nobody chose one: a restart, which an engine's own rootfs can't have, and which would end what is to
/// be learnt.
fn default_response(mode: Mode, rootfs: RootfsKind) -> Response {
    match (mode, rootfs) {
        (Mode::Off | Mode::Auto | Mode::Enforce, RootfsKind::Sealed | RootfsKind::Tripwire) => Response::Restart,
        (Mode::Learn | Mode::Observe, _) | (_, RootfsKind::Engine) => Response::Report,
    }
}

/// The node's settings with the program's own flags laid over them.
struct Node<'c> {
    config: &'c Config,
    overrides: Overrides,
    mode: Mode,
    rootfs: RootfsKind,
    on_write: Option<Response>,
}

impl<'c> Node<'c> {
    fn new(config: &'c Config, overrides: &Overrides) -> Self {
        Node {
            config,
            overrides: *overrides,
            mode: overrides.mode.unwrap_or(config.mode),
            rootfs: overrides.rootfs.unwrap_or(config.rootfs),
            on_write: overrides.on_write.or(config.on_write),
        }
    }

    fn policy(&self, mode: Mode) -> Policy {
        let chosen = self.overrides.rootfs.is_some() || self.config.binding.contains(&Loosen::Rootfs);
        let rootfs = if mode.records() && !chosen { RootfsKind::Engine } else { self.rootfs };
        let on_write = self.on_write.unwrap_or(default_response(mode, rootfs));
        Policy {
            mode,
            auto: false,
            rootfs,
            on_write,
            on_refused_write: self.config.on_refused_write.unwrap_or(Response::Report),
            on_refused_syscall: self.config.on_refused_syscall.unwrap_or(Response::Report),
            exec: self.config.exec,
            restart_limit: self.config.restart_limit,
            restarts_unpaced: self.config.binding.contains(&Loosen::RestartLimit),
            escalate_to: self.config.escalate_to,
            renew_every: self.config.renew_every,
            workload: None,
            profile: None,
            scratch: self.config.scratch.clone(),
            scratch_size_bytes: self.config.scratch_size_bytes,
            tripwire_size_bytes: self.config.tripwire_size_bytes,
        }
    }

    /// `value` if the node sets nothing for this key, or it is as strict as the node's, or the node allows this key to be
    /// loosened.
    fn hold<T: Copy + Show>(
        &self,
        key: Loosen,
        name: &str,
        value: T,
        node: T,
        as_strict: fn(T, T) -> bool,
    ) -> Result<T> {
        let set_by_flag = match key {
            Loosen::Mode => self.overrides.mode.is_some(),
            Loosen::Rootfs => self.overrides.rootfs.is_some(),
            Loosen::OnWrite => self.overrides.on_write.is_some(),
            Loosen::OnRefusedWrite
            | Loosen::OnRefusedSyscall
            | Loosen::Exec
            | Loosen::RestartLimit
            | Loosen::RenewEvery
            | Loosen::Scratch
            | Loosen::ScratchExec => false,
        };
        // Whoever sets anything means it to be in force: then the mode is not anybody's to turn off.
        let mode_of_set = key == Loosen::Mode && !self.config.binding.is_empty();
        let binding = set_by_flag || mode_of_set || self.config.binding.contains(&key);
        if !binding || as_strict(value, node) || self.config.allow_loosen.contains(&key) {
            return Ok(value);
        }
        Err(anyhow!(
            "annotation {} can't loosen the node's {} from {} to {}; remove it, or have the node allow it with \
             allow-loosen = [{:?}]",
            show_name(name),
            key.name(),
            node.show(),
            value.show(),
            key.name()
        ))
    }
}

/// The annotation that holds for this container: its own, else everyone's.
fn pick<'a>(all: &'a BTreeMap<String, String>, key: &str, container: Option<&str>) -> Option<(&'a str, &'a str)> {
    let own = container.and_then(|c| all.get_key_value(&format!("{PREFIX}{key}.{c}")));
    own.or_else(|| all.get_key_value(&format!("{PREFIX}{key}"))).map(|(name, text)| (name.as_str(), text.as_str()))
}

fn said<T>(name: &str, text: &str, parse: fn(&str) -> Parsed<T>) -> Result<T> {
    if text.len() > values::MAX_VALUE_LEN {
        bail!("annotation {}: its value is longer than {} bytes", show_name(name), values::MAX_VALUE_LEN);
    }
    parse(text).map_err(|e| anyhow!("annotation {}: {e}", show_name(name)))
}

fn show_name(name: &str) -> String {
    let quoted = quote(name);
    quoted.trim_matches('"').to_string()
}

/// Checks key and value of every annotation under our prefix, whomever it is for.
fn check_all(annotations: &BTreeMap<String, String>) -> Result<()> {
    let ours = annotations.range(PREFIX.to_string()..).take_while(|(name, _)| name.starts_with(PREFIX));
    for (i, (name, text)) in ours.enumerate() {
        if i >= MAX_ANNOTATIONS {
            bail!("more than {MAX_ANNOTATIONS} annotations begin with {PREFIX}; remove those that nothing needs");
        }
        let rest = &name[PREFIX.len()..];
        let (key, container) = rest.split_once('.').map_or((rest, None), |(key, container)| (key, Some(container)));
        match key {
            "mode" => drop(said(name, text, values::mode)?),
            "rootfs" => drop(said(name, text, values::rootfs)?),
            "on-write" | "on-refused-write" | "on-refused-syscall" => drop(said(name, text, values::response)?),
            "exec" => drop(said(name, text, values::exec)?),
            "restart-limit" => drop(said(name, text, values::restart_limit)?),
            "renew-every" => drop(said(name, text, values::renew_every)?),
            "workload" => drop(said(name, text, names::workload)?),
            "profile" => drop(said(name, text, names::profile)?),
            "scratch" => drop(said(name, text, values::scratch)?),
            _ => bail!("annotation {}: unknown key {}; {}", show_name(name), quote(key), remedy(key, &KEYS)),
        }
        if container.is_some_and(|c| c.is_empty() || c.len() > 253) {
            bail!("annotation {}: expected a container's name after the dot", show_name(name));
        }
    }
    Ok(())
}

/// Adds the annotation's mounts to the node's; where both name a path, the annotation's entry holds.
fn add_scratch(config: &Config, name: &str, added: Vec<Scratch>, all: &mut Vec<Scratch>) -> Result<()> {
    for one in added {
        let same = all.iter().position(|s| s.path == one.path);
        let node = same.map(|i| &all[i]);
        let refuse = |what: &str, key: Loosen| {
            anyhow!(
                "annotation {name}: {} {what}, which the node does not allow; remove it, or have the node allow it with \
                 allow-loosen = [{:?}]",
                quote(&one.path.to_string_lossy()),
                key.name()
            )
        };
        if values::is_protected(&one.path) && node.is_none() && !config.allow_loosen.contains(&Loosen::Scratch) {
            return Err(refuse("is in a system folder", Loosen::Scratch));
        }
        let node_exec = node.is_some_and(|s| s.exec);
        if one.exec && !node_exec && !config.allow_loosen.contains(&Loosen::ScratchExec) {
            return Err(refuse("asks for programs to be executable", Loosen::ScratchExec));
        }
        match same {
            Some(i) => all[i] = one,
            None => all.push(one),
        }
    }
    if all.len() > values::MAX_SCRATCH {
        bail!("annotation {name}: with the node's own, there are more than {} scratch mounts", values::MAX_SCRATCH);
    }
    Ok(())
}
