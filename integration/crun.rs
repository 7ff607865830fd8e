//! crun as the low-level runtime, whose state folder has another layout than runc's: every verb, and restarts in place.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lithify::runtime::layout::Layout;
use serde_json::json;

use crate::bare::{Bundle, Runtime};
use crate::command::eventually;
use crate::corner::Corner;
use crate::journal::RESTARTED;
use crate::setup::{RUNC, Setup};

const CRUN: &str = "/usr/bin/crun";

/// Creates and starts the bundle's container, with its output in `$B/out` and the engine's pid in `$B/pid`.
const START: &str = "$R create --bundle $B --pid-file $B/pid $ID >$B/out 2>&1 </dev/null && $R start $ID";

/// A corner that crun accepts, and a configuration with no other runtime in it.
fn over_crun() -> Result<(Corner, Setup)> {
    let corner = Corner::without_unified()?;
    let setup = Setup::new(&corner)?;
    let config = fs::read_to_string(&setup.config)?.replace(&format!("{RUNC:?}, "), "");
    ensure!(config.contains("runtimes = [\"/usr/bin/crun\"]"), "another configuration than expected: {config}");
    fs::write(&setup.config, config)?;
    Ok((corner, setup))
}

fn delete(bundle: &Bundle, runtime: &Runtime) -> Result<()> {
    eventually("delete", Duration::from_secs(10), || bundle.bash(runtime, "$R delete $ID")?.success().map(Some))?;
    Ok(())
}

/// A hook that reads what it is told, as hooks should: crun 1.8 dies by SIGPIPE when one has ended before, and whoever
/// deletes the container then does so again, hooks and all.
fn hook(script: &str) -> serde_json::Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("cat >/dev/null; {script}")] })
}

#[test]
fn every_verb_over_crun_prints_and_does_what_crun_does() -> Result<()> {
    let script = r#"
        until_stopped() { for i in $(seq 200); do $R state $ID | grep -q '"stopped"' && break; sleep 0.05; done; }
        until_line() { for i in $(seq 200); do grep -q "$1" $B/out && return; sleep 0.05; done; echo "no $1"; }
        limit() { cat /sys/fs/cgroup/pids$CGROUP/$ID/pids.max; }
        $R create --bundle $B --pid-file $B/pid $ID >$B/out 2>&1 </dev/null; echo "create $? $(cat $B/out)"
        state() { $R state $ID | sed 's/: '$(cat $B/pid)',/: PID,/; /created/d' | jq -Rrs 'split("\n")[0:5][]'; }
        state; $R list | grep -c "^$ID *$(cat $B/pid) *created"; $R start $ID; echo "start $?"
        $R start $ID; echo "start again $?"
        $R exec $ID sh -c 'echo out; echo err >&2; exit 3'; echo "exec $?"
        $R exec --detach --pid-file $B/session $ID sleep 1000; echo "exec $?"; kill -0 $(cat $B/session) && echo "a session"
        $R ps $ID | sed 's/[0-9]\+/N/'; $R ps --format json $ID | sed 's/[0-9]\+/N/'
        # crun asks the freezer, which may still be at it.
        $R pause $ID; echo "pause $?"
        for _ in $(seq 100); do [ "$($R state $ID | jq -r .status)" = paused ] && break; sleep 0.05; done
        $R state $ID | jq -r .status
        $R resume $ID; echo "resume $?"; $R state $ID | jq -r .status
        echo '{"pids":{"limit":77}}' | $R update --resources - $ID; echo "update $? $(limit)"
        $R delete $ID; echo "delete of what runs $?"
        kill -0 $(cat $B/pid) && echo "the engine's pid lives"
        $R kill $ID 0; echo "kill 0 $?"; $R kill --all $ID KILL; echo "kill $?"; until_stopped
        $R delete $ID; echo "delete $?"; $R delete $ID; echo "delete again $?"; $R delete --force $ID; echo "forced $?"
        $R run --bundle $B $ID >$B/out & p=$!; until_line up; kill -TERM $p; wait $p; echo "run $?"
        $R run --bundle $B $ID >$B/out & p=$!; until_line up; $R kill --all $ID KILL; wait $p; echo "run $?"
        jq '.process.args = ["/no/such"]' $B/config.json >$B/new && cat $B/new >$B/config.json
        $R run --bundle $B $ID; echo "run of nothing $?""#;
    let (corner, setup) = over_crun()?;
    let before = corner.traces()?;
    let mut plain = None;
    for (id, runtime) in [
        ("it-is-plain", Runtime::plain(CRUN)),
        ("it-is-sealed", Runtime::lithify(&setup, &[])),
        ("it-is-trip", Runtime::lithify(&setup, &["--rootfs", "tripwire"])),
        ("it-is-off", Runtime::lithify(&setup, &["--mode", "off"])),
    ] {
        let bundle = Bundle::new(&corner, id, "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done")?;
        let outcome = bundle.bash(&runtime, &format!("CGROUP={}; {script}", corner.cgroup()))?;
        let texts = [&outcome.stdout, &outcome.stderr].map(|text| text.replace(bundle.dir().unwrap_or(id), "BUNDLE"));
        let texts = texts.map(|text| text.replace(id, "ID"));
        corner.left_nothing_since(&before).context(id)?;
        match &plain {
            None => {
                ensure!(texts[0].contains("update 0 77\n") && texts[0].contains("run 7\nrun 137\n"), "{texts:?}");
                plain = Some(texts);
            }
            Some(plain) => assert_eq!(&texts, plain, "{id}"),
        }
    }
    Ok(())
}

#[test]
fn a_tripwire_over_crun_restarts_in_place_and_keeps_pid_network_cgroups_limits_and_output() -> Result<()> {
    let (corner, setup) = over_crun()?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "trip", "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done")?;
    let ended = corner.path("ended");
    bundle.edit(|spec| {
        spec["hooks"]["poststop"] = json!([hook(&format!("echo x >>{ended}"))]);
    })?;
    let runtime = Runtime::lithify(&setup, &["--rootfs", "tripwire"]);
    bundle.bash(&runtime, START)?.success()?;
    bundle.bash(&runtime, r#"echo '{"pids":{"limit":77}}' | $R update --resources - $ID"#)?.success()?;
    let identity = format!(
        "p=$(cat $B/pid); $R state $ID | jq -c '[.pid, .status]'; readlink /proc/$p/ns/net; \
         [ $(readlink /proc/$p/ns/net) = $($R exec $ID readlink /proc/self/ns/net) ] && echo one network; \
         cd /sys/fs/cgroup/pids{}/$ID; stat -c %i . ; cat pids.max",
        corner.cgroup()
    );
    let first = bundle.bash(&runtime, &identity)?.success()?;
    ensure!(first.contains("one network\n") && first.ends_with("\n77") && first.contains("running"), "{first}");
    for (n, path) in ["/srv/first", "/second"].into_iter().enumerate() {
        // The session ends with the generation that it ran in.
        bundle.bash(&runtime, &format!("$R exec $ID sh -c 'echo implant >{path}; sleep 10'"))?;
        setup.journal().wait_for_breach("trip", path)?;
        setup.journal().wait_for(RESTARTED, "trip", n + 1)?;
        assert_eq!(bundle.bash(&runtime, &identity)?.success()?, first, "after restart {}", n + 1);
        let script = format!("$R exec $ID sh -c 'test -e {path} || echo gone'");
        assert_eq!(bundle.bash(&runtime, &script)?.success()?, "gone");
        eventually("the new generation's output", Duration::from_secs(5), || {
            Ok((fs::read_to_string(bundle.path.join("out"))? == "up\n".repeat(n + 2)).then_some(()))
        })?;
    }
    ensure!(!fs::exists(&ended)?, "a restart is no stop, but poststop hooks ran");
    bundle.bash(&runtime, "$R kill $ID TERM")?.success()?;
    delete(&bundle, &runtime)?;
    assert_eq!(fs::read_to_string(&ended)?, "x\n");
    corner.left_nothing_since(&before)
}

#[test]
fn a_delete_between_generations_runs_no_poststop_hooks_under_either_runtime() -> Result<()> {
    for (program, corner) in [(RUNC, Corner::new()?), (CRUN, Corner::without_unified()?)] {
        let (before, ended) = (corner.traces()?, corner.path("ended"));
        for (id, left_out) in [("ends", false), ("goes-on", true)] {
            let bundle = Bundle::new(&corner, id, "exec sleep 1000")?;
            bundle.edit(|spec| {
                spec["hooks"]["poststop"] = json!([hook(&format!("echo {id} >>{ended}"))]);
            })?;
            let runtime = Runtime::plain(program);
            let create = "$R create --bundle $B --pid-file $B/pid $ID >/dev/null 2>&1 </dev/null && cat $B/pid";
            let pid: i32 = bundle.bash(&runtime, create)?.success()?.parse()?;
            let layout = Layout::created(Some(Path::new(&bundle.root())), id, pid).context("an unknown layout")?;
            bundle.bash(&runtime, "$R start $ID && $R kill $ID KILL")?.success()?;
            if left_out {
                layout.leave_out_poststop()?;
            }
            delete(&bundle, &runtime)?;
        }
        // crun runs them at a delete that fails, too, when the container has not quite ended.
        let ended = fs::read_to_string(&ended)?;
        assert!(!ended.is_empty() && ended.lines().all(|id| id == "ends"), "{program}: {ended}");
        corner.left_nothing_since(&before)?;
    }
    Ok(())
}

#[test]
fn a_sealed_root_over_crun_refuses_writes_and_a_mount_on_it_begins_a_new_generation() -> Result<()> {
    let (corner, setup) = over_crun()?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "sealed", "exec sleep 1000")?;
    bundle.edit(|spec| {
        for set in ["bounding", "effective", "permitted"] {
            if let Some(set) = spec["process"]["capabilities"][set].as_array_mut() {
                set.push("CAP_SYS_ADMIN".into());
            }
        }
    })?;
    let runtime = Runtime::lithify(&setup, &[]);
    bundle.bash(&runtime, START)?.success()?;
    let tried = bundle.bash(&runtime, "$R exec $ID sh -c 'echo x >/srv/new || mount -o remount,rw /'")?;
    ensure!(tried.code != 0 && tried.stderr.contains("Read-only file system"), "{tried:?}");
    bundle.bash(&runtime, "$R exec $ID sh -c 'mount -t tmpfs none /srv; sleep 10'")?;
    setup.journal().wait_for_breach("sealed", "/srv")?;
    setup.journal().wait_for(RESTARTED, "sealed", 1)?;
    let look = bundle.bash(&runtime, "$R exec $ID grep -c ' /srv ' /proc/self/mounts")?;
    assert_eq!(look.stdout, "0\n", "{look:?}");
    bundle.bash(&runtime, "$R kill $ID KILL")?.success()?;
    delete(&bundle, &runtime)?;
    corner.left_nothing_since(&before)
}

#[test]
fn a_pause_and_the_death_of_the_supervisor_over_crun_leave_nothing() -> Result<()> {
    let (corner, setup) = over_crun()?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "pause", "exec sleep 1000")?;
    let runtime = Runtime::lithify(&setup, &["--rootfs", "tripwire", "--on-write", "pause"]);
    bundle.bash(&runtime, START)?.success()?;
    bundle.bash(&runtime, "$R exec --detach $ID touch /srv/new")?.success()?;
    setup.journal().wait_for_breach("pause", "/srv/new")?;
    eventually("the container to be paused", Duration::from_secs(5), || {
        Ok(bundle.bash(&runtime, "$R state $ID")?.stdout.contains("\"paused\"").then_some(()))
    })?;
    bundle.bash(&runtime, "$R resume $ID && $R exec $ID test -e /srv/new")?.success()?;
    let killed = format!("kill -KILL $(jq .supervisor.pid {}/$ID@*/record.json)", corner.state().display());
    bundle.bash(&runtime, &killed)?.success()?;
    eventually("the end of every process", Duration::from_secs(10), || {
        Ok(corner.processes()?.is_empty().then_some(()))
    })?;
    bundle.bash(&runtime, "$R delete $ID && $R delete --force $ID")?.success()?;
    corner.left_nothing_since(&before)
}
