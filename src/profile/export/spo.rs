//! The filter as a SeccompProfile of the Security Profiles Operator, `security-profiles-operator.x-k8s.io/v1beta1`.
//!
//! Must not: set `errnoRet`. The operator's own type for it is text, where runtimes expect a number: a profile with it would
//! not load. So every refused call gets EPERM there, and the few whose callers need ENOSYS are allowed.

use super::super::filter::Compare;
use super::yaml::{comment, quote};
use super::{Document, Plan, oci_seccomp};

/// The file.
pub fn document(plan: &Plan) -> Document {
    let mut text = String::new();
    for note in &plan.notes {
        text.push_str(&comment(note));
    }
    let mut allowed = plan.filter.allowed.clone();
    if plan.filter.hides_clone3 {
        text.push_str(&comment(
            "clone3 is allowed here, whatever its flags: programs that tried it go on to clone only on ENOSYS, which this \
             format can't say",
        ));
        allowed.insert("clone3".into());
    }
    text.push_str("apiVersion: security-profiles-operator.x-k8s.io/v1beta1\nkind: SeccompProfile\nmetadata:\n");
    text.push_str(&format!("  name: {}\n", quote(&plan.name)));
    text.push_str("spec:\n  defaultAction: SCMP_ACT_ERRNO\n  architectures:\n");
    for one in oci_seccomp::architectures(&plan.filter) {
        text.push_str(&format!("  - {one}\n"));
    }
    text.push_str("  syscalls:\n  - action: SCMP_ACT_ALLOW\n    names:\n");
    for name in &allowed {
        text.push_str(&format!("    - {}\n", quote(name)));
    }
    for rule in &plan.filter.conditional {
        text.push_str(&format!("  - action: SCMP_ACT_ALLOW\n    names:\n    - {}\n    args:\n", quote(rule.name)));
        let index = rule.argument;
        text.push_str(&match rule.is {
            Compare::Equal(value) => format!("    - index: {index}\n      value: {value}\n      op: SCMP_CMP_EQ\n"),
            Compare::Masked { mask, value } => {
                format!(
                    "    - index: {index}\n      value: {mask}\n      valueTwo: {value}\n      op: SCMP_CMP_MASKED_EQ\n"
                )
            }
        });
    }
    Document { name: format!("{}.seccompprofile.yaml", plan.name), text }
}
