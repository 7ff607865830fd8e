//! What a profile comes to with what people decided about it.
//!
//! Owns: how an item that is allowed, denied, or waits for a decision changes what was learnt. Pure. Must not: change a stored profile.

use std::collections::{BTreeMap, BTreeSet};

use super::behaviour::{Operation, Origin, Program, Write};
use super::document::{Profile, Support};
use super::syscalls;

impl Profile {
    /// This profile with what was allowed by hand added to the workload, and what was denied taken out of both sides. An item
    /// that has no meaning here is added to `notes`.
    pub fn steered(&self, notes: &mut Vec<String>) -> Profile {
        let mut profile = self.clone();
        for (item, decision) in &self.steering.allowed {
            let seen = Support { generations: BTreeMap::new(), first: decision.at.clone(), last: decision.at.clone() };
            if !self.steering.denied.contains_key(item) && !profile.allow(item, seen) {
                notes.push(format!("what was allowed as {item:?} is nothing that can be allowed"));
            }
        }
        // Nobody has looked at these: they hold back the stage, and where somebody enforces all the same, they are refused.
        let is_refused = |item: &&String| {
            let kind = item.split_once(' ').map_or("", |(kind, _)| kind);
            matches!(kind, "program" | "syscall" | "argument" | "capability") && !self.serves_others(item)
        };
        for item in self.steering.waiting.keys().filter(is_refused) {
            profile.deny(item);
            notes.push(format!("{item:?} was seen while observing, and nobody has looked at it: it is refused"));
        }
        for item in self.steering.denied.keys() {
            if !profile.deny(item) {
                notes.push(format!("what was denied as {item:?} is nothing that can be denied"));
            }
        }
        profile
    }

    /// Whether a call that waits was learnt for other addresses as well: a filter tells none from another.
    fn serves_others(&self, item: &str) -> bool {
        let addresses = match item {
            "syscall connect" => &self.workload_behaviour.connects,
            "syscall listen" | "syscall bind" => &self.workload_behaviour.listens,
            _ => return false,
        };
        let protocols = addresses.keys().map(|address| address.split_once(' ').map_or("", |(protocol, _)| protocol));
        protocols.collect::<BTreeSet<_>>().len() > 1
    }

    /// System calls that were denied by hand, without the interface's name: a denial holds for both.
    pub fn denied_calls(&self) -> BTreeSet<&str> {
        let calls = self.steering.denied.keys().filter_map(|item| item.strip_prefix("syscall "));
        calls.map(|name| name.strip_prefix("i386:").unwrap_or(name)).collect()
    }

    /// Families of sockets of which some kind was denied by hand.
    pub fn denied_families(&self) -> BTreeSet<u64> {
        let sockets =
            self.steering.denied.keys().filter_map(|item| {
                item.strip_prefix("argument socket ").or(item.strip_prefix("argument i386:socket "))
            });
        sockets.filter_map(|value| value.split(',').next()?.parse().ok()).collect()
    }

    /// Capabilities that were denied by hand.
    pub fn denied_capabilities(&self) -> impl Iterator<Item = &str> {
        self.steering.denied.keys().filter_map(|item| item.strip_prefix("capability "))
    }

    fn allow(&mut self, item: &str, seen: Support) -> bool {
        let side = &mut self.workload_behaviour;
        let Some((kind, name)) = item.split_once(' ') else { return false };
        match kind {
            "syscall" => {
                let Some(name) = syscalls::canonical(name) else { return false };
                side.syscalls.entry(name).or_insert(seen);
            }
            "argument" => {
                let Some((call, value)) = name.split_once(' ') else { return false };
                let Some(call) = syscalls::canonical(call) else { return false };
                side.syscalls.entry(call.clone()).or_insert_with(|| seen.clone());
                side.arguments.entry(call).or_default().entry(value.to_owned()).or_insert(seen);
            }
            "capability" => {
                if syscalls::capability_number(name).is_none() {
                    return false;
                }
                side.capabilities.entry(name.to_owned()).or_insert(seen);
            }
            "write" => {
                let write = Write {
                    seen,
                    operations: BTreeSet::from([Operation::Write, Operation::Create]),
                    size_bytes: 0,
                    directory: false,
                    executed: false,
                    by: BTreeSet::new(),
                    refused: BTreeSet::new(),
                    succeeded: true,
                };
                // Of what was only tried, what is allowed now is more; of what was done, all is known.
                let known = side.writes.entry(name.to_owned()).or_insert(write.clone());
                if !known.succeeded {
                    *known = write;
                }
            }
            "program" => {
                // As `show` names a forbidden one: `/tmp/x from tmpfs`.
                let path = name.split_once(" from ").map_or(name, |(path, _)| path);
                let program = Program { seen, origins: BTreeSet::new(), privileged: false };
                side.programs.entry(path.to_owned()).or_insert(program).origins.insert(Origin::Volume);
            }
            _ => return false,
        }
        true
    }

    fn deny(&mut self, item: &str) -> bool {
        let Some((kind, name)) = item.split_once(' ') else { return false };
        for side in [&mut self.workload_behaviour, &mut self.exec_behaviour] {
            match kind {
                "syscall" => {
                    let bare = name.strip_prefix("i386:").unwrap_or(name);
                    side.syscalls.retain(|call, _| call.strip_prefix("i386:").unwrap_or(call) != bare);
                }
                "argument" => {
                    let Some((call, value)) = name.split_once(' ') else { return false };
                    let Some(values) = side.arguments.get_mut(call) else { continue };
                    values.remove(value);
                    // A call of which no argument is known is allowed with all.
                    if values.is_empty() && call.ends_with("socket") {
                        side.syscalls.remove(call);
                    }
                }
                "capability" => drop(side.capabilities.remove(name)),
                "write" => drop(side.writes.remove(name)),
                "program" => drop(side.programs.remove(name)),
                _ => return false,
            }
        }
        true
    }
}
