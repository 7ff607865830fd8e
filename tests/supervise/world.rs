//! Containers of the tests: a busybox under runc or crun, with a filter that names what is refused.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lithify::guard::Limits;
use lithify::policy::{self, Config, Mode, Policy};
use lithify::profile::syscalls;
use lithify::record::{Record, Remarks};
use lithify::sensor::Place;
use lithify::spec::Document;
use lithify::supervise::control::{Intent, Lease};
use lithify::supervise::director::Director;
use lithify::supervise::launch::{Outcome, launch};
use lithify::supervise::{Plan, RootPlan, SOCKET};
use lithify::sys::process;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

pub const RUNC: &str = "/usr/sbin/runc";
pub const CRUN: &str = "/usr/bin/crun";
/// Longest wait for something that should be quick.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mount namespace of our own: what a test mounts goes with it.
pub fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("private mounts");
    // crun 1.8 refuses a hybrid cgroup hierarchy.
    let _ = nix::mount::umount("/sys/fs/cgroup/unified");
}

/// One container, its bundle and its node's folders.
pub struct World {
    dir: tempfile::TempDir,
    pub runtime: &'static str,
    pub id: String,
    /// The program that loads the guard.
    pub loader: PathBuf,
    anchor: Option<i32>,
    cgroup: String,
}

impl World {
    pub fn new(runtime: &'static str) -> World {
        let dir = tempfile::Builder::new().prefix("lithify-sv-").tempdir_in("/var/tmp").expect("a folder");
        let name = dir.path().file_name().expect("a name").to_string_lossy().into_owned();
        let world = World {
            cgroup: format!("/{name}"),
            dir,
            runtime,
            id: name,
            anchor: None,
            loader: env!("CARGO_BIN_EXE_lithifyctl").into(),
        };
        let bin = world.path("rootfs/bin");
        fs::copy("/bin/busybox", bin.join("busybox")).expect("these tests need busybox-static");
        for applet in ["sh", "cat", "mkdir", "rmdir", "sleep", "touch", "test", "kill", "cp"] {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("a link");
        }
        for name in ["rootfs/out", "rootfs/proc", "rootfs/dev", "rootfs/sys", "rootfs/tmp"] {
            world.path(name);
        }
        world
    }

    /// A folder of this world's.
    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// The container's own folder, where lithify's verbs find it.
    pub fn state(&self) -> PathBuf {
        // FNV-1a of the low-level runtime's root, as in `engine/place.rs`.
        let root = self.path("root").canonicalize().expect("a folder");
        let bytes = root.as_os_str().as_encoded_bytes();
        let tag = bytes.iter().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193));
        self.path(&format!("state/{}@{tag:08x}", self.id))
    }

    /// lithify itself, called with these words.
    pub fn lithify(&self, words: &[&str]) -> Output {
        let (state, data) = (self.path("state"), self.path("data"));
        let file = self.dir.path().join("lithify.toml");
        fs::write(&file, format!("state-dir = {state:?}\ndata-dir = {data:?}\nruntimes = [{:?}]\n", self.runtime))
            .expect("a configuration");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lithify"));
        command.arg("--config").arg(&file).arg("--root").arg(self.path("root")).args(words).stdin(Stdio::null());
        command.output().expect("called")
    }

    /// What the container has written to its volume at `/out`.
    pub fn written(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path("out").join(name)).ok()
    }

    /// Waits until the container has written that file.
    pub fn wait_written(&self, name: &str) -> String {
        self.eventually(&format!("/out/{name}"), || self.written(name).filter(|text| text.ends_with('\n')))
    }

    pub fn eventually<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(answer) = ask() {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("waited in vain for {what}; events: {:#?}", self.events());
    }

    /// The bundle's config.json, without a filter.
    pub fn config(&self, script: &str) -> Value {
        let bundle = self.path("bundle");
        let _ = fs::remove_file(bundle.join("config.json"));
        let made = Command::new(RUNC).arg("spec").current_dir(&bundle).status().expect("these tests need runc");
        assert!(made.success());
        let mut config: Value =
            serde_json::from_slice(&fs::read(bundle.join("config.json")).expect("read")).expect("JSON");
        config["root"] = json!({ "path": self.path("rootfs"), "readonly": false });
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        config["process"]["terminal"] = false.into();
        config["process"]["rlimits"] = json!([]);
        config["process"]["noNewPrivileges"] = false.into();
        config["linux"]["cgroupsPath"] = json!(format!("{}/{}", self.cgroup, self.id));
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["type"] != "cgroup");
        mounts.push(json!({ "destination": "/out", "source": self.path("out"), "type": "bind", "options": ["rbind"] }));
        config
    }

    /// The filter: `told` are refused and told, all that is known else is allowed.
    pub fn filter(&self, told: &[&str]) -> Value {
        let known: Vec<String> = (0..470).map(|number| syscalls::name(false, number)).collect();
        let allowed: Vec<&String> =
            known.iter().filter(|name| !name.starts_with('#') && !told.contains(&name.as_str())).collect();
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": libc::ENOSYS,
            "architectures": ["SCMP_ARCH_X86_64"],
            "listenerPath": self.state().join(SOCKET),
            "syscalls": [
                { "names": allowed, "action": "SCMP_ACT_ALLOW" },
                { "names": told, "action": "SCMP_ACT_NOTIFY" },
            ],
        })
    }

    /// The node's sensor: these tests' own, loaded by the program beside them.
    pub fn sensor(&self) -> Place {
        let mut place = Place::of(&self.path("state"));
        place.loader = self.loader.clone();
        place
    }

    /// Enforced, and nothing but told.
    pub fn policy(&self) -> Policy {
        let config = Config { mode: Mode::Enforce, ..Config::default() };
        policy::resolve(&config, &Default::default(), &Default::default(), None).expect("a policy")
    }

    pub fn limits(&self) -> Limits {
        let programs = ["/bin/busybox".to_owned()].into();
        Limits { profile: Some("test/1".to_owned()), listener: true, programs, ..Limits::default() }
    }

    /// Creates the container, and starts it where `start`; says what became of it.
    pub fn launch(
        &mut self,
        config: Value,
        policy: Policy,
        limits: Limits,
        director: Option<Box<dyn Director>>,
        start: bool,
    ) -> Outcome {
        let document = Document::parse(config.to_string().as_bytes()).expect("a config.json");
        let bundle = self.path("bundle");
        fs::write(bundle.join("config.json"), document.to_json()).expect("written");
        let rootfs = self.path("rootfs");
        let globals = vec!["--root".into(), self.path("root").into_os_string()];
        let plan = Plan {
            id: self.id.clone(),
            root: Some(self.path("root")),
            runtime: self.runtime.into(),
            globals: globals.clone(),
            quiet_globals: globals,
            create_flags: Vec::new(),
            bundle: bundle.clone(),
            engine_bundle: bundle,
            console_socket: None,
            console_is_ours: false,
            preserved: 0,
            listening: false,
            preserve_fds: 0,
            dir: self.state(),
            data_dir: self.path("data"),
            rootfs: RootPlan { engine: rootfs.clone(), target: rootfs, host_namespace: false },
            own_pid_namespace: document.has_own_pid_namespace().expect("namespaces"),
            terminal: false,
            systemd_cgroup: false,
            poststart_hooks: false,
            poststop_hooks: false,
            start_at_once: start,
            workload: "test".to_owned(),
            revision: None,
            companion: None,
            remarks: Remarks::default(),
            limits,
            sensor: self.sensor(),
            director,
            policy,
            evidence: Config::default().evidence,
            journal: Config::default().journal,
            raise_limits: false,
            names: Default::default(),
            created_at: "2026-01-01T00:00:00.000000Z".to_owned(),
            config: document,
        };
        let streams = || -> OwnedFd {
            let file = fs::File::options().create(true).append(true).open(self.path("log").join("output"));
            file.expect("a log").into()
        };
        let null: OwnedFd = fs::File::open("/dev/null").expect("opened").into();
        let launched = launch(plan, Some([null, streams(), streams()]), &[]).expect("launched");
        self.anchor = Some(launched.anchor_pid);
        launched.outcome
    }

    /// As an engine's `start`.
    pub fn start(&self) {
        let lease = Lease::take(&self.state(), Intent::Starting).expect("the supervisor answers");
        let started = self.runtime(&["start", &self.id]);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        lease.tell(Intent::Started).expect("told");
    }

    /// The low-level runtime, called with these words.
    pub fn runtime(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.runtime);
        command.arg("--root").arg(self.path("root")).args(words).stdin(Stdio::null());
        command.output().expect("called")
    }

    /// A session: its exit code.
    pub fn exec(&self, script: &str) -> Option<i32> {
        let _lease = Lease::take(&self.state(), Intent::Session).expect("the supervisor answers");
        self.runtime(&["exec", &self.id, "/bin/sh", "-c", script]).status.code()
    }

    pub fn record(&self) -> Record {
        Record::read(&self.state()).expect("a record")
    }

    /// Everything in the journal, oldest first.
    pub fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("data").join("events/journal.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Events of a type, by its last word.
    pub fn of(&self, word: &str) -> Vec<Value> {
        let is = |event: &Value| event["type"].as_str().is_some_and(|t| t.rsplit('.').next() == Some(word));
        self.events().into_iter().filter(is).collect()
    }

    /// Waits for the first event of a type that fits.
    pub fn wait_for(&self, word: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.eventually(word, || self.of(word).into_iter().find(|event| fits(&event["data"])))["data"].clone()
    }

    /// The log of the container and the low-level runtime.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log").join("output")).unwrap_or_default()
    }

    /// This program as the container's `/bin/act`, with the libraries that it needs.
    pub fn bring_own_program(&self) {
        let root = self.path("rootfs");
        let exe = std::env::current_exe().expect("a program");
        fs::copy(exe, root.join("bin/act")).expect("copied");
        let maps = fs::read_to_string("/proc/self/maps").expect("read");
        let mapped = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
        for library in mapped.filter(|path| path.contains(".so")).collect::<std::collections::BTreeSet<_>>() {
            let name = PathBuf::from(library);
            let name = name.file_name().expect("a name").to_string_lossy();
            // The dynamic loader itself is named in the program.
            let folder = self.path(if name.starts_with("ld-") { "rootfs/lib64" } else { "rootfs/lib" });
            fs::copy(library, folder.join(&*name)).expect("copied");
        }
    }

    /// Waits until the process that stands for the container has ended.
    pub fn wait_end(&mut self) {
        let anchor = self.anchor.take().expect("a container");
        let pidfd = process::pidfd_open(anchor).expect("our child");
        let ended = || process::reap_pidfd(std::os::fd::AsFd::as_fd(&pidfd)).ok().flatten();
        self.eventually("the anchor's end", ended);
        let _ = self.runtime(&["delete", "--force", &self.id]);
    }

    /// Ends the container, and waits until its supervisor has let it go.
    pub fn end(&mut self) {
        let Some(anchor) = self.anchor.take() else { return };
        // One that was never made has left no record, and no supervisor.
        let supervisor = Record::read(&self.state()).map_or(0, |record| record.supervisor.pid);
        // As an engine's `kill` with no handler: the process that stands for the container is gone.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(anchor), nix::sys::signal::Signal::SIGKILL);
        let _ = process::wait_pid(anchor);
        let gone = || !std::path::Path::new(&format!("/proc/{supervisor}")).exists();
        self.eventually("the supervisor's end", || gone().then_some(()));
        let _ = self.runtime(&["delete", "--force", &self.id]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end();
        // What supervisors leave that were killed.
        let unload = ["sensor", "unload", "--guard", "--force", "--state-dir"];
        let _ = Command::new(env!("CARGO_BIN_EXE_lithifyctl")).args(unload).arg(self.path("state")).output();
        let cgroups = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in cgroups.map(|entry| entry.path()) {
            let own = hierarchy.join(&self.cgroup[1..]);
            let _ = fs::remove_dir(own.join(&self.id));
            let _ = fs::remove_dir(own);
        }
    }
}
