//! One container's place among its workload's profiles: what holds for its next generation.
//!
//! Owns: bringing together what the engine asked for, what the node wants, and what was learnt; and what has to be written
//! down for that (a new revision's candidate, who goes first). Must not: decide it ([`stages`]), or build anything.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::learning::{self, Container};
use super::place;
use crate::events::{Durability, EngineNames, Event, EventType, Journal, Recorder, clock};
use crate::guard::Limits;
use crate::harden::{Given, harden};
use crate::identity;
use crate::learn;
use crate::policy::{self, Config, Mode, Overrides, Policy, RootfsKind, Standing};
use crate::profile::doubtful::decision_wanted;
use crate::profile::stages::{self, Situation, Start};
use crate::profile::steering::Canary;
use crate::profile::{Profile, Revision, Stage, gc, moved, store};
use crate::record::{Record, Remarks};
use crate::runtime::needs::{self, Needs};
use crate::spec::{Document, seal};
use crate::supervise::{SOCKET, root};

/// Longest path of a socket (unix(7)), in bytes.
const MAX_SOCKET_PATH: usize = 107;

/// What the node and the engine say of a container.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) config: Config,
    pub(super) overrides: Overrides,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) names: EngineNames,
}

/// A container as its engine asked for it, and the node's settings at that time.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) config: Config,
    pub(super) overrides: Overrides,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) names: EngineNames,
    pub(super) id: String,
    pub(super) workload: String,
    pub(super) revision: Revision,
    /// The engine's root filesystem, absolute.
    pub(super) rootfs: PathBuf,
    /// The engine's config.json, unedited.
    pub(super) engine: Document,
    /// The same with the edits that every mode needs.
    base: Document,
    /// Its mounts are meant to reach the host: it has its root where the host sees it.
    pub(super) host_namespace: bool,
    /// The low-level runtime, absolute.
    pub(super) runtime: PathBuf,
    /// The container's folder.
    pub(super) dir: PathBuf,
}

/// What holds for a generation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settled {
    pub(super) policy: Policy,
    pub(super) config: Document,
    pub(super) limits: Limits,
    /// What the low-level runtime was known to need, where that mattered.
    pub(super) needs: Option<Needs>,
    /// Time, too, may change this: another replica enforces first.
    pub(super) waits: bool,
    /// What could not be had, and what should be known, in words.
    pub(super) remarks: Remarks,
}

impl Seat {
    /// Of a container whose engine asks for it now. `document` is the engine's own, unedited; the mount namespace is the
    /// engine's.
    ///
    /// # Errors
    /// When its settings contradict each other.
    pub(super) fn of(
        asked: Asked,
        id: String,
        rootfs: PathBuf,
        document: &Document,
        runtime: PathBuf,
        dir: PathBuf,
    ) -> Result<Seat> {
        let Asked { config, overrides, annotations, names } = asked;
        let revision = identity::of(document, &annotations, &names, &rootfs, &id);
        let mut seat = Seat {
            config,
            overrides,
            annotations,
            names,
            id,
            workload: String::new(),
            revision,
            rootfs,
            engine: document.clone(),
            base: document.clone(),
            host_namespace: false,
            runtime,
            dir,
        };
        seat.workload = learning::workload(&seat.chosen()?, &seat.names, document, &seat.rootfs, &seat.id);
        Ok(seat)
    }

    /// What every generation begins with: the engine's document with the edits that have nothing to do with what was learnt.
    ///
    /// # Errors
    /// When the document is none that can be protected.
    pub(super) fn begin_with(&mut self, mut document: Document, bundle: &Path) -> Result<()> {
        self.host_namespace = document.propagates_to_host()?;
        if self.host_namespace {
            seal::absolute_sources(&mut document, bundle);
        }
        self.base = document;
        Ok(())
    }

    /// Where the root filesystem is mounted.
    pub(super) fn target(&self, policy: &Policy) -> PathBuf {
        match policy.rootfs {
            RootfsKind::Sealed | RootfsKind::Tripwire if self.host_namespace => self.dir.join(root::ROOTFS),
            RootfsKind::Sealed | RootfsKind::Tripwire | RootfsKind::Engine => self.rootfs.clone(),
        }
    }

    /// What somebody chose, `auto` unresolved.
    fn chosen(&self) -> Result<Policy> {
        policy::resolve(&self.config, &self.overrides, &self.annotations, self.names.container.as_deref())
    }

    fn settle(&self, standing: Standing) -> Result<Policy> {
        policy::settle(&self.config, &self.overrides, &self.annotations, self.names.container.as_deref(), standing)
    }

    /// What holds for a generation that begins now.
    ///
    /// # Errors
    /// When the profile that would decide can't be read, what is to be enforced can't be planned, or the node wants a
    /// profile where there is none: then nothing may start.
    pub(super) fn decide(&self) -> Result<Settled> {
        let chosen = self.chosen()?;
        let mode = chosen.mode;
        if !matches!(mode, Mode::Auto | Mode::Enforce) {
            return Ok(self.plain(chosen, Remarks::default()));
        }
        let data_dir = &self.config.data_dir;
        let own = store::own_profile(data_dir, chosen.profile.as_deref(), &self.workload, &self.revision.digest)?;
        let mut remarks = Remarks::default();
        let sibling = match (&own, mode) {
            (None, Mode::Auto) => {
                let found = store::sibling(data_dir, &self.workload);
                let store::Sibling { profile, unreadable } = found
                    .unwrap_or_else(|error| store::Sibling { unreadable: vec![error], ..store::Sibling::default() });
                let missing = |error| format!("{error:#}: what this workload was seen to do there is not known");
                remarks.degraded.extend(unreadable.iter().map(missing));
                profile
            }
            (Some(_), _) | (None, _) => None,
        };
        let replicas = self.replicas();
        let situation = Situation {
            own: own.as_ref(),
            sibling: sibling.as_ref(),
            is_sandbox: self.names.sandbox,
            container: &self.id,
            replicas: &replicas,
            now_micros: clock::now_micros(),
        };
        let start = match stages::at_start(mode, &situation, &self.config.auto) {
            // A profile that somebody named is one that they decided about.
            Some(Start::Immutable(_)) if chosen.profile.is_some() => Some(Start::Enforce),
            start => start,
        };
        match (start, own) {
            (None, _) => Ok(self.plain(chosen, remarks)),
            (Some(Start::Learn), _) => Ok(self.plain(self.settle(Standing::Learning)?, remarks)),
            (Some(Start::Candidate), _) => {
                if let Err(error) = sibling.map_or(Ok(()), |sibling| self.begin_candidate(&sibling)) {
                    remarks.degraded.push(format!("{error:#}"));
                }
                Ok(self.plain(self.settle(Standing::Observing)?, remarks))
            }
            (Some(Start::Observe), _) => Ok(self.plain(self.settle(Standing::Observing)?, remarks)),
            (Some(Start::Follow(leader)), own) => self.follow(&leader, own.as_ref(), remarks),
            (Some(Start::Immutable(why)), own) => {
                if self.config.require_profile && mode == Mode::Enforce && !self.names.sandbox {
                    bail!(
                        "failed to enforce the profile of workload {}: {why}, and the node's require-profile is true; learn \
                         revision {} first, with mode learn or auto, or set require-profile = false",
                        self.workload,
                        self.revision.digest
                    );
                }
                // That there is none the event of the start says anyway.
                if own.is_some() {
                    remarks.degraded.push(format!("nothing but immutability is enforced: {why}"));
                }
                Ok(self.plain(self.settle(Standing::Immutable)?, remarks))
            }
            (Some(Start::Enforce | Start::Lead), None) => {
                bail!("failed to enforce a profile of {}: there is none", self.workload)
            }
            (Some(Start::Lead), Some(own)) => {
                match self.lead(&own, &replicas) {
                    Ok(None) => {}
                    // It came to it in the same moment.
                    Ok(Some(leader)) => return self.follow(&leader, Some(&own), remarks),
                    Err(error) => remarks.degraded.push(format!("{error:#}")),
                }
                self.enforce(&own, remarks)
            }
            (Some(Start::Enforce), Some(own)) => self.enforce(&own, remarks),
        }
    }

    fn follow(&self, leader: &str, own: Option<&Profile>, mut remarks: Remarks) -> Result<Settled> {
        let is_refused = |own: &&Profile| own.steering.canary.as_ref().is_some_and(|canary| canary.refused);
        let refused = own.filter(is_refused).filter(|own| !own.steering.waiting.is_empty());
        let waits = refused.map_or(String::new(), |own| format!(", and waits for {}", decision_wanted(own)));
        remarks.notes.push(format!(
            "the profile is enforced in container {leader} first; this one is observed until then{waits}"
        ));
        Ok(Settled { waits: true, ..self.plain(self.settle(Standing::Observing)?, remarks) })
    }

    fn plain(&self, policy: Policy, remarks: Remarks) -> Settled {
        let config = self.placed(&policy);
        Settled { policy, config, limits: Limits::default(), needs: None, waits: false, remarks }
    }

    fn placed(&self, policy: &Policy) -> Document {
        let mut document = self.base.clone();
        if self.host_namespace {
            seal::root_path(&mut document, &self.target(policy));
        }
        document
    }

    fn enforce(&self, profile: &Profile, mut remarks: Remarks) -> Result<Settled> {
        let enforcing = || format!("failed to enforce profile {}/{}", profile.workload, profile.revision.digest);
        let mut policy = self.settle(Standing::Enforced)?;
        let needs = needs::of(&self.runtime, &self.config.data_dir).with_context(enforcing)?;
        let socket = self.dir.join(SOCKET);
        let fits = socket.as_os_str().len() <= MAX_SOCKET_PATH;
        if !fits {
            remarks.degraded.push(format!(
                "refused system calls are not told: the path of their socket, {}, is longer than {MAX_SOCKET_PATH} bytes; \
                 set a shorter 'state-dir'",
                socket.display()
            ));
        }
        let listener = fits.then_some(socket.as_path());
        let given = Given { profile, document: &self.engine, policy: &policy, needs: &needs, listener };
        let hardening = harden(&given).with_context(enforcing)?;
        let mut config = self.placed(&policy);
        hardening.apply(&mut config).with_context(enforcing)?;
        // What somebody wrote down holds against what was learnt.
        for scratch in hardening.scratch {
            match policy.scratch.iter_mut().find(|known| known.path == scratch.path) {
                // But somebody allowed a program of it by its name.
                Some(known) => known.exec |= scratch.exec,
                None => policy.scratch.push(scratch),
            }
        }
        remarks.degraded.extend(hardening.degraded);
        remarks.notes.extend(hardening.notes);
        let startup = u64::try_from(self.config.auto.startup.as_millis()).unwrap_or(u64::MAX);
        let limits = Limits {
            profile: Some(format!("{}/{}", profile.workload, profile.revision.digest)),
            startup_ms: (policy.auto && !stages::was_demoted(profile)).then_some(startup),
            ..hardening.limits
        };
        Ok(Settled { policy, config, limits, needs: Some(needs), waits: false, remarks })
    }

    /// Ids of the other containers of this revision that live on this node; looked for only where it matters.
    fn replicas(&self) -> Vec<String> {
        if self.config.auto.canary_for.is_zero() {
            return Vec::new();
        }
        let records = Record::list(&self.config.state_dir).unwrap_or_default().into_iter().filter_map(|(_, r)| r.ok());
        let same = |r: &Record| r.workload == self.workload && r.revision.as_ref() == Some(&self.revision.digest);
        records.filter(|r| r.id != self.id && same(r) && place::is_alive(r.supervisor)).map(|r| r.id).collect()
    }

    /// Writes the profile of a revision that nobody has seen yet.
    fn begin_candidate(&self, newest: &Profile) -> Result<()> {
        let now = clock::format(clock::now_micros());
        let mut begun = false;
        let profile = store::update_profile(&self.config.data_dir, &self.workload, &self.revision.digest, |old| {
            begun = old.is_none();
            Ok(old.unwrap_or_else(|| stages::candidate(newest, self.revision.clone(), &now)))
        })
        .context("failed to begin the profile of a new revision")?;
        if let (true, Some(step)) = (begun, profile.steering.history.last()) {
            let event = moved::event(&self.id, step, &profile, None)
                .with("candidate", newest.revision.digest.as_str())
                .with("changed", stages::differing(&newest.revision, &self.revision));
            self.tell(event);
            let live = || learn::living(&self.config.state_dir).remove(&self.workload).unwrap_or_default();
            let removed = gc::trim_revisions(&self.config.data_dir, &self.workload, gc::STARTING, live, false)?;
            if let Some(event) = moved::removed(&self.id, "revisions", &removed) {
                self.tell(event.with("workload", self.workload.as_str()));
            }
        }
        Ok(())
    }

    /// Writes down that this container enforces before the others of its revision do; the one that does, where another came
    /// first.
    fn lead(&self, own: &Profile, replicas: &[String]) -> Result<Option<String>> {
        let since = clock::format(clock::now_micros());
        let canary = Canary { container: self.id.clone(), since, refused: false };
        let before = own.steering.canary.clone();
        let profile = store::update_profile(&self.config.data_dir, &own.workload, &own.revision.digest, |old| {
            let mut profile = old.context("it was removed in the meantime")?;
            if profile.stage == Stage::Enforcing && profile.steering.canary == before {
                profile.steering.canary = Some(canary);
            }
            Ok(profile)
        })
        .context("failed to write down which replica enforces first")?;
        if let Some(leader) = profile.steering.canary.as_ref().filter(|canary| canary.container != self.id) {
            return Ok(Some(leader.container.clone()));
        }
        if !replicas.is_empty() {
            let seconds = self.config.auto.canary_for.as_secs();
            let event = Event::new(EventType::Promoted, &self.id, BTreeMap::new())
                .with("workload", profile.workload.as_str())
                .with("revision", profile.revision.digest.as_str())
                .with("from", "observing")
                .with("to", "enforcing")
                .with("why", format!("this replica enforces first, for {seconds} s; {} others wait", replicas.len()))
                .with("canary", true);
            self.tell(event);
        }
        Ok(None)
    }

    pub(super) fn tell(&self, event: Event) {
        let journal = Journal::open(&self.config.data_dir, self.config.journal);
        let mut recorder = Recorder::new(journal, &self.id);
        recorder.record(event.named(&self.names), Durability::Buffered);
        recorder.flush();
    }

    /// The process that records what the container does, where its mode has one; and what is to be said where there is none.
    pub(super) fn companion(&self, policy: &Policy, from_supervisor: bool) -> (Option<OwnedFd>, Vec<String>) {
        let container = Container {
            id: &self.id,
            workload: &self.workload,
            names: &self.names,
            rootfs: &self.rootfs,
            revision: &self.revision,
        };
        learning::start(&self.config, policy, &container, from_supervisor)
    }
}
