//! Bad input: each mistake is refused with a reason, or handled as promised, and leaves nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::bare::{Bundle, Runtime};
use crate::command::{Outcome, eventually};
use crate::corner::Corner;
use crate::journal::{ESCALATED, EXEC};
use crate::setup::{RUNC, Setup};

const CREATE: &str =
    "$R --log $B/log --log-format json create --bundle $B --pid-file $B/pid $ID >$B/out 2>&1 </dev/null
    status=$?; cat $B/out; exit $status";
const START: &str = "$R create --bundle $B --pid-file $B/pid $ID >$B/out 2>&1 </dev/null && $R start $ID";

/// A create that must fail: with each word in its output and in the error record, and without a trace.
fn refused(corner: &Corner, bundle: &Bundle, runtime: &Runtime, words: &[&str]) -> Result<Outcome> {
    let before = corner.traces()?;
    let outcome = bundle.bash(runtime, CREATE)?;
    ensure!(outcome.code != 0, "create succeeded: {outcome:?}");
    let log = fs::read_to_string(bundle.path.join("log")).context("no error record")?;
    let last = log.lines().last().context("empty log")?;
    let record: serde_json::Value = serde_json::from_str(last).with_context(|| format!("error record {last}"))?;
    ensure!(record["level"] == "error", "error record {record}");
    for word in words {
        let message = record["msg"].as_str().unwrap_or_default();
        ensure!(message.contains(word), "record {message:?} does not name {word:?}");
        ensure!(outcome.stdout.contains(word), "output {:?} does not name {word:?}", outcome.stdout);
    }
    corner.left_nothing_since(&before)?;
    let state = bundle.bash(runtime, "$R state $ID")?;
    ensure!(state.code != 0, "the container exists: {state:?}");
    Ok(outcome)
}

#[test]
fn an_unknown_annotation_key_or_value_is_refused_by_name() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    for (n, (key, value, words)) in [
        ("rootsf", "sealed", ["lithify.dev/rootsf"]),
        ("rootfs", "seald", ["seald"]),
        ("on-write", "explode", ["explode"]),
        ("restart-limit", "many", ["many"]),
        ("scratch", "tmp:64m", ["\"tmp\""]),
        ("scratch", "/../etc:1m", ["/../etc"]),
    ]
    .into_iter()
    .enumerate()
    {
        let bundle = Bundle::new(&corner, &format!("annotated{n}"), "true")?;
        bundle.annotate(key, value)?;
        refused(&corner, &bundle, &Runtime::lithify(&setup, &[]), &words)?;
    }
    Ok(())
}

#[test]
fn a_config_json_that_is_missing_malformed_or_oversized_is_refused() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let runtime = Runtime::lithify(&setup, &[]);
    let bundle = Bundle::new(&corner, "spec", "true")?;
    let path = bundle.path.join("config.json");
    let good = fs::read(&path)?;
    for bad in [&b"{\"ociVersion\": "[..], b"", b"[]", b"\xff\xfe"] {
        fs::write(&path, bad)?;
        refused(&corner, &bundle, &runtime, &["config.json"])?;
    }
    // A gigabyte of blanks that would be valid JSON: read to a limit, not into memory. Sparse on disk.
    fs::write(&path, good)?;
    fs::OpenOptions::new().write(true).open(&path)?.set_len(1 << 30)?;
    refused(&corner, &bundle, &runtime, &["config.json"])?;
    fs::remove_file(&path)?;
    refused(&corner, &bundle, &runtime, &["config.json"])?;
    fs::create_dir(&path)?;
    refused(&corner, &bundle, &runtime, &["config.json"])?;
    Ok(())
}

#[test]
fn a_rootfs_that_is_missing_or_a_symlink_is_refused_as_runc_refuses_it() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    for (id, runtime) in [("plain", Runtime::plain(RUNC)), ("ours", Runtime::lithify(&setup, &[]))] {
        let bundle = Bundle::new(&corner, id, "true")?;
        let (rootfs, moved) = (bundle.path.join("rootfs"), bundle.path.join("moved"));
        fs::rename(&rootfs, &moved)?;
        refused(&corner, &bundle, &runtime, &["rootfs"]).context("missing")?;
        symlink(&moved, &rootfs)?;
        refused(&corner, &bundle, &runtime, &["rootfs"]).context("symlink")?;
        ensure!(!moved.join("proc/1").exists() && fs::read_dir(moved.join("dev"))?.next().is_none(), "written to");
    }
    Ok(())
}

#[test]
fn a_bundle_on_a_read_only_filesystem_runs_sealed() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    for (id, runtime) in [("plain", Runtime::plain(RUNC)), ("ours", Runtime::lithify(&setup, &[]))] {
        let bundle = Bundle::new(&corner, id, "echo ran; exit 3")?;
        // As runc demands of a read-only rootfs: its mount points are there (the image has them).
        bundle.edit(|spec| spec["root"]["readonly"] = json!(true))?;
        let script =
            "mount --bind $B $B && mount -o remount,bind,ro $B && $R run --bundle $B $ID; s=$?; umount $B; exit $s";
        let outcome = bundle.bash(&runtime, script)?;
        assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (3, "ran\n", ""), "{id}");
    }
    Ok(())
}

#[test]
fn a_machine_without_the_low_level_runtime_is_told_so_by_name() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let text =
        fs::read_to_string(&setup.config)?.replace(RUNC, "/no/such/runc").replace("/usr/bin/crun", "/no/such/crun");
    fs::write(&setup.config, text)?;
    let bundle = Bundle::new(&corner, "lacking", "true")?;
    refused(&corner, &bundle, &Runtime::lithify(&setup, &[]), &["/no/such/runc"])?;
    Ok(())
}

#[test]
fn a_configuration_with_an_unknown_key_stops_protected_containers_and_lets_mode_off_pass() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::with(&corner, "sael = true\n")?;
    let bundle = Bundle::new(&corner, "unknown", "echo ran")?;
    refused(&corner, &bundle, &Runtime::lithify(&setup, &[]), &["sael"])?;
    let off = bundle.bash(&Runtime::lithify(&setup, &["--mode", "off"]), "$R run --bundle $B $ID")?;
    assert_eq!((off.code, off.stdout.as_str(), off.stderr.as_str()), (0, "ran\n", ""));
    Ok(())
}

#[test]
fn a_second_create_with_the_same_id_is_refused_and_the_first_goes_on() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let mut answers = Vec::new();
    for runtime in
        [Runtime::plain(RUNC), Runtime::lithify(&setup, &[]), Runtime::lithify(&setup, &["--rootfs", "tripwire"])]
    {
        let before = corner.traces()?;
        let bundle = Bundle::new(&corner, "twin", "exec sleep 1000")?;
        bundle.bash(&runtime, START)?.success()?;
        let second = bundle.bash(&runtime, "$R create --bundle $B $ID 2>&1 >/dev/null </dev/null")?;
        let alive = bundle.bash(&runtime, "$R exec $ID echo alive; $R kill $ID KILL")?;
        eventually("delete", Duration::from_secs(10), || bundle.bash(&runtime, "$R delete $ID")?.success().map(Some))?;
        corner.left_nothing_since(&before)?;
        fs::remove_dir_all(&bundle.path)?;
        answers.push((second.code, second.stdout, alive.stdout));
    }
    ensure!(answers[0].1.contains("exists") && answers[0].2 == "alive\n", "{answers:?}");
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    Ok(())
}

#[test]
fn verbs_about_a_container_that_does_not_exist_give_runcs_text_and_status() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let bundle = Bundle::new(&corner, "absent", "true")?;
    for verb in ["delete", "delete --force", "state", "start", "kill", "pause", "resume", "ps"] {
        let script = format!("$R {verb} $ID");
        let [plain, ours] =
            [Runtime::plain(RUNC), Runtime::lithify(&setup, &[])].map(|runtime| bundle.bash(&runtime, &script));
        let (plain, ours) = (plain?, ours?);
        assert_eq!((plain.code, plain.stdout, plain.stderr), (ours.code, ours.stdout, ours.stderr), "{verb}");
    }
    Ok(())
}

#[test]
fn a_low_level_runtime_that_fails_in_a_restart_stops_the_container_and_its_message_is_in_the_event() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let (wrapper, broken) = (corner.path("flaky-runc"), corner.path("broken"));
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\nlast=; for word; do [ \"$last\" = --log ] && log=$word; last=$word; done\n\
             for word; do [ \"$word\" = create ] && [ -e {broken} ] && {{\n\
             echo '{{\"level\":\"error\",\"msg\":\"the disk is on fire\"}}' >>\"$log\"; exit 1; }}; done\n\
             exec {RUNC} \"$@\"\n"
        ),
    )?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    let text = fs::read_to_string(&setup.config)?.replace(RUNC, &wrapper);
    fs::write(&setup.config, text)?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "flaky", "exec sleep 1000")?;
    let runtime = Runtime::lithify(&setup, &["--rootfs", "tripwire"]);
    bundle.bash(&runtime, START)?.success()?;
    fs::write(&broken, "")?;
    bundle.bash(&runtime, "$R exec $ID touch /srv/new")?;
    let events = setup.journal().wait_for(ESCALATED, "flaky", 1)?;
    ensure!(events[0]["data"].to_string().contains("the disk is on fire"), "{events:?}");
    eventually("the end of every process", Duration::from_secs(10), || {
        Ok(corner.processes()?.is_empty().then_some(()))
    })?;
    bundle.bash(&runtime, "$R delete --force $ID")?.success()?;
    corner.left_nothing_since(&before)
}

#[test]
fn a_full_or_read_only_data_folder_stops_no_response_and_the_gap_is_told_afterwards() -> Result<()> {
    for (id, spoil, mend) in [
        ("full", "dd if=/dev/zero of=$D/filler bs=4k 2>/dev/null; true", "rm $D/filler"),
        ("read-only", "mount -o remount,ro $D", "mount -o remount,rw $D"),
    ] {
        let corner = Corner::new()?;
        let setup = Setup::new(&corner)?;
        let bundle = Bundle::new(&corner, id, "echo begins; exec sleep 1000")?;
        let runtime = Runtime::lithify(&setup, &["--rootfs", "tripwire"]);
        let folder = format!("D={}; ", setup.data().display());
        corner
            .bash(&format!("{folder} mkdir -p $D && mount -t tmpfs -o size=64k,mode=700 tmpfs $D && {spoil}"), &[])?
            .success()?;
        bundle.bash(&runtime, START)?.success()?;
        bundle.bash(&runtime, "$R exec $ID touch /srv/new")?;
        let generations = |n: usize| {
            eventually("the next generation", Duration::from_secs(10), || {
                Ok((fs::read_to_string(bundle.path.join("out"))?.matches("begins").count() == n).then_some(()))
            })
        };
        generations(2).context(id)?;
        corner.bash(&format!("{folder} {mend}"), &[])?.success()?;
        bundle.bash(&runtime, "$R exec $ID touch /srv/newer")?;
        generations(3).context(id)?;
        // Seen from inside: the mount is the corner's own.
        let told = eventually("the gap to be told", Duration::from_secs(10), || {
            let text = fs::read_to_string(corner.inside(setup.data().join("events/journal.jsonl")))?;
            Ok(text.contains("dev.lithify.watch.degraded").then_some(text))
        });
        told.context(id)?;
        bundle.bash(&runtime, "$R delete --force $ID")?.success()?;
    }
    Ok(())
}

#[test]
fn a_container_is_stopped_entered_and_seen_as_before_under_a_configuration_that_was_misspelt_since() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::with(&corner, "mode = \"enforce\"\nexec = \"deny\"\n")?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "before", "exec sleep 1000")?;
    let runtime = Runtime::lithify(&setup, &[]);
    bundle.bash(&runtime, START)?.success()?;
    let config = fs::read_to_string(&setup.config)?;
    for wrong in ["on-wirte = \"stop\"", "exec = ", "mode = \"enfroce\""] {
        fs::write(&setup.config, format!("{config}[evidence]\n{wrong}\n"))?;
        let entered = bundle.bash(&runtime, "$R exec $ID sh -c 'echo in'")?;
        ensure!(entered.code != 0 && entered.stdout.is_empty(), "{wrong}: {entered:?}");
        ensure!(entered.stderr.contains("'exec' is \"deny\""), "{wrong}: {entered:?}");
        let status = corner.run(&[env!("CARGO_BIN_EXE_lithifyctl"), "--config", &setup.config, "status"])?;
        ensure!(status.code == 0 && status.stdout.contains("before"), "{wrong}: {status:?}");
        ensure!(status.stderr.contains("failed to read configuration"), "{wrong}: {status:?}");
    }
    let told = setup.journal().of(EXEC, "before")?;
    let asked = told.first().map(|event| event["data"]["cmdline"].clone());
    ensure!(told.len() == 3 && asked == Some(json!(["sh", "-c", "echo in"])), "{told:#?}");
    bundle.bash(
        &runtime,
        "$R kill $ID KILL; for _ in $(seq 100); do $R delete $ID 2>/dev/null && break; sleep 0.05; done",
    )?;
    corner.left_nothing_since(&before)
}
