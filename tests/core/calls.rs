//! The program called as an engine calls it, over runc and a bundle made by hand. Needs root, runc and busybox-static.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A node of its own; what it made is gone when it is dropped.
pub struct Node {
    dir: tempfile::TempDir,
    ids: Vec<String>,
}

impl Node {
    pub fn new() -> Node {
        let dir = tempfile::tempdir().expect("a folder");
        let node = Node { dir, ids: Vec::new() };
        node.write_config("");
        fs::create_dir(node.path("root")).expect("a folder");
        node
    }

    pub fn write_config(&self, more: &str) {
        let (state, data) = (self.path("state"), self.path("data"));
        let mode = if more.contains("mode = ") { "" } else { "mode = \"enforce\"\n" };
        let text = format!("state-dir = {state:?}\ndata-dir = {data:?}\nruntimes = [\"runc\"]\n{mode}{more}");
        fs::write(self.path("config.toml"), text).expect("a configuration");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A bundle of busybox that runs a script.
    pub fn bundle(&self, name: &str, script: &str, edit: impl FnOnce(&mut Value)) -> PathBuf {
        let bundle = self.path(name);
        for folder in ["bin", "proc", "dev", "tmp"] {
            fs::create_dir_all(bundle.join("rootfs").join(folder)).expect("folders");
        }
        fs::copy("/bin/busybox", bundle.join("rootfs/bin/busybox")).expect("busybox-static");
        let _ = fs::remove_file(bundle.join("config.json"));
        assert!(Command::new("runc").args(["spec", "--bundle"]).arg(&bundle).status().expect("runc").success());
        let mut config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
        config["process"]["args"] = json!(["/bin/busybox", "sh", "-c", script]);
        config["process"]["terminal"] = json!(false);
        config["process"].as_object_mut().unwrap().remove("rlimits");
        config["linux"]["cgroupsPath"] = json!(format!("/lithify-core-{}-{name}", std::process::id()));
        edit(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        bundle
    }

    pub fn command(&mut self, id: &str) -> Command {
        self.ids.push(id.to_owned());
        let mut command = Command::new(env!("CARGO_BIN_EXE_lithify"));
        command.arg("--config").arg(self.path("config.toml")).stdin(Stdio::null()).env_remove("LITHIFY_CONFIG");
        command
    }

    pub fn call(&mut self, id: &str, words: &[&str]) -> Output {
        let root = self.path("root");
        // Not to be read to its end by anybody who waits: a container may hold it.
        let (out, err) = (self.path("out"), self.path("err"));
        let mut command = self.command(id);
        command.arg("--root").arg(root).args(words);
        let file = |path: &Path| fs::File::create(path).expect("a file");
        let status = command.stdout(file(&out)).stderr(file(&err)).status().expect("lithify runs");
        Output { status, stdout: fs::read(out).unwrap(), stderr: fs::read(err).unwrap() }
    }

    pub fn records(&self) -> Vec<lithify::record::Record> {
        let found = lithify::record::Record::list(&self.path("state")).expect("a state folder");
        found.into_iter().filter_map(|(_, record)| record.ok()).collect()
    }

    pub fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("data/events/journal.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What runc itself knows of.
    fn runc_has(&self, id: &str) -> bool {
        let state = Command::new("runc").arg("--root").arg(self.path("root")).args(["state", id]).output().unwrap();
        state.status.success()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for id in std::mem::take(&mut self.ids) {
            let _ = self.call(&id, &["delete", "--force", &id]);
        }
    }
}

pub fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

pub fn ok(output: Output) -> Output {
    assert!(output.status.success(), "{}", words(&output));
    output
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_create_that_fails_tells_why_every_time_and_leaves_nothing() {
    let mut node = Node::new();
    let bundle = node.bundle("b", "true", |config| config["root"]["path"] = json!("missing"));
    for _ in 0..15 {
        let log = node.path("log");
        let output =
            node.call("c", &["--log", text(&log), "--log-format", "json", "create", "--bundle", text(&bundle), "c"]);
        assert!(!output.status.success());
        assert!(words(&output).contains("missing of bundle does not exist"), "{}", words(&output));
        assert_eq!(fs::read_dir(node.path("state")).unwrap().count(), 0);
        let record: Value = serde_json::from_str(fs::read_to_string(&log).unwrap().lines().last().unwrap()).unwrap();
        assert_eq!(record["level"], "error");
        assert!(record["msg"].as_str().unwrap().contains("does not exist"));
    }
}

#[test]
fn no_spelling_of_create_makes_an_unprotected_container() {
    let mut node = Node::new();
    let bundle = node.bundle("b", "sleep 1000", |_| ());
    let (place, long) = (text(&bundle).to_owned(), "a".repeat(245));
    let root = text(&node.path("root")).to_owned();
    for line in [
        &["--", "create", "--bundle", &place, "c"][..],
        &["create", "--bundle", &place, &long],
        &["create", &format!("-b{place}"), "c"],
        &["create", "--bund", &place, "c"],
        &["--unknown", "state", "create", "--bundle", &place, "c"],
        &["--root", &root, "--", "run", "--detach", "-bundle", &place, "c"],
    ] {
        let output = node.call("c", line);
        let protected = node.records().len() == 1;
        let made = node.runc_has("c") || node.runc_has(&long);
        assert_eq!(made, protected, "{line:?}: {}", words(&output));
        assert_eq!(output.status.success(), protected, "{line:?}: {}", words(&output));
        node.call("c", &["delete", "--force", "c"]);
        assert!(node.records().is_empty());
    }
}

#[test]
fn a_config_that_runc_reads_otherwise_than_we_do_makes_no_container() {
    let mut node = Node::new();
    fs::create_dir(node.path("other")).unwrap();
    let other = node.path("other");
    let bundle = node.bundle("b", "true", |config| config["Root"] = json!({ "path": text(&other) }));
    let output = node.call("c", &["create", "--bundle", text(&bundle), "c"]);
    assert!(words(&output).contains("expected \"root\" instead of \"Root\""), "{}", words(&output));
    assert!(!node.runc_has("c"));
}

#[test]
fn a_container_starts_with_closed_streams_a_lost_directory_and_odd_names() {
    let mut node = Node::new();
    let name = "with space\nand \\134 newline";
    let bundle = node.bundle("b", "ls -l /proc/self/fd >/tmp/fds; sleep 1000", |config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }));
    });
    let odd = node.path(name);
    fs::rename(&bundle, &odd).unwrap();
    let (root, odd_text) = (node.path("root"), text(&odd).to_owned());
    let gone = node.path("gone");
    fs::create_dir(&gone).unwrap();
    let script = r#"cd "$1"; rmdir "$1"; shift; exec "$@" <&- >&- 2>&-"#;
    let lithify = node.command("c");
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(&gone).arg(lithify.get_program()).args(lithify.get_args());
    command
        .arg("--root")
        .arg(&root)
        .args(["create", "--bundle", &odd_text, "--pid-file"])
        .arg(node.path("pid"))
        .arg("c");
    assert!(command.status().unwrap().success());
    ok(node.call("c", &["start", "c"]));
    let read = || ["exec", "c", "/bin/busybox", "cat", "/tmp/fds"];
    eventually("the workload lists its streams", || words(&node.call("c", &read())).contains(" 2 -> /dev/null"));
    let fds = words(&node.call("c", &read()));
    assert_eq!(fds.matches("/dev/null").count(), 2, "stdin and stderr: {fds}");
    assert!(!fds.contains("socket:") && !fds.contains("anon_inode"), "nothing of ours: {fds}");
}

#[test]
fn relative_roots_logs_and_bundles_mean_what_they_mean_to_runc() {
    let mut node = Node::new();
    node.bundle("b", "sleep 1000", |_| ());
    let at = node.dir.path().to_owned();
    let mut command = node.command("c");
    command.current_dir(&at).args(["--root", "root", "--log", "relative.log", "create", "--bundle", "b", "c"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    assert!(node.path("relative.log").exists() && node.runc_has("c") && !Path::new("/root/c").exists());
    // Another way to the same root leads to the same container.
    symlink(node.path("root"), node.path("link")).unwrap();
    for root in ["link", "link/", "./root/../link", "root"] {
        let mut command = node.command("c");
        let output = command.current_dir(&at).args(["--root", root, "exec", "--proc", "x", "c"]).output().unwrap();
        assert!(words(&output).contains("failed to exec in container c"), "{root}: {}", words(&output));
    }
    let mut command = node.command("c");
    assert!(command.current_dir(&at).args(["--root", "link", "start", "c"]).status().unwrap().success());
    eventually("the supervisor knows of the start", || {
        node.records().iter().any(|record| record.phase == lithify::record::Phase::Running)
    });
}

#[test]
fn a_stale_listen_fds_fails_nothing_and_a_true_one_reaches_the_workload() {
    let mut node = Node::new();
    let bundle = node.bundle("b", "echo $LISTEN_FDS $LISTEN_PID; cat <&3", |_| ());
    let root = node.path("root");
    let mut stale = node.command("c");
    stale.arg("--root").arg(&root).args(["run", "--bundle", text(&bundle), "c"]).env("LISTEN_FDS", "1");
    let output = stale.output().unwrap();
    assert!(words(&output).contains("can't open") || words(&output).contains("Bad file"), "{}", words(&output));
    let lithify = node.command("d");
    let mut real = Command::new("sh");
    real.args(["-c", r#"export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<"$0""#]).arg(node.path("config.toml"));
    real.arg(lithify.get_program()).args(lithify.get_args());
    real.arg("--root").arg(&root).args(["run", "--bundle", text(&bundle), "d"]);
    let output = words(&ok(real.output().unwrap()));
    assert!(output.starts_with("1 1\nstate-dir"), "{output}");
}

#[test]
fn of_many_creates_of_one_id_at_once_one_wins_and_the_container_is_its_own() {
    let mut node = Node::new();
    let bundles: Vec<PathBuf> = (0..4).map(|n| node.bundle(&format!("b{n}"), "sleep 1000", |_| ())).collect();
    for _ in 0..3 {
        let root = node.path("root");
        let mut calls = Vec::new();
        for bundle in &bundles {
            let mut command = node.command("c");
            command.arg("--root").arg(&root).args(["create", "--bundle", text(bundle), "c"]);
            calls.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
        let won: Vec<bool> = calls.iter_mut().map(|call| call.wait().unwrap().success()).collect();
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        let records = node.records();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].bundle, bundles[won.iter().position(|won| *won).unwrap()]);
        ok(node.call("c", &["start", "c"]));
        ok(node.call("c", &["delete", "--force", "c"]));
        assert!(node.records().is_empty() && !node.runc_has("c"));
    }
}

#[test]
fn without_a_readable_record_nothing_is_started_or_entered_and_delete_still_works() {
    let mut node = Node::new();
    let bundle = node.bundle("b", "sleep 1000", |_| ());
    ok(node.call("c", &["create", "--bundle", text(&bundle), "c"]));
    let dir = fs::read_dir(node.path("state")).unwrap().next().unwrap().unwrap().path();
    let record = fs::read_to_string(dir.join("record.json")).unwrap();
    fs::write(dir.join("record.json"), record.replace("\"version\":1", "\"version\":9")).unwrap();
    for line in [&["start", "c"][..], &["exec", "c", "/bin/busybox", "true"]] {
        let output = node.call("c", line);
        assert!(
            !output.status.success() && words(&output).contains("delete it and create it again"),
            "{}",
            words(&output)
        );
    }
    node.call("c", &["delete", "--force", "c"]);
    assert!(!node.runc_has("c"));
}

#[test]
fn a_workload_that_writes_with_its_first_instruction_is_answered_at_once() {
    let mut node = Node::new();
    node.write_config("rootfs = \"tripwire\"\non-write = \"stop\"\n");
    let bundle = node.bundle("b", ": >/bin/planted; sleep 1000", |config| config["root"]["readonly"] = json!(false));
    for _ in 0..3 {
        ok(node.call("c", &["create", "--bundle", text(&bundle), "c"]));
        ok(node.call("c", &["start", "c"]));
        eventually("the container is stopped", || {
            node.records().iter().all(|record| record.phase == lithify::record::Phase::Stopped)
        });
        node.call("c", &["delete", "--force", "c"]);
    }
    let breaches: Vec<Value> =
        node.events().into_iter().filter(|e| e["type"] == "dev.lithify.container.breach").collect();
    assert_eq!(breaches.iter().filter(|e| e["data"]["path"] == "/bin/planted").count(), 3, "{breaches:?}");
}

#[test]
fn a_log_that_nobody_reads_or_that_cannot_be_written_holds_nothing_up() {
    let mut node = Node::new();
    let fifo = node.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let root = node.path("root");
    let folder = node.path("root");
    for log in [&fifo, &folder] {
        let mut command = node.command("c");
        command.arg("--root").arg(&root).arg("--log").arg(log).args(["--mode", "bogus", "create", "c"]);
        let began = Instant::now();
        let output = command.output().unwrap();
        assert!(!output.status.success() && words(&output).contains("bogus"), "{}", words(&output));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
