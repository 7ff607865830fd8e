//! inotify on an overlay's upper.

use std::fs;
use std::path::Path;

use lithify::watch::{ChangeKind, DEFAULT_MAX_DIRECTORIES, Drained, Image, Kinds, UpperWatch, WatchError};
use nix::poll::PollFlags;

use crate::ops::OPS;
use crate::world::{World, open_dir, private_mounts, ready, told, without_any};

fn watch(world: &World, kinds: Kinds) -> UpperWatch {
    UpperWatch::new(world.open("tmpfs/upper"), world.image(), kinds, DEFAULT_MAX_DIRECTORIES).expect("inotify works")
}

fn has(drained: &Drained, kind: ChangeKind, path: &str) -> bool {
    told(drained).contains(&(kind, path.to_owned()))
}

#[test]
fn every_operation_gives_a_change_with_its_path() {
    private_mounts();
    let mut wrong = Vec::new();
    for op in OPS {
        let world = World::new();
        let mut watch = watch(&world, Kinds::Natural);
        (op.run)(&world.merged());
        let drained = watch.drain().expect("drained");
        // A file that came and went below a directory that was not watched yet is not seen by anyone.
        let missed = op.told.iter().any(|(_, path)| !told(&drained).iter().any(|(_, p)| p == path));
        if missed && op.name != "create and remove" && op.name != "rm -r" {
            wrong.push(format!("{}: {:?}, expected {:?}", op.name, told(&drained), op.told));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nested_write_in_a_new_directory_is_reported_with_its_path() {
    private_mounts();
    let world = World::new();
    let mut watch = watch(&world, Kinds::Natural);
    fs::create_dir_all(world.merged().join("a/b/c")).expect("made");
    fs::write(world.merged().join("a/b/c/f"), "x").expect("written");
    assert!(ready(watch.fd(), PollFlags::POLLIN));
    let drained = watch.drain().expect("drained");
    for path in ["/a", "/a/b", "/a/b/c", "/a/b/c/f"] {
        assert!(has(&drained, ChangeKind::Create, path), "{path}: {drained:?}");
    }
    fs::write(world.merged().join("a/b/c/g"), "x").expect("written");
    assert_eq!(told(&watch.drain().expect("drained")), [(ChangeKind::Create, "/a/b/c/g".to_owned())]);
}

#[test]
fn a_moved_directory_reports_by_its_new_path() {
    private_mounts();
    let world = World::new();
    let upper = world.path("tmpfs/upper");
    fs::create_dir_all(upper.join("one/below")).expect("made");
    let mut watch = watch(&world, Kinds::Natural);
    fs::rename(upper.join("one"), upper.join("two")).expect("renamed");
    let drained = watch.drain().expect("drained");
    assert!(has(&drained, ChangeKind::Rename, "/two"), "{drained:?}");
    assert_eq!(drained.changes[0].detail.as_deref(), Some("/one"));
    fs::write(upper.join("two/below/f"), "x").expect("written");
    assert_eq!(told(&watch.drain().expect("drained")), [(ChangeKind::Create, "/two/below/f".to_owned())]);
}

#[test]
fn a_directory_that_is_moved_out_is_watched_no_longer() {
    private_mounts();
    let world = World::new();
    let upper = world.path("tmpfs/upper");
    fs::create_dir_all(upper.join("one/below")).expect("made");
    let mut watch = watch(&world, Kinds::Natural);
    assert_eq!(watch.directories(), 3);
    fs::rename(upper.join("one"), world.path("tmpfs/out")).expect("renamed");
    assert!(has(&watch.drain().expect("drained"), ChangeKind::Delete, "/one"));
    assert_eq!(watch.directories(), 1);
    fs::write(world.path("tmpfs/out/below/f"), "x").expect("written");
    assert!(watch.drain().expect("drained").is_empty());
}

#[test]
fn a_whiteout_is_a_delete() {
    private_mounts();
    let world = World::new();
    let mut watch = watch(&world, Kinds::Natural);
    fs::remove_file(world.merged().join("w/a")).expect("removed");
    assert!(has(&watch.drain().expect("drained"), ChangeKind::Delete, "/w/a"));
}

#[test]
fn under_a_sealed_root_every_change_is_a_host_write() {
    private_mounts();
    let world = World::new();
    let mut watch = watch(&world, Kinds::HostWrite);
    fs::write(world.path("tmpfs/upper/f"), "x").expect("written");
    let drained = watch.drain().expect("drained");
    assert_eq!(told(&drained), [(ChangeKind::HostWrite, "/f".to_owned())]);
    assert_eq!(drained.changes[0].detail.as_deref(), Some("create"));
}

#[test]
fn a_symlink_to_a_directory_is_not_followed() {
    private_mounts();
    let world = World::new();
    let upper = world.path("tmpfs/upper");
    fs::create_dir(world.path("tmpfs/outside")).expect("made");
    std::os::unix::fs::symlink("../outside", upper.join("before")).expect("linked");
    let mut watch = watch(&world, Kinds::Natural);
    std::os::unix::fs::symlink("../outside", upper.join("after")).expect("linked");
    assert_eq!(watch.drain().expect("drained").changes.len(), 1);
    fs::write(world.path("tmpfs/outside/f"), "x").expect("written");
    assert!(watch.drain().expect("drained").is_empty());
    assert_eq!(watch.directories(), 1);
}

#[test]
fn inotify_instance_limit_is_named() {
    if !without_any("max_inotify_instances", "upper::inotify_instance_limit_is_named") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let error =
        UpperWatch::new(open_dir(dir.path()), Image::default(), Kinds::Natural, 8).expect_err("none is allowed");
    assert!(
        matches!(error, WatchError::LimitReached { sysctl: "fs.inotify.max_user_instances", current: Some(_) }),
        "{error:?}"
    );
}

#[test]
fn inotify_watch_limit_is_named() {
    if !without_any("max_inotify_watches", "upper::inotify_watch_limit_is_named") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let error =
        UpperWatch::new(open_dir(dir.path()), Image::default(), Kinds::Natural, 8).expect_err("none is allowed");
    assert!(
        matches!(error, WatchError::LimitReached { sysctl: "fs.inotify.max_user_watches", current: Some(_) }),
        "{error:?}"
    );
}

#[test]
fn more_directories_than_allowed_are_refused_by_name() {
    private_mounts();
    let world = World::new();
    for i in 0..20 {
        fs::create_dir(world.path("tmpfs/upper").join(i.to_string())).expect("made");
    }
    let error = UpperWatch::new(world.open("tmpfs/upper"), Image::default(), Kinds::Natural, 8).expect_err("too many");
    assert!(matches!(error, WatchError::LimitReached { sysctl: "watch.max-directories", .. }), "{error:?}");
}

#[test]
fn growth_past_the_limit_is_an_overflow_with_what_was_seen() {
    private_mounts();
    let world = World::new();
    let mut watch =
        UpperWatch::new(world.open("tmpfs/upper"), Image::default(), Kinds::Natural, 2).expect("inotify works");
    fs::create_dir_all(world.path("tmpfs/upper/a/b/c")).expect("made");
    let drained = watch.drain().expect("drained");
    assert!(drained.overflow && has(&drained, ChangeKind::Create, "/a"), "{drained:?}");
}

#[test]
fn queue_overflow_is_said() {
    private_mounts();
    let world = World::new();
    let mut watch = watch(&world, Kinds::Natural);
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .expect("a limit")
        .trim()
        .parse()
        .expect("a number");
    let path = world.path("tmpfs/upper");
    for i in 0..=limit {
        fs::File::create(path.join(i.to_string())).expect("created");
    }
    assert!((0..100).any(|_| watch.drain().expect("drained").overflow));
    assert!(path.is_dir() && Path::new("/proc/self").exists());
}
