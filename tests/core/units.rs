//! The small parts: records, the low-level runtime's folder, the error record, the control socket, and what a started
//! program inherits.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lithify::cli::Globals;
use lithify::events::EngineNames;
use lithify::logging;
use lithify::policy::{Config, Overrides, Response, resolve};
use lithify::record::{LastBreach, Phase, ProcessRef, Record, VERSION};
use lithify::runtime::layout::Layout;
use lithify::supervise::control::{Intent, Lease, Listener};
use lithify::sys::process::{self, Exit};
use lithify::sys::signals::{Mask, SignalFd};
use lithify::sys::spawn::Spawn;
use lithify::sys::{fds, memory, socket};

fn record(id: &str) -> Record {
    let policy = resolve(&Config::default(), &Overrides::default(), &Default::default(), None).unwrap();
    let process = ProcessRef { pid: 7, start_time_ticks: u64::MAX };
    Record {
        version: VERSION,
        id: id.to_owned(),
        root: Some("/run/an \"odd\"\nroot".into()),
        bundle: "/bundle".into(),
        runtime: "/usr/sbin/runc".into(),
        anchor: process,
        supervisor: process,
        init: None,
        workload: "näme".to_owned(),
        revision: Some("1".to_owned()),
        names: EngineNames { pod: Some("p".to_owned()), ..EngineNames::default() },
        policy,
        response: Response::Stop,
        generation: 3,
        phase: Phase::Restarting,
        created_at: "2024-01-01T00:00:00.000000Z".to_owned(),
        breaches: u64::MAX,
        last_breach: Some(LastBreach { event: "e".into(), kind: "create".into(), path: "/x".into(), time: "t".into() }),
        profile: Some("web/1".to_owned()),
        refusals: 2,
        last_refusal: None,
        degraded: vec!["something".to_owned()],
        notes: vec!["something else".to_owned()],
        cgroups: vec!["/sys/fs/cgroup/x".into()],
    }
}

#[test]
fn a_record_is_read_as_it_was_written_and_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let written = record("c");
    written.write(dir.path()).unwrap();
    assert_eq!(Record::read(dir.path()).unwrap(), written);
    Record { version: VERSION + 1, ..written }.write(dir.path()).unwrap();
    let error = format!("{:#}", Record::read(dir.path()).unwrap_err());
    assert!(error.contains("expected version 1, found 2"), "{error}");
}

#[test]
fn one_broken_record_hides_no_other() {
    let state = tempfile::tempdir().unwrap();
    for name in ["a@1", "b@1", "c@1", "not-a-container"] {
        fs::create_dir(state.path().join(name)).unwrap();
    }
    record("a").write(&state.path().join("a@1")).unwrap();
    fs::write(state.path().join("b@1/record.json"), "{\"version\":1,").unwrap();
    record("c").write(&state.path().join("c@1")).unwrap();
    let found = Record::list(state.path()).unwrap();
    let seen: Vec<Option<String>> = found.into_iter().map(|(_, record)| record.ok().map(|r| r.id)).collect();
    assert_eq!(seen, [Some("a".to_owned()), None, Some("c".to_owned())]);
    assert!(Record::list(&state.path().join("missing")).unwrap().is_empty());
}

#[test]
fn runcs_folder_is_told_by_what_is_in_it_and_its_gate_by_a_fifo() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("c");
    fs::create_dir(&dir).unwrap();
    let created = || Layout::created(Some(root.path()), "c", 12);
    assert!(Layout::started(Some(root.path()), "c").is_none() && created().is_none());
    fs::write(dir.join("state.json"), "{}").unwrap();
    assert!(Layout::started(Some(root.path()), "c").is_some() && created().is_none());
    fs::write(dir.join("exec.fifo"), "").unwrap();
    assert!(created().is_none(), "a file in the fifo's place is no gate");
    fs::remove_file(dir.join("exec.fifo")).unwrap();
    nix::unistd::mkfifo(&dir.join("exec.fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let layout = created().unwrap();
    let gate = layout.open_gate().unwrap();
    let mut init = File::options().write(true).open(dir.join("exec.fifo")).unwrap();
    init.write_all(b"0").unwrap();
    let mut byte = [0];
    (&gate).read_exact(&mut byte).unwrap();
    layout.mark_started().unwrap();
    assert!(created().is_none());
    layout.forget().unwrap();
    assert!(!dir.exists() && root.path().exists());
}

#[test]
fn an_error_record_is_one_appended_line_in_the_form_that_engines_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, "{\"level\":\"info\"}\n").unwrap();
    let error = anyhow::anyhow!("a \"cause\"\nin two lines").context("failed to do it");
    logging::report(Some(&log), true, &error);
    logging::report(Some(&log), false, &error);
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "{\"level\":\"info\"}"));
    let record: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(record["level"], "error");
    assert_eq!(record["msg"], "failed to do it: a \"cause\"\nin two lines");
    assert!(lines[2].contains(r#" level=error msg="failed to do it: a \"cause\"\nin two lines""#), "{}", lines[2]);
    logging::report(Some(Path::new("/proc/no/such/log")), true, &error);
    logging::report(Some(dir.path()), true, &error);
    logging::report(None, true, &error);
}

#[test]
fn a_control_socket_works_in_a_folder_whose_name_is_longer_than_a_socket_address() {
    let dir = tempfile::tempdir().unwrap();
    let long: PathBuf = dir.path().join("x".repeat(240)).join("y".repeat(240));
    fs::create_dir_all(&long).unwrap();
    assert_eq!(Lease::take(&long, Intent::Use).err().unwrap().kind(), std::io::ErrorKind::NotFound);
    let listener = Listener::open(&long).unwrap();
    assert!(listener.accept().is_none(), "it never waits");
    assert_eq!(fs::metadata(long.join("control")).unwrap().mode() & 0o777, 0o600);
    assert!(Listener::open(&long).is_err(), "there is one");
    let answered = std::thread::scope(|scope| {
        let verb = scope.spawn(|| -> Vec<String> {
            let lease = Lease::take(&long, Intent::Forward(15)).unwrap();
            let said = |intent| lease.say(intent).map_or_else(|e| e.to_string(), |()| "ok".to_owned());
            vec![said(Intent::Started), said(Intent::Resumed)]
        });
        let client = loop {
            match listener.accept() {
                Some(client) => break client,
                None => std::thread::park_timeout(Duration::from_millis(1)),
            }
        };
        nix::fcntl::fcntl(&client, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
        for (intent, answer) in [(Intent::Forward(15), "ok"), (Intent::Started, "not now"), (Intent::Resumed, "")] {
            let (message, _) = socket::receive(client.as_fd()).unwrap();
            assert_eq!(Intent::decode(&message), Some(intent));
            if !answer.is_empty() {
                socket::send(client.as_fd(), answer.as_bytes(), &[]).unwrap();
            }
        }
        drop(client);
        verb.join().unwrap()
    });
    assert_eq!(answered, ["not now", "the supervisor has ended"]);
    drop(listener);
    assert_eq!(Lease::take(&long, Intent::Use).err().unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn an_intent_is_read_from_its_own_words_only() {
    for text in ["", "u", "USE", "signal", "signal ", "signal x", "signal 1 ", "signal 99999999999", "use\0"] {
        assert_eq!(Intent::decode(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(Intent::decode(b"signal -1"), Some(Intent::Forward(-1)), "which no process takes");
}

/// Runs a shell script with these streams and further descriptors, and returns its end.
fn shell(script: &str, stdio: [&OwnedFd; 3], extra: &[&OwnedFd], listening: bool) -> Exit {
    let child = Spawn {
        program: Path::new("/bin/sh"),
        args: &[OsStr::new("-c"), OsStr::new(script)],
        stdio: stdio.map(AsFd::as_fd),
        extra: extra.iter().map(|fd| fd.as_fd()).collect(),
        mask: Mask::current(),
        parent_death_signal: 0,
        listening,
    }
    .start()
    .unwrap();
    process::wait_pid(child.pid).unwrap()
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

#[test]
fn a_started_program_has_exactly_the_descriptors_it_is_given_in_their_order() {
    let texts = ["zero", "three", "four"];
    let [stdin, three, four] = texts.map(|text| memory::file(text, text.as_bytes()).unwrap());
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (writer, null) = (OwnedFd::from(writer), null());
    // One that is handed down by mistake of an engine: open across exec, and not for the program.
    let leaked = fds::dup_above(null.as_fd(), 20).unwrap();
    fds::set_cloexec(leaked.as_fd(), false).unwrap();
    // The streams lie where others have to be put.
    let script = r#"cat; cat <&4; cat <&3; echo; for fd in $(seq 0 40); do
        [ ! -e /proc/$$/fd/$fd ] || echo -n "$fd "; done; echo "$LISTEN_PID" = $$"#;
    let exit = shell(script, [&stdin, &writer, &null], &[&three, &four], true);
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(exit, Exit::Code(0));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("zerofourthree"));
    let rest = lines.next().unwrap();
    let pids = rest.strip_prefix("0 1 2 3 4 ").unwrap_or_else(|| panic!("{rest}"));
    let (listen, own) = pids.split_once(" = ").unwrap();
    assert_eq!(listen, own);
}

#[test]
fn how_a_program_ended_is_told_apart() {
    let null = null();
    let streams = [&null, &null, &null];
    assert_eq!(shell("exit 7", streams, &[], false), Exit::Code(7));
    assert_eq!(shell("kill -TERM $$", streams, &[], false), Exit::Signal(15));
    assert_eq!(Exit::Signal(9).shell_code(), 137);
    let missing = Spawn {
        program: Path::new("/no/such/program"),
        args: &[],
        stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
        extra: Vec::new(),
        mask: Mask::current(),
        parent_death_signal: 0,
        listening: false,
    };
    assert_eq!(process::wait_pid(missing.start().unwrap().pid).unwrap(), Exit::Code(127));
}

#[test]
fn a_memory_file_can_be_read_and_never_changed() {
    let fd = memory::file("name", b"content").unwrap();
    let mut file = File::from(fd);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err() && file.set_len(100).is_err());
    assert!(memory::file("nul\0", b"").is_err());
}

#[test]
fn messages_keep_their_bounds_and_bring_descriptors_along() {
    let (a, b) = socket::pair().unwrap();
    let fd = memory::file("passed", b"along").unwrap();
    socket::send(a.as_fd(), b"one", &[fd.as_fd()]).unwrap();
    socket::send(a.as_fd(), &[b'x'; socket::MAX_MESSAGE], &[]).unwrap();
    let (message, mut got) = socket::receive(b.as_fd()).unwrap();
    assert_eq!((message.as_slice(), got.len()), (&b"one"[..], 1));
    assert!(fds::is_cloexec(got[0].as_fd()));
    let mut text = String::new();
    File::from(got.remove(0)).read_to_string(&mut text).unwrap();
    assert_eq!(text, "along");
    let (message, got) = socket::receive(b.as_fd()).unwrap();
    assert_eq!((message.len(), got.len()), (socket::MAX_MESSAGE, 0));
    drop(a);
    assert!(socket::receive(b.as_fd()).unwrap().0.is_empty());
    assert!(socket::send(b.as_fd(), b"x", &[]).is_err(), "and no SIGPIPE");
}

#[test]
fn blocked_signals_are_read_in_turn_and_the_mask_is_put_back() {
    let before = Mask::current();
    let signals = SignalFd::all().unwrap();
    assert!(signals.next().is_none());
    // To this thread, which is the one that blocks them.
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGUSR1).unwrap();
    let received = signals.next().unwrap();
    assert_eq!((received.signal, received.sender), (libc::SIGUSR1, std::process::id() as i32));
    assert!(signals.next().is_none());
    before.restore();
}

#[test]
fn standard_streams_that_are_open_are_left_alone() {
    let number = |fd: i32| fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    let before = [0, 1, 2].map(number);
    fds::fill_standard();
    assert_eq!([0, 1, 2].map(number), before);
    assert!(std::io::stdin().as_raw_fd() == 0 && Globals::default().quiet.is_empty());
}
