//! The tripwire against real overlays.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lithify::sys::fanotify::Reports;
use lithify::watch::{ChangeKind, Drained, Image, TripwireWatch, WatchError};
use nix::mount::{MntFlags, umount2};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::ops::{self, OPS};
use crate::world::{USER, World, open_dir, private_mounts, told, until, without_any};

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
            // No poll: a drain may come between any two of an operation's events.
            until(|| watch.drain().expect("drained"), |_| true).expect("a change")
        });
        let paths: Vec<_> = all.iter().map(|c| c.path.display().to_string()).collect();
        let first = paths.first().map(String::as_str).unwrap_or_default();
        // What a user does in several steps may be told by its first one.
        let is_first_step = match op.name {
            "rename of what is new" if first == "/w/.new.tmp" => true,
            "rm -r" if first == "/w/sub/s" => true,
            _ => op.told.iter().any(|(_, path)| *path == first),
        };
        if !is_first_step {
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
fn without_target_handles_every_operation_still_has_its_path() {
    private_mounts();
    let mut wrong = Vec::new();
    for op in OPS {
        let world = World::new();
        let basic = Reports { target_and_rename: false };
        let mut watch = TripwireWatch::with_reports(world.open("tmpfs"), Path::new("upper"), world.image(), basic)
            .expect("fanotify works here");
        (op.run)(&world.merged());
        let drained = watch.drain().expect("drained");
        // What was in a directory that is gone can't be named on such a kernel; the directory is.
        if op.told.iter().any(|(_, path)| *path != "/w/sub/s" && !told(&drained).iter().any(|(_, p)| p == path)) {
            wrong.push(format!("{}: {:?}, expected {:?}", op.name, told(&drained), op.told));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_copy_up_that_takes_long_is_told_as_one_modify_of_its_file() {
    private_mounts();
    let world = World::new();
    fs::write(world.path("image/etc/big"), vec![7; 48 << 20]).expect("written");
    let mut watch = watch(&world);
    let path = world.merged().join("etc/big");
    let all = thread::scope(|scope| {
        scope.spawn(|| fs::OpenOptions::new().append(true).open(&path).expect("opened").write_all(b"x"));
        until(|| watch.drain().expect("drained"), |_| true).expect("a change")
    });
    let told: Vec<_> = all.iter().map(|c| (c.kind, c.path.as_path())).collect();
    assert_eq!(told, [(ChangeKind::Modify, Path::new("/etc/big"))]);
}

#[test]
fn a_tmpfs_that_is_mounted_nowhere_still_gives_paths() {
    private_mounts();
    let world = World::new();
    let mut watch = watch(&world);
    umount2(&world.path("tmpfs"), MntFlags::MNT_DETACH).expect("detached");
    fs::create_dir_all(world.merged().join("w/x")).expect("made");
    fs::write(world.merged().join("w/x/f"), "x").expect("written");
    assert!(told(&watch.drain().expect("drained")).contains(&(ChangeKind::Create, "/w/x/f".to_owned())));
}

#[test]
fn one_operation_after_another_is_told_as_itself_alone() {
    private_mounts();
    let world = World::new();
    let mut watch = watch(&world);
    let root = world.merged();
    let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    let mut step = |run: &dyn Fn() -> std::io::Result<()>, kind, path: &str| {
        run().expect("the operation works");
        assert_eq!(told(&watch.drain().expect("drained")), [(kind, path.to_owned())]);
    };
    let append = |path: &str| fs::OpenOptions::new().append(true).open(root.join(path))?.write_all(b"x");
    step(&|| fs::write(root.join("w/new"), "x"), ChangeKind::Create, "/w/new");
    step(&|| append("w/a"), ChangeKind::Modify, "/w/a");
    step(&|| append("w/a"), ChangeKind::Modify, "/w/a");
    step(&|| fs::File::open(root.join("w"))?.set_times(time), ChangeKind::Attributes, "/w");
    step(&|| append("w/b"), ChangeKind::Modify, "/w/b");
    step(&|| fs::File::open(root.join("etc"))?.set_times(time), ChangeKind::Attributes, "/etc");
    step(&|| append("etc/deep/conf"), ChangeKind::Modify, "/etc/deep/conf");
    step(&|| fs::remove_file(root.join("w/new")), ChangeKind::Delete, "/w/new");
    step(&|| fs::remove_file(root.join("w/c")), ChangeKind::Delete, "/w/c");
    step(&|| fs::write(root.join("w/d"), "x"), ChangeKind::Create, "/w/d");
    step(&|| fs::create_dir(root.join("top")), ChangeKind::Create, "/top");
    step(&|| fs::rename(root.join("etc/passwd"), root.join("top/p")), ChangeKind::Rename, "/top/p");
    step(&|| fs::rename(root.join("top"), root.join("top2")), ChangeKind::Rename, "/top2");
    step(&|| append("top2/p"), ChangeKind::Modify, "/top2/p");
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
    if !without_any("max_fanotify_groups", "tripwire::fanotify_group_limit_is_named") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let error =
        TripwireWatch::new(open_dir(dir.path()), Path::new("upper"), Image::default()).expect_err("none is allowed");
    assert!(
        matches!(error, WatchError::LimitReached { sysctl: "fs.fanotify.max_user_groups", current: Some(_) }),
        "{error:?}"
    );
}

#[test]
fn fanotify_without_privilege_is_unsupported() {
    if !without_any("max_pid_namespaces", "tripwire::fanotify_without_privilege_is_unsupported") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let error = TripwireWatch::new(open_dir(dir.path()), Path::new("upper"), Image::default())
        .expect_err("a filesystem mark needs privilege");
    assert!(matches!(error, WatchError::Unsupported { .. }), "{error:?}");
}

#[test]
fn a_filesystem_without_file_handles_is_unsupported() {
    private_mounts();
    let proc: std::os::fd::OwnedFd = fs::File::open("/proc").expect("opened").into();
    let error = TripwireWatch::new(proc, Path::new("self"), Image::default()).expect_err("proc has no handles");
    assert!(matches!(error, WatchError::Unsupported { .. }), "{error:?}");
}
