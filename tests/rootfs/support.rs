//! A mount namespace of a test's own, an engine's overlay in it, and trees as values that can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lithify::rootfs::{Layers, MountPoint, Staging, is_overlay_private, mount_sealed};
use lithify::sys::{statx, xattr};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

/// A folder in a private mount namespace, and what an engine would have there.
pub struct Host {
    pub dir: PathBuf,
    _owner: tempfile::TempDir,
}

impl Host {
    /// The test's process has to be its own, as under nextest: its mount namespace is replaced.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let owner = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(owner.path()).unwrap();
        // A mount of its own: taking it away takes away everything that a test mounts in the folder.
        mount(Some(&dir), &dir, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        fs::create_dir(dir.join("staging")).unwrap();
        Self { dir, _owner: owner }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A directory under the folder.
    pub fn make(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Mounts an overlay as mount(8) would, at `at`, with data as it stands.
    pub fn overlay(&self, at: &Path, flags: MsFlags, data: &str) {
        mount(Some("overlay"), at, Some("overlay"), flags, Some(data)).unwrap_or_else(|e| panic!("{e}: {data}"));
    }

    /// An engine's root over the given lower directories: its path, and its upper.
    pub fn engine(&self, lowers: &[PathBuf], more: &str) -> (PathBuf, PathBuf) {
        let (upper, work, merged) = (self.make("upper"), self.make("work"), self.make("merged"));
        let lowers: Vec<_> = lowers.iter().map(|p| p.to_str().unwrap()).collect();
        let data =
            format!("lowerdir={},upperdir={},workdir={}{more}", lowers.join(":"), upper.display(), work.display());
        self.overlay(&merged, MsFlags::empty(), &data);
        (merged, upper)
    }

    pub fn layers(&self, rootfs: &Path) -> Layers {
        Layers::of(rootfs, &fs::read("/proc/thread-self/mountinfo").unwrap()).unwrap()
    }

    pub fn staging(&self) -> Staging {
        Staging::new(&self.path("staging"), 128 << 20).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::env::set_current_dir("/");
        nix::mount::umount2(&self.dir, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

/// An image with every kind of entry and awkward attributes, in two layers: the lower and the upper one.
pub fn image(host: &Host) -> Vec<PathBuf> {
    let (base, top) = (host.make("l1"), host.make("l2"));
    for dir in ["bin", "etc/app", "var/lib", "tmp", "run", "home/user", "gone"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    fs::write(base.join("bin/tool"), vec![7u8; 200_000]).unwrap();
    fs::hard_link(base.join("bin/tool"), base.join("bin/alias")).unwrap();
    fs::set_permissions(base.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(base.join("etc/app/conf"), "old").unwrap();
    fs::write(base.join("gone/x"), "x").unwrap();
    symlink("/run", base.join("var/run")).unwrap();
    symlink("missing/place", base.join("dangling")).unwrap();
    nix::unistd::mkfifo(&base.join("run/fifo"), Mode::S_IRWXU).unwrap();
    fs::set_permissions(base.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(base.join("home/user"), Some(1000), Some(1001)).unwrap();
    set_xattr(
        &base.join("bin/tool"),
        "security.capability",
        &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    set_xattr(&base.join("home/user"), "user.note", b"mine");
    set_xattr(&base.join("etc"), "trusted.note", b"ours");
    fs::create_dir_all(top.join("etc/app")).unwrap();
    fs::write(top.join("etc/app/conf"), "new").unwrap();
    nix::sys::stat::mknod(&top.join("gone"), nix::sys::stat::SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    fs::set_permissions(top.join("etc"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(&top, fs::Permissions::from_mode(0o555)).unwrap();
    for (n, dir) in ["run", "home/user", "home", "tmp", "var", ""].iter().enumerate() {
        old(&base.join(dir), n);
    }
    old(&top.join("etc"), 20);
    old(&top, 21);
    vec![top, base]
}

/// Sets the times of a file to a date long ago, with nanoseconds.
pub fn old(path: &Path, n: usize) {
    let at = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000 + n as u64, 123_456_789);
    let times = fs::FileTimes::new().set_accessed(at).set_modified(at);
    fs::File::open(path).unwrap().set_times(times).unwrap();
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    xattr::set(o_path(path), name.as_ref(), value).unwrap();
}

pub fn o_path(path: &Path) -> OwnedFd {
    open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn dir(path: &str) -> MountPoint {
    MountPoint { destination: path.into(), is_file: false }
}

pub fn file(path: &str) -> MountPoint {
    MountPoint { destination: path.into(), is_file: true }
}

/// All that a program can see of a tree, by path: attributes, time of change in nanoseconds, content. (Access times are
/// left out: this very look moves them.)
pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![PathBuf::new()];
    while let Some(path) = ahead.pop() {
        let full = root.join(&path);
        let fd = o_path(&full);
        let s = statx::statx(fd.as_fd()).unwrap();
        let content = match s.kind() {
            libc::S_IFDIR => {
                ahead.extend(fs::read_dir(&full).unwrap().map(|e| path.join(e.unwrap().file_name())));
                String::new()
            }
            libc::S_IFREG => format!("{:?}", fs::read(&full).unwrap()),
            libc::S_IFLNK => format!("{:?}", fs::read_link(&full).unwrap()),
            _ => format!("{:?}", s.rdev),
        };
        let mut xattrs: Vec<_> = xattr::list(&fd)
            .unwrap()
            .into_iter()
            .filter(|name| !is_overlay_private(name))
            .map(|name| (name.clone(), xattr::get(&fd, &name).unwrap()))
            .collect();
        xattrs.sort();
        let xattrs: String = format!("{xattrs:?}").chars().take(2500).collect();
        let links = if s.is_dir() { 0 } else { s.links };
        let size = if s.is_dir() { 0 } else { s.size };
        let hash = content.as_bytes().iter().fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(*b)));
        found.insert(
            path,
            format!(
                "{:o} {}:{} links {links} size {size} modified {:?} xattrs {xattrs} {hash:x}",
                s.mode, s.uid, s.gid, s.modified
            ),
        );
    }
    found
}

/// Fails with the first lines that differ.
pub fn assert_same(got: &BTreeMap<PathBuf, String>, expected: &BTreeMap<PathBuf, String>) {
    let paths: std::collections::BTreeSet<_> = got.keys().chain(expected.keys()).collect();
    let different: Vec<_> = paths
        .into_iter()
        .filter(|p| got.get(*p) != expected.get(*p))
        .map(|p| format!("{:?}\n  got      {:?}\n  expected {:?}", p, got.get(p), expected.get(p)))
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Seals `rootfs` with mount points, on top of itself.
pub fn seal(host: &Host, rootfs: &Path, mounts: &[MountPoint], cwd: &str) -> Layers {
    let layers = host.layers(rootfs);
    let staging = host.staging();
    let skeleton = staging.ground(&layers, None).unwrap().skeleton(&layers, mounts, Path::new(cwd)).unwrap();
    mount_sealed(&layers, &skeleton, &staging, rootfs).unwrap();
    layers
}

pub fn refused(what: &str, result: std::io::Result<impl Sized>) {
    let error = result.err().unwrap_or_else(|| panic!("{what} is not refused"));
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
}

pub fn every_write_is_refused(root: &Path) {
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
