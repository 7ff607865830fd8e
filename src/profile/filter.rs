//! Which system calls a profile allows, and what the others are told.
//!
//! Owns: the filter as plain data: names, arguments, and which error a refused call gets. Must not: know a format, or what
//! an engine allows.

use std::collections::{BTreeMap, BTreeSet};

use super::behaviour::Behaviour;
use super::document::{Profile, Support};
use super::{families, syscalls};

/// The first of the numbers that all architectures share, of Linux 5.1. Whoever calls one of these or a later one has a
/// way to do without it, and takes that on ENOSYS only (glibc's `clone3` is the known case).
const FIRST_WITH_A_FALLBACK: u32 = 424;
/// Every namespace that `clone` can make.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;
/// The same for `unshare`, which takes CLONE_NEWTIME as well: for `clone` that bit is part of the exit signal.
const UNSHARE_NAMESPACES: u64 = CLONE_NAMESPACES | 0x80;
/// The persona that asks for the present one.
const PERSONA_QUERY: u64 = 0xFFFF_FFFF;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;
/// The rest of a socket's kind are flags (`SOCK_TYPE_MASK` of linux/net.h).
const SOCKET_KIND: u64 = 0xF;
/// TIOCSTI and TIOCLINUX type into a terminal that another program reads.
const TYPES_INTO_TERMINALS: [u64; 2] = [0x5412, 0x541C];
/// Calls that give a file its mode, and which argument that is.
const GIVES_MODES: [(&str, usize); 3] = [("chmod", 1), ("fchmod", 1), ("fchmodat", 2)];
/// The bits of a mode by which a file can be executed, or is executed as its owner's: what an intruder drops needs one. Copies,
/// recoveries and temporary files, which learning may not have met, do without.
const MAKES_PROGRAMS: u64 = 0o7111;
/// The kernel takes `ioctl`'s command, an `unsigned int`, from the lower half of a register, whatever the upper one holds.
const LOW_HALF: u64 = 0xFFFF_FFFF;

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

impl Compare {
    /// Whether a value fits.
    pub fn fits(self, number: u64) -> bool {
        match self {
            Compare::Equal(value) => number == value,
            Compare::Masked { mask, value } => number & mask == value,
        }
    }
}

/// A call that is allowed when an argument fits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conditional {
    /// Name.
    pub name: &'static str,
    /// Which argument, from 0.
    pub argument: usize,
    /// What it must be.
    pub is: Compare,
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

/// The filter of a profile, for its workload and the sessions let into it: what was learnt, widened by the families, and
/// `needed`, which the layers ask for. What a person should know is added to `notes`.
pub fn filter<'n>(profile: &Profile, needed: impl Iterator<Item = &'n str>, notes: &mut Vec<String>) -> Filter {
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
        notes.push(format!("system calls that have no name can't be in a filter, and will get ENOSYS: {all}"));
    }
    if compat {
        notes.push("32-bit calls were seen: a filter has one list of names, which holds for both interfaces".into());
    }
    families::widen(&mut names, compat);
    let denied = profile.denied_calls();
    names.retain(|name| !denied.contains(name.as_str()));
    for name in needed {
        if denied.contains(name) {
            notes.push(format!("{name} can't be denied: every process or the low-level runtime needs it"));
        }
        names.insert(name.to_owned());
    }

    let tried =
        |name: &str| sides.iter().any(|s| s.syscalls.contains_key(name) || s.denied_syscalls.contains_key(name));
    let mut conditional = BTreeSet::new();
    // clone3's flags are behind a pointer, where no filter looks; without it, programs use clone.
    let hides_clone3 = tried("clone3") && arguments(&sides, "clone3").is_empty();
    if hides_clone3 && names.remove("clone3") && !denied.contains("clone") {
        names.insert("clone".into());
    }
    for (name, mask) in [("clone", CLONE_NAMESPACES), ("unshare", UNSHARE_NAMESPACES)] {
        if names.remove(name) {
            let learnt = arguments(&sides, name).into_iter().map(|flags| flags & mask);
            let is = learnt.chain([0]).map(|value| Compare::Masked { mask, value });
            conditional.extend(is.map(|is| Conditional { name, argument: 0, is }));
        }
    }
    if names.remove("personality") {
        let learnt = arguments(&sides, "personality").into_iter().chain([PERSONA_QUERY]);
        conditional.extend(learnt.map(|value| equal("personality", value)));
    }
    // One that lets itself be traced is not one that traces others.
    if names.remove("ptrace") {
        let learnt = arguments(&sides, "ptrace").into_iter();
        conditional.extend(learnt.map(|value| equal("ptrace", value)));
    }
    let families = arguments(&sides, "socket");
    // Without arguments the profile does not know the families: then all are as allowed as they were.
    if !families.is_empty() && names.remove("socket") {
        let denied: BTreeSet<u64> = profile.denied_families().difference(&families).copied().collect();
        let learnt = with_siblings(families).into_iter().filter(|family| !denied.contains(family));
        conditional.extend(learnt.map(|value| equal("socket", value)));
    }
    let learnt = arguments(&sides, "ioctl");
    let typing: Vec<u64> = TYPES_INTO_TERMINALS.into_iter().filter(|command| !learnt.contains(command)).collect();
    if !typing.is_empty() && names.remove("ioctl") {
        let others = all_but(&typing, LOW_HALF).into_iter();
        conditional.extend(others.map(|is| Conditional { name: "ioctl", argument: 1, is }));
    }
    for (name, argument) in GIVES_MODES {
        if !names.contains(name) && !denied.contains(name) {
            let is = Compare::Masked { mask: MAKES_PROGRAMS, value: 0 };
            conditional.insert(Conditional { name, argument, is });
        }
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
    Filter { compat, allowed: names, conditional, refused, absent, hides_clone3 }
}

/// Whether what was recorded of a call does not say whether its arguments fit: a mode is not recorded.
pub(super) fn is_by_mode(name: &str) -> bool {
    GIVES_MODES.iter().any(|(call, _)| *call == name)
}

/// Of a refused call, the argument that a filter looks at, as documents have it; `None` where the call itself is what is to be
/// allowed.
pub(super) fn argument(name: &str, arguments: &[u64]) -> Option<String> {
    let first = *arguments.first()?;
    match name.strip_prefix("i386:").unwrap_or(name) {
        "socket" => {
            let [family, kind, protocol, ..] = arguments else { return None };
            Some(format!("{family},{},{protocol}", kind & SOCKET_KIND))
        }
        "clone" => Some(first & CLONE_NAMESPACES).filter(|flags| *flags != 0).map(|flags| flags.to_string()),
        "unshare" => Some(first & UNSHARE_NAMESPACES).filter(|flags| *flags != 0).map(|flags| flags.to_string()),
        "personality" | "ptrace" => Some(first.to_string()),
        "ioctl" => {
            let command = arguments.get(1)? & LOW_HALF;
            TYPES_INTO_TERMINALS.contains(&command).then(|| command.to_string())
        }
        _ => None,
    }
}

fn equal(name: &'static str, value: u64) -> Conditional {
    Conditional { name, argument: 0, is: Compare::Equal(value) }
}

/// What fits every number but these, where only the bits of `mask`, the lowest ones, count; no two fit the same number. A
/// rule can't say "neither this nor that": runtimes take two conditions on one argument as either.
fn all_but(values: &[u64], mask: u64) -> Vec<Compare> {
    let mut fits = Vec::new();
    let mut bit = (mask >> 1) + 1;
    // Of numbers that begin as one of the values does, those that go on otherwise.
    while bit != 0 {
        let looked_at = mask & !(bit - 1);
        let others: BTreeSet<u64> = values.iter().map(|value| (value ^ bit) & looked_at).collect();
        let begun: BTreeSet<u64> = values.iter().map(|value| value & looked_at).collect();
        fits.extend(others.difference(&begun).map(|&value| Compare::Masked { mask: looked_at, value }));
        bit >>= 1;
    }
    fits
}

/// Every call that has a name, with the smaller of its numbers where the interfaces differ.
fn known(compat: bool) -> BTreeMap<String, u32> {
    let mut all = BTreeMap::new();
    for interface in [false, true].into_iter().filter(|i| compat || !i) {
        for number in 0..syscalls::END_OF_TABLE {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_but_some_numbers_is_every_other_one_exactly_once(
            values in proptest::collection::vec(0u64..64, 1..4), number in 0u64..64, upper in any::<u32>(),
        ) {
            let number = number | u64::from(upper) << 32;
            let fit = all_but(&values, LOW_HALF).into_iter().filter(|is| is.fits(number));
            prop_assert_eq!(fit.count(), usize::from(!values.contains(&(number & LOW_HALF))));
        }
    }
}
