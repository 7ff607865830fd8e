//! The folder of kept differences: one tar an event, bounded in number and size, the oldest thrown away first.

use std::fs;
use std::io::{BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::evidence::{ArchiveLimits, Archived, archive};
use crate::policy::EvidenceLimits;

/// How the names of kept archives end.
const KEPT: &str = ".tar";

/// How the names of archives end that are being written.
const PARTIAL: &str = ".partial";

/// After this long an unfinished archive that nobody writes to belongs to a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A kept archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Where.
    pub path: PathBuf,
    /// What is in it.
    pub archived: Archived,
}

/// Keeps the upper directory of a tripwire as `<dir>/<event>.tar` (0600, durable when this returns), then throws away the
/// oldest archives that are over the limits. `dir` is made (0700) if it is missing.
///
/// # Errors
/// An event id that is no file name, a full or read-only disk, an unreadable upper. Nothing is left behind then.
pub fn keep_evidence(upper: BorrowedFd<'_>, dir: &Path, event: &str, limits: EvidenceLimits) -> Result<Evidence> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if event.is_empty() || event.len() > 128 || event.starts_with('.') || !event.bytes().all(fits) {
        bail!("failed to keep evidence: event id {event:?} is no file name; use letters, digits, '-', '_' and '.'");
    }
    let path = dir.join(format!("{event}{KEPT}"));
    let kept = write(upper, dir, &path, limits)
        .with_context(|| format!("failed to keep evidence {}; is the disk full or read-only?", path.display()))?;
    prune(dir, &path, limits).with_context(|| format!("failed to prune evidence folder {}", dir.display()))?;
    Ok(Evidence { path, archived: kept })
}

fn write(upper: BorrowedFd<'_>, dir: &Path, path: &Path, limits: EvidenceLimits) -> Result<Archived> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).context("failed to make the folder")?;
    let mut file = tempfile::Builder::new()
        .prefix(".")
        .suffix(PARTIAL)
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(dir)
        .context("failed to make a temporary file")?;
    let max_bytes = limits.max_file_bytes.min(limits.max_bytes);
    let each = ArchiveLimits { max_bytes, ..ArchiveLimits::default() };
    let mut out = BufWriter::with_capacity(64 * 1024, file.as_file_mut());
    let archived = archive(upper, &mut out, each)?;
    out.flush().context("failed to write")?;
    drop(out);
    file.as_file().sync_all().context("failed to write to disk")?;
    file.persist(path).map_err(|e| e.error).context("failed to rename the temporary file")?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).context("failed to write the folder to disk")?;
    Ok(archived)
}

/// Removes the oldest archives until the folder is within its limits, never `newest`, and abandoned unfinished ones.
fn prune(dir: &Path, newest: &Path, limits: EvidenceLimits) -> Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() {
            continue;
        }
        let modified = metadata.modified()?;
        if name.ends_with(PARTIAL) {
            if SystemTime::now().duration_since(modified).is_ok_and(|age| age > ABANDONED) {
                remove(&entry.path())?;
            }
        } else if name.ends_with(KEPT) && entry.path() != newest {
            kept.push((modified, entry.path(), metadata.size()));
        }
    }
    kept.sort();
    let mut bytes: u64 =
        fs::metadata(newest).map_or(0, |m| m.size()) + kept.iter().map(|(_, _, size)| size).sum::<u64>();
    let mut files = kept.len() + 1;
    for (_, path, size) in kept {
        if files <= limits.max_files as usize && bytes <= limits.max_bytes {
            break;
        }
        remove(&path)?;
        files -= 1;
        bytes -= size;
    }
    Ok(())
}

/// Another container's supervisor may prune at the same time.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("failed to remove {}", path.display())),
    }
}
