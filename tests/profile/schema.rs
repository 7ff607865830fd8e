//! The published schemas describe what is really written and read: a check of the keywords that they use.

use lithify::profile::{Profile, schema};
use serde_json::{Value, json};

use super::build;

/// Why a value does not fit a schema; `None`: it does. A keyword that is not known here fails the test.
fn misfit(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    for (keyword, want) in schema.as_object().expect("a schema is an object") {
        let fits = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let target =
                    root.pointer(want.as_str().unwrap().strip_prefix('#').unwrap()).expect("a $ref leads somewhere");
                if let Some(why) = misfit(root, target, value) {
                    return Some(why);
                }
                true
            }
            "type" => match want {
                Value::Array(types) => types.iter().any(|t| is(value, t.as_str().unwrap())),
                one => is(value, one.as_str().unwrap()),
            },
            "const" => value == want,
            "enum" => want.as_array().unwrap().contains(value),
            "minimum" => value.as_number().is_none_or(|_| value.as_u64().is_some_and(|n| n >= want.as_u64().unwrap())),
            "maximum" => value.as_u64().is_none_or(|n| n <= want.as_u64().unwrap()),
            "minLength" => value.as_str().is_none_or(|s| s.chars().count() as u64 >= want.as_u64().unwrap()),
            "maxLength" => value.as_str().is_none_or(|s| s.chars().count() as u64 <= want.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|a| a.len() as u64 <= want.as_u64().unwrap()),
            "uniqueItems" => value.as_array().is_none_or(|a| a.iter().enumerate().all(|(i, v)| !a[..i].contains(v))),
            "minProperties" => value.as_object().is_none_or(|o| o.len() as u64 >= want.as_u64().unwrap()),
            "maxProperties" => value.as_object().is_none_or(|o| o.len() as u64 <= want.as_u64().unwrap()),
            "pattern" => value.as_str().is_none_or(|text| matches(want.as_str().unwrap(), text)),
            "required" => want.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some()),
            "items" => {
                let why = value.as_array().and_then(|list| list.iter().find_map(|v| misfit(root, want, v)));
                if why.is_some() {
                    return why;
                }
                true
            }
            "propertyNames" => {
                let mut names = value.as_object().into_iter().flat_map(|o| o.keys());
                names.all(|name| misfit(root, want, &json!(name)).is_none())
            }
            "properties" => {
                let known = want.as_object().unwrap();
                let why = known.iter().find_map(|(key, inner)| misfit(root, inner, value.get(key)?));
                if why.is_some() {
                    return why;
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let mut others =
                    value.as_object().into_iter().flatten().filter(|(k, _)| known.is_none_or(|o| !o.contains_key(*k)));
                match want {
                    Value::Bool(false) => others.next().is_none(),
                    inner => {
                        let why = others.find_map(|(key, v)| misfit(root, inner, v).map(|why| format!("{key}: {why}")));
                        if why.is_some() {
                            return why;
                        }
                        true
                    }
                }
            }
            other => panic!("this test does not know the keyword {other}"),
        };
        if !fits {
            return Some(format!("{keyword} {want}: {value}"));
        }
    }
    None
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("unknown type {other}"),
    }
}

/// The patterns that the schemas use, by hand: no regular expressions among the dependencies.
fn matches(pattern: &str, text: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    match pattern {
        "^[0-9a-f]{32}$" => text.len() == 32 && text.chars().all(hex),
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$" => {
            let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            shape == "0000-00-00T00:00:00.000000Z"
        }
        "^(i386:)?([a-z0-9_]+|#[0-9]+)$" => {
            let word = text.strip_prefix("i386:").unwrap_or(text);
            let digits = word.strip_prefix('#').is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_ascii_digit()));
            digits || !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        }
        "^[0-9]+(,[0-9]+){0,2}$" => {
            let numbers: Vec<&str> = text.split(',').collect();
            numbers.len() <= 3 && numbers.iter().all(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()))
        }
        "^(CAP_[A-Z_]+|#[0-9]+)$" => text.starts_with("CAP_") || text.starts_with('#'),
        "^(syscall|argument|capability|write|program) ." => {
            let kinds = ["syscall ", "argument ", "capability ", "write ", "program "];
            kinds.iter().any(|kind| text.strip_prefix(kind).is_some_and(|rest| !rest.is_empty()))
        }
        "^/" => text.starts_with('/'),
        "^E[A-Z0-9]{0,15}$" => text.starts_with('E') && text.len() <= 16,
        other => panic!("this test does not know the pattern {other}"),
    }
}

fn check(schema: &str, value: &Value) -> Option<String> {
    let schema: Value = serde_json::from_str(schema).expect("a schema is JSON");
    misfit(&schema, &schema, value)
}

fn documents() -> (Value, Value) {
    let mut o = build::full(1);
    let bad = lithify::profile::observation::Forbidden { reason: "r".to_string(), seen: build::seen(0, 0, 1) };
    o.forbidden.insert("syscall bpf".to_string(), bad);
    o.unseen = vec!["capabilities".to_string()];
    o.workload_behaviour.writes.get_mut("/run/web.pid").unwrap().refused.insert("EROFS".to_string());
    let mut profile = Profile::of(&o).fold(&build::full(2)).unwrap();
    profile.cut.insert("workload writes".to_string());
    profile.steering = build::steering();
    (serde_json::to_value(&o).unwrap(), serde_json::to_value(&profile).unwrap())
}

#[test]
fn what_is_written_fits_the_published_schema() {
    let (observation, profile) = documents();
    assert_eq!(check(schema::OBSERVATION, &observation), None);
    assert_eq!(check(schema::PROFILE, &profile), None);
    // Empty ones, and those without what may be left out.
    assert_eq!(check(schema::OBSERVATION, &serde_json::to_value(build::observation(1)).unwrap()), None);
    let mut least = serde_json::to_value(Profile::of(&build::observation(1))).unwrap();
    for key in ["forbidden", "cut", "peaks", "steering"] {
        least.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(check(schema::PROFILE, &least), None);
    assert!(Profile::parse(&serde_json::to_vec(&least).unwrap()).is_ok());
}

/// Every place in a value, as JSON pointers.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    all.push(at.clone());
    match value {
        Value::Object(map) => {
            for (key, v) in map {
                places(v, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| places(v, format!("{at}/{i}"), all)),
        _ => {}
    }
}

#[test]
fn the_schema_and_the_reader_agree_on_every_field_that_is_missing_added_or_of_another_type() {
    let (observation, profile) = documents();
    let reads_observation = |v: &Value| lithify::profile::Observation::parse(v.to_string().as_bytes()).is_ok();
    let reads_profile = |v: &Value| Profile::parse(v.to_string().as_bytes()).is_ok();
    agree(schema::OBSERVATION, &observation, reads_observation);
    agree(schema::PROFILE, &profile, reads_profile);
}

fn agree(schema: &str, document: &Value, reads: impl Fn(&Value) -> bool) {
    let mut all = Vec::new();
    places(document, String::new(), &mut all);
    assert!(all.len() > 100);
    for place in &all {
        let mut changes: Vec<Value> = Vec::new();
        for wrong in [json!("x"), json!(true), json!(-1), json!([[]])] {
            let mut changed = document.clone();
            *changed.pointer_mut(place).unwrap() = wrong;
            changes.push(changed);
        }
        if let Some((parent, key)) = place.rsplit_once('/') {
            let mut changed = document.clone();
            if let Some(Value::Object(map)) = changed.pointer_mut(parent) {
                map.remove(&key.replace("~1", "/").replace("~0", "~"));
                changes.push(changed);
            }
        }
        let mut changed = document.clone();
        if let Some(Value::Object(map)) = changed.pointer_mut(place) {
            map.insert("unknown-key".to_string(), json!(1));
            changes.push(changed);
        }
        for changed in changes {
            // The reader may refuse more (what contradicts itself), never less.
            let why = check(schema, &changed);
            assert!(why.is_none() || !reads(&changed), "{place}: read, but not by the schema: {why:?}");
            if why.is_none() && !reads(&changed) {
                let cross = lithify_refuses_across_fields(place);
                assert!(cross, "{place}: by the schema, but not read: {:?}", changed.pointer(place));
            }
        }
    }
}

/// Where fields must agree with each other or with names that a schema does not list: any free text that is an item's name, a
/// generation that an item names, a write that neither succeeded nor was refused.
fn lithify_refuses_across_fields(place: &str) -> bool {
    place.contains("generations")
        || place.ends_with("/succeeded")
        || place.ends_with("workload")
        || place.contains("/arguments")
}
