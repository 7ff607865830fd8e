//! Containers that join the pid or user namespace of another one, which may be protected.
//!
//! Must not: mount, or change more of config.json than those namespaces' paths.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::place;
use crate::record::Record;
use crate::spec::{Document, generation};

/// An engine that joins another container's pid or user namespace names it by that container's pid, which is an anchor if
/// that container is protected too: the anchor lives in the host's. The join is meant for the container's init.
pub(super) fn to_init(document: &mut Document, state_dir: &Path) -> Result<()> {
    for (pid, dir, record) in joined_anchors(document, state_dir)? {
        let init = record.init.filter(|init| place::is_alive(*init));
        let init =
            init.with_context(|| format!("failed to join the namespaces of {}: it has no init", dir.display()))?;
        generation::rejoin(document, pid, init.pid);
    }
    Ok(())
}

/// With mode off config.json is handed on as it is, and the anchor that it names would give the container the host's pid
/// or user namespace: more than whoever asked for the join may have.
pub(super) fn refuse_hosts(document: &Document, state_dir: &Path, id: &OsStr) -> Result<()> {
    if let Some((_, _, record)) = joined_anchors(document, state_dir)?.first() {
        bail!(
            "failed to start container {} with mode off in the pid or user namespace of container {}, which is protected: \
             it would get the host's; protect both or neither, or let it have a namespace of its own",
            id.to_string_lossy(),
            record.id
        );
    }
    Ok(())
}

/// The anchors by which a document joins pid or user namespaces, each with its container.
fn joined_anchors(document: &Document, state_dir: &Path) -> Result<Vec<(i32, PathBuf, Record)>> {
    let joined = generation::joined_through_proc(document);
    let mut found = Vec::new();
    if joined.is_empty() {
        return Ok(found);
    }
    for (dir, record) in Record::list(state_dir)? {
        let Ok(record) = record else { continue };
        // A stopped container's pid may be anybody's by now.
        let pid = record.anchor.pid;
        if joined.iter().any(|(named, _)| *named == pid) && place::is_alive(record.anchor) {
            found.push((pid, dir, record));
        }
    }
    Ok(found)
}
