//! The pinned maps, opened; and removing pins. Must not: decide whether pins may go.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::layout::{self, Slot, State};
use super::place::Place;
use crate::sys::bpf::Map;

/// Names of the maps that are pinned.
pub(super) const MAPS: [&str; 7] = ["slots", "states", "pending", "sessions", "owners", "tables", "bells"];

/// All maps of the sensor.
#[derive(Debug)]
pub(super) struct Pins {
    pub slots: Map,
    pub states: Map,
    pub pending: Map,
    pub sessions: Map,
    pub owners: Map,
    pub tables: Map,
    pub bells: Map,
}

impl Pins {
    /// Opens them.
    ///
    /// # Errors
    /// When one is missing, or has not the shape that this version knows.
    pub fn open(place: &Place) -> Result<Pins> {
        let open = |name, value_bytes| open(place, name, 4, value_bytes);
        Ok(Pins {
            slots: open("slots", Slot::BYTES)?,
            states: open("states", State::BYTES)?,
            pending: self::open(place, "pending", 8, 16)?,
            sessions: open("sessions", 16)?,
            owners: open_owners(place)?,
            tables: open("tables", 4)?,
            bells: open("bells", 4)?,
        })
    }

    /// Whether these are the maps that are pinned now: the sensor may have been unloaded by force, and loaded anew.
    pub fn are_pinned(&self, place: &Place) -> bool {
        Map::open(&place.pins.join("owners")).is_ok_and(|owners| owners.id() == self.owners.id())
    }

    /// Names of everything that is pinned: maps, marks, and the links by which the programs are called.
    ///
    /// # Errors
    /// When the folder of the pins is gone, or can't be listed.
    pub fn names(place: &Place) -> io::Result<BTreeSet<OsString>> {
        std::fs::read_dir(&place.pins)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// What the kernel has counted for a slot.
    pub fn state(&self, slot: u32) -> Result<State> {
        let bytes = self.states.get(&slot.to_ne_bytes()).context("failed to read a container's counts")?;
        Ok(State::parse(&bytes.unwrap_or_default()))
    }

    /// Removes a reference to container `id`, if it still is to that one.
    pub fn forget(map: &Map, key: &[u8], id: u64) {
        if let Ok(Some(value)) = map.get(key)
            && value[..8] == id.to_ne_bytes()
        {
            // Gone meanwhile is as good.
            let _ = map.remove(key);
        }
    }

    /// Slots in use.
    pub fn slots_in_use(&self) -> Result<Vec<u32>> {
        let keys = self.owners.keys().context("failed to list the containers that are armed")?;
        Ok(keys.iter().map(|k| layout::word(k, 0)).collect())
    }
}

fn open(place: &Place, name: &str, key_bytes: usize, value_bytes: usize) -> Result<Map> {
    let path = place.pins.join(name);
    let map = Map::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
    ensure!(map.sizes() == (key_bytes, value_bytes), "{} has another shape than this version's", path.display());
    Ok(map)
}

/// Opens the one map whose shape stays the same from version to version.
///
/// # Errors
/// When it is missing, or has another shape after all.
pub(super) fn open_owners(place: &Place) -> Result<Map> {
    open(place, "owners", 4, 32)
}

/// Removes all pins: the programs end. They vanish at once, under one name or the other.
///
/// # Errors
/// When bpffs can't be written.
pub(super) fn unload(place: &Place) -> Result<()> {
    clear(&place.loading()).context("failed to remove what an earlier load has left")?;
    match std::fs::rename(&place.pins, place.loading()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => {
            other.with_context(|| format!("failed to unpin the {} from {}", place.set.name(), place.pins.display()))?
        }
    }
    clear(&place.loading()).with_context(|| format!("failed to remove the {}'s pins", place.set.name()))
}

/// Removes a folder of pins; nothing there is well.
///
/// # Errors
/// As unlink(2)'s.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
