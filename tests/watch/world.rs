//! A container's root filesystem on a private stage: an image directory, a tmpfs with upper and work, the overlay.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lithify::watch::{Change, ChangeKind, Drained, Image};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

/// The uid and gid of the unprivileged half of the tests.
pub const USER: u32 = 1000;

pub struct World {
    dir: tempfile::TempDir,
}

/// Moves this thread into a mount namespace whose mounts reach nobody else.
pub fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("root may unshare its mount namespace");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("propagation is cut");
}

impl World {
    /// An overlay over an image with files in `/w`, which belongs to [`USER`], and in `/etc`, which belongs to root.
    pub fn new() -> World {
        let dir = tempfile::tempdir().expect("a folder");
        let world = World { dir };
        for path in ["image/w/sub", "image/w/empty", "image/etc/deep", "tmpfs", "merged"] {
            fs::create_dir_all(world.path(path)).expect("made");
        }
        for path in ["w/a", "w/b", "w/c", "w/sub/s", "etc/passwd", "etc/deep/conf"] {
            fs::write(world.path("image").join(path), "from the image\n".repeat(100)).expect("written");
        }
        symlink("a", world.path("image/w/link")).expect("linked");
        for path in ["w", "w/a", "w/b", "w/c", "w/sub", "w/sub/s", "w/empty", "."] {
            let path = world.path("image").join(path);
            chown(&path, Some(USER), Some(USER)).expect("owned");
        }
        fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).expect("searchable");
        let none: Option<&str> = None;
        mount(Some("tripwire"), &world.path("tmpfs"), Some("tmpfs"), MsFlags::empty(), none).expect("a tmpfs");
        fs::create_dir(world.path("tmpfs/upper")).expect("made");
        fs::create_dir(world.path("tmpfs/work")).expect("made");
        chown(world.path("tmpfs/upper"), Some(USER), Some(USER)).expect("owned");
        let show = |name: &str| world.path(name).display().to_string();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", show("image"), show("tmpfs/upper"), show("tmpfs/work"));
        mount(Some("overlay"), &world.path("merged"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .expect("an overlay");
        world
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub fn merged(&self) -> PathBuf {
        self.path("merged")
    }

    pub fn open(&self, below: &str) -> OwnedFd {
        open_dir(&self.path(below))
    }

    pub fn image(&self) -> Image {
        Image::new(vec![self.open("image")])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in ["merged", "tmpfs"] {
            let _ = umount2(&self.path(name), MntFlags::MNT_DETACH);
        }
    }
}

pub fn open_dir(path: &Path) -> OwnedFd {
    fs::File::open(path).expect("the directory opens").into()
}

/// Runs this very test again in a user namespace of its own in which `user.<limit>` is 0, so that nothing else on the
/// machine meets the limit. Gives true in there.
pub fn without_any(limit: &str, test: &str) -> bool {
    if std::env::var_os("LITHIFY_TEST_LIMIT").is_some() {
        return true;
    }
    let script = format!("echo 0 > /proc/sys/user/{limit} && exec \"$@\"");
    let inner = std::env::current_exe().expect("the test has a program");
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", &script, "sh"])
        .arg(inner)
        .args(["--exact", test, "--nocapture"])
        .env("LITHIFY_TEST_LIMIT", "0")
        .output()
        .expect("unshare runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Waits for the descriptor, at most five seconds.
pub fn ready(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, events)];
    poll(&mut fds, PollTimeout::from(5000u16)).expect("poll works") > 0
}

/// Kinds and paths, in order.
pub fn told(drained: &Drained) -> Vec<(ChangeKind, String)> {
    drained.changes.iter().map(|c| (c.kind, c.path.display().to_string())).collect()
}

/// Drains until a change fits or five seconds have passed; gives all changes.
pub fn until(
    mut drain: impl FnMut() -> Drained,
    mut fits: impl FnMut(&Change) -> bool,
) -> Result<Vec<Change>, Vec<Change>> {
    let end = Instant::now() + Duration::from_secs(5);
    let mut all = Vec::new();
    while Instant::now() < end {
        all.extend(drain().changes);
        if all.iter().any(&mut fits) {
            return Ok(all);
        }
    }
    Err(all)
}
