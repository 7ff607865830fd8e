//! What a process can do to a root filesystem, one function each, with the change that must be told.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use lithify::watch::ChangeKind::{self, Attributes, Create, Delete, Modify, Rename};
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, OFlag, RenameFlags, fallocate, open, renameat2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::linkat;

use crate::world::USER;

pub struct Op {
    pub name: &'static str,
    pub run: fn(&Path),
    pub told: &'static [(ChangeKind, &'static str)],
}

const fn op(name: &'static str, run: fn(&Path), told: &'static [(ChangeKind, &'static str)]) -> Op {
    Op { name, run, told }
}

pub const OPS: &[Op] = &[
    op("create", |r| drop(File::create(r.join("w/new")).unwrap()), &[(Create, "/w/new")]),
    op("create and write", |r| fs::write(r.join("w/new"), "x").unwrap(), &[(Create, "/w/new")]),
    op(
        "nested create",
        |r| {
            fs::create_dir_all(r.join("w/x/y")).unwrap();
            fs::write(r.join("w/x/y/f"), "x").unwrap();
        },
        &[(Create, "/w/x"), (Create, "/w/x/y"), (Create, "/w/x/y/f")],
    ),
    op("mkdir", |r| fs::create_dir(r.join("w/dir")).unwrap(), &[(Create, "/w/dir")]),
    op("append", |r| append(&r.join("w/a")), &[(Modify, "/w/a")]),
    op("append below", |r| append(&r.join("w/sub/s")), &[(Modify, "/w/sub/s")]),
    op("overwrite", |r| fs::write(r.join("w/a"), "other").unwrap(), &[(Modify, "/w/a")]),
    op("mmap", |r| map_and_write(&r.join("w/a"), false), &[(Modify, "/w/a")]),
    op("mmap that stays", |r| map_and_write(&r.join("w/a"), true), &[(Modify, "/w/a")]),
    op("truncate", |r| writer(&r.join("w/a")).set_len(3).unwrap(), &[(Modify, "/w/a")]),
    op(
        "fallocate",
        |r| fallocate(writer(&r.join("w/a")), FallocateFlags::empty(), 0, 65536).unwrap(),
        &[(Modify, "/w/a")],
    ),
    op("open for writing", |r| drop(writer(&r.join("w/a"))), &[(Modify, "/w/a")]),
    op("rename", |r| fs::rename(r.join("w/a"), r.join("w/sub/moved")).unwrap(), &[(Rename, "/w/sub/moved")]),
    op("rename over", |r| fs::rename(r.join("w/a"), r.join("w/b")).unwrap(), &[(Rename, "/w/b")]),
    op("rename a symlink", |r| fs::rename(r.join("w/link"), r.join("w/link2")).unwrap(), &[(Rename, "/w/link2")]),
    op(
        "rename of what is new",
        |r| {
            fs::write(r.join("w/.new.tmp"), "x").unwrap();
            fs::rename(r.join("w/.new.tmp"), r.join("w/a")).unwrap();
        },
        &[(Rename, "/w/a")],
    ),
    op("exchange", exchange, &[(Rename, "/w/a"), (Rename, "/w/b")]),
    op("link", |r| fs::hard_link(r.join("w/a"), r.join("w/hard")).unwrap(), &[(Create, "/w/hard")]),
    op("symlink", |r| symlink("/etc/passwd", r.join("w/sym")).unwrap(), &[(Create, "/w/sym")]),
    op("mknod", |r| mknod(&r.join("w/fifo"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap(), &[(Create, "/w/fifo")]),
    op("unlink", |r| fs::remove_file(r.join("w/a")).unwrap(), &[(Delete, "/w/a")]),
    op("rmdir", |r| fs::remove_dir(r.join("w/empty")).unwrap(), &[(Delete, "/w/empty")]),
    op("rm -r", |r| fs::remove_dir_all(r.join("w/sub")).unwrap(), &[(Delete, "/w/sub"), (Delete, "/w/sub/s")]),
    op("chmod", |r| chmod(&r.join("w/a"), 0o600), &[(Attributes, "/w/a")]),
    op("chmod of a directory", |r| chmod(&r.join("w/sub"), 0o700), &[(Attributes, "/w/sub")]),
    op("chmod of the root", |r| chmod(r, 0o750), &[(Attributes, "/")]),
    op("chown", |r| chown(r.join("w/a"), Some(USER), Some(USER)).unwrap(), &[(Attributes, "/w/a")]),
    op("utimes", |r| writer_times(&r.join("w/a")), &[(Attributes, "/w/a")]),
    op("setxattr", |r| set_attribute(&r.join("w/a")), &[(Attributes, "/w/a")]),
    op("copy_file_range", |r| copy(r, Copy::Range), &[(Create, "/w/from"), (Create, "/w/new")]),
    op("sendfile", |r| copy(r, Copy::Sendfile), &[(Create, "/w/new")]),
    op("splice", |r| copy(r, Copy::Splice), &[(Create, "/w/new")]),
    op("O_TMPFILE and linkat", |r| unnamed(r, true), &[(Create, "/w/linked")]),
    op(
        "create over a deleted file",
        |r| {
            fs::remove_file(r.join("w/a")).unwrap();
            fs::write(r.join("w/a"), "mine").unwrap();
        },
        &[(Modify, "/w/a")],
    ),
    op(
        "mkdir over a deleted directory",
        |r| {
            fs::remove_dir(r.join("w/empty")).unwrap();
            fs::create_dir(r.join("w/empty")).unwrap();
        },
        &[(Create, "/w/empty")],
    ),
    op(
        "create and remove",
        |r| {
            fs::write(r.join("w/gone"), "x").unwrap();
            fs::remove_file(r.join("w/gone")).unwrap();
        },
        &[(Create, "/w/gone")],
    ),
];

fn writer(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn append(path: &Path) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn exchange(root: &Path) {
    renameat2(AT_FDCWD, &root.join("w/a"), AT_FDCWD, &root.join("w/b"), RenameFlags::RENAME_EXCHANGE).unwrap();
}

fn writer_times(path: &Path) {
    use nix::sys::time::TimeSpec;
    let time = TimeSpec::new(1, 1);
    nix::sys::stat::utimensat(AT_FDCWD, path, &time, &time, nix::sys::stat::UtimensatFlags::FollowSymlink).unwrap();
}

/// Writes into an unnamed file, and may give it the name `linked`.
pub fn unnamed(root: &Path, name_it: bool) {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let fd = open(&root.join("w"), flags, Mode::S_IRUSR).unwrap();
    let file = File::from(fd);
    file.write_at(b"payload", 0).unwrap();
    if name_it {
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(AT_FDCWD, from.as_str(), AT_FDCWD, &root.join("w/linked"), AtFlags::AT_SYMLINK_FOLLOW).unwrap();
    }
}

fn map_and_write(path: &Path, keep: bool) {
    let file = writer(path);
    // SAFETY: a fresh shared mapping of an open file that is longer than a byte; nobody else has its address.
    unsafe {
        let at = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED);
        drop(file);
        at.cast::<u8>().write_volatile(b'!');
        if !keep {
            assert_eq!(libc::munmap(at, 4096), 0);
        }
    }
}

fn set_attribute(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the strings end in NUL, the value is one byte and its length says so.
    let result = unsafe { libc::setxattr(path.as_ptr(), c"user.mark".as_ptr(), b"1".as_ptr().cast(), 1, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

enum Copy {
    Range,
    Sendfile,
    Splice,
}

fn copy(root: &Path, how: Copy) {
    // Within one filesystem only: both are in the upper.
    let source = if matches!(how, Copy::Range) { root.join("w/from") } else { root.join("w/b") };
    if matches!(how, Copy::Range) {
        fs::write(&source, "x".repeat(100)).unwrap();
    }
    let from = File::open(source).unwrap();
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(root.join("w/new")).unwrap();
    let (a, b) = (from.as_raw_fd(), to.as_raw_fd());
    let none = std::ptr::null_mut::<libc::loff_t>();
    // SAFETY: both files are open, and no offset is passed.
    let done = unsafe {
        match how {
            Copy::Range => libc::copy_file_range(a, none, b, none, 100, 0),
            Copy::Sendfile => libc::sendfile(b, a, std::ptr::null_mut(), 100),
            Copy::Splice => {
                let (out, into) = nix::unistd::pipe().unwrap();
                assert_eq!(libc::splice(a, none, into.as_raw_fd(), none, 100, 0), 100);
                libc::splice(out.as_raw_fd(), none, b, none, 100, 0)
            }
        }
    };
    assert_eq!(done, 100, "{}", std::io::Error::last_os_error());
    to.flush().unwrap();
    assert_eq!(to.stream_position().unwrap(), 100);
    let _ = to.as_fd();
}
