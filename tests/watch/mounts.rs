//! Mount tables of this thread's own namespace.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use lithify::watch::{Change, ChangeKind, MountWatch};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::PollFlags;
use nix::sched::{CloneFlags, unshare};

use crate::world::{private_mounts, ready};

const NONE: Option<&str> = None;

fn table() -> OwnedFd {
    fs::File::open("/proc/thread-self/mountinfo").expect("the table opens").into()
}

fn tmpfs(path: &Path, source: &str) {
    mount(Some(source), path, Some("tmpfs"), MsFlags::empty(), NONE).expect("mounted");
}

fn details(changes: &[Change]) -> Vec<(&Path, &str)> {
    changes.iter().map(|c| (c.path.as_path(), c.detail.as_deref().unwrap_or(""))).collect()
}

#[test]
fn mount_remount_move_and_unmount_are_told_one_by_one() {
    private_mounts();
    let dir = tempfile::tempdir().expect("a folder");
    let (path, other) = (dir.path().join("a b"), dir.path().join("other"));
    fs::create_dir(&path).expect("made");
    fs::create_dir(&other).expect("made");
    let mut watch = MountWatch::new(table()).expect("a baseline");
    assert!(watch.drain().expect("drained").is_empty());

    tmpfs(&path, "none");
    assert!(ready(watch.fd(), PollFlags::POLLPRI));
    let drained = watch.drain().expect("drained");
    assert_eq!(details(&drained.changes), [(path.as_path(), "tmpfs from none mounted")]);
    assert_eq!(drained.changes[0].kind, ChangeKind::Mount);
    assert!(watch.drain().expect("drained").is_empty());

    mount(NONE, &path, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, NONE).expect("remounted");
    assert!(ready(watch.fd(), PollFlags::POLLPRI));
    let drained = watch.drain().expect("drained");
    assert_eq!(details(&drained.changes), [(path.as_path(), "remounted: rw -> ro")]);

    mount(Some(&path), &other, NONE, MsFlags::MS_MOVE, NONE).expect("moved");
    let drained = watch.drain().expect("drained");
    assert_eq!(details(&drained.changes), [(other.as_path(), format!("moved from {}", path.display()).as_str())]);

    umount2(&other, MntFlags::empty()).expect("unmounted");
    assert!(ready(watch.fd(), PollFlags::POLLPRI));
    let drained = watch.drain().expect("drained");
    assert_eq!(details(&drained.changes), [(other.as_path(), "unmounted")]);
}

#[test]
fn a_read_only_filesystem_made_writable_is_told() {
    private_mounts();
    let dir = tempfile::tempdir().expect("a folder");
    mount(Some("none"), dir.path(), Some("tmpfs"), MsFlags::MS_RDONLY, NONE).expect("mounted");
    let mut watch = MountWatch::new(table()).expect("a baseline");
    mount(NONE, dir.path(), NONE, MsFlags::MS_REMOUNT, NONE).expect("remounted");
    let drained = watch.drain().expect("drained");
    assert_eq!(details(&drained.changes), [(dir.path(), "remounted: ro -> rw")]);
    umount2(dir.path(), MntFlags::empty()).expect("unmounted");
}

#[test]
fn the_removal_of_a_mount_of_the_baseline_is_told() {
    private_mounts();
    let dir = tempfile::tempdir().expect("a folder");
    tmpfs(dir.path(), "base");
    let mut watch = MountWatch::new(table()).expect("a baseline");
    umount2(dir.path(), MntFlags::empty()).expect("unmounted");
    assert_eq!(details(&watch.drain().expect("drained").changes), [(dir.path(), "unmounted")]);
}

#[test]
fn a_new_mount_in_an_old_one_s_place_is_told_as_both() {
    private_mounts();
    let dir = tempfile::tempdir().expect("a folder");
    tmpfs(dir.path(), "base");
    let mut watch = MountWatch::new(table()).expect("a baseline");
    umount2(dir.path(), MntFlags::empty()).expect("unmounted");
    tmpfs(dir.path(), "evil");
    let drained = watch.drain().expect("drained");
    assert_eq!(details(&drained.changes), [(dir.path(), "tmpfs from evil mounted"), (dir.path(), "unmounted")]);
    umount2(dir.path(), MntFlags::empty()).expect("unmounted");
}

/// The "container" is a thread whose mounts receive the host's; the caller is the host.
fn host_and_container(volume: &Path, propagation: MsFlags, act: impl FnOnce(&mut dyn FnMut() -> Vec<Change>, &Path)) {
    private_mounts();
    tmpfs(volume, "volume");
    mount(NONE, volume, NONE, MsFlags::MS_SHARED, NONE).expect("shared");
    let (send, receive) = mpsc::channel();
    let (done, wait) = mpsc::channel::<()>();
    let path = volume.to_path_buf();
    thread::scope(|scope| {
        scope.spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).expect("unshared");
            mount(NONE, &path, NONE, propagation, NONE).expect("propagation is set");
            send.send(table()).expect("the host waits");
            let _ = wait.recv();
        });
        let mut watch = MountWatch::new(receive.recv().expect("the container started")).expect("a baseline");
        let mut drain = || watch.drain().expect("drained").changes;
        assert!(drain().is_empty());
        act(&mut drain, volume);
        drop(done);
    });
}

#[test]
fn a_mount_of_the_host_that_propagates_is_no_change_and_neither_is_its_removal() {
    let dir = tempfile::tempdir().expect("a folder");
    host_and_container(dir.path(), MsFlags::MS_SLAVE, |drain, volume| {
        fs::create_dir_all(volume.join("usb")).expect("made");
        tmpfs(&volume.join("usb"), "stick");
        assert!(drain().is_empty());
        fs::create_dir(volume.join("usb/nested")).expect("made");
        tmpfs(&volume.join("usb/nested"), "nested");
        assert!(drain().is_empty());
        umount2(&volume.join("usb/nested"), MntFlags::empty()).expect("unmounted");
        umount2(&volume.join("usb"), MntFlags::empty()).expect("unmounted");
        assert!(drain().is_empty());
    });
}

#[test]
fn a_mount_of_a_peer_of_a_shared_volume_is_no_change() {
    let dir = tempfile::tempdir().expect("a folder");
    host_and_container(dir.path(), MsFlags::MS_SHARED, |drain, volume| {
        fs::create_dir(volume.join("csi")).expect("made");
        tmpfs(&volume.join("csi"), "csi");
        assert!(drain().is_empty());
        umount2(&volume.join("csi"), MntFlags::empty()).expect("unmounted");
        assert!(drain().is_empty());
    });
}

#[test]
fn a_volume_that_the_host_unmounts_loses_no_baseline_in_a_private_container() {
    let dir = tempfile::tempdir().expect("a folder");
    host_and_container(dir.path(), MsFlags::MS_PRIVATE, |drain, volume| {
        fs::create_dir(volume.join("own")).expect("made");
        tmpfs(&volume.join("own"), "host");
        assert!(drain().is_empty());
        umount2(&volume.join("own"), MntFlags::empty()).expect("unmounted");
        umount2(volume, MntFlags::empty()).expect("unmounted");
        assert!(drain().is_empty());
    });
}

#[test]
fn a_mount_made_in_the_container_below_a_volume_that_receives_is_told() {
    private_mounts();
    let dir = tempfile::tempdir().expect("a folder");
    tmpfs(dir.path(), "volume");
    mount(NONE, dir.path(), NONE, MsFlags::MS_SHARED, NONE).expect("shared");
    unshare(CloneFlags::CLONE_NEWNS).expect("unshared");
    mount(NONE, dir.path(), NONE, MsFlags::MS_SLAVE, NONE).expect("a slave");
    let mut watch = MountWatch::new(table()).expect("a baseline");
    fs::create_dir(dir.path().join("mine")).expect("made");
    tmpfs(&dir.path().join("mine"), "mine");
    let drained = watch.drain().expect("drained");
    assert_eq!(details(&drained.changes), [(dir.path().join("mine").as_path(), "tmpfs from mine mounted")]);
    mount(NONE, dir.path(), NONE, MsFlags::MS_SHARED, NONE).expect("shared");
    assert_eq!(details(&watch.drain().expect("drained").changes), [(dir.path(), "made shared")]);
    umount2(dir.path(), MntFlags::MNT_DETACH).expect("unmounted");
}
