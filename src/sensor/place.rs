//! Where the sensor is on a node: its pins, its lock, its loader. Also who holds the lock, and whether what is pinned is ours.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::events::journal;

/// The state folder whose sensor has the plain name.
const USUAL_STATE: &str = "/run/lithify";
/// Where bpffs belongs (`Documentation/bpf`).
pub const BPFFS: &str = "/sys/fs/bpf";
/// Longest wait for the lock. A load takes some 100 ms.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which programs: each set is built, pinned, loaded and unloaded by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Those that record what a container does while it is learnt.
    Sensor,
    /// Those that tell what an enforced container was refused.
    Guard,
}

impl Set {
    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Set::Sensor => "sensor",
            Set::Guard => "guard",
        }
    }

    /// Digest of the programs that are built in; `bpf/build` writes it.
    pub fn digest(self) -> &'static str {
        match self {
            Set::Sensor => include_str!("bpf/sensor.digest"),
            Set::Guard => include_str!("bpf/guard.digest"),
        }
    }

    /// What `lithifyctl sensor load` and `unload` are told, beside the state folder.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Set::Sensor => &[],
            Set::Guard => &["--guard"],
        }
    }
}

/// The places of one set of programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which set.
    pub set: Set,
    /// Folder of the pins, in bpffs.
    pub pins: PathBuf,
    /// Lock file: held while pins are made or removed, and while a container is armed or let go.
    pub lock: PathBuf,
    /// Program that loads, run as `LOADER sensor load [--guard] --state-dir DIR`.
    pub loader: PathBuf,
}

impl Place {
    /// The places that belong to a state folder: each has a sensor of its own, so that two installations don't meet.
    pub fn of(state_dir: &Path) -> Place {
        let name = if state_dir == Path::new(USUAL_STATE) {
            "lithify".to_string()
        } else {
            format!("lithify-{:08x}", fnv(state_dir.as_os_str().as_encoded_bytes()))
        };
        Place {
            set: Set::Sensor,
            pins: Path::new(BPFFS).join(name),
            lock: state_dir.join("sensor.lock"),
            loader: std::env::current_exe().unwrap_or_default().with_file_name("lithifyctl"),
        }
    }

    /// The guard's place beside the sensor's: the same state folder and loader, other pins, another lock.
    pub fn guard(&self) -> Place {
        let mut pins = self.pins.as_os_str().to_owned();
        pins.push("-guard");
        Place {
            set: Set::Guard,
            pins: pins.into(),
            lock: self.lock.with_file_name("guard.lock"),
            loader: self.loader.clone(),
        }
    }

    /// The state folder.
    pub fn state_dir(&self) -> &Path {
        self.lock.parent().unwrap_or(Path::new("/"))
    }

    /// Where pins are while they are being made. (Names in bpffs may not have dots.)
    pub fn loading(&self) -> PathBuf {
        let mut name = self.pins.as_os_str().to_owned();
        name.push("-loading");
        name.into()
    }

    /// An empty folder among the pins that names the programs' digest.
    pub fn digest_mark(digest: &str) -> String {
        format!("digest-{digest}")
    }

    /// What is pinned: nothing, ours, or another version's.
    ///
    /// # Errors
    /// When bpffs can't be read.
    pub fn pinned(&self) -> io::Result<Pinned> {
        if self.pins.join(Place::digest_mark(self.set.digest())).is_dir() {
            return Ok(Pinned::Ours);
        }
        Ok(if self.pins.try_exists()? { Pinned::Another } else { Pinned::Nothing })
    }

    /// Takes the lock, until the file is dropped.
    ///
    /// # Errors
    /// When the state folder can't be made or written, or somebody holds the lock for longer than any load takes.
    pub fn hold(&self) -> Result<File> {
        let shown = self.lock.display();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&self.lock).or_else(|e| {
            if e.kind() != io::ErrorKind::NotFound {
                return Err(e);
            }
            DirBuilder::new().mode(0o700).recursive(true).create(self.state_dir())?;
            options.open(&self.lock)
        });
        let file = file.with_context(|| format!("failed to open {shown}"))?;
        let had =
            journal::wait_for_lock(PATIENCE, || file.try_lock()).with_context(|| format!("failed to lock {shown}"))?;
        ensure!(had, "failed to lock {shown}: another process has held it for {} s; see fuser(1)", PATIENCE.as_secs());
        Ok(file)
    }
}

/// What is in the folder of the pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    /// Nothing.
    Nothing,
    /// This version's programs.
    Ours,
    /// Another version's.
    Another,
}

/// FNV-1a, 32 bits.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_state_folder_has_the_plain_name_and_others_have_their_own() {
        assert_eq!(Place::of(Path::new("/run/lithify")).pins, Path::new("/sys/fs/bpf/lithify"));
        let other = Place::of(Path::new("/run/other"));
        assert!(other.pins.to_str().unwrap().starts_with("/sys/fs/bpf/lithify-"));
        assert_ne!(other.pins, Place::of(Path::new("/run/third")).pins);
        assert_eq!(Place::of(Path::new("/run/lithify")).guard().pins, Path::new("/sys/fs/bpf/lithify-guard"));
        assert!(!other.loading().to_str().unwrap()[BPFFS.len()..].contains('.'), "bpffs refuses dots");
    }
}
