//! A program that tidies up after its earlier lives: learnt where all of it could be written, enforced where nothing can.

use std::fs;

use anyhow::{Result, ensure};

use crate::bare::{Bundle, Runtime};
use crate::corner::Corner;
use crate::journal::{BREACH, RESTARTED};
use crate::learn::profile;
use crate::setup::Setup;

/// The same for every life.
const RUN: &str = "$R run --bundle $B $ID </dev/null; code=$?; $R delete --force $ID 2>/dev/null; exit $code";

/// Lets a bundle's work be learnt over two lives, and enforces it from then on.
fn learn(corner: &Corner, setup: &Setup, bundle: &Bundle<'_>) -> Result<()> {
    for _ in 0..2 {
        let learnt = bundle.bash(&Runtime::lithify(setup, &["--mode", "learn"]), RUN)?.success()?;
        ensure!(learnt.ends_with("worked"), "{learnt}");
    }
    let workload = profile(setup)?.workload;
    let lithifyctl = env!("CARGO_BIN_EXE_lithifyctl");
    let promote = ["profile", "promote", &workload, "--to", "enforcing", "--force"];
    corner.run(&[&[lithifyctl, "--config", &setup.config][..], &promote].concat())?.success()?;
    Ok(())
}

/// One enforced life, which works and is not alarmed about.
fn is_quiet(setup: &Setup, bundle: &Bundle<'_>) -> Result<()> {
    let outcome = bundle.bash(&Runtime::lithify(setup, &[]), RUN)?;
    let journal = setup.journal();
    let alarms = [journal.of(BREACH, &bundle.id)?, journal.of(RESTARTED, &bundle.id)?].concat();
    ensure!(outcome.stdout == "worked\n" && alarms.is_empty(), "{outcome:?}: {alarms:#?}");
    Ok(())
}

#[test]
fn what_read_only_mounts_of_the_engines_refused_while_learning_is_known_when_enforced() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let work = "echo 1 >/proc/sys/kernel/hostname; echo 1 >/sys/kernel/profiling; echo worked; exec sleep 2";
    let bundle = Bundle::new(&corner, "kernel-settings", work)?;
    learn(&corner, &setup, &bundle)?;
    is_quiet(&setup, &bundle)
}

/// Removes its stale pid file, socket and folder, as servers do without a look whether they are there. Once there is an
/// intruder, it removes what the image has.
const WORK: &str = "busybox unlink /srv/app.pid; busybox unlink /srv/app.sock; busybox rmdir /srv/app.d; \
                    [ -e /srv/intruder ] && busybox unlink /srv/file; echo worked; exec sleep 2";

#[test]
fn a_program_that_removes_stale_files_of_its_own_is_not_alarmed_about_and_one_that_removes_the_images_is() -> Result<()>
{
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "tidy", WORK)?;
    learn(&corner, &setup, &bundle)?;
    is_quiet(&setup, &bundle)?;
    let journal = setup.journal();

    fs::write(bundle.path.join("rootfs/srv/intruder"), "")?;
    fs::write(bundle.path.join("rootfs/srv/file"), "of the image")?;
    bundle.bash(&Runtime::lithify(&setup, &[]), RUN)?;
    let breach = journal.wait_for_breach("tidy", "/srv/file")?;
    ensure!(breach["data"]["kind"] == "refused-write" && breach["data"]["operation"] == "remove", "{breach}");
    ensure!(breach["data"]["response"] != "report", "{breach}");
    let named = journal.of(BREACH, "tidy")?.iter().any(|event| event.to_string().contains("/srv/app."));
    ensure!(!named, "what was not there is named: {breach}");
    fs::remove_dir_all(&bundle.path)?;
    corner.left_nothing_since(&before)
}
