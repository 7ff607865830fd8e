//! From a table's records to [`Facts`]: paths made absolute and lexically normal, addresses as text, equal things merged.
//!
//! Must not: read a map, or trust a byte: names are the container's own choice.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::layout::{self, Record};
use super::reading::{Abi, Argument, Direction, Facts, Operation, Origin, PathUse, Peer, Program, Seen, Syscall};

/// Where other file systems are mounted in the container, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(Vec<PathBuf>);

impl Mounts {
    /// From the bytes of a mountinfo of a process in the container. Mount points of the root file system itself (its binds)
    /// are left out.
    pub fn parse(mountinfo: &[u8]) -> Mounts {
        let table = crate::mountinfo::parse(mountinfo);
        let root = table.entries.iter().rfind(|e| e.mount_point == Path::new("/")).map(|e| e.dev);
        let others = table.entries.into_iter().filter(|e| Some(e.dev) != root).map(|e| e.mount_point).collect();
        Mounts(others)
    }

    fn hold(&self, path: &str) -> bool {
        self.0.iter().any(|m| Path::new(path).starts_with(m))
    }
}

/// What makes a path's use one: path, operation, error, on the root file system.
type Use = (String, Operation, u32, bool);
/// By use: who did it first, and when.
type Uses = BTreeMap<Use, (String, Seen)>;

/// Collects records of both sides.
#[derive(Default)]
pub struct Collector {
    sides: [Facts; 2],
    paths: [Uses; 2],
    mounts: Mounts,
}

impl Collector {
    /// For a container with these mounts.
    pub fn new(mounts: Mounts) -> Collector {
        Collector { mounts, ..Collector::default() }
    }

    /// Takes one record; one of an unknown kind is not ours to judge and is left out.
    pub fn take(&mut self, record: &Record<'_>) {
        let side = usize::from(record.exec);
        let seen = Seen { first: record.first, last: record.last, windows: record.windows };
        let facts = &mut self.sides[side];
        match record.kind {
            Record::CALL => merge(&mut facts.syscalls, syscall(record.number), seen),
            Record::DENIED => merge(&mut facts.denied, syscall(record.number), seen),
            Record::CAPABILITY => merge(&mut facts.capabilities, record.number, seen),
            Record::ARGUMENT => {
                if let Some(argument) = argument(record) {
                    merge(&mut facts.arguments, argument, seen);
                }
            }
            Record::PROGRAM => {
                if let Some(program) = program(record) {
                    merge(&mut facts.programs, program, seen);
                }
            }
            Record::PEER => {
                if let Some(peer) = peer(record) {
                    merge(&mut facts.peers, peer, seen);
                }
            }
            Record::PATH => {
                let Some(operation) = operation(record.what) else { return };
                let path = path(record);
                // By a name alone nobody knows where it led; the mount table does, nearly always.
                let by_text = record.flags & Record::BY_TEXT != 0;
                let absolute = record.flags & Record::RELATIVE == 0;
                let known = record.flags & Record::ON_ROOT != 0 || (by_text && absolute);
                let on_root = known && !(by_text && self.mounts.hold(&path));
                let entry = self.paths[side].entry((path, operation, record.number, on_root));
                let (by, all) = entry.or_insert_with(|| (lossy(record.comm), seen));
                if seen.first < all.first {
                    *by = lossy(record.comm);
                }
                *all = union(*all, seen);
            }
            _ => {}
        }
    }

    /// The workload's facts and the sessions'.
    pub fn finish(self) -> (Facts, Facts) {
        let [workload, exec] = self.sides;
        let [of_workload, of_exec] = self.paths;
        (with_paths(workload, of_workload), with_paths(exec, of_exec))
    }
}

fn with_paths(mut facts: Facts, paths: Uses) -> Facts {
    let uses = paths
        .into_iter()
        .map(|((path, operation, errno, on_root), (by, seen))| (PathUse { path, operation, errno, on_root, by }, seen));
    facts.paths = uses.collect();
    facts
}

fn merge<K: Ord>(map: &mut BTreeMap<K, Seen>, key: K, seen: Seen) {
    map.entry(key).and_modify(|all| *all = union(*all, seen)).or_insert(seen);
}

fn union(a: Seen, b: Seen) -> Seen {
    Seen { first: a.first.min(b.first), last: a.last.max(b.last), windows: a.windows.max(b.windows) }
}

fn syscall(number: u32) -> Syscall {
    let abi = if number & layout::COMPAT != 0 { Abi::Compat } else { Abi::Native };
    Syscall { abi, number: number & !layout::COMPAT }
}

/// i386's `socketcall` and the calls of its own that carry these arguments, beside x86-64's.
fn argument(record: &Record<'_>) -> Option<Argument> {
    let call = syscall(record.number);
    Some(match (call.abi, call.number) {
        (Abi::Native, 41 | 53) | (Abi::Compat, 359 | 360 | 102) => {
            Argument::Socket { family: (record.a >> 32) as u32, kind: record.a as u32, protocol: record.b as u32 }
        }
        (Abi::Native, 56 | 272 | 435) | (Abi::Compat, 120 | 310 | 435) => {
            Argument::Namespaces { syscall: call, flags: record.a }
        }
        (Abi::Native, 135) | (Abi::Compat, 136) => Argument::Personality(record.a),
        (Abi::Native, 157 | 158) | (Abi::Compat, 172 | 384) => Argument::Prctl { syscall: call, option: record.a },
        (Abi::Native, 16) | (Abi::Compat, 54) => Argument::Ioctl(record.a),
        (Abi::Native, 101) | (Abi::Compat, 26) => Argument::Ptrace(record.a),
        _ => return None,
    })
}

pub(super) fn program(record: &Record<'_>) -> Option<Program> {
    let origin = match record.what {
        1 => Origin::Image,
        2 => Origin::Upper,
        3 => Origin::Tmpfs,
        4 => Origin::Anonymous,
        5 => Origin::Volume,
        6 => Origin::Root,
        _ => return None,
    };
    let text = lossy(record.text);
    let path = if origin == Origin::Anonymous { format!("/{text}") } else { normal(&text) };
    Some(Program { path, origin, privileged: record.flags != 0 })
}

pub(super) fn operation(what: u8) -> Option<Operation> {
    Some(match what {
        1 => Operation::Write,
        2 => Operation::Create,
        3 => Operation::Remove,
        4 => Operation::Rename,
        5 => Operation::Attributes,
        _ => return None,
    })
}

/// A path as it is told: absolute and lexically normal.
pub(super) fn path(record: &Record<'_>) -> String {
    normal(&lossy(record.text))
}

fn peer(record: &Record<'_>) -> Option<Peer> {
    let direction = match record.what {
        1 => Direction::Listen,
        2 => Direction::Connect,
        _ => return None,
    };
    let (family, kind, protocol) = (record.number >> 16, record.number & 0xffff, record.a as u32);
    let bytes = record.text.get(..(record.a >> 32) as usize)?;
    let port = record.b as u16;
    let name = match (family, kind, protocol) {
        (1, ..) => "unix".to_string(),
        (2 | 10, 1, 0 | 6) => "tcp".to_string(),
        (2 | 10, 2, 0 | 17) => "udp".to_string(),
        (16, ..) => "netlink".to_string(),
        _ => format!("{family}/{kind}"),
    };
    let address = match family {
        1 => match bytes.split_first() {
            None => String::new(),
            Some((0, rest)) => format!("@{}", String::from_utf8_lossy(rest)),
            Some(_) => lossy(bytes),
        },
        2 => internet(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(), port),
        10 => internet(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(), port),
        _ => String::new(),
    };
    Some(Peer { direction, protocol: name, address })
}

fn internet(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// Up to the first zero.
pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// Absolute, without `.`, `..` and doubled slashes, going by the text alone.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_normal_and_never_leaves_the_root() {
        assert_eq!(normal("/a/./b//../c"), "/a/c");
        assert_eq!(normal("/../../etc"), "/etc");
        assert_eq!(normal(""), "/");
    }

    #[test]
    fn any_bytes_are_a_record_and_none_of_them_panic() {
        let mut bytes = vec![0u8; 424];
        let value = [0xffu8; 32];
        for kind in 0..=255 {
            for fill in [0u8, 1, 2, 10, 0x7f, 0xff] {
                bytes.fill(fill);
                bytes[1] = kind;
                let mut collector = Collector::new(Mounts::default());
                collector.take(&Record::parse(&bytes, &value));
                let (workload, exec) = collector.finish();
                assert!(workload == Facts::default() || exec == Facts::default());
            }
        }
        Collector::new(Mounts::default()).take(&Record::parse(&[], &[]));
    }

    #[test]
    fn a_path_by_its_name_is_not_on_the_root_where_something_else_is_mounted() {
        let mounts = Mounts::parse(
            b"1 0 0:50 / / rw - overlay overlay rw\n2 1 0:51 / /tmp rw - tmpfs tmpfs rw\n3 1 0:50 /x /y rw - overlay o rw\n",
        );
        assert!(mounts.hold("/tmp/a") && mounts.hold("/tmp"));
        assert!(!mounts.hold("/tmpx") && !mounts.hold("/y/z") && !mounts.hold("/"));
    }
}
