//! From what was recorded to an observation's items: names for numbers, patterns for made-up names, times for windows.
//!
//! Owns: that translation. Pure: equal material gives equal items. Must not: decide what may be learnt.

use std::collections::{BTreeMap, BTreeSet};

use super::addresses;
use crate::events::clock;
use crate::profile::behaviour::{MAX_ITEMS, MAX_WRITERS, Operation, Origin, Program, Write};
use crate::profile::generalise;
use crate::profile::{Behaviour, Sighting, baseline, commanded, syscalls};
use crate::sensor::reading::{self, Abi, Argument, Direction, Facts, PathUse, Peer, Seen, Syscall};

/// Longest path or address, in bytes; written with escapes, it may be four times as long.
const MAX_NAME: usize = 1024;
/// Most bytes of one section's names, so that a document stays within what its readers accept.
const MAX_NAMES_BYTES: usize = 512 << 10;

/// When observation windows were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Beginning of window 0, in microseconds since 1970. Later ones are counted from it: a clock that is set in between
    /// does not move them.
    pub started_micros: i64,
    /// Length, in seconds.
    pub seconds: u32,
}

impl Windows {
    /// RFC 3339: when a window began.
    pub fn began(&self, window: u32) -> String {
        let micros = i64::from(window) * i64::from(self.seconds) * 1_000_000;
        clock::format(self.started_micros.saturating_add(micros))
    }
}

/// What a scan of the writable layer found at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What became of it; `None` where only its size was looked at.
    pub operation: Option<Operation>,
    /// Largest size that any scan saw, in bytes.
    pub size_bytes: u64,
    /// It is, or was, a directory.
    pub directory: bool,
    /// Scans by their windows.
    pub seen: Seen,
}

/// All that is known of one generation.
#[derive(Debug)]
pub struct Material<'a> {
    /// The sensor's reading; of an absent sensor, an empty one.
    pub reading: &'a reading::Reading,
    /// By path inside the container, absolute.
    pub found: &'a BTreeMap<String, Found>,
    /// `net.ipv4.ip_local_port_range`.
    pub ephemeral: (u16, u16),
    /// When.
    pub windows: Windows,
}

/// An observation's items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Items {
    /// The workload.
    pub workload: Behaviour<Sighting>,
    /// Sessions let in later.
    pub exec: Behaviour<Sighting>,
    /// How many did not fit.
    pub left_out: u64,
    /// What the sensor could not see of what this container did.
    pub unseen: BTreeSet<String>,
}

/// In [`Items::unseen`]: work given to io_uring makes no system call of its own (io_uring(7)). What it leaves behind, the
/// scan finds; what it opened, connected to or removed in between, nothing tells.
pub const UNSEEN_IO_URING: &str = "io_uring";

/// In which windows an item was seen, as far as first and last ones tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Span {
    windows: u32,
    ends: BTreeSet<u32>,
}

impl Span {
    fn add(&mut self, seen: Seen) {
        self.windows = self.windows.max(seen.windows);
        self.ends.extend([seen.first, seen.last.max(seen.first)]);
    }

    /// Of two items that became one, windows are counted together as far as they are known to be different ones.
    fn sighting(&self, windows: Windows) -> Sighting {
        let end = |window: Option<&u32>| windows.began(window.copied().unwrap_or_default());
        let count = self.windows.max(self.ends.len() as u32).max(1);
        Sighting { windows: count, first: end(self.ends.first()), last: end(self.ends.last()) }
    }
}

/// Puts together what is known of both sides of a container.
pub fn assemble(material: &Material<'_>) -> Items {
    let Material { reading, found, ephemeral, windows } = material;
    let sides = [&reading.workload, &reading.exec];
    let written = sides.iter().flat_map(|side| side.paths.keys()).filter(|u| u.on_root).map(|u| normal(&u.path));
    let made = sides.iter().flat_map(|side| side.programs.keys()).filter(|p| p.origin != reading::Origin::Image);
    let all: BTreeSet<String> =
        written.chain(made.map(|p| normal(&p.path))).chain(found.keys().map(|p| normal(p))).collect();
    let mut patterns = generalise::paths(all.iter().map(String::as_str));
    patterns.extend(passing(&sides, found));
    let touched = |facts: &Facts| -> BTreeSet<String> {
        facts.paths.keys().filter(|u| u.on_root && u.errno == 0).map(|u| normal(&u.path)).collect()
    };
    let (by_workload, by_exec) = (touched(sides[0]), touched(sides[1]));
    let written = found.iter().filter(|(_, found)| found.operation.is_some()).map(|(path, _)| normal(path));
    let written: BTreeSet<String> = written.chain(by_workload.iter().chain(&by_exec).cloned()).collect();
    let maker = Maker { patterns: &patterns, written: &written, ephemeral: *ephemeral };
    let mut left_out = 0;
    let mut make = |facts: &Facts, own: &dyn Fn(&str) -> bool| {
        let mut behaviour = maker.behaviour(facts);
        for (path, found) in found.iter().filter(|(path, _)| own(&normal(path))) {
            maker.add_found(&mut behaviour, &normal(path), found);
        }
        // A size alone is no evidence.
        behaviour.writes.retain(|_, write| write.succeeded || !write.refused.is_empty());
        mark_executed(&mut behaviour);
        left_out += bound(&mut behaviour);
        behaviour.map(|span| span.sighting(*windows))
    };
    // What nobody was seen to write is the workload's: a sensor that misses something misses it there first.
    let workload = make(sides[0], &|path| by_workload.contains(path) || !by_exec.contains(path));
    let exec = make(sides[1], &|path| by_exec.contains(path));
    let queued = [&workload, &exec].iter().any(|side| side.syscalls.contains_key("io_uring_setup"));
    let unseen = queued.then(|| UNSEEN_IO_URING.to_owned()).into_iter().collect();
    Items { workload, exec, left_out, unseen }
}

/// The paths of files that came and went at once under a name that says nothing, with what stands for them.
fn passing(sides: &[&Facts; 2], found: &BTreeMap<String, Found>) -> BTreeMap<String, String> {
    let done = |operation| -> BTreeSet<String> {
        let uses = sides.iter().flat_map(|side| side.paths.keys());
        uses.filter(|u| u.on_root && u.errno == 0 && u.operation == operation).map(|u| normal(&u.path)).collect()
    };
    let (created, removed) = (done(reading::Operation::Create), done(reading::Operation::Remove));
    let gone = created.intersection(&removed).filter(|path| !found.contains_key(*path));
    gone.filter_map(|path| Some((path.clone(), generalise::passing(path)?))).collect()
}

struct Maker<'a> {
    patterns: &'a BTreeMap<String, String>,
    /// Paths of the root file system that this generation has changed.
    written: &'a BTreeSet<String>,
    ephemeral: (u16, u16),
}

impl Maker<'_> {
    fn behaviour(&self, facts: &Facts) -> Behaviour<Span> {
        let mut made = Behaviour::default();
        let syscall = |call: &Syscall| syscalls::name(call.abi == Abi::Compat, call.number);
        for (call, seen) in &facts.syscalls {
            add(&mut made.syscalls, syscall(call), *seen);
        }
        for (call, seen) in &facts.denied {
            add(&mut made.denied_syscalls, syscall(call), *seen);
        }
        for (argument, seen) in &facts.arguments {
            let (call, value) = self.argument(argument);
            add(made.arguments.entry(call).or_default(), value, *seen);
        }
        for (number, seen) in &facts.capabilities {
            add(&mut made.capabilities, syscalls::capability_name(*number), *seen);
        }
        for (used, seen) in &facts.paths {
            // What is written elsewhere is the mount's own matter, but for what the kernel must not be told.
            match baseline::kernel_file(&normal(&used.path)) {
                _ if used.on_root => add_use(&mut made, self.pattern(&used.path), used, *seen),
                Some(place) => add_use(&mut made, place.to_owned(), used, *seen),
                // A mount that its engine made read-only refuses it when it is enforced, too.
                None if used.errno == libc::EROFS as u32 => {
                    add_use(&mut made, generalise::escape(&normal(&used.path)), used, *seen);
                }
                // These are made read-only where nobody writes.
                None if used.errno == 0 => {
                    if let Some(part) = commanded::part(&normal(&used.path)) {
                        add_use(&mut made, part.to_owned(), used, *seen);
                    }
                }
                None => {}
            }
        }
        for (program, seen) in &facts.programs {
            self.add_program(&mut made, program, *seen);
        }
        self.add_peers(&mut made, &facts.peers);
        made
    }

    fn argument(&self, argument: &Argument) -> (String, String) {
        let by_name = |name: &str, value: String| (name.to_owned(), value);
        let syscall = |call: &Syscall| syscalls::name(call.abi == Abi::Compat, call.number);
        match argument {
            Argument::Socket { family, kind, protocol } => by_name("socket", format!("{family},{kind},{protocol}")),
            Argument::Namespaces { syscall: call, flags } => (syscall(call), flags.to_string()),
            Argument::Prctl { syscall: call, option } => (syscall(call), option.to_string()),
            Argument::Personality(persona) => by_name("personality", persona.to_string()),
            Argument::Ioctl(request) => by_name("ioctl", request.to_string()),
            Argument::Ptrace(request) => by_name("ptrace", request.to_string()),
        }
    }

    fn pattern(&self, path: &str) -> String {
        let path = normal(path);
        self.patterns.get(&path).cloned().unwrap_or(path)
    }

    fn add_found(&self, made: &mut Behaviour<Span>, path: &str, found: &Found) {
        let write = made.writes.entry(self.pattern(path)).or_insert_with(no_write);
        // The sensor knows better when it was.
        if write.seen.ends.is_empty() {
            write.seen.add(found.seen);
        }
        write.operations.extend(found.operation);
        write.size_bytes = write.size_bytes.max(found.size_bytes);
        write.directory |= found.directory;
        write.succeeded |= found.operation.is_some();
    }

    fn add_program(&self, made: &mut Behaviour<Span>, program: &reading::Program, seen: Seen) {
        let path = match program.origin {
            // What the image holds has a name that its maker chose.
            reading::Origin::Image => generalise::escape(&normal(&program.path)),
            _ => self.pattern(&program.path),
        };
        let entry = made.programs.entry(path).or_insert_with(|| Program {
            seen: Span::default(),
            origins: BTreeSet::new(),
            privileged: false,
        });
        entry.seen.add(seen);
        // On a root without layers the kernel can't tell; what was written here is not the image's.
        let made_here = program.origin == reading::Origin::Root && self.written.contains(&normal(&program.path));
        entry.origins.insert(if made_here { Origin::Upper } else { origin(program.origin) });
        entry.privileged |= program.privileged;
    }

    fn add_peers(&self, made: &mut Behaviour<Span>, peers: &BTreeMap<Peer, Seen>) {
        let to = peers.keys().filter(|p| p.direction == Direction::Connect && p.protocol != "unix");
        let hosts = addresses::peers(to.map(|p| (p.protocol.as_str(), p.address.as_str())));
        for (peer, seen) in peers {
            let address = match (peer.protocol.as_str(), peer.direction) {
                ("unix", _) => addresses::unix_name(&peer.address),
                (_, Direction::Listen) => addresses::listener(&peer.address, self.ephemeral),
                (_, Direction::Connect) => {
                    let key = (peer.protocol.clone(), peer.address.clone());
                    hosts.get(&key).cloned().unwrap_or(key.1)
                }
            };
            let section = match peer.direction {
                Direction::Listen => &mut made.listens,
                Direction::Connect => &mut made.connects,
            };
            add(section, cut(&format!("{} {address}", peer.protocol)).to_owned(), *seen);
        }
    }
}

fn add(section: &mut BTreeMap<String, Span>, name: String, seen: Seen) {
    section.entry(name).or_default().add(seen);
}

fn add_use(made: &mut Behaviour<Span>, path: String, used: &PathUse, seen: Seen) {
    let write = made.writes.entry(path).or_insert_with(no_write);
    write.seen.add(seen);
    write.operations.insert(operation(used.operation));
    match used.errno {
        0 => write.succeeded = true,
        errno => {
            write.refused.insert(errno_name(errno));
        }
    }
    if !used.by.is_empty() {
        write.by.insert(used.by.chars().take(16).collect());
    }
}

fn no_write() -> Write<Span> {
    Write {
        seen: Span::default(),
        operations: BTreeSet::new(),
        size_bytes: 0,
        directory: false,
        executed: false,
        by: BTreeSet::new(),
        refused: BTreeSet::new(),
        succeeded: false,
    }
}

/// Programs that were run from where this side writes.
fn mark_executed(made: &mut Behaviour<Span>) {
    let Behaviour { writes, programs, .. } = made;
    for (path, program) in programs {
        if program.origins.iter().any(|o| *o != Origin::Image)
            && let Some(write) = writes.get_mut(path)
        {
            write.executed = true;
        }
    }
}

/// Keeps the smallest names of each section; returns how many did not fit. What the baseline forbids has room of its own:
/// nobody hides it behind a crowd of other names.
fn bound(made: &mut Behaviour<Span>) -> u64 {
    fn keep<V>(map: &mut BTreeMap<String, V>) -> u64 {
        let mut bytes: usize = map.keys().map(String::len).sum();
        let mut left_out = 0;
        while map.len() > MAX_ITEMS || bytes > MAX_NAMES_BYTES {
            bytes -= map.pop_last().map_or(bytes, |(name, _)| name.len());
            left_out += 1;
        }
        left_out
    }
    for write in made.writes.values_mut() {
        while write.by.len() > MAX_WRITERS {
            write.by.pop_last();
        }
    }
    fn apart<V>(map: &mut BTreeMap<String, V>, forbidden: impl Fn(&str, &V) -> bool) -> u64 {
        let (mut theirs, mut rest) = std::mem::take(map).into_iter().partition(|(name, value)| forbidden(name, value));
        let left_out = keep(&mut theirs) + keep(&mut rest);
        map.extend(theirs.into_iter().chain(rest));
        left_out
    }
    keep(&mut made.syscalls)
        + keep(&mut made.denied_syscalls)
        + made.arguments.values_mut().map(keep).sum::<u64>()
        + apart(&mut made.writes, |path, _| baseline::protected(path).or(baseline::kernel_file(path)).is_some())
        + apart(&mut made.programs, |path, program| {
            program.origins.iter().any(|o| baseline::foreign(*o, path).is_some())
        })
        + keep(&mut made.listens)
        + keep(&mut made.connects)
}

/// A path as documents have it, whatever a memfd or a peer's name contains: absolute, without `.` and `..`, of bounded
/// length.
fn normal(path: &str) -> String {
    let mut names = path.split('/').filter(|name| !matches!(*name, "" | "." | ".."));
    let all = names.by_ref().fold(String::new(), |all, name| all + "/" + name);
    let kept = cut(&all).trim_end_matches('/');
    if kept.is_empty() { "/".to_owned() } else { kept.to_owned() }
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_NAME)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

fn operation(operation: reading::Operation) -> Operation {
    match operation {
        reading::Operation::Write => Operation::Write,
        reading::Operation::Create => Operation::Create,
        reading::Operation::Remove => Operation::Remove,
        reading::Operation::Rename => Operation::Rename,
        reading::Operation::Attributes => Operation::Attributes,
    }
}

fn origin(origin: reading::Origin) -> Origin {
    match origin {
        reading::Origin::Image => Origin::Image,
        reading::Origin::Upper => Origin::Upper,
        reading::Origin::Tmpfs => Origin::Tmpfs,
        reading::Origin::Anonymous => Origin::Anonymous,
        reading::Origin::Volume => Origin::Volume,
        reading::Origin::Root => Origin::Root,
    }
}

fn errno_name(errno: u32) -> String {
    match errno as i32 {
        libc::EROFS => "EROFS".to_owned(),
        libc::EACCES => "EACCES".to_owned(),
        libc::EPERM => "EPERM".to_owned(),
        other => format!("E{other}"),
    }
}

#[cfg(test)]
mod tests;
