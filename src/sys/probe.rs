//! Whether this kernel can do what protection needs: each probe does the thing itself, on a tmpfs of its own.
//!
//! Owns: the system calls of the probes. Must not: guess from a version, or leave anything behind: [`in_private_mounts`]
//! gives them a mount namespace that ends with them.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

/// Longest wait for an event that the kernel queues at once.
const PATIENCE_MS: u16 = 2000;

/// Runs `probe` on a thread that has a mount namespace of its own, with an empty tmpfs at the path it is given.
///
/// # Errors
/// When the namespace or the tmpfs can't be made (CAP_SYS_ADMIN), or the thread dies.
pub fn in_private_mounts<T: Send + 'static>(probe: impl FnOnce(&Path) -> T + Send + 'static) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("probe".to_string()).spawn(move || -> io::Result<T> {
        // For a thread, unlike a user namespace: it implies CLONE_FS, so that only this thread moves (unshare(2)).
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tmpfs"), "/tmp", Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("size=1m"))?;
        Ok(probe(Path::new("/tmp")))
    })?;
    thread.join().map_err(|_| io::Error::other("the probe's thread died"))?
}

fn folders(at: &Path, names: &[&str]) -> io::Result<()> {
    names.iter().try_for_each(|name| std::fs::create_dir_all(at.join(name)))
}

fn unexpected(what: &str) -> io::Error {
    io::Error::other(what.to_string())
}

/// An overlay of two lower layers and no upper refuses a write with EROFS (Linux 3.18; overlayfs.rst).
///
/// # Errors
/// When it can't be mounted, or a write lands.
pub fn overlay_without_upper(at: &Path) -> io::Result<()> {
    folders(at, &["sealed/a", "sealed/b", "sealed/m"])?;
    let base = at.join("sealed");
    let options = format!("lowerdir={}:{}", base.join("a").display(), base.join("b").display());
    let merged = base.join("m");
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    match File::create(merged.join("f")) {
        Err(e) if e.raw_os_error() == Some(libc::EROFS) => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Err(unexpected("a write to an overlay without an upper was not refused")),
    }
}

/// An overlay with its upper on a tmpfs takes a write.
///
/// # Errors
/// When it can't be mounted or written.
pub fn overlay_on_tmpfs(at: &Path) -> io::Result<()> {
    folders(at, &["wire/l", "wire/u", "wire/w", "wire/m"])?;
    let base = at.join("wire").display().to_string();
    let options = format!("lowerdir={base}/l,upperdir={base}/u,workdir={base}/w");
    let merged = format!("{base}/m");
    mount(Some("overlay"), merged.as_str(), Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    File::create(format!("{merged}/f")).map(drop)
}

/// An overlay made with fsconfig(2)'s `lowerdir+`, which has no limit to the number of layers (Linux 6.5).
///
/// # Errors
/// When the kernel lacks fsopen(2) or the option.
pub fn overlay_lowerdir_append(at: &Path) -> io::Result<()> {
    folders(at, &["append/a", "append/b"])?;
    // SAFETY: fsopen takes a string and flags; the string is a literal that ends with a zero byte.
    let fd = unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), libc::FSOPEN_CLOEXEC) };
    let fs = owned(fd)?;
    for name in ["append/a", "append/b"] {
        let path = CString::new(at.join(name).as_os_str().as_bytes()).map_err(io::Error::other)?;
        fsconfig(&fs, libc::FSCONFIG_SET_STRING, Some(c"lowerdir+"), Some(&path))?;
    }
    fsconfig(&fs, libc::FSCONFIG_CMD_CREATE, None, None)
}

fn fsconfig(fs: &OwnedFd, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: both pointers are null or point to strings that outlive the call; the descriptor is open.
    let r = unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, pointer(key), pointer(value), 0) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a system call has just returned it as a new descriptor, which nobody else holds.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A fanotify mark of a whole tmpfs tells directory and name of a created file (FAN_REPORT_DFID_NAME, Linux 5.9).
///
/// # Errors
/// When it can't be made, or no event comes.
pub fn fanotify_names(at: &Path) -> io::Result<()> {
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_DFID_NAME | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
    // SAFETY: fanotify_init takes numbers only.
    let group = owned(unsafe { libc::fanotify_init(flags, libc::O_RDONLY as u32) }.into())?;
    let path = CString::new(at.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let how = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
    let mask = libc::FAN_CREATE | libc::FAN_ONDIR;
    // SAFETY: the path is a string that outlives the call; the rest are numbers.
    if unsafe { libc::fanotify_mark(group.as_raw_fd(), how, mask, libc::AT_FDCWD, path.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    File::create(at.join("seen"))?;
    expect_ready(group.as_fd(), PollFlags::POLLIN, "no fanotify event came for a created file")
}

/// inotify tells of a created file (Linux 2.6.13).
///
/// # Errors
/// When the limit of instances or watches is reached, or no event comes.
pub fn inotify_works(at: &Path) -> io::Result<()> {
    let instance = inotify::Inotify::init()?;
    instance.watches().add(at, inotify::WatchMask::CREATE)?;
    File::create(at.join("noticed"))?;
    expect_ready(instance.as_fd(), PollFlags::POLLIN, "no inotify event came for a created file")
}

/// A poll of mountinfo wakes at a new mount (Linux 2.6.15; proc_pid_mountinfo(5)).
///
/// # Errors
/// When it does not.
pub fn mountinfo_wakes(at: &Path) -> io::Result<()> {
    folders(at, &["mounted"])?;
    let table = File::open("/proc/thread-self/mountinfo")?;
    mount(Some("tmpfs"), &at.join("mounted"), Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?;
    expect_ready(table.as_fd(), PollFlags::POLLPRI, "a new mount did not wake a poll of mountinfo")
}

fn expect_ready(fd: std::os::fd::BorrowedFd<'_>, flags: PollFlags, otherwise: &str) -> io::Result<()> {
    let mut fds = [PollFd::new(fd, flags)];
    match poll(&mut fds, PollTimeout::from(PATIENCE_MS))? {
        0 => Err(unexpected(otherwise)),
        _ => Ok(()),
    }
}

/// pidfd_open(2) and pidfd_send_signal(2) (Linux 5.3).
///
/// # Errors
/// When the kernel lacks them, or a seccomp filter refuses them.
pub fn pidfd() -> io::Result<()> {
    // SAFETY: both calls take numbers only, besides a null pointer that stands for "no siginfo".
    let fd = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) })?;
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: as above; signal 0 only asks whether a signal could be sent.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), 0, null, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// openat2(2) resolves below a folder and not out of it (Linux 5.6).
///
/// # Errors
/// When the kernel lacks it, or a seccomp filter refuses it.
pub fn openat2_stays_below() -> io::Result<()> {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    let how = || OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH);
    let root = File::open("/proc")?;
    openat2(root.as_fd(), "self", how()).map(drop)?;
    match openat2(root.as_fd(), "..", how()) {
        Err(nix::Error::EXDEV) => Ok(()),
        Err(e) => Err(e.into()),
        Ok(_) => Err(unexpected("openat2 let a path out of its folder")),
    }
}
