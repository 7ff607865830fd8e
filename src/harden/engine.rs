//! The filter that an engine asked for, as it works.
//!
//! Owns: reading `linux.seccomp`, and what it answers to a call by its arguments. Must not: guess: what runtimes may read in
//! different ways is an error, and the filter stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::region::{ARGUMENTS, Cut, Region, TooFine};

/// Most rules that are looked at; engines' own have a few hundred.
const MAX_RULES: usize = 4096;

/// What a call is answered, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made, and logged.
    Log,
    /// A listener decides.
    Notify,
    /// The error.
    Errno(u32),
    /// SIGSYS, which can be caught.
    Trap,
    /// The thread ends (`SCMP_ACT_KILL`, which is the older name).
    Kill,
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
}

impl Action {
    /// As in `linux.seccomp`, and the error where it has one.
    pub fn words(self) -> (&'static str, Option<u32>) {
        match self {
            Action::Allow => ("SCMP_ACT_ALLOW", None),
            Action::Log => ("SCMP_ACT_LOG", None),
            Action::Errno(errno) => ("SCMP_ACT_ERRNO", Some(errno)),
            Action::Notify => ("SCMP_ACT_NOTIFY", None),
            Action::Trap => ("SCMP_ACT_TRAP", None),
            Action::Kill => ("SCMP_ACT_KILL", None),
            Action::KillThread => ("SCMP_ACT_KILL_THREAD", None),
            Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        }
    }

    fn parse(word: &str, errno: Option<u32>) -> Result<Action, String> {
        Ok(match word {
            "SCMP_ACT_ALLOW" => Action::Allow,
            "SCMP_ACT_LOG" => Action::Log,
            // What runtimes take where none is given.
            "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(libc::EPERM as u32)),
            "SCMP_ACT_NOTIFY" => Action::Notify,
            "SCMP_ACT_TRAP" => Action::Trap,
            "SCMP_ACT_KILL" => Action::Kill,
            "SCMP_ACT_KILL_THREAD" => Action::KillThread,
            "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
            other => return Err(format!("it has an action {other:?}")),
        })
    }
}

/// Fields as the runtime specification has them; one that it has not could mean anything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    /// Notes for people, which Docker's own file has.
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Argument {
    index: usize,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// What is answered where.
pub type Parts = Vec<(Region, Action)>;

/// The filter of an engine.
#[derive(Debug)]
pub struct EngineFilter {
    default: Action,
    rules: BTreeMap<String, Parts>,
    /// Calls for which it says two things; which of them holds is the library's to say. Here it is the harder one.
    pub contradicts: BTreeSet<String>,
    /// The interfaces that it lets through; empty: the native one.
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_LOG`, …
    pub flags: Option<Vec<String>>,
    /// Its own listener.
    pub listener: Option<(String, Option<String>)>,
}

impl EngineFilter {
    /// What holds where the engine gave no filter.
    pub fn none() -> EngineFilter {
        EngineFilter {
            default: Action::Allow,
            rules: BTreeMap::new(),
            contradicts: BTreeSet::new(),
            architectures: vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_X86".into()],
            flags: None,
            listener: None,
        }
    }

    /// Reads `linux.seccomp`.
    ///
    /// # Errors
    /// Why it can't be understood exactly, to stand after "the engine's filter is kept whole: ".
    pub fn parse(value: &Value) -> Result<EngineFilter, String> {
        let raw = Raw::deserialize(value).map_err(|e| format!("it can't be read: {e}"))?;
        let default = Action::parse(&raw.default_action, raw.default_errno_ret)?;
        let all = raw.syscalls.unwrap_or_default();
        if all.len() > MAX_RULES {
            return Err(format!("it has more than {MAX_RULES} rules"));
        }
        let (mut rules, mut contradicts) = (BTreeMap::<String, Parts>::new(), BTreeSet::new());
        for rule in all {
            let action = Action::parse(&rule.action, rule.errno_ret)?;
            // Runtimes leave out a rule that says what holds anyway.
            if action == default {
                continue;
            }
            let args = rule.args.unwrap_or_default();
            let high_first = region(&args, Cut::HighFirst)?;
            for name in rule.names {
                let region = match cut(&name) {
                    Cut::HighFirst => &high_first,
                    cut => &region(&args, cut)?,
                };
                let parts = rules.entry(name.clone()).or_default();
                if add(parts, region, action).map_err(|_| format!("its rules for {name} are too fine"))? {
                    contradicts.insert(name);
                }
            }
        }
        let listener = raw.listener_path.filter(|path| !path.is_empty()).map(|path| (path, raw.listener_metadata));
        let architectures = raw.architectures.unwrap_or_default();
        Ok(EngineFilter { default, rules, contradicts, architectures, flags: raw.flags, listener })
    }

    /// Whether it asks a listener.
    pub fn notifies(&self) -> bool {
        let asks = |parts: &Parts| parts.iter().any(|(_, action)| *action == Action::Notify);
        self.listener.is_some() || self.default == Action::Notify || self.rules.values().any(asks)
    }

    /// What it answers to a call, by the call's arguments; together that is all of them, each once.
    ///
    /// # Errors
    /// When that can't be said in few words.
    pub fn answers(&self, name: &str) -> Result<Parts, TooFine> {
        let mut parts = self.rules.get(name).cloned().unwrap_or_default();
        let rest = parts.iter().try_fold(Region::all(cut(name)), |rest, (region, _)| rest.minus(region))?;
        if !rest.is_empty() {
            parts.push((rest, self.default));
        }
        Ok(parts)
    }
}

/// Adds where an action is taken; whether another one is said to be taken there, too. Then it is the harder of the two.
fn add(parts: &mut Parts, region: &Region, action: Action) -> Result<bool, TooFine> {
    let (mut new, mut contradicts) = (region.clone(), false);
    for (at, other) in parts.iter_mut() {
        contradicts |= *other != action && !at.and(region)?.is_empty();
        if *other >= action {
            new = new.minus(at)?;
        } else {
            *at = at.minus(region)?;
        }
    }
    if !new.is_empty() {
        parts.push((new, action));
    }
    Ok(contradicts)
}

/// How to cut what is said of a call: `ioctl`'s command is the lower half of a register.
pub fn cut(name: &str) -> Cut {
    if name == "ioctl" { Cut::LowHalfFirst } else { Cut::HighFirst }
}

/// Where a rule holds. Two conditions on one argument are alternatives to all runtimes, and so are then all of that rule.
fn region(args: &[Argument], cut: Cut) -> Result<Region, String> {
    let fine = |_: TooFine| "its conditions are too fine".to_string();
    if args.len() > ARGUMENTS {
        return Err("a rule has more conditions than a call has arguments".into());
    }
    let each: Vec<Region> = args.iter().map(|arg| condition(arg, cut)).collect::<Result<_, _>>()?;
    let repeats = args.iter().enumerate().any(|(i, a)| args.iter().take(i).any(|b| b.index == a.index));
    if repeats {
        return each.iter().try_fold(Region::none(cut), |all, one| all.or(one)).map_err(fine);
    }
    each.iter().try_fold(Region::all(cut), |all, one| all.and(one)).map_err(fine)
}

fn condition(arg: &Argument, cut: Cut) -> Result<Region, String> {
    if arg.index >= ARGUMENTS {
        return Err(format!("a condition is on argument {}", arg.index));
    }
    let (index, value) = (arg.index, arg.value);
    let but = |region: Region| Region::all(cut).minus(&region).map_err(|_| "its conditions are too fine".to_string());
    match arg.op.as_str() {
        "SCMP_CMP_EQ" => Ok(Region::equal(cut, index, value)),
        "SCMP_CMP_NE" => but(Region::equal(cut, index, value)),
        "SCMP_CMP_GT" => Ok(Region::greater(cut, index, value)),
        "SCMP_CMP_LE" => but(Region::greater(cut, index, value)),
        "SCMP_CMP_GE" => {
            value.checked_sub(1).map_or(Ok(Region::all(cut)), |less| Ok(Region::greater(cut, index, less)))
        }
        "SCMP_CMP_LT" => {
            value.checked_sub(1).map_or(Ok(Region::none(cut)), |less| but(Region::greater(cut, index, less)))
        }
        "SCMP_CMP_MASKED_EQ" if arg.value_two & !value == 0 => Ok(Region::masked(cut, index, value, arg.value_two)),
        "SCMP_CMP_MASKED_EQ" => Err("a condition compares bits that it masks out".into()),
        other => Err(format!("it compares by {other:?}")),
    }
}
