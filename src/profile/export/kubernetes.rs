//! A pod's security context and volumes as YAML: a part of its specification, to be merged into it.
//!
//! Must not: promise what a pod can't say. An emptyDir begins empty, where Docker's volume has what the image has there.

use super::places::Kind;
use super::yaml::{comment, quote};
use super::{Document, Plan, oci_seccomp};

/// The folder below a kubelet's seccomp folder that the filter is expected in.
const FOLDER: &str = "lithify";

/// The specification, and the filter that it names.
pub fn documents(plan: &Plan) -> (Document, Document) {
    let mut filter = oci_seccomp::document(plan);
    filter.name = plan.seccomp_file();
    let mut text = String::new();
    for note in &plan.notes {
        text.push_str(&comment(note));
    }
    let file = format!("{FOLDER}/{}", filter.name);
    text.push_str(&comment(&format!("the filter belongs on each node, as /var/lib/kubelet/seccomp/{file}")));
    if plan.pids_limit.is_some() {
        text.push_str(&comment("the number of tasks is limited per pod by the kubelet (podPidsLimit), not here"));
    }
    // The API server refuses the pair, since CAP_SYS_ADMIN could undo it.
    let escalation = !plan.no_new_privileges || plan.capabilities.contains("CAP_SYS_ADMIN");
    text.push_str("spec:\n  containers:\n");
    text.push_str(&format!("  - name: {}\n    securityContext:\n", quote(&plan.name)));
    text.push_str(&format!("      allowPrivilegeEscalation: {escalation}\n      readOnlyRootFilesystem: true\n"));
    let (uid, gid) = plan.user;
    text.push_str(&format!("      runAsUser: {uid}\n      runAsGroup: {gid}\n"));
    if uid != 0 {
        text.push_str("      runAsNonRoot: true\n");
    }
    text.push_str("      capabilities:\n        drop:\n        - \"ALL\"\n");
    if !plan.capabilities.is_empty() {
        text.push_str("        add:\n");
        for name in &plan.capabilities {
            text.push_str(&format!("        - {}\n", quote(name.trim_start_matches("CAP_"))));
        }
    }
    text.push_str(&format!(
        "      seccompProfile:\n        type: Localhost\n        localhostProfile: {}\n",
        quote(&file)
    ));
    if plan.places.is_empty() {
        return (Document { name: format!("{}.pod.yaml", plan.name), text }, filter);
    }
    text.push_str("    volumeMounts:\n");
    for (index, place) in plan.places.iter().enumerate() {
        text.push_str(&format!("    - name: \"scratch-{index}\"\n      mountPath: {}\n", quote(&place.path)));
    }
    text.push_str("  volumes:\n");
    for (index, place) in plan.places.iter().enumerate() {
        if place.kind == Kind::Volume {
            text.push_str(&format!(
                "  # an emptyDir begins empty: if the image has files in {}, copy them by an init container, or claim a volume\n",
                place.path
            ));
        }
        text.push_str(&format!("  - name: \"scratch-{index}\"\n"));
        text.push_str(&match place.kind {
            Kind::Memory { .. } => {
                format!("    emptyDir:\n      medium: Memory\n      sizeLimit: \"{}Mi\"\n", place.size_bytes >> 20)
            }
            Kind::Volume => "    emptyDir: {}\n".to_string(),
        });
    }
    (Document { name: format!("{}.pod.yaml", plan.name), text }, filter)
}
