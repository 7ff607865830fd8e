//! Which system calls an exported filter allows, and what the others are told.
//!
//! Owns: the filter as plain data: names, arguments, and which error a refused call gets. Must not: know a format.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::super::behaviour::Behaviour;
use super::super::document::{Profile, Support};
use super::super::{layers, syscalls};

/// The first of the numbers that all architectures share, of Linux 5.1. Whoever calls one of these or a later one has a
/// way to do without it, and takes that on ENOSYS only (glibc's `clone3` is the known case).
const FIRST_WITH_A_FALLBACK: u32 = 424;
/// Past the last number that either interface uses; the tables have holes.
const END_OF_TABLE: u32 = 1024;
/// Every namespace that `clone` can make.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;
/// The same for `unshare`, which takes CLONE_NEWTIME as well: for `clone` that bit is part of the exit signal.
const UNSHARE_NAMESPACES: u64 = CLONE_NAMESPACES | 0x80;
/// The persona that asks for the present one.
const PERSONA_QUERY: u64 = 0xFFFF_FFFF;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compare {
    /// Equal to the value.
    Equal(u64),
    /// Equal to the value once masked.
    Masked {
        /// Bits that are looked at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

/// A call that is allowed when its first argument fits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conditional {
    /// Name.
    pub name: &'static str,
    /// The first argument.
    pub first: Compare,
}

/// What a filter decides. No name is in two of the sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The workload, or a session in it, made calls through the 32-bit interface.
    pub compat: bool,
    /// Allowed whatever the arguments.
    pub allowed: BTreeSet<String>,
    /// Allowed with these arguments; with others they fall to the default.
    pub conditional: BTreeSet<Conditional>,
    /// Known and refused: EPERM.
    pub refused: BTreeSet<String>,
    /// So new that callers have a fallback: ENOSYS, as for what nobody knows, which is the default.
    pub absent: BTreeSet<String>,
    /// `clone3` was called or tried, and is answered with ENOSYS so that `clone` is used, whose flags can be looked at.
    pub hides_clone3: bool,
}

/// The filter of a profile, for its workload and the sessions let into it. What a person should know is added to `notes`.
///
/// # Errors
/// When the runtime is not known.
pub fn filter(
    profile: &Profile,
    no_new_privileges: bool,
    runtime: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Filter> {
    let sides = [&profile.workload_behaviour, &profile.exec_behaviour];
    let mut names = BTreeSet::new();
    let (mut compat, mut nameless) = (false, BTreeSet::new());
    for learnt in sides.iter().flat_map(|side| side.syscalls.keys()) {
        let bare = learnt.strip_prefix("i386:").unwrap_or(learnt);
        compat |= bare.len() < learnt.len();
        if bare.starts_with('#') {
            nameless.insert(learnt.as_str());
        } else {
            names.insert(bare.to_owned());
        }
    }
    if !nameless.is_empty() {
        let all = nameless.into_iter().collect::<Vec<_>>().join(", ");
        notes.push(format!("system calls that have no name can't be exported, and will get ENOSYS: {all}"));
    }
    if compat {
        notes.push("32-bit calls were seen: a filter has one list of names, which holds for both interfaces".into());
    }
    for layer in [layers::always()?].iter().chain(&layers::runtimes(runtime)?) {
        names.extend(layer.names(no_new_privileges).map(str::to_owned));
    }

    let tried =
        |name: &str| sides.iter().any(|s| s.syscalls.contains_key(name) || s.denied_syscalls.contains_key(name));
    let mut conditional = BTreeSet::new();
    // clone3's flags are behind a pointer, where no filter looks; without it, programs use clone.
    let hides_clone3 = tried("clone3") && arguments(&sides, "clone3").is_empty();
    if hides_clone3 && names.remove("clone3") {
        names.insert("clone".into());
    }
    for (name, mask) in [("clone", CLONE_NAMESPACES), ("unshare", UNSHARE_NAMESPACES)] {
        if names.remove(name) {
            let learnt = arguments(&sides, name).into_iter().map(|flags| flags & mask);
            conditional
                .extend(learnt.chain([0]).map(|value| Conditional { name, first: Compare::Masked { mask, value } }));
        }
    }
    if names.remove("personality") {
        let learnt = arguments(&sides, "personality").into_iter().chain([PERSONA_QUERY]);
        conditional.extend(learnt.map(|value| Conditional { name: "personality", first: Compare::Equal(value) }));
    }
    // One that lets itself be traced is not one that traces others.
    if names.remove("ptrace") {
        let learnt = arguments(&sides, "ptrace").into_iter();
        conditional.extend(learnt.map(|value| Conditional { name: "ptrace", first: Compare::Equal(value) }));
    }
    let families = arguments(&sides, "socket");
    // Without arguments the profile does not know the families: then all are as allowed as they were.
    if !families.is_empty() && names.remove("socket") {
        let learnt = with_siblings(families).into_iter();
        conditional.extend(learnt.map(|value| Conditional { name: "socket", first: Compare::Equal(value) }));
    }

    let partly: BTreeSet<&str> = conditional.iter().map(|c| c.name).collect();
    let (mut refused, mut absent) = (BTreeSet::new(), BTreeSet::new());
    for (name, number) in known(compat) {
        if names.contains(&name) || partly.contains(name.as_str()) {
            continue;
        }
        let set = if number >= FIRST_WITH_A_FALLBACK { &mut absent } else { &mut refused };
        set.insert(name);
    }
    Ok(Filter { compat, allowed: names, conditional, refused, absent, hides_clone3 })
}

/// Every call that has a name, with the smaller of its numbers where the interfaces differ.
fn known(compat: bool) -> BTreeMap<String, u32> {
    let mut all = BTreeMap::new();
    for interface in [false, true].into_iter().filter(|i| compat || !i) {
        for number in 0..END_OF_TABLE {
            let name = syscalls::name(interface, number);
            let bare = name.strip_prefix("i386:").unwrap_or(&name);
            if !bare.starts_with('#') {
                let least = all.entry(bare.to_owned()).or_insert(number);
                *least = number.min(*least);
            }
        }
    }
    all
}

/// The first numbers of the arguments that were seen of a call.
fn arguments(sides: &[&Behaviour<Support>], name: &str) -> BTreeSet<u64> {
    let of = |side: &&Behaviour<Support>| -> Vec<u64> {
        let seen = [name.to_owned(), format!("i386:{name}")];
        let keys = seen.iter().filter_map(|n| side.arguments.get(n)).flat_map(|map| map.keys());
        keys.filter_map(|key| key.split(',').next()?.parse().ok()).collect()
    };
    sides.iter().flat_map(of).collect()
}

/// Families with those that come with them by no choice of the program: whether IPv4 or IPv6 is used is the host's to say,
/// and the resolver asks through netlink which of them there is.
fn with_siblings(mut families: BTreeSet<u64>) -> BTreeSet<u64> {
    if families.contains(&AF_INET) || families.contains(&AF_INET6) {
        families.extend([AF_INET, AF_INET6, AF_NETLINK]);
    }
    families
}
