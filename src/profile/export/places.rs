//! Where a read-only root needs a place that can be written, from what was written.
//!
//! Owns: which directories, and of which kind. Must not: look at an image: what it has in a directory is not in a profile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::behaviour::{Behaviour, Operation, Write};
use super::super::document::{Profile, Support};
use crate::policy::values::{MAX_SIZE_BYTES, is_protected};
use crate::profile::commanded;

/// Smallest tmpfs.
const MIN_SIZE_BYTES: u64 = 16 << 20;
/// How many times what was seen a tmpfs has room for.
const HEADROOM: u64 = 4;
/// Most places; more are a sign that the whole root is written to.
const MAX_PLACES: usize = 32;
const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];
/// Where any program may put what does not fit into memory, and says so with no word before it does: the body of a large request
/// in PHP, Ruby, Python, Go and Node.js, a sort, a crash report. Learning under a light load does not meet these. An intruder gains
/// nothing that /dev/shm does not give: no program runs there, and all of it is gone with the generation.
pub const EVERYONES: &str = "/tmp";
/// Calls by which a process that began as root becomes someone else.
const CHANGES_USER: [&str; 3] = ["setuid", "setresuid", "setreuid"];

/// What is put on a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tmpfs, empty at each start.
    Memory {
        /// Permissions, where the image does not have the directory.
        mode: u32,
        /// User and group; `None`: root.
        owner: Option<(u32, u32)>,
    },
    /// A volume that the engine fills with what the image has there, and gives its owner and mode.
    Volume,
}

/// A directory that must be writable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Absolute, without `.`, `..`, `:`, `,` and control characters.
    pub path: String,
    /// What is put there.
    pub kind: Kind,
    /// Limit, with room for several times what was seen; of a volume, for what was written there.
    pub size_bytes: u64,
    /// Programs from there were executed.
    pub exec: bool,
}

/// The places that a profile needs, sorted by path. What can't be given one is added to `notes`.
///
/// `/tmp`, `/var/tmp` and `/run` are empty at each start on any system: they get a tmpfs. Everywhere else the image may have
/// files, and an owner that matters, neither of which a profile knows: such a directory becomes a volume.
pub fn places(profile: &Profile, notes: &mut Vec<String>) -> Vec<Place> {
    let sides = [&profile.workload_behaviour, &profile.exec_behaviour];
    let writes: BTreeMap<String, &Write<Support>> = sides
        .iter()
        .flat_map(|side| &side.writes)
        .filter(|(path, write)| write.succeeded && commanded::part(path).is_none())
        .map(|(path, write)| (plain(path), write))
        .collect();
    let mut holders = BTreeSet::new();
    let mut refused = BTreeMap::new();
    for (path, write) in &writes {
        let holder = holder(path, write);
        let why = if !path.starts_with('/') || path.split('/').any(|part| part == "." || part == "..") {
            "it is no plain path"
        } else if holder == "/" {
            "it is directly in the root"
        } else if is_protected(Path::new(holder)) {
            "a mount there would hide system files"
        } else if holder.contains([':', ',', '\\']) || holder.chars().any(char::is_control) {
            "no engine takes such a name for a mount"
        } else {
            holders.insert(holder.to_owned());
            continue;
        };
        refused.entry(why).or_insert_with(Vec::new).push(path.as_str());
    }
    for (why, paths) in refused {
        let more = if paths.len() > 3 { format!(" and {} more", paths.len() - 3) } else { String::new() };
        let shown: Vec<String> = paths.iter().take(3).map(|path| path.escape_debug().to_string()).collect();
        notes.push(format!("writes to {}{more} will be refused: {why}", shown.join(", ")));
    }

    let owner = owner(&profile.revision.user);
    let drops = sides.iter().any(|side| changes_user(side)) && owner.is_none();
    let mut places: Vec<Place> = Vec::new();
    // Sorted, so that a directory comes before what is below it.
    for path in holders {
        let below: Vec<_> = writes.iter().filter(|(at, _)| is_below(at, &path)).collect();
        let covered = places
            .iter()
            .any(|p| is_below(&path, &p.path) && (p.kind == Kind::Volume || is_made(&writes, &path, &p.path)));
        if covered {
            continue;
        }
        let shared = SHARED.contains(&path.as_str());
        let volatile = shared || path == "/run" || !drops && is_below(&path, "/run");
        // What was changed, and not made, was there before.
        let has_content = below.iter().any(|(at, w)| !w.operations.contains(&Operation::Create) && **at != path);
        let seen: u64 = below.iter().fold(0, |sum, (_, write)| sum.saturating_add(write.size_bytes));
        let size_bytes = seen.saturating_mul(HEADROOM).clamp(MIN_SIZE_BYTES, MAX_SIZE_BYTES).next_power_of_two();
        let kind = if volatile && !has_content {
            let (mode, owner) = if shared { (0o1777, None) } else { (0o755, owner) };
            Kind::Memory { mode, owner }
        } else {
            Kind::Volume
        };
        places.push(Place { kind, size_bytes, exec: below.iter().any(|(_, write)| write.executed), path });
    }
    if places.len() > MAX_PLACES {
        notes.push(format!("{} directories are written to; the first {MAX_PLACES} are given a place", places.len()));
        places.truncate(MAX_PLACES);
    }
    places
}

/// A path as containers have it: `/var/run` is a link to `/run` in every image that has one.
fn plain(path: &str) -> String {
    for (link, target) in [("/var/run", "/run"), ("/var/lock", "/run/lock")] {
        if let Some(rest) = path.strip_prefix(link).filter(|rest| rest.starts_with('/')) {
            return format!("{target}{rest}");
        }
    }
    path.to_owned()
}

/// The directory that must be writable for this. A part with `*` or `?` stands for many names.
fn holder<'p>(path: &'p str, write: &Write<Support>) -> &'p str {
    let fixed = match path.find(['*', '?']) {
        Some(star) => &path[..star],
        // A directory that was there, and was changed itself.
        None if write.directory && !write.operations.contains(&Operation::Create) => return path,
        None => path,
    };
    match fixed.rfind('/') {
        // One that it made directly in the root.
        Some(0) if write.directory && fixed == path && path.len() > 1 => path,
        None | Some(0) => "/",
        Some(end) => &fixed[..end],
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether the workload itself makes `path`, or a directory on the way to it from `from`.
fn is_made(writes: &BTreeMap<String, &Write<Support>>, path: &str, from: &str) -> bool {
    let made = |at: &Path| {
        at.to_str().and_then(|at| writes.get(at)).is_some_and(|w| w.operations.contains(&Operation::Create))
    };
    Path::new(path).ancestors().take_while(|at| *at != Path::new(from)).any(made)
}

fn changes_user(side: &Behaviour<Support>) -> bool {
    CHANGES_USER.iter().any(|name| side.syscalls.contains_key(*name))
}

/// The user and group of `uid:gid`; `None` for root, and for what is no such text.
pub fn owner(user: &str) -> Option<(u32, u32)> {
    let (uid, gid) = user.split_once(':')?;
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    (uid != 0).then_some((uid, gid))
}
