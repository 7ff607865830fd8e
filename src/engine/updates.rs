//! What `update` changed, remembered for the generations to come.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::supervise::generation::{UPDATES, Update};

/// Most updates that are remembered; each costs a restart one call of the low-level runtime.
const MAX_UPDATES: usize = 64;

/// Adds an update to those of a container's folder. Of earlier ones only those stay that set something which this one does
/// not: an engine that sets the same limit every minute is remembered once.
///
/// # Errors
/// For arguments that are not UTF-8, or when the file can't be written.
pub(super) fn remember(dir: &Path, verb: &[OsString], resources: Option<String>) -> Result<()> {
    let path = dir.join(UPDATES);
    let earlier: Vec<Update> =
        std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let mut args = Vec::new();
    for word in verb {
        args.push(word.to_str().context("failed to remember an update: not UTF-8")?.to_owned());
    }
    let updates = with(earlier, Update { args: from_standard_input(args), resources });
    let new = dir.join("updates.json.new");
    std::fs::write(&new, serde_json::to_vec(&updates)?)
        .and_then(|()| std::fs::rename(&new, &path))
        .with_context(|| format!("failed to write {}", path.display()))
}

/// What was read from a file is handed to later generations on standard input.
fn from_standard_input(mut args: Vec<String>) -> Vec<String> {
    let resources = |word: &str| matches!(word, "--resources" | "-resources" | "-r" | "--r");
    for at in 0..args.len() {
        if resources(&args[at]) && at + 1 < args.len() {
            args[at + 1] = "-".to_owned();
        } else if let Some((name, _)) = args[at].split_once('=')
            && resources(name)
        {
            args[at] = format!("{name}=-");
        }
    }
    args
}

fn with(mut updates: Vec<Update>, update: Update) -> Vec<Update> {
    let sets = settings(&update);
    updates.retain(|earlier| !settings(earlier).is_subset(&sets));
    updates.push(update);
    let excess = updates.len().saturating_sub(MAX_UPDATES);
    updates.drain(..excess);
    updates
}

/// The names of all that an update sets: its flags, and the paths within its resources.
fn settings(update: &Update) -> BTreeSet<String> {
    let flags = update.args.iter().filter(|word| word.starts_with('-') && *word != "-");
    let flags = flags.map(|word| word.trim_start_matches('-').split('=').next().unwrap_or_default());
    let flags = flags.filter(|name| !matches!(*name, "resources" | "r"));
    let mut found: BTreeSet<String> = flags.map(|name| format!("--{name}")).collect();
    match update.resources.as_deref().map(serde_json::from_str::<Value>) {
        Some(Ok(value)) => leaves(&value, "", &mut found),
        // Something that only the low-level runtime can read: the same text sets the same.
        Some(Err(_)) => found.extend(update.resources.clone()),
        None => {}
    }
    found
}

fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        // Absent, to the low-level runtime.
        Value::Null => {}
        Value::Object(map) => map.iter().for_each(|(name, value)| leaves(value, &format!("{path}/{name}"), found)),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.insert(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn remembered(calls: &[(&str, Option<&str>)]) -> Vec<Update> {
        let dir = tempfile::tempdir().expect("a folder");
        for (line, resources) in calls {
            remember(dir.path(), &words(line), resources.map(str::to_owned)).expect("remembered");
        }
        serde_json::from_slice(&std::fs::read(dir.path().join(UPDATES)).expect("a file")).expect("JSON")
    }

    #[test]
    fn an_update_takes_the_place_of_those_that_set_nothing_else() {
        let updates = remembered(&[
            ("update --memory 64m c", None),
            ("update --cpu-quota=5 --memory=32m c", None),
            ("update --pids-limit 5 c", None),
            ("update --memory 16m c", None),
            ("update -memory 8m c", None),
        ]);
        let lines: Vec<String> = updates.iter().map(|u| u.args.join(" ")).collect();
        assert_eq!(
            lines,
            ["update --cpu-quota=5 --memory=32m c", "update --pids-limit 5 c", "update -memory 8m c"],
            "in the order of the last word on each"
        );
    }

    #[test]
    fn resources_are_compared_by_what_they_set_and_later_read_from_standard_input() {
        let updates = remembered(&[
            ("update --resources /tmp/r.json c", Some(r#"{"memory":{"limit":1},"cpu":null}"#)),
            ("update --resources - c", Some(r#"{"cpu":{"cpus":"0"}}"#)),
            ("update -r=/tmp/r.json c", Some(r#"{"memory":{"limit":2,"swap":3}}"#)),
            ("update --resources - c", Some(r#"{"cpu":{"cpus":"0-1"}}"#)),
        ]);
        let got: Vec<(String, &str)> =
            updates.iter().map(|u| (u.args.join(" "), u.resources.as_deref().unwrap_or(""))).collect();
        assert_eq!(
            got,
            [
                ("update -r=- c".to_owned(), r#"{"memory":{"limit":2,"swap":3}}"#),
                ("update --resources - c".to_owned(), r#"{"cpu":{"cpus":"0-1"}}"#),
            ]
        );
        assert_eq!(from_standard_input(vec!["--resources".into(), "f".into()]), ["--resources", "-"]);
    }

    #[test]
    fn a_thousand_different_updates_stay_within_their_bound_and_the_newest_are_kept() {
        let mut updates = Vec::new();
        for number in 0..1000 {
            let args = vec!["update".to_owned(), format!("--flag-{number}=1"), "c".to_owned()];
            updates = with(updates, Update { args, resources: None });
        }
        assert_eq!(updates.len(), MAX_UPDATES);
        assert_eq!(updates.last().expect("one").args[1], "--flag-999=1");
        let same =
            |_| Update { args: vec!["update".to_owned(), "c".to_owned()], resources: Some("not json".to_owned()) };
        assert_eq!((0..1000).map(same).fold(Vec::new(), with).len(), 1);
    }
}
