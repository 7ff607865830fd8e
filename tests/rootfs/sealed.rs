//! What a sealed root and a tripwire are like for who lives in them.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lithify::rootfs::mount_tripwire;
use lithify::sys::proc_fd;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::support::*;

#[test]
fn sealed_root_refuses_every_write_with_cap_sys_admin_and_remount() {
    let host = Host::new();
    let (merged, upper) = host.engine(&image(&host), "");
    let layers = seal(&host, &merged, &[dir("/proc")], "/");
    assert_eq!(layers.degraded, None);
    every_write_is_refused(&merged);
    let remount =
        |flags: MsFlags| mount(None::<&str>, &merged, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>);
    assert_eq!(remount(MsFlags::empty()), Err(Errno::EROFS));
    remount(MsFlags::MS_BIND).unwrap();
    every_write_is_refused(&merged);
    assert_eq!(fs::read_dir(upper).unwrap().count(), 0, "the engine's upper is untouched");
}

#[test]
fn a_sealed_root_equals_the_image_byte_for_byte_attributes_included() {
    let host = Host::new();
    let layers = image(&host);
    let (merged, upper) = host.engine(&layers, "");
    // What is in the upper is not the image: the expected tree is taken of the layers alone.
    fs::write(upper.join("dirt"), "dirt").unwrap();
    let only = host.make("only");
    host.overlay(&only, MsFlags::empty(), &format!("lowerdir={}:{}", layers[0].display(), layers[1].display()));
    let expected = tree(&only);
    let mounts = [dir("/var/run/secrets/kubernetes.io/sa"), dir("/home/user/data"), file("/etc/app/hosts")];
    seal(&host, &merged, &mounts, "/tmp/work");
    let mut got = tree(&merged);
    for (new, mode) in [
        ("run/secrets", "40755"),
        ("run/secrets/kubernetes.io", "40755"),
        ("run/secrets/kubernetes.io/sa", "40755"),
        ("home/user/data", "40755"),
        ("etc/app/hosts", "100755"),
        ("tmp/work", "40755"),
    ] {
        let line = got.remove(Path::new(new)).unwrap_or_else(|| panic!("{new} is missing"));
        assert!(line.starts_with(&format!("{mode} 0:0 ")), "{new}: {line}");
    }
    assert_same(&got, &expected);
}

#[test]
fn attributes_of_existing_parents_survive_the_skeleton() {
    let host = Host::new();
    let base = host.make("base");
    let deep = base.join("a/b");
    fs::create_dir_all(&deep).unwrap();
    let acl = [2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 42, 0, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255]
        .into_iter()
        .chain([16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 1, 0, 255, 255, 255, 255])
        .collect::<Vec<u8>>();
    set_xattr(&deep, "system.posix_acl_access", &acl);
    set_xattr(&deep, "user.big", &vec![b'x'; 2000]);
    set_xattr(&deep, "security.note", b"s");
    fs::set_permissions(base.join("a"), fs::Permissions::from_mode(0o2751)).unwrap();
    std::os::unix::fs::chown(&deep, Some(3), Some(4)).unwrap();
    let parents = [base.clone(), base.join("a"), deep.clone()];
    let set_times = || parents.iter().enumerate().for_each(|(n, path)| old(path, n));
    set_times();
    let expected = tree(&base);
    // Looking has moved the access times.
    set_times();
    // A plain directory: the overlay goes over its own lower layer.
    seal(&host, &base, &[dir("/a/b/c/d"), dir("/a/e"), file("/a/b/f")], "/");
    let mut got = tree(&base);
    for new in ["a/b/c", "a/b/c/d", "a/e", "a/b/f"] {
        assert!(got.remove(Path::new(new)).is_some(), "{new}");
    }
    for (n, path) in parents.iter().enumerate() {
        let seen = fs::metadata(path).unwrap();
        assert_eq!((seen.atime(), seen.atime_nsec()), (1_000_000_000 + n as i64, 123_456_789), "{}", path.display());
    }
    assert_same(&got, &expected);
    refused("a write", fs::write(base.join("x"), ""));
}

#[test]
fn a_skeleton_leaves_alone_what_another_mount_or_a_file_covers() {
    let host = Host::new();
    let base = host.make("base");
    fs::create_dir_all(base.join("data")).unwrap();
    fs::write(base.join("file"), "").unwrap();
    symlink("/etc", base.join("data/link")).unwrap();
    let mounts =
        [dir("/data"), dir("/data/link/x"), dir("/data/y"), dir("/file/z"), dir("/new"), dir("/new/../new/in")];
    seal(&host, &base, &mounts, "/data/cwd");
    let names: Vec<_> = tree(&base).into_keys().collect();
    assert_eq!(names, ["", "data", "data/link", "file", "new"].map(PathBuf::from));
}

#[test]
fn hostile_symlinks_stay_in_the_root() {
    let host = Host::new();
    let base = host.make("base");
    let outside = host.make("outside");
    symlink("../outside", base.join("up")).unwrap();
    symlink(&outside, base.join("abs")).unwrap();
    symlink("/up/deeper/../../up", base.join("chain")).unwrap();
    seal(&host, &base, &[dir("/up/one"), file("/abs/two"), dir("/chain/three"), dir("/../../four")], "/abs/five");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(base.join("outside/one").is_dir() && base.join("outside/three").is_dir() && base.join("four").is_dir());
    let inside = base.join(outside.strip_prefix("/").unwrap());
    assert!(inside.join("two").is_file() && inside.join("five").is_dir());
}

#[test]
fn a_tripwire_takes_writes_keeps_them_apart_and_comes_back_pristine() {
    let host = Host::new();
    let (merged, engine_upper) = host.engine(&image(&host), "");
    let layers = host.layers(&merged);
    let staging = host.staging();
    let skeleton = staging.ground(&layers, None).unwrap().skeleton(&layers, &[dir("/proc")], Path::new("/")).unwrap();
    let first = mount_tripwire(&layers, &skeleton, &staging, &merged, 4 << 20).unwrap();
    let pristine = tree(&merged);
    fs::write(merged.join("etc/app/conf"), "evil").unwrap();
    fs::create_dir_all(merged.join("x/y/z")).unwrap();
    fs::remove_dir_all(merged.join("home")).unwrap();
    let full = fs::write(merged.join("big"), vec![1u8; 8 << 20]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC), "the upper is bounded");
    let (upper, tmpfs) = (first.upper, first.tmpfs);
    first.mounted.detach().unwrap();
    let second = mount_tripwire(&layers, &skeleton, &staging, &merged, 4 << 20).unwrap();
    assert_same(&tree(&merged), &pristine);
    let kept = PathBuf::from(proc_fd::path(upper.as_fd()));
    assert_eq!(fs::read(kept.join("etc/app/conf")).unwrap(), b"evil", "the old difference stays readable");
    assert!(fs::symlink_metadata(kept.join("home")).unwrap().rdev() == 0);
    drop(tmpfs);
    let names: Vec<_> = fs::read_dir(proc_fd::path(second.upper.as_fd())).unwrap().collect();
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(fs::read_dir(engine_upper).unwrap().count(), 0, "the engine's upper is untouched");
    assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo").unwrap().matches("staging/mount").count(), 0);
}

#[test]
fn many_small_files_reach_the_tripwires_limit() {
    let host = Host::new();
    let base = host.make("base");
    let layers = host.layers(&base);
    let staging = host.staging();
    let skeleton = staging.ground(&layers, None).unwrap().skeleton(&layers, &[], Path::new("/")).unwrap();
    let _kept = mount_tripwire(&layers, &skeleton, &staging, &base, 4 << 20).unwrap();
    let made = (0..5000).take_while(|n| fs::write(base.join(format!("f{n}")), "").is_ok()).count();
    assert!((500..1024).contains(&made), "{made}");
}
