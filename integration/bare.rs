//! Bundles for a runtime called by hand: the contract between engine and runtime without an engine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::{Outcome, run};
use crate::corner::Corner;
use crate::images::Image;
use crate::setup::Setup;

/// One bundle of the busybox image in a corner, over a copy of its root filesystem.
pub struct Bundle<'c> {
    corner: &'c Corner,
    /// The bundle's folder.
    pub path: PathBuf,
    /// The container's id.
    pub id: String,
}

impl<'c> Bundle<'c> {
    /// A bundle whose process is `sh -c script`; the container's id is `id`.
    pub fn new(corner: &'c Corner, id: &str, script: &str) -> Result<Bundle<'c>> {
        let path = corner.dir().join("bundles").join(id);
        fs::create_dir_all(&path)?;
        let source = Image::Busybox.rootfs()?;
        run(Command::new("cp").arg("-a").arg(source).arg(path.join("rootfs")))?.success()?;
        corner.run(&["/usr/sbin/runc", "spec", "--bundle", &path.display().to_string()])?.success()?;
        let bundle = Bundle { corner, path, id: id.to_owned() };
        bundle.edit(|spec| {
            spec["process"]["args"] = json!(["sh", "-c", script]);
            spec["process"]["terminal"] = json!(false);
            spec["root"]["readonly"] = json!(false);
            spec["linux"]["cgroupsPath"] = json!(format!("{}/{id}", corner.cgroup()));
            // The engine decides limits; root may lack the right to raise them.
            if let Some(process) = spec["process"].as_object_mut() {
                process.remove("rlimits");
            }
        })?;
        Ok(bundle)
    }

    /// Edits config.json.
    pub fn edit(&self, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let path = self.path.join("config.json");
        let mut spec = serde_json::from_slice(&fs::read(&path)?)?;
        edit(&mut spec);
        fs::write(&path, serde_json::to_vec_pretty(&spec)?)?;
        Ok(())
    }

    /// Sets an annotation of lithify's.
    pub fn annotate(&self, key: &str, value: &str) -> Result<()> {
        self.edit(|spec| spec["annotations"][format!("lithify.dev/{key}")] = json!(value))
    }

    /// The runtime's `--root` in this corner.
    pub fn root(&self) -> String {
        self.corner.path("root")
    }

    /// The bundle's folder as text.
    pub fn dir(&self) -> Result<&str> {
        self.path.to_str().context("bundle path is not text")
    }

    /// Runs a bash script, and takes the times out of runc's messages; it has `$R` (the runtime with its flags and --root, to be left unquoted), `$B` (bundle) and `$ID`.
    pub fn bash(&self, runtime: &Runtime, script: &str) -> Result<Outcome> {
        let mut command = self.corner.command("bash");
        command
            .args(["-c", script])
            .env("R", format!("{} --root {}", runtime.words(), self.root()))
            .env("B", &self.path)
            .env("ID", &self.id);
        let mut outcome = run(&mut command)?;
        for text in [&mut outcome.stdout, &mut outcome.stderr] {
            *text = text.split_inclusive('\n').map(without_time).collect();
        }
        Ok(outcome)
    }
}

/// runc's own messages begin with `time="…" `, which differs from call to call.
fn without_time(line: &str) -> &str {
    line.strip_prefix("time=\"").and_then(|rest| rest.split_once("\" ")).map_or(line, |(_, rest)| rest)
}

/// A runtime to call by hand: the program and the flags that stand before the verb.
pub struct Runtime(Vec<String>);

impl Runtime {
    /// runc or crun itself.
    pub fn plain(program: &str) -> Runtime {
        Runtime(vec![program.to_owned()])
    }

    /// lithify with the corner's configuration and further flags.
    pub fn lithify(setup: &Setup, flags: &[&str]) -> Runtime {
        let mut words = vec![setup.lithify.clone(), "--config".to_owned(), setup.config.clone()];
        words.extend(flags.iter().map(|&flag| flag.to_owned()));
        Runtime(words)
    }

    fn words(&self) -> String {
        self.0.join(" ")
    }
}
