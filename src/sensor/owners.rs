//! Who has armed what: claiming a slot, letting it go, and sweeping what dead processes have left.
//!
//! All of it happens under the place's lock, except the two slow removals, which the kernel makes wait; a slot whose
//! removals are under way belongs to the process that makes them.

use std::fs::File;
use std::io;
use std::thread;

use anyhow::{Context, Result, bail};

use super::layout::{self, Owner, SLOTS, Slot};
use super::pins::{self, Pins};
use super::place::{Pinned, Place};
use crate::sys::{bpf, process};

/// Takes a free slot for this process.
pub(super) fn claim(place: &Place, pins: &Pins, id: u64, init: u32) -> Result<u32> {
    let owner = us(id, init)?.bytes();
    // Nobody else claims while the lock is held, but a slot may still be another's.
    for slot in 0..SLOTS.min(pins.owners.max_entries()) {
        match pins.owners.set(&slot.to_ne_bytes(), &owner, bpf::NOEXIST) {
            Ok(()) => return Ok(slot),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("failed to claim a place in the {}", place.set.name())),
        }
    }
    bail!(
        "failed to arm a container: all {SLOTS} places of the {} are taken; see 'lithifyctl sensor status'",
        place.set.name()
    )
}

fn us(id: u64, init: u32) -> Result<Owner> {
    let pid_ns = pid_namespace()?;
    let pid = std::process::id();
    let start_ticks = process::start_time_ticks(pid as i32).context("failed to read our own start time from /proc")?;
    Ok(Owner { id, start_ticks, pid, init, pid_ns })
}

/// The pid namespace whose numbers we know processes by.
pub(super) fn pid_namespace() -> Result<u32> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata("/proc/self/ns/pid").context("failed to read our pid namespace from /proc")?;
    Ok(meta.ino() as u32)
}

/// The owner of a slot, if it has one.
fn owner(pins: &Pins, slot: u32) -> Result<Option<Owner>> {
    let bytes = pins.owners.get(&slot.to_ne_bytes()).context("failed to read an owner")?;
    Ok(bytes.map(|b| Owner::parse(&b)))
}

/// A living process that has armed a container with whatever version's sensor is pinned.
///
/// # Errors
/// When that version's owners have another shape than this one's.
pub(super) fn any_alive(place: &Place) -> Result<Option<u32>> {
    let owners = pins::open_owners(place)
        .with_context(|| format!("failed to see who uses another version's {}", place.set.name()))?;
    for slot in owners.keys()? {
        let owner = owners.get(&slot)?.map(|b| Owner::parse(&b)).filter(|o| alive(*o));
        if let Some(owner) = owner {
            return Ok(Some(owner.pid));
        }
    }
    Ok(None)
}

/// Whether the process that armed it still runs; a zombie does not.
fn alive(owner: Owner) -> bool {
    // Its numbers mean others here. Whoever lives there sweeps; by force it goes in any case.
    if pid_namespace().ok() != Some(owner.pid_ns) {
        return true;
    }
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", owner.pid)) else { return false };
    // The program's name may hold anything: fields are counted after its last parenthesis (proc_pid_stat(5)).
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let start = fields.get(19).and_then(|f| f.parse::<u64>().ok());
    !matches!(fields.first().copied(), Some("Z" | "X" | "x")) && start == Some(owner.start_ticks)
}

/// Lets a slot go: its records end with the last descriptor of its table. The last one unloads the sensor.
///
/// # Errors
/// When the lock can't be had or bpffs can't be written. What is left is swept by whoever comes next.
pub(super) fn release(place: &Place, pins: &Pins, slot: u32, id: u64) -> Result<()> {
    let held = place.hold()?;
    if !close(pins, slot, id)? {
        return Ok(());
    }
    drop(held);
    let key = slot.to_ne_bytes();
    // The kernel lets each removal from a map of maps wait for a grace period (10 ms and more): side by side they share one.
    let (table, bell) = thread::scope(|scope| {
        let bell = thread::Builder::new().spawn_scoped(scope, || pins.bells.remove(&key));
        (pins.tables.remove(&key), bell.ok().and_then(|thread| thread.join().ok()))
    });
    table.context("failed to remove a container's table")?;
    // A node that is out of tasks has no thread for it.
    bell.unwrap_or_else(|| pins.bells.remove(&key)).context("failed to remove a container's bell")?;
    let held = place.hold()?;
    pins.owners.remove(&key).context("failed to free a container's place")?;
    unload_if_unused(place, pins, &held)
}

/// Ends recording into a slot that goes on being this process's until it is [released](release). Takes no time.
///
/// # Errors
/// As [`release`].
pub(super) fn end(place: &Place, pins: &Pins, slot: u32, id: u64) -> Result<()> {
    let _held = place.hold()?;
    close(pins, slot, id).map(|_| ())
}

/// Unloads the sensor if nobody uses it.
pub(super) fn leave(place: &Place) -> Result<()> {
    let held = place.hold()?;
    if place.pinned()? == Pinned::Ours { unload_if_unused(place, &Pins::open(place)?, &held) } else { Ok(()) }
}

/// Ends recording into a slot, and takes it over from whoever owned it; false if it is not `id`'s any more.
fn close(pins: &Pins, slot: u32, id: u64) -> Result<bool> {
    let key = slot.to_ne_bytes();
    let Some(owner) = owner(pins, slot)?.filter(|o| o.id == id) else { return Ok(false) };
    pins.owners.set(&key, &us(id, owner.init)?.bytes(), bpf::ANY).context("failed to take over a place")?;
    Pins::forget(&pins.pending, &layout::process(owner.init, owner.pid_ns), id);
    Pins::forget(&pins.sessions, &pins.state(slot)?.mnt_ns.to_ne_bytes(), id);
    pins.slots.set(&key, &Slot::default().bytes(), bpf::ANY).context("failed to end recording")?;
    Ok(true)
}

fn unload_if_unused(place: &Place, pins: &Pins, _held: &File) -> Result<()> {
    if pins.slots_in_use()?.is_empty() && pins.are_pinned(place) { pins::unload(place) } else { Ok(()) }
}

/// Lets go what dead processes have armed. Returns how many slots that was.
///
/// # Errors
/// As [`release`].
pub(super) fn sweep(place: &Place, pins: &Pins) -> Result<usize> {
    let mut swept = 0;
    for slot in pins.slots_in_use()? {
        if let Some(owner) = owner(pins, slot)?
            && !alive(owner)
        {
            release(place, pins, slot, owner.id)?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// What `lithifyctl sensor` tells of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Holder {
    /// The process that armed it.
    pub pid: u32,
    /// The container's init.
    pub init: u32,
}

/// What is loaded: `None` if nothing is, else who uses it, after a sweep.
///
/// # Errors
/// When it is another version's, or can't be read.
pub fn holders(place: &Place) -> Result<Option<Vec<Holder>>> {
    let held = place.hold()?;
    pins::clear(&place.loading()).context("failed to remove what a broken load has left")?;
    drop(held);
    match place.pinned().with_context(|| format!("failed to look at {}", place.pins.display()))? {
        Pinned::Nothing => return Ok(None),
        Pinned::Another => {
            let (pins, set) = (place.pins.display(), place.set.name());
            bail!("{pins} holds another version's {set}; that version's lithifyctl knows it")
        }
        Pinned::Ours => {}
    }
    let pins = Pins::open(place)?;
    let swept = sweep(place, &pins)?;
    if swept > 0 && place.pinned()? == Pinned::Nothing {
        return Ok(None);
    }
    let mut holders = Vec::new();
    for slot in pins.slots_in_use()? {
        holders.extend(owner(&pins, slot)?.map(|o| Holder { pid: o.pid, init: o.init }));
    }
    Ok(Some(holders))
}
