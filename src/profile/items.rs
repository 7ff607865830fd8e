//! The items of a behaviour one by one, whatever their kind: for what counts, compares or shows them all.
//!
//! Owns: the sections' names and order. Must not: judge an item.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::behaviour::{Behaviour, Origin, Program, Write};
use super::check::is_argument;
use super::filter::argument;
use super::generalise::escape;
use super::syscalls;
use crate::guard::Refused;
use crate::policy::suggest::{nearest, quote};

/// A kind of item: a field of [`Behaviour`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// System calls.
    Syscalls,
    /// System calls that the engine's filter refused.
    DeniedSyscalls,
    /// Arguments, named `socket 2,1,0`.
    Arguments,
    /// Capabilities.
    Capabilities,
    /// Paths written.
    Writes,
    /// Programs.
    Programs,
    /// Addresses listened on.
    Listens,
    /// Addresses connected to.
    Connects,
}

impl Section {
    /// Every section, in the order in which they are shown.
    pub const ALL: [Section; 8] = [
        Section::Syscalls,
        Section::DeniedSyscalls,
        Section::Arguments,
        Section::Capabilities,
        Section::Writes,
        Section::Programs,
        Section::Listens,
        Section::Connects,
    ];

    /// As in the document: `denied-syscalls`.
    pub fn name(self) -> &'static str {
        match self {
            Section::Syscalls => "syscalls",
            Section::DeniedSyscalls => "denied-syscalls",
            Section::Arguments => "arguments",
            Section::Capabilities => "capabilities",
            Section::Writes => "writes",
            Section::Programs => "programs",
            Section::Listens => "listens",
            Section::Connects => "connects",
        }
    }

    /// One item of it, for a sentence or a key: `denied syscall`.
    pub fn singular(self) -> &'static str {
        match self {
            Section::Syscalls => "syscall",
            Section::DeniedSyscalls => "denied syscall",
            Section::Arguments => "argument",
            Section::Capabilities => "capability",
            Section::Writes => "write",
            Section::Programs => "program",
            Section::Listens => "listen",
            Section::Connects => "connect",
        }
    }
}

/// Kinds of which somebody can allow or deny one by hand: those that are refused one by one.
pub const DECIDED: [Section; 5] =
    [Section::Syscalls, Section::Arguments, Section::Capabilities, Section::Writes, Section::Programs];

/// An item as events, `forbidden` and decisions name it: `syscall symlink`.
pub fn item_name(section: Section, name: &str) -> String {
    format!("{} {name}", section.singular())
}

/// An item that somebody names to allow or deny it, in its one spelling: `syscall symlink`, `capability CAP_CHOWN`, `write
/// /var/cache/*`, `program /usr/bin/git`.
///
/// # Errors
/// When it is of no kind that can be decided about, or there is no such system call or capability, or a path is not
/// absolute and plain.
pub fn decided(text: &str) -> Result<String> {
    let known = || DECIDED.map(Section::singular).join(", ");
    let found = DECIDED.iter().find_map(|s| Some((*s, text.strip_prefix(s.singular())?.strip_prefix(' ')?)));
    let Some((section, name)) = found else {
        bail!("{} is no item; write its kind ({}) and its name, e.g. \"syscall symlink\"", quote(text), known());
    };
    ensure!(
        name.len() <= MAX_NAME && !name.chars().any(char::is_control),
        "{} is too long, or has control characters",
        quote(text)
    );
    match section {
        Section::Syscalls => Ok(item_name(section, &call(name)?)),
        Section::Capabilities => {
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            ensure!(
                syscalls::capability_number(&full).is_some(),
                "there is no capability {}{}",
                quote(name),
                meant(&full, syscalls::capability_names())
            );
            Ok(item_name(section, &full))
        }
        Section::Arguments => {
            let (name, value) = name.split_once(' ').unwrap_or((name, ""));
            let call = call(name)?;
            ensure!(
                is_argument(&call, value),
                "{} is no argument that is recorded; write e.g. \"argument socket 2,1,0\"",
                quote(text)
            );
            Ok(item_name(section, &format!("{call} {value}")))
        }
        Section::Writes | Section::Programs => {
            // A forbidden program is named with where it came from.
            let name =
                name.split_once(" from ").filter(|_| section == Section::Programs).map_or(name, |(path, _)| path);
            let plain = name.len() > 1
                && name
                    .strip_prefix('/')
                    .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")));
            ensure!(
                plain,
                "{} is not absolute and plain; write it without '.', '..', '//' or a slash at the end",
                quote(name)
            );
            Ok(item_name(section, name))
        }
        Section::DeniedSyscalls | Section::Listens | Section::Connects => {
            bail!("{} can't be allowed or denied; only {} can", quote(text), known())
        }
    }
}

fn call(name: &str) -> Result<String> {
    let names = syscalls::names(name.starts_with("i386:"));
    syscalls::canonical(name).with_context(|| format!("there is no system call {}{}", quote(name), meant(name, names)))
}

/// Ends a message with the name that is nearest to a misspelt one.
fn meant(word: &str, known: impl Iterator<Item = String>) -> String {
    let known: Vec<String> = known.collect();
    let nearest = nearest(word, known.iter().map(String::as_str));
    nearest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// An item that was seen, forbidden ones too, as somebody names it to decide about it: `denied syscall mount` as `syscall mount`.
/// One that nobody can name (a path with control characters, say) stays as it is.
pub fn as_decided(item: &str) -> String {
    let item = item.strip_prefix("denied ").unwrap_or(item);
    decided(item).unwrap_or_else(|_| item.to_owned())
}

/// What was refused, as somebody names it to allow or deny it; `None` for what nobody can name: a program without a path, a
/// path that is not known or has control characters.
pub fn of_refused(refused: &Refused) -> Option<String> {
    let item = match refused {
        Refused::Syscall { name, arguments, .. } => match argument(name, arguments) {
            Some(value) => item_name(Section::Arguments, &format!("{name} {value}")),
            None => item_name(Section::Syscalls, name),
        },
        Refused::Write { path, .. } => item_name(Section::Writes, &escape(path)),
        Refused::Capability { name } => item_name(Section::Capabilities, name),
        Refused::Program { origin, .. } if origin == Origin::Anonymous.name() => return None,
        Refused::Program { path, .. } => item_name(Section::Programs, &escape(path)),
    };
    decided(&item).ok()
}

/// Longest name that a decision is about, in bytes.
const MAX_NAME: usize = 4096;

impl<E> Behaviour<E> {
    /// Every item with its evidence, by section and then by name.
    pub fn items(&self) -> impl Iterator<Item = (Section, String, &E)> {
        Section::ALL
            .into_iter()
            .flat_map(|section| self.section(section).into_iter().map(move |(n, e)| (section, n, e)))
    }

    /// The items of one section with their evidence, by name.
    pub fn section(&self, section: Section) -> Vec<(String, &E)> {
        fn named<V>(map: &BTreeMap<String, V>) -> Vec<(String, &V)> {
            map.iter().map(|(name, value)| (name.clone(), value)).collect()
        }
        match section {
            Section::Syscalls => named(&self.syscalls),
            Section::DeniedSyscalls => named(&self.denied_syscalls),
            Section::Arguments => self
                .arguments
                .iter()
                .flat_map(|(call, values)| values.iter().map(move |(value, e)| (format!("{call} {value}"), e)))
                .collect(),
            Section::Capabilities => named(&self.capabilities),
            Section::Writes => named(&self.writes).into_iter().map(|(name, w)| (name, &w.seen)).collect(),
            Section::Programs => named(&self.programs).into_iter().map(|(name, p)| (name, &p.seen)).collect(),
            Section::Listens => named(&self.listens),
            Section::Connects => named(&self.connects),
        }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items().count()
    }

    /// Nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.items().next().is_none()
    }

    /// The same items with other evidence.
    pub fn map<F>(&self, with: impl Fn(&E) -> F) -> Behaviour<F> {
        let plain = |map: &BTreeMap<String, E>| map.iter().map(|(name, e)| (name.clone(), with(e))).collect();
        Behaviour {
            syscalls: plain(&self.syscalls),
            denied_syscalls: plain(&self.denied_syscalls),
            arguments: self.arguments.iter().map(|(call, values)| (call.clone(), plain(values))).collect(),
            capabilities: plain(&self.capabilities),
            writes: self.writes.iter().map(|(path, write)| (path.clone(), write.map(&with))).collect(),
            programs: self.programs.iter().map(|(path, program)| (path.clone(), program.map(&with))).collect(),
            listens: plain(&self.listens),
            connects: plain(&self.connects),
        }
    }
}

impl<E> Write<E> {
    fn map<F>(&self, with: impl Fn(&E) -> F) -> Write<F> {
        Write {
            seen: with(&self.seen),
            operations: self.operations.clone(),
            size_bytes: self.size_bytes,
            directory: self.directory,
            executed: self.executed,
            by: self.by.clone(),
            refused: self.refused.clone(),
            succeeded: self.succeeded,
        }
    }
}

impl<E> Program<E> {
    fn map<F>(&self, with: impl Fn(&E) -> F) -> Program<F> {
        Program { seen: with(&self.seen), origins: self.origins.clone(), privileged: self.privileged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_named_as_it_is_allowed_and_what_nobody_can_name_is_not() {
        let call = |name: &str, arguments: &[u64]| {
            of_refused(&Refused::Syscall { name: name.to_owned(), arguments: arguments.to_vec(), path: None })
        };
        let program = |path: &str, origin: &str| {
            of_refused(&Refused::Program { path: path.to_owned(), origin: origin.to_owned(), killed: true })
        };
        let write = |path: &str| {
            of_refused(&Refused::Write { path: path.to_owned(), operation: "write".to_owned(), of_nothing: false })
        };
        let some = |item: &str| Some(item.to_owned());
        assert_eq!(call("mount", &[1, 2, 3, 4, 5, 6]), some("syscall mount"));
        assert_eq!(call("i386:getpid", &[]), some("syscall i386:getpid"));
        // AF_PACKET, SOCK_RAW | SOCK_CLOEXEC.
        assert_eq!(call("socket", &[17, 0x8_0003, 768, 0, 0, 0]), some("argument socket 17,3,768"));
        assert_eq!(call("unshare", &[0x1000_0200, 0, 0, 0, 0, 0]), some("argument unshare 268435456"));
        assert_eq!(call("unshare", &[0x200, 0, 0, 0, 0, 0]), some("syscall unshare"));
        assert_eq!(call("ioctl", &[0, 0x5412, 0, 0, 0, 0]), some("argument ioctl 21522"));
        assert_eq!(call("ioctl", &[0, 0x5401, 0, 0, 0, 0]), some("syscall ioctl"));
        assert_eq!(write("/etc/a*b"), some("write /etc/a\\052b"));
        assert_eq!(program("/tmp/x", "tmpfs"), some("program /tmp/x"));
        assert_eq!((program("/memfd:x", "anonymous"), write("(unknown)"), write("/a\nb")), (None, None, None));
    }
}
