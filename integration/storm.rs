//! A thousand random writes on each kind of root: on a tripwire every one is told with its path and undone to the last
//! attribute; on a sealed root none lands, whoever tries and whatever was remounted before.
//!
//! The writes are made by a program of ours, `storm/*.c`, static, so that it runs in any image. It is C because it is
//! little but system calls, and because a C compiler is here anyway: Rust links with it, and the pause image is made by it.

mod judge;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::eventually;
use crate::corner::Corner;
use crate::journal::{BREACH, ESCALATED, EXITED, RESTARTED};
use crate::setup::Setup;
use judge::Footprint;
use writer::{Heard, Image, USER, Writer};

const SEQUENCES: u64 = 1000;
/// By when whatever grows only at first has grown.
const WARM: u64 = 100;

/// Root and an unprivileged user in turn.
fn user_of(seed: u64) -> u32 {
    if seed.is_multiple_of(2) { 0 } else { USER }
}

/// What is absent on a developer's machine may be missing from the storm, not in CI.
fn absent(what: &BTreeSet<String>) -> Result<()> {
    for name in what {
        ensure!(std::env::var_os("CI").is_none(), "this kernel lacks or refuses {name}");
        println!("not tried, since this kernel lacks or refuses it: {name}");
    }
    Ok(())
}

#[test]
fn a_thousand_random_writes_on_a_tripwire_are_each_a_breach_with_the_right_path_and_leave_the_image_untouched()
-> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::with(&corner, "restart-limit = \"1000/1s\"\n")?;
    let before = corner.traces()?;
    let image = Image::new(&corner, "storm")?;
    let mut writer = Writer::start(&corner, &setup, &image, &["--rootfs", "tripwire"])?;
    let (mut sequences, mut missing) = (Vec::new(), BTreeSet::new());
    let mut warm = None;
    writer.expect_pristine(&image).context("generation 1")?;
    for seed in 0..SEQUENCES {
        let told = || format!("seed {seed}, user {}", user_of(seed));
        writer.send(&format!("run {seed} {}", user_of(seed)))?;
        let heard = writer.until_ready().with_context(told).with_context(|| judge::last_events(&setup))?;
        for said in &heard {
            match said {
                Heard::Done { name, errno } if *errno != 0 => {
                    anyhow::bail!("{}: {name} failed with {}", told(), std::io::Error::from_raw_os_error(*errno))
                }
                Heard::Absent(name) => drop(missing.insert(name.clone())),
                _ => {}
            }
        }
        let after = || format!("after {}: {heard:?}; {}", told(), judge::last_events(&setup));
        writer.expect_pristine(&image).with_context(after)?;
        sequences.push(heard);
        if seed == WARM {
            warm = Some(Footprint::of(&corner)?);
        }
    }
    let warm = warm.context("no footprint was taken")?;
    eventually("the supervisor as small as it was", Duration::from_secs(10), || {
        let now = Footprint::of(&corner)?;
        warm.not_outgrown_by(&now).map(|()| Some(now))
    })
    .map(|now| println!("the supervisor after {WARM} and after {SEQUENCES} restarts: {warm:?}, {now:?}"))?;
    writer.end()?;
    let journal = setup.journal();
    journal.wait_for(EXITED, "storm", 1)?;
    assert_eq!(journal.of(RESTARTED, "storm")?.len() as u64, SEQUENCES);
    assert_eq!(journal.of(ESCALATED, "storm")?.len(), 0);
    judge::breaches(&journal.of(BREACH, "storm")?, &sequences)?;
    absent(&missing)?;
    corner.left_nothing_since(&before)
}

#[test]
fn a_thousand_random_writes_on_a_sealed_root_are_all_refused_also_with_sys_admin_and_after_remount() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let before = corner.traces()?;
    let image = Image::new(&corner, "stone")?;
    // A remount is a breach; here the workload is to go on after it.
    let mut writer = Writer::start(&corner, &setup, &image, &["--on-write", "report"])?;
    writer.expect_pristine(&image)?;
    let (mut refusals, mut missing) = (BTreeMap::<(String, i32), u64>::new(), BTreeSet::new());
    for seed in 0..SEQUENCES {
        if seed == SEQUENCES / 2 {
            writer.send("remount")?;
            let results = writer.until_remounted()?;
            println!("remount, remount,bind, mount_setattr, unshare, remount in the new namespace: {results:?}");
        }
        writer.send(&format!("run {seed} {}", user_of(seed)))?;
        for said in writer.until_end().with_context(|| format!("seed {seed}"))? {
            match said {
                Heard::Done { name, errno: 0 } => anyhow::bail!("seed {seed}, user {}: {name} landed", user_of(seed)),
                Heard::Done { name, errno } => *refusals.entry((name, errno)).or_default() += 1,
                Heard::Absent(name) => drop(missing.insert(name)),
                _ => {}
            }
        }
    }
    let total: u64 = refusals.values().sum();
    ensure!(total >= SEQUENCES, "only {total} refusals");
    for ((name, errno), count) in &refusals {
        ensure!(
            *errno == libc::EROFS,
            "{name} was refused {count} times with {}",
            std::io::Error::from_raw_os_error(*errno)
        );
    }
    writer.send("manifest")?;
    writer.until_ready_or_listed()?;
    writer.expect_pristine(&image)?;
    writer.end()?;
    absent(&missing)?;
    corner.left_nothing_since(&before)
}
