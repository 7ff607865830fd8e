//! Layers as engines mount them.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lithify::rootfs::Layers;
use lithify::sys::proc_fd;
use nix::mount::{MsFlags, mount};

use crate::support::*;

#[test]
fn relative_lowerdirs_of_containerd_resolve() {
    let host = Host::new();
    for (n, text) in ["one", "two"].iter().enumerate() {
        let fs_dir = host.make(&format!("snapshots/{}/fs", n + 1));
        fs::write(fs_dir.join(text), text).unwrap();
    }
    let (upper, work) = (host.make("snapshots/3/fs"), host.make("snapshots/3/work"));
    let merged = host.make("run/task/id/rootfs");
    std::env::set_current_dir(host.path("snapshots")).unwrap();
    let data = format!("lowerdir=2/fs:1/fs,upperdir={},workdir={}", upper.display(), work.display());
    host.overlay(&merged, MsFlags::MS_NODEV, &data);
    std::env::set_current_dir("/").unwrap();
    fs::write(merged.join("dirt"), "").unwrap();
    let layers = seal(&host, &merged, &[dir("/proc")], "/");
    assert_eq!((layers.lowers.len(), layers.degraded.as_deref()), (2, None));
    let names: Vec<_> = tree(&merged).into_keys().collect();
    assert_eq!(names, ["", "one", "proc", "two"].map(PathBuf::from));
    let info = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(info.lines().rfind(|l| l.contains("rootfs")).unwrap().contains("nodev"), "the engine's mount flags stay");
}

#[test]
fn relative_lowerdirs_of_docker_resolve() {
    let host = Host::new();
    for id in ["aa", "bb"] {
        fs::write(host.make(&format!("overlay2/{id}/diff")).join(id), id).unwrap();
        host.make("overlay2/l");
        symlink(format!("../{id}/diff"), host.path("overlay2/l").join(id.to_uppercase())).unwrap();
    }
    for part in ["diff", "work", "merged"] {
        host.make(&format!("overlay2/cc/{part}"));
    }
    std::env::set_current_dir(host.path("overlay2")).unwrap();
    host.overlay(Path::new("cc/merged"), MsFlags::empty(), "lowerdir=l/BB:l/AA,upperdir=cc/diff,workdir=cc/work");
    std::env::set_current_dir("/").unwrap();
    let layers = host.layers(&host.path("overlay2/cc/merged"));
    assert_eq!((layers.lowers.len(), layers.upper.is_some(), layers.degraded.as_deref()), (2, true, None));
}

#[test]
fn a_relative_layer_of_the_wrong_directory_is_not_taken() {
    let host = Host::new();
    let lower = host.make("right/base/fs");
    fs::write(lower.join("real"), "real").unwrap();
    // Nearer to the upper lies a directory of the same name with something else in it.
    fs::write(host.make("right/near/base/fs").join("fake"), "fake").unwrap();
    let (upper, work, merged) = (host.make("right/near/up"), host.make("right/near/work"), host.make("merged"));
    std::env::set_current_dir(host.path("right")).unwrap();
    let data = format!("lowerdir=base/fs,upperdir={},workdir={}", upper.display(), work.display());
    host.overlay(&merged, MsFlags::empty(), &data);
    std::env::set_current_dir("/").unwrap();
    let layers = host.layers(&merged);
    assert_eq!(layers.degraded, None);
    let opened = fs::read_link(proc_fd::path(layers.lowers[0].as_fd())).unwrap();
    assert_eq!(opened, lower);
}

#[test]
fn a_lower_path_with_colon_and_comma_mounts() {
    let host = Host::new();
    let (odd, other) = (host.make("a:b,c \\d\n"), host.make("other"));
    fs::write(odd.join("odd"), "odd").unwrap();
    let (upper, work, merged) = (host.make("up:per,x"), host.make("wo:rk"), host.make("merged, too"));
    let escape = |p: &Path| p.to_str().unwrap().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
    let data =
        format!("lowerdir={}:{},upperdir={},workdir={}", escape(&odd), escape(&other), escape(&upper), escape(&work));
    host.overlay(&merged, MsFlags::empty(), &data);
    let layers = seal(&host, &merged, &[dir("/proc")], "/");
    assert_eq!((layers.lowers.len(), layers.upper.is_some(), layers.degraded.as_deref()), (2, true, None));
    assert_eq!(fs::read(merged.join("odd")).unwrap(), b"odd");
}

#[test]
fn layers_that_have_vanished_degrade_to_the_engines_mount_and_say_so() {
    let host = Host::new();
    let lowers = image(&host);
    let temporary = host.make("temporary");
    mount(Some(&lowers[1]), &temporary, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let (merged, _) = host.engine(&[lowers[0].clone(), temporary.clone()], "");
    nix::mount::umount(&temporary).unwrap();
    fs::remove_dir(&temporary).unwrap();
    let layers = seal(&host, &merged, &[dir("/proc")], "/");
    assert!(layers.degraded.as_ref().unwrap().contains("can't be told apart"), "{:?}", layers.degraded);
    every_write_is_refused(&merged);
    assert_eq!(fs::read(merged.join("etc/app/conf")).unwrap(), b"new");
}

#[test]
fn fifty_layers_mount() {
    let host = Host::new();
    let layers: Vec<_> = (0..50).map(|n| host.make(&format!("layers/{n}"))).collect();
    for (n, layer) in layers.iter().enumerate() {
        fs::write(layer.join(format!("f{n}")), n.to_string()).unwrap();
    }
    std::env::set_current_dir(host.path("layers")).unwrap();
    let (upper, work, merged) = (host.make("upper"), host.make("work"), host.make("merged"));
    let names: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    let data = format!("lowerdir={},upperdir={},workdir={}", names.join(":"), upper.display(), work.display());
    host.overlay(&merged, MsFlags::empty(), &data);
    std::env::set_current_dir("/").unwrap();
    seal(&host, &merged, &[dir("/proc")], "/");
    for n in 0..50 {
        assert_eq!(fs::read_to_string(merged.join(format!("f{n}"))).unwrap(), n.to_string());
    }
}

#[test]
fn metacopy_layers_read_through() {
    let host = Host::new();
    let lowers = image(&host);
    let options = ",metacopy=on,redirect_dir=on";
    let (merged, upper) = host.engine(&lowers, options);
    // An image layer as a storage driver with metacopy leaves it: attributes above, content beneath; a moved directory.
    fs::set_permissions(merged.join("bin/tool"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(merged.join("home"), merged.join("moved")).unwrap();
    let expected = tree(&merged);
    nix::mount::umount(&merged).unwrap();
    fs::rename(&upper, host.path("committed")).unwrap();
    fs::remove_dir_all(host.path("work")).unwrap();
    let stack = [vec![host.path("committed")], lowers].concat();
    let (merged, _) = host.engine(&stack, options);
    seal(&host, &merged, &[], "/");
    assert_same(&tree(&merged), &expected);
    refused("a write", fs::write(merged.join("moved/user/x"), ""));
}

#[test]
fn a_rootfs_that_is_missing_a_link_or_a_file_is_refused_in_words() {
    let host = Host::new();
    fs::write(host.path("file"), "").unwrap();
    symlink(&host.dir, host.path("link")).unwrap();
    let info = fs::read("/proc/thread-self/mountinfo").unwrap();
    for (name, words) in
        [("none", "of bundle does not exist"), ("file", "is not a directory"), ("link", "is a symbolic link")]
    {
        let error = Layers::of(&host.path(name), &info).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(name), "{error}");
    }
}

#[test]
fn xino_is_the_engines() {
    let host = Host::new();
    let other = host.make("other");
    mount(Some("tmpfs"), &other, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    fs::write(other.join("file"), "").unwrap();
    fs::write(host.make("lower").join("second"), "").unwrap();
    let (merged, _) = host.engine(&[other, host.path("lower")], ",xino=on");
    let layers = seal(&host, &merged, &[], "/");
    assert!(layers.options.iter().any(|(name, _)| name == "xino"), "{:?}", layers.options);
    let dev = |name: &str| fs::metadata(merged.join(name)).unwrap().dev();
    assert_eq!([dev(""), dev("file")], [dev("second"); 2], "one device for all");
}

#[test]
fn inode_numbers_of_a_sealed_root_are_those_of_its_layers() {
    let host = Host::new();
    let lowers = image(&host);
    let (merged, _) = host.engine(&lowers, "");
    seal(&host, &merged, &[], "/");
    let seen = |name: &str| fs::metadata(merged.join(name)).map(|m| (m.dev(), m.ino())).unwrap();
    assert_eq!(seen("bin/tool"), seen("bin/alias"), "hard links are the same file");
    assert_eq!(seen("bin/tool"), seen("bin/tool"));
    assert_eq!(seen("bin/tool").1, fs::metadata(lowers[1].join("bin/tool")).unwrap().ino());
    assert_eq!(seen("bin").0, seen("etc").0, "directories are on one device");
}
