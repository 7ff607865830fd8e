//! Docker: one entry in `runtimes` of `/etc/docker/daemon.json`, put in and taken out as text.
//!
//! A JSON library would write the whole file anew. Here an insertion comes right behind a brace, and the form of what
//! stands there tells a removal exactly what was put in:
//!
//! | the user's file | what is inserted | how it is known again |
//! | --- | --- | --- |
//! | no file | a whole file | it is that file, byte for byte |
//! | no `runtimes` | the member `runtimes` | white space before our entry, which is the only one |
//! | `runtimes` is empty | our entry | no white space before it |
//! | `runtimes` has entries | white space, our entry, a comma | it comes first, others follow |

use std::ops::Range;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::NAME;

/// Docker's file.
pub const PATH: &str = "/etc/docker/daemon.json";

/// The file's text with the runtime in it.
///
/// # Errors
/// When it is not a JSON object whose `runtimes` is an object.
pub fn add(text: Option<&str>, binary: &str) -> Result<String> {
    let Some(text) = text else { return Ok(whole(binary)) };
    let value = parse(text)?;
    if value.get("runtimes").and_then(|r| r.get(NAME)).is_some() {
        let found = value["runtimes"][NAME].get("path").and_then(Value::as_str);
        if found == Some(binary) {
            return Ok(text.to_string());
        }
        // The program has moved: the old entry goes, and comes again.
        let Some(bare) = remove(Some(text))? else { return Ok(whole(binary)) };
        return add(Some(&bare), binary);
    }
    let entry = format!("\"{NAME}\": {{\"path\": \"{binary}\"}}");
    let top = Object::scan(text, skip_space(text, 0));
    let (at, insert) = match top.member("runtimes") {
        Some(runtimes) => {
            let inner = Object::scan(text, runtimes.value.start);
            let space = inner.space_before_first(text);
            let insert = if inner.members.is_empty() { entry } else { format!("{space}{entry},") };
            (inner.open + 1, insert)
        }
        None if top.members.is_empty() => (top.open + 1, format!("\"runtimes\": {{ {entry} }}")),
        None => {
            let space = top.space_before_first(text);
            let within = if space.is_empty() { " " } else { space };
            let deeper = if space.contains('\n') { format!("{space}  ") } else { within.to_string() };
            (top.open + 1, format!("{space}\"runtimes\": {{{deeper}{entry}{within}}},"))
        }
    };
    let out = format!("{}{insert}{}", &text[..at], &text[at..]);
    parse(&out).context("the runtime could not be added")?;
    Ok(out)
}

/// The file's text without the runtime; `None` where we made the file.
///
/// # Errors
/// As [`add`].
pub fn remove(text: Option<&str>) -> Result<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    let value = parse(text)?;
    let Some(entry) = value.get("runtimes").and_then(|r| r.get(NAME)) else { return Ok(Some(text.to_string())) };
    if entry.get("path").and_then(Value::as_str).is_some_and(|binary| whole(binary) == text) {
        return Ok(None);
    }
    let top = Object::scan(text, skip_space(text, 0));
    let runtimes = top.member("runtimes").context("runtimes could not be found again")?;
    let inner = Object::scan(text, runtimes.value.start);
    let ours_alone = inner.members.len() == 1 && !inner.space_before_first(text).is_empty();
    let cut = if ours_alone { top.without("runtimes", text) } else { inner.without(NAME, text) };
    let cut = cut.context("the entry could not be found again")?;
    let out = format!("{}{}", &text[..cut.start], &text[cut.end..]);
    parse(&out).context("the runtime could not be removed")?;
    Ok(Some(out))
}

/// Whether a file's text registers the runtime.
pub fn is_registered(text: &str) -> bool {
    parse(text).is_ok_and(|v| v.get("runtimes").and_then(|r| r.get(NAME)).is_some())
}

fn whole(binary: &str) -> String {
    format!("{{\n  \"runtimes\": {{\n    \"{NAME}\": {{\"path\": \"{binary}\"}}\n  }}\n}}\n")
}

fn parse(text: &str) -> Result<Value> {
    let value: Value = serde_json::from_str(text).context("it is not valid JSON; mend it first")?;
    match value.get("runtimes") {
        _ if !value.is_object() => bail!("it is not a JSON object; mend it first"),
        Some(runtimes) if !runtimes.is_object() => bail!("its \"runtimes\" is not an object; mend it first"),
        _ => Ok(value),
    }
}

struct Member {
    /// Without quotes; keys with escapes are none of ours.
    key: String,
    key_start: usize,
    value: Range<usize>,
}

/// An object's place in a text that is known to be valid JSON.
struct Object {
    /// Offset of its opening brace.
    open: usize,
    members: Vec<Member>,
}

impl Object {
    fn scan(text: &str, open: usize) -> Object {
        let mut members = Vec::new();
        let mut at = skip_space(text, open + 1);
        while text.as_bytes().get(at) == Some(&b'"') {
            let key_end = skip_string(text, at);
            let start = skip_space(text, skip_space(text, key_end) + 1);
            let end = skip_value(text, start);
            members.push(Member { key: text[at + 1..key_end - 1].to_string(), key_start: at, value: start..end });
            at = skip_space(text, end);
            if text.as_bytes().get(at) == Some(&b',') {
                at = skip_space(text, at + 1);
            }
        }
        Object { open, members }
    }

    /// The last one of that name, as parsers take it.
    fn member(&self, key: &str) -> Option<&Member> {
        self.members.iter().rev().find(|m| m.key == key)
    }

    fn space_before_first<'t>(&self, text: &'t str) -> &'t str {
        &text[self.open + 1..skip_space(text, self.open + 1)]
    }

    /// What to cut to be rid of a member: with the white space before it, and the comma that it needed.
    fn without(&self, key: &str, text: &str) -> Option<Range<usize>> {
        let index = self.members.iter().rposition(|m| m.key == key)?;
        let member = &self.members[index];
        if index + 1 < self.members.len() {
            let comma = skip_space(text, member.value.end);
            let start =
                if index == 0 { self.open + 1 } else { skip_space(text, self.members[index - 1].value.end) + 1 };
            return Some(start..comma + 1);
        }
        // The last one: the comma before it goes. Alone, it was put right behind the brace.
        let start = if index == 0 { member.key_start } else { self.members[index - 1].value.end };
        Some(start..member.value.end)
    }
}

fn skip_space(text: &str, mut at: usize) -> usize {
    while text.as_bytes().get(at).is_some_and(|b| b" \t\r\n".contains(b)) {
        at += 1;
    }
    at
}

/// From an opening quote to behind the closing one.
fn skip_string(text: &str, mut at: usize) -> usize {
    let bytes = text.as_bytes();
    at += 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn skip_value(text: &str, mut at: usize) -> usize {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = skip_string(text, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BIN: &str = "/usr/local/bin/lithify";

    fn round_trip(text: &str) {
        let added = add(Some(text), BIN).unwrap();
        let mut want: Value = serde_json::from_str(text).unwrap();
        want["runtimes"][NAME]["path"] = BIN.into();
        assert_eq!(serde_json::from_str::<Value>(&added).unwrap(), want, "{added}");
        assert_eq!(add(Some(&added), BIN).unwrap(), added, "twice is once");
        assert_eq!(remove(Some(&added)).unwrap().as_deref(), Some(text), "from {added}");
    }

    #[test]
    fn every_form_of_file_comes_back_to_the_byte() {
        for text in [
            "{}",
            "{ }",
            "{\n}\n",
            "{\"a\":1}",
            "{\"a\": {\"runtimes\": 3}}\n",
            "{\n\t\"debug\": true\n}\n",
            " {\"a\":[1,{}]} ",
            "{\"runtimes\":{}}",
            "{\"runtimes\": { }, \"x\": \"}\\\"\"}",
            "{\n  \"runtimes\": {\n  }\n}",
            "{\"runtimes\":{\"crun\":{\"path\":\"/x\"}}}",
            "{\r\n  \"a\": 1,\r\n  \"runtimes\": {\r\n    \"k\": {}\r\n  }\r\n}",
        ] {
            round_trip(text);
        }
        let ours = add(None, BIN).unwrap();
        assert_eq!(remove(Some(&ours)).unwrap(), None);
    }

    #[test]
    fn a_moved_program_changes_the_path_and_nothing_else() {
        let added = add(Some("{\"a\": 1}"), "/old/lithify").unwrap();
        let moved = add(Some(&added), BIN).unwrap();
        assert_eq!(moved, added.replace("/old/lithify", BIN));
    }

    #[test]
    fn an_entry_that_others_were_put_around_is_taken_out_alone() {
        for text in [
            "{\"runtimes\": {\"a\": {}, \"lithify\": {\"path\": \"/x\"}, \"b\": {}}}",
            "{\"runtimes\": {\"a\": {}, \"b\": {}, \"lithify\": {\"path\": \"/x\"}}}",
        ] {
            let bare: Value = serde_json::from_str(&remove(Some(text)).unwrap().unwrap()).unwrap();
            assert_eq!(bare, serde_json::json!({"runtimes": {"a": {}, "b": {}}}));
        }
    }

    #[test]
    fn a_file_that_docker_would_not_take_is_refused() {
        for text in ["", "[]", "{", "{\"runtimes\": []}", "{} //"] {
            assert!(add(Some(text), BIN).is_err(), "{text:?}");
            assert!(remove(Some(text)).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_object_survives_a_round_trip(
            keys in proptest::collection::btree_map("[a-z{}\\[\\],\\\\\" é]{0,6}", 0i32..5, 0..4),
            others in proptest::collection::btree_map("[a-k]{1,3}", "[ -~]{0,8}", 0..3),
            with_runtimes: bool,
            pretty: bool,
        ) {
            let mut value = serde_json::json!(keys);
            if with_runtimes {
                value["runtimes"] = serde_json::json!(others);
            }
            round_trip(&if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() });
        }
    }
}
