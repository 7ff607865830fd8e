//! One node for the tests: a containerd of its own, with CRI, CNI and our runtime handler, all below one folder.
//!
//! Whatever a test does, dropping the node ends its pods, its containerd and its shims, and takes away mounts, the
//! bridge, cgroups and files. Nothing of another containerd on the machine is touched.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::client::Client;
use super::messages::*;

/// The image that containers run; made by `integration/images`.
pub const BUSYBOX: &str = "localhost/busybox:lithify";
const PAUSE: &str = "localhost/pause:lithify";
const DEADLINE: Duration = Duration::from_secs(20);

/// A running containerd and a connection to it.
pub struct Node {
    pub cri: Client,
    parts: Parts,
}

/// What there is to clean up, whether or not the start got through.
struct Parts {
    dir: tempfile::TempDir,
    /// Unique on the machine: the name of the bridge, the CNI network and the cgroup that holds all pods.
    name: String,
    containerd: Option<Child>,
}

impl Node {
    /// Starts containerd with a handler `lithify`, beside its own `runc`.
    ///
    /// # Errors
    /// When a program or image is missing, or the engine is not ready in time; its log is part of the message.
    pub fn start() -> Result<Node> {
        let images = images()?;
        let dir =
            tempfile::Builder::new().prefix("lithify-cri-").tempdir().context("failed to make the node's folder")?;
        let name = format!("lth{}", std::process::id());
        let mut parts = Parts { dir, name, containerd: None };
        parts.write_files()?;
        parts.containerd = Some(parts.spawn()?);
        let mut cri = wait_for("containerd's socket", || Ok(Client::connect(&parts.socket()).ok()))
            .with_context(|| parts.log_tail())?;
        wait_for("containerd to be ready", || {
            // It answers its socket before it has set up what answers this.
            let Ok(answer) = cri.status(Empty {}) else { return Ok(None) };
            let conditions = answer.status.unwrap_or_default().conditions;
            Ok((!conditions.is_empty() && conditions.iter().all(|c| c.status)).then_some(()))
        })
        .with_context(|| parts.log_tail())?;
        for (file, image) in [("busybox.tar", BUSYBOX), ("pause.tar", PAUSE)] {
            let mut ctr = Command::new("/usr/bin/ctr");
            ctr.arg("--address").arg(parts.socket()).args(["--namespace", "k8s.io", "images", "import"]);
            run(ctr.arg(images.join(file)))?;
            wait_for("CRI to know the image", || {
                let request = ImageStatusRequest { image: Some(ImageSpec { image: image.into() }) };
                Ok(cri.image_status(request)?.image)
            })?;
        }
        Ok(Node { cri, parts })
    }

    /// The cgroup that all pods of the node are put into.
    pub fn cgroup_parent(&self) -> String {
        format!("/{}", self.parts.name)
    }

    /// Where the engine writes its containers' logs for [`PodSandboxConfig::log_directory`].
    pub fn log_dir(&self) -> PathBuf {
        self.parts.path("logs")
    }

    /// Every line of the journal so far, oldest first; the last line may still be in the writing and is left out then.
    pub fn journal(&self) -> Result<Vec<serde_json::Value>> {
        let events = self.parts.path("data/events");
        let mut files: Vec<PathBuf> = match fs::read_dir(&events) {
            Ok(entries) => entries.filter_map(|e| e.ok()).map(|e| e.path()).filter(|p| p.is_file()).collect(),
            Err(_) => return Ok(Vec::new()),
        };
        files.sort();
        let mut found = Vec::new();
        for file in files {
            let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
            found.extend(text.lines().filter_map(|line| serde_json::from_str(line).ok()));
        }
        found.sort_by_key(|event: &serde_json::Value| event["time"].as_str().map(str::to_owned));
        Ok(found)
    }

    /// What is still there of pods that have ended: processes, mounts, cgroups, records; given time to go.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let _ = wait_for("pods to be gone", || {
            left = self.parts.left_of_pods();
            Ok(left.is_empty().then_some(()))
        });
        left
    }

    /// The end of containerd's own log, for a failed test's message.
    pub fn log_tail(&self) -> String {
        self.parts.log_tail()
    }
}

impl Parts {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("c.sock")
    }

    fn write_files(&self) -> Result<()> {
        let dir = self.dir.path().display();
        let name = &self.name;
        // restrict_oom_score_adj: lowering it needs CAP_SYS_RESOURCE, which root in a container may lack.
        // netns_mounts_under_state_dir: nothing in the machine's /var/run/netns.
        let containerd = format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/run"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "{dir}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{dir}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.lithify]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["lithify.dev/*"]
container_annotations = ["lithify.dev/*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.lithify.options]
BinaryName = "{lithify}"
"#,
            lithify = env!("CARGO_BIN_EXE_lithify")
        );
        // A bridge without gateway or masquerade: pods get an address, and the machine's routes and iptables stay as
        // they are. The subnet is one that documentation has for itself (RFC 5737), so it hides no real one.
        let cni = format!(
            r#"{{"cniVersion": "0.4.0", "name": "{name}", "plugins": [{{"type": "bridge", "bridge": "{name}", "isGateway": false,
"ipMasq": false, "ipam": {{"type": "host-local", "dataDir": "{dir}/ipam", "ranges": [[{{"subnet": "198.51.100.0/24"}}]]}}}}]}}"#
        );
        let lithify = format!(
            "state-dir = \"{dir}/state\"\ndata-dir = \"{dir}/data\"\nruntimes = [\"/usr/sbin/runc\"]\nmode = \"enforce\"\nallow-loosen = [\"mode\"]\n"
        );
        for folder in ["cni", "logs"] {
            fs::create_dir(self.path(folder))?;
        }
        for (file, text) in [("containerd.toml", containerd), ("cni/10-test.conflist", cni), ("lithify.toml", lithify)]
        {
            fs::write(self.path(file), text).with_context(|| format!("failed to write {file} of the node"))?;
        }
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        let log = File::create(self.path("containerd.log"))?;
        Command::new("/usr/bin/containerd")
            .arg("--config")
            .arg(self.path("containerd.toml"))
            // The shim, and so the runtime, inherit it.
            .env("LITHIFY_CONFIG", self.path("lithify.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("failed to start /usr/bin/containerd; install the package containerd")
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.path("containerd.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("containerd's log ends with:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"))
    }

    fn left_of_pods(&self) -> Vec<String> {
        let containerd = self.containerd.as_ref().map_or(0, |child| child.id() as i32);
        let processes = pids_with_argument(self.dir.path()).into_iter().filter(|pid| *pid != containerd);
        let mut left: Vec<String> = processes.map(|pid| format!("process {pid}")).collect();
        left.extend(self.mounts().into_iter().map(|point| format!("mount {point}")));
        // The pods' common cgroup stays: the engine made it, and only the node takes it away.
        let groups = self.cgroups().into_iter().filter(|g| !g.ends_with(&self.name));
        left.extend(groups.map(|group| format!("cgroup {}", group.display())));
        let records = fs::read_dir(self.path("state")).into_iter().flatten().flatten();
        // A container's folder has an @ in its name.
        let records = records.filter(|e| e.path().is_dir() && e.file_name().to_string_lossy().contains('@'));
        left.extend(records.map(|entry| format!("record {}", entry.path().display())));
        left
    }

    /// Mount points below the node's folder, in the order they were made.
    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        points.filter(|point| Path::new(point).starts_with(self.dir.path())).map(str::to_owned).collect()
    }

    /// Ends what still runs below this node. Each step is tried, whatever became of the one before.
    fn clean_up(&mut self) {
        if let Ok(mut cri) = Client::connect(&self.socket()) {
            for pod in cri.list_pod_sandbox(Empty {}).map(|l| l.items).unwrap_or_default() {
                let _ = cri.stop_pod_sandbox(pod.clone());
                let _ = cri.remove_pod_sandbox(pod);
            }
        }
        if let Some(mut child) = self.containerd.take() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM);
            if wait_for("containerd to end", || Ok(child.try_wait()?)).is_err() {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
        // What a clean end leaves nothing of: shims carry the node's folder in their arguments, containers its cgroup.
        let mut left = pids_with_argument(self.dir.path());
        let groups = self.cgroups();
        left.extend(
            groups
                .iter()
                .flat_map(|g| fs::read_to_string(g.join("cgroup.procs")).ok())
                .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>()),
        );
        for pid in &left {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::SIGKILL);
        }
        for group in groups {
            let _ = wait_for("a cgroup to be empty", || {
                Ok((!group.exists() || fs::remove_dir(&group).is_ok()).then_some(()))
            });
        }
        for point in self.mounts().iter().rev() {
            let _ = nix::mount::umount2(point.as_str(), nix::mount::MntFlags::MNT_DETACH);
        }
        if Path::new("/sys/class/net").join(&self.name).exists() {
            let _ = run(Command::new("/sbin/ip").args(["link", "delete", &self.name]));
        }
        // libcni keeps the result of each ADD here until its DEL; the network's name is in the file's.
        for entry in fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{}-", self.name)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The node's cgroup in every hierarchy, with all below it, deepest first.
    fn cgroups(&self) -> Vec<PathBuf> {
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        roots.extend(fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path()));
        let mut found = Vec::new();
        let mut queue: Vec<PathBuf> = roots.into_iter().map(|r| r.join(&self.name)).filter(|p| p.is_dir()).collect();
        while let Some(group) = queue.pop() {
            let entries = fs::read_dir(&group).into_iter().flatten().flatten();
            queue.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
            found.push(group);
        }
        found.reverse();
        found
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.clean_up();
    }
}

/// Polls until there is an answer.
///
/// # Errors
/// The probe's own, or that the deadline has passed.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        ensure!(Instant::now() < deadline, "waited {} s in vain for {what}", DEADLINE.as_secs());
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The folder with the test images, made if they are not there.
fn images() -> Result<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    run(&mut Command::new(package.join("integration/images")))?;
    Ok(package.join("target/integration"))
}

/// Runs a program and fails with all it said when it does.
fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Processes that name the folder, or something below it, in one of their arguments.
fn pids_with_argument(dir: &Path) -> Vec<i32> {
    let dir = dir.to_string_lossy();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != std::process::id() as i32)
        .filter(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument.starts_with(dir.as_bytes()))
        })
        .collect()
}
