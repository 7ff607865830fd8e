//! What a profile leaves behind that has more generations than it holds, or is copied: revisions follow each other, and each begins
//! with a copy of the one before.
//!
//! Owns: which generations are kept. Must not: lose an item, or make a profile look surer than it is.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Generation, Profile, Support};

/// Generations that are kept, and what is needed beside these.
pub const MAX_CARRIED: usize = 256;
/// Generations that saw an item, at most, that are kept for its sake: one that two saw is no longer one that nobody else did.
const WITNESSES: usize = 2;

impl Profile {
    /// Without the generations that say least. Those in which something could not be seen stay, since they keep a profile from
    /// being complete; then those with most windows, since on these the estimate is built; and of those that saw an item as
    /// many as make a difference.
    pub(super) fn shorten(&mut self) {
        if self.generations.len() <= MAX_CARRIED {
            return;
        }
        let kept = self.carried();
        let keep = |seen: &Support| Support {
            generations: (seen.generations.iter())
                .filter(|(id, _)| kept.contains(*id))
                .map(|(id, windows)| (id.clone(), *windows))
                .collect(),
            ..seen.clone()
        };
        self.workload_behaviour = self.workload_behaviour.map(keep);
        self.exec_behaviour = self.exec_behaviour.map(keep);
        for forbidden in self.forbidden.values_mut() {
            forbidden.seen = keep(&forbidden.seen);
        }
        self.generations.retain(|id, _| kept.contains(id));
    }

    fn carried(&self) -> BTreeSet<String> {
        let says = |generation: &Generation| (!generation.unseen.is_empty(), generation.windows);
        let mut all: Vec<(&String, &Generation)> = self.generations.iter().collect();
        // The newest of those that say as much.
        all.sort_by_key(|(id, generation)| (says(generation), *id));
        let mut kept: BTreeSet<String> = all.into_iter().rev().take(MAX_CARRIED).map(|(id, _)| id.clone()).collect();
        let items = self.workload_behaviour.items().chain(self.exec_behaviour.items()).map(|(_, _, seen)| seen);
        for Support { generations, .. } in items.chain(self.forbidden.values().map(|forbidden| &forbidden.seen)) {
            let missing = WITNESSES.min(generations.len()).saturating_sub(known(generations, &kept));
            let others = generations.keys().rev().filter(|id| !kept.contains(*id)).take(missing);
            let others: Vec<String> = others.cloned().collect();
            kept.extend(others);
        }
        kept
    }
}

fn known(generations: &BTreeMap<String, u32>, kept: &BTreeSet<String>) -> usize {
    generations.keys().filter(|id| kept.contains(*id)).count()
}
