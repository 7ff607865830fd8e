//! The shapes that `bpf/identity.h` and `bpf/record.h` have, as bytes: what user space writes, and how it reads what the kernel wrote.
//!
//! Must not: interpret. Numbers are the kernel's.

/// Places for containers on a node.
pub const SLOTS: u32 = 1024;
/// Bytes of a table's key.
pub const KEY_BYTES: u32 = 424;
/// Bytes of a table's value.
pub const VALUE_BYTES: u32 = 32;
/// Entries that a table has beyond its limit: every system call and capability, twice, for both sides and both ABIs.
pub const RESERVED: u32 = 2 * (2 * 2 * 512 + 64);
/// A program's origin when it is a script of which only the name is known.
pub const NAMED: u8 = 7;
/// In a call's number: by the 32-bit interface.
pub const COMPAT: u32 = 0x8000_0000;

/// A container's place, as user space writes it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slot {
    pub id: u64,
    pub start_ticks: u64,
    pub window: u32,
    pub limit: u32,
    pub pid_ns: u32,
    pub owner: u32,
    pub foreign: [u32; 2],
    pub bell: bool,
    pub init: u32,
    /// The guard's: capabilities of which a refusal is told.
    pub capabilities: u64,
    /// The guard's: a foreign program is killed.
    pub kill_foreign: bool,
    /// The guard's: root may have given capabilities away itself.
    pub may_drop: bool,
    /// The guard's: seconds after which what was told is told again; 0: never.
    pub quiet: u32,
}

impl Slot {
    /// Bytes of the whole.
    pub const BYTES: usize = 64;

    pub fn bytes(&self) -> Vec<u8> {
        let words = [self.window, self.limit, self.pid_ns, self.owner, self.foreign[0], self.foreign[1]];
        let mut bytes = [self.id.to_ne_bytes(), self.start_ticks.to_ne_bytes()].concat();
        bytes.extend(words.iter().flat_map(|w| w.to_ne_bytes()));
        bytes.extend([u32::from(self.bell), self.init].iter().flat_map(|w| w.to_ne_bytes()));
        bytes.extend(self.capabilities.to_ne_bytes());
        let rules = u32::from(self.kill_foreign) | u32::from(self.may_drop) << 1;
        bytes.extend([rules, self.quiet].iter().flat_map(|w| w.to_ne_bytes()));
        bytes
    }
}

/// What the kernel counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    pub id: u64,
    pub table_full: u64,
    pub unreadable: u64,
    pub untracked: u64,
    pub mnt_ns: u32,
    pub tasks_peak: u32,
    /// Records of unbounded kinds that were ever put into the table; wraps.
    pub entries: u32,
    pub active_windows: u32,
}

impl State {
    /// Bytes of the whole.
    pub const BYTES: usize = 104;

    pub fn fresh(id: u64) -> Vec<u8> {
        let mut bytes = id.to_ne_bytes().to_vec();
        bytes.resize(State::BYTES, 0);
        bytes
    }

    pub fn parse(bytes: &[u8]) -> State {
        State {
            id: long(bytes, 0),
            table_full: long(bytes, 32),
            unreadable: long(bytes, 40),
            untracked: long(bytes, 48),
            mnt_ns: word(bytes, 56),
            tasks_peak: word(bytes, 64),
            entries: word(bytes, 68),
            active_windows: word(bytes, 76),
        }
    }
}

/// Refers to a container that may have gone.
pub fn target(id: u64, slot: u32) -> Vec<u8> {
    [id.to_ne_bytes(), u64::from(slot).to_ne_bytes()].concat()
}

/// A process as a key of `pending`.
pub fn process(pid: u32, pid_ns: u32) -> Vec<u8> {
    [pid.to_ne_bytes(), pid_ns.to_ne_bytes()].concat()
}

/// Who armed a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub id: u64,
    pub start_ticks: u64,
    pub pid: u32,
    pub init: u32,
    /// The pid namespace that both are numbers of.
    pub pid_ns: u32,
}

impl Owner {
    pub fn bytes(&self) -> Vec<u8> {
        let longs = [self.id.to_ne_bytes(), self.start_ticks.to_ne_bytes()].concat();
        let words = [self.pid, self.init, self.pid_ns, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
        [longs, words].concat()
    }

    pub fn parse(bytes: &[u8]) -> Owner {
        Owner {
            id: long(bytes, 0),
            start_ticks: long(bytes, 8),
            pid: word(bytes, 16),
            init: word(bytes, 20),
            pid_ns: word(bytes, 24),
        }
    }
}

/// One record of a table.
#[derive(Debug, Clone, Copy)]
pub struct Record<'b> {
    pub exec: bool,
    pub kind: u8,
    pub what: u8,
    pub flags: u8,
    pub number: u32,
    pub a: u64,
    pub b: u64,
    /// All of it, with its zeros.
    pub text: &'b [u8],
    pub first: u32,
    pub last: u32,
    pub windows: u32,
    pub comm: &'b [u8],
}

impl<'b> Record<'b> {
    pub const CALL: u8 = 1;
    pub const DENIED: u8 = 2;
    pub const CAPABILITY: u8 = 3;
    pub const ARGUMENT: u8 = 4;
    pub const PROGRAM: u8 = 5;
    pub const PATH: u8 = 6;
    pub const PEER: u8 = 7;
    /// The guard's own, which user space writes: a program's path; a folder.
    pub const ALLOWED: u8 = 8;
    pub const ALLOWED_BELOW: u8 = 9;
    /// The guard's own: a file that no one may write is open for it; something was lost.
    pub const OPENED: u8 = 10;
    pub const LOSS: u8 = 11;
    /// Flags of a path.
    pub const ON_ROOT: u8 = 1;
    pub const BY_TEXT: u8 = 2;
    pub const RELATIVE: u8 = 4;
    /// Flags of what the guard tells: the text is not the path; the program was killed.
    pub const NO_PATH: u8 = 8;
    pub const KILLED: u8 = 16;
    /// Flags of a program: it gains privileges by being executed; it could not be executed.
    pub const PRIVILEGED: u8 = 1;
    pub const KEPT: u8 = 32;
    /// The path is longer than what is told of it.
    pub const CUT: u8 = 64;

    /// Whether it has room of its own beyond a table's limit.
    pub fn is_bounded(&self) -> bool {
        self.kind <= Record::CAPABILITY
    }

    pub fn parse(key: &'b [u8], value: &'b [u8]) -> Record<'b> {
        let byte = |at: usize| key.get(at).copied().unwrap_or_default();
        Record {
            exec: byte(0) != 0,
            kind: byte(1),
            what: byte(2),
            flags: byte(3),
            number: word(key, 4),
            a: long(key, 8),
            b: long(key, 16),
            text: key.get(24..).unwrap_or_default(),
            first: word(value, 0),
            last: word(value, 4),
            windows: word(value, 8),
            comm: value.get(16..32).unwrap_or_default(),
        }
    }
}

/// What the guard tells at once: a record, by whom.
#[derive(Debug, Clone, Copy)]
pub struct Told<'b> {
    pub pid: u32,
    /// How often it was met since it was told last.
    pub count: u32,
    /// All of it, with its zeros.
    pub comm: &'b [u8],
    /// Its text ends where it ends.
    pub record: Record<'b>,
}

impl<'b> Told<'b> {
    pub fn parse(bytes: &'b [u8]) -> Told<'b> {
        Told {
            pid: word(bytes, 0),
            count: word(bytes, 4),
            comm: bytes.get(8..24).unwrap_or_default(),
            record: Record::parse(bytes.get(24..).unwrap_or_default(), &[]),
        }
    }

    /// The key that its record has in the table.
    pub fn key(bytes: &[u8]) -> Vec<u8> {
        let mut key = bytes.get(24..).unwrap_or_default().to_vec();
        key.resize(KEY_BYTES as usize, 0);
        key
    }
}

/// What is written down of a program's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The image's program may run.
    OfImage = 0,
    /// So may one from elsewhere.
    MayBeForeign = 1,
    /// None may, wherever it is from.
    Denied = 2,
}

impl Rule {
    /// As the kernel's programs read it.
    pub fn value(self) -> [u8; VALUE_BYTES as usize] {
        let mut value = [0; VALUE_BYTES as usize];
        value[..4].copy_from_slice(&(self as u32).to_ne_bytes());
        value
    }
}

/// A key of which only kind and text are given; `None` if the text is too long for one.
pub fn text_key(kind: u8, text: &[u8]) -> Option<Vec<u8>> {
    let mut key = vec![0; KEY_BYTES as usize];
    key[1] = kind;
    key.get_mut(24..24 + text.len())?.copy_from_slice(text);
    Some(key)
}

pub fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
}
