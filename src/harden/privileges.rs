//! Capabilities and no_new_privs: what of the engine's is left.
//!
//! Owns: those edits. Pure. Must not: give what the engine withholds.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Edit;
use crate::profile::Profile;

const SETS: [&str; 5] = ["bounding", "effective", "permitted", "inheritable", "ambient"];
/// Of these sets, what a process really has, or could get back.
const HELD: [&str; 3] = ["bounding", "effective", "permitted"];

/// What becomes of the five sets.
pub struct Capabilities {
    /// The edit; `None`: all is as it was.
    pub edit: Option<Edit>,
    /// What the engine would have given and is not.
    pub withheld: BTreeSet<String>,
    /// What the profile needs and the engine does not give.
    pub lacking: BTreeSet<String>,
}

/// Narrows the sets of `process.capabilities` to `needed`.
pub fn capabilities(process: &Value, reasons: &BTreeMap<String, String>) -> Capabilities {
    let needed: &BTreeSet<String> = &reasons.keys().cloned().collect();
    let given = &process["capabilities"];
    let names = |set: &str| given[set].as_array().into_iter().flatten().filter_map(Value::as_str);
    let held: BTreeSet<String> = HELD.iter().flat_map(|set| names(set)).map(str::to_owned).collect();
    let withheld: BTreeSet<String> = held.difference(needed).cloned().collect();
    let lacking = needed.difference(&held).cloned().collect();
    let mut left = given.clone();
    for set in SETS {
        if let Some(list) = left.get_mut(set).and_then(Value::as_array_mut) {
            list.retain(|name| name.as_str().is_some_and(|name| needed.contains(name)));
        }
    }
    let edit = (left != *given).then(|| {
        let kept: Vec<&str> = held.intersection(needed).map(String::as_str).collect();
        let kept = if kept.is_empty() { "none".to_string() } else { kept.join(", ") };
        Edit {
            pointer: "/process/capabilities".into(),
            what: format!("capabilities: {kept} of the {} that the engine gives", held.len()),
            why: why(&kept_for(&held, reasons), &withheld),
            value: left,
        }
    });
    Capabilities { edit, withheld, lacking }
}

fn kept_for(held: &BTreeSet<String>, reasons: &BTreeMap<String, String>) -> Vec<String> {
    reasons.iter().filter(|(name, _)| held.contains(*name)).map(|(name, why)| format!("{name}: {why}")).collect()
}

fn why(kept: &[String], withheld: &BTreeSet<String>) -> String {
    let withheld = withheld.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let withheld = if withheld.is_empty() { "the others".to_owned() } else { withheld };
    let kept: String = kept.iter().map(|reason| format!("{reason}; ")).collect();
    format!("{kept}the workload was not seen to use {withheld}")
}

/// Whether the container has no_new_privs, with the edit that it takes. Not where a program was seen to gain privileges.
pub fn no_new_privileges(process: &Value, profile: &Profile, notes: &mut Vec<String>) -> (bool, Option<Edit>) {
    if process["noNewPrivileges"] == true {
        return (true, None);
    }
    let sides = [&profile.workload_behaviour, &profile.exec_behaviour];
    let mut programs = sides.iter().flat_map(|side| &side.programs);
    if let Some((path, _)) = programs.find(|(_, program)| program.privileged) {
        notes.push(format!("no-new-privileges is left out: {} gains privileges", path.escape_debug()));
        return (false, None);
    }
    let edit = Edit {
        pointer: "/process/noNewPrivileges".into(),
        value: json!(true),
        what: "no program gains privileges by being executed".into(),
        why: "the workload was not seen to run a set-id program, nor one with file capabilities".into(),
    };
    (true, Some(edit))
}
