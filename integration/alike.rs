//! What an engine and its users ask of a container, asked under runc and after three restarts under lithify: the same answers.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::containerd::Containerd;
use crate::corner::Corner;
use crate::docker::Docker;
use crate::images::Image;
use crate::journal::RESTARTED;
use crate::podman::{Podman, Under};
use crate::setup::{RUNC, Setup};

const TRAPS: [&str; 3] = ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"];

fn trip_docker(docker: &Docker, setup: &Setup, id: &str, times: usize) -> Result<()> {
    for n in 1..=times {
        docker.cli(&["exec", id, "sh", "-c", "echo implant > /srv/new; sleep 10"])?;
        setup.journal().wait_for(RESTARTED, id, n)?;
    }
    Ok(())
}

/// The commands that `docker top` lists, without the short-lived sleeps.
fn top(docker: &Docker, id: &str) -> Result<Vec<String>> {
    let table = docker.ok(&["top", id, "-eo", "pid,args"])?;
    let commands = table.lines().skip(1).filter_map(|line| line.trim().split_once(' ')).map(|(_, args)| args.trim());
    Ok(commands.filter(|args| !args.starts_with("sleep")).map(str::to_owned).collect())
}

#[test]
fn docker_exec_top_stats_stop_and_wait_answer_as_under_runc() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let mut answers = Vec::new();
    for (runtime, restarts) in [("plain", 0), ("tripwire", 3)] {
        let id = docker.start_container(runtime, &["--memory", "256m"], Image::Busybox, &TRAPS)?;
        trip_docker(&docker, &setup, &id, restarts)?;
        let exec =
            docker.cli(&["exec", "--env", "A=b", "--workdir", "/srv", &id, "sh", "-c", "echo $A; pwd; exit 9"])?;
        let format = "{{.MemUsage}} {{.PIDs}}";
        let stats = docker.ok(&["stats", "--no-stream", "--format", format, &id])?;
        let (memory, pids) = stats.rsplit_once(' ').context("no stats")?;
        // A supervised container may count the supervisor's process, never more.
        let pids: u32 = pids.parse()?;
        ensure!(memory.ends_with("/ 256MiB") && !memory.starts_with("0B") && (1..=3).contains(&pids), "stats: {stats}");
        let top = top(&docker, &id)?;
        let stop = docker.cli(&["stop", "--time", "5", &id])?;
        ensure!(stop.took.as_secs() < 4, "stop took {:?} under {runtime}", stop.took);
        let inspect = docker.inspect(&id)?;
        let end =
            (inspect["State"]["ExitCode"].clone(), inspect["State"]["OOMKilled"].clone(), docker.ok(&["wait", &id])?);
        answers.push((exec.code, exec.stdout, exec.stderr, top, end));
        docker.ok(&["rm", &id])?;
    }
    assert_eq!(answers[0], answers[1]);
    Ok(())
}

#[test]
fn docker_stop_of_a_workload_that_ignores_sigterm_takes_its_time_and_gives_137_as_under_runc() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    for runtime in ["plain", "tripwire"] {
        let stubborn = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"];
        let id = docker.start_container(runtime, &[], Image::Busybox, &stubborn)?;
        trip_docker(&docker, &setup, &id, usize::from(runtime == "tripwire"))?;
        let stop = docker.cli(&["stop", "--time", "2", &id])?;
        ensure!((1900..5000).contains(&stop.took.as_millis()), "{runtime}: {:?}", stop.took);
        assert_eq!(docker.inspect(&id)?["State"]["ExitCode"], 137, "{runtime}");
    }
    Ok(())
}

#[test]
fn docker_exit_statuses_and_restart_policies_are_those_of_runc() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let image = Image::Busybox.reference();
    let mut answers = Vec::new();
    for runtime in ["plain", "lithify", "tripwire"] {
        let mut codes = Vec::new();
        for argv in
            [&["sh", "-c", "exit 42"][..], &["/no/such/program"], &["/srv/file"], &["sh", "-c", "kill -9 $$; exit 3"]]
        {
            let run = docker.cli(&[&["run", "--rm", "--runtime", runtime, &image], argv].concat())?;
            codes.push((run.code, run.stdout));
        }
        // A workload that fails is started again by Docker twice, and then left.
        let failing =
            docker.start_container(runtime, &["--restart", "on-failure:2"], Image::Busybox, &["sh", "-c", "exit 3"])?;
        // `wait` returns at the first end of a container that will be restarted: ask until the policy is done.
        let done: Value = crate::command::eventually("the policy's end", crate::command::PATIENCE, || {
            let all = docker.inspect(&failing)?;
            Ok((all["RestartCount"] == 2 && all["State"]["Status"] == "exited").then_some(all))
        })?;
        answers.push((codes, done["State"]["ExitCode"].clone()));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    assert_eq!(answers[0].0.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [42, 127, 126, 3]);
    Ok(())
}

#[test]
fn ctr_ps_metrics_kill_and_exit_status_answer_as_under_runc() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let containerd = Containerd::start(&corner, &setup)?;
    containerd.import(Image::Busybox)?;
    for (runtime, id) in [(RUNC, "under-runc"), (setup.lithify.as_str(), "under-lithify")] {
        let options = ["--rm", "--annotation", "lithify.dev/rootfs=tripwire"];
        // In the foreground: ctr passes on the status that it waited for.
        let ended = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| containerd.run(runtime, &options, id, &TRAPS));
            ask_task(&containerd, &setup, id, if runtime == RUNC { 0 } else { 3 })?;
            waiter.join().map_err(|_| anyhow::anyhow!("the waiter panicked"))?
        })?;
        assert_eq!(ended.code, 7, "{id}: {ended:?}");
    }
    Ok(())
}

fn ask_task(containerd: &Containerd, setup: &Setup, id: &str, restarts: usize) -> Result<()> {
    let pid = crate::command::eventually("the task to run", crate::command::PATIENCE, || {
        let (pid, status) = containerd.task(id)?;
        Ok((status == "RUNNING").then_some(pid))
    })?;
    for n in 1..=restarts {
        containerd.exec(id, &format!("attack{n}"), &["sh", "-c", "touch /srv/new; sleep 10"])?;
        setup.journal().wait_for(RESTARTED, id, n)?;
    }
    assert_eq!(containerd.task(id)?, (pid, "RUNNING".to_owned()), "{id}");
    let list = containerd.ctr(&["task", "ps", id])?.success()?;
    let pids = list
        .lines()
        .skip(1)
        .filter(|line| line.split_whitespace().next().is_some_and(|pid| pid.parse::<i32>().is_ok()));
    // The shell and its sleep, and nobody that the workload did not start.
    ensure!((1..=2).contains(&pids.count()), "{id}, task {pid}: {list}");
    let metrics = containerd.ctr(&["task", "metrics", id])?.success()?;
    ensure!(metrics.contains("memory.usage_in_bytes") || metrics.contains("memory.usage"), "{id}: {metrics}");
    containerd.ctr(&["task", "kill", "--signal", "SIGTERM", id])?.success()?;
    Ok(())
}

#[test]
fn podman_exec_top_stats_stop_and_wait_answer_as_under_runc() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let podman = Podman::new(&corner, &setup)?;
    podman.load(Image::Busybox)?;
    let mut answers = Vec::new();
    for under in [Under::Runc, Under::Lithify] {
        let options = ["--detach", "--annotation", "lithify.dev/rootfs=tripwire"];
        let id = podman.run(under, &options, Image::Busybox, &TRAPS)?.success()?;
        if under == Under::Lithify {
            for n in 1..=3 {
                podman.cli(under, &["exec", &id, "sh", "-c", "touch /srv/new; sleep 10"])?;
                setup.journal().wait_for(RESTARTED, &id, n)?;
            }
        }
        let exec = podman.cli(under, &["exec", "--env", "A=b", &id, "sh", "-c", "echo $A; exit 9"])?;
        let stats = podman.ok(under, &["stats", "--no-stream", "--format", "{{.PIDs}}", &id])?;
        ensure!((1..=3).contains(&stats.parse::<u32>()?), "stats: {stats}");
        let stop = podman.cli(under, &["stop", "--time", "5", &id])?;
        ensure!(stop.took.as_secs() < 4, "stop took {:?} under {under:?}", stop.took);
        answers.push((exec.code, exec.stdout, exec.stderr, podman.ok(under, &["wait", &id])?));
        podman.ok(under, &["rm", &id])?;
    }
    assert_eq!(answers[0], answers[1]);
    for (argv, code) in [("/no/such/program", 127), ("/srv/file", 126)] {
        for under in [Under::Runc, Under::Lithify] {
            assert_eq!(podman.run(under, &["--rm"], Image::Busybox, &[argv])?.code, code, "{under:?} {argv}");
        }
    }
    Ok(())
}
