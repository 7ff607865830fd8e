//! Sessions and probes of operators (`docker exec`): what enforcing would not refuse is not told while observing, and what is
//! harmless is refused nothing.
//!
//! Must not: try attacks; those are in `attacks`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::eventually;
use crate::corner::Corner;
use crate::docker::Docker;
use crate::images::Image;
use crate::journal::{BREACH, EXEC};
use crate::setup::Setup;

const WOULD_REFUSE: &str = "dev.lithify.container.would-refuse";
/// Keeps a file in /tmp, as most servers do; forks nothing after its start.
const WORKLOAD: [&str; 3] = ["sh", "-c", "echo $$ >/tmp/pid; exec sleep 1000"];
/// What operators and probes run.
const TOOLS: [&str; 22] = [
    "id",
    "cat /srv/file",
    "ls -la / /srv",
    "touch /tmp/mine; cp /srv/file /tmp/copy; cp /tmp/copy /tmp/other",
    "true | true",
    "cat /srv/file | grep -c . | wc -l",
    "grep -r nothing /srv; test $? -lt 2",
    "find / -xdev -name file",
    "ps",
    "top -b -n 1",
    "sed -n 1p /srv/file",
    "awk '{print $1}' /srv/file",
    "tar -cf - /srv/file | wc -c",
    "gzip -c /srv/file | gzip -dc | head -n 1",
    "more /srv/file </dev/null; tail -n 1 /srv/file",
    "df; du -s /srv; env; date; hostname; uptime; free",
    "sleep 1 & kill $!; wait",
    "timeout 5 true; echo a b | xargs echo | tee /dev/null | sort",
    "x=$(date); md5sum /srv/file; stat /srv/file; dd if=/srv/file of=/tmp/dd",
    "mkdir /tmp/folder; mv /tmp/mine /tmp/folder; rm -r /tmp/folder",
    "kill -0 1",
    "vi -c :q /srv/file </dev/null",
];

/// Learns the workload without a session, and ends learning.
fn learn(corner: &Corner, docker: &Docker<'_>, setup: &Setup) -> Result<()> {
    let id = begin(docker, "learn")?;
    docker.ok(&["stop", "--time", "1", &id])?;
    docker.ok(&["rm", &id])?;
    let lithifyctl = env!("CARGO_BIN_EXE_lithifyctl");
    eventually("the profile", Duration::from_secs(15), || {
        let finish = [lithifyctl, "--config", &setup.config, "profile", "finish", Image::Busybox.name(), "--force"];
        Ok(Some(corner.run(&finish)?.success()?))
    })?;
    Ok(())
}

fn begin(docker: &Docker<'_>, runtime: &str) -> Result<String> {
    let id = docker.start_container(runtime, &[], Image::Busybox, &WORKLOAD)?;
    // Not by a session: what sessions do is to be new.
    eventually("its file", Duration::from_secs(10), || {
        Ok((docker.ok(&["top", &id, "-o", "pid,comm"])?.contains("sleep")).then_some(()))
    })?;
    Ok(id)
}

fn use_tools(docker: &Docker<'_>, id: &str) -> Result<()> {
    for tool in TOOLS {
        let ran = docker.cli(&["exec", id, "sh", "-c", tool])?;
        ensure!(ran.code == 0, "{tool}: {ran:?}");
    }
    Ok(())
}

#[test]
fn the_tools_of_operators_and_probes_alarm_nobody_though_no_session_was_ever_learnt() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    learn(&corner, &docker, &setup)?;

    let id = begin(&docker, "observe")?;
    use_tools(&docker, &id)?;
    docker.ok(&["exec", &id, "sh", "-c", "chmod 4755 /tmp/copy; chroot / true || true"])?;
    eventually("what would have been refused", Duration::from_secs(15), || {
        let told = setup.journal().of(WOULD_REFUSE, &id)?;
        Ok(told.iter().any(|event| event["data"]["item"] == "chroot").then_some(()))
    })?;
    docker.ok(&["stop", "--time", "1", &id])?;
    let told = setup.journal().of(WOULD_REFUSE, &id)?;
    let told: BTreeSet<&str> = told.iter().filter_map(|event| event["data"]["item"].as_str()).collect();
    let refused = ["CAP_SYS_CHROOT", "chmod", "chroot"];
    ensure!(told == BTreeSet::from(refused), "told was {told:?}, and would have been refused {refused:?}");

    let id = begin(&docker, "lithify")?;
    use_tools(&docker, &id)?;
    ensure!(docker.cli(&["exec", &id, "chroot", "/", "true"])?.code != 0);
    // In the order of what happened: nothing came before it.
    let breaches = eventually("a breach", Duration::from_secs(10), || {
        let breaches = setup.journal().of(BREACH, &id)?;
        Ok((!breaches.is_empty()).then_some(breaches))
    })?;
    ensure!(breaches.len() == 1 && breaches[0]["data"]["syscall"] == "chroot", "{breaches:#?}");
    let sessions = setup.journal().of(EXEC, &id)?;
    let first = sessions.first().context("no session is told")?;
    ensure!(sessions.iter().all(|event| event["data"]["refused"].is_null()), "nobody asked for more: {first:#}");
    docker.ok(&["rm", "--force", &id])?;
    Ok(())
}

#[test]
fn what_a_session_goes_on_to_be_refused_is_told_again_after_a_minute_with_how_often() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    learn(&corner, &docker, &setup)?;
    let id = begin(&docker, "lithify")?;
    let counts = |kind: &str| -> Result<Vec<u64>> {
        let breaches = setup.journal().of(BREACH, &id)?;
        let of_kind = breaches.iter().filter(|event| event["data"]["kind"] == kind);
        Ok(of_kind.filter_map(|event| event["data"]["count"].as_u64()).collect())
    };
    let refused = eventually("both to be told again", Duration::from_secs(100), || {
        docker.cli(&["exec", &id, "sh", "-c", "cp /bin/busybox /tmp/tool; /tmp/tool id; echo >/etc/z"])?;
        std::thread::sleep(Duration::from_secs(2));
        let told = [counts("foreign-program")?, counts("refused-write")?];
        Ok(told.iter().all(|counts| counts.len() > 1).then_some(told))
    })?;
    for counts in &refused {
        ensure!(counts[0] == 1 && counts[1] > 5 && counts.len() == 2, "{refused:?}");
    }
    let known = corner.run(&[env!("CARGO_BIN_EXE_lithifyctl"), "--config", &setup.config, "inspect", &id, "--json"])?;
    let known: serde_json::Value = serde_json::from_str(&known.success()?)?;
    let met: u64 = refused.iter().flatten().sum();
    ensure!(known["refusals"].as_u64().is_some_and(|refusals| refusals >= met), "{met} of {}", known["refusals"]);
    docker.ok(&["rm", "--force", &id])?;
    Ok(())
}
