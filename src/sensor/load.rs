//! Loading the programs and pinning them. Only `lithifyctl` uses this: libbpf and libelf must not be in the way of a
//! container's start.
//!
//! All is pinned into a folder beside the real one, which a rename makes real: at any moment there is a whole sensor or none.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail, ensure};
use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder, PrintLevel};
use nix::mount::{MsFlags, mount};

use super::pins::{self, MAPS, Pins};
use super::place::{BPFFS, Pinned, Place, Set};
use super::{UNSEEN, owners};

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Ways to see capability checks, best first: the program of each.
const CAPABILITY_WAYS: [&str; 2] = ["capable_traced", "capable_followed"];
/// Functions in which the kernel guesses about memory; see `settings` in `bpf/guesses.h`.
const GUESSES: [&str; 2] = ["security_vm_enough_memory_mm", "cap_vm_enough_memory"];
/// What libbpf has said, newest last; bounded.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The programs, as they were compiled.
fn object(set: Set) -> &'static [u8] {
    match set {
        Set::Sensor => include_bytes!("bpf/sensor.o"),
        Set::Guard => include_bytes!("bpf/guard.o"),
    }
}

/// Loads the programs if they are not loaded.
///
/// # Errors
/// When the kernel lacks BTF, bpffs can't be mounted, the kernel refuses the programs, or another version's sensor is in use.
pub fn load(place: &Place) -> Result<()> {
    let held = place.hold()?;
    mount_bpffs()?;
    pins::clear(&place.loading()).context("failed to remove what a broken load has left")?;
    match place.pinned().with_context(|| format!("failed to look at the {}'s pins", place.set.name()))? {
        Pinned::Ours => return Ok(()),
        Pinned::Another => replace(place)?,
        Pinned::Nothing => {}
    }
    let done = load_and_pin(place);
    if done.is_err() {
        // The first error is the one to tell; the next load clears it again.
        let _ = pins::clear(&place.loading());
    }
    drop(held);
    done
}

/// Unloads the programs, unless they are in use. True if they were loaded.
///
/// # Errors
/// When a living process has armed a container.
pub fn unload(place: &Place, force: bool) -> Result<bool> {
    let users = match place.pinned()? {
        Pinned::Nothing => Vec::new(),
        Pinned::Ours => owners::holders(place)?.unwrap_or_default(),
        Pinned::Another => Vec::new(),
    };
    let _held = place.hold()?;
    pins::clear(&place.loading()).context("failed to remove what a broken load has left")?;
    match place.pinned()? {
        Pinned::Nothing => return Ok(false),
        Pinned::Another if !force => replace(place)?,
        Pinned::Ours | Pinned::Another => {
            let now = if force { 0 } else { Pins::open(place)?.slots_in_use()?.len() };
            ensure!(
                now == 0,
                "failed to unload the {}: {now} containers use it, the first by process {}; let them end, or use --force, \
                 which loses what they learn or are refused",
                place.set.name(),
                users.first().map_or(0, |u| u.pid)
            );
            pins::unload(place)?;
        }
    }
    Ok(true)
}

/// Removes another version's programs, if nobody uses them.
fn replace(place: &Place) -> Result<()> {
    if let Some(pid) = owners::any_alive(place)? {
        bail!(
            "failed to load the {}: another version's is in use by process {pid}; let its containers end, or run \
             'lithifyctl sensor unload --force', which loses what they learn or are refused",
            place.set.name()
        );
    }
    pins::unload(place)
}

fn mount_bpffs() -> Result<()> {
    const MAGIC: i64 = 0xcafe_4a11;
    let stat = nix::sys::statfs::statfs(BPFFS);
    if stat.is_ok_and(|s| s.filesystem_type().0 == MAGIC) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=700")).with_context(|| {
        format!("failed to mount bpffs on {BPFFS}: mount it, or use a kernel with CONFIG_BPF_SYSCALL=y")
    })
}

/// The programs, loaded and attached; they run until it is dropped, unless its links are pinned.
struct Attached {
    object: Object,
    links: Vec<(String, Link)>,
    unseen: Vec<&'static str>,
}

/// What a set of programs would not see on this kernel, found by loading it for a moment.
///
/// # Errors
/// When it can't be loaded at all.
pub fn try_out(set: Set) -> Result<Vec<&'static str>> {
    Ok(attach(set)?.unseen)
}

/// The best of the ways that this kernel takes.
fn attach(set: Set) -> Result<Attached> {
    ensure!(
        Path::new(BTF).exists(),
        "failed to load the {}: this kernel has no BTF ({BTF}); use one built with CONFIG_DEBUG_INFO_BTF=y, or import a \
         profile that was learnt elsewhere",
        set.name()
    );
    let guesses = addresses();
    for way in CAPABILITY_WAYS {
        // A way that this kernel does not have is no failure: the next one may do.
        if let Ok(attached) = attach_with(set, Some(way), guesses)
            && is_called(&attached.object)?
        {
            return Ok(attached);
        }
    }
    attach_with(set, None, guesses)
}

fn attach_with(set: Set, way: Option<&str>, guesses: [(u64, u64); 2]) -> Result<Attached> {
    let object = open(set, way, guesses)?;
    let mut links = Vec::new();
    for program in object.progs_mut() {
        let name = program.name().to_string_lossy().into_owned();
        if CAPABILITY_WAYS.contains(&name.as_str()) && way != Some(&name) {
            continue;
        }
        let link = program.attach().with_context(|| format!("failed to attach the {}'s program {name}", set.name()))?;
        links.push((name, link));
    }
    let unseen = if way.is_none() { vec!["capabilities"] } else { Vec::new() };
    Ok(Attached { object, links, unseen })
}

fn load_and_pin(place: &Place) -> Result<()> {
    let Attached { mut object, links, unseen } = attach(place.set)?;
    let loading = place.loading();
    std::fs::create_dir(&loading).with_context(|| format!("failed to make {}", loading.display()))?;
    for mut map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if MAPS.contains(&name.as_str()) {
            map.pin(loading.join(&name)).with_context(|| format!("failed to pin {name}"))?;
        }
    }
    let marks = unseen.iter().map(|what| format!("{UNSEEN}{what}")).chain([Place::digest_mark(place.set.digest())]);
    for mark in marks {
        std::fs::create_dir(loading.join(&mark)).with_context(|| format!("failed to make {mark}"))?;
    }
    for (name, mut link) in links {
        link.pin(loading.join(format!("link-{name}"))).with_context(|| format!("failed to pin {name}"))?;
    }
    std::fs::rename(&loading, &place.pins)
        .with_context(|| format!("failed to pin the {} in {}", place.set.name(), place.pins.display()))
}

fn open(set: Set, way: Option<&str>, guesses: [(u64, u64); 2]) -> Result<Object> {
    SAID.lock().map_err(|_| anyhow!("a thread has panicked"))?.clear();
    libbpf_rs::set_print(Some((PrintLevel::Warn, |_, line| {
        if let Ok(mut said) = SAID.lock()
            && said.len() < 100
        {
            said.push(line);
        }
    })));
    let open = ObjectBuilder::default().open_memory(object(set));
    let mut open = open.with_context(|| format!("failed to read the {}'s programs", set.name()))?;
    for mut program in open.progs_mut() {
        let name = program.name().to_string_lossy().into_owned();
        program.set_autoload(!CAPABILITY_WAYS.contains(&name.as_str()) || way == Some(&name));
    }
    for mut map in open.maps_mut() {
        if map.name().as_encoded_bytes().ends_with(b".settings")
            && let Some(settings) = map.initial_value_mut()
        {
            let words = [guesses[0].0, guesses[1].0, guesses[0].1, guesses[1].1];
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
            let n = settings.len().min(bytes.len());
            settings[..n].copy_from_slice(&bytes[..n]);
        }
    }
    open.load().map_err(|e| {
        let said = SAID.lock().map(|s| s.join("")).unwrap_or_default();
        let said: Vec<&str> = said.lines().filter(|l| !l.trim().is_empty()).collect();
        let said = said.iter().rev().take(4).rev().map(|l| l.trim()).collect::<Vec<_>>().join("; ");
        anyhow!(e).context(format!("failed to load the {}: the kernel refuses its programs ({said})", set.name()))
    })
}

/// Has a capability of ours checked, and looks whether the program was called.
fn is_called(object: &Object) -> Result<bool> {
    // A chroot to where we are asks for CAP_SYS_CHROOT and changes nothing. Refused is asked as well.
    let _ = nix::unistd::chroot("/");
    let bss = object.maps().find(|m| m.name().as_encoded_bytes().ends_with(b".bss"));
    let value = bss.context("failed to find the canary among the programs")?;
    let value = value.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).context("failed to read the canary")?;
    Ok(value.is_some_and(|v| v.iter().any(|b| *b != 0)))
}

/// Where the kernel's guesses about memory begin and end, from `/proc/kallsyms`; zeros where it does not tell. The kernel's
/// own symbols come first and by address, so a function ends where the next one begins.
fn addresses() -> [(u64, u64); 2] {
    let mut found = [(0, 0); 2];
    let Ok(file) = std::fs::File::open("/proc/kallsyms") else { return found };
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        let mut fields = line.split_ascii_whitespace();
        let Some(at) = fields.next().and_then(|f| u64::from_str_radix(f, 16).ok()) else { continue };
        for (from, to) in &mut found {
            if *from != 0 && *to == 0 && at > *from {
                *to = at;
            }
        }
        if let Some(i) = GUESSES.iter().position(|g| fields.nth(1) == Some(*g)) {
            found[i].0 = at;
        }
        if found.iter().all(|(_, to)| *to != 0) {
            break;
        }
    }
    found
}
