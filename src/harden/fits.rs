//! Whether a planned filter is one that the kernel takes, before a container is made with it.
//!
//! Owns: compiling it. Must not: load anything, or decide what is in it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::region::{Compare, Condition, Region};
use super::seccomp::Rules;
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
pub fn instructions(rules: &Rules, compat: bool) -> Result<usize> {
    let mut count = 0;
    for calls in rules.values() {
        // One program holds one action: each is compiled for itself.
        let (mut by_number, mut whole) = (BTreeMap::<i64, Vec<SeccompRule>>::new(), 0);
        for (name, region) in calls {
            // A name of the 32-bit interface alone is not in this program.
            let Some((false, number)) = syscalls::parse(name) else { continue };
            whole += usize::from(region.is_all());
            by_number.insert(number.into(), alternatives(region).with_context(|| format!("failed to compile {name}"))?);
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

fn alternatives(region: &Region) -> Result<Vec<SeccompRule>> {
    if region.is_all() {
        return Ok(Vec::new());
    }
    let rule = |conditions: Vec<Condition>| -> Result<SeccompRule> {
        let all = conditions.into_iter().map(condition).collect::<Result<_>>()?;
        Ok(SeccompRule::new(all)?)
    };
    region.rules().into_iter().map(rule).collect()
}

fn condition(condition: Condition) -> Result<SeccompCondition> {
    let (op, value) = match condition.is {
        Compare::Equal(value) => (SeccompCmpOp::Eq, value),
        Compare::Not(value) => (SeccompCmpOp::Ne, value),
        Compare::AtLeast(value) => (SeccompCmpOp::Ge, value),
        Compare::Masked { mask, value } => (SeccompCmpOp::MaskedEq(mask), value),
    };
    Ok(SeccompCondition::new(u8::try_from(condition.argument)?, SeccompCmpArgLen::Qword, op, value)?)
}
