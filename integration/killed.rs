//! The supervisor killed with SIGKILL: the container does not go on unprotected, nothing stays, and `delete` works.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lithify::record::Record;

use crate::bare::{Bundle, Runtime};
use crate::command::eventually;
use crate::corner::Corner;
use crate::docker::Docker;
use crate::images::Image;
use crate::setup::Setup;

fn record(corner: &Corner, id: &str) -> Result<Record> {
    eventually("the container's record", Duration::from_secs(5), || {
        for (_, record) in Record::list(&corner.inside(corner.state()))? {
            let record = record?;
            if record.id == id {
                return Ok(Some(record));
            }
        }
        Ok(None)
    })
}

fn kill(corner: &Corner, pid: i32) -> Result<()> {
    corner.run(&["kill", "-KILL", &pid.to_string()])?.success().context("failed to kill")?;
    Ok(())
}

#[test]
fn a_supervisor_killed_while_the_workload_runs_takes_all_with_it_and_delete_works() -> Result<()> {
    for (rootfs, id) in [("sealed", "killed-sealed"), ("tripwire", "killed-trip"), ("engine", "killed-engine")] {
        let corner = Corner::new()?;
        let setup = Setup::new(&corner)?;
        let before = corner.traces()?;
        let bundle = Bundle::new(&corner, id, "exec sleep 1000")?;
        let runtime = Runtime::lithify(&setup, &["--rootfs", rootfs]);
        bundle
            .bash(&runtime, "$R create --bundle $B --pid-file $B/pid $ID >/dev/null 2>&1 </dev/null && $R start $ID")?
            .success()?;
        let record = record(&corner, id)?;
        kill(&corner, record.supervisor.pid)?;
        eventually("the end of every process", Duration::from_secs(10), || {
            Ok(corner.processes()?.is_empty().then_some(()))
        })
        .with_context(|| format!("{rootfs}: {:?}", corner.processes()))?;
        bundle.bash(&runtime, "$R delete $ID && $R delete --force $ID")?.success().context(rootfs)?;
        corner.left_nothing_since(&before)?;
        ensure!(Record::list(&corner.inside(corner.state()))?.is_empty(), "{rootfs}: a record stays");
    }
    Ok(())
}

#[test]
fn a_supervisor_killed_at_any_moment_of_a_restart_takes_all_with_it_and_delete_works() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let before = corner.traces()?;
    let runtime = Runtime::lithify(&setup, &["--rootfs", "tripwire"]);
    // A restart takes tens of milliseconds: these moments cover it from the breach to the new generation.
    for milliseconds in [0, 2, 5, 10, 20, 30, 40, 60, 80, 120] {
        let id = format!("moment{milliseconds}");
        let bundle = Bundle::new(&corner, &id, "exec sleep 1000")?;
        bundle
            .bash(&runtime, "$R create --bundle $B --pid-file $B/pid $ID >/dev/null 2>&1 </dev/null && $R start $ID")?
            .success()?;
        let record = record(&corner, &id)?;
        let root = record.init.context("no init")?.pid;
        let script = format!(
            "touch /proc/{root}/root/srv/new; sleep {}; kill -KILL {}",
            f64::from(milliseconds) / 1000.0,
            record.supervisor.pid
        );
        corner.bash(&script, &[])?.success()?;
        eventually("the end of every process", Duration::from_secs(10), || {
            Ok(corner.processes()?.is_empty().then_some(()))
        })
        .with_context(|| format!("after {milliseconds} ms: {:?}", corner.processes()))?;
        let deleted = bundle.bash(&runtime, "$R delete --force $ID")?;
        ensure!(deleted.code == 0, "after {milliseconds} ms: {deleted:?}");
        corner.left_nothing_since(&before).with_context(|| format!("after {milliseconds} ms"))?;
    }
    Ok(())
}

#[test]
fn docker_sees_a_container_whose_supervisor_was_killed_as_ended_and_can_start_it_again() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let before = corner.traces()?;
    let id = docker.start_container("tripwire", &[], Image::Busybox, &["sleep", "1000"])?;
    kill(&corner, record(&corner, &id)?.supervisor.pid)?;
    assert_eq!(docker.ok(&["wait", &id])?, "137");
    docker.ok(&["start", &id])?;
    assert_eq!(docker.ok(&["exec", &id, "cat", "/srv/file"])?, "as the image has it");
    docker.ok(&["rm", "--force", &id])?;
    corner.left_nothing_since(&before)
}

#[test]
fn docker_sees_a_container_whose_pid_was_killed_as_ended_and_nothing_stays() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let before = corner.traces()?;
    for runtime in ["lithify", "tripwire"] {
        let id = docker.start_container(runtime, &[], Image::Busybox, &["sleep", "1000"])?;
        let pid = docker.inspect(&id)?["State"]["Pid"].as_i64().context("no pid")?;
        kill(&corner, i32::try_from(pid)?)?;
        assert_eq!(docker.ok(&["wait", &id])?, "137", "{runtime}");
        docker.ok(&["rm", &id])?;
        corner.left_nothing_since(&before).context(runtime)?;
    }
    Ok(())
}
