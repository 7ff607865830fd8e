//! Where a container's live state is, and whether there is any.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cli::Globals;
use crate::record::{ProcessRef, Record};
use crate::spec::seal::clean;
use crate::sys::process;

/// What `--root` is where it is not given: runc's and crun's, run as root.
const DEFAULT_ROOTS: [&str; 2] = ["/run/runc", "/run/crun"];

/// The folder of a container: its id, and a tag of the engine's `--root`, as ids are unique under one root only.
pub(super) fn of(state_dir: &Path, globals: &Globals, id: &OsStr) -> PathBuf {
    // FNV-1a: a short name, not a secret.
    // One of runc's and crun's own folders may be named or not: that is the same container.
    let named = globals.root.as_deref().map(resolved);
    let root = named.filter(|root| DEFAULT_ROOTS.iter().all(|d| resolved(Path::new(d)) != *root)).unwrap_or_default();
    let bytes = root.as_os_str().as_bytes();
    let tag = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let mut name = id.to_owned();
    name.push(format!("@{tag:08x}"));
    state_dir.join(name)
}

/// A directory's one name, whichever way it was written and whether or not it is there yet: a verb that names the same
/// root in another way must find the same container, or it would go past its protection.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return clean(&real.join(rest));
        }
    }
    clean(&path)
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

/// The record of a protected container, if it is one and its record can be read.
pub(super) fn record(dir: &Path) -> Option<Record> {
    Record::read(dir).ok()
}

/// The record of a protected container; `None` where there is none of this id.
///
/// # Errors
/// When there is one, and nothing can be said of it: what must not happen unprotected must not happen then.
pub(super) fn protected(dir: &Path, id: &OsStr) -> Result<Option<Record>> {
    if !is_name(id) || matches!(dir.symlink_metadata(), Err(e) if e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    let record = Record::read(dir).with_context(|| {
        format!("failed to find out how container {} is protected; delete it and create it again", id.to_string_lossy())
    })?;
    Ok(Some(record))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(root: Option<&Path>) -> PathBuf {
        of(Path::new("/state"), &Globals { root: root.map(Path::to_owned), ..Globals::default() }, OsStr::new("id"))
    }

    #[test]
    fn one_root_is_one_tag_however_it_is_written_and_before_it_is_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let real = dir.path().canonicalize().expect("its path");
        std::fs::create_dir(real.join("run")).expect("a folder");
        std::os::unix::fs::symlink("run", real.join("var")).expect("a link");
        let first = tagged(Some(&real.join("var/new/root")));
        for again in ["run/new/root", "run/new/root/", "var/./new//root", "run/new/x/../root"] {
            assert_eq!(tagged(Some(&real.join(again))), first, "{again}");
        }
        std::fs::create_dir_all(real.join("run/new/root")).expect("folders");
        assert_eq!(tagged(Some(&real.join("var/new/root"))), first, "and when it is");
        assert_ne!(tagged(Some(&real.join("run/new/other"))), first);
        assert_ne!(tagged(None), first);
    }

    #[test]
    fn the_default_root_is_the_same_named_or_not() {
        for name in ["/run/runc", "/run/./runc/", "/var/../run/runc", "/run/crun"] {
            assert_eq!(tagged(Some(Path::new(name))), tagged(None), "{name}");
        }
    }

    #[test]
    fn a_name_fits_a_folder_and_leads_nowhere_else() {
        for good in ["c", "a.b", "..a", "with space", &"x".repeat(240)] {
            assert!(is_name(OsStr::new(good)), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/", &"x".repeat(241)] {
            assert!(!is_name(OsStr::new(bad)), "{bad}");
        }
    }

    #[test]
    fn a_folder_without_a_record_is_an_error_and_none_at_all_is_nobody() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(protected(&dir.path().join("none"), OsStr::new("c")).expect("nobody").is_none());
        assert!(protected(dir.path(), OsStr::new("c")).is_err());
        assert!(protected(dir.path(), OsStr::new("a/b")).expect("no name").is_none());
    }

    #[test]
    fn a_process_is_alive_only_as_itself() {
        let own = std::process::id() as i32;
        let ticks = process::start_time_ticks(own).expect("its start");
        assert!(is_alive(ProcessRef { pid: own, start_time_ticks: ticks }));
        assert!(!is_alive(ProcessRef { pid: own, start_time_ticks: ticks + 1 }), "a reused pid");
    }
}
