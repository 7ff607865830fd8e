//! `lithifyctl profile` as people run it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use lithify::events::EngineNames;
use lithify::policy::{self, Config, Overrides};
use lithify::profile::behaviour::Origin;
use lithify::profile::{Profile, Stage, store};
use lithify::record::ProcessRef;
use lithify::sys::process;
use serde_json::{Value, json};

use super::build;

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A node with folders of its own.
pub struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        std::fs::write(dir.path().join("c.toml"), format!("state-dir = \"{at}/state\"\ndata-dir = \"{at}/data\"\n"))
            .unwrap();
        Node { dir }
    }

    pub fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub fn profile(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lithifyctl"));
        let output =
            command.arg("--config").arg(self.dir.path().join("c.toml")).arg("profile").args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let ran = self.profile(&[args, &["--json"]].concat());
        serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {} {}", ran.out, ran.err))
    }

    fn file(&self, name: &str, document: &impl serde::Serialize) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, serde_json::to_vec(document).unwrap()).unwrap();
        path.display().to_string()
    }

    pub fn stored(&self, digest: u64) -> Profile {
        store::read_profile(&self.data(), "web", &build::id(digest)).unwrap().unwrap()
    }
}

/// A node that has learnt two revisions of one workload: the second makes a call more, and a path less.
fn learnt() -> Node {
    let node = Node::new();
    for n in 1..=2 {
        store::fold_observation(&node.data(), &build::full(n)).unwrap();
    }
    let mut next = build::full(3);
    next.revision = build::revision(2);
    next.until = build::time(20);
    next.workload_behaviour.syscalls.insert("connect".to_string(), build::seen(1, 5, 3));
    next.workload_behaviour.writes.clear();
    store::fold_observation(&node.data(), &next).unwrap();
    node
}

#[test]
fn list_is_one_line_a_profile_and_tells_of_those_that_cannot_be_read() {
    let node = learnt();
    let ran = node.profile(&["list"]);
    assert_eq!((ran.code, ran.out.lines().count()), (0, 3), "{}", ran.out);
    let line = ran.out.lines().nth(1).unwrap();
    assert!(line.starts_with("web       000000000000  learning  2    20"), "{line}");
    assert_eq!(node.json(&["list"])[1]["revision"]["digest"], build::id(2));
    assert_eq!(node.json(&["list"])[1]["progress"]["next-window"]["total"], 10);
    std::fs::write(node.data().join("profiles/web").join(format!("{}.json", build::id(1))), "{").unwrap();
    let ran = node.profile(&["list"]);
    assert!(ran.code == 1 && ran.out.contains("UNREADABLE: failed to read profile"), "{}", ran.out);
    assert_eq!(Node::new().profile(&["list"]).code, 0);
}

#[test]
fn a_workloads_name_alone_means_the_revision_that_runs_and_else_the_one_seen_last() {
    let node = learnt();
    let shown = || node.json(&["show", "web"])["profile"]["revision"]["digest"].clone();
    assert_eq!(shown(), build::id(2), "the one seen last");
    let live = |digest| {
        let pid = std::process::id() as i32;
        let process = ProcessRef { pid, start_time_ticks: process::start_time_ticks(pid).unwrap() };
        let policy = policy::resolve(&Config::default(), &Overrides::default(), &BTreeMap::new(), None).unwrap();
        let record = json!({
            "version": 1, "id": "c", "root": null, "bundle": "/b", "runtime": "/runc", "anchor": process, "supervisor": process,
            "init": null, "workload": "web", "revision": digest, "names": EngineNames::default(), "policy": policy,
            "response": "restart", "generation": 1, "phase": "running", "created_at": build::time(1), "breaches": 0,
            "last_breach": null, "degraded": [], "cgroups": [],
        });
        let dir = node.dir.path().join("state/c@00000000");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("record.json"), record.to_string()).unwrap();
    };
    live(build::id(1));
    assert_eq!(shown(), build::id(1), "the service's, not that of what was run once of its image");
    live(build::id(9));
    assert_eq!(shown(), build::id(2), "the one that runs has no profile yet");
}

#[test]
fn show_tells_what_how_sure_and_why_and_hostile_names_are_escaped() {
    let node = Node::new();
    let mut o = build::full(1);
    o.windows = 5000;
    o.loss.table_full = 3;
    o.workload_behaviour.writes.insert("/tmp/\u{1b}[2J".to_string(), build::write(build::seen(0, 0, 1)));
    o.workload_behaviour.syscalls.insert("bpf".to_string(), build::seen(0, 0, 1));
    o.workload_behaviour
        .programs
        .insert("/memfd:x".to_string(), build::program(build::seen(0, 0, 1), Origin::Anonymous));
    o.forbid();
    store::fold_observation(&node.data(), &o).unwrap();
    let ran = node.profile(&["show", "web"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    for part in [
        "web, revision 000000000000, learning\n",
        "  image        web:1, sha256:00\n",
        "1 generation, 5000 windows of 60 s, 2026-01-01 00:00 to 2026-01-01 00:10 UTC\n",
        "nothing can be said yet about the next minute: 0 windows seen in full are too few\n",
        "  partial      1 of 1 generations lost records (3 in all)\n",
        "memory 1.0 MiB, 5 tasks, 0.250 CPU\n",
        "system calls (2)",
        "  i386:open                                         1/1        1  2026-01-01 00:00\n",
        "  openat                                            1/1       10  2026-01-01 00:00\n",
        "/tmp/\\u{1b}[2J",
        "    write create, 3 B, by web\n",
        "exec sessions: programs run (1)",
        "FORBIDDEN, and never learnt (2)",
        "syscall bpf",
        "program /memfd:x from anonymous",
    ] {
        assert!(ran.out.contains(part), "{part:?} is not in\n{}", ran.out);
    }
    assert!(!ran.out.contains('\u{1b}') && ran.out.lines().all(|l| l.chars().count() <= 120), "{}", ran.out);
    let json = node.json(&["show", "web"]);
    assert_eq!(json["profile"]["workload-behaviour"]["syscalls"]["openat"]["generations"][build::id(1)], 10);
    assert_eq!(json["progress"]["next-window"]["lonely"], 0);
}

#[test]
fn names_mean_the_newest_revision_a_given_one_or_a_file() {
    let node = learnt();
    let digest = |name: &str| node.json(&["show", name])["profile"]["revision"]["digest"].clone();
    assert_eq!(digest("web"), build::id(2));
    assert_eq!(digest(&format!("web@{}", build::id(1))), build::id(1));
    let file = node.file("p.json", &node.stored(1));
    assert_eq!(digest(&file), build::id(1));
    let observation = node.file("o.json", &build::full(1));
    assert_eq!(digest(&observation), build::id(1), "an observation is shown as what it alone would make");
    let err = |name: &str| node.profile(&["show", name]).err;
    assert!(err("web@0000").contains("2 revisions of web begin with \"0000\""));
    assert!(err("web@f").contains("no revision of web begins with \"f\""));
    assert!(err("wbe").contains("did you mean \"web\"?"));
    assert!(err("web@").contains("no revision"));
    assert!(err("/does/not/exist").contains("failed to read /does/not/exist"));
    // An image's name may have an @ of its own.
    let mut o = build::full(9);
    o.workload = "registry/web@sha256:0a".to_string();
    store::fold_observation(&node.data(), &o).unwrap();
    assert_eq!(node.json(&["show", &o.workload])["profile"]["workload"], o.workload);
}

#[test]
fn diff_compares_revisions_and_replicas_and_says_by_its_status_whether_they_differ() {
    let node = learnt();
    let ran = node.profile(&["diff", "web"]);
    assert_eq!(ran.code, 1);
    let lines: Vec<&str> = ran.out.lines().skip(2).collect();
    assert_eq!(lines, ["+ syscalls        connect", "- writes          /run/web.pid"]);
    let first = node.file("a.json", &node.stored(1));
    assert_eq!(node.profile(&["diff", &first, &format!("web@{}", build::id(1))]).code, 0);
    assert_eq!(node.json(&["diff", &first, "web"])[0]["name"], "connect");
    assert!(node.profile(&["diff", "nothing"]).err.contains("no profile of workload \"nothing\""));
}

#[test]
fn merge_joins_replicas_and_refuses_strangers_unless_asked() {
    let node = learnt();
    let a = node.file("a.json", &Profile::of(&build::full(7)));
    let out = node.dir.path().join("out.json").display().to_string();
    let one = format!("web@{}", build::id(1));
    assert_eq!(node.profile(&["merge", &one, &a, &a, "--out", &out]).code, 0);
    let joined = Profile::parse(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(joined.generations.len(), 3);
    assert_eq!(Profile::parse(node.profile(&["merge", &a, &one]).out.as_bytes()).unwrap(), joined);
    let ran = node.profile(&["merge", &a, "web"]);
    assert!(ran.code == 1 && ran.err.contains("--across-revisions"), "{}", ran.err);
    assert_eq!(node.profile(&["merge", &a, "web", "--across-revisions"]).code, 0);
    assert_eq!(node.profile(&["merge"]).code, 2);
}

#[test]
fn import_merges_into_what_is_there_or_replaces_it() {
    let node = learnt();
    let new = node.file("a.json", &Profile::of(&build::full(7)));
    assert_eq!(node.profile(&["import", &new]).out, "web@000000000000: 3 generations\n");
    assert_eq!(node.stored(1).generations.len(), 3);
    assert_eq!(node.profile(&["import", &new, "--replace"]).code, 0);
    assert_eq!(node.stored(1).generations.len(), 1);
    let observation = node.file("o.json", &build::full(8));
    assert_eq!(node.json(&["import", &observation])[0]["workload"], "web");
    assert!(node.stored(1).generations.contains_key(&build::id(8)));
    let broken = node.file("b.json", &serde_json::json!({"version": 9}));
    let before = node.stored(1);
    let other = node.file("c.json", &Profile::of(&build::full(10)));
    let ran = node.profile(&["import", &other, &broken]);
    assert!(ran.code == 1 && ran.err.contains("expected version 1, found 9"), "{}", ran.err);
    assert_eq!(node.stored(1), before);
}

#[test]
fn validate_names_what_is_wrong_with_which_document() {
    let node = learnt();
    store::write_observation(&node.data(), &build::full(1)).unwrap();
    let ran = node.profile(&["validate"]);
    assert_eq!((ran.code, ran.out.lines().filter(|l| l.starts_with("ok ")).count()), (0, 3), "{}", ran.out);
    let broken = node.file("b.json", &serde_json::json!({"version": 1, "generations": {}}));
    let ran = node.profile(&["validate", "web", &broken]);
    assert!(
        ran.code == 1 && ran.out.contains(&format!("WRONG  failed to read {broken}: not a document of this shape: ")),
        "{}",
        ran.out
    );
    assert!(node.profile(&["validate", "nobody"]).out.contains("no profile of workload \"nobody\""));
    assert!(node.json(&["validate", "web"])[0]["error"].is_null());
}

#[test]
fn migrate_gives_numbers_their_names_and_leaves_the_rest() {
    let node = learnt();
    let path = node.data().join("profiles/web").join(format!("{}.json", build::id(1)));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"openat\"", "\"#257\"")).unwrap();
    let before = node.stored(1);
    let ran = node.profile(&["migrate"]);
    assert_eq!((ran.code, ran.out.matches(": rewritten").count(), ran.out.matches(": current").count()), (0, 1, 1));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(node.stored(1), before);
}

#[test]
fn finish_ends_learning_and_refuses_what_is_partial_unless_forced() {
    let node = learnt();
    let ran = node.profile(&["finish", "web"]);
    assert!(ran.code == 0 && ran.out.starts_with("web@000000000000 is observing: "), "{}{}", ran.out, ran.err);
    assert_eq!((node.stored(2).stage, node.stored(1).stage), (Stage::Observing, Stage::Learning));
    let mut lossy = build::full(5);
    lossy.loss.untracked = 1;
    store::fold_observation(&node.data(), &lossy).unwrap();
    let ran = node.profile(&["finish", "--all"]);
    assert!(ran.code == 1 && ran.err.contains("it is partial: 1 of 3 generations lost records"), "{}", ran.err);
    assert_eq!(node.stored(1).stage, Stage::Learning);
    assert_eq!(node.json(&["finish", "--all", "--force"])[0]["stage"], "observing");
    assert_eq!(node.stored(1).stage, Stage::Observing);
    assert_eq!(node.profile(&["finish", "--all"]).out, "");
    assert_eq!((node.profile(&["finish"]).code, node.profile(&["finish", "web", "--all"]).code), (2, 2));
}

#[test]
fn gc_says_what_it_removes() {
    let node = learnt();
    for n in 1..=2 {
        store::write_observation(&node.data(), &build::full(n)).unwrap();
    }
    let first = format!("observation {} of web\n", &build::id(1)[..12]);
    assert_eq!(node.profile(&["gc", "--observations", "1", "--dry-run"]).out, format!("would remove {first}"));
    assert_eq!(node.profile(&["gc", "--observations", "1"]).out, format!("removed {first}"));
    assert_eq!(node.json(&["gc", "--older-than", "1d"])[0]["name"], build::id(2));
    assert_eq!(node.json(&["gc"]).as_array().unwrap().len(), 0);
    assert_eq!(node.profile(&["gc", "--older-than", "soon"]).code, 2);
}

#[test]
fn the_schemas_are_printed_and_every_verb_explains_itself() {
    let node = Node::new();
    assert_eq!(node.profile(&["schema", "profile"]).out, lithify::profile::schema::PROFILE);
    assert_eq!(node.profile(&["schema", "observation"]).out, lithify::profile::schema::OBSERVATION);
    assert!(node.profile(&["schema", "profil"]).err.contains("did you mean \"profile\"?"));
    let help = node.profile(&["--help"]).out;
    for verb in ["list", "show", "diff", "merge", "import", "validate", "migrate", "gc", "finish", "schema"] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}: {help}");
        let ran = node.profile(&[verb, "--help"]);
        assert!(ran.code == 0 && ran.out.starts_with("usage: lithifyctl profile"), "{verb}: {}{}", ran.out, ran.err);
        assert_eq!(node.profile(&[verb, "--hepl"]).code, 2, "{verb}");
    }
    assert!(node.profile(&["lsit"]).err.contains("did you mean \"list\"?"));
    assert!(!Path::new(&node.data()).exists(), "asking makes nothing");
}
