//! A dockerd of the corner's own, with a bridge in the corner's network.

use std::fs;
use std::process::Child;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::command::{Outcome, PATIENCE, eventually, run};
use crate::containerd::Containerd;
use crate::corner::Corner;
use crate::images::Image;
use crate::setup::{RUNC, Setup};

/// A running dockerd.
pub struct Docker<'c> {
    corner: &'c Corner,
    daemon: Child,
    _containerd: Containerd<'c>,
}

/// The host's own `docker` may be something else entirely: Debian's is meant.
const CLIENT: &str = "/usr/bin/docker";

impl<'c> Docker<'c> {
    /// Starts it with these runtimes: `plain` (runc), and `lithify`, `tripwire`, `engine`, `report`, `pause`, `stop`, `off`,
    /// `learn`, `observe`, `auto` (lithify with the flag that the name says; Docker 20.10 has no annotations).
    pub fn start(corner: &'c Corner, setup: &Setup) -> Result<Docker<'c>> {
        let containerd = Containerd::start(corner, setup)?;
        // With an address of its own, as Docker gives its bridge: else that is the lowest of its ports', changes as other
        // containers come and go, and for seconds answers go to nobody.
        let bridge = "ip link add br0 address 02:42:0a:d5:00:01 type bridge && ip addr add 10.213.0.1/24 dev br0 && ip link set br0 up";
        corner.bash(bridge, &[])?.success().context("failed to make a bridge")?;
        let runtime = |flags: &[&str]| {
            let args: Vec<&str> = [&["--config", setup.config.as_str()], flags].concat();
            json!({"path": setup.lithify, "runtimeArgs": args})
        };
        let config = json!({
            "data-root": corner.path("docker/data"), "exec-root": corner.path("docker/exec"),
            "pidfile": corner.path("docker.pid"), "hosts": [format!("unix://{}", corner.path("d.sock"))],
            "containerd": Containerd::address_in(corner), "cgroup-parent": corner.cgroup(),
            "deprecated-key-path": corner.path("key.json"), "storage-driver": "overlay2",
            "bridge": "br0", "iptables": false, "ip6tables": false, "ip-masq": false, "ip-forward": false, "userland-proxy": false,
            "runtimes": {
                "plain": {"path": RUNC}, "lithify": runtime(&[]), "tripwire": runtime(&["--rootfs", "tripwire"]),
                "engine": runtime(&["--rootfs", "engine"]), "off": runtime(&["--mode", "off"]),
                "report": runtime(&["--rootfs", "tripwire", "--on-write", "report"]),
                "pause": runtime(&["--rootfs", "tripwire", "--on-write", "pause"]),
                "stop": runtime(&["--rootfs", "tripwire", "--on-write", "stop"]),
                "learn": runtime(&["--mode", "learn"]), "observe": runtime(&["--mode", "observe"]),
                "auto": runtime(&["--mode", "auto"]),
            },
        });
        let file = corner.path("docker.json");
        fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        let daemon =
            corner.daemon(corner.command("/usr/sbin/dockerd").args(["--config-file", &file]), "dockerd.log")?;
        let docker = Docker { corner, daemon, _containerd: containerd };
        eventually("dockerd to answer", PATIENCE, || docker.cli(&["version"])?.success().map(Some))?;
        Ok(docker)
    }

    /// Loads an image.
    pub fn load(&self, image: Image) -> Result<()> {
        self.ok(&["load", "--input", &image.archive()?])?;
        Ok(())
    }

    /// Runs the client.
    pub fn cli(&self, args: &[&str]) -> Result<Outcome> {
        let host = format!("unix://{}", self.corner.path("d.sock"));
        run(self.corner.command(CLIENT).args(["--host", &host]).args(args))
    }

    /// Runs the client, which must succeed: its stdout, trimmed.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        self.cli(args)?.success().with_context(|| format!("docker {}", args.join(" ")))
    }

    /// Starts a container in the background: its full id.
    pub fn start_container(&self, runtime: &str, options: &[&str], image: Image, argv: &[&str]) -> Result<String> {
        let reference = image.reference();
        self.ok(&[&["run", "--detach", "--runtime", runtime], options, &[reference.as_str()], argv].concat())
    }

    /// What `docker inspect` says.
    pub fn inspect(&self, container: &str) -> Result<Value> {
        let mut all: Vec<Value> = serde_json::from_str(&self.ok(&["inspect", container])?)?;
        ensure!(all.len() == 1, "docker inspect {container} said {all:?}");
        Ok(all.remove(0))
    }

    /// What an engine, and whoever asks it, must not see change: pid, address, StartedAt, status, restarts.
    pub fn identity(&self, container: &str) -> Result<Value> {
        let all = self.inspect(container)?;
        let state = &all["State"];
        Ok(json!([
            state["Pid"],
            state["StartedAt"],
            state["Status"],
            all["RestartCount"],
            all["NetworkSettings"]["IPAddress"],
            all["NetworkSettings"]["MacAddress"]
        ]))
    }

    /// A container's address on the bridge.
    pub fn address(&self, container: &str) -> Result<String> {
        let all = self.inspect(container)?;
        Ok(all["NetworkSettings"]["IPAddress"].as_str().context("no address")?.to_owned())
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
