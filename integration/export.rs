//! What was learnt, exported: a plain runc runs the workload with it, on a read-only root, and lithify is not there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lithify::profile::{Profile, store};
use serde_json::Value;

use crate::command::{eventually, run};
use crate::corner::Corner;
use crate::docker::Docker;
use crate::images::{self, Image};
use crate::setup::Setup;

/// Runs a load of `integration/loads` on a container; it fails if any answer was wrong.
fn load(corner: &Corner, docker: &Docker<'_>, name: &str, container: &str) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/loads").join(name);
    let (script, images) = (script.display().to_string(), images::folder()?.display().to_string());
    let logs =
        || docker.cli(&["logs", "--tail", "20", container]).map(|logs| logs.stdout + &logs.stderr).unwrap_or_default();
    corner.run(&[&script, &docker.address(container)?, &images])?.success().with_context(logs)?;
    Ok(())
}

/// Stops a container, which must end well, and removes it with its volumes.
fn stop(docker: &Docker<'_>, container: &str) -> Result<()> {
    docker.ok(&["stop", container])?;
    let code = docker.inspect(container)?["State"]["ExitCode"].clone();
    ensure!(code == 0, "exit code {code}: {:?}", docker.cli(&["logs", "--tail", "20", container])?);
    docker.ok(&["rm", "--volumes", container])?;
    Ok(())
}

/// The only profile in the store, once its generation has ended.
fn learnt(setup: &Setup) -> Result<Profile> {
    eventually("a profile", Duration::from_secs(15), || {
        let mut all = store::all_profiles(setup.data())?;
        ensure!(all.len() == 1, "{} profiles", all.len());
        let profile = all.remove(0).document?;
        Ok(profile.generations.values().all(|g| g.ended).then_some(profile))
    })
}

/// Learns a workload under its load, and runs it under the same load with nothing but the exported flags.
fn survives_its_export(image: Image, name: &str) -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(image)?;
    let before = corner.traces()?;
    let container = docker.start_container("learn", &[], image, &[])?;
    load(&corner, &docker, name, &container).context("while learning")?;
    let made_from = docker.inspect(&container)?["Image"].clone();
    stop(&docker, &container)?;
    let profile = learnt(&setup)?;
    ensure!(made_from == profile.revision.image.as_str(), "{made_from} became {}", profile.revision.image);

    let out = corner.path("export");
    fs::create_dir(&out)?;
    let mut export = corner.command(env!("CARGO_BIN_EXE_lithifyctl"));
    export.args(["--config", &setup.config, "profile", "export", &profile.workload]);
    let line = run(export.args(["--format", "docker", "--out", &out]))?.success()?;
    // None of the paths here needs a shell's quotes.
    let flags: Vec<&str> = line.split(' ').collect();
    for flag in ["--read-only", "--cap-drop", "no-new-privileges"] {
        ensure!(flags.contains(&flag), "{line}");
    }
    let filter = flags.iter().find_map(|flag| flag.strip_prefix("seccomp=")).context("no filter")?;
    let filter: Value = serde_json::from_slice(&fs::read(filter)?)?;
    ensure!(filter["defaultAction"] == "SCMP_ACT_ERRNO", "{filter}");

    let container = docker.start_container("plain", &flags, image, &[])?;
    load(&corner, &docker, name, &container).with_context(|| format!("with {line}"))?;
    ensure!(docker.inspect(&container)?["HostConfig"]["ReadonlyRootfs"] == true, "with {line}");
    stop(&docker, &container)?;
    corner.left_nothing_since(&before)
}

#[test]
fn nginx_runs_with_its_exported_flags_and_no_lithify() -> Result<()> {
    survives_its_export(Image::Nginx, "nginx")
}

#[test]
fn redis_runs_with_its_exported_flags_and_no_lithify() -> Result<()> {
    survives_its_export(Image::Redis, "redis")
}

#[test]
fn postgresql_runs_with_its_exported_flags_and_no_lithify() -> Result<()> {
    survives_its_export(Image::Postgres, "postgres")
}
