//! A tripwire under each engine: a write becomes a durable event with its path, and the container begins again in place.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::eventually;
use crate::containerd::Containerd;
use crate::corner::Corner;
use crate::docker::Docker;
use crate::images::Image;
use crate::journal::{BREACH, ESCALATED, EXITED, RESTARTED, STARTED};
use crate::podman::{Podman, Under};
use crate::setup::Setup;

/// Says that it begins, and waits to be ended.
const WAITS: [&str; 3] = ["sh", "-c", "echo begins; trap 'exit 7' TERM; while :; do sleep 1; done"];

fn data<'e>(event: &'e Value, field: &str) -> &'e str {
    event["data"][field].as_str().unwrap_or_default()
}

#[test]
fn docker_keeps_pid_address_start_time_and_logs_over_three_restarts() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let before = corner.traces()?;
    let id = docker.start_container("tripwire", &[], Image::Busybox, &WAITS)?;
    let (journal, identity) = (setup.journal(), docker.identity(&id)?);
    for (n, path) in ["/srv/first", "/second", "/etc/third"].into_iter().enumerate() {
        // The session ends with the generation that it ran in.
        docker.cli(&["exec", &id, "sh", "-c", &format!("echo implant > {path}; sleep 10")])?;
        let breach = journal.wait_for_breach(&id, path)?;
        assert_eq!(data(&breach, "kind"), "create", "{breach}");
        journal.wait_for(RESTARTED, &id, n + 1)?;
        assert_eq!(docker.identity(&id)?, identity, "after restart {}", n + 1);
        let gone = docker.ok(&["exec", &id, "sh", "-c", &format!("test -e {path} || echo gone")])?;
        assert_eq!(gone, "gone");
        eventually("the new generation's log line", Duration::from_secs(5), || {
            let logs = docker.ok(&["logs", &id])?;
            ensure!(logs.lines().filter(|line| *line == "begins").count() == n + 2, "logs: {logs}");
            Ok(Some(()))
        })?;
    }
    let events = journal.events()?;
    let position = |kind: &str| events.iter().position(|event| event["type"] == kind).context("missing event");
    ensure!(position(BREACH)? < position(RESTARTED)?, "a breach is written before the restart begins: {events:?}");
    docker.ok(&["stop", &id])?;
    assert_eq!(docker.ok(&["wait", &id])?, "7");
    journal.wait_for(EXITED, &id, 1)?;
    docker.ok(&["rm", &id])?;
    corner.left_nothing_since(&before)
}

#[test]
fn ctr_keeps_the_task_over_a_restart_and_the_diff_is_kept_as_evidence() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let containerd = Containerd::start(&corner, &setup)?;
    containerd.import(Image::Busybox)?;
    let before = corner.traces()?;
    let options = ["--detach", "--annotation", "lithify.dev/rootfs=tripwire"];
    containerd.run(&setup.lithify, &options, "trip", &WAITS)?.success()?;
    let task = containerd.task("trip")?;
    // One operation: the answer is faster than a second one might be.
    containerd.exec("trip", "attack", &["sh", "-c", "echo implant > /srv/implant; sleep 10"])?;
    let journal = setup.journal();
    let started = &journal.wait_for(STARTED, "trip", 1)?[0];
    ensure!(!started["data"]["degraded"].to_string().contains("fanotify"), "the fast watch is missing: {started}");
    journal.wait_for(RESTARTED, "trip", 1)?;
    let paths: Vec<String> = journal.of(BREACH, "trip")?.iter().map(|event| data(event, "path").to_owned()).collect();
    ensure!(paths.iter().any(|path| path == "/srv/implant"), "breaches at {paths:?}");
    assert_eq!(containerd.task("trip")?, task);
    assert_eq!(containerd.exec("trip", "look", &["sh", "-c", "test -e /srv/implant || echo gone"])?.success()?, "gone");
    // One tar names what was written.
    let evidence = corner.bash(
        "for tar in $(find \"$1/evidence\" -type f -name '*.tar'); do tar -tf \"$tar\"; done",
        &[&setup.data().display().to_string()],
    )?;
    ensure!(evidence.stdout.contains("srv/implant"), "evidence: {evidence:?}");
    containerd.remove("trip")?;
    corner.left_nothing_since(&before)
}

#[test]
fn podman_keeps_pid_address_and_logs_over_a_restart() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let podman = Podman::new(&corner, &setup)?;
    podman.load(Image::Busybox)?;
    let options = ["--detach", "--name", "trip", "--annotation", "lithify.dev/rootfs=tripwire"];
    let id = podman.run(Under::Lithify, &options, Image::Busybox, &WAITS)?.success()?;
    let identity = |all: Value| {
        let state = &all["State"];
        serde_json::json!([state["Pid"], state["StartedAt"], state["Status"], all["NetworkSettings"]["IPAddress"]])
    };
    let first = identity(podman.inspect("trip")?);
    podman.cli(Under::Lithify, &["exec", "trip", "sh", "-c", "echo implant >> /srv/file; sleep 10"])?;
    setup.journal().wait_for_breach(&id, "/srv/file")?;
    setup.journal().wait_for(RESTARTED, &id, 1)?;
    assert_eq!(identity(podman.inspect("trip")?), first);
    assert_eq!(podman.ok(Under::Lithify, &["exec", "trip", "cat", "/srv/file"])?, "as the image has it");
    eventually("the new generation's log line", Duration::from_secs(5), || {
        let logs = podman.ok(Under::Lithify, &["logs", "trip"])?;
        ensure!(logs == "begins\nbegins", "logs: {logs}, events: {:?}", setup.journal().events()?);
        Ok(Some(()))
    })?;
    podman.ok(Under::Lithify, &["stop", "trip"])?;
    assert_eq!(podman.inspect("trip")?["State"]["ExitCode"], 7);
    podman.ok(Under::Lithify, &["rm", "trip"])?;
    Ok(())
}

#[test]
fn on_write_report_tells_and_changes_nothing() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let id = docker.start_container("report", &[], Image::Busybox, &WAITS)?;
    docker.ok(&["exec", &id, "sh", "-c", "echo implant > /srv/new"])?;
    setup.journal().wait_for_breach(&id, "/srv/new")?;
    assert_eq!(docker.ok(&["exec", &id, "cat", "/srv/new"])?, "implant");
    assert_eq!(setup.journal().of(RESTARTED, &id)?.len(), 0);
    Ok(())
}

#[test]
fn on_write_stop_ends_the_container_as_sigkill_does() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let id = docker.start_container("stop", &[], Image::Busybox, &WAITS)?;
    docker.cli(&["exec", &id, "sh", "-c", "echo implant > /srv/new; sleep 10"])?;
    assert_eq!(docker.ok(&["wait", &id])?, "137");
    setup.journal().wait_for_breach(&id, "/srv/new")?;
    Ok(())
}

#[test]
fn on_write_pause_freezes_the_workload_until_an_operator_resumes_it() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let bundle = crate::bare::Bundle::new(&corner, "pause", "while :; do sleep 0.1; echo tick; done")?;
    let runtime = crate::bare::Runtime::lithify(&setup, &["--rootfs", "tripwire", "--on-write", "pause"]);
    bundle.bash(&runtime, "$R create --bundle $B $ID >$B/out 2>&1 </dev/null && $R start $ID")?.success()?;
    bundle.bash(&runtime, "$R exec -d $ID touch /srv/new")?.success()?;
    setup.journal().wait_for_breach("pause", "/srv/new")?;
    eventually("the container to be paused", Duration::from_secs(5), || {
        Ok(bundle.bash(&runtime, "$R state $ID")?.stdout.contains("\"paused\"").then_some(()))
    })?;
    bundle.bash(&runtime, "$R resume $ID && $R kill $ID KILL")?.success()?;
    eventually("delete", Duration::from_secs(5), || bundle.bash(&runtime, "$R delete $ID")?.success().map(Some))?;
    Ok(())
}

#[test]
fn a_workload_that_writes_each_time_it_starts_is_stopped_at_the_restart_limit() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let containerd = Containerd::start(&corner, &setup)?;
    containerd.import(Image::Busybox)?;
    let options =
        ["--rm", "--annotation", "lithify.dev/rootfs=tripwire", "--annotation", "lithify.dev/restart-limit=2/60s"];
    let outcome = containerd.run(&setup.lithify, &options, "storm", &["sh", "-c", "touch /evil; sleep 1000"])?;
    assert_eq!(outcome.code, 137, "{outcome:?}");
    let journal = setup.journal();
    journal.wait_for(ESCALATED, "storm", 1)?;
    assert_eq!(journal.of(RESTARTED, "storm")?.len(), 2);
    Ok(())
}

#[test]
fn renew_every_begins_fresh_generations_on_a_schedule_without_a_breach() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let containerd = Containerd::start(&corner, &setup)?;
    containerd.import(Image::Busybox)?;
    let options = ["--detach", "--annotation", "lithify.dev/renew-every=1s"];
    containerd.run(&setup.lithify, &options, "renewed", &WAITS)?.success()?;
    let task = containerd.task("renewed")?;
    setup.journal().wait_for(RESTARTED, "renewed", 2)?;
    assert_eq!(containerd.task("renewed")?, task);
    assert_eq!(setup.journal().of(BREACH, "renewed")?.len(), 0);
    containerd.remove("renewed")
}

#[test]
fn a_mount_in_a_sealed_container_is_a_breach_at_its_mount_point() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let containerd = Containerd::start(&corner, &setup)?;
    containerd.import(Image::Busybox)?;
    let options = ["--detach", "--cap-add", "CAP_SYS_ADMIN"];
    containerd.run(&setup.lithify, &options, "mounts", &WAITS)?.success()?;
    containerd.exec("mounts", "attack", &["sh", "-c", "mount -t tmpfs none /srv; sleep 10"])?;
    let breach = setup.journal().wait_for_breach("mounts", "/srv")?;
    assert_eq!(data(&breach, "kind"), "mount", "{breach}");
    setup.journal().wait_for(RESTARTED, "mounts", 1)?;
    assert_eq!(containerd.exec("mounts", "look", &["cat", "/srv/file"])?.success()?, "as the image has it");
    containerd.remove("mounts")
}

#[test]
fn docker_cp_into_a_container_is_a_host_write_with_its_path() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let source = corner.path("copied");
    std::fs::write(&source, "from the host\n")?;
    // Under `engine` the container's root is the very folder that Docker writes to: seen, but nothing tells whose it was.
    for runtime in ["lithify", "tripwire", "engine"] {
        let id = docker.start_container(runtime, &[], Image::Busybox, &WAITS)?;
        docker.cli(&["cp", &source, &format!("{id}:/srv/copied")])?;
        let breach = setup.journal().wait_for_breach(&id, "/srv/copied")?;
        ensure!(runtime == "engine" || data(&breach, "kind") == "host-write", "{runtime}: {breach}");
    }
    Ok(())
}
