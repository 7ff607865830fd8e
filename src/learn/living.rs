//! Which revisions of a workload containers live of. Must not: touch any of them.

use std::path::Path;

use super::presence;
use crate::profile::gc::Live;
use crate::record::Record;

/// The revisions that are not to be missed: of containers that lithify has a record of, whatever has become of them, and of
/// those that are recorded.
pub fn living(state_dir: &Path, workload: &str) -> Live {
    let records = Record::list(state_dir).unwrap_or_default().into_iter().filter_map(|(_, record)| record.ok());
    let mut live = Live::default();
    for record in records {
        if record.workload == workload {
            live.revisions.extend(record.revision);
        }
        // Another workload's container may be held to a profile of this one, by its name.
        let held = record.profile.as_deref().and_then(|name| name.rsplit_once('/'));
        let named = record.policy.profile.as_deref().and_then(|name| name.rsplit_once('@'));
        let digests = held.into_iter().chain(named).filter(|(name, _)| *name == workload);
        live.revisions.extend(digests.map(|(_, digest)| digest.to_owned()));
    }
    let collectors = presence::list(state_dir).unwrap_or_default().into_iter();
    live.observations.extend(collectors.filter(|c| c.workload == workload).map(|c| c.observation));
    live
}
