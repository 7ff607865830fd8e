//! The way that kernels before 6.5 need, which newer ones take as well: root, and a mount namespace of each test's own.

use super::*;
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::PathBuf;

struct Host {
    dir: tempfile::TempDir,
    staging: Staging,
}

impl Drop for Host {
    fn drop(&mut self) {
        nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

fn host() -> Host {
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root");
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // A mount of its own: taking it away takes away everything that a test mounts in the folder.
    nix::mount::mount(Some(dir.path()), dir.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    fs::create_dir(dir.path().join("staging")).unwrap();
    fs::create_dir(dir.path().join("target")).unwrap();
    let staging = Staging::new(&dir.path().join("staging"), 8 << 20).unwrap();
    Host { dir, staging }
}

fn layers(host: &Host, count: usize) -> Layers {
    let make = |n: usize| -> PathBuf {
        let dir = host.dir.path().join(format!("layer{n}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(format!("f{n}")), n.to_string()).unwrap();
        dir
    };
    let open = |dir: PathBuf| open(&dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    let lowers: Vec<OwnedFd> = (0..count).map(make).map(open).collect();
    Layers {
        root: lowers[0].try_clone().unwrap(),
        lowers,
        data: Vec::new(),
        upper: None,
        options: vec![("redirect_dir".into(), Some("on".into())), ("metacopy".into(), Some("on".into()))],
        attributes: MountAttributes::NODEV,
        degraded: None,
    }
}

fn mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
}

#[test]
fn two_hundred_layers_mount_with_the_old_call_and_nothing_is_left_attached() {
    let host = host();
    let layers = layers(&host, 200);
    let skeleton = host.staging.ground(&layers, None).unwrap().skeleton(&layers, &[], Path::new("/made")).unwrap();
    let before = mounts();
    let root = Plan::of(&layers, skeleton.root(), None).mount(&host.staging, Way::Old).unwrap();
    assert_eq!(mounts(), before);
    let target = host.dir.path().join("target");
    let mounted = place(root, &target).unwrap();
    assert_eq!(fs::read_to_string(target.join("f199")).unwrap(), "199");
    assert!(target.join("made").is_dir());
    assert_eq!(fs::write(target.join("x"), "").unwrap_err().raw_os_error(), Some(libc::EROFS));
    let line = mounts();
    let line = line.lines().rfind(|l| l.contains("/target ")).unwrap();
    assert!(line.contains("nodev") && line.contains("metacopy=on"), "{line}");
    mounted.detach().unwrap();
    assert!(!target.join("made").exists());
}

#[test]
fn a_tripwire_mounts_with_the_old_call_too() {
    let host = host();
    let layers = layers(&host, 2);
    let skeleton = host.staging.ground(&layers, None).unwrap().skeleton(&layers, &[], Path::new("/made")).unwrap();
    let before = mounts().lines().count();
    let target = host.dir.path().join("target");
    let tripwire = tripwire(&layers, &skeleton, &host.staging, &target, 1 << 20, Way::Old).unwrap();
    assert_eq!(mounts().lines().count(), before + 1);
    fs::write(target.join("f1"), "changed").unwrap();
    let upper = PathBuf::from(proc_fd::path(tripwire.upper.as_fd()));
    assert_eq!(fs::read_to_string(upper.join("f1")).unwrap(), "changed");
}

#[test]
fn too_many_layers_are_counted_in_the_error() {
    let host = host();
    let mut layers = layers(&host, 1);
    layers.lowers = (0..520).map(|_| layers.root.try_clone().unwrap()).collect();
    let error = host.staging.image(&layers).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("521 layers") && text.contains("squash the image"), "{text}");
}

#[test]
fn what_overlayfs_says_is_in_the_error() {
    let host = host();
    let mut layers = layers(&host, 2);
    layers.options = vec![("redirect_dir".into(), Some("nonsense".into()))];
    let error = host.staging.image(&layers).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("3 layers") && text.contains("redirect_dir"), "{text}");
}
