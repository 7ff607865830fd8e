//! What makes a revision another one, and what must not.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn config() -> Value {
    json!({
        "process": {
            "args": ["/usr/sbin/nginx", "-g", "daemon off;"],
            "env": ["PATH=/usr/bin:/bin", "HOME=/root", "MODE=x"],
            "user": { "uid": 0, "gid": 0 },
            "capabilities": { "bounding": ["CAP_CHOWN", "CAP_KILL"] },
        },
        "hostname": "3f1c",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"] },
            { "destination": "/etc/hosts", "type": "bind", "source": "/c/1/hosts", "options": ["rbind"] },
            { "destination": "/data", "type": "bind", "source": "/volumes/1", "options": ["rbind", "rw"] },
        ],
    })
}

fn of(config: &Value, annotations: &[(&str, &str)], source: &Source) -> Revision {
    let annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let document = Document::parse(config.to_string().as_bytes()).expect("a document");
    revision(&document, &annotations, &EngineNames::from_annotations(&annotations), source)
}

fn layers(init: &str) -> Source {
    let paths = [format!("/var/lib/docker/overlay2/{init}-init/diff"), "/var/lib/docker/overlay2/aa/diff".to_owned()];
    Source::Layers(paths.map(PathBuf::from).to_vec())
}

fn digest_of(config: &Value) -> String {
    of(config, &[], &layers("1")).digest
}

#[test]
fn what_is_each_containers_own_makes_no_other_revision() {
    let mut other = config();
    other["hostname"] = json!("77aa");
    other["process"]["env"] = json!(["MODE=y", "HOME=/root", "PATH=/bin:/usr/bin"]);
    other["mounts"][1]["source"] = json!("/c/2/hosts");
    other["mounts"][2]["source"] = json!("/volumes/2");
    other["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_CHOWN"]);
    other["process"]["terminal"] = json!(true);
    other["mounts"].as_array_mut().expect("a list").reverse();
    let secret = json!({ "destination": "/run/secrets/x", "type": "bind", "source": "/s", "options": ["rbind", "ro"] });
    other["mounts"].as_array_mut().expect("a list").push(secret);
    let (a, b) = (of(&config(), &[], &layers("1")), of(&other, &[], &layers("2")));
    assert_eq!(a, b);
    assert_eq!(a.digest.len(), 32);
    assert_eq!(a.mounts, ["bind /data rw"]);
}

#[test]
fn each_parameter_that_a_workload_can_depend_on_makes_another_revision() {
    let changes: [(&str, Value); 8] = [
        ("/process/args", json!(["/usr/sbin/nginx", "-g"])),
        ("/process/args", json!(["/usr/sbin/nginx", "daemon off;", "-g"])),
        ("/process/env", json!(["PATH=/usr/bin:/bin", "HOME=/root", "MODE=x", "NEW=1"])),
        ("/process/user/uid", json!(33)),
        ("/process/user/gid", json!(33)),
        ("/process/capabilities/bounding", json!(["CAP_CHOWN"])),
        ("/mounts/2/destination", json!("/other")),
        ("/mounts/2/options", json!(["rbind", "ro"])),
    ];
    for (pointer, value) in changes {
        let mut other = config();
        *other.pointer_mut(pointer).expect("it is there") = value;
        assert_ne!(digest_of(&config()), digest_of(&other), "{pointer}");
    }
}

#[test]
fn the_image_is_known_by_its_digest_and_else_by_its_layers() {
    let digest = "0123456789abcdef".repeat(4);
    let id = [("io.kubernetes.cri-o.ImageRef", digest.as_str())];
    let reference = format!("registry/web@sha256:{digest}");
    let named = [("io.kubernetes.cri.image-name", reference.as_str())];
    let a = of(&config(), &id, &layers("1"));
    let b = of(&config(), &named, &Source::Directory("/r".into()));
    assert_eq!((a.image.as_str(), b.image.as_str()), (format!("sha256:{digest}").as_str(), a.image.as_str()));
    assert_eq!(b.image_name.as_deref(), Some(reference.as_str()));
    assert_eq!(a.digest, b.digest, "the name is for people");
    let tagged = [("io.kubernetes.cri.image-name", "registry/web:1")];
    let by_layers = of(&config(), &tagged, &layers("1"));
    assert!(by_layers.image.starts_with("layers:"), "a tag is not an image");
    let more =
        Source::Layers(vec!["/var/lib/docker/overlay2/bb/diff".into(), "/var/lib/docker/overlay2/aa/diff".into()]);
    assert_ne!(of(&config(), &[], &more).digest, by_layers.digest);
    let plain = of(&config(), &[], &Source::Directory("/bundle/./rootfs/".into()));
    assert_eq!(plain, of(&config(), &[], &Source::Directory("/bundle/rootfs".into())));
    assert!(plain.image.starts_with("rootfs:"));
}

#[test]
fn a_new_service_in_the_namespace_is_no_new_revision() {
    let mut with = config();
    let services = ["DB_SERVICE_HOST=1", "DB_SERVICE_PORT=2", "DB_PORT=3", "DB_PORT_5432_TCP_ADDR=4", "DB_NAME=5"];
    let env = with["process"]["env"].as_array_mut().expect("a list");
    env.extend(services.iter().map(|pair| json!(pair)));
    assert_eq!(of(&with, &[], &layers("1")).env, ["DB_NAME", "HOME", "MODE", "PATH"]);
    let mut own = config();
    own["process"]["env"] = json!(["DB_PORT=3"]);
    assert_eq!(of(&own, &[], &layers("1")).env, ["DB_PORT"]);
}

#[test]
fn what_a_document_lacks_is_empty_and_no_panic() {
    let bare =
        of(&json!({ "process": { "args": null, "env": [1, "=x"], "user": [] }, "mounts": [{}, 1] }), &[], &layers("1"));
    assert_eq!((bare.args.len(), bare.user.as_str(), bare.env), (0, "0:0", vec![String::new()]));
}

proptest! {
    #[test]
    fn values_of_the_environment_and_its_order_change_nothing(
        pairs in proptest::collection::btree_map("[A-Z_]{1,6}", "[ -~]{0,6}", 0..8), other in "[a-z]{0,6}"
    ) {
        let mut a = config();
        let mut b = config();
        a["process"]["env"] = pairs.iter().map(|(k, v)| json!(format!("{k}={v}"))).collect();
        b["process"]["env"] = pairs.keys().rev().map(|k| json!(format!("{k}={other}"))).collect();
        prop_assert_eq!(digest_of(&a), digest_of(&b));
    }

    #[test]
    fn arguments_are_told_apart_wherever_one_ends(args in proptest::collection::vec("[a ,\"\\[]{0,3}", 1..4)) {
        let mut a = config();
        let mut b = config();
        a["process"]["args"] = json!(args);
        b["process"]["args"] = json!([args.join(" ")]);
        prop_assert_eq!(digest_of(&a) == digest_of(&b), args.len() == 1);
    }
}
