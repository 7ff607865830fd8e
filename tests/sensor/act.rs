//! What the containers of the tests do. Each act makes its calls and as few others as can be.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;

use lithify::sys::process::{self, Fork};
use nix::mount::{MsFlags, mount};

use crate::container;

/// First argument of this program when it is a container's.
pub const WORD: &str = "act";

/// Fifty calls that nothing else here makes, and that do no harm with arguments that are all zero.
pub const MARKERS: [i64; 50] = [
    libc::SYS_getpgrp,
    libc::SYS_getsid,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_getrusage,
    libc::SYS_getitimer,
    libc::SYS_getpriority,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_capget,
    libc::SYS_rt_sigpending,
    libc::SYS_getgroups,
    libc::SYS_alarm,
    libc::SYS_time,
    libc::SYS_clock_getres,
    libc::SYS_ioprio_get,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_flock,
    libc::SYS_epoll_create1,
    libc::SYS_inotify_init1,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_gettime,
    libc::SYS_timer_getoverrun,
    libc::SYS_mq_getsetattr,
    libc::SYS_get_mempolicy,
    libc::SYS_kcmp,
    libc::SYS_membarrier,
    libc::SYS_readahead,
    libc::SYS_fdatasync,
    libc::SYS_shmdt,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_getxattr,
    libc::SYS_listxattr,
    libc::SYS_flistxattr,
    libc::SYS_io_getevents,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_sync_file_range,
    libc::SYS_vmsplice,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_recvmmsg,
    libc::SYS_getcpu,
    libc::SYS_sched_yield,
];

/// A call that `denied` has refused by seccomp and then tries.
pub const REFUSED: i64 = libc::SYS_sched_rr_get_interval;
/// A call that `compat` makes by the 32-bit interface: getpid.
pub const COMPAT_GETPID: u32 = 20;

pub fn run(act: &[String]) -> ExitCode {
    let words: Vec<&str> = act.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["wait", ..] => container::wait_and_execute(true, &act[1..]),
        ["wait-here", ..] => container::wait_and_execute(false, &act[1..]),
        ["wait-overlay", ..] => container::wait_in_overlay(&act[1..]),
        ["nothing"] => {}
        ["overlay"] => {
            OpenOptions::new().append(true).open("/file").unwrap().write_all(b"x").unwrap();
            fs::copy("/program", "/other").unwrap();
            execute("/other", &[WORD, "nothing"]);
        }
        ["markers"] => markers(),
        ["denied"] => denied(),
        ["compat"] => compat(),
        ["arguments"] => arguments(),
        ["call", number] => bare(number.parse().unwrap()),
        ["calls", number, times] => timed(number.parse().unwrap(), times.parse().unwrap()),
        ["tasks", many] => tasks(many.parse().unwrap()),
        ["flood", paths] => flood(paths.parse().unwrap()),
        ["flood-by-steps", steps, each] => flood_by_steps(steps.parse().unwrap(), each.parse().unwrap()),
        ["writes", dir] => writes(dir),
        ["names", dir] => names(dir),
        ["link-to", link] => drop(OpenOptions::new().append(true).open(link).unwrap()),
        ["refused", dir] => refused(dir),
        ["network", dir] => network(dir),
        ["memfd"] => memfd(),
        ["execute", program, rest @ ..] => execute(program, rest),
        ["as-user", program, rest @ ..] => {
            nix::unistd::setgid(65534.into()).unwrap();
            nix::unistd::setuid(65534.into()).unwrap();
            execute(program, rest);
        }
        ["capability"] => nix::unistd::chroot("/").unwrap(),
        ["steps"] => steps(),
        ["until-told"] => until_told(),
        ["guard", rest @ ..] => crate::guard_acts::run(rest),
        _ => panic!("no such act: {words:?}"),
    }
    ExitCode::SUCCESS
}

pub fn bare(number: i64) {
    // SAFETY: the calls of the tests take zeros and null pointers without harm: they fail, or only read.
    unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
}

/// Each by a process that does nothing else and is gone at once.
fn markers() {
    for marker in MARKERS {
        match process::fork().unwrap() {
            Fork::Parent(pid) => assert_eq!(process::wait_pid(pid).unwrap(), process::Exit::Code(0)),
            Fork::Child => {
                bare(marker);
                process::exit_now(0)
            }
        }
    }
}

fn denied() {
    filter(0, REFUSED as u32, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    bare(REFUSED);
}

/// From now on, calls with this value at this place of seccomp_data(2) get that answer.
pub fn filter(place: u32, value: u32, answer: u32) {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, place),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, value),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, answer),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: a whole filter that outlives the call; root needs no no_new_privs for it.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(done, 0);
}

pub fn compat() {
    // SAFETY: getpid takes no arguments and touches no memory; the 32-bit entry keeps all registers but rax, and clears
    // r8 to r11 on old kernels.
    unsafe {
        std::arch::asm!("int 0x80", inout("rax") u64::from(COMPAT_GETPID) => _, out("r8") _, out("r9") _, out("r10") _,
            out("r11") _);
    }
}

fn arguments() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    drop(socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).unwrap();
    // SAFETY: none of them takes a pointer that is not null or a buffer of its size.
    unsafe {
        libc::personality(0xffff_ffff);
        libc::prctl(libc::PR_GET_KEEPCAPS);
        let mut size: libc::winsize = std::mem::zeroed();
        libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size);
        libc::ptrace(libc::PTRACE_DETACH, 0, 0, 0);
        libc::syscall(libc::SYS_clone, libc::SIGCHLD | 0x7000_0000, 0, 0, 0, 0);
    }
}

/// A call very often; prints nanoseconds of processor time per call.
fn timed(number: i64, times: u32) {
    let now = || {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
        now.tv_sec() as f64 * 1e9 + now.tv_nsec() as f64
    };
    let began = now();
    for _ in 0..times {
        bare(number);
    }
    println!("{:.1}", (now() - began) / f64::from(times));
}

/// So many children at one time.
fn tasks(many: usize) {
    let (read, write) = nix::unistd::pipe().unwrap();
    let mut pids = Vec::new();
    for _ in 0..many {
        match process::fork().unwrap() {
            Fork::Parent(pid) => pids.push(pid),
            Fork::Child => {
                // The write end is the parent's to close.
                nix::unistd::close(write.as_raw_fd()).unwrap();
                let _ = nix::unistd::read(&read, &mut [0]);
                process::exit_now(0)
            }
        }
    }
    drop(write);
    for pid in pids {
        process::wait_pid(pid).unwrap();
    }
}

/// Many paths at each step, and one before and after them; says when a step is done, and waits to be told.
fn flood_by_steps(steps: u32, each: u32) {
    let make = |name: String| {
        let made = nix::unistd::mkdir(format!("/sys/{name}").as_str(), nix::sys::stat::Mode::S_IRWXU);
        assert_eq!(made, Err(nix::Error::EPERM));
    };
    for step in 0..steps {
        (0..each).for_each(|i| make(format!("{step}-{i}")));
        make("again".to_owned());
        say_and_wait(&step.to_string());
        make("again".to_owned());
        say_and_wait("again");
    }
}

/// Four processes at once, each with children: a bomb, but one that ends. No file system is filled: sysfs takes no folders.
fn flood(paths: u32) {
    let each = paths / 4;
    let mut pids = Vec::new();
    for part in 0..4 {
        match process::fork().unwrap() {
            Fork::Parent(pid) => pids.push(pid),
            Fork::Child => {
                for i in 0..each {
                    let made = nix::unistd::mkdir(format!("/sys/{part}-{i}").as_str(), nix::sys::stat::Mode::S_IRWXU);
                    assert_eq!(made, Err(nix::Error::EPERM));
                    if i % 100 == 0
                        && let Ok(Fork::Child) = process::fork()
                    {
                        process::exit_now(0)
                    }
                }
                process::exit_now(0)
            }
        }
    }
    for pid in pids {
        process::wait_pid(pid).unwrap();
    }
    bare(MARKERS[0]);
}

fn writes(dir: &str) {
    fs::write(format!("{dir}/kept"), "x").unwrap();
    fs::write(format!("{dir}/gone"), "x").unwrap();
    fs::remove_file(format!("{dir}/gone")).unwrap();
    OpenOptions::new().append(true).open(format!("{dir}/kept")).unwrap();
    drop(File::open(format!("{dir}/kept")).unwrap());
    drop(OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(dir).unwrap());
    drop(OpenOptions::new().write(true).open("/dev/null").unwrap());
    let hidden = nix::sys::memfd::memfd_create(c"nowhere", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    drop(OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", hidden.as_raw_fd())).unwrap());
}

fn names(dir: &str) {
    std::env::set_current_dir(dir).unwrap();
    fs::create_dir("sub").unwrap();
    fs::write("sub/../a", "x").unwrap();
    fs::rename("a", "sub/./b").unwrap();
    fs::hard_link("sub/b", "c").unwrap();
    std::os::unix::fs::symlink("anywhere", "l").unwrap();
    fs::set_permissions("c", fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown("c", Some(1), Some(1)).unwrap();
    let file = File::open("c").unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    let below = File::open("sub").unwrap();
    nix::sys::stat::mkdirat(&below, "deep", nix::sys::stat::Mode::S_IRWXU).unwrap();
    nix::unistd::unlinkat(&below, "deep", nix::unistd::UnlinkatFlags::RemoveDir).unwrap();
    nix::unistd::truncate("c", 0).unwrap();
}

/// A read-only bind mount in our own namespace, and what it refuses.
fn refused(dir: &str) {
    mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, dir, None::<&str>, read_only, None::<&str>).unwrap();
    assert!(fs::write(format!("{dir}/new"), "x").is_err());
    assert!(OpenOptions::new().write(true).open(format!("{dir}/there")).is_err());
    assert!(fs::remove_file(format!("{dir}/there")).is_err());
    assert!(fs::create_dir(format!("{dir}/folder")).is_err());
}

fn network(dir: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::connect(address).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"x", "127.0.0.1:9").unwrap();
    let six = TcpListener::bind("[::1]:0").map(|l| l.local_addr().unwrap().to_string());
    let path = format!("{dir}/s");
    let unix = UnixListener::bind(&path).unwrap();
    drop(UnixStream::connect(&path).unwrap());
    use std::os::linux::net::SocketAddrExt;
    let name = std::os::unix::net::SocketAddr::from_abstract_name(b"sensor-test").unwrap();
    let hidden = UnixListener::bind_addr(&name).unwrap();
    // Nobody answers on a port that was just given back.
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(TcpStream::connect(refused).is_err());
    let udp = socket.local_addr().unwrap();
    // As libuv asks whether there is such a call: no message, and no address of any.
    // SAFETY: with no message nothing is read.
    let none = unsafe { libc::sendmmsg(socket.as_raw_fd(), std::ptr::null_mut(), 0, 0) };
    assert_eq!(none, 0);
    println!("{address} {udp} {refused} {}", six.unwrap_or_default());
    drop((stream, unix, hidden));
}

fn memfd() {
    let exe = fs::read("/proc/self/exe").unwrap();
    let fd = nix::sys::memfd::memfd_create(c"hidden", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    let mut file = File::from(fd);
    file.write_all(&exe).unwrap();
    execute(&format!("/proc/self/fd/{}", file.as_raw_fd()), &[WORD, "nothing"]);
}

pub fn execute(program: &str, args: &[&str]) -> ! {
    let program = CString::new(program).unwrap();
    let args: Vec<CString> = args.iter().map(|a| CString::new(*a).unwrap()).collect();
    let args: Vec<_> = std::iter::once(program.clone()).chain(args).collect();
    panic!("{}", nix::unistd::execv(&program, &args).unwrap_err())
}

/// A call for every line of its input, until it ends; each is answered.
fn steps() {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if let Ok(number) = line.parse() {
            bare(number);
        }
        println!("{line}");
    }
}

fn say_and_wait(word: &str) {
    println!("{word}");
    assert_eq!(nix::unistd::read(std::io::stdin(), &mut [0]), Ok(1), "nobody told it to go on");
}

fn until_told() {
    let _ = std::io::stdin().lines().next();
}
