//! The engine's own writes before the first start.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use lithify::rootfs::{Baseline, MountPoint, SEALED, Since, mount_sealed, seal_mark};
use lithify::sys::xattr;

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
    let since = seal_mark(o_path(&upper).as_fd(), SystemTime::now()).unwrap();
    let layers = host.layers(&merged);
    let staging = host.staging();
    let build = |mounts: &[MountPoint]| {
        staging
            .ground(&layers, Some(&Baseline::until(since)))
            .unwrap()
            .skeleton(&layers, mounts, Path::new("/app"))
            .unwrap()
    };
    let target = host.make("target");
    let sealed = mount_sealed(&layers, &build(&[]), &staging, &target).unwrap();
    let mut got = tree(&target);
    // The root's own attributes are the image's; the engine's upper has a root of its own.
    got.insert(PathBuf::new(), early[Path::new("")].clone());
    assert_same(&got, &early);
    sealed.detach().unwrap();
    while SystemTime::now() < since.instant {
        std::thread::yield_now();
    }
    tick(&host);
    fs::write(merged.join("app/late"), "late").unwrap();
    fs::write(merged.join("etc/app/conf"), "late").unwrap();
    fs::create_dir_all(merged.join("late/dir")).unwrap();
    assert_eq!(seal_mark(o_path(&upper).as_fd(), SystemTime::now()).unwrap(), since);
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

/// A first start at this moment.
fn now() -> Since {
    let now = SystemTime::now();
    Since { instant: now, first_start: now }
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
        let limits = Baseline { max_bytes: bytes, max_entries: entries, ..Baseline::until(now()) };
        format!("{:#}", staging.ground(&layers, Some(&limits)).unwrap_err())
    };
    tick(&host);
    let said = error(2000, 100);
    assert!(said.contains("/srv/deep/big") && said.contains("2000 bytes") && said.contains("volume"), "{said}");
    let said = error(1 << 20, 2);
    assert!(said.contains("/srv/deep") && said.contains("2 entries") && said.contains("volume"), "{said}");
}

/// Builds a sealed root over what is there now, and gives it to `look`.
fn sealed(host: &Host, merged: &Path, baseline: &Baseline, look: impl FnOnce(&Path)) -> (Vec<String>, Option<String>) {
    let layers = host.layers(merged);
    let staging = host.staging();
    let ground = staging.ground(&layers, Some(baseline)).unwrap();
    let told = (ground.left_out.clone(), ground.own.clone());
    let skeleton = ground.skeleton(&layers, &[], Path::new("/")).unwrap();
    let target = host.make("target");
    let mounted = mount_sealed(&layers, &skeleton, &staging, &target).unwrap();
    look(&target);
    mounted.detach().unwrap();
    staging.remove().unwrap();
    told
}

#[test]
fn no_attribute_that_root_in_the_container_sets_makes_what_it_wrote_part_of_the_sealed_root() {
    let host = Host::new();
    let (merged, upper) = host.engine(&image(&host), "");
    fs::create_dir(merged.join("work")).unwrap();
    fs::write(merged.join("work/first"), "early").unwrap();
    tick(&host);
    let since = seal_mark(o_path(&upper).as_fd(), SystemTime::now()).unwrap();
    tick(&host);
    // The container's life, with every right, under the engine's own root.
    fs::write(merged.join("bin/implant"), "evil").unwrap();
    fs::write(merged.join("bin/tool"), "evil").unwrap();
    let far = "4102444800.000000000";
    let mark = format!("{far} {far} 1@- 1@-");
    let marks = [(SEALED, far), ("trusted.lithify.sealed.upper", &mark), ("trusted.lithify.sealed.merged", &mark)];
    for (name, value) in marks {
        for place in ["", "work", "bin/implant"] {
            set_xattr(&merged.join(place), name, value.as_bytes());
        }
    }
    let again = seal_mark(o_path(&upper).as_fd(), SystemTime::now()).unwrap();
    assert_eq!(again, since);
    let (told, _) = sealed(&host, &merged, &Baseline::until(again), |root| {
        assert!(!root.join("bin/implant").exists(), "an implant is part of the sealed root");
        assert_eq!(fs::read(root.join("bin/tool")).unwrap(), vec![7u8; 200_000], "a replaced program is");
        assert!(root.join("work/first").is_file(), "what the engine wrote is");
    });
    assert_eq!(told, [""; 0]);
}

#[test]
fn a_container_marked_by_an_earlier_version_starts_without_what_may_be_its_own_and_says_so() {
    let host = Host::new();
    let (merged, upper) = host.engine(&image(&host), "");
    fs::write(merged.join("bin/implant"), "evil").unwrap();
    set_xattr(&merged, SEALED, b"4102444800.000000000");
    for _ in 0..2 {
        let error = format!("{:#}", seal_mark(o_path(&upper).as_fd(), SystemTime::now()).unwrap_err());
        assert!(error.contains("earlier version") && error.contains("create the container again"), "{error}");
    }
    assert!(xattr::list(o_path(&host.dir)).unwrap().iter().any(|name| name == "trusted.lithify.sealed.upper"));
}

#[test]
fn entries_that_the_container_made_are_no_reason_to_refuse_a_start_however_many() {
    let host = Host::new();
    let (merged, _) = host.engine(&image(&host), "");
    fs::create_dir(merged.join("work")).unwrap();
    fs::write(merged.join("work/first"), "early").unwrap();
    tick(&host);
    let baseline = Baseline { max_entries: 4, ..Baseline::until(now()) };
    tick(&host);
    for n in 0..40 {
        fs::write(merged.join(format!("work/late.{n}")), "").unwrap();
        fs::create_dir(merged.join(format!("late.{n}"))).unwrap();
    }
    let (told, own) = sealed(&host, &merged, &baseline, |root| {
        assert_eq!(fs::read_dir(root.join("work")).unwrap().count(), 1);
        assert_eq!(fs::read(root.join("work/first")).unwrap(), b"early");
        assert!(!root.join("late.0").exists());
    });
    assert_eq!(told, [""; 0]);
    assert!(own.is_some_and(|own| own.contains("/late.") && own.contains(" more)")), "what is gone is not named");
    // More than anyone wants to wait for: what is beyond is left out, and told.
    let (told, _) = sealed(&host, &merged, &Baseline { max_looked: 7, ..baseline }, |_| ());
    assert!(told.len() == 1 && told[0].contains("only 7 entries") && told[0].contains("volume"), "{told:?}");
}

#[test]
fn what_is_neither_as_old_as_the_layer_nor_later_than_the_first_start_is_left_out_and_counted() {
    let host = Host::new();
    let (merged, _) = host.engine(&image(&host), "");
    fs::write(merged.join("early"), "").unwrap();
    tick(&host);
    let instant = SystemTime::now();
    tick(&host);
    fs::write(merged.join("doubtful"), "").unwrap();
    fs::create_dir_all(merged.join("also/deeper")).unwrap();
    tick(&host);
    let baseline = Baseline::until(Since { instant, first_start: SystemTime::now() });
    tick(&host);
    fs::create_dir_all(merged.join("late/deeper")).unwrap();
    fs::write(merged.join("late/deeper/file\n"), "").unwrap();
    fs::remove_dir_all(merged.join("home")).unwrap();
    let (told, own) = sealed(&host, &merged, &baseline, |root| {
        assert!(root.join("early").exists() && !root.join("doubtful").exists() && !root.join("also").exists());
    });
    assert!(
        told.len() == 1 && told[0].starts_with("2 entries") && told[0].contains("create the container again"),
        "{told:?}"
    );
    assert!(own.as_ref().is_some_and(|own| own.contains(r#"("/late/deeper/file\n")"#)), "{own:?}");
}
