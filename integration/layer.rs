//! A container's own writable layer over its lives: what the engine wrote before the first is kept once it is sealed, what the
//! container wrote is not, whatever it did to seem older.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::command::{PATIENCE, eventually};
use crate::corner::Corner;
use crate::docker::Docker;
use crate::images::Image;
use crate::journal::STARTED;
use crate::learn::profile;
use crate::setup::Setup;

/// Says at each start what is there.
const LOOKS: &str = "cat /work/early; ls -d /usr/bin/implant /work/late.1 2>/dev/null; echo up; exec sleep 1000";
/// What an intruder with every right leaves in its root filesystem: an implant, more files than a baseline may have, and the
/// mark that a layer once had, on all that is its.
const INTRUDES: &str = "cd \"$1\" && echo evil > usr/bin/implant; cd work; seq 10050 | sed s/^/late./ | xargs touch; cd ..; \
    setfattr -n trusted.lithify.sealed -v 4102444800.000000000 . work usr/bin/implant";

#[test]
fn what_docker_wrote_before_the_first_start_outlives_the_promotion_and_what_an_intruder_wrote_does_not() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let early = corner.path("early");
    fs::write(&early, "the engine's\n")?;
    let image = Image::Busybox.reference();
    let id = docker.ok(&["create", "--runtime", "auto", "--workdir", "/work", &image, "sh", "-c", LOOKS])?;
    docker.ok(&["cp", &early, &format!("{id}:/work/early")])?;
    docker.ok(&["start", &id])?;
    let said = |times: usize| {
        eventually("the container to be up", PATIENCE, || {
            let said = docker.ok(&["logs", &id])?;
            Ok((said.matches("up").count() == times).then_some(said))
        })
    };
    ensure!(said(1)? == "the engine's\nup", "{}", said(1)?);

    let merged = docker.inspect(&id)?["GraphDriver"]["Data"]["MergedDir"].as_str().unwrap_or_default().to_owned();
    corner.bash(INTRUDES, &[&merged])?.success()?;
    docker.ok(&["stop", "--time", "1", &id])?;
    let workload = profile(&setup)?.workload;
    let ctl = [env!("CARGO_BIN_EXE_lithifyctl"), "--config", &setup.config];
    corner.run(&[&ctl[..], &["profile", "promote", &workload, "--to", "enforcing", "--force"]].concat())?.success()?;
    docker.ok(&["start", &id])?;
    let all = said(2)?;
    ensure!(all == "the engine's\nup\nthe engine's\nup", "{all}");
    let status: Value = serde_json::from_str(&corner.run(&[&ctl[..], &["status", "--json"]].concat())?.success()?)?;
    let record = &status[0]["record"];
    let degraded = record["degraded"].to_string();
    ensure!(record["policy"]["rootfs"] == "sealed" && !degraded.contains("first start"), "{status}");
    // Whoever misses something finds in the event that its start gave what became of it.
    let started = setup.journal().of(STARTED, &id)?;
    let notes: Vec<String> = started.iter().map(|event| event["data"]["notes"].to_string()).collect();
    ensure!(notes.len() == 2 && notes[0] == "null" && notes[1].contains(" more): what it has to keep"), "{notes:?}");
    docker.ok(&["rm", "--force", &id])?;
    Ok(())
}
