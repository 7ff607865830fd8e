//! The throw-away container: a program of 151 bytes, and its config.json. Needs no image and no library.
//!
//! Must not: run anything.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::profile::syscalls;

/// The workload, below the root folder. Waits for ever; with an argument, ends at once.
pub const PROGRAM: &str = "program";
/// A script whose interpreter does not exist: its `execve` fails, after all that comes before it has worked.
pub const BROKEN: &str = "broken";
/// Highest number of a call that may ever have a name, and some.
const END_OF_TABLE: u32 = 1024;
/// Calls that a container's filter allows without asking, and that are therefore taken to be needed.
///
/// `write`: runc waits for its own init's before it takes the descriptor, and refuses a filter that asks about it. The others:
/// Go's runtime interrupts each thread that is in one call for 10 ms, by a signal that makes the kernel take the question
/// back. If what comes of the signal is asked about, too, and answers are late, neither ever ends (seen on a busy machine).
pub const NEVER_ASKED: [&str; 8] =
    ["futex", "getpid", "gettid", "nanosleep", "rt_sigreturn", "sched_yield", "tgkill", "write"];

/// What one container is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// It has no-new-privileges.
    pub no_new_privileges: bool,
    /// Its user is another than root, with groups, a capability and limits of its own.
    pub other_user: bool,
    /// It has a terminal.
    pub terminal: bool,
    /// Its program can't be executed.
    pub broken: bool,
}

/// Writes the root folder.
///
/// # Errors
/// When it can't be written.
pub fn write_root(root: &Path) -> io::Result<()> {
    for folder in ["", "proc", "dev", "sys"] {
        std::fs::create_dir(root.join(folder))?;
    }
    for (name, content) in [(PROGRAM, elf().as_slice()), (BROKEN, b"#!/nowhere\n")] {
        let path = root.join(name);
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// A static ELF program for x86-64 (elf(5)): one header, one segment, 31 bytes of code.
fn elf() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    const CODE: [u8; 31] = [
        0x48, 0x8b, 0x04, 0x24, // mov rax, [rsp]: how many arguments
        0x48, 0x83, 0xf8, 0x01, // cmp rax, 1
        0x75, 0x09, // jne: to the end
        0xb8, 0x22, 0, 0, 0, // mov eax, 34: pause
        0x0f, 0x05, // syscall
        0xeb, 0xf7, // jmp: to pause
        0xb8, 0xe7, 0, 0, 0, // mov eax, 231: exit_group
        0x31, 0xff, // xor edi, edi
        0x0f, 0x05, // syscall
        0xeb, 0xf5, // jmp: to exit_group, which does not come back
        0x90,
    ];
    let size = HEADERS + CODE.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // An executable (2) for x86-64 (62).
    file.extend([2u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    // Entry, program headers, no section headers; no flags.
    file.extend([BASE + HEADERS, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    // To be loaded (1), readable and executable (5), all of the file.
    file.extend([1u32, 5].map(u32::to_le_bytes).concat());
    file.extend([0, BASE, BASE, size, size, 0x1000].map(u64::to_le_bytes).concat());
    file.extend(CODE);
    file
}

/// The process of a container or of a session in it.
pub fn process(kind: Kind, session: bool, oom_score: i32) -> Value {
    let program = format!("/{}", if kind.broken { BROKEN } else { PROGRAM });
    let args = if session { vec![program, "end".into()] } else { vec![program] };
    let held = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut process = json!({
        "terminal": kind.terminal, "args": args, "env": ["PATH=/", "HOME=/"], "cwd": "/",
        "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]},
        "capabilities": {"bounding": held, "effective": held, "permitted": held},
        "noNewPrivileges": kind.no_new_privileges,
        "oomScoreAdj": oom_score,
    });
    if kind.other_user {
        process["user"] = json!({"uid": 65534, "gid": 65534, "additionalGids": [10, 20], "umask": 0o22});
        for set in ["inheritable", "ambient"] {
            process["capabilities"][set] = json!(["CAP_NET_BIND_SERVICE"]);
        }
        process["rlimits"] = json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
    }
    process
}

/// config.json. Every call is asked about at `listener`; without one there is no filter.
pub fn config(kind: Kind, root: &Path, cgroup: &str, oom_score: i32, listener: Option<&Path>) -> Value {
    let mount = |to: &str, what: &str, options: &[&str]| json!({"destination": to, "type": what, "source": what, "options": options});
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": process(kind, false, oom_score),
        "root": {"path": root, "readonly": true},
        "mounts": [
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=64k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
        },
    });
    if kind.other_user {
        config["linux"]["personality"] = json!({"domain": "LINUX"});
    }
    if let Some(listener) = listener {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": libc::ENOSYS,
            "architectures": ["SCMP_ARCH_X86_64"],
            "listenerPath": listener,
            "syscalls": [
                {"names": NEVER_ASKED, "action": "SCMP_ACT_ALLOW"},
                {"names": asked(), "action": "SCMP_ACT_NOTIFY"},
            ],
        });
    }
    config
}

fn asked() -> Vec<String> {
    let named = (0..END_OF_TABLE).map(|number| syscalls::name(false, number));
    named.filter(|name| !name.starts_with('#') && !NEVER_ASKED.contains(&name.as_str())).collect()
}
