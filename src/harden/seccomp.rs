//! The filter that a container gets: what its profile allows and its engine allows, and who is told of the rest.
//!
//! Owns: putting the two together, exactly or not at all. Pure. Must not: be wider than the engine's in any call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::engine::{Action, EngineFilter, cut};
use super::region::{Region, TooFine};
use crate::profile::baseline;
use crate::profile::filter::{Compare, Filter};

const NATIVE: &str = "SCMP_ARCH_X86_64";
const COMPAT: &str = "SCMP_ARCH_X86";
/// A filter that all threads get at once can't have a listener.
const TSYNC: &str = "SECCOMP_FILTER_FLAG_TSYNC";
/// The runtime tells with it that it is ready: it can't wait for a listener then, and refuses to load such a filter.
const NEVER_TOLD: &str = "write";

/// What was planned.
#[derive(Debug)]
pub struct Planned {
    /// `linux.seccomp`.
    pub value: Value,
    /// Rules, for whoever checks that they fit: by action, calls with the alternatives of their conditions.
    pub rules: Rules,
    /// Refused calls are told to the listener.
    pub listener: bool,
    /// Calls that nobody honest makes.
    pub deadly: BTreeSet<String>,
    /// Calls that are allowed, at least with some arguments.
    pub allowed: BTreeSet<String>,
    /// Of those that the engine would have allowed, how many are not, with any argument.
    pub taken: usize,
}

/// By action and call, where it is taken.
pub type Rules = BTreeMap<Action, BTreeMap<String, Region>>;

/// What is to be known beside the two filters.
pub struct Facts<'a> {
    /// Where the listener is; `None`: nobody listens.
    pub listener: Option<&'a Path>,
    /// Calls that the engine's filter refused while the workload was learnt, or that it alone refuses, without a prefix: known, and
    /// nothing to tell.
    pub known_refusals: BTreeSet<String>,
    /// Deadly calls that were tried while learning: not so deadly, then.
    pub tried: BTreeSet<String>,
}

/// Plans a filter. What a person should know is added to `notes`.
///
/// # Errors
/// The call for which the two can't be said together in few words.
pub fn plan(
    filter: &Filter,
    engine: &EngineFilter,
    facts: &Facts<'_>,
    notes: &mut Vec<String>,
) -> Result<Planned, String> {
    let flags = engine.flags.as_deref().unwrap_or_default();
    let why = if facts.listener.is_some() && engine.notifies() {
        Some("the engine's own filter has a listener")
    } else if facts.listener.is_some() && flags.iter().any(|flag| flag == TSYNC) {
        Some("the engine asks for a filter that all threads get at once, which can have none")
    } else {
        None
    };
    if let Some(why) = why {
        notes.push(format!("refused system calls are not told: {why}"));
    }
    let listener = facts.listener.filter(|_| why.is_none());
    let mut rules = Rules::new();
    let (mut deadly, mut allowed, mut taken) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (name, ours) in allowances(filter).map_err(|_| "an argument that was learnt".to_string())? {
        let fine = |_: TooFine| name.clone();
        let refusal = refusal(&name, filter, facts, listener.is_some());
        if refusal.deadly {
            deadly.insert(name.clone());
        }
        let (mut could, mut can) = (false, false);
        for (place, action) in engine.answers(&name).map_err(fine)? {
            let inside = place.and(&ours).map_err(fine)?;
            let makes = matches!(action, Action::Allow | Action::Log | Action::Notify);
            could |= makes;
            can |= makes && !inside.is_empty();
            if makes {
                put(&mut rules, &name, action, &inside).map_err(fine)?;
                put(&mut rules, &name, refusal.told.unwrap_or(DEFAULT), &place.minus(&ours).map_err(fine)?)
                    .map_err(fine)?;
            } else {
                put(&mut rules, &name, refusal.instead_of(action), &place).map_err(fine)?;
            }
        }
        if !ours.is_empty() && engine.contradicts.contains(&name) {
            notes.push(format!("the engine's filter says two things of {name}: the harder one holds"));
        }
        if can {
            allowed.insert(name);
        } else {
            taken += usize::from(could);
        }
    }
    let value = document(&rules, engine, filter.compat, listener, notes);
    Ok(Planned { value, rules, listener: listener.is_some(), deadly, allowed, taken })
}

/// What nobody knows gets: programs that try what is newer than they can count on take another way then.
const DEFAULT: Action = Action::Errno(libc::ENOSYS as u32);
const EPERM: Action = Action::Errno(libc::EPERM as u32);

/// What a call gets that is not allowed.
struct Refusal {
    /// `None`: as what nobody knows.
    told: Option<Action>,
    silent: bool,
    deadly: bool,
}

impl Refusal {
    /// What it gets where the engine refuses it as well: what tells of it, or what is harder.
    fn instead_of(&self, engine: Action) -> Action {
        match engine {
            // The listener answers the same, and tells.
            EPERM if !self.silent => self.told.unwrap_or(EPERM),
            // An engine's default for what it does not know; not an answer that was meant for this call in particular.
            DEFAULT if !self.silent => self.told.unwrap_or(DEFAULT),
            other => other,
        }
    }
}

fn refusal(name: &str, filter: &Filter, facts: &Facts<'_>, listened: bool) -> Refusal {
    let known = facts.known_refusals.contains(name);
    let deadly = baseline::deadly(name) && !facts.tried.contains(name) && !known;
    let hidden = filter.absent.contains(name) && (known || !baseline::told(name));
    let told = match (listened, deadly) {
        (false, true) => Some(Action::KillProcess),
        _ if hidden => None,
        (true, _) if !known && name != NEVER_TOLD => Some(Action::Notify),
        _ => Some(EPERM),
    };
    Refusal { told, silent: known || hidden, deadly: deadly && listened }
}

/// Where each known call is allowed.
fn allowances(filter: &Filter) -> Result<BTreeMap<String, Region>, TooFine> {
    let nothing = filter.refused.iter().chain(&filter.absent).map(|name| (name.clone(), Region::none(cut(name))));
    let mut all: BTreeMap<String, Region> = nothing.collect();
    all.extend(filter.allowed.iter().map(|name| (name.clone(), Region::all(cut(name)))));
    for rule in &filter.conditional {
        let cut = cut(rule.name);
        let fits = match rule.is {
            Compare::Equal(value) => Region::equal(cut, rule.argument, value),
            Compare::Masked { mask, value } => Region::masked(cut, rule.argument, mask, value),
        };
        let region = all.entry(rule.name.to_owned()).or_insert_with(|| Region::none(cut));
        *region = region.or(&fits)?;
    }
    Ok(all)
}

fn put(rules: &mut Rules, name: &str, action: Action, region: &Region) -> Result<(), TooFine> {
    // The default is said once for all.
    if region.is_empty() || action == DEFAULT {
        return Ok(());
    }
    let there = rules.entry(action).or_default().entry(name.to_owned()).or_insert_with(|| Region::none(cut(name)));
    *there = there.or(region)?;
    Ok(())
}

fn document(
    rules: &Rules,
    engine: &EngineFilter,
    compat: bool,
    listener: Option<&Path>,
    notes: &mut Vec<String>,
) -> Value {
    let mut list = Vec::new();
    for (action, calls) in rules {
        let (word, errno) = action.words();
        let rule = |names: Value, args: Option<Vec<Value>>| {
            let mut rule = json!({"names": names, "action": word});
            if let Some(errno) = errno {
                rule["errnoRet"] = json!(errno);
            }
            if let Some(args) = args {
                rule["args"] = json!(args);
            }
            rule
        };
        let whole: Vec<&str> = calls.iter().filter(|(_, r)| r.is_all()).map(|(name, _)| name.as_str()).collect();
        if !whole.is_empty() {
            list.push(rule(json!(whole), None));
        }
        for (name, region) in calls.iter().filter(|(_, region)| !region.is_all()) {
            for conditions in region.rules() {
                let args = conditions.into_iter().map(|condition| condition.to_json()).collect();
                list.push(rule(json!([name]), Some(args)));
            }
        }
    }
    let mut architectures = vec![NATIVE];
    if compat && engine.architectures.iter().any(|a| a == COMPAT) {
        architectures.push(COMPAT);
    } else if compat {
        notes.push(
            "32-bit calls were seen, and the engine's filter has no room for them: they end their process".into(),
        );
    }
    let mut value = json!({
        "defaultAction": DEFAULT.words().0,
        "defaultErrnoRet": libc::ENOSYS,
        "architectures": architectures,
    });
    if let Some(flags) = &engine.flags {
        value["flags"] = json!(flags);
    }
    if let Some(path) = listener {
        value["listenerPath"] = json!(path);
    } else if let Some((path, metadata)) = &engine.listener {
        value["listenerPath"] = json!(path);
        if let Some(metadata) = metadata {
            value["listenerMetadata"] = json!(metadata);
        }
    }
    value["syscalls"] = json!(list);
    value
}
