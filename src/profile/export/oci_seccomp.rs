//! The filter as `linux.seccomp` of an OCI configuration. Docker and Podman take the same file, as does a kubelet.
//!
//! Must not: use a field that one of them lacks. Docker before 23 knows no `defaultErrnoRet`: that is why every known call is
//! in the file with its own error, and the default is left for what nobody knows. Seen with Docker 20.10: runc 1.1 answers
//! what is newer than any call in the file with ENOSYS by itself; under crun 1.8 such a call gets EPERM there.

use serde_json::{Value, json};

use super::super::filter::{Compare, Conditional, Filter};
use super::{Document, Plan};

/// The file.
pub fn document(plan: &Plan) -> Document {
    // Plain data with text keys has no way to fail.
    let text = serde_json::to_string_pretty(&value(&plan.filter)).unwrap_or_default();
    Document { name: plan.seccomp_file(), text: text + "\n" }
}

/// `linux.seccomp`.
pub fn value(filter: &Filter) -> Value {
    let mut rules = vec![json!({"names": filter.allowed, "action": "SCMP_ACT_ALLOW"})];
    for rule in &filter.conditional {
        rules.push(json!({"names": [rule.name], "action": "SCMP_ACT_ALLOW", "args": [argument(rule)]}));
    }
    for (names, errno) in [(&filter.refused, libc::EPERM), (&filter.absent, libc::ENOSYS)] {
        if !names.is_empty() {
            rules.push(json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}));
        }
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::ENOSYS,
        "architectures": architectures(filter),
        "syscalls": rules,
    })
}

/// The interfaces that the filter lets through. A call through another ends the process.
pub fn architectures(filter: &Filter) -> &'static [&'static str] {
    if filter.compat { &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"] } else { &["SCMP_ARCH_X86_64"] }
}

fn argument(rule: &Conditional) -> Value {
    let index = rule.argument;
    match rule.is {
        Compare::Equal(value) => json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"}),
        Compare::Masked { mask, value } => {
            json!({"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"})
        }
    }
}
