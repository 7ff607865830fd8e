//! One replica is enforced before the others are, and what it is refused keeps them from it until somebody has looked.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bare::{Bundle, Runtime};
use crate::corner::Corner;
use crate::journal::STARTED;
use crate::learn::profile;
use crate::setup::Setup;

const WORK: &str = "while :; do [ -e /tmp/go ] && ln -s x /tmp/link 2>/dev/null; sleep 0.1; done";
/// Starts the bundle's container under another id.
const START: &str = "$R create --bundle $B --pid-file $B/pid REPLICA >/dev/null 2>&1 </dev/null && $R start REPLICA";
const END: &str = "$R kill REPLICA KILL; $R delete --force REPLICA";
const CANARY_FOR: Duration = Duration::from_secs(3);

#[test]
fn what_the_first_enforced_replica_is_refused_keeps_the_others_from_being_enforced_until_somebody_has_looked()
-> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::with(
        &corner,
        "mode = \"auto\"\non-refused-syscall = \"report\"\n[auto]\nstartup = \"1s\"\ncanary-for = \"3s\"\n",
    )?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "replicas", WORK)?;
    let runtime = Runtime::lithify(&setup, &[]);
    let run = |script: &str, id: &str| bundle.bash(&runtime, &script.replace("REPLICA", id))?.success();
    run(START, "learnt")?;
    run("$R exec REPLICA touch /tmp/here; sleep 1", "learnt")?;
    run(END, "learnt")?;
    let workload = profile(&setup)?.workload;
    let ctl =
        |args: &[&str]| corner.run(&[&[env!("CARGO_BIN_EXE_lithifyctl"), "--config", &setup.config], args].concat());
    ctl(&["profile", "promote", &workload, "--to", "enforcing", "--force"])?.success()?;

    let mode = |id: &str| -> Result<String> {
        run(START, id)?;
        let started = setup.journal().wait_for(STARTED, id, 1)?;
        Ok(started[0]["data"]["mode"].as_str().unwrap_or_default().to_owned())
    };
    ensure!((mode("one")?.as_str(), mode("two")?.as_str()) == ("enforce", "observe"));
    let status = ctl(&["status"])?.success()?;
    ensure!(status.contains("container one is enforced first"), "{status}");
    // Past its start-up, in which it would be observed again itself.
    sleep(Duration::from_millis(1200));
    run("$R exec REPLICA touch /tmp/go", "one")?;
    let waiting = setup.journal().wait_for("dev.lithify.profile.waiting", "one", 1)?;
    let data = waiting[0]["data"].to_string();
    ensure!(waiting.len() == 1 && data.contains("syscall symlink") && data.contains("profile allow"), "{waiting:#?}");

    sleep(CANARY_FOR);
    ensure!(mode("three")? == "observe", "it is enforced with what the first one was refused");
    let inspected = ctl(&["inspect", "three", "--json"])?.success()?;
    ensure!(
        inspected.contains("enforced in container one first") && inspected.contains("profile allow"),
        "{inspected}"
    );
    ctl(&["profile", "allow", &workload, "syscall symlink"])?.success()?;
    ensure!(mode("four")? == "enforce", "somebody has looked, and the time is over");
    for id in ["one", "two", "three", "four"] {
        run(END, id)?;
    }
    fs::remove_dir_all(&bundle.path)?;
    corner.left_nothing_since(&before)
}
