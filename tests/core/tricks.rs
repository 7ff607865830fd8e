//! Ways around the protection, and streams that must end. Needs root, runc and busybox-static.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::calls::{Node, eventually, ok, text, words};

/// A process that ends with its test.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn writable(config: &mut Value) {
    config["root"]["readonly"] = json!(false);
}

#[test]
fn the_end_of_input_reaches_a_container_in_the_foreground() {
    let mut node = Node::new();
    let bundle = node.bundle("b", "/bin/busybox cat; echo end", |_| {});
    let root = node.path("root");
    let mut command = node.command("c");
    command.arg("--root").arg(root).args(["run", "--bundle", text(&bundle), "c"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("lithify runs");
    child.stdin.take().expect("a pipe").write_all(b"said\n").expect("written");
    let mut child = Helper(child);
    eventually("the run ends with its input", || child.0.try_wait().expect("our child").is_some());
    let said = std::io::read_to_string(child.0.stdout.take().expect("a pipe")).expect("text");
    assert_eq!(said, "said\nend\n");
}

#[test]
fn a_mount_on_the_root_is_refused_however_it_is_named() {
    let mut node = Node::new();
    for rootfs in ["sealed", "tripwire", "engine"] {
        node.write_config(&format!("rootfs = \"{rootfs}\"\n"));
        let other = node.bundle("other", "true", |_| {}).join("rootfs");
        for place in ["/", "/dev/../..", "/link"] {
            let bundle = node.bundle("b", ": >/planted; sleep 1000", |config| {
                writable(config);
                let mount =
                    json!({ "destination": place, "type": "bind", "source": other, "options": ["rbind", "rw"] });
                config["mounts"].as_array_mut().expect("mounts").insert(0, mount);
            });
            let _ = symlink("/", bundle.join("rootfs/link"));
            let output = node.call("c", &["create", "--bundle", text(&bundle), "c"]);
            assert!(!output.status.success(), "{rootfs} {place}");
            // Through a link runc may fail by itself.
            let told = place == "/link" || words(&output).contains("another root filesystem");
            assert!(told, "{rootfs} {place}: {}", words(&output));
            assert!(node.records().is_empty() && fs::read_dir(node.path("root")).expect("listed").count() == 0);
        }
    }
}

#[test]
fn a_mount_namespace_of_somebody_elses_is_refused() {
    let mut node = Node::new();
    node.write_config("rootfs = \"tripwire\"\n");
    let mut namespace = Command::new("unshare");
    namespace.args(["--mount", "sh", "-c", "echo; exec sleep 1000"]).stdout(Stdio::piped());
    let mut holder = Helper(namespace.spawn().expect("unshare"));
    std::io::Read::read(holder.0.stdout.as_mut().expect("a pipe"), &mut [0]).expect("it is there");
    let path = format!("/proc/{}/ns/mnt", holder.0.id());
    let bundle = node.bundle("b", ": >/planted; sleep 1000", |config| {
        writable(config);
        for namespace in config["linux"]["namespaces"].as_array_mut().expect("namespaces") {
            if namespace["type"] == "mount" {
                namespace["path"] = json!(path);
            }
        }
    });
    let output = node.call("c", &["create", "--bundle", text(&bundle), "c"]);
    assert!(!output.status.success() && words(&output).contains("another root filesystem"), "{}", words(&output));
    assert!(!bundle.join("rootfs/planted").exists() && node.records().is_empty());
}

#[test]
fn what_a_session_writes_before_the_start_is_a_breach_once_it_has_started() {
    let mut node = Node::new();
    node.write_config("rootfs = \"tripwire\"\non-write = \"stop\"\n");
    let bundle = node.bundle("b", "sleep 1000", writable);
    ok(node.call("c", &["create", "--bundle", text(&bundle), "c"]));
    ok(node.call("c", &["exec", "c", "/bin/busybox", "touch", "/planted"]));
    ok(node.call("c", &["start", "c"]));
    eventually("the breach", || node.events().iter().any(|event| event["data"]["path"] == "/planted"));
    eventually("the end", || node.events().iter().any(|event| event["type"] == "dev.lithify.container.exited"));
}
