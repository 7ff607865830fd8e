//! Scans of real trees.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use lithify::watch::ChangeKind::{self, Attributes, Create, Delete, Modify};
use lithify::watch::scan::{Baseline, Difference, Limits};

use crate::ops::OPS;
use crate::world::{World, open_dir, private_mounts};

fn listed(difference: &Difference) -> Vec<(ChangeKind, String)> {
    difference.changes.iter().map(|c| (c.kind, c.path.display().to_string())).collect()
}

fn after(change: impl FnOnce(&Path)) -> Difference {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(dir.path().join("d/e")).expect("made");
    for name in ["a", "d/b", "d/e/c"] {
        fs::write(dir.path().join(name), name).expect("written");
    }
    symlink("a", dir.path().join("l")).expect("linked");
    let root = open_dir(dir.path());
    let baseline = Baseline::take(root.as_fd(), Limits::default()).expect("taken");
    assert_eq!((baseline.count(), baseline.bytes(), baseline.truncated()), (6, 9, false));
    change(dir.path());
    baseline.diff(root.as_fd(), Limits::default(), None).expect("compared")
}

#[test]
fn an_untouched_tree_has_no_difference() {
    assert_eq!(after(|root| assert!(fs::read(root.join("d/b")).is_ok())), Difference::default());
}

#[test]
fn every_kind_of_change_is_found_and_counted() {
    let difference = after(|root| {
        fs::write(root.join("d/new"), "x").expect("written");
        fs::remove_file(root.join("d/e/c")).expect("removed");
        OpenOptions::new().append(true).open(root.join("d/b")).expect("opened").write_all(b"x").expect("written");
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o600)).expect("set");
        fs::remove_file(root.join("l")).expect("removed");
        symlink("/etc/shadow", root.join("l")).expect("linked");
    });
    let expected = [(Attributes, "/a"), (Modify, "/d/b"), (Delete, "/d/e/c"), (Create, "/d/new"), (Modify, "/l")];
    assert_eq!(listed(&difference), expected.map(|(k, p)| (k, p.to_owned())));
    assert_eq!((difference.created, difference.modified, difference.deleted, difference.attributes), (1, 2, 1, 1));
}

#[test]
fn content_whose_size_and_time_were_put_back_is_still_a_modify() {
    let difference = after(|root| {
        let path = root.join("a");
        let time = fs::metadata(&path).expect("there").modified().expect("a time");
        let file = OpenOptions::new().write(true).open(&path).expect("opened");
        (&file).write_all(b"Z").expect("written");
        file.set_modified(time).expect("put back");
    });
    assert_eq!(listed(&difference), [(Modify, "/a".to_owned())]);
}

#[test]
fn an_empty_tree_costs_nothing_and_a_limit_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = open_dir(dir.path());
    assert_eq!(Baseline::take(root.as_fd(), Limits::default()).expect("taken").count(), 0);
    fs::create_dir_all(dir.path().join("1/2/3")).expect("made");
    for limits in [Limits { entries: 2, depth: 9 }, Limits { entries: 9, depth: 2 }] {
        let baseline = Baseline::take(root.as_fd(), limits).expect("taken");
        assert!(baseline.truncated() && baseline.count() == 2, "{baseline:?}");
    }
}

#[test]
fn other_mounts_in_the_tree_are_not_entered() {
    private_mounts();
    let world = World::new();
    let root = open_dir(&world.path(""));
    let baseline = Baseline::take(root.as_fd(), Limits::default()).expect("taken");
    fs::write(world.path("tmpfs/f"), "x").expect("written");
    assert!(baseline.diff(root.as_fd(), Limits::default(), None).expect("compared").changes.is_empty());
}

#[test]
fn a_scan_of_the_upper_finds_what_every_operation_left() {
    private_mounts();
    let mut wrong = Vec::new();
    for op in OPS {
        let world = World::new();
        let root = open_dir(&world.path("tmpfs/upper"));
        let baseline = Baseline::take(root.as_fd(), Limits::default()).expect("taken");
        (op.run)(&world.merged());
        let image = world.image();
        let found = listed(&baseline.diff(root.as_fd(), Limits::default(), Some(&image)).expect("compared"));
        let gone = ["create and remove", "chmod of the root"].contains(&op.name);
        let last = op.told.iter().rfind(|(kind, _)| *kind != Delete).or(op.told.first());
        if !gone && !last.is_some_and(|(_, path)| found.iter().any(|(_, p)| p == path)) {
            wrong.push(format!("{}: {found:?}", op.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_directory_that_was_copied_up_for_something_below_it_is_told_only_if_it_changed_itself() {
    private_mounts();
    let changes = |act: fn(&std::path::Path)| {
        let world = World::new();
        let root = open_dir(&world.path("tmpfs/upper"));
        let baseline = Baseline::take(root.as_fd(), Limits::default()).expect("taken");
        act(&world.merged());
        listed(&baseline.diff(root.as_fd(), Limits::default(), Some(&world.image())).expect("compared"))
    };
    assert_eq!(changes(|r| fs::write(r.join("w/sub/new"), "x").expect("written")), [(Create, "/w/sub/new".to_owned())]);
    let both = changes(|r| {
        fs::write(r.join("w/sub/new"), "x").expect("written");
        fs::set_permissions(r.join("w/sub"), fs::Permissions::from_mode(0o700)).expect("changed");
    });
    assert_eq!(both, [(Attributes, "/w/sub".to_owned()), (Create, "/w/sub/new".to_owned())]);
    let touched = changes(|r| {
        let time = std::time::SystemTime::UNIX_EPOCH;
        fs::File::open(r.join("w/sub")).and_then(|d| d.set_modified(time)).expect("set");
    });
    assert_eq!(touched, [(Attributes, "/w/sub".to_owned())]);
}
