//! A containerd of the corner's own, driven by `ctr`.

use std::fs;
use std::process::Child;

use anyhow::{Context, Result};

use crate::command::{Outcome, PATIENCE, eventually};
use crate::corner::Corner;
use crate::images::Image;
use crate::setup::Setup;

/// A running containerd.
pub struct Containerd<'c> {
    corner: &'c Corner,
    daemon: Child,
}

/// The namespace that `ctr` uses.
const NAMESPACE: &str = "lithify-it";

impl<'c> Containerd<'c> {
    /// Starts it and waits until it answers. The configuration reaches lithify as `LITHIFY_CONFIG`: ctr has no way to give
    /// a runtime arguments.
    pub fn start(corner: &'c Corner, setup: &Setup) -> Result<Containerd<'c>> {
        let config = corner.path("containerd.toml");
        let (root, state, opt) = (corner.path("containerd/root"), corner.path("containerd/state"), corner.path("opt"));
        let address = Containerd::address_in(corner);
        fs::write(
            &config,
            format!(
                "version = 2\nroot = {root:?}\nstate = {state:?}\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \
                 \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.aufs\", \
                 \"io.containerd.snapshotter.v1.devmapper\"]\n[grpc]\naddress = {address:?}\n\
                 [plugins.\"io.containerd.internal.v1.opt\"]\npath = {opt:?}\n"
            ),
        )?;
        let mut command = corner.command("containerd");
        command.args(["--config", &config]).env("LITHIFY_CONFIG", &setup.config);
        let daemon = corner.daemon(&mut command, "containerd.log")?;
        let containerd = Containerd { corner, daemon };
        eventually("containerd to answer", PATIENCE, || containerd.ctr(&["version"])?.success().map(Some))?;
        Ok(containerd)
    }

    /// The socket it listens on.
    pub fn address_in(corner: &Corner) -> String {
        corner.path("c.sock")
    }

    /// Imports an image.
    pub fn import(&self, image: Image) -> Result<()> {
        let archive = image.archive()?;
        self.ctr(&["image", "import", &archive])?.success().context("failed to import an image")?;
        Ok(())
    }

    /// Runs `ctr` with the private address and namespace.
    pub fn ctr(&self, args: &[&str]) -> Result<Outcome> {
        let address = Containerd::address_in(self.corner);
        self.corner.run(&[&["ctr", "--address", &address, "--namespace", NAMESPACE], args].concat())
    }

    /// The arguments of `ctr run` for a container: `options` before the image, `argv` after the id.
    pub fn run_args(&self, runtime: &str, options: &[&str], id: &str, argv: &[&str]) -> Vec<String> {
        let cgroup = format!("{}/{id}", self.corner.cgroup());
        let (root, fifos) = (self.corner.path("runc"), self.corner.path("fifo"));
        let image = Image::Busybox.reference();
        let fixed = ["run", "--runc-binary", runtime, "--runc-root", &root, "--fifo-dir", &fifos, "--cgroup", &cgroup];
        [&fixed, options, &[image.as_str(), id], argv].concat().into_iter().map(str::to_owned).collect()
    }

    /// `ctr run` of the busybox image.
    pub fn run(&self, runtime: &str, options: &[&str], id: &str, argv: &[&str]) -> Result<Outcome> {
        let args = self.run_args(runtime, options, id, argv);
        self.ctr(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Pid and status of a task, as `ctr task ls` has them.
    pub fn task(&self, id: &str) -> Result<(i32, String)> {
        let list = self.ctr(&["task", "ls"])?.success()?;
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id));
        let mut fields = line.with_context(|| format!("no task {id} in {list}"))?.split_whitespace().skip(1);
        Ok((fields.next().context("no pid")?.parse()?, fields.next().context("no status")?.to_owned()))
    }

    /// Runs a program in a container; `session` has to be new each time.
    pub fn exec(&self, id: &str, session: &str, argv: &[&str]) -> Result<Outcome> {
        let fifos = self.corner.path("fifo");
        self.ctr(&[&["task", "exec", "--exec-id", session, "--fifo-dir", &fifos, id], argv].concat())
    }

    /// Ends a task and removes its container.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.ctr(&["task", "delete", "--force", id])?.success()?;
        self.ctr(&["container", "delete", id])?.success()?;
        Ok(())
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        // nsenter passes no signal on; the corner's end takes what this leaves.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
