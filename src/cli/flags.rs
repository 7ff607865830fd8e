//! The table of flags: runc 1.1 to 1.3 and crun 1.8 to 1.20, global and a verb each.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What the table says of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// Takes a value, in the same word behind `=` or as the next word.
    Value,
    /// Takes none; `=true` or `=false` may follow in the same word.
    Switch,
    /// Not in the table: taken for a switch.
    Unknown,
}

/// One word that is a flag: `-name`, `--name`, `--name=value`.
#[derive(Debug, Clone, Copy)]
pub struct Flag<'a> {
    /// Name without dashes.
    pub name: &'a [u8],
    inline: Option<&'a OsStr>,
}

impl<'a> Flag<'a> {
    /// `None` for a word that is no flag: no dash, only dashes (a lone `-` is a word, as Go's flag package has it).
    pub fn read(word: &'a OsStr) -> Option<Flag<'a>> {
        let bytes = word.as_bytes();
        let body = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"))?;
        if body.is_empty() || body[0] == b'=' {
            return None;
        }
        Some(match body.iter().position(|b| *b == b'=') {
            Some(at) => Flag { name: &body[..at], inline: Some(OsStr::from_bytes(&body[at + 1..])) },
            None => Flag { name: body, inline: None },
        })
    }

    /// The flag's value and how many words flag and value take.
    pub fn value(self, scan: Scan, next: Option<&'a OsStr>) -> (Option<&'a OsStr>, usize) {
        match (self.inline, scan) {
            (Some(value), _) => (Some(value), 1),
            (None, Scan::Value) => (next, 2),
            (None, Scan::Switch | Scan::Unknown) => (None, 1),
        }
    }
}

/// A switch's truth: absent value is true, otherwise Go's strconv.ParseBool.
pub fn truth(value: Option<&OsStr>) -> bool {
    !matches!(value.map(OsStr::as_bytes), Some(b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False"))
}

/// Global flags: ours, runc's and crun's.
pub fn global(name: &[u8]) -> Scan {
    match name {
        b"config" | b"mode" | b"rootfs" | b"on-write" => Scan::Value,
        b"log" | b"log-format" | b"log-level" | b"root" | b"criu" | b"rootless" | b"cgroup-manager" => Scan::Value,
        b"debug" | b"systemd-cgroup" | b"help" | b"h" | b"?" | b"usage" | b"version" | b"v" | b"V" => Scan::Switch,
        _ => Scan::Unknown,
    }
}

/// Flags of a verb.
pub fn of_verb(verb: &str, name: &[u8]) -> Scan {
    if matches!(name, b"help" | b"h" | b"?" | b"usage") {
        return Scan::Switch;
    }
    match verb {
        "create" | "run" | "restore" => match name {
            b"bundle" | b"b" | b"console-socket" | b"pid-file" | b"preserve-fds" => Scan::Value,
            // crun's: another file than config.json.
            b"config" | b"f" if verb != "restore" => Scan::Value,
            b"image-path"
            | b"work-path"
            | b"parent-path"
            | b"manage-cgroups-mode"
            | b"empty-ns"
            | b"lsm-profile"
            | b"lsm-mount-context"
                if verb == "restore" =>
            {
                Scan::Value
            }
            b"detach" | b"d" | b"keep" | b"no-subreaper" | b"no-pivot" | b"no-new-keyring" => Scan::Switch,
            _ => Scan::Unknown,
        },
        "exec" => match name {
            b"console-socket" | b"cwd" | b"env" | b"e" | b"user" | b"u" | b"additional-gids" | b"g" | b"process"
            | b"p" | b"pid-file" | b"process-label" | b"apparmor" | b"cap" | b"c" | b"preserve-fds" | b"cgroup" => {
                Scan::Value
            }
            b"tty" | b"t" | b"detach" | b"d" | b"no-new-privs" | b"ignore-paused" => Scan::Switch,
            _ => Scan::Unknown,
        },
        "ps" => {
            if matches!(name, b"format" | b"f") {
                Scan::Value
            } else {
                Scan::Unknown
            }
        }
        "update" => match name {
            b"resources"
            | b"r"
            | b"blkio-weight"
            | b"cpu-period"
            | b"cpu-quota"
            | b"cpu-burst"
            | b"cpu-share"
            | b"cpu-rt-period"
            | b"cpu-rt-runtime"
            | b"cpu-idle"
            | b"cpuset-cpus"
            | b"cpuset-mems"
            | b"memory"
            | b"memory-reservation"
            | b"memory-swap"
            | b"pids-limit"
            | b"l3-cache-schema"
            | b"mem-bw-schema"
            | b"kernel-memory"
            | b"kernel-memory-tcp" => Scan::Value,
            _ => Scan::Unknown,
        },
        "kill" => {
            if matches!(name, b"all" | b"a" | b"regex" | b"r") {
                Scan::Switch
            } else {
                Scan::Unknown
            }
        }
        _ => Scan::Unknown,
    }
}

/// Whether a word is a command of runc's or crun's.
pub fn is_verb(word: &[u8]) -> bool {
    matches!(
        word,
        b"checkpoint"
            | b"create"
            | b"delete"
            | b"events"
            | b"exec"
            | b"features"
            | b"help"
            | b"h"
            | b"init"
            | b"kill"
            | b"list"
            | b"mounts"
            | b"pause"
            | b"ps"
            | b"restore"
            | b"resume"
            | b"run"
            | b"spec"
            | b"start"
            | b"state"
            | b"update"
            | b"version"
    )
}
