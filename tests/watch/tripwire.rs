//! The tripwire against real overlays.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lithify::watch::{ChangeKind, Drained, Image, TripwireWatch, WatchError};
use nix::poll::PollFlags;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::ops::{self, OPS};
use crate::world::{USER, World, private_mounts, ready, told, until};

fn watch(world: &World) -> TripwireWatch {
    TripwireWatch::new(world.open("tmpfs"), Path::new("upper"), world.image()).expect("fanotify works here")
}

/// Runs an operation in a thread of its own, as this user.
fn run_as(uid: u32, run: fn(&Path), root: &Path) {
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            setfsgid(Gid::from_raw(uid));
            setfsuid(Uid::from_raw(uid));
            run(root);
        });
        done.join().expect("the operation works");
    });
}

fn every_operation_is_told(uid: u32) {
    private_mounts();
    let mut wrong = Vec::new();
    for op in OPS {
        let world = World::new();
        let mut watch = watch(&world);
        run_as(uid, op.run, &world.merged());
        let drained = watch.drain().expect("drained");
        let expected: Vec<_> = op.told.iter().map(|(kind, path)| (*kind, (*path).to_owned())).collect();
        if told(&drained) != expected || drained.overflow {
            wrong.push(format!("{}: {:?}, expected {expected:?}", op.name, told(&drained)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_operation_of_root_is_one_change_with_its_path() {
    every_operation_is_told(0);
}

#[test]
fn every_operation_of_an_unprivileged_user_is_one_change_with_its_path() {
    every_operation_is_told(USER);
}

#[test]
fn the_first_change_told_while_an_operation_is_under_way_has_its_path() {
    private_mounts();
    let mut wrong = Vec::new();
    for op in OPS {
        let world = World::new();
        let mut watch = watch(&world);
        let root = world.merged();
        let all = thread::scope(|scope| {
            scope.spawn(|| (op.run)(&root));
            assert!(ready(watch.fd(), PollFlags::POLLIN), "{} gives an event", op.name);
            until(|| watch.drain().expect("drained"), |_| true).expect("a change")
        });
        let paths: Vec<_> = all.iter().map(|c| c.path.display().to_string()).collect();
        // What has several steps may be told by its first one.
        let steps = ["/w/.new.tmp", "/w/a", "/w/sub/s", "/w/empty", "/w/sub"];
        if !op.told.iter().any(|(_, path)| paths.contains(&(*path).to_owned()))
            && !paths.iter().any(|p| steps.contains(&p.as_str()))
        {
            wrong.push(format!("{}: {paths:?}", op.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn after(run: impl FnOnce(&Path)) -> Drained {
    private_mounts();
    let world = World::new();
    let mut watch = watch(&world);
    run(&world.merged());
    watch.drain().expect("drained")
}

#[test]
fn nested_write_in_a_new_directory_is_reported_with_its_path() {
    let drained = after(|root| {
        fs::create_dir_all(root.join("a/b/c")).expect("made");
        fs::write(root.join("a/b/c/f"), "x").expect("written");
    });
    assert!(told(&drained).contains(&(ChangeKind::Create, "/a/b/c/f".to_owned())), "{drained:?}");
}

#[test]
fn copy_up_of_an_image_file_is_a_modify() {
    let drained = after(|root| fs::write(root.join("etc/deep/conf"), "x").expect("written"));
    assert_eq!(told(&drained), [(ChangeKind::Modify, "/etc/deep/conf".to_owned())]);
}

#[test]
fn a_rename_names_the_old_path_in_its_detail() {
    let drained = after(|root| fs::rename(root.join("etc/passwd"), root.join("etc/shadow")).expect("renamed"));
    assert_eq!(drained.changes[0].detail.as_deref(), Some("/etc/passwd"));
}

#[test]
fn the_process_that_wrote_is_named() {
    let drained = after(|root| fs::write(root.join("f"), "x").expect("written"));
    let culprit = drained.changes[0].culprit.as_ref().expect("a culprit");
    assert_eq!(culprit.pid, std::process::id() as i32);
    assert_eq!(culprit.exe, std::env::current_exe().ok());
}

#[test]
fn a_write_to_a_file_without_a_name_is_a_change() {
    let drained = after(|root| ops::unnamed(root, false));
    assert_eq!(drained.changes.len(), 1, "{drained:?}");
    assert!(drained.changes[0].path.starts_with("/w/"), "{drained:?}");
}

#[test]
fn deletions_in_a_directory_that_is_gone_have_their_path() {
    private_mounts();
    let world = World::new();
    let mut watch = watch(&world);
    fs::create_dir_all(world.merged().join("x/y")).expect("made");
    fs::write(world.merged().join("x/y/f"), "x").expect("written");
    assert!(!watch.drain().expect("drained").is_empty());
    fs::remove_dir_all(world.merged().join("x")).expect("removed");
    let drained = watch.drain().expect("drained");
    for path in ["/x/y/f", "/x/y", "/x"] {
        assert!(told(&drained).contains(&(ChangeKind::Delete, path.to_owned())), "{drained:?}");
    }
}

#[test]
fn reading_is_no_change() {
    let drained = after(|root| {
        fs::read(root.join("etc/passwd")).expect("read");
        fs::read_dir(root.join("w")).expect("listed").for_each(drop);
        assert!(fs::create_dir(root.join("w/sub")).is_err());
    });
    assert!(drained.is_empty(), "{drained:?}");
}

#[test]
fn queue_overflow_is_said() {
    private_mounts();
    let world = World::new();
    let mut watch = watch(&world);
    let limit: usize = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events")
        .expect("a limit")
        .trim()
        .parse()
        .expect("a number");
    for i in 0..=limit {
        fs::File::create(world.merged().join(format!("w/{i}"))).expect("created");
    }
    let end = Instant::now() + Duration::from_secs(30);
    let mut changes = 0;
    loop {
        let drained = watch.drain().expect("drained");
        changes += drained.changes.len();
        if drained.overflow {
            break;
        }
        assert!(Instant::now() < end, "no overflow after {changes} changes");
    }
}

#[test]
fn a_storm_is_taken_in_bounded_parts() {
    let drained = after(|root| {
        for i in 0..5000 {
            fs::File::create(root.join(format!("w/{i}"))).expect("created");
        }
    });
    assert!(drained.changes.len() >= 1000 && drained.changes.len() <= 4096, "{}", drained.changes.len());
}

#[test]
fn fanotify_group_limit_is_named() {
    private_mounts();
    let world = World::new();
    let mut held = Vec::new();
    let error = loop {
        match TripwireWatch::new(world.open("tmpfs"), Path::new("upper"), Image::default()) {
            Ok(watch) => held.push(watch),
            Err(error) => break error,
        }
        assert!(held.len() < 4096, "no limit");
    };
    drop(held);
    assert!(
        matches!(error, WatchError::LimitReached { sysctl: "fs.fanotify.max_user_groups", current: Some(_) }),
        "{error:?}"
    );
}

#[test]
fn a_filesystem_without_file_handles_is_unsupported() {
    private_mounts();
    let proc: std::os::fd::OwnedFd = fs::File::open("/proc").expect("opened").into();
    let error = TripwireWatch::new(proc, Path::new("self"), Image::default()).expect_err("proc has no handles");
    assert!(matches!(error, WatchError::Unsupported { .. }), "{error:?}");
}

#[test]
fn half_of_all_writes_are_drained_within_a_millisecond() {
    private_mounts();
    let world = World::new();
    let mut watch = watch(&world);
    let mut plain = Vec::new();
    let mut copied = Vec::new();
    for i in 0..200 {
        for (path, times) in [(format!("w/n{i}"), &mut plain), (format!("w/sub/c{i}"), &mut copied)] {
            let began = Instant::now();
            fs::write(world.merged().join(&path), "x").expect("written");
            assert!(ready(watch.fd(), PollFlags::POLLIN));
            let drained = watch.drain().expect("drained");
            times.push(began.elapsed());
            assert!(told(&drained).iter().any(|(_, p)| p.ends_with(&path)), "{drained:?}");
        }
    }
    for (what, times) in [("in an upper directory", &mut plain), ("in a lower directory", &mut copied)] {
        times.sort();
        let (median, p99) = (times[100], times[198]);
        eprintln!("write {what} to drained change: median {median:?}, p99 {p99:?}");
        // The tail is the machine's: other programs run on it while this is measured.
        assert!(median < Duration::from_millis(1), "{median:?}");
    }
}
