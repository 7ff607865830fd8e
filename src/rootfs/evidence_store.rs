//! The folder of kept differences: one tar an event, bounded in number and size. Where that is too much, the container that has
//! most loses its oldest: one that fills the folder pushes out its own evidence, not that of others.

use std::collections::HashMap;
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

/// Longest part of an archive's name, in bytes: two of them and what follows are a file name (NAME_MAX is 255).
const MAX_NAME: usize = 112;

/// A kept archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Where.
    pub path: PathBuf,
    /// What is in it.
    pub archived: Archived,
}

/// Keeps the upper directory of a tripwire as `<dir>/<event>.<container>.tar` (0600, durable when this returns), then throws away
/// what is over the limits, of the container that has most and the oldest first. `dir` is made (0700) if it is missing. Of a
/// container's id only what a file name takes counts.
///
/// # Errors
/// An event id that is no file name, a full or read-only disk, an unreadable upper. Nothing is left behind then.
pub fn keep_evidence(
    upper: BorrowedFd<'_>,
    dir: &Path,
    event: &str,
    container: &str,
    limits: EvidenceLimits,
) -> Result<Evidence> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if event.is_empty() || event.len() > MAX_NAME || !event.chars().all(fits) {
        bail!("failed to keep evidence: event id {event:?} is no file name; use letters, digits, '-' and '_'");
    }
    let container: String = container.chars().filter(|c| fits(*c) || matches!(c, '+' | '.')).take(MAX_NAME).collect();
    let path = dir.join(format!("{event}.{container}{KEPT}"));
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

/// The container that an archive is of, by its name; those that name none are one's.
fn owner(name: &str) -> &str {
    name.strip_suffix(KEPT).and_then(|stem| stem.split_once('.')).map_or("", |(_, container)| container)
}

/// Removes archives until the folder is within its limits, never `newest`, and abandoned unfinished ones.
fn prune(dir: &Path, newest: &Path, limits: EvidenceLimits) -> Result<()> {
    let mut kept = Vec::new();
    // How many, and how many bytes, each container has.
    let mut shares: HashMap<String, (u64, u64)> = HashMap::new();
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
        } else if name.ends_with(KEPT) {
            let share = shares.entry(owner(name).to_owned()).or_default();
            (share.0, share.1) = (share.0 + 1, share.1 + metadata.size());
            if entry.path() != newest {
                kept.push((modified, entry.path(), owner(name).to_owned(), metadata.size()));
            }
        }
    }
    kept.sort();
    loop {
        let (files, bytes) = shares.values().fold((0, 0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
        let too_large = bytes > limits.max_bytes;
        if !too_large && files <= u64::from(limits.max_files) {
            return Ok(());
        }
        let share = |owner: &String| shares.get(owner).map_or(0, |share| if too_large { share.1 } else { share.0 });
        // The oldest of those of the largest share.
        let largest = kept.iter().map(|(_, _, owner, _)| share(owner)).max();
        let Some(at) = kept.iter().position(|(_, _, owner, _)| Some(share(owner)) == largest) else { return Ok(()) };
        let (_, path, owner, size) = kept.remove(at);
        remove(&path)?;
        if let Some(share) = shares.get_mut(&owner) {
            (share.0, share.1) = (share.0 - 1, share.1 - size);
        }
    }
}

/// Another container's supervisor may prune at the same time.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("failed to remove {}", path.display())),
    }
}
