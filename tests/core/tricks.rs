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

#[test]
fn a_signal_reaches_a_container_in_the_foreground_whose_output_nobody_reads() {
    let mut node = Node::new();
    let script = "trap 'exit 7' TERM; /bin/busybox yes & : >/tmp/ready; while :; do /bin/busybox usleep 20000; done";
    let bundle = node.bundle("b", script, |config| {
        let mount = json!({ "destination": "/tmp", "type": "bind", "source": "seen", "options": ["rbind", "rw"] });
        config["mounts"].as_array_mut().expect("mounts").push(mount);
    });
    fs::create_dir(bundle.join("seen")).expect("a folder");
    let root = node.path("root");
    let mut command = node.command("c");
    command.arg("--root").arg(root).args(["run", "--bundle", text(&bundle), "c"]);
    let mut child = Helper(command.stdout(Stdio::piped()).spawn().expect("lithify runs"));
    eventually("the workload runs", || bundle.join("seen/ready").exists());
    // Until the caller's pipe is full.
    let pipe = child.0.stdout.take().expect("a pipe");
    let queued = || {
        let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&pipe), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).expect("polled") > 0
    };
    eventually("output", queued);
    let pid = nix::unistd::Pid::from_raw(child.0.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("sent");
    // What is left in the pipes is the caller's to read.
    eventually("the workload's end", || {
        node.events().iter().any(|e| e["type"] == "dev.lithify.container.exited" && e["data"]["status"] == 7)
    });
    drop(pipe);
    eventually("the run ends", || child.0.try_wait().expect("our child").is_some());
    assert_eq!(child.0.wait().expect("our child").code(), Some(7));
}

#[test]
fn a_limit_of_one_process_does_not_hinder_the_restart() {
    let mut node = Node::new();
    node.write_config("rootfs = \"tripwire\"\n");
    let bundle =
        node.bundle("b", "[ -e /seen/1 ] || { : >/seen/1; : >/planted; }; exec /bin/busybox sleep 1000", |config| {
            writable(config);
            config["linux"]["resources"]["pids"] = json!({ "limit": 1 });
            let mount = json!({ "destination": "/seen", "type": "bind", "source": "seen", "options": ["rbind", "rw"] });
            config["mounts"].as_array_mut().expect("mounts").push(mount);
        });
    fs::create_dir(bundle.join("seen")).expect("a folder");
    ok(node.call("c", &["create", "--bundle", text(&bundle), "c"]));
    ok(node.call("c", &["start", "c"]));
    eventually("the restart", || node.events().iter().any(|e| e["type"] == "dev.lithify.container.restarted"));
    assert_eq!(node.records()[0].generation, 2);
}
