//! An exec session gets no more than its container has, whatever it asks for.

use std::collections::BTreeSet;

use lithify::cli::ExecArgs;
use lithify::spec::Document;
use lithify::spec::exec::{clamp, from_arguments};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::document::any_json;

const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

fn capability() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => prop::sample::select(vec!["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN", "cap_sys_admin", "Cap_Kill", "KILL", "CAP_LATER", "ALL", ""])
            .prop_map(Value::from),
        1 => any_json(),
    ]
}

fn capabilities() -> impl Strategy<Value = Value> {
    let set = prop_oneof![4 => proptest::collection::vec(capability(), 0..5).prop_map(Value::Array), 1 => any_json()];
    let names = prop::sample::select(vec![
        "bounding",
        "effective",
        "inheritable",
        "permitted",
        "ambient",
        "Bounding",
        "AMBIENT",
        "x",
    ]);
    let sets = proptest::collection::vec((names, set), 0..6);
    let object = sets.prop_map(|s| Value::Object(s.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>()));
    prop_oneof![6 => object, 1 => any_json()]
}

fn process() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "capabilities",
        "Capabilities",
        "capabilitie\u{17f}",
        "noNewPrivileges",
        "NoNewPrivileges",
        "apparmorProfile",
        "selinuxLabel",
        "user",
        "args",
        "x",
    ]);
    let label = prop::sample::select(vec!["", "container", "unconfined"]).prop_map(Value::from);
    let value = prop_oneof![3 => capabilities(), 1 => any::<bool>().prop_map(Value::Bool), 2 => label, 1 => any_json()];
    let object = proptest::collection::vec((key, value), 0..6)
        .prop_map(|s| Value::Object(s.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>()));
    prop_oneof![8 => object, 1 => any_json()]
}

/// What Go's encoding/json would put into the field of this name.
fn as_go_reads<'a>(object: &'a Value, name: &str) -> Vec<&'a Value> {
    let fold = |key: &str| key.replace('\u{17f}', "s").replace('\u{212a}', "k").to_lowercase();
    object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| fold(key) == fold(name))
        .map(|(_, value)| value)
        .collect()
}

/// Every capability that runc or crun would find in a set.
fn held(process: &Value, set: &str) -> BTreeSet<String> {
    let sets = as_go_reads(process, "capabilities").into_iter().flat_map(|caps| as_go_reads(caps, set));
    let names = sets.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_session_ever_exceeds_its_container(mut session in process(), own in process()) {
        let Ok(container) = Document::parse(json!({ "process": own }).to_string().as_bytes()) else { return Ok(()) };
        if clamp(&mut session, &container).is_err() {
            return Ok(());
        }
        for set in SETS {
            let limit = held(&own, if set == "ambient" { "ambient" } else { "bounding" });
            prop_assert!(held(&session, set).is_subset(&limit), "{} in {} of {}", set, session, own);
        }
        if own["noNewPrivileges"] == true {
            prop_assert_eq!(as_go_reads(&session, "noNewPrivileges"), [&Value::Bool(true)]);
        }
        for label in ["apparmorProfile", "selinuxLabel"] {
            if own[label].as_str().is_some_and(|l| !l.is_empty()) {
                prop_assert_eq!(as_go_reads(&session, label), [&own[label]]);
            }
        }
        let mut again = session.clone();
        prop_assert!(clamp(&mut again, &container).is_ok_and(|taken| taken.is_empty()));
        prop_assert_eq!(again, session, "once is enough");
    }

    #[test]
    fn arguments_make_a_process_of_any_container_without_a_panic(own in process(), cap in "[a-zA-Z_]{0,12}", user in "[0-9:x]{0,6}") {
        let Ok(container) = Document::parse(json!({ "process": own }).to_string().as_bytes()) else { return Ok(()) };
        let args = ExecArgs {
            id: "c".into(), args: vec!["sh".into()], caps: vec![cap.into()], user: Some(user.into()),
            env: vec!["A=b".into()], additional_gids: vec!["7".into()], ..ExecArgs::default()
        };
        if let Ok(mut process) = from_arguments(&args, &container) {
            let _ = clamp(&mut process, &container);
        }
    }
}

#[test]
fn what_was_asked_for_and_refused_is_told_by_name() {
    let own = json!({ "process": {
        "capabilities": { "bounding": ["CAP_CHOWN"], "ambient": [] }, "noNewPrivileges": true, "apparmorProfile": "docker-default",
    } });
    let container = Document::parse(own.to_string().as_bytes()).unwrap();
    let all = ["CAP_CHOWN", "CAP_SYS_ADMIN"];
    let mut session = json!({
        "args": ["sh"], "x-unknown": 1.50, "apparmorProfile": "unconfined",
        "capabilities": { "bounding": all, "effective": all, "permitted": all, "inheritable": all, "ambient": all },
    });
    let taken = clamp(&mut session, &container).unwrap();
    assert_eq!(taken, ["CAP_SYS_ADMIN", "new privileges", "another apparmorProfile"]);
    assert_eq!(session["capabilities"]["effective"], json!(["CAP_CHOWN"]));
    assert_eq!(session["capabilities"]["ambient"], json!([]));
    assert_eq!(session["x-unknown"].to_string(), "1.50");
}

#[test]
fn a_session_that_asks_for_nothing_is_left_as_it_is() {
    let container = Document::parse(br#"{"process":{"capabilities":{"bounding":["CAP_CHOWN"]}}}"#).unwrap();
    for session in
        [json!({ "args": ["sh"] }), json!({ "capabilities": null }), json!({ "capabilities": { "bounding": null } })]
    {
        let mut clamped = session.clone();
        assert!(clamp(&mut clamped, &container).unwrap().is_empty());
        assert_eq!(clamped.to_string(), session.to_string());
    }
}
