//! A node whose kernel limits for watches are used up: a container still starts, says what it lacks, and is scanned.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use lithify::sys::fanotify::{self, Reports};
use nix::sys::inotify::{InitFlags, Inotify};

use crate::bare::{Bundle, Runtime};
use crate::command::eventually;
use crate::corner::Corner;
use crate::journal::{EXITED, STARTED};
use crate::setup::Setup;

const START: &str = "$R create --bundle $B --pid-file $B/pid $ID >$B/out 2>&1 </dev/null && $R start $ID";

/// Takes every instance that the limit leaves; they are free again when this is dropped.
fn use_up<T>(mut take: impl FnMut() -> Result<T, i32>) -> Result<Vec<T>> {
    let mut held = Vec::new();
    loop {
        match take() {
            Ok(instance) => held.push(instance),
            Err(libc::EMFILE) => return Ok(held),
            Err(errno) => return Err(std::io::Error::from_raw_os_error(errno)).context("failed to use up a limit"),
        }
    }
}

fn fanotify_groups() -> Result<Vec<OwnedFd>> {
    use_up(|| fanotify::init(Reports { target_and_rename: true }).map_err(|e| e.raw_os_error().unwrap_or(0)))
}

fn inotify_instances() -> Result<Vec<Inotify>> {
    use_up(|| Inotify::init(InitFlags::IN_CLOEXEC).map_err(|e| e as i32))
}

/// Both limits are the node's: whatever else runs has to wait until this is over (see .config/nextest.toml).
#[test]
fn a_node_out_of_watches_starts_containers_says_so_and_finds_writes_by_other_means() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let runtime = Runtime::lithify(&setup, &["--rootfs", "tripwire"]);
    let journal = setup.journal();

    let groups = fanotify_groups()?;
    let bundle = Bundle::new(&corner, "no-fanotify", "exec sleep 1000")?;
    bundle.bash(&runtime, START)?.success()?;
    let started = journal.wait_for(STARTED, "no-fanotify", 1)?;
    ensure!(started[0]["data"]["degraded"].to_string().contains("fs.fanotify.max_user_groups"), "{started:?}");
    bundle.bash(&runtime, "$R exec $ID touch /srv/new")?;
    journal.wait_for_breach("no-fanotify", "/srv/new").context("inotify stands in for fanotify")?;
    bundle.bash(&runtime, "$R delete --force $ID")?.success()?;

    let instances = inotify_instances()?;
    let bundle = Bundle::new(&corner, "no-watch", "exec sleep 1000")?;
    bundle.bash(&runtime, START)?.success()?;
    let started = journal.wait_for(STARTED, "no-watch", 1)?;
    ensure!(started[0]["data"]["degraded"].to_string().contains("fs.inotify.max_user_instances"), "{started:?}");
    bundle.bash(&runtime, "$R exec $ID touch /srv/new")?.success()?;
    bundle.bash(&runtime, "$R kill $ID KILL")?.success()?;
    let breach = journal.wait_for_breach("no-watch", "/srv/new").context("the scan at the end is the truth")?;
    ensure!(breach["data"]["source"] == "scan", "{breach}");
    eventually("the last event", std::time::Duration::from_secs(10), || {
        Ok((!journal.of(EXITED, "no-watch")?.is_empty()).then_some(()))
    })?;
    drop((groups, instances));
    bundle.bash(&runtime, "$R delete $ID")?.success()?;
    Ok(())
}
