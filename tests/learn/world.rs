//! Containers of the tests, the collectors beside them, and the node's folders.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use lithify::events::reader::{Filter, Reader};
use lithify::events::{Event, EventType};
use lithify::identity;
use lithify::learn::{Handle, Purpose, Reply, Request, Subject, start};
use lithify::policy::ExecRule;
use lithify::profile::{Observation, Profile, store};
use lithify::spec::Document;
use lithify::sys::{process, socket};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chdir, pivot_root};

/// First argument of this program when it is a container's init.
pub const INIT: &str = "init-of";
/// The workload of every test.
pub const WORKLOAD: &str = "shop/web";

/// A mount namespace of our own: what a test mounts goes with it.
pub fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("private mounts");
}

/// Folders of one node, its sensor included.
pub struct World {
    dir: tempfile::TempDir,
    sensor: bool,
}

impl World {
    /// With a sensor of its own.
    pub fn new() -> World {
        let dir = tempfile::tempdir().expect("a folder");
        World { dir, sensor: true }
    }

    /// Of a host on which the sensor can't be loaded: there is no loader beside this program.
    pub fn without_sensor() -> World {
        let mut world = World::new();
        world.sensor = false;
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).expect("a folder");
        path
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// A container over the host's own files, which waits before it executes `script` by a shell.
    pub fn container(&self, id: &str, script: &str) -> Container {
        let names = ["upper", "work", "root"].map(|name| self.path(&format!("{id}/{name}")));
        let [upper, work, root] = &names;
        let data = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), Some(data.as_str())).expect("an overlay");
        // As an engine and a low-level runtime leave it: mount points and their own files are there before the start.
        fs::create_dir_all(root.join("mount-point")).expect("a folder");
        Container::start(root, script)
    }

    pub fn subject(&self, id: &str) -> Subject {
        let config = r#"{"process":{"args":["/bin/sh"],"env":["A=1"]},"root":{"path":"rootfs"}}"#;
        let document = Document::parse(config.as_bytes()).expect("a document");
        let (names, rootfs) = (Default::default(), self.path(&format!("{id}/root")));
        Subject {
            container: id.to_owned(),
            workload: WORKLOAD.to_owned(),
            revision: identity::of(&document, &BTreeMap::new(), &names, &rootfs, id),
            names,
            rootfs,
            purpose: Purpose::Learn,
            exec: ExecRule::Allow,
            window: Duration::from_secs(1),
            interval: Duration::from_secs(2),
            table_entries: 4096,
            unattended: false,
            covered: false,
            state_dir: self.state(),
            data_dir: self.data(),
            journal: Default::default(),
        }
    }

    /// Starts a collector as an engine's call does. The sensor is loaded here, as there is no loader beside this program.
    pub fn collector(&self, subject: Subject) -> Collector {
        if self.sensor {
            self.ctl("load");
        }
        Collector { handle: start(subject).expect("a collector") }
    }

    /// `lithifyctl sensor`, for this node.
    pub fn ctl(&self, verb: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lithifyctl"));
        let output = command.args(["sensor", verb, "--state-dir"]).arg(self.state()).output();
        let output = output.expect("lithifyctl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn observations(&self) -> Vec<Observation> {
        let all = store::observations(&self.data(), WORKLOAD).expect("listed");
        all.into_iter().map(|stored| stored.document.expect("whole")).collect()
    }

    pub fn profile(&self) -> Option<Profile> {
        store::newest_profile(&self.data(), WORKLOAD).expect("read")
    }

    pub fn events(&self, event_type: EventType) -> Vec<Event> {
        let filter = Filter { event_type: Some(event_type), ..Filter::default() };
        let mut journal = Reader::open(&self.data(), filter).expect("the journal");
        std::iter::from_fn(|| journal.next_event().expect("an event")).collect()
    }

    /// Whether the sensor is loaded, or anybody says that it is at work.
    pub fn is_quiet(&self) -> bool {
        let pins = lithify::sensor::Place::of(&self.state()).pins;
        !pins.exists() && lithify::learn::presence::list(&self.state()).expect("listed").is_empty()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.sensor {
            let unload = Command::new(env!("CARGO_BIN_EXE_lithifyctl"))
                .args(["sensor", "unload", "--force", "--state-dir"])
                .arg(self.state())
                .output();
            assert!(unload.is_ok());
        }
        for id in fs::read_dir(self.dir.path()).expect("listed").flatten() {
            let _ = umount2(&id.path().join("root"), MntFlags::MNT_DETACH);
        }
    }
}

/// A container's init that waits to be let go.
pub struct Container {
    child: Child,
    go: Option<ChildStdin>,
}

impl Container {
    fn start(root: &Path, script: &str) -> Container {
        let mut command = Command::new("/proc/self/exe");
        let child = command.arg(INIT).arg(root).arg(script).stdin(Stdio::piped()).spawn();
        let mut child = child.expect("an init");
        let go = child.stdin.take();
        let ours = fs::read_link("/proc/self/ns/mnt").expect("our namespace");
        let theirs = format!("/proc/{}/ns/mnt", child.id());
        eventually("its own namespace", || fs::read_link(&theirs).is_ok_and(|ns| ns != ours));
        Container { child, go }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn go(&mut self) {
        self.go.take().expect("it waits").write_all(b"g").expect("it hears");
    }

    pub fn run(&mut self) {
        self.go();
        assert!(self.child.wait().expect("its end").success());
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In the child: waits in its own root, then executes.
pub fn be_init(root: &str, script: &str) -> ! {
    own_mounts();
    chdir(root).expect("its root");
    pivot_root(".", ".").expect("pivoted");
    umount2(".", MntFlags::MNT_DETACH).expect("apart");
    let mut byte = [0];
    let heard = nix::unistd::read(std::io::stdin(), &mut byte);
    assert_eq!(heard, Ok(1), "nobody let it go");
    let error = Command::new("/bin/sh").args(["-c", script]).env("PATH", "/usr/bin:/bin").exec();
    panic!("{error}")
}

/// A collector, spoken to as a supervisor does.
pub struct Collector {
    handle: Handle,
}

impl Collector {
    pub fn pid(&self) -> i32 {
        self.handle.pid
    }

    fn ask(&self, request: &Request) -> Reply {
        let text = serde_json::to_vec(request).expect("JSON");
        socket::send(self.handle.socket.as_fd(), &text, &[]).expect("it hears");
        let (reply, _) = socket::receive(self.handle.socket.as_fd()).expect("it answers");
        serde_json::from_slice(&reply).expect("an answer")
    }

    /// Arms the container; what is missing.
    pub fn arm(&self, container: &Container) -> Vec<String> {
        self.arm_generation(container, 1)
    }

    pub fn arm_generation(&self, container: &Container, generation: u64) -> Vec<String> {
        match self.ask(&Request::Arm { pid: container.pid(), generation }) {
            Reply::Armed { degraded } => degraded,
            other => panic!("{other:?}"),
        }
    }

    /// The observation's id, and what is missing.
    pub fn end(&self) -> (Option<String>, Vec<String>) {
        match self.ask(&Request::End {}) {
            Reply::Written { observation, degraded } => (observation, degraded),
            other => panic!("{other:?}"),
        }
    }

    /// As a crash does it.
    pub fn kill(self) {
        kill(Pid::from_raw(self.handle.pid), Signal::SIGKILL).expect("killed");
        process::wait_pid(self.handle.pid).expect("reaped");
    }

    pub fn hang_up(self) -> i32 {
        self.handle.pid
    }
}

/// Waits for a collector, which is our child, to have ended.
pub fn reap(pid: i32) {
    let began = Instant::now();
    process::wait_pid(pid).expect("our child");
    assert!(began.elapsed() < Duration::from_secs(10), "it took its time");
}

/// Waits for what comes by itself.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
