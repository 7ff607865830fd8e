//! Podman with storage, network and state of the corner's own.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::{Outcome, run};
use crate::corner::Corner;
use crate::images::Image;
use crate::setup::{RUNC, Setup};

/// A runtime as Podman is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    /// runc itself.
    Runc,
    /// lithify.
    Lithify,
}

/// Podman in a corner; it has no daemon.
pub struct Podman<'c> {
    corner: &'c Corner,
    lithify: String,
    lithify_config: String,
}

impl<'c> Podman<'c> {
    /// Writes its configuration. The limits are named because root without CAP_SYS_RESOURCE can't raise them to Podman's own.
    pub fn new(corner: &'c Corner, setup: &Setup) -> Result<Podman<'c>> {
        let (networks, addresses) = (corner.path("podman/net"), corner.path("podman/ipam"));
        fs::create_dir_all(&networks)?;
        fs::write(
            corner.path("containers.conf"),
            format!(
                "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                 [network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = {networks:?}\n\
                 cni_plugin_dirs = [\"/usr/lib/cni\"]\ndefault_network = \"lithify\"\n\
                 [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
                 runtime_supports_json = [\"crun\", \"runc\", \"lithify\"]\n"
            ),
        )?;
        let (root, runroot) = (corner.path("podman/root"), corner.path("podman/runroot"));
        let storage = format!("[storage]\ndriver = \"overlay\"\ngraphroot = {root:?}\nrunroot = {runroot:?}\n");
        fs::write(corner.path("storage.conf"), storage)?;
        let network = format!(
            r#"{{"cniVersion": "0.4.0", "name": "lithify", "plugins": [{{"type": "bridge", "bridge": "br1", "isGateway": true,
            "ipam": {{"type": "host-local", "dataDir": {addresses:?}, "ranges": [[{{"subnet": "10.214.0.0/24"}}]]}}}}]}}"#
        );
        fs::write(format!("{networks}/lithify.conflist"), network)?;
        Ok(Podman { corner, lithify: setup.lithify.clone(), lithify_config: setup.config.clone() })
    }

    /// Loads an image.
    pub fn load(&self, image: Image) -> Result<()> {
        self.ok(Under::Runc, &["load", "--input", &image.archive()?])?;
        Ok(())
    }

    /// Runs podman.
    pub fn cli(&self, under: Under, args: &[&str]) -> Result<Outcome> {
        let mut command = self.corner.command("podman");
        command
            .env("CONTAINERS_CONF", self.corner.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.corner.path("storage.conf"))
            .args(["--tmpdir", &self.corner.path("podman/tmp"), "--log-level", "error"]);
        match under {
            Under::Runc => command.args(["--runtime", RUNC]),
            Under::Lithify => {
                let config = format!("config={}", self.lithify_config);
                command.args(["--runtime", &self.lithify, "--runtime-flag", &config])
            }
        };
        run(command.args(args))
    }

    /// Runs podman, which must succeed: its stdout, trimmed.
    pub fn ok(&self, under: Under, args: &[&str]) -> Result<String> {
        self.cli(under, args)?.success().with_context(|| format!("podman {}", args.join(" ")))
    }

    /// `podman run` with the corner's cgroup parent.
    pub fn run(&self, under: Under, options: &[&str], image: Image, argv: &[&str]) -> Result<Outcome> {
        let (cgroup, reference) = (self.corner.cgroup(), image.reference());
        self.cli(under, &[&["run", "--cgroup-parent", &cgroup], options, &[reference.as_str()], argv].concat())
    }

    /// What `podman inspect` says.
    pub fn inspect(&self, container: &str) -> Result<Value> {
        let mut all: Vec<Value> = serde_json::from_str(&self.ok(Under::Runc, &["inspect", container])?)?;
        ensure!(all.len() == 1, "podman inspect {container} said {all:?}");
        Ok(all.remove(0))
    }
}
