//! What guarded containers do that their filter answers.

use std::fs;

use lithify::sys::process::Exit;
use nix::errno::Errno;

use crate::act::{bare, filter};
use crate::guard_acts::child;

/// A call by the x32 interface, and one of x86-64's own, for which a filter kills: the whole process, beside a thread that waits,
/// and a thread alone. Then an end by nobody's filter.
pub fn killed() {
    let kills = |number: u32, answer: u32, call: fn()| {
        let end = child(|| {
            std::thread::spawn(std::thread::park);
            std::thread::spawn(move || {
                filter(0, number, answer);
                call();
            })
            .join()
            .unwrap();
        });
        assert_eq!(end, Exit::Signal(libc::SIGSYS));
    };
    kills(X32_GETPID, libc::SECCOMP_RET_KILL_PROCESS, x32);
    kills(libc::SYS_getppid as u32, libc::SECCOMP_RET_KILL_PROCESS, || bare(libc::SYS_getppid));
    let alone = child(|| {
        let thread = std::thread::spawn(|| {
            filter(0, libc::SYS_getuid as u32, libc::SECCOMP_RET_KILL_THREAD);
            bare(libc::SYS_getuid);
        });
        // Nobody tells of its end but the kernel.
        while fs::read_dir("/proc/self/task").unwrap().count() > 1 {
            std::thread::yield_now();
        }
        std::mem::forget(thread);
    });
    assert_eq!(alone, Exit::Code(0));
    let signalled = child(|| nix::sys::signal::raise(nix::sys::signal::SIGSYS).unwrap());
    assert_eq!(signalled, Exit::Signal(libc::SIGSYS));
}

/// `getpid` with `__X32_SYSCALL_BIT`.
const X32_GETPID: u32 = 0x4000_0000 | libc::SYS_getpid as u32;

fn x32() {
    // SAFETY: getpid takes no arguments and touches no memory.
    unsafe {
        std::arch::asm!("syscall", inout("rax") u64::from(X32_GETPID) => _, out("rcx") _, out("r11") _);
    }
}

/// What a filter answers that knows no clone3: to one that asks for a namespace, to one that does not, to a question.
pub fn namespaces() {
    filter(0, libc::SYS_clone3 as u32, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    let clone3 = |flags: u64| {
        let arguments = [flags, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
        // SAFETY: whole arguments that outlive the call (clone(2)), which the filter refuses.
        unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) }
    };
    assert_eq!((clone3(libc::CLONE_NEWUSER as u64), Errno::last()), (-1, Errno::ENOSYS));
    assert_eq!((clone3(libc::CLONE_PIDFD as u64), clone3(0)), (-1, -1));
    // In a page that nobody has touched: what it holds can't be looked at from where calls end.
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &(libc::CLONE_NEWNS as u64).to_ne_bytes()).unwrap();
    let page = std::num::NonZeroUsize::new(4096).unwrap();
    let (read, private) = (nix::sys::mman::ProtFlags::PROT_READ, nix::sys::mman::MapFlags::MAP_PRIVATE);
    // SAFETY: a mapping of its own, which stays; the call that is given it is refused.
    let mapped = unsafe { nix::sys::mman::mmap(None, page, read, private, &file, 0) }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::syscall(libc::SYS_clone3, mapped.as_ptr(), 88) }, -1);
    bare(libc::SYS_clone3);
}
