//! A verb's flags and words, told apart by the table.

use std::ffi::{OsStr, OsString};

use super::flags::{self, Flag, Scan};

/// Most descriptors that `--preserve-fds` may name: what a process can have open by default (`fs.nr_open`).
const MAX_PRESERVED: u32 = 1 << 20;

/// A verb's flags and words, told apart.
pub(super) struct Parsed<'a> {
    pub flags: Vec<(&'a [u8], Option<&'a OsStr>, &'a [OsString])>,
    pub words: Vec<&'a OsString>,
}

impl<'a> Parsed<'a> {
    pub fn read(verb: &str, rest: &'a [OsString]) -> Parsed<'a> {
        let mut parsed = Parsed { flags: Vec::new(), words: Vec::new() };
        let mut at = 0;
        while at < rest.len() {
            if rest[at] == "--" {
                parsed.words.extend(&rest[at + 1..]);
                break;
            }
            let Some(flag) = Flag::read(&rest[at]) else {
                parsed.words.push(&rest[at]);
                at += 1;
                if verb == "exec" {
                    // The program's own flags follow; runc stops here too.
                    parsed.words.extend(&rest[at..]);
                    break;
                }
                continue;
            };
            let (value, used) = flag.value(flags::of_verb(verb, flag.name), rest.get(at + 1).map(OsString::as_os_str));
            parsed.flags.push((flag.name, value, &rest[at..(at + used).min(rest.len())]));
            at += used;
        }
        parsed
    }

    pub fn id(&self) -> OsString {
        self.words.first().map(|w| (*w).clone()).unwrap_or_default()
    }

    pub fn last(&self, names: &[&str]) -> Option<&'a OsStr> {
        self.flags.iter().rev().find(|(n, ..)| names.iter().any(|name| name.as_bytes() == *n)).and_then(|f| f.1)
    }

    pub fn all(&self, names: &[&str]) -> Vec<OsString> {
        let named = self.flags.iter().filter(|(n, ..)| names.iter().any(|name| name.as_bytes() == *n));
        named.filter_map(|f| f.1.map(OsStr::to_owned)).collect()
    }

    pub fn is_set(&self, names: &[&str]) -> bool {
        let flag = self.flags.iter().rev().find(|(n, ..)| names.iter().any(|name| name.as_bytes() == *n));
        flag.is_some_and(|f| flags::truth(f.1))
    }

    pub fn others(&self, known: &[&str]) -> Vec<OsString> {
        let others = self.flags.iter().filter(|(n, ..)| !known.iter().any(|name| name.as_bytes() == *n));
        others.flat_map(|f| f.2.iter().cloned()).collect()
    }

    /// A count; what is not plainly one is left to the low-level runtime, and doubted.
    pub fn number(&self, names: &[&str], doubt: &mut Option<String>) -> u32 {
        let Some(text) = self.last(names) else { return 0 };
        match text.to_str().and_then(|t| t.parse().ok()).filter(|n| *n <= MAX_PRESERVED) {
            Some(number) => number,
            None => {
                *doubt = Some(format!("--{} {} is no number up to {MAX_PRESERVED}", names[0], text.to_string_lossy()));
                0
            }
        }
    }

    /// The first flag that is not in the table (it may be another one cut short, or have its value attached), or that lacks
    /// its value.
    pub fn unclear(&self, verb: &str) -> Option<String> {
        self.flags.iter().find_map(|(name, value, words)| match (flags::of_verb(verb, name), value) {
            (Scan::Unknown, _) => Some(format!("unknown flag {}", words[0].to_string_lossy())),
            (Scan::Value, None) => Some(format!("flag {} needs a value", words[0].to_string_lossy())),
            (Scan::Value | Scan::Switch, _) => None,
        })
    }
}
