//! What an `exec` session may have: never more than its container.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::Document;
use crate::cli::ExecArgs;
use crate::guard::Limits;

const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// What was taken from a session, in words for the event.
pub type Taken = Vec<String>;

/// Narrows a process document to its container: capabilities to the container's sets, `noNewPrivileges`, AppArmor profile
/// and SELinux label to the container's where it has them.
///
/// # Errors
/// For a document that is no JSON object, whose capabilities are not lists of names, or in which a name would be read in
/// two ways ([`super::names`]): what it asks for can't be told.
pub fn clamp(process: &mut Value, container: &Document) -> Result<Taken> {
    super::names::check_process(process)?;
    let own = &container.value()["process"];
    let mut taken = Taken::new();
    let process = process.as_object_mut().context("failed to read a process document: expected a JSON object")?;
    match process.get_mut("capabilities") {
        // Without an object of its own a session gets the container's, which the low-level runtime sees to.
        None | Some(Value::Null) => {}
        Some(Value::Object(asked)) => clamp_capabilities(asked, own, &mut taken)?,
        Some(_) => bail!("failed to read a process document: capabilities are not an object"),
    }
    if own["noNewPrivileges"] == true && process.get("noNewPrivileges") != Some(&Value::Bool(true)) {
        process.insert("noNewPrivileges".to_owned(), Value::Bool(true));
        taken.push(NEW_PRIVILEGES.to_owned());
    }
    for key in ["apparmorProfile", "selinuxLabel"] {
        if own[key].as_str().is_some_and(|label| !label.is_empty()) && process.get(key) != Some(&own[key]) {
            process.insert(key.to_owned(), own[key].clone());
            taken.push(format!("another {key}"));
        }
    }
    Ok(taken)
}

/// Leaves of what was taken what somebody asked for. An engine gives each session what it would have given the container: what the
/// container's profile withholds of that, nobody has asked for.
pub fn keep_asked(taken: &mut Taken, limits: &Limits) {
    taken.retain(|what| match what.as_str() {
        NEW_PRIVILEGES => !limits.withheld_new_privileges,
        what => !limits.withheld_capabilities.contains(what),
    });
}

const NEW_PRIVILEGES: &str = "new privileges";

/// Names as they are written: runc knows them in capitals only, crun in any case, so that a name in another spelling means
/// something to one of them and nothing to the other.
fn names(set: &Value) -> BTreeSet<String> {
    let names = set.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

/// Narrows a process document that was clamped to some of its container's capabilities. One without capabilities of its own
/// would get all of them.
///
/// # Errors
/// As [`clamp`].
pub fn narrow(process: &mut Value, container: &Document, only: &BTreeSet<String>) -> Result<()> {
    let own = &container.value()["process"]["capabilities"];
    let process = process.as_object_mut().context("failed to read a process document: expected a JSON object")?;
    let sets = process.entry("capabilities").or_insert(Value::Null);
    if sets.is_null() {
        *sets = if own.is_object() { own.clone() } else { json!({}) };
    }
    for set in SETS {
        if let Some(names) = sets[set].as_array_mut() {
            names.retain(|name| name.as_str().is_some_and(|name| only.contains(name)));
        }
    }
    Ok(())
}

fn clamp_capabilities(asked: &mut Map<String, Value>, own: &Value, taken: &mut Taken) -> Result<()> {
    let bounding = names(&own["capabilities"]["bounding"]);
    let ambient = names(&own["capabilities"]["ambient"]);
    for set in SETS {
        // A session's root may hold what the container's user could regain, its bounding set; ambient only the same.
        let allowed = if set == "ambient" { &ambient } else { &bounding };
        match asked.get_mut(set) {
            None | Some(Value::Null) => {}
            Some(Value::Array(asked)) => {
                asked.retain(|name| {
                    let keep = name.as_str().is_some_and(|name| allowed.contains(name));
                    if !keep && set == "bounding" {
                        taken.push(name.as_str().unwrap_or("a capability that is no name").to_owned());
                    }
                    keep
                });
            }
            Some(_) => bail!("failed to read a process document: capabilities.{set} is not a list"),
        }
    }
    Ok(())
}

/// The process document of an `exec` that names a program on the command line, as the low-level runtime would make it from
/// the container's own.
///
/// # Errors
/// For arguments that are not UTF-8 (JSON can't hold them), a malformed `--user`, or no program.
pub fn from_arguments(args: &ExecArgs, container: &Document) -> Result<Value> {
    ensure!(!args.args.is_empty(), "failed to exec in container {}: no program given", args.id.to_string_lossy());
    let mut process = container.value()["process"].clone();
    ensure!(
        process.is_object() && (process["user"].is_object() || process["user"].is_null()),
        "failed to exec in container {}: its config.json has no process",
        args.id.to_string_lossy()
    );
    process["args"] = json!(args.args.iter().map(|a| text(a)).collect::<Result<Vec<_>>>()?);
    process["terminal"] = Value::Bool(args.tty);
    if let Some(cwd) = args.cwd.as_deref().filter(|c| !c.is_empty()) {
        process["cwd"] = json!(text(cwd)?);
    }
    if let Some(label) = &args.process_label {
        process["selinuxLabel"] = json!(text(label)?);
    }
    if let Some(profile) = &args.apparmor {
        process["apparmorProfile"] = json!(text(profile)?);
    }
    if let Some(value) = args.no_new_privs {
        process["noNewPrivileges"] = Value::Bool(value);
    }
    if !args.caps.is_empty() {
        if !process["capabilities"].is_object() {
            process["capabilities"] = json!({});
        }
        for set in SETS {
            let mut held = names(&process["capabilities"][set]);
            held.extend(args.caps.iter().map(|c| c.to_string_lossy().to_ascii_uppercase()));
            process["capabilities"][set] = json!(held);
        }
    }
    if !args.env.is_empty() {
        let mut env = process["env"].as_array().cloned().unwrap_or_default();
        env.extend(args.env.iter().map(|e| Ok(json!(text(e)?))).collect::<Result<Vec<_>>>()?);
        process["env"] = Value::Array(env);
    }
    if let Some(user) = &args.user {
        let user = text(user)?;
        let (uid, gid) = user.split_once(':').map_or((user.as_str(), None), |(u, g)| (u, Some(g)));
        let number = |word: &str| word.parse::<u32>().with_context(|| format!("failed to read --user {user}"));
        process["user"]["uid"] = json!(number(uid)?);
        if let Some(gid) = gid {
            process["user"]["gid"] = json!(number(gid)?);
        }
    }
    for gid in &args.additional_gids {
        let gid: u32 = text(gid)?.parse().context("failed to read --additional-gids")?;
        match process["user"]["additionalGids"].as_array_mut() {
            Some(gids) => gids.push(json!(gid)),
            None => process["user"]["additionalGids"] = json!([gid]),
        }
    }
    Ok(process)
}

fn text(word: &OsStr) -> Result<String> {
    match std::str::from_utf8(word.as_bytes()) {
        Ok(word) => Ok(word.to_owned()),
        Err(_) => bail!("failed to read the command line: {} is not UTF-8", OsString::from(word).to_string_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_gives_every_session_and_the_profile_withholds_is_not_told_as_asked_for_and_refused() {
        let container = r#"{"process":{"noNewPrivileges":true,"capabilities":{"bounding":["CAP_CHOWN"]}}}"#;
        let container = Document::parse(container.as_bytes()).expect("JSON");
        let asks = |bounding: &[&str]| {
            let mut process = json!({"args": ["id"], "capabilities": {"bounding": bounding}});
            clamp(&mut process, &container).expect("a process")
        };
        let withheld = ["CAP_KILL", "CAP_SETUID"].map(str::to_owned).into();
        let limits = Limits { withheld_capabilities: withheld, withheld_new_privileges: true, ..Limits::default() };
        let told = |bounding: &[&str], limits: &Limits| {
            let mut taken = asks(bounding);
            keep_asked(&mut taken, limits);
            taken
        };
        assert_eq!(told(&["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"], &limits), Taken::new());
        assert_eq!(told(&["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"], &limits), ["CAP_SYS_ADMIN"]);
        let of_the_engine = told(&["CAP_KILL"], &Limits::default());
        assert_eq!(of_the_engine, ["CAP_KILL", NEW_PRIVILEGES], "where the engine withheld it, it was asked for");
    }
}
