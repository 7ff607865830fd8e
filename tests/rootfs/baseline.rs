//! The engine's own writes before the first start.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use lithify::rootfs::{Baseline, MountPoint, mount_sealed, seal_mark};

use crate::support::*;

#[test]
fn what_the_engine_wrote_before_the_first_start_is_in_and_what_came_later_is_not() {
    let host = Host::new();
    let (merged, upper) = host.engine(&image(&host), "");
    // docker create makes a working directory, docker cp brings files.
    fs::create_dir_all(merged.join("app/sub")).unwrap();
    fs::write(merged.join("app/sub/conf"), "early").unwrap();
    fs::write(merged.join("etc/app/conf"), "early").unwrap();
    fs::remove_dir_all(merged.join("home")).unwrap();
    symlink("sub", merged.join("app/link")).unwrap();
    fs::hard_link(merged.join("app/sub/conf"), merged.join("app/hard")).unwrap();
    std::os::unix::fs::chown(merged.join("app"), Some(9), Some(9)).unwrap();
    fs::set_permissions(merged.join("app"), fs::Permissions::from_mode(0o777)).unwrap();
    let early = tree(&merged);
    let instant = seal_mark(o_path(&upper).as_fd(), SystemTime::now()).unwrap();
    let layers = host.layers(&merged);
    let staging = host.staging();
    let build = |mounts: &[MountPoint]| {
        staging.skeleton(&layers, mounts, Path::new("/app"), Some(&Baseline::until(instant))).unwrap()
    };
    let target = host.make("target");
    let sealed = mount_sealed(&layers, &build(&[]), &staging, &target).unwrap();
    let mut got = tree(&target);
    // The root's own attributes are the image's; the engine's upper has a root of its own.
    got.insert(PathBuf::new(), early[Path::new("")].clone());
    assert_same(&got, &early);
    sealed.detach().unwrap();
    while SystemTime::now() < instant {
        std::thread::yield_now();
    }
    tick(&host);
    fs::write(merged.join("app/late"), "late").unwrap();
    fs::write(merged.join("etc/app/conf"), "late").unwrap();
    fs::create_dir_all(merged.join("late/dir")).unwrap();
    assert_eq!(seal_mark(o_path(&upper).as_fd(), SystemTime::now()).unwrap(), instant);
    let sealed = mount_sealed(&layers, &build(&[dir("/home/again"), dir("/app/data")]), &staging, &target).unwrap();
    let got = tree(&target);
    assert_eq!(fs::read(target.join("app/sub/conf")).unwrap(), b"early");
    assert_eq!(fs::read(target.join("etc/app/conf")).unwrap(), b"new", "the image's, for the early one is gone");
    assert!(!got.contains_key(Path::new("app/late")) && !got.contains_key(Path::new("late")));
    // A later write into a directory costs it the right of others to write, not its content or owner.
    assert!(got[Path::new("app")].starts_with("40755 9:9"), "{}", got[Path::new("app")]);
    // What the engine deleted stays deleted where a mount point is made anew.
    assert!(target.join("home/again").is_dir() && !target.join("home/user").exists());
    assert!(target.join("app/data").is_dir());
    sealed.detach().unwrap();
}

/// Returns once the clock of file times has moved past everything written before.
fn tick(host: &Host) {
    let stamp = |n: u32| {
        let path = host.path(&format!("tick{}", n % 2));
        fs::write(&path, n.to_string()).unwrap();
        fs::metadata(path).unwrap().modified().unwrap()
    };
    let first = stamp(0);
    let deadline = Instant::now() + std::time::Duration::from_secs(5);
    let mut n = 1;
    while stamp(n) <= first {
        assert!(Instant::now() < deadline, "the clock of file times stands still");
        n += 1;
    }
}

#[test]
fn a_baseline_over_its_limits_names_path_limit_and_remedy() {
    let host = Host::new();
    let (merged, _) = host.engine(&image(&host), "");
    fs::create_dir_all(merged.join("srv/deep")).unwrap();
    fs::write(merged.join("srv/deep/big"), vec![0u8; 3000]).unwrap();
    let layers = host.layers(&merged);
    let staging = host.staging();
    let error = |bytes, entries| {
        let limits = Baseline { instant: SystemTime::now(), max_bytes: bytes, max_entries: entries };
        format!("{:#}", staging.skeleton(&layers, &[], Path::new("/"), Some(&limits)).unwrap_err())
    };
    tick(&host);
    let said = error(2000, 100);
    assert!(said.contains("/srv/deep/big") && said.contains("2000 bytes") && said.contains("volume"), "{said}");
    let said = error(1 << 20, 2);
    assert!(said.contains("/srv/deep") && said.contains("2 entries") && said.contains("volume"), "{said}");
}
