//! Pids in what the low-level runtime tells of a protected container: the engine knows the anchor's, the low-level runtime
//! that of the present generation's init.
//!
//! Whatever is not such a pid stays byte for byte as it was.

use serde_json::Value;

/// The answer of `state` or `list` with the second pid of each pair in the place of the first.
pub(super) fn replaced(text: &str, pids: &[(i32, i32)]) -> String {
    let Ok(told) = serde_json::from_str::<Value>(text) else { return replaced_in_table(text, pids) };
    let mut meant = told.clone();
    let containers = match &mut meant {
        Value::Array(containers) => containers.iter_mut().collect(),
        other => vec![other],
    };
    let mut edited = text.to_owned();
    for container in containers {
        let Some(pid) = container.get_mut("pid") else { continue };
        let Some((init, anchor)) = pids.iter().find(|(init, _)| pid.as_i64() == Some((*init).into())) else { continue };
        *pid = Value::from(*anchor);
        for (key, end) in [("\"pid\": ", ','), ("\"pid\":", ','), ("\"pid\": ", '\n'), ("\"pid\":", '}')] {
            edited = edited.replacen(&format!("{key}{init}{end}"), &format!("{key}{anchor}{end}"), 1);
        }
    }
    // A container's annotations may look alike.
    if serde_json::from_str::<Value>(&edited).is_ok_and(|edited| edited == meant) { edited } else { text.to_owned() }
}

/// In the column PID, whose width stays.
fn replaced_in_table(text: &str, pids: &[(i32, i32)]) -> String {
    // runc calls the first column ID, crun NAME.
    let is_list = text.lines().next().is_some_and(|head| head.split_whitespace().nth(1) == Some("PID"));
    if !is_list {
        return text.to_owned();
    }
    let row = |line: &str| -> Option<String> {
        let at = line.find(' ')?;
        let at = at + line[at..].find(|c| c != ' ')?;
        let (before, rest) = line.split_at(at);
        let pid = &rest[..rest.find(' ')?];
        let (_, anchor) = pids.iter().find(|(init, _)| init.to_string() == pid)?;
        let after = rest[pid.len()..].trim_start_matches(' ');
        let width = rest.len() - after.len();
        Some(format!("{before}{:<width$} {after}", anchor, width = width - 1))
    };
    text.split_inclusive('\n').map(|line| row(line).unwrap_or_else(|| line.to_owned())).collect()
}

/// The answer of `ps --format json` without a pid.
pub(super) fn without_in_json(text: &str, pid: i32) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(pids)) if pids.iter().any(|p| p.as_i64() == Some(pid.into())) => {
            let rest: Vec<Value> = pids.into_iter().filter(|p| p.as_i64() != Some(pid.into())).collect();
            let end = if text.ends_with('\n') { "\n" } else { "" };
            let rest = Value::Array(rest);
            // crun writes a line for each.
            if text.starts_with("[\n") { format!("{rest:#}{end}") } else { format!("{rest}{end}") }
        }
        _ => text.to_owned(),
    }
}

/// The answer of `ps` without a pid's line.
pub(super) fn without_in_table(text: &str, pid: i32) -> String {
    let column = text.lines().next().and_then(|head| head.split_whitespace().position(|name| name == "PID"));
    let Some(column) = column else { return text.to_owned() };
    let other = |line: &&str| line.split_whitespace().nth(column) != Some(pid.to_string().as_str());
    text.split_inclusive('\n').filter(other).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ps_leaves_the_anchor_out_and_everything_else_as_it_was() {
        assert_eq!(without_in_json("[10,11,12]\n", 11), "[10,12]\n");
        assert_eq!(without_in_json("[10, 12]", 11), "[10, 12]", "untouched where there is nothing to leave out");
        assert_eq!(without_in_json("not json", 11), "not json");
        assert_eq!(without_in_json("[\n  10,\n  11,\n  12\n]\n", 11), "[\n  10,\n  12\n]\n", "as crun writes it");
        let table = "UID   PID  PPID CMD\nroot   10     1 init\nroot   11     1 lithify\nroot  111     1 sh -c 11\n";
        assert_eq!(
            without_in_table(table, 11),
            "UID   PID  PPID CMD\nroot   10     1 init\nroot  111     1 sh -c 11\n"
        );
    }

    #[test]
    fn state_gives_the_engines_pid_and_everything_else_as_it_was() {
        let runc = "{\n  \"id\": \"pid\",\n  \"pid\": 12,\n  \"status\": \"running\",\n  \"annotations\": {\"pid\": \"12\"}\n}";
        assert_eq!(replaced(runc, &[(12, 7)]), runc.replace("\"pid\": 12,", "\"pid\": 7,"));
        assert_eq!(replaced(runc, &[(13, 7)]), runc, "not the process that is supervised");
        assert_eq!(replaced("{\"n\":12,\"pid\":12}", &[(12, 7)]), "{\"n\":12,\"pid\":7}");
        let nested = "{\"a\": {\"pid\": 12}, \"pid\": 12}";
        assert_eq!(replaced(nested, &[(12, 7)]), nested, "a pid of something else is not touched");
        assert_eq!(replaced("not json", &[(12, 7)]), "not json");
    }

    #[test]
    fn list_gives_the_engines_pids_in_both_formats_and_everything_else_as_it_was() {
        let pids = [(12, 11), (120, 99_999)];
        let json = "[{\"id\":\"a\",\"pid\":120,\"n\":12},{\"id\":\"b\",\"pid\":12,\"n\":1},{\"id\":\"c\",\"pid\":0,\"n\":1}]\n";
        let expected = json.replace("\"pid\":120,", "\"pid\":99999,").replace("\"pid\":12,", "\"pid\":11,");
        assert_eq!(replaced(json, &pids), expected);
        let table = "ID          PID         STATUS\na           120         running\n12          13          running\nb           12          running\n";
        let expected = "ID          PID         STATUS\na           99999       running\n12          13          running\nb           11          running\n";
        assert_eq!(replaced(table, &pids), expected);
        assert_eq!(replaced("a\nb\n", &pids), "a\nb\n", "ids alone");
    }
}
