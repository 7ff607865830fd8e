//! The node's sensor: BPF programs that record what containers do, in the kernel, with no process of ours running; and
//! the guard, a lighter set of them that tells what enforced containers are refused.
//!
//! Owns: the programs, loading and unloading them, arming a container, reading what was recorded. Must not: know profiles,
//! names or policy. The hot path opens pinned maps with bpf(2) only; libbpf is in `load.rs`, which `lithifyctl` alone uses.
//!
//! Never seen: what io_uring does without a system call, a call that seccomp answers by killing, x32 calls (counted as loss),
//! a script of the image (its interpreter is), or one that an interpreter is given as an argument, sendmmsg's addresses after the first.

mod absent;
mod armed;
mod decode;
pub mod guard;
mod hold;
mod kept;
mod layout;
mod leads;
pub mod load;
mod losses;
mod meant;
pub mod owners;
mod past;
pub mod pins;
pub mod place;
pub mod reading;
mod script;

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

pub use armed::{Armed, Options};
pub use place::Place;
pub use reading::Reading;

use place::Pinned;

/// Begins the name of an empty folder among the pins that says what this kernel does not let the programs see.
const UNSEEN: &str = "unseen-";
/// A load may find that another process has just unloaded, but not again and again.
const TRIES: usize = 3;

/// The sensor, loaded.
#[derive(Debug, Clone)]
pub struct Sensor {
    place: Place,
    unseen: Vec<String>,
}

impl Sensor {
    /// Opens the sensor; the loader is run if it is not loaded.
    ///
    /// # Errors
    /// When it can't be loaded; says what is missing: BTF, bpffs, a permission, the loader itself.
    pub fn open(place: &Place) -> Result<Sensor> {
        ensure_loaded(place)?;
        Ok(Sensor { place: place.clone(), unseen: unseen(place) })
    }

    /// What this kernel does not let it see, e.g. `["capabilities"]`.
    pub fn unseen(&self) -> Vec<String> {
        self.unseen.clone()
    }

    /// Lets it go, for who has opened it: the sensor is unloaded if nobody uses it. Without this, one that was loaded for a
    /// container that never came to be would stay.
    ///
    /// # Errors
    /// When the lock can't be had or bpffs can't be written.
    pub fn leave(self) -> Result<()> {
        owners::leave(&self.place)
    }

    /// Arms a container: recording begins when `init_pid` next executes a program, with that program's first instruction.
    ///
    /// # Errors
    /// When there is no such process, the node's places are all taken, or the sensor is gone and can't be loaded again.
    pub fn arm(&self, init_pid: i32, options: Options) -> Result<Armed> {
        armed::arm(&self.place, init_pid, options)
    }
}

/// What the pinned programs could not be given to see.
pub fn unseen(place: &Place) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(&place.pins) else { return Vec::new() };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    let mut unseen: Vec<String> = names.filter_map(|n| n.strip_prefix(UNSEEN).map(str::to_string)).collect();
    unseen.sort();
    unseen
}

/// Runs the loader until this version's programs are pinned.
fn ensure_loaded(place: &Place) -> Result<()> {
    let (set, shown) = (place.set.name(), place.pins.display());
    for _ in 0..TRIES {
        if place.pinned().with_context(|| format!("failed to look for the {set} in {shown}"))? == Pinned::Ours {
            return Ok(());
        }
        let loader = place.loader.display();
        let output = Command::new(&place.loader)
            .args(["sensor", "load"])
            .args(place.set.arguments())
            .arg("--state-dir")
            .arg(place.state_dir())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to load the {set}: can't run {loader}; it belongs beside lithify"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim();
            let said = said.strip_prefix("lithifyctl: ").unwrap_or(said);
            if said.is_empty() {
                bail!("failed to load the {set}: {loader} ended with {}", output.status);
            }
            bail!("{}", said.chars().take(4000).collect::<String>());
        }
    }
    bail!("failed to load the {set}: {shown} was removed again and again; see who runs 'lithifyctl sensor unload'")
}
