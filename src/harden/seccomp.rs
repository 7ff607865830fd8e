//! The filter that a container gets: what its profile allows and its engine allows, and who is told of the rest.
//!
//! Owns: putting the two together, exactly; of a call for which that can't be said in few enough conditions, less. Pure. Must
//! not: be wider than the engine's in any call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::engine::{Action, EngineFilter, cut};
use super::fits;
use super::region::{Condition, Region, TooFine};
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
    /// Refused calls are told to the listener.
    pub listener: bool,
    /// Calls that nobody honest makes.
    pub deadly: BTreeSet<String>,
    /// Calls that are allowed, at least with some arguments.
    pub allowed: BTreeSet<String>,
    /// Of those that the engine would have allowed, how many are not, with any argument.
    pub taken: usize,
}

/// By action and call, when it is taken.
pub type Rules = BTreeMap<Action, BTreeMap<String, Alternatives>>;

/// Lists of conditions, of which arguments that fit any fit all of one. An empty list is all arguments.
pub type Alternatives = Vec<Vec<Condition>>;

/// Whether all arguments fit.
pub fn is_whole(alternatives: &Alternatives) -> bool {
    alternatives.iter().any(Vec::is_empty)
}

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

/// Plans a filter. What of the profile it can't hold to or tell is added to `degraded`, what a person should know beside to
/// `notes`.
///
/// # Errors
/// When it is larger than the kernel takes, whatever is left out.
pub fn plan(
    filter: &Filter,
    engine: &EngineFilter,
    facts: &Facts<'_>,
    degraded: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<Planned> {
    let flags = engine.flags.as_deref().unwrap_or_default();
    let why = if facts.listener.is_some() && engine.notifies() {
        Some("the engine's own filter has a listener")
    } else if facts.listener.is_some() && flags.iter().any(|flag| flag == TSYNC) {
        Some("the engine asks for a filter that all threads get at once, which can have none")
    } else {
        None
    };
    if let Some(why) = why {
        degraded.push(format!("refused system calls are not told: {why}"));
    }
    let listener = facts.listener.filter(|_| why.is_none());
    let mut rules = Rules::new();
    let (mut deadly, mut allowed, mut taken) = (BTreeSet::new(), BTreeSet::new(), 0);
    let (mut plain, mut untold) = (BTreeSet::new(), BTreeSet::new());
    let (ours, too_fine) = allowances(filter);
    let compat = filter.compat && engine.architectures.iter().any(|a| a == COMPAT);
    for (name, ours) in ours {
        let refusal = refusal(&name, filter, facts, listener.is_some());
        if refusal.deadly {
            deadly.insert(name.clone());
        }
        let (answers, told) = engine.answers(&name);
        let could = answers.iter().any(|(_, action)| action.makes());
        if matches!(&answers[..], [(place, Action::Allow)] if place.is_all()) {
            plain.insert(name.clone());
        }
        let mut call = Call { parts: BTreeMap::new(), exact: told && !too_fine.contains(&name) };
        for (place, action) in answers {
            if action.makes() {
                call.put(action, place.and(&ours));
                call.put(refusal.told.unwrap_or(DEFAULT), place.minus(&ours));
            } else {
                call.put(refusal.instead_of(action), Ok(place));
            }
        }
        let (said, exact) = call.said(compat);
        if !exact || engine.untold.contains_key(&name) && !ours.is_empty() {
            untold.insert(name.clone());
        }
        if !ours.is_empty() && engine.contradicts.contains(&name) {
            notes.push(format!("the engine's filter says two things of {name}: the harder one holds"));
        }
        let can = said.iter().any(|(action, _)| is_made(*action, listener.is_some()));
        for (action, alternatives) in said {
            rules.entry(action).or_default().insert(name.clone(), alternatives);
        }
        if can {
            allowed.insert(name);
        } else {
            taken += usize::from(could);
        }
    }
    for name in untold {
        let why = engine.untold.get(&name).map_or("it takes too many conditions to say both", String::as_str);
        notes.push(format!(
            "what the engine's filter and the profile say of {name} can't be put together exactly ({why}): where that \
             leaves it open, the call is refused"
        ));
    }
    fits::shorten(&mut rules, &plain, listener.is_some(), compat, degraded)?;
    let value = document(&rules, engine, filter.compat, listener, notes);
    Ok(Planned { value, listener: listener.is_some(), deadly, allowed, taken })
}

/// Whether an action lets a call be made; with a listener of ours, what it is told of is refused.
pub fn is_made(action: Action, listened: bool) -> bool {
    action.makes() && !(listened && action == Action::Notify)
}

/// What one call gets. What is not said of it gets the default, and the default makes no call.
struct Call {
    parts: BTreeMap<Action, Region>,
    exact: bool,
}

impl Call {
    fn put(&mut self, action: Action, place: Result<Region, TooFine>) {
        // The default is said once for all.
        let Some(place) = place.map_err(|TooFine| self.exact = false).ok().filter(|place| !place.is_empty()) else {
            return;
        };
        if action == DEFAULT {
            return;
        }
        let all = self.parts.get(&action).map_or_else(|| Ok(place.clone()), |there| there.or(&place));
        match all {
            Ok(all) => drop(self.parts.insert(action, all)),
            Err(TooFine) => self.exact = false,
        }
    }

    /// By action, in rules; and whether that is all of it.
    fn said(self, compat: bool) -> (Vec<(Action, Alternatives)>, bool) {
        let (mut said, mut exact) = (Vec::new(), self.exact);
        for (action, region) in self.parts {
            match region.rules() {
                Ok(mut rules) => {
                    // Numbers of more than 32 bits are none in the 32-bit interface, to which the same rules apply.
                    let all = rules.len();
                    rules.retain(|rule| !(compat && rule.iter().any(|condition| condition.is_wide())));
                    exact &= rules.len() == all || !action.makes();
                    said.push((action, rules));
                }
                Err(TooFine) => exact = false,
            }
        }
        said.retain(|(_, rules)| !rules.is_empty());
        (said, exact)
    }
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

/// Where each known call is allowed, and of which calls that is less than was learnt.
fn allowances(filter: &Filter) -> (BTreeMap<String, Region>, BTreeSet<String>) {
    let nothing = filter.refused.iter().chain(&filter.absent).map(|name| (name.clone(), Region::none(cut(name))));
    let mut all: BTreeMap<String, Region> = nothing.collect();
    all.extend(filter.allowed.iter().map(|name| (name.clone(), Region::all(cut(name)))));
    let mut too_fine = BTreeSet::new();
    for rule in &filter.conditional {
        let cut = cut(rule.name);
        let fits = match rule.is {
            Compare::Equal(value) => Region::equal(cut, rule.argument, value),
            Compare::Masked { mask, value } => Region::masked(cut, rule.argument, mask, value),
        };
        let region = all.entry(rule.name.to_owned()).or_insert_with(|| Region::none(cut));
        match region.or(&fits) {
            Ok(both) => *region = both,
            Err(TooFine) => drop(too_fine.insert(rule.name.to_owned())),
        }
    }
    (all, too_fine)
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
        let whole: Vec<&str> = calls.iter().filter(|(_, a)| is_whole(a)).map(|(name, _)| name.as_str()).collect();
        if !whole.is_empty() {
            list.push(rule(json!(whole), None));
        }
        for (name, alternatives) in calls.iter().filter(|(_, a)| !is_whole(a)) {
            for conditions in alternatives {
                let args = conditions.iter().map(|condition| condition.to_json()).collect();
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
