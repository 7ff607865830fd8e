//! What stays the same over the generations of one container: who it is, where it writes, the sensor.
//!
//! Owns: finding that out while the low-level runtime still creates the container. Must not: fail: what can't be had is said.

use std::path::Path;

use anyhow::Result;

use super::presence::{Entry, Presence};
use super::subject::{Purpose, Subject};
use super::written::Written;
use crate::events;
use crate::profile::{Profile, store};
use crate::sensor::{Place, Sensor};

/// Linux's own range, where it can't be read (ip(7)).
const EPHEMERAL: (u16, u16) = (32768, 60999);

/// One container.
pub(super) struct Ground {
    pub(super) subject: Subject,
    pub(super) sensor: Option<Sensor>,
    pub(super) written: Option<Written>,
    pub(super) ephemeral: (u16, u16),
    pub(super) node: String,
    /// Id and place of the next observation.
    next: Option<Berth>,
    /// What will be missing, in words.
    pub(super) degraded: Vec<String>,
}

/// Where an observation is to be: found before it is needed, as a container waits then.
pub(super) struct Berth {
    pub(super) id: String,
    /// `None` where the state folder can't be written: a crash of ours is then not told from our being at work.
    pub(super) presence: Option<Presence>,
}

impl Ground {
    /// Loads the sensor first: that is what takes time.
    pub(super) fn survey(subject: Subject) -> Ground {
        let mut degraded = Vec::new();
        let sensor = match Sensor::open(&Place::of(&subject.state_dir)) {
            Ok(sensor) => Some(sensor),
            Err(error) => {
                degraded.push(format!("{error:#}; only files, memory, tasks and CPU are recorded"));
                None
            }
        };
        let written = match Written::open(&subject.rootfs) {
            Ok((written, missing)) => {
                degraded.extend(missing);
                Some(written)
            }
            Err(error) => {
                degraded.push(format!("{error:#}; sizes of what is written are not recorded"));
                None
            }
        };
        let ephemeral = ephemeral(Path::new("/proc/sys/net/ipv4/ip_local_port_range")).unwrap_or(EPHEMERAL);
        let node = events::hostname();
        let mut ground = Ground { subject, sensor, written, ephemeral, node, next: None, degraded };
        ground.next = Some(ground.find_berth());
        ground
    }

    /// Nothing more is recorded.
    pub(super) fn leave(&mut self) -> Option<Result<()>> {
        self.sensor.take().map(Sensor::leave)
    }

    /// The profile to compare with: the one that was named, the revision's own, or the one that its own would begin with.
    pub(super) fn profile(&mut self) -> Result<Option<Profile>> {
        let Subject { data_dir, workload, revision, purpose, .. } = &self.subject;
        let named = match purpose {
            Purpose::Observe { profile } => profile.as_deref(),
            Purpose::Learn | Purpose::Auto(_) => None,
        };
        match store::own_profile(data_dir, named, workload, &revision.digest)? {
            Some(own) => Ok(Some(own)),
            None => {
                let store::Sibling { profile, unreadable } = store::sibling(data_dir, workload)?;
                self.degraded.extend(unreadable.iter().map(|error| format!("{error:#}")));
                Ok(profile)
            }
        }
    }

    /// The place of an observation that begins now.
    pub(super) fn berth(&mut self) -> Berth {
        let found = self.next.take();
        found.unwrap_or_else(|| self.find_berth())
    }

    fn find_berth(&mut self) -> Berth {
        let id = events::fresh_id();
        let entry = Entry {
            observation: id.clone(),
            container: self.subject.container.clone(),
            rootfs: self.subject.rootfs.clone(),
            workload: self.subject.workload.clone(),
            pid: std::process::id() as i32,
        };
        let presence = Presence::claim(&self.subject.state_dir, &entry);
        let presence = presence.map_err(|error| self.degraded.push(format!("{error:#}"))).ok();
        Berth { id, presence }
    }
}

/// The host's range: a container that was given another one has its own ports told as they are.
fn ephemeral(path: &Path) -> Option<(u16, u16)> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}
