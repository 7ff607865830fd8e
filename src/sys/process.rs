//! Processes: fork, pidfds, reaping, namespaces, subreapers.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::OnceLock;

/// How a process ended (wait(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By `_exit`, with this status (0–255).
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The shell's convention: the status itself, or 128 plus the signal.
    pub fn shell_code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Which side of a [`fork`] this is.
pub enum Fork {
    /// The parent, with the child's pid.
    Parent(i32),
    /// The child.
    Child,
}

/// fork(2), after which the child runs on in any code. Threads of `lithify` live for some milliseconds, while the kernel
/// makes them wait, and hold no lock but the heap's, which the C library keeps whole in the child (malloc(3), fork(2)).
///
/// # Errors
/// `EAGAIN` at a process limit, `ENOMEM`.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: no other thread holds a lock that the child could want, and the C library unlocks its heap in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// A pidfd: a process that can't be mistaken for another (pidfd_open(2), Linux 5.3).
///
/// # Errors
/// `ESRCH` when there is no such process, `ENOSYS` before Linux 5.3.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers; a non-negative result is a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as RawFd)) }
    }
}

/// Sends a signal to the process of a pidfd (pidfd_send_signal(2), Linux 5.1).
///
/// # Errors
/// `ESRCH` when it has been reaped, `EPERM`.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo asks the kernel to fill in what kill(2) would.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn exit_of(info: &libc::siginfo_t) -> Exit {
    // SAFETY: waitid filled the structure in for a child, so the SIGCHLD fields are the valid ones.
    let status = unsafe { info.si_status() };
    if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) }
}

/// Reaps the child of a pidfd if it has ended (waitid(2) with `P_PIDFD`, Linux 5.4). Never blocks.
///
/// # Errors
/// `ECHILD` when it is not (or no longer) our child.
pub fn reap_pidfd(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    // SAFETY: siginfo_t is plain data for which all-zero is a value, and it lives over the call.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG;
        if libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, &mut info, flags) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(if info.si_pid() == 0 { None } else { Some(exit_of(&info)) })
    }
}

/// Waits for one child by pid until it has ended (waitpid(2)).
///
/// # Errors
/// `ECHILD` when it is not our child.
pub fn wait_pid(pid: i32) -> io::Result<Exit> {
    loop {
        let mut status = 0;
        // SAFETY: `status` lives over the call.
        if unsafe { libc::waitpid(pid, &mut status, 0) } >= 0 {
            return Ok(if libc::WIFEXITED(status) {
                Exit::Code(libc::WEXITSTATUS(status))
            } else {
                Exit::Signal(libc::WTERMSIG(status))
            });
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Reaps any one child that has ended, except `keep`, which is left for its own waiter. Never blocks.
///
/// # Errors
/// `ECHILD` when there are no children at all.
pub fn reap_any(keep: Option<i32>) -> io::Result<Option<(i32, Exit)>> {
    // SAFETY: siginfo_t is plain data for which all-zero is a value, and it lives over the calls.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) < 0 {
            return Err(io::Error::last_os_error());
        }
        let pid = info.si_pid();
        if pid == 0 || Some(pid) == keep {
            return Ok(None);
        }
        let mut reaped: libc::siginfo_t = std::mem::zeroed();
        if libc::waitid(libc::P_PID, pid as libc::id_t, &mut reaped, libc::WEXITED | libc::WNOHANG) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Some((pid, exit_of(&reaped))))
    }
}

/// Moves this process into namespaces of another, as one step (setns(2) with a pidfd, Linux 5.8).
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN over them, `ESRCH` when the process has ended.
pub fn setns(pidfd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: no pointers; this process has one thread, which the kernel requires for mount namespaces.
    if unsafe { libc::setns(pidfd.as_raw_fd(), flags) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn prctl(option: i32, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take one integer and no pointer that outlives the call.
    if unsafe { libc::prctl(option, argument, 0, 0, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Orphaned descendants become our children (PR_SET_CHILD_SUBREAPER(2const), Linux 3.4).
///
/// # Errors
/// None on a kernel that has it.
pub fn become_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// This process gets a signal when its parent ends (PR_SET_PDEATHSIG(2const)); 0 for none.
///
/// # Errors
/// `EINVAL` for no such signal.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong)
}

/// Names this process in `/proc/<pid>/comm` (PR_SET_NAME(2const)); 15 bytes are kept.
pub fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        // SAFETY: the kernel copies at most 16 bytes of a terminated string.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
    }
}

/// This process runs before all that are scheduled normally; what it starts does not (sched_setscheduler(2), `SCHED_RR` with
/// `SCHED_RESET_ON_FORK`). Only for one that mostly waits.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE, or in a cgroup that has no share of such time.
pub fn be_quick() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the structure lives over the call.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Dies as a process does that is killed by `signal`: default action, unblocked, no core file from us.
pub fn die_by(signal: i32) -> ! {
    // SAFETY: plain system calls; the process ends here.
    unsafe {
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &limit);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::signal(signal, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::kill(libc::getpid(), signal);
        libc::_exit(128 + signal)
    }
}

/// Ends this process at once, without running exit handlers of a forked copy.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Gives freed heap pages back to the kernel (malloc_trim(3)).
pub fn trim_heap() {
    // SAFETY: glibc's allocator is always in a state in which it can be trimmed.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Field 22 of `/proc/<pid>/stat`: when the process started, in clock ticks since boot.
///
/// # Errors
/// When there is no such process.
pub fn start_time_ticks(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    // The command name may contain spaces and parentheses: fields are counted from its last `)`.
    let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or("");
    let field = after.split_ascii_whitespace().nth(19).and_then(|f| f.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no start time in /proc/{pid}/stat")))
}

/// Parent of a process, from `/proc/<pid>/stat`.
///
/// # Errors
/// When there is no such process.
pub fn parent_of(pid: i32) -> io::Result<i32> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    let after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or("");
    let field = after.split_ascii_whitespace().nth(1).and_then(|f| f.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no parent in /proc/{pid}/stat")))
}

static PROC: OnceLock<OwnedFd> = OnceLock::new();

/// Opens the host's `/proc`, for a process that is about to enter a container's mount namespace. Returns the descriptor's
/// number, to be kept.
///
/// # Errors
/// When there is no `/proc`.
pub fn keep_proc() -> io::Result<RawFd> {
    let proc: OwnedFd = std::fs::File::open("/proc")?.into();
    Ok(PROC.get_or_init(|| proc).as_raw_fd())
}

/// Our children, from `/proc/self/task/<tid>/children` (Linux 3.5 with `CONFIG_PROC_CHILDREN`), of the procfs that was open
/// when [`keep_proc`] was called.
pub fn children() -> Vec<i32> {
    let text = read_kept(&format!("self/task/{}/children", std::process::id()));
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process waits for a device or a file system, as far as the procfs of [`keep_proc`] tells.
pub fn is_stuck(pid: i32) -> bool {
    read_kept(&format!("{pid}/stat")).rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
}

/// A file of the procfs that was open when [`keep_proc`] was called; empty where it can't be read.
fn read_kept(path: &str) -> String {
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
    let mut text = String::new();
    if let Some(proc) = PROC.get()
        && let Ok(file) = nix::fcntl::openat(proc, path, flags, nix::sys::stat::Mode::empty())
    {
        let _ = io::Read::read_to_string(&mut std::fs::File::from(file), &mut text);
    }
    text
}

/// Exempts a process from the OOM killer (`oom_score_adj` of proc(5)); false without CAP_SYS_RESOURCE.
pub fn protect_from_oom(pid: i32) -> bool {
    std::fs::write(format!("/proc/{pid}/oom_score_adj"), "-1000").is_ok()
}
