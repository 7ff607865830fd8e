//! What guarded containers do: foreign programs, refused writes, refused capabilities.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use caps::{CapSet, Capability};
use lithify::sys::process::{self, Exit, Fork};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::stat::Mode;

use crate::act::{WORD, bare, compat, execute, filter};
use crate::guard_filtered;

/// A whole program that needs no loader: it writes an `x` to its standard output, and ends. Its first instruction begins
/// the call.
fn shout() -> Vec<u8> {
    let code: &[u8] = &[
        0xb8, 1, 0, 0, 0, // mov eax, 1 (write)
        0xbf, 1, 0, 0, 0, // mov edi, 1
        0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip + 16]
        0xba, 1, 0, 0, 0, // mov edx, 1
        0x0f, 0x05, // syscall
        0xb8, 60, 0, 0, 0, // mov eax, 60 (exit)
        0x31, 0xff, // xor edi, edi
        0x0f, 0x05, // syscall
        b'x',
    ];
    let at: u64 = 0x40_0000;
    let bytes = (64 + 56 + code.len()) as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let half = |v: u16| v.to_le_bytes().to_vec();
    let long = |v: u64| v.to_le_bytes().to_vec();
    let word = |v: u32| v.to_le_bytes().to_vec();
    // elf(5): an executable for x86-64 with one program header and no sections.
    elf.extend([half(2), half(62), word(1), long(at + 120), long(64), long(0), word(0)].concat());
    elf.extend([half(64), half(56), half(1), half(0), half(0), half(0)].concat());
    elf.extend([word(1), word(5), long(0), long(at), long(at), long(bytes), long(bytes), long(4096)].concat());
    elf.extend(code);
    elf
}

pub fn run(words: &[&str]) {
    match words {
        ["shout", place, times] => shouts(place, times.parse().unwrap()),
        ["first"] => first_of_a_namespace(),
        ["tmpfs", rest @ ..] => {
            mount(Some("none"), "/target", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            run(rest);
        }
        ["noexec", rest @ ..] => {
            mount(Some("none"), "/target", Some("tmpfs"), MsFlags::MS_NOEXEC, None::<&str>).unwrap();
            run(rest);
        }
        ["kept", dir] => kept(dir),
        ["kept-and-wait", dir] => {
            kept(dir);
            std::io::stdout().flush().unwrap();
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        ["read-only", dir, rest @ ..] => {
            read_only(dir);
            run(rest);
        }
        ["script", dir] => scripts(dir),
        ["chroot", dir] => {
            drop_shout("/scratch/shout");
            let end = child(|| {
                nix::unistd::chroot(*dir).unwrap();
                execute("/shout", &[]);
            });
            println!("killed {}", usize::from(end == Exit::Signal(9)));
        }
        ["over", path] => {
            drop_shout("/scratch/shout");
            mount(Some("/scratch/shout"), *path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            let end = child(|| execute(path, &[]));
            println!("killed {}", usize::from(end == Exit::Signal(9)));
        }
        ["writes", dir] => writes(dir),
        ["writes-again", dir] => assert!(fs::write(format!("{dir}/new"), "x").is_err()),
        ["tidy"] => tidy(),
        ["one-write", dir] => drop(fs::create_dir(format!("{dir}/one"))),
        ["flood", dir, times] => flood(dir, times.parse().unwrap()),
        ["capabilities"] => capabilities(),
        ["gives-away"] => gives_away(),
        ["opens", path, times] => opens(path, times.parse().unwrap()),
        ["interface"] => {
            // seccomp_data.arch is AUDIT_ARCH_I386 (linux/audit.h).
            let killed = child(|| {
                filter(4, 0x4000_0003, libc::SECCOMP_RET_KILL_PROCESS);
                compat();
            });
            assert_eq!(killed, Exit::Signal(libc::SIGSYS));
        }
        ["killed"] => guard_filtered::killed(),
        ["namespaces"] => guard_filtered::namespaces(),
        ["commands"] => {
            File::open(COMMAND).unwrap();
            OpenOptions::new().write(true).open(COMMAND).unwrap();
            // Others of that file system change the container's own.
            OpenOptions::new().write(true).open("/proc/sys/kernel/domainname").unwrap();
        }
        ["long", dir] => {
            read_only(dir);
            for end in ["a", "b"] {
                let path = format!("{dir}/{}{}{end}", "./".repeat(200), "/".repeat(600));
                assert_eq!(nix::unistd::mkdir(path.as_str(), Mode::S_IRWXU), Err(Errno::EROFS));
            }
        }
        ["memory", "created"] => {
            let how = OFlag::O_CREAT | OFlag::O_TRUNC;
            assert!(nix::fcntl::open("/proc/self/mem", how, Mode::empty()).is_ok(), "for reading");
            // SAFETY: the path ends with a zero.
            assert!(unsafe { libc::creat(c"/proc/self/mem".as_ptr(), 0o600) } > 0);
        }
        ["memory", "steps"] => {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                OpenOptions::new().write(true).open("/proc/self/mem").unwrap();
                println!("{line}");
            }
        }
        ["memory", "after", dir, times] => {
            flood(dir, times.parse().unwrap());
            OpenOptions::new().write(true).open("/proc/self/mem").unwrap();
        }
        ["memory", how] => {
            OpenOptions::new().read(true).write(*how == "write").open("/proc/self/mem").unwrap();
            // Others of that file system, and others of that name, are nobody's memory.
            OpenOptions::new().write(true).open("/proc/self/comm").unwrap();
            drop(tempfile::tempdir().map(|dir| fs::write(dir.path().join("mem"), "x")).unwrap());
        }
        ["map", path] => map(path).unwrap(),
        ["steps", dir] => {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                let _ = fs::create_dir(format!("{dir}/{line}"));
                println!("{line}");
            }
        }
        _ => panic!("no such act: {words:?}"),
    }
}

/// A file by which a container commands its node, that every kernel has.
pub const COMMAND: &str = "/proc/sys/kernel/core_pattern";

/// Runs the program that shouts, from a folder or from nowhere; prints how many times it was killed.
fn shouts(place: &str, times: usize) {
    let run: Box<dyn Fn()> = if place == "memfd" {
        let fd = nix::sys::memfd::memfd_create(c"hidden", nix::sys::memfd::MFdFlags::empty()).unwrap();
        let mut file = File::from(fd);
        file.write_all(&shout()).unwrap();
        Box::new(move || {
            let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
            let _ = nix::unistd::execveat(&file, c"", &[c"shout"], &[] as &[&CStr], flags);
        })
    } else {
        let path = format!("{place}/shout");
        drop_shout(&path);
        Box::new(move || execute(&path, &[]))
    };
    let killed = (0..times).filter(|_| child(&run) == Exit::Signal(9)).count();
    println!("killed {killed}");
}

/// Scripts whose interpreter is of the image: by a path, by a link, relatively, and by a descriptor; prints how many ends
/// were no kill.
fn scripts(dir: &str) {
    let make = |path: &str| {
        fs::write(path, format!("#!/program {WORD}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let [by_path, linked, relative, by_file] =
        ["by-path", "linked", "relative", "by-file"].map(|n| format!("{dir}/{n}"));
    [&by_path, &linked, &relative, &by_file].into_iter().for_each(|path| make(path));
    make("/of-root");
    std::os::unix::fs::symlink(dir, "/link").unwrap();
    std::env::set_current_dir(dir).unwrap();
    let file = File::open(&by_file).unwrap();
    // What the kernel names by its descriptor stays open for the interpreter.
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let by_descriptor = || {
        let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
        let _ = nix::unistd::execveat(&file, c"", &[c"script"], &[] as &[&CStr], flags);
    };
    let ends = [
        child(|| execute(&by_path, &[])),
        child(|| execute("/link/linked", &[])),
        child(|| execute("./relative", &[])),
        child(|| execute("/of-root", &[])),
        child(by_descriptor),
    ];
    println!("{}", ends.map(|e| if e == Exit::Signal(9) { "killed" } else { "ran" }).join(" "));
    // Its root is there to be looked in until it is told to end.
    let _ = std::io::stdin().lines().next();
}

fn drop_shout(path: &str) {
    fs::write(path, shout()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn child(act: impl FnOnce()) -> Exit {
    match process::fork().unwrap() {
        Fork::Parent(pid) => process::wait_pid(pid).unwrap(),
        Fork::Child => {
            act();
            process::exit_now(0)
        }
    }
}

/// Tries to execute a program and to map a library, and a program for which nobody has permission.
fn kept(dir: &str) {
    for (path, mode) in [(format!("{dir}/kept"), 0o755), ("/permission".to_owned(), 0o644)] {
        fs::write(&path, shout()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(nix::unistd::execv(&std::ffi::CString::new(path).unwrap(), &[c"kept"]), Err(Errno::EACCES));
    }
    let gone = format!("{dir}/gone");
    fs::copy(format!("{dir}/kept"), &gone).unwrap();
    assert_eq!(nix::unistd::execv(&std::ffi::CString::new(gone.as_str()).unwrap(), &[c"gone"]), Err(Errno::EACCES));
    fs::remove_file(gone).unwrap();
    println!("library {:?}", map(&format!("{dir}/library")));
}

/// Maps a file to be run, as a loader does a library's.
pub fn map(path: &str) -> Result<(), Errno> {
    fs::write(path, shout()).unwrap();
    let file = File::open(path).unwrap();
    let (bytes, protection) = (std::num::NonZeroUsize::MIN, ProtFlags::PROT_READ | ProtFlags::PROT_EXEC);
    // SAFETY: a new mapping at a place of the kernel's choice, which nobody uses.
    unsafe { nix::sys::mman::mmap(None, bytes, protection, MapFlags::MAP_PRIVATE, file, 0) }.map(drop)
}

/// The first process of a pid namespace, which ignores what its own send it, runs a foreign program.
fn first_of_a_namespace() {
    let path = "/shout";
    drop_shout(path);
    unshare(CloneFlags::CLONE_NEWPID).unwrap();
    let end = child(|| execute(path, &[]));
    println!("killed {}", usize::from(end == Exit::Signal(9)));
}

/// A read-only bind mount in our own namespace, and all that it refuses.
fn writes(dir: &str) {
    fs::write(format!("{dir}/there"), "x").unwrap();
    fs::create_dir(format!("{dir}/folder")).unwrap();
    read_only(dir);
    let file = File::open(format!("{dir}/there")).unwrap();
    std::env::set_current_dir(dir).unwrap();
    let there = format!("{dir}/there");
    assert!(OpenOptions::new().write(true).open(&there).is_err());
    assert!(nix::unistd::truncate(there.as_str(), 0).is_err());
    assert!(fs::write(format!("{dir}/new"), "x").is_err());
    assert!(fs::create_dir("made").is_err());
    assert!(std::os::unix::fs::symlink("any", format!("{dir}/link")).is_err());
    assert!(nix::sys::stat::mknod("fifo", nix::sys::stat::SFlag::S_IFIFO, Mode::S_IRWXU, 0).is_err());
    assert!(UnixListener::bind(format!("{dir}/socket")).is_err());
    assert!(fs::remove_file(&there).is_err());
    assert!(fs::remove_dir("folder").is_err());
    assert!(fs::rename(&there, format!("{dir}/moved")).is_err());
    assert!(fs::hard_link(&there, format!("{dir}/hard")).is_err());
    let mode = fs::Permissions::from_mode(0o600);
    assert!(fs::set_permissions("./folder/../folder", mode.clone()).is_err());
    assert!(file.set_permissions(mode).is_err());
    // What only asks whether it could write is refused the same, and writes nothing.
    assert!(nix::unistd::access("folder", nix::unistd::AccessFlags::W_OK).is_err());
}

/// Removes and renames what is there and what is not, once the root is read-only.
fn tidy() {
    use std::os::unix::fs::symlink;
    let odd = std::path::Path::new(std::ffi::OsStr::from_bytes(b"/odd\xff"));
    fs::write(odd, "x").unwrap();
    symlink("target", "/way").unwrap();
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
    symlink("/", "/scratch/up").unwrap();
    let gone = ["/missing", "/way/missing", "/scratch/up/missing", "/target/../missing"];
    let there = ["/file", "/way", "/target/../file"];
    for path in gone.iter().chain(&there) {
        assert_eq!(fs::remove_file(path).unwrap_err().raw_os_error(), Some(libc::EROFS), "{path}");
    }
    assert!(fs::remove_file(odd).is_err() && fs::remove_dir("/absent/").is_err() && fs::remove_dir("/target").is_err());
    assert!(fs::rename("/old", "/new").is_err() && fs::rename("/file", "/moved").is_err());
    assert!(fs::hard_link("/program", "/hard").is_err() && fs::create_dir("/made").is_err());
}

fn read_only(dir: &str) {
    mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, dir, None::<&str>, flags, None::<&str>).unwrap();
}

/// Ever new paths, and among them one again and again; then a program.
fn flood(dir: &str, times: u32) {
    read_only(dir);
    for i in 0..times {
        for path in [format!("{dir}/{i}"), format!("{dir}/same")] {
            assert_eq!(nix::unistd::mkdir(path.as_str(), Mode::S_IRWXU), Err(nix::Error::EROFS));
        }
    }
    child(|| execute("/proc/self/exe", &[WORD, "nothing"]));
}

/// A call that needs a capability that its caller gave away itself, and could have back: nobody has taken it.
fn gives_away() {
    child(|| {
        caps::drop(None, CapSet::Effective, Capability::CAP_SYS_CHROOT).unwrap();
        assert!(nix::unistd::chroot("/").is_err());
    });
}

/// Calls that need CAP_SYS_CHROOT, by processes that lack it for different reasons.
fn capabilities() {
    let chroot = || assert!(nix::unistd::chroot("/").is_err());
    gives_away();
    // Is another user than the one who has all.
    child(|| {
        nix::unistd::setuid(65534.into()).unwrap();
        chroot();
    });
    // Never had it: as a profile leaves it.
    for set in [CapSet::Bounding, CapSet::Effective, CapSet::Permitted] {
        caps::drop(None, set, Capability::CAP_SYS_CHROOT).unwrap();
    }
    child(chroot);
    child(chroot);
    // Another that is refused and not asked for.
    for set in [CapSet::Bounding, CapSet::Effective, CapSet::Permitted] {
        caps::drop(None, set, Capability::CAP_SYS_TIME).unwrap();
    }
    bare(libc::SYS_settimeofday);
    child(|| assert!(nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).is_ok()));
}

/// Opens a file very often; prints nanoseconds of processor time per round of open and close.
fn opens(path: &str, times: u32) {
    let now = || {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
        now.tv_sec() as f64 * 1e9 + now.tv_nsec() as f64
    };
    let began = now();
    for _ in 0..times {
        drop(File::open(path).unwrap());
    }
    println!("{:.1}", (now() - began) / f64::from(times));
}
