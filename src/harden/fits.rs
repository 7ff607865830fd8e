//! Whether a planned filter is one that the kernel takes, before a container is made with it; and what is said shorter where it
//! is not.
//!
//! Owns: compiling it, and which call loses its conditions first. Must not: load anything, or make a filter wider than the
//! engine's.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::engine::Action;
use super::region::{Compare, Condition};
use super::seccomp::{Alternatives, Rules, is_made, is_whole};
use crate::profile::syscalls;

/// Most instructions of a program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// What this compiler takes for a call without conditions, and the low-level runtime's library does not.
const SPENT_ON_A_WHOLE_CALL: usize = 4;

/// Compiles a filter and counts its instructions. The low-level runtime's library (libseccomp) compiles it again in a somewhat
/// other way, and shorter: the count is an upper bound in practice. A filter of 156 calls and 140 conditions came to 760 there.
///
/// # Errors
/// When it does not compile, or has more than [`MAX_INSTRUCTIONS`]; says how many.
fn instructions(rules: &Rules, compat: bool) -> Result<usize> {
    let mut count = 0;
    for calls in rules.values() {
        // One program holds one action: each is compiled for itself.
        let (mut by_number, mut whole) = (BTreeMap::<i64, Vec<SeccompRule>>::new(), 0);
        for (name, alternatives) in calls {
            // A name of the 32-bit interface alone is not in this program.
            let Some((false, number)) = syscalls::parse(name) else { continue };
            whole += usize::from(is_whole(alternatives));
            let rules = compiled(alternatives).with_context(|| format!("failed to compile {name}"))?;
            by_number.insert(number.into(), rules);
        }
        let filter = SeccompFilter::new(
            by_number,
            SeccompAction::Errno(libc::ENOSYS as u32),
            SeccompAction::Allow,
            TargetArch::x86_64,
        );
        let program: BpfProgram = filter.and_then(TryInto::try_into).context("failed to compile the filter")?;
        count += program.len() - SPENT_ON_A_WHOLE_CALL * whole;
    }
    // Both interfaces have a part of their own.
    count *= if compat { 2 } else { 1 };
    ensure!(count <= MAX_INSTRUCTIONS, "it takes {count} instructions, and the kernel takes {MAX_INSTRUCTIONS}");
    Ok(count)
}

/// Shortens a filter until it fits, step by step, and in each the call that takes most first. Each is added to `degraded`.
///
/// # Errors
/// When it does not fit even so.
pub fn shorten(
    rules: &mut Rules,
    plain: &BTreeSet<String>,
    listened: bool,
    compat: bool,
    degraded: &mut Vec<String>,
) -> Result<()> {
    while let Err(error) = instructions(rules, compat) {
        let longest = |step: &Step| {
            let all = rules.iter().flat_map(|(action, calls)| calls.iter().map(|(name, said)| (*action, name, said)));
            let it = all.filter(|(action, name, said)| {
                !is_whole(said) && step.is_for(*action, listened) && (*step != Step::Widen || plain.contains(*name))
            });
            it.max_by_key(|(_, _, said)| said.len()).map(|(action, name, _)| (action, name.clone()))
        };
        let steps = [Step::Untell, Step::Spare, Step::Widen, Step::Refuse];
        let Some((step, (action, name))) = steps.iter().find_map(|step| Some((step, longest(step)?))) else {
            return Err(error);
        };
        rules.entry(action).or_default().remove(&name);
        if *step == Step::Widen {
            rules.values_mut().for_each(|calls| drop(calls.remove(&name)));
            rules.entry(action).or_default().insert(name.clone(), vec![Vec::new()]);
        }
        degraded.push(format!("the filter would be too long for the kernel: {name} {}", step.words()));
    }
    Ok(())
}

/// What is given up for a shorter filter, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Refused calls are answered as what nobody knows.
    Untell,
    /// The same of calls for which the engine would have ended the caller.
    Spare,
    /// Calls are allowed whatever their arguments, as the engine allows them.
    Widen,
    /// Calls are refused.
    Refuse,
}

impl Step {
    fn is_for(self, action: Action, listened: bool) -> bool {
        let refuses = !is_made(action, listened);
        match self {
            Step::Untell => matches!(action, Action::Errno(_) | Action::Notify) && refuses,
            Step::Spare => refuses,
            Step::Widen => action == Action::Allow,
            Step::Refuse => !refuses,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Untell | Step::Spare => "gets ENOSYS with arguments that are not allowed, and that is not told",
            Step::Widen => "is allowed with all its arguments, as the engine allows it, beyond those that were learnt",
            Step::Refuse => "is refused with arguments that were learnt",
        }
    }
}

fn compiled(alternatives: &Alternatives) -> Result<Vec<SeccompRule>> {
    if is_whole(alternatives) {
        return Ok(Vec::new());
    }
    let rule = |conditions: &Vec<Condition>| -> Result<SeccompRule> {
        let all = conditions.iter().map(|it| condition(*it)).collect::<Result<_>>()?;
        Ok(SeccompRule::new(all)?)
    };
    alternatives.iter().map(rule).collect()
}

fn condition(condition: Condition) -> Result<SeccompCondition> {
    let (op, value) = match condition.is {
        Compare::Equal(value) => (SeccompCmpOp::Eq, value),
        Compare::Not(value) => (SeccompCmpOp::Ne, value),
        Compare::AtLeast(value) => (SeccompCmpOp::Ge, value),
        Compare::Below(value) => (SeccompCmpOp::Lt, value),
        Compare::Masked { mask, value } => (SeccompCmpOp::MaskedEq(mask), value),
    };
    Ok(SeccompCondition::new(u8::try_from(condition.argument)?, SeccompCmpArgLen::Qword, op, value)?)
}
