//! Where a container's live state is, and whether there is any.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::cli::Globals;
use crate::record::{ProcessRef, Record};
use crate::sys::process;

/// The folder of a container: its id, and a tag of the engine's `--root`, as ids are unique under one root only.
pub(super) fn of(state_dir: &Path, globals: &Globals, id: &OsStr) -> PathBuf {
    // FNV-1a: a short name, not a secret.
    let root = globals.root.as_deref().map(|r| r.as_os_str().as_bytes()).unwrap_or_default();
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let tag = root.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let mut name = id.to_owned();
    name.push(format!("@{tag:08x}"));
    state_dir.join(name)
}

/// An id that can be the name of a folder; the low-level runtime has the words for any other.
pub(super) fn is_name(id: &OsStr) -> bool {
    let bytes = id.as_bytes();
    !bytes.is_empty()
        && bytes != b"."
        && bytes != b".."
        && !bytes.contains(&b'/')
        && !bytes.contains(&0)
        && bytes.len() <= 240
}

/// The record of a protected container, if it is one.
pub(super) fn record(dir: &Path) -> Option<Record> {
    Record::read(dir).ok()
}

/// Whether a process is still the one that was meant.
pub(super) fn is_alive(process: ProcessRef) -> bool {
    process::start_time_ticks(process.pid).is_ok_and(|ticks| ticks == process.start_time_ticks)
        && !is_zombie(process.pid)
}

fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}
