//! What the sensor has seen of one container, as plain data: cumulative since it was armed.
//!
//! Numbers are the kernel's. What they are called, and which of them matter, is not decided here.

use std::collections::BTreeMap;

/// When something was seen, in observation windows: numbers of [`Reading::window`]'s clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// First window.
    pub first: u32,
    /// Last window.
    pub last: u32,
    /// In how many windows.
    pub windows: u32,
}

/// The system call interface that a call came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Abi {
    /// The kernel's own, x86-64.
    Native,
    /// 32-bit, i386 (`TS_COMPAT`).
    Compat,
}

/// A system call by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Syscall {
    /// Interface.
    pub abi: Abi,
    /// Number in that interface.
    pub number: u32,
}

/// An argument that matters to a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Argument {
    /// `socket`, `socketpair`: family, type without flags, protocol.
    Socket {
        /// `AF_*`.
        family: u32,
        /// `SOCK_*` without flags.
        kind: u32,
        /// Protocol.
        protocol: u32,
    },
    /// `clone`, `clone3`, `unshare`: the `CLONE_NEW*` bits, one record per call's set; 0 is not recorded.
    Namespaces {
        /// Which of the three.
        syscall: Syscall,
        /// `CLONE_NEW*`.
        flags: u64,
    },
    /// `personality`: the persona asked for.
    Personality(u64),
    /// `prctl`, `arch_prctl`: the option.
    Prctl {
        /// Which of the two.
        syscall: Syscall,
        /// `PR_*`, `ARCH_*`.
        option: u64,
    },
    /// `ioctl`: the request.
    Ioctl(u64),
    /// `ptrace`: the request.
    Ptrace(u64),
}

/// Where an executed file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The root file system's read-only layers.
    Image,
    /// The root file system's writable layer.
    Upper,
    /// A tmpfs.
    Tmpfs,
    /// A file without a name: memfd, or unlinked.
    Anonymous,
    /// Another mount: a volume, a bind mount.
    Volume,
    /// The root file system, and the kernel does not tell which of its layers.
    Root,
}

/// A program that was run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program {
    /// Path inside the container, lossy UTF-8; `/memfd:name` where it has no place.
    pub path: String,
    /// Origin.
    pub origin: Origin,
    /// It is set-user-id, set-group-id or has file capabilities that took effect.
    pub privileged: bool,
}

/// What was done, or tried, to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Opened for writing, or written by a call that takes a path (truncate).
    Write,
    /// A file, directory, link, socket or node made.
    Create,
    /// Removed.
    Remove,
    /// Renamed or linked from here.
    Rename,
    /// Mode, owner, times or extended attributes changed.
    Attributes,
}

/// One kind of use of one path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathUse {
    /// Path inside the container, absolute, lexically normal, lossy UTF-8.
    pub path: String,
    /// What.
    pub operation: Operation,
    /// 0, or the error it failed with (only EROFS, EACCES and EPERM are recorded).
    pub errno: u32,
    /// The path is on the container's root file system, not on another mount.
    pub on_root: bool,
    /// Command name (`comm`) of the first process that did it.
    pub by: String,
}

/// Which way a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Listens, or is bound where there is no listening (UDP).
    Listen,
    /// Connects or sends to.
    Connect,
}

/// The other side, or our own, of a socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Direction.
    pub direction: Direction,
    /// `tcp`, `udp`, `unix`, `netlink`, or `family/type` in numbers for others.
    pub protocol: String,
    /// `10.0.0.1:80`, `[::1]:80`, `/run/x.sock`, `@abstract`.
    pub address: String,
}

/// What one side of a container did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Calls that were made, and let through.
    pub syscalls: BTreeMap<Syscall, Seen>,
    /// Calls that seccomp refused.
    pub denied: BTreeMap<Syscall, Seen>,
    /// Arguments.
    pub arguments: BTreeMap<Argument, Seen>,
    /// Capabilities by number: checks that passed and that mattered.
    pub capabilities: BTreeMap<u32, Seen>,
    /// Programs.
    pub programs: BTreeMap<Program, Seen>,
    /// Paths written, and attempts that were refused.
    pub paths: BTreeMap<PathUse, Seen>,
    /// Sockets.
    pub peers: BTreeMap<Peer, Seen>,
}

/// What may be missing. All zero: nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loss {
    /// Records that found their table full.
    pub table_full: u64,
    /// Records that could not be read (a page not present, a name too long).
    pub unreadable: u64,
    /// Processes that could not be followed.
    pub untracked: u64,
}

impl Loss {
    /// Something is missing.
    pub fn any(&self) -> bool {
        *self != Loss::default()
    }
}

/// One reading of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The workload: its init and what descends from it.
    pub workload: Facts,
    /// Sessions that were let in later: `exec`, health probes.
    pub exec: Facts,
    /// What may be missing.
    pub loss: Loss,
    /// Windows in which the container did anything at all.
    pub active_windows: u32,
    /// The newest window.
    pub window: u32,
    /// Most tasks (threads) at one time.
    pub tasks_peak: u32,
}
