//! Who made a call that was refused, and which path it gave: read from `/proc` and from the caller's memory while it waits.
//!
//! Owns: those bounded looks. Must not: trust what is found: names and memory are the caller's own; or read itself what a
//! caller could make it wait for.

use std::io::Read;
use std::os::unix::fs::MetadataExt;

use crate::look::{self, Unseen};
use crate::profile::syscalls;
use crate::sys::seccomp::{ARCH_I386, ARCH_X86_64, Notification};

/// Longest path that is read (`PATH_MAX`), in bytes.
const MAX_PATH: usize = 4096;
/// A path that could not be looked at.
const UNKNOWN: &str = "(unknown)";
/// Most of `/proc/<pid>/status` that is read, in bytes: the thread group is in its first lines.
const MAX_STATUS: u64 = 4096;

/// A process that made a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// Its thread group, in our pid namespace.
    pub pid: i32,
    /// Its program's path; its command name where that can't be read.
    pub program: String,
}

/// A program that a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    path: String,
    /// Device and inode.
    file: (u64, u64),
}

impl Image {
    /// That of a process which runs nothing of the container's yet.
    pub(super) fn of(pid: i32) -> Option<Image> {
        let facts = std::fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some(Image { path: look(pid).program, file: (facts.dev(), facts.ino()) })
    }

    /// Whether it is what a caller runs, for sure.
    pub(super) fn is_of(&self, caller: &Caller) -> bool {
        self.path == caller.program && look::program(caller.pid) == Ok(self.file)
    }
}

/// The process of a thread. What can't be read is left out: it may be gone.
pub(super) fn look(tid: i32) -> Caller {
    let proc = format!("/proc/{tid}");
    let link = std::fs::read_link(format!("{proc}/exe")).ok().map(|path| path.to_string_lossy().into_owned());
    let name = || std::fs::read_to_string(format!("{proc}/comm")).unwrap_or_default().trim_end().to_owned();
    Caller { pid: thread_group(&proc).unwrap_or(tid), program: link.unwrap_or_else(name) }
}

fn thread_group(proc: &str) -> Option<i32> {
    let mut text = String::new();
    std::fs::File::open(format!("{proc}/status")).ok()?.take(MAX_STATUS).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// A call's name, as profiles have it. An interface that is neither of x86's two is told by its number.
pub(super) fn name(call: &Notification) -> String {
    match call.arch {
        ARCH_X86_64 => syscalls::name(false, call.number),
        ARCH_I386 => syscalls::name(true, call.number),
        other => format!("{other:#x}:#{}", call.number),
    }
}

/// The path that a call was given, as it is in the caller's memory now; [`UNKNOWN`] where that memory does not come.
pub(super) fn path(call: &Notification, name: &str) -> Option<String> {
    let at = path_argument(name.trim_start_matches("i386:"))?;
    let address = call.arguments.get(at).copied().filter(|address| *address != 0)?;
    let bytes = match look::text(call.tid, address, MAX_PATH) {
        Ok(bytes) => bytes,
        Err(Unseen::Unanswered) => return Some(UNKNOWN.to_owned()),
        Err(Unseen::No(_)) => return None,
    };
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Which argument of a call is the path that it acts on (of two, the one that is changed or made).
fn path_argument(name: &str) -> Option<usize> {
    Some(match name {
        "access" | "acct" | "chdir" | "chmod" | "chown" | "chown32" | "chroot" | "creat" | "execve" | "getxattr"
        | "lchown" | "lchown32" | "lgetxattr" | "link" | "listxattr" | "llistxattr" | "lremovexattr" | "lsetxattr"
        | "lstat" | "lstat64" | "memfd_create" | "mkdir" | "mknod" | "mq_open" | "mq_unlink" | "oldlstat"
        | "oldstat" | "open" | "pivot_root" | "readlink" | "removexattr" | "rename" | "rmdir" | "setxattr" | "stat"
        | "stat64" | "statfs" | "statfs64" | "swapoff" | "swapon" | "truncate" | "truncate64" | "umount"
        | "umount2" | "unlink" | "uselib" | "utime" | "utimes" => 0,
        "execveat" | "faccessat" | "faccessat2" | "fchmodat" | "fchmodat2" | "fchownat" | "fspick" | "fstatat64"
        | "futimesat" | "getxattrat" | "inotify_add_watch" | "listxattrat" | "linkat" | "mkdirat" | "mknodat"
        | "mount" | "mount_setattr" | "move_mount" | "name_to_handle_at" | "newfstatat" | "open_tree"
        | "open_tree_attr" | "openat" | "openat2" | "quotactl" | "readlinkat" | "removexattrat" | "renameat"
        | "renameat2" | "setxattrat" | "statx" | "symlink" | "unlinkat" | "utimensat" | "utimensat_time64" => 1,
        "symlinkat" => 2,
        "fanotify_mark" => 4,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arch: u32, number: i64, arguments: [u64; 6]) -> Notification {
        Notification { id: 1, tid: std::process::id() as i32, arch, number: number as u32, arguments }
    }

    #[test]
    fn a_call_is_named_by_its_interface_with_the_path_in_the_callers_memory() {
        let given = std::ffi::CString::new("/srv/plant").expect("no NUL inside");
        let at = given.as_ptr() as u64;
        let made = call(ARCH_X86_64, libc::SYS_mkdirat, [0, at, 0, 0, 0, 0]);
        assert_eq!(name(&made), "mkdirat");
        assert_eq!(path(&made, "mkdirat").as_deref(), Some("/srv/plant"));
        let compat = call(ARCH_I386, 39, [at, 0, 0, 0, 0, 0]);
        assert_eq!(name(&compat), "i386:mkdir");
        assert_eq!(path(&compat, &name(&compat)).as_deref(), Some("/srv/plant"));
        assert_eq!(name(&call(ARCH_X86_64, 9999, [0; 6])), "#9999");
        assert_eq!(name(&call(0xc000_00b7, 34, [0; 6])), "0xc00000b7:#34");
        for nowhere in [0, 1, u64::MAX] {
            assert_eq!(path(&call(ARCH_X86_64, libc::SYS_mkdir, [nowhere, 0, 0, 0, 0, 0]), "mkdir"), None);
        }
        assert_eq!(path(&call(ARCH_X86_64, libc::SYS_getpid, [at; 6]), "getpid"), None);
    }

    #[test]
    fn a_thread_is_told_as_its_process_and_one_that_is_gone_by_its_number() {
        let own = std::process::id() as i32;
        let tid = std::thread::spawn(|| {
            let tid = nix::unistd::gettid().as_raw();
            (tid, look(tid))
        });
        let (tid, caller) = tid.join().expect("joined");
        assert_ne!(tid, own);
        assert_eq!(caller.pid, own);
        assert_eq!(Some(caller.program.into()), std::env::current_exe().ok());
        let image = Image::of(own).expect("a program");
        assert!(image.is_of(&look(own)) && !image.is_of(&Caller { program: "/bin/sh".to_owned(), ..look(own) }));
        assert!(!Image { file: (0, 0), ..image }.is_of(&look(own)));
        let gone = look(i32::MAX);
        assert_eq!((gone.pid, gone.program.as_str()), (i32::MAX, ""));
        assert_eq!(Image::of(i32::MAX), None);
    }

    #[test]
    fn calls_with_a_path_are_calls() {
        // The table is by name: a name that no interface has would never be looked up.
        for name in ["access", "mkdirat", "symlinkat", "fanotify_mark", "umount2", "renameat2", "open_tree"] {
            assert!(path_argument(name).is_some() && syscalls::parse(name).is_some(), "{name}");
        }
        assert!(syscalls::parse("i386:umount").is_some() && syscalls::parse("i386:utimensat_time64").is_some());
    }
}
