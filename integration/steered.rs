//! What somebody decided by hand, in a container that is enforced by its profile.

use std::fs;

use anyhow::{Result, ensure};

use crate::bare::{Bundle, Runtime};
use crate::corner::Corner;
use crate::journal::{BREACH, STARTED};
use crate::learn::profile;
use crate::setup::Setup;

const RUN: &str = "$R run --bundle $B $ID </dev/null; code=$?; $R delete --force $ID 2>/dev/null; exit $code";
/// Once there is a word to it, it runs two programs that it brought.
const WORK: &str = "cp /bin/busybox /tmp/x; /srv/rm /tmp/x; [ -e /srv/tools ] && { cp /bin/busybox /tmp/busybox; /tmp/busybox \
                    true && echo ran; cp /bin/busybox /tmp/other; /tmp/other true || echo kept; }; echo worked; exec sleep 2";

#[test]
fn a_program_that_was_allowed_runs_in_an_enforced_container_and_one_beside_it_or_a_denied_one_does_not() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "steered", WORK)?;
    let rootfs = bundle.path.join("rootfs");
    fs::copy(rootfs.join("usr/bin/busybox"), rootfs.join("srv/rm"))?;
    bundle.annotate("on-write", "report")?;
    let learnt = bundle.bash(&Runtime::lithify(&setup, &["--mode", "learn"]), RUN)?.success()?;
    ensure!(learnt == "worked", "{learnt}");
    let workload = profile(&setup)?.workload;
    let ctl =
        |args: &[&str]| corner.run(&[&[env!("CARGO_BIN_EXE_lithifyctl"), "--config", &setup.config], args].concat());
    ctl(&["profile", "promote", &workload, "--to", "enforcing", "--force"])?.success()?;
    ctl(&["profile", "allow", &workload, "program /tmp/busybox"])?.success()?;
    let planned = ctl(&["plan", bundle.dir()?])?.success()?;
    ensure!(
        planned.contains("programs in it run") && planned.contains("program /tmp/busybox is allowed by hand"),
        "{planned}"
    );

    fs::write(rootfs.join("srv/tools"), "")?;
    let outcome = bundle.bash(&Runtime::lithify(&setup, &[]), RUN)?;
    let breaches = setup.journal().of(BREACH, &bundle.id)?;
    ensure!(outcome.stdout == "ran\nkept\nworked\n", "{outcome:?} {breaches:#?}");
    let items: Vec<&str> = breaches.iter().filter_map(|event| event["data"]["item"].as_str()).collect();
    ensure!(items == ["program /tmp/other"], "{breaches:#?}");
    ensure!(breaches[0]["data"]["killed"] == true, "{breaches:#?}");

    // By the name of a link to its folder it would be another one.
    let linked = ctl(&["profile", "deny", &workload, "program /bin/busybox"])?;
    ensure!(linked.code == 1 && linked.stderr.contains("deny 'program /usr/bin/busybox'"), "{linked:?}");
    let denied = ctl(&["profile", "deny", &workload, "program /srv/rm"])?.success()?;
    ensure!(denied.contains("killed before it begins") && denied.contains("in 1 of 1 lives"), "{denied}");
    let outcome = bundle.bash(&Runtime::lithify(&setup, &[]), RUN)?;
    let breaches = setup.journal().of(BREACH, &bundle.id)?;
    ensure!(outcome.stdout == "ran\nkept\nworked\n", "{outcome:?} {breaches:#?}");
    let denied = breaches.iter().find(|event| event["data"]["kind"] == "denied-program");
    let told = denied.map(|event| (&event["data"]["item"], &event["data"]["killed"]));
    ensure!(told == Some((&"program /srv/rm".into(), &true.into())), "{breaches:#?}");
    fs::remove_dir_all(&bundle.path)?;
    corner.left_nothing_since(&before)
}

#[test]
fn a_container_is_guarded_also_where_our_programs_lie_on_an_overlay_of_the_hosts() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "extended", "touch /etc/x 2>/dev/null; echo worked")?;
    bundle.annotate("on-write", "report")?;
    bundle.bash(&Runtime::lithify(&setup, &["--mode", "learn"]), RUN)?.success()?;
    let workload = profile(&setup)?.workload;
    let ctl =
        |args: &[&str]| corner.run(&[&[env!("CARGO_BIN_EXE_lithifyctl"), "--config", &setup.config], args].concat());
    ctl(&["profile", "promote", &workload, "--to", "enforcing", "--force"])?.success()?;
    // As an extension of an immutable host brings them, on one whose mounts are private, as those without systemd are.
    let script = format!(
        "programs=$(dirname {}); mkdir $B/none $B/programs; \
         mount -t overlay overlay -o lowerdir=$programs:$B/none $B/programs; \
         mount --make-private $B/programs; run() {{ {RUN}; }}; \
         R=\"$B/programs/${{R#$programs/}}\"; (run); umount $B/programs",
        setup.lithify
    );
    let outcome = bundle.bash(&Runtime::lithify(&setup, &[]), &script)?;
    ensure!(outcome.stdout == "worked\n", "{outcome:?}");
    let started = setup.journal().of(STARTED, &bundle.id)?;
    let last = started.last().map(|event| event["data"].clone()).unwrap_or_default();
    ensure!(last["mode"] == "enforce" && !last["degraded"].to_string().contains("guard"), "{last:#}");
    fs::remove_dir_all(&bundle.path)?;
    corner.left_nothing_since(&before)
}
