//! Sealed and tripwire roots, as root in a mount namespace of each test's own (nextest gives each its own process).

mod rootfs_support;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use lithify::rootfs::{Baseline, Layers, MountPoint, mount_sealed, mount_tripwire, seal_mark};
use lithify::sys::{proc_fd, xattr};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use rootfs_support::*;

/// Seals `rootfs` with mount points, on top of itself.
fn seal(host: &Host, rootfs: &Path, mounts: &[MountPoint], cwd: &str) -> Layers {
    let layers = host.layers(rootfs);
    let staging = host.staging();
    let skeleton = staging.skeleton(&layers, mounts, Path::new(cwd), None).unwrap();
    mount_sealed(&layers, &skeleton, &staging, rootfs).unwrap();
    layers
}

fn refused(what: &str, result: std::io::Result<impl Sized>) {
    let error = result.err().unwrap_or_else(|| panic!("{what} is not refused"));
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
}

fn every_write_is_refused(root: &Path) {
    let (tool, etc) = (root.join("bin/tool"), root.join("etc"));
    let open = |flags: i32| fs::OpenOptions::new().write(true).custom_flags(flags).open(&tool);
    refused("open for writing", open(0));
    refused("append", open(libc::O_APPEND));
    refused("truncate on open", open(libc::O_TRUNC));
    refused("O_TMPFILE", fs::OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(&etc));
    refused("create", fs::write(root.join("new"), ""));
    refused("create in a directory of the skeleton", fs::write(root.join("proc/new"), ""));
    refused("mkdir", fs::create_dir(root.join("newdir")));
    refused("unlink", fs::remove_file(&tool));
    refused("rmdir", fs::remove_dir(root.join("var/lib")));
    refused("rename", fs::rename(&tool, root.join("bin/other")));
    refused("link", fs::hard_link(&tool, root.join("bin/third")));
    refused("symlink", symlink("x", root.join("link")));
    refused("chmod", fs::set_permissions(&tool, fs::Permissions::from_mode(0o777)));
    refused("chown", std::os::unix::fs::chown(&tool, Some(5), Some(5)));
    refused("utimes", fs::File::open(&tool).unwrap().set_modified(SystemTime::now()));
    refused("setxattr", xattr::set(o_path(&tool), "user.x".as_ref(), b"x"));
    let fifo = nix::unistd::mkfifo(&root.join("newfifo"), nix::sys::stat::Mode::S_IRWXU);
    refused("mknod", fifo.map_err(std::io::Error::from));
}

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
    fs::set_permissions(&base.join("a"), fs::Permissions::from_mode(0o2751)).unwrap();
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
fn a_tripwire_takes_writes_keeps_them_apart_and_comes_back_pristine() {
    let host = Host::new();
    let (merged, engine_upper) = host.engine(&image(&host), "");
    let layers = host.layers(&merged);
    let staging = host.staging();
    let skeleton = staging.skeleton(&layers, &[dir("/proc")], Path::new("/"), None).unwrap();
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
    let skeleton = staging.skeleton(&layers, &[], Path::new("/"), None).unwrap();
    let _kept = mount_tripwire(&layers, &skeleton, &staging, &base, 4 << 20).unwrap();
    let made = (0..5000).take_while(|n| fs::write(base.join(format!("f{n}")), "").is_ok()).count();
    assert!((500..1024).contains(&made), "{made}");
}

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
    let instant = seal_mark(o_path(&upper).as_fd(), later()).unwrap();
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

/// An instant after everything that was written so far: file times come from a clock that ticks every few ms.
fn later() -> SystemTime {
    SystemTime::now()
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
