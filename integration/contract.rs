//! What no engine's own suite tells apart: signals, process groups, descriptors, output, the error record, statuses,
//! environments. Each is asked of runc and of lithify, and the answers must be the same.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bare::{Bundle, Runtime};
use crate::command::Outcome;
use crate::corner::Corner;
use crate::journal::EXEC;
use crate::setup::{RUNC, Setup};

/// Runs one script under runc, under lithify sealed, as a tripwire, and in mode off: each in a bundle of the same workload.
fn ask(corner: &Corner, workload: &str, script: &str, edit: impl Fn(&mut Value)) -> Result<Vec<(String, Outcome)>> {
    let setup = Setup::new(corner)?;
    let before = corner.traces()?;
    let mut answers = Vec::new();
    for (id, runtime) in [
        ("it-is-plain", Runtime::plain(RUNC)),
        ("it-is-sealed", Runtime::lithify(&setup, &[])),
        ("it-is-trip", Runtime::lithify(&setup, &["--rootfs", "tripwire"])),
        ("it-is-off", Runtime::lithify(&setup, &["--mode", "off"])),
    ] {
        let bundle = Bundle::new(corner, id, workload)?;
        bundle.edit(&edit)?;
        let mut outcome = bundle.bash(&runtime, script)?;
        // What names the container or its bundle differs by nature.
        for text in [&mut outcome.stdout, &mut outcome.stderr] {
            *text = text.replace(bundle.dir()?, "BUNDLE").replace(id, "ID");
            // `run` is made of a create and a start; runc's message names the verb that it was given.
            *text = text.replace("runc run failed", "runc create failed");
        }
        corner.left_nothing_since(&before)?;
        answers.push((id.to_owned(), outcome));
    }
    Ok(answers)
}

fn all_as_runc(answers: &[(String, Outcome)]) -> Result<()> {
    let plain = &answers[0].1;
    for (id, outcome) in &answers[1..] {
        ensure!(
            (outcome.code, &outcome.stdout, &outcome.stderr) == (plain.code, &plain.stdout, &plain.stderr),
            "{id}: {outcome:?}, under runc: {plain:?}"
        );
    }
    Ok(())
}

#[test]
fn run_adds_nothing_to_stdout_or_stderr_and_gives_the_workloads_status() -> Result<()> {
    let corner = Corner::new()?;
    let answers = ask(&corner, "echo out; echo err >&2; exit 42", "$R run --bundle $B $ID", |_| ())?;
    let plain = &answers[0].1;
    assert_eq!((plain.code, plain.stdout.as_str(), plain.stderr.as_str()), (42, "out\n", "err\n"));
    all_as_runc(&answers)
}

#[test]
fn create_start_state_exec_ps_kill_and_delete_print_what_runc_prints() -> Result<()> {
    let script = r#"
        $R create --bundle $B --pid-file $B/pid $ID >$B/out 2>&1 </dev/null; echo "create $? $(cat $B/out)"
        $R state $ID | jq -c --argjson pid $(cat $B/pid) '.pid = (.pid == $pid) | del(.created, .bundle, .rootfs)'
        $R list | grep -c "^$ID *$(cat $B/pid) *created"; $R list --format json | jq -c --argjson pid $(cat $B/pid) '[.[].pid == $pid]'
        $R start $ID; echo "start $?"
        $R start $ID; echo "start again $?"
        $R exec $ID sh -c 'echo out; echo err >&2; exit 3'; echo "exec $?"
        $R ps $ID | tail -n +2 | wc -l
        $R ps --format json $ID | jq length
        $R delete $ID; echo "delete of what runs $?"
        kill -0 $(cat $B/pid) && echo "the engine's pid lives"
        $R kill $ID KILL; echo "kill $?"
        for i in $(seq 200); do $R state $ID | grep -q '"stopped"' && break; sleep 0.05; done
        $R delete $ID; echo "delete $?"
        $R delete $ID; echo "delete again $?"
        $R delete --force $ID; echo "forced delete $?""#;
    let corner = Corner::new()?;
    all_as_runc(&ask(&corner, "exec sleep 1000", script, |_| ())?)
}

#[test]
fn a_signal_to_a_foreground_run_reaches_the_workload_once() -> Result<()> {
    let workload = "trap 'echo got TERM' TERM; trap 'echo got USR1' USR1; trap 'echo got HUP; exit 5' HUP; echo up
        while :; do sleep 0.1; done";
    let script = r#"
        until_line() { for i in $(seq 200); do grep -q "$1" $B/out && return; sleep 0.05; done; echo "no $1"; }
        : >$B/out; $R run --bundle $B $ID >$B/out & p=$!
        until_line up; kill -TERM $p; until_line TERM; kill -USR1 $p; until_line USR1; kill -HUP $p
        wait $p; echo "status $?"; cat $B/out"#;
    let corner = Corner::new()?;
    let answers = ask(&corner, workload, script, |_| ())?;
    assert_eq!(answers[0].1.stdout, "status 5\nup\ngot TERM\ngot USR1\ngot HUP\n");
    all_as_runc(&answers)
}

#[test]
fn the_parent_death_signal_that_a_caller_has_set_still_reaches_the_workload() -> Result<()> {
    let workload = "trap 'echo got TERM; exit' TERM; echo up; while :; do sleep 0.1; done";
    let script = r#"
        until_line() { for i in $(seq 200); do grep -q "$1" $B/out && return; sleep 0.05; done; echo "no $1"; }
        export R B ID; : >$B/out
        bash -c 'setpriv --pdeathsig TERM $R run --bundle $B $ID >$B/out & sleep 1000' >/dev/null 2>&1 & p=$!
        until_line up; kill -KILL $p; until_line TERM; cat $B/out
        pkill -KILL -x -f 'sleep 1000'; wait 2>/dev/null"#;
    let corner = Corner::new()?;
    let answers = ask(&corner, workload, script, |_| ())?;
    assert_eq!(answers[0].1.stdout, "up\ngot TERM\n");
    ensure!(answers.iter().all(|(_, outcome)| outcome.stdout == "up\ngot TERM\n"), "{answers:?}");
    Ok(())
}

#[test]
fn a_foreground_run_stays_in_its_callers_process_group_and_session() -> Result<()> {
    let script = r#"
        $R run --bundle $B $ID >$B/out & p=$!
        for i in $(seq 200); do grep -q up $B/out && break; sleep 0.05; done
        [ "$(ps -o pgid=,sid= -p $p)" = "$(ps -o pgid=,sid= -p $$)" ] && echo same
        $R kill $ID KILL; wait $p; echo $?"#;
    let corner = Corner::new()?;
    let answers = ask(&corner, "echo up; exec sleep 1000", script, |_| ())?;
    assert_eq!(answers[0].1.stdout, "same\n137\n");
    all_as_runc(&answers)
}

#[test]
fn inherited_descriptors_reach_the_workload_by_preserve_fds_and_by_listen_fds() -> Result<()> {
    let workload = "cat <&3; echo LISTEN_FDS=$LISTEN_FDS LISTEN_PID=$LISTEN_PID; ls /proc/self/fd | wc -l";
    let corner = Corner::new()?;
    let script = r#"echo "from the caller" >$B/file; $R run --preserve-fds 1 --bundle $B $ID 3<$B/file"#;
    let answers = ask(&corner, workload, script, |_| ())?;
    ensure!(answers[0].1.stdout.starts_with("from the caller\nLISTEN_FDS= "), "{answers:?}");
    all_as_runc(&answers)?;
    let corner = Corner::new()?;
    let script = r#"echo "from a socket" >$B/file; export R
        bash -c 'LISTEN_FDS=1 LISTEN_PID=$$ exec $R run --bundle $B $ID 3<$B/file'"#;
    let answers = ask(&corner, workload, script, |_| ())?;
    ensure!(answers[0].1.stdout.starts_with("from a socket\nLISTEN_FDS=1 LISTEN_PID=1"), "{answers:?}");
    all_as_runc(&answers)
}

#[test]
fn a_restarted_generation_has_the_descriptors_of_the_first() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let bundle = Bundle::new(&corner, "fds", "readlink /proc/self/fd/3 >&2; exec sleep 1000")?;
    let runtime = Runtime::lithify(&setup, &["--rootfs", "tripwire"]);
    let script = r#"
        : >$B/file; $R run --preserve-fds 1 --bundle $B $ID 3<$B/file >/dev/null 2>$B/err & p=$!
        lines() { for i in $(seq 200); do [ "$(wc -l <$B/err)" = $1 ] && return; sleep 0.05; done; echo "never $1"; }
        lines 1; $R exec $ID touch /srv/new; lines 2; sort -u $B/err | wc -l
        $R kill $ID KILL; wait $p; echo $?"#;
    assert_eq!(bundle.bash(&runtime, script)?.stdout, "1\n137\n");
    Ok(())
}

#[test]
fn programs_that_are_missing_or_not_executable_give_runcs_words_status_and_error_record() -> Result<()> {
    for program in ["/no/such/program", "/srv/file"] {
        let corner = Corner::new()?;
        let script = r#"
            $R --log $B/log --log-format json run --bundle $B $ID; echo "run $?"
            jq -c 'select(.level == "error") | .msg' $B/log
            $R --log $B/log2 --log-format json create --bundle $B --pid-file $B/pid $ID >/dev/null 2>&1; echo "create $?"
            jq -c 'select(.level == "error") | .msg' $B/log2 | tail -n 1"#;
        all_as_runc(&ask(&corner, "", script, |spec| spec["process"]["args"] = json!([program]))?)?;
    }
    Ok(())
}

#[test]
fn a_run_with_a_terminal_that_fails_tells_the_caller_why_in_runcs_words() -> Result<()> {
    let script = r#"
        export R B ID
        script -qec '$R run --bundle $B $ID 2>$B/err' /dev/null </dev/null >/dev/null; echo "status $?"
        script -qec '$R --debug run --bundle $B $ID 2>$B/debug' /dev/null </dev/null >/dev/null; echo "status $?"
        grep -c 'level=debug .*nsexec container setup' $B/debug; cat $B/err"#;
    let corner = Corner::new()?;
    let answers = ask(&corner, "", script, |spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["args"] = json!(["/no/such"]);
    })?;
    ensure!(answers[0].1.stdout.starts_with("status 1\nstatus 1\n2\n"), "{answers:?}");
    ensure!(answers[0].1.stdout.contains("stat /no/such: no such file or directory"), "{answers:?}");
    all_as_runc(&answers)
}

#[test]
fn podmans_empty_environment_is_enough_for_start_kill_and_delete() -> Result<()> {
    let script = r#"
        $R create --bundle $B $ID >$B/out 2>&1 </dev/null; echo "create $?"
        e="env -i XDG_RUNTIME_DIR=/run/user/0"
        $e $R start $ID; echo "start $?"
        $e $R kill $ID KILL; echo "kill $?"
        for i in $(seq 200); do $e $R state $ID | grep -q '"stopped"' && break; sleep 0.05; done
        $e $R delete $ID; echo "delete $?""#;
    let corner = Corner::new()?;
    let answers = ask(&corner, "exec sleep 1000", script, |_| ())?;
    assert_eq!(answers[0].1.stdout, "create 0\nstart 0\nkill 0\ndelete 0\n");
    all_as_runc(&answers)
}

#[test]
fn mode_off_leaves_config_json_and_the_process_tree_as_runc_does() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let script = r#"
        sum() { stat -c '%i %Y %Z' $B/config.json; sha256sum <$B/config.json; }
        was=$(sum); $R create --bundle $B --pid-file $B/pid $ID >/dev/null 2>&1 </dev/null; $R start $ID
        [ "$(sum)" = "$was" ] && echo untouched
        # runc's own process becomes the workload a moment after start has returned.
        for _ in $(seq 100); do grep -q ^sleep /proc/$(cat $B/pid)/cmdline && break; sleep 0.05; done
        tr '\0' ' ' </proc/$(cat $B/pid)/cmdline; echo
        ps -e -o args= | grep -c "[b]undles/$ID"
        $R delete --force $ID"#;
    let mut answers = Vec::new();
    for (id, runtime) in [("plain", Runtime::plain(RUNC)), ("off", Runtime::lithify(&setup, &["--mode", "off"]))] {
        let outcome = Bundle::new(&corner, id, "exec sleep 1000")?.bash(&runtime, script)?;
        answers.push((outcome.code, outcome.stdout));
    }
    assert_eq!(answers[0].1.lines().next(), Some("untouched"));
    assert_eq!(answers[0], answers[1]);
    Ok(())
}

#[test]
fn an_exec_session_cannot_exceed_the_containers_capabilities_or_privileges_and_is_an_event() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let bundle = Bundle::new(&corner, "execs", "exec sleep 1000")?;
    let runtime = Runtime::lithify(&setup, &[]);
    let caps = json!(["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_KILL"]);
    let process = json!({
        "args": ["grep", "-E", "^(CapEff|CapBnd|NoNewPrivs)", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0}, "noNewPrivileges": false,
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
    });
    std::fs::write(bundle.path.join("process.json"), serde_json::to_vec(&process)?)?;
    let script = r#"
        $R create --bundle $B --pid-file $B/pid $ID >/dev/null 2>&1 </dev/null; $R start $ID
        $R exec --process $B/process.json $ID
        $R delete --force $ID"#;
    let outcome = bundle.bash(&runtime, script)?;
    // runc spec grants KILL, NET_BIND_SERVICE and AUDIT_WRITE, and sets no_new_privs: KILL alone is in both.
    let kill = format!("{:016x}", 1 << 5);
    for line in ["NoNewPrivs:\t1".to_owned(), format!("CapEff:\t{kill}"), format!("CapBnd:\t{kill}")] {
        ensure!(outcome.stdout.contains(&line), "expected {line}: {outcome:?}");
    }
    setup.journal().wait_for(EXEC, "execs", 1)?;
    Ok(())
}
