//! `lithifyctl inspect ID`: everything that is known of one container. Must not: act on it.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::status::{Guard, guard};
use super::{A_FIELD, Call, Given, Outcome, short, usage};
use crate::policy::suggest::quote;
use crate::record::Record;

const HELP: &str = "\
usage: lithifyctl inspect ID [--json]

Everything about one container under lithify; the beginning of its id, or of its name where the
engine tells one, is enough where it fits only one. How far learning
has come, and containers that a hook records under another runtime, are in 'lithifyctl status' only.
";

/// Prints one container's record.
///
/// # Errors
/// When no or more than one container fits, the state folder can't be read, or the arguments are wrong.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let mut id = None;
    while let Some(given) = call.next(args)? {
        match given {
            Given::Word(word) if id.is_none() => id = Some(word.to_string_lossy().into_owned()),
            other => return Err(other.refuse(&[])),
        }
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Err(usage("expected a container's id")) };
    let record = find(call, &id)?.with_context(|| {
        format!(
            "no container under lithify has an id or a name that begins with {}; see 'lithifyctl status'",
            quote(&id)
        )
    })?;
    let gone = guard(&record) == Guard::Gone;
    let mut value = serde_json::to_value(&record)?;
    value["protected"] = Value::Bool(!gone);
    if call.json {
        call.print_json(&value)?;
    } else {
        if gone {
            writeln!(call.out, "UNPROTECTED: the supervisor, pid {}, is gone", record.supervisor.pid)?;
        }
        print(call, &value, 0)?;
    }
    Ok(if gone { Outcome::Wrong } else { Outcome::Well })
}

/// The one container whose id, or else whose name, begins with `id`; `None`: there is none.
///
/// # Errors
/// When there are several, or its record can't be read.
pub(super) fn find(call: &Call<'_>, id: &str) -> Result<Option<Record>> {
    let state_dir = call.readable_settings().state_dir;
    let mut broken = Vec::new();
    let (mut fitting, mut named) = (Vec::new(), Vec::new());
    for (dir, record) in Record::list(&state_dir)? {
        match record {
            Ok(record) if record.id.starts_with(id) => fitting.push(record),
            Ok(record) if record.names.container.as_ref().is_some_and(|name| name.starts_with(id)) => {
                named.push(record)
            }
            Ok(_) => {}
            Err(e) if dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with(id)) => broken.push(e),
            Err(_) => {}
        }
    }
    if fitting.iter().filter(|r| r.id == id).count() == 1 {
        fitting.retain(|r| r.id == id);
    }
    if fitting.is_empty() && broken.is_empty() {
        fitting = named;
        if fitting.iter().filter(|r| r.names.container.as_deref() == Some(id)).count() == 1 {
            fitting.retain(|r| r.names.container.as_deref() == Some(id));
        }
    }
    match (fitting.len(), broken.pop()) {
        (1, _) => Ok(fitting.pop()),
        (0, Some(e)) => Err(e),
        (0, None) => Ok(None),
        (n, _) => {
            let ids: Vec<&str> = fitting.iter().map(|r| r.id.as_str()).take(5).collect();
            bail!("{n} containers' ids or names begin with {}: {}; give more of the id", quote(id), ids.join(", "))
        }
    }
}

/// Prints nested values as indented `name: value` lines.
fn print(call: &mut Call<'_>, value: &Value, depth: usize) -> Result<()> {
    let indent = "  ".repeat(depth);
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, v)| (format!("{key}:"), v)).collect(),
        Value::Array(list) => list.iter().map(|v| ("-".to_string(), v)).collect(),
        _ => Vec::new(),
    };
    for (name, v) in entries {
        match v {
            Value::Null => {}
            Value::Object(map) if map.is_empty() => {}
            Value::Array(list) if list.is_empty() => {}
            Value::Object(_) | Value::Array(_) => {
                writeln!(call.out, "{indent}{name}")?;
                print(call, v, depth + 1)?;
            }
            Value::String(text) => writeln!(call.out, "{indent}{name} {}", short(text, A_FIELD))?,
            other => writeln!(call.out, "{indent}{name} {other}")?,
        }
    }
    Ok(())
}
