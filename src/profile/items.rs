//! The items of a behaviour one by one, whatever their kind: for what counts, compares or shows them all.
//!
//! Owns: the sections' names and order. Must not: judge an item.

use std::collections::BTreeMap;

use super::behaviour::{Behaviour, Program, Write};

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
