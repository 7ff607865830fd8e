//! What system calls and capabilities are called, and back: numbers are the kernel's, names are what documents keep.
//!
//! Owns: the one spelling that a document uses. Must not: decide what any of them may do.

use std::str::FromStr;

use caps::Capability;
use syscalls::{x86, x86_64};

/// Prefix of a call that came through the 32-bit interface.
const COMPAT: &str = "i386:";
/// Past the last number that either interface uses; the tables have holes.
pub(super) const END_OF_TABLE: u32 = 1024;

/// A system call's name: `openat`; `i386:open` through the 32-bit interface; `#463`, `i386:#900` where this version knows
/// no name for the number (a kernel that is newer than the table, or a workload that tries numbers).
pub fn name(compat: bool, number: u32) -> String {
    let known = if compat {
        x86::Sysno::new(number as usize).map(|call| call.name())
    } else {
        x86_64::Sysno::new(number as usize).map(|call| call.name())
    };
    let prefix = if compat { COMPAT } else { "" };
    match known {
        // i386's `break` is a word of Rust's, and the table spells it so.
        Some(known) => format!("{prefix}{}", known.trim_start_matches("r#")),
        None => format!("{prefix}#{number}"),
    }
}

/// In a number, beside x86-64's own: by the x32 interface (`__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;

/// What events call a call that nobody has learnt: as [`name`], and `x32:mount` through that interface, of which documents keep
/// the bare number.
pub fn called(compat: bool, number: u32) -> String {
    match compat || number & X32 == 0 {
        true => name(compat, number),
        false => format!("x32:{}", name(false, number & !X32)),
    }
}

/// The inverse of [`name`]: whether it is of the 32-bit interface, and its number there. A number that has a name is
/// understood, too: an older version may not have known it. `None`: there is no such call.
pub fn parse(text: &str) -> Option<(bool, u32)> {
    let (compat, word) = match text.strip_prefix(COMPAT) {
        Some(word) => (true, word),
        None => (false, text),
    };
    if let Some(digits) = word.strip_prefix('#') {
        return Some((compat, decimal(digits)?));
    }
    let word = match (compat, word) {
        (true, "break") => "r#break",
        (_, word) if word.starts_with("r#") => return None,
        (_, word) => word,
    };
    let id = if compat { x86::Sysno::from_str(word).ok()?.id() } else { x86_64::Sysno::from_str(word).ok()?.id() };
    Some((compat, u32::try_from(id).ok()?))
}

/// Every name that this version knows of an interface.
pub fn names(compat: bool) -> impl Iterator<Item = String> {
    (0..END_OF_TABLE).map(move |number| name(compat, number)).filter(|name| !name.contains('#'))
}

/// Every capability that this version has a name for.
pub fn capability_names() -> impl Iterator<Item = String> {
    (0..64).map(capability_name).filter(|name| !name.starts_with('#'))
}

/// The spelling that this version uses for a call that another may have spelt by number. `None`: there is no such call.
pub fn canonical(text: &str) -> Option<String> {
    parse(text).map(|(compat, number)| name(compat, number))
}

/// A capability's name, `CAP_CHOWN`, or `#63` where this version knows none.
pub fn capability_name(number: u32) -> String {
    let known = caps::all().into_iter().find(|c| u32::from(c.index()) == number);
    known.map_or_else(|| format!("#{number}"), |c| c.to_string())
}

/// The inverse of [`capability_name`]. `None`: there is no such capability; the kernel has room for 64.
pub fn capability_number(text: &str) -> Option<u32> {
    if let Some(digits) = text.strip_prefix('#') {
        return decimal(digits).filter(|number| *number < 64);
    }
    Capability::from_str(text).ok().map(|c| u32::from(c.index()))
}

/// A number in its one spelling: no sign, no leading zeros.
fn decimal(digits: &str) -> Option<u32> {
    let number: u32 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_kernels_own_tables() {
        assert_eq!(name(false, libc::SYS_openat as u32), "openat");
        assert_eq!(name(false, libc::SYS_clone3 as u32), "clone3");
        assert_eq!(name(true, 5), "i386:open");
        assert_eq!(name(true, 102), "i386:socketcall");
        assert_eq!(name(true, 17), "i386:break");
        assert_eq!((name(false, 462), name(false, 463)), ("mseal".to_string(), "setxattrat".to_string()));
        assert_eq!((name(false, 400), name(true, 9999)), ("#400".to_string(), "i386:#9999".to_string()));
        // The x32 interface's bit makes another number.
        assert_eq!(name(false, 0x4000_0000), "#1073741824");
    }

    #[test]
    fn an_event_calls_a_call_of_the_x32_interface_by_its_name() {
        assert_eq!((called(false, 0x4000_00a5), called(false, 165)), ("x32:mount".to_string(), "mount".to_string()));
        assert_eq!((called(false, 0x4000_0207), called(true, 21)), ("x32:#519".to_string(), "i386:mount".to_string()));
    }

    #[test]
    fn every_number_of_both_interfaces_reads_back() {
        for compat in [false, true] {
            for number in (0..2000).chain([u32::MAX]) {
                assert_eq!(parse(&name(compat, number)), Some((compat, number)));
            }
        }
        for number in 0..64 {
            assert_eq!(capability_number(&capability_name(number)), Some(number));
        }
    }

    #[test]
    fn a_number_that_has_got_a_name_is_understood_and_renamed() {
        assert_eq!(canonical("#1").as_deref(), Some("write"));
        assert_eq!(canonical("i386:#5").as_deref(), Some("i386:open"));
        assert_eq!(canonical("#100000").as_deref(), Some("#100000"));
    }

    #[test]
    fn what_is_no_call_and_no_capability_is_not_taken_for_one() {
        for text in [
            "",
            "Open",
            "openat ",
            "#",
            "#-1",
            "#+1",
            "#01",
            "#4294967296",
            "i386:",
            "i386:i386:open",
            "x32:open",
            "i386:r#break",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in ["", "CHOWN", "cap_chown", "#64", "#00", "CAP_EVERYTHING"] {
            assert_eq!(capability_number(text), None, "{text}");
        }
        // Not of this interface: the 32-bit one alone has it.
        assert_eq!((parse("socketcall"), parse("i386:socketcall")), (None, Some((true, 102))));
    }

    proptest! {
        #[test]
        fn what_is_understood_has_one_canonical_spelling(text in "(i386:)?(#[0-9]{1,5}|[a-z0-9_]{1,12})") {
            if let Some(spelt) = canonical(&text) {
                prop_assert_eq!(canonical(&spelt), Some(spelt.clone()));
                prop_assert_eq!(parse(&spelt), parse(&text));
            }
        }
    }
}
