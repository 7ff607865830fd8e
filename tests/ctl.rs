//! lithifyctl as people run it: its output and its exit statuses.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use lithify::events::journal::{Durability, Journal};
use lithify::events::{EngineNames, Event, EventType, clock};
use lithify::policy::annotations::resolve;
use lithify::policy::config::{Config, JournalLimits, Overrides};
use lithify::policy::{Mode, Response};
use lithify::record::{LastBreach, LastRefusal, Phase, ProcessRef, Record, VERSION};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn ctl(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lithifyctl"));
    let output = command.args(args).env_remove("LITHIFY_CONFIG").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {} {}", ran.out, ran.err))
}

/// A node with folders of its own.
struct Node {
    dir: tempfile::TempDir,
    config: String,
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let at = dir.path().display();
        std::fs::write(&config, format!("state-dir = \"{at}/state\"\ndata-dir = \"{at}/data\"\n")).unwrap();
        Node { config: config.display().to_string(), dir }
    }

    fn ctl(&self, args: &[&str]) -> Ran {
        ctl(&[&["--config", self.config.as_str()], args].concat())
    }

    fn add(&self, record: &Record) {
        let dir = self.dir.path().join("state").join(format!("{}@00000000", record.id));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("record.json"), serde_json::to_vec(record).unwrap()).unwrap();
    }
}

fn this_process() -> ProcessRef {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    ProcessRef { pid: std::process::id() as i32, start_time_ticks: start }
}

fn record(id: &str) -> Record {
    let micros = clock::now_micros();
    let mut policy = resolve(&Config::default(), &Overrides::default(), &BTreeMap::new(), None).unwrap();
    policy.mode = Mode::Enforce;
    Record {
        version: VERSION,
        id: id.to_string(),
        root: None,
        bundle: PathBuf::from("/bundle"),
        runtime: PathBuf::from("/usr/sbin/runc"),
        anchor: this_process(),
        supervisor: this_process(),
        init: None,
        workload: "shop".to_string(),
        revision: None,
        names: EngineNames::default(),
        policy,
        response: Response::Restart,
        generation: 3,
        phase: Phase::Running,
        created_at: clock::format(micros - 5_430_000_000),
        breaches: 2,
        profile: None,
        refusals: 0,
        last_refusal: None,
        last_breach: Some(LastBreach {
            event: "e".to_string(),
            kind: "create".to_string(),
            path: "/tmp/\u{1b}[2Jx".to_string(),
            time: clock::format(micros - 600_000_000),
        }),
        degraded: Vec::new(),
        notes: Vec::new(),
        cgroups: Vec::new(),
    }
}

#[test]
fn status_is_one_line_a_container_and_hostile_paths_are_escaped() {
    let node = Node::new();
    node.add(&record("0123456789abcdef"));
    let ran = node.ctl(&["status"]);
    assert_eq!(
        ran.out,
        "ID            WORKLOAD  STAGE            ROOTFS  RESPONSE  GEN  BREACHES  LAST BREACH                AGE    STATE\n\
         0123456789ab  shop      immutable (set)  sealed  restart   3    2         /tmp/\\u{1b}[2Jx (10m ago)  1h30m  running\n"
    );
    assert_eq!(ran.code, 0);
    let all = json(&node.ctl(&["status", "--json"]));
    assert_eq!((&all[0]["protected"], &all[0]["record"]["generation"]), (&true.into(), &3.into()));
}

#[test]
fn a_path_of_four_thousand_control_bytes_fills_no_screen() {
    let node = Node::new();
    let path = format!("chroot {}", "\u{1}".repeat(4090));
    let mut hostile = record("0123456789abcdef");
    hostile.last_breach.as_mut().unwrap().path = path.clone();
    hostile.last_refusal = Some(LastRefusal {
        event: "e".to_string(),
        kind: "refused-syscall".to_string(),
        what: path.clone(),
        program: path.clone(),
        pid: 7,
        session: false,
        time: clock::format(clock::now_micros()),
    });
    hostile.degraded.push(path.clone());
    node.add(&hostile);
    let mut journal = Journal::open(&node.dir.path().join("data"), JournalLimits::default());
    let event = Event::new(EventType::Breach, "aa", BTreeMap::new()).with("path", path.as_str());
    journal.append(&event.with("cmdline", vec![path.as_str()]), Durability::Buffered).unwrap();
    for (words, most) in [(["status"].as_slice(), 1200), (&["inspect", "0"], 600), (&["events"], 1200)] {
        let ran = node.ctl(words);
        let longest = ran.out.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest < most && ran.out.contains("chroot \\u{1}") && ran.out.contains('…'), "{words:?}: {longest}");
    }
    let whole = json(&node.ctl(&["inspect", "0", "--json"]));
    assert_eq!(whole["last_refusal"]["what"], path.as_str());
}

#[test]
fn a_container_without_its_supervisor_is_called_unprotected_and_the_status_is_1() {
    let node = Node::new();
    let mut lost = record("lost");
    lost.supervisor.start_time_ticks += 1;
    node.add(&lost);
    let mut ended = record("ended");
    ended.supervisor.start_time_ticks += 1;
    ended.phase = Phase::Stopped;
    node.add(&ended);
    let broken = node.dir.path().join("state").join("broken@0");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::write(broken.join("record.json"), "{").unwrap();
    let ran = node.ctl(&["status"]);
    assert_eq!(ran.code, 1);
    let line = |id: &str| ran.out.lines().find(|l| l.starts_with(id)).unwrap().to_string();
    assert!(line("lost").ends_with("UNPROTECTED: supervisor is gone"));
    assert!(line("ended").ends_with("stopped"));
    assert!(line("broken").contains("UNREADABLE"));
    let inspected = node.ctl(&["inspect", "lost"]);
    assert!(inspected.code == 1 && inspected.out.starts_with("UNPROTECTED"));
}

#[test]
fn inspect_takes_the_beginning_of_an_id_that_fits_only_one() {
    let node = Node::new();
    for id in ["abc1", "abc2", "abc", "xyz"] {
        node.add(&record(id));
    }
    assert_eq!(json(&node.ctl(&["inspect", "x", "--json"]))["id"], "xyz");
    assert_eq!(json(&node.ctl(&["inspect", "--json", "abc"]))["id"], "abc");
    let ran = node.ctl(&["inspect", "ab"]);
    assert!(ran.code == 1 && ran.err.contains("3 containers' ids or names begin with \"ab\""), "{}", ran.err);
    assert!(node.ctl(&["inspect", "nope"]).err.contains("see 'lithifyctl status'"));
    let text = node.ctl(&["inspect", "xyz"]).out;
    assert!(text.contains("policy:\n  mode: enforce\n") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_plan_takes_a_container_by_the_beginning_of_its_id_or_name_and_says_what_to_give_otherwise() {
    let node = Node::new();
    let bundle = node.dir.path().join("bundles").join("b1");
    std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let config = r#"{"ociVersion":"1.0.2","process":{"args":["/bin/web"]},"root":{"path":"rootfs"}}"#;
    std::fs::write(bundle.join("config.json"), config).unwrap();
    let names = EngineNames { container: Some("front".to_string()), ..EngineNames::default() };
    node.add(&Record { bundle: bundle.clone(), names, ..record("abc1") });
    node.add(&record("xyz"));
    // Each is found, and has no profile.
    for word in ["abc", "fro", bundle.to_str().unwrap()] {
        let ran = node.ctl(&["plan", word]);
        assert!(ran.code == 1 && ran.err.contains("no profile of the bundle's workload"), "{word}: {}", ran.err);
    }
    let neither = node.ctl(&["plan", "nope"]).err;
    assert!(neither.contains("is neither a bundle") && neither.contains("'lithifyctl inspect ID'"), "{neither}");
    assert!(node.ctl(&["plan", "./nope"]).err.contains("nope/config.json"));
    assert_eq!(json(&node.ctl(&["inspect", "fro", "--json"]))["id"], "abc1");
}

#[test]
fn events_are_shown_filtered_and_as_json_lines() {
    let node = Node::new();
    let mut journal = Journal::open(&node.dir.path().join("data"), JournalLimits::default());
    for (t, subject) in [(EventType::Started, "aa"), (EventType::Breach, "aa"), (EventType::Breach, "bb")] {
        let mut event = Event::new(t, subject, BTreeMap::new())
            .with("path", "/etc/\u{1b}x y")
            .with("pid", 7)
            .with("changes", vec!["x"]);
        event.time = "2026-01-02T03:04:05.000006Z".to_string();
        journal.append(&event, Durability::Buffered).unwrap();
    }
    let ran = node.ctl(&["events", "--type", "breach", "--container", "a"]);
    assert_eq!(ran.out, "2026-01-02T03:04:05.000006Z aa           breach    path=\"/etc/\\u{1b}x y\" pid=7\n");
    let lines = node.ctl(&["events", "--json", "--since", "2026-01-02T03:04:05Z"]).out;
    assert_eq!(lines.lines().count(), 3);
    for line in lines.lines() {
        assert_eq!(serde_json::from_str::<Event>(line).unwrap().specversion, "1.0");
    }
    assert_eq!(node.ctl(&["events", "--since", "10m"]).out.lines().count(), 0);
    assert_eq!(node.ctl(&["events", "--since", "yesterday"]).code, 2);
    assert!(node.ctl(&["events", "--type", "breech"]).err.contains("did you mean \"breach\"?"));
}

#[test]
fn follow_shows_what_happens_next_and_ends_with_its_reader() {
    use std::io::BufRead;
    let node = Node::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lithifyctl"));
    command.args(["--config", &node.config, "events", "--follow", "--json"]).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut journal = Journal::open(&node.dir.path().join("data"), JournalLimits::default());
    for subject in ["one", "two"] {
        journal.append(&Event::new(EventType::Breach, subject, BTreeMap::new()), Durability::Buffered).unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap().subject, subject);
    }
    drop(lines);
    assert!(child.wait().unwrap().success());
}

#[test]
fn config_check_explains_every_mistake_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let name = path.to_str().unwrap();
    std::fs::write(&path, "mode = \"lern\"\nroofts = \"sealed\"\nscratch = \"/tmp:5x\"\n").unwrap();
    let ran = ctl(&["config", "check", name]);
    let want = format!(
        "{name}:1: mode: \"lern\" is not a mode; did you mean \"learn\"?\n\
         {name}:2: unknown key \"roofts\"; did you mean \"rootfs\"?\n\
         {name}:3: scratch: \"5x\" is not a size; write bytes or a number with k, m or g, e.g. \"64m\"\n"
    );
    assert_eq!((ran.out, ran.code), (want, 1));
    assert_eq!(json(&ctl(&["config", "check", name, "--json"]))["mistakes"][1]["line"], 2);
    std::fs::write(&path, "mode = \"off\"\n").unwrap();
    assert_eq!(ctl(&["config", "check", name]).code, 0);
    assert_eq!(ctl(&["config", "check", "/does/not/exist"]).code, 1);
}

#[test]
fn a_hook_that_fails_is_an_event_and_fails_no_container_unless_it_is_strict() {
    let node = Node::new();
    for stage in ["create-runtime", "poststop"] {
        assert_eq!(node.ctl(&["hook", stage]).code, 0, "nothing on standard input");
    }
    let strict = node.ctl(&["hook", "create-runtime", "--strict"]);
    assert!(strict.code == 1 && strict.err.contains("the container's state"), "{}", strict.err);
    let told = node.ctl(&["events", "--type", "degraded"]).out;
    assert_eq!(told.matches("learning: failed to read the container's state").count(), 3, "{told}");
    for bad in
        [&["hook"][..], &["hook", "prestart"], &["hook", "poststop", "--mode", "enforce"], &["hook", "poststop", "x"]]
    {
        assert_eq!(node.ctl(bad).code, 2, "{bad:?}");
    }
}

#[test]
fn every_verb_explains_itself_and_mistakes_in_usage_are_status_2() {
    for verb in ["status", "inspect", "events", "profile", "plan", "doctor", "install", "hook", "config", "sensor"] {
        let ran = ctl(&[verb, "--help"]);
        assert!(ran.code == 0 && ran.out.starts_with("usage: lithifyctl"), "{verb}: {}", ran.out);
        let ran = ctl(&[verb, "--hepl"]);
        assert!(ran.code == 2 && ran.err.contains("did you mean \"help\"?"), "{verb}: {}", ran.err);
    }
    assert_eq!(ctl(&["--help"]).code, 0);
    assert_eq!(ctl(&[]).code, 2);
    assert!(ctl(&["paln"]).err.contains("did you mean \"plan\"?") && ctl(&["xxxxx"]).err.contains(" plan,"));
    let told = EventType::ALL.map(EventType::short_name);
    assert!(told.iter().all(|name| ctl(&["events", "--help"]).out.contains(name)));
    assert!(ctl(&["statsu"]).err.contains("did you mean \"status\"?"));
    assert_eq!(ctl(&["--version"]).out, format!("lithifyctl {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(json(&ctl(&["--version", "--json"]))["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn doctor_gives_every_lack_a_remedy_and_fails_only_for_what_is_needed() {
    let ran = Node::new().ctl(&["doctor", "--json"]);
    let all = json(&ran);
    for entry in all["checks"].as_array().unwrap() {
        let check = &entry["check"];
        let lacks = check["verdict"] == "missing" || check["verdict"] == "warn";
        assert!(!lacks || check["remedy"].is_string(), "{check}");
    }
    assert_eq!(ran.code == 0, all["missing"] == 0);
    let broken = tempfile::tempdir().unwrap();
    let path = broken.path().join("c.toml");
    std::fs::write(&path, "runtimes = [\"no-such-runtime\"]\ndata-dir = \"/proc/lithify\"\n").unwrap();
    let ran = ctl(&["doctor", "--config", path.to_str().unwrap()]);
    assert!(ran.code == 1 && ran.out.contains("MISSING  low-level runtime") && ran.out.contains("MISSING  data-dir"));
}
