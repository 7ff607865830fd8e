//! What was found out about the low-level runtimes of this node: `<data-dir>/runtimes/`, one small file for each program.
//!
//! Owns: their format and their names. Must not: decide what holds; a file that can't be trusted or read is none.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::calibrate::Seen;
use super::identity::{Identity, Stamp};
use super::needs::Finding;
use crate::profile::folder::{Folder, Lock};
use crate::profile::syscalls;

/// Format version of a file.
const VERSION: u32 = 1;
/// Folder below the data folder.
const NAME: &str = "runtimes";
/// How long a failure to measure holds before it is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(3600);

/// One file: what was found out, never what follows from it, which the next version of ours may know better.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Kept {
    version: u32,
    /// Path of the program.
    path: String,
    stamp: Stamp,
    identity: Identity,
    /// Seconds since 1970.
    at: u64,
    finding: Finding,
}

/// The folder, and one program whose file it is about.
pub struct Keeper<'a> {
    program: &'a Path,
    stamp: &'a Stamp,
    folder: Folder,
}

impl<'a> Keeper<'a> {
    /// Opens the folder; `None` while there is none.
    ///
    /// # Errors
    /// When it can't be opened, or others could change it.
    pub fn open(data_dir: &Path, program: &'a Path, stamp: &'a Stamp) -> Result<Option<Keeper<'a>>> {
        Ok(Folder::open(data_dir, &[NAME])?.map(|folder| Keeper { program, stamp, folder }))
    }

    /// Opens the folder, and makes it where there is none.
    ///
    /// # Errors
    /// As [`Keeper::open`], or when it can't be made.
    pub fn create(data_dir: &Path, program: &'a Path, stamp: &'a Stamp) -> Result<Keeper<'a>> {
        Ok(Keeper { program, stamp, folder: Folder::create(data_dir, &[NAME])? })
    }

    /// Keeps other processes from finding out the same at the same time.
    ///
    /// # Errors
    /// When one that does takes longer than `patience`.
    pub fn lock(&self, patience: Duration) -> Result<Lock<'_>> {
        self.folder.lock_within(patience)
    }

    /// What was found out of the program, as it is now. That it could not be measured holds for a while only.
    pub fn read(&self) -> Option<(Identity, Finding)> {
        let kept = self.file(&self.name()).filter(|kept| kept.stamp == *self.stamp)?;
        let holds = !matches!(kept.finding, Finding::NotMeasured(_)) || kept.age() < TRY_AGAIN;
        holds.then_some((kept.identity, kept.finding))
    }

    /// What was measured of a program with the same bytes that has another stamp: installed again, or its device renumbered.
    pub fn measured(&self, digest: &str) -> Option<Seen> {
        let names = self.folder.names().ok()?;
        names.iter().filter_map(|name| self.file(name)).find_map(|kept| match kept.finding {
            Finding::Measured(seen) if kept.identity.digest == digest => Some(seen),
            _ => None,
        })
    }

    /// Keeps what was found out, and forgets what is known of the program that was at this path before.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, identity: &Identity, finding: &Finding) -> Result<()> {
        let kept = Kept {
            version: VERSION,
            path: self.program.to_string_lossy().into_owned(),
            stamp: self.stamp.clone(),
            identity: identity.clone(),
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            finding: finding.clone(),
        };
        let mut text = serde_json::to_vec_pretty(&kept)?;
        text.push(b'\n');
        let name = self.name();
        for other in self.folder.names()? {
            let of_another = self.file(&other).is_some_and(|o| o.path != kept.path);
            // One that can't be read goes as well: a file that is replaced would keep its owner.
            if !of_another && (other != name || self.file(&other).is_none()) {
                self.folder.remove(&other)?;
            }
        }
        self.folder
            .write(&name, &text)
            .with_context(|| format!("failed to write {}/{name}", self.folder.path().display()))
    }

    fn name(&self) -> String {
        let stem: String = self.program.file_name().unwrap_or_default().to_string_lossy().chars().take(32).collect();
        let stem: String = stem.chars().filter(char::is_ascii_alphanumeric).collect();
        format!("{stem}-{}.json", self.stamp.key())
    }

    fn file(&self, name: &str) -> Option<Kept> {
        let bytes = self.folder.read(name).ok()??;
        serde_json::from_slice::<Kept>(&bytes).ok().filter(|kept| kept.check().is_ok())
    }
}

impl Kept {
    fn check(&self) -> Result<()> {
        ensure!(self.version == VERSION, "expected version {VERSION}, found {}", self.version);
        if let Finding::Measured(seen) = &self.finding {
            for name in seen.always.iter().chain(&seen.without_no_new_privileges) {
                ensure!(syscalls::parse(name).is_some_and(|(compat, _)| !compat), "there is no system call {name:?}");
            }
        }
        Ok(())
    }

    /// Since it was found out; a clock that was set back makes it new.
    fn age(&self) -> Duration {
        (UNIX_EPOCH + Duration::from_secs(self.at)).elapsed().unwrap_or_default()
    }
}
