//! `/proc/<pid>/mountinfo` as values (proc_pid_mountinfo(5)).
//!
//! Owns: the format and its octal escapes. Must not: open files, or judge a mount. The names in it are the container's
//! own choice: any byte may be there.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Lines that are read; the kernel's own limit is `fs.mount-max`, 100,000 by default.
pub const MAX_ENTRIES: usize = 100_000;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Unique among the mounts that exist now; reused later.
    pub id: u32,
    /// The mount it is mounted on, which the reader may not be able to see; its own id for the root of all.
    pub parent: u32,
    /// Device number as text, `major:minor`.
    pub dev: (u32, u32),
    /// The part of the filesystem that is mounted.
    pub root: PathBuf,
    /// Where, as the process that the table belongs to sees it.
    pub mount_point: PathBuf,
    /// Options of this mount, e.g. `rw,nosuid,relatime`.
    pub options: OsString,
    /// Peer group that it shares events with.
    pub shared: Option<u32>,
    /// Peer group that it receives events from.
    pub master: Option<u32>,
    /// The nearest dominant peer group that the reader can see.
    pub propagate_from: Option<u32>,
    /// It can't be bind-mounted.
    pub unbindable: bool,
    /// Filesystem type, e.g. `tmpfs` or `fuse.sshfs`.
    pub fs_type: OsString,
    /// What was mounted: a device, a word, or nothing.
    pub source: OsString,
    /// Options of the filesystem itself, their escapes left in: a comma of a path is one.
    pub super_options: OsString,
}

/// The mounts in the bytes of a mountinfo file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountTable {
    /// In the file's order.
    pub entries: Vec<MountEntry>,
    /// There were more than [`MAX_ENTRIES`], or lines without the format; those are left out.
    pub incomplete: bool,
}

/// Reads a whole mountinfo file. Unknown optional fields are skipped.
#[must_use]
pub fn parse(bytes: &[u8]) -> MountTable {
    let mut table = MountTable::default();
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        if table.entries.len() == MAX_ENTRIES {
            table.incomplete = true;
            break;
        }
        match parse_line(line) {
            Some(entry) => table.entries.push(entry),
            None => table.incomplete = true,
        }
    }
    table
}

/// Reads one line, without its newline; `None` when it does not have the format.
#[must_use]
pub fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|b| *b == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let mut dev = fields.next()?.splitn(2, |b| *b == b':');
    let dev = (number(dev.next()?)?, number(dev.next()?)?);
    let mut entry = MountEntry {
        id,
        parent,
        dev,
        root: PathBuf::from(unescape(fields.next()?)),
        mount_point: PathBuf::from(unescape(fields.next()?)),
        options: unescape(fields.next()?),
        shared: None,
        master: None,
        propagate_from: None,
        unbindable: false,
        fs_type: OsString::new(),
        source: OsString::new(),
        super_options: OsString::new(),
    };
    loop {
        match fields.next()? {
            b"-" => break,
            b"unbindable" => entry.unbindable = true,
            field => {
                let mut parts = field.splitn(2, |b| *b == b':');
                match (parts.next()?, parts.next().and_then(number)) {
                    (b"shared", value) => entry.shared = value,
                    (b"master", value) => entry.master = value,
                    (b"propagate_from", value) => entry.propagate_from = value,
                    _ => {}
                }
            }
        }
    }
    entry.fs_type = unescape(fields.next()?);
    // The source may be empty: two spaces in a row, which split gives as an empty field.
    entry.source = unescape(fields.next()?);
    entry.super_options = OsString::from_vec(fields.next()?.to_vec());
    Some(entry)
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Undoes the kernel's octal escapes (`\040` for a space); a backslash without three octal digits stays as it is.
#[must_use]
pub fn unescape(text: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    /// What the kernel does to a name (`mangle`, fs/proc_namespace.c: space, tab, newline, backslash, `#`).
    fn escape(name: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for byte in name {
            if b" \t\n\\#".contains(byte) {
                out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            } else {
                out.push(*byte);
            }
        }
        out
    }

    #[test]
    fn a_line_with_every_optional_field_is_read() {
        let line = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:7 master:1 propagate_from:2 new:3 unbindable - ext3 /dev/root rw,errors=continue";
        let entry = parse_line(line).expect("the line has the format");
        assert_eq!((entry.id, entry.parent, entry.dev), (36, 35, (98, 0)));
        assert_eq!(entry.mount_point, Path::new("/mnt 2"));
        assert_eq!((entry.shared, entry.master, entry.propagate_from), (Some(7), Some(1), Some(2)));
        assert!(entry.unbindable);
        assert_eq!((entry.fs_type.to_str(), entry.source.to_str()), (Some("ext3"), Some("/dev/root")));
        assert_eq!(entry.super_options.to_str(), Some("rw,errors=continue"));
    }

    #[test]
    fn an_empty_source_is_read_as_empty() {
        let entry = parse_line(b"1 0 0:5 / /x rw - tmpfs  rw").expect("the line has the format");
        assert!(entry.source.is_empty());
        assert_eq!(entry.super_options.to_str(), Some("rw"));
    }

    #[test]
    fn this_machine_s_own_table_is_read_whole() {
        let bytes = std::fs::read("/proc/self/mountinfo").expect("it can be read");
        let table = parse(&bytes);
        assert!(!table.incomplete);
        assert_eq!(table.entries.len(), bytes.iter().filter(|b| **b == b'\n').count());
        assert!(table.entries.iter().any(|e| e.mount_point == Path::new("/")));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn arbitrary_fields_never_panic(line in "[0-9:/ \\\\-]{0,80}") {
            let _ = parse_line(line.as_bytes());
        }

        #[test]
        fn any_name_survives_the_kernel_s_escapes(name in proptest::collection::vec(1u8.., 0..60)) {
            prop_assert_eq!(unescape(&escape(&name)).into_vec(), name.clone());
            let mut line = b"5 1 0:9 / /".to_vec();
            line.extend(escape(&name));
            line.extend_from_slice(b" rw - tmpfs none rw");
            let entry = parse_line(&line).expect("the line has the format");
            prop_assert_eq!(entry.mount_point.into_os_string().into_vec(), [b"/", &name[..]].concat());
        }
    }
}
