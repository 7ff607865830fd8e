//! Which workloads and revisions containers live of, so that others make room. Must not: touch a container.

use std::collections::BTreeMap;
use std::path::Path;

use super::presence;
use super::subject::Subject;
use super::tell::Teller;
use crate::profile::gc::{self, Live};
use crate::record::Record;

/// By workload the revisions that are not to be missed: of containers that lithify has a record of, whatever has become of them,
/// and of those that are recorded.
pub fn living(state_dir: &Path) -> BTreeMap<String, Live> {
    let mut all: BTreeMap<String, Live> = BTreeMap::new();
    let records = Record::list(state_dir).unwrap_or_default().into_iter().filter_map(|(_, record)| record.ok());
    for record in records {
        // Another workload's container may be held to a profile of this one, by its name.
        let held = record.profile.as_deref().and_then(|name| name.rsplit_once('/'));
        let named = record.policy.profile.as_deref().and_then(|name| name.rsplit_once('@'));
        for (workload, digest) in held.into_iter().chain(named) {
            all.entry(workload.to_owned()).or_default().revisions.insert(digest.to_owned());
        }
        all.entry(record.workload).or_default().revisions.extend(record.revision);
    }
    for collector in presence::list(state_dir).unwrap_or_default() {
        all.entry(collector.workload).or_default().observations.insert(collector.observation);
    }
    all
}

/// Each new argument of somebody's makes a revision, each new name a workload: their profiles must not fill the disk.
pub(super) fn make_room(subject: &Subject, teller: &mut Teller) {
    let Subject { data_dir, state_dir, workload, .. } = subject;
    let of_this = || living(state_dir).remove(workload).unwrap_or_default();
    for (what, removed) in [
        ("revisions", gc::trim_revisions(data_dir, workload, gc::ROOM, of_this, false)),
        ("workloads", gc::trim_workloads(data_dir, workload, gc::WORKLOADS, || living(state_dir))),
    ] {
        match removed {
            Ok(removed) => teller.removed(what, &removed),
            Err(error) => teller.degraded(&format!("{error:#}")),
        }
    }
}
