//! The filter that an engine asked for, as it works.
//!
//! Owns: reading `linux.seccomp`, and what it answers to a call by its arguments. Must not: guess: a call of which it says
//! what runtimes may read in different ways, or what can't be said here, is refused where that matters.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Error, Result, anyhow, bail, ensure};
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
    /// Whether the call is made, or may be.
    pub fn makes(self) -> bool {
        matches!(self, Action::Allow | Action::Log | Action::Notify)
    }

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

    fn parse(word: &str, errno: Option<u32>) -> Result<Action> {
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
            other => bail!("it has an action {other:?}"),
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

/// What a call gets of which nobody can say when it was meant to be made.
const UNTOLD: Action = Action::Errno(libc::EPERM as u32);

/// What is answered where.
pub type Parts = Vec<(Region, Action)>;

/// The filter of an engine.
#[derive(Debug)]
pub struct EngineFilter {
    default: Action,
    rules: BTreeMap<String, Parts>,
    /// Calls for which it says two things; which of them holds is the library's to say. Here it is the harder one.
    pub contradicts: BTreeSet<String>,
    /// Calls of which it says what can't be told here, with the reason: less is allowed of them than it may mean.
    pub untold: BTreeMap<String, String>,
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
            untold: BTreeMap::new(),
            architectures: vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_X86".into()],
            flags: None,
            listener: None,
        }
    }

    /// Reads `linux.seccomp`.
    ///
    /// # Errors
    /// Why it can't be understood at all.
    pub fn parse(value: &Value) -> Result<EngineFilter> {
        let raw = Raw::deserialize(value)?;
        let default = Action::parse(&raw.default_action, raw.default_errno_ret)?;
        let all = raw.syscalls.unwrap_or_default();
        ensure!(all.len() <= MAX_RULES, "it has more than {MAX_RULES} rules");
        let (mut rules, mut contradicts) = (BTreeMap::<String, Parts>::new(), BTreeSet::new());
        let mut untold = BTreeMap::new();
        for rule in all {
            let action = Action::parse(&rule.action, rule.errno_ret);
            // Runtimes leave out a rule that says what holds anyway.
            if action.as_ref().is_ok_and(|action| *action == default) {
                continue;
            }
            let args = rule.args.unwrap_or_default();
            let high_first = region(&args, Cut::HighFirst);
            for name in rule.names {
                let region = match cut(&name) {
                    Cut::HighFirst => &high_first,
                    cut => &region(&args, cut),
                };
                // Nothing that is told later makes it clear.
                if action.as_ref().is_ok_and(|action| *action == Action::Allow) && untold.contains_key(&name) {
                    continue;
                }
                let parts = rules.entry(name.clone()).or_default();
                let why = match (&action, region) {
                    (Ok(action), Ok(region)) => match add(parts, region, *action) {
                        Ok((added, contradicted)) => {
                            *parts = added;
                            contradicts.extend(contradicted.then_some(name));
                            continue;
                        }
                        Err(TooFine) => "its rules are too fine".to_string(),
                    },
                    (Err(why), _) | (_, Err(why)) => why.to_string(),
                };
                untold.insert(name.clone(), why);
                let refusal = match action {
                    // Whatever it would have allowed is as what it does not know.
                    Ok(Action::Allow) => continue,
                    // Whatever it would have refused might be any of it.
                    Ok(action) if !action.makes() => action,
                    _ => UNTOLD,
                };
                let (all, refusal) = (Region::all(cut(&name)), refusal.max(default));
                *parts = add(parts, &all, refusal).map_or_else(|TooFine| vec![(all, refusal)], |(parts, _)| parts);
            }
        }
        let listener = raw.listener_path.filter(|path| !path.is_empty()).map(|path| (path, raw.listener_metadata));
        let architectures = raw.architectures.unwrap_or_default();
        Ok(EngineFilter { default, rules, contradicts, untold, architectures, flags: raw.flags, listener })
    }

    /// Whether it asks a listener.
    pub fn notifies(&self) -> bool {
        let asks = |parts: &Parts| parts.iter().any(|(_, action)| *action == Action::Notify);
        self.listener.is_some() || self.default == Action::Notify || self.rules.values().any(asks)
    }

    /// What it answers to a call, by the call's arguments; together that is all of them, each once. Without the rest where
    /// that is too fine: then the second is `false`.
    pub fn answers(&self, name: &str) -> (Parts, bool) {
        let mut parts = self.rules.get(name).cloned().unwrap_or_default();
        let rest = parts.iter().try_fold(Region::all(cut(name)), |rest, (region, _)| rest.minus(region));
        let told = rest.is_ok();
        parts.extend(rest.ok().filter(|rest| !rest.is_empty()).map(|rest| (rest, self.default)));
        (parts, told)
    }
}

/// With an action where it is taken, too; and whether another one was said to be taken there. Then it is the harder of the two.
fn add(parts: &Parts, region: &Region, action: Action) -> Result<(Parts, bool), TooFine> {
    let (mut parts, mut new, mut contradicts) = (parts.clone(), region.clone(), false);
    for (at, other) in &mut parts {
        contradicts |= *other != action && !at.and(region)?.is_empty();
        if *other >= action {
            new = new.minus(at)?;
        } else {
            *at = at.minus(region)?;
        }
    }
    match parts.iter_mut().find(|(_, other)| *other == action) {
        Some((at, _)) => *at = at.or(&new)?,
        None => parts.push((new, action)),
    }
    parts.retain(|(at, _)| !at.is_empty());
    Ok((parts, contradicts))
}

/// How to cut what is said of a call: `ioctl`'s command is the lower half of a register.
pub fn cut(name: &str) -> Cut {
    if name == "ioctl" { Cut::LowHalfFirst } else { Cut::HighFirst }
}

/// Where a rule holds. Two conditions on one argument are alternatives to all runtimes, and so are then all of that rule.
fn region(args: &[Argument], cut: Cut) -> Result<Region> {
    ensure!(args.len() <= ARGUMENTS, "a rule of it has more conditions than a call has arguments");
    let each: Vec<Region> = args.iter().map(|arg| condition(arg, cut)).collect::<Result<_>>()?;
    let repeats = args.iter().enumerate().any(|(i, a)| args.iter().take(i).any(|b| b.index == a.index));
    let region = if repeats {
        each.iter().try_fold(Region::none(cut), |all, one| all.or(one))
    } else {
        each.iter().try_fold(Region::all(cut), |all, one| all.and(one))
    };
    region.map_err(fine)
}

fn fine(_: TooFine) -> Error {
    anyhow!("its conditions are too fine")
}

fn condition(arg: &Argument, cut: Cut) -> Result<Region> {
    ensure!(arg.index < ARGUMENTS, "a condition of it is on argument {}", arg.index);
    let (index, value) = (arg.index, arg.value);
    Ok(match arg.op.as_str() {
        "SCMP_CMP_EQ" => Region::equal(cut, index, value),
        "SCMP_CMP_NE" => Region::equal(cut, index, value).not(),
        "SCMP_CMP_GT" => Region::greater(cut, index, value).map_err(fine)?,
        "SCMP_CMP_LE" => Region::greater(cut, index, value).map_err(fine)?.not(),
        "SCMP_CMP_GE" => Region::at_least(cut, index, value).map_err(fine)?,
        "SCMP_CMP_LT" => Region::at_least(cut, index, value).map_err(fine)?.not(),
        "SCMP_CMP_MASKED_EQ" if arg.value_two & !value == 0 => Region::masked(cut, index, value, arg.value_two),
        "SCMP_CMP_MASKED_EQ" => bail!("a condition of it compares bits that it masks out"),
        other => bail!("a condition of it compares by {other:?}"),
    })
}
