//! Who decides anew for each generation: given by the engine's side, so that a supervisor knows nothing of configuration,
//! profiles or where they are.

use std::fmt;
use std::os::fd::OwnedFd;

use anyhow::Result;

use crate::guard::{Limits, Refusal};
use crate::policy::Policy;
use crate::record::Remarks;
use crate::spec::Document;

/// What was decided for one generation.
#[derive(Debug)]
pub struct Decided {
    /// What holds; its mode is never `auto`.
    pub policy: Policy,
    /// The engine's config.json, edited as far as that can be done without looking into the image.
    pub config: Document,
    /// What is refused, beside what config.json says.
    pub limits: Limits,
    /// The process that records what the workload does, where one is to and none does yet.
    pub companion: Option<OwnedFd>,
    /// What could not be had, and what should be known.
    pub remarks: Remarks,
}

/// Decides. Everything here may be called long after `create`, in the supervisor's process and mount namespace.
pub trait Director: fmt::Debug {
    /// For the generation that is about to begin; `None`: all is as it was.
    ///
    /// # Errors
    /// When the profile or a file beside it can't be read: the next generation begins as the last one did.
    fn next(&mut self) -> Result<Option<Decided>>;

    /// A workload that was healthy was refused this in its start-up: whether it is to go on observed. At most once for each
    /// revision.
    ///
    /// # Errors
    /// When that can't be written down; then it stays enforced.
    fn demote(&mut self, refusal: &Refusal) -> Result<bool>;

    /// The workload was refused what an honest one might need, and stays enforced: others like it may wait with that.
    ///
    /// # Errors
    /// When that can't be written down.
    fn refused(&mut self, refusal: &Refusal) -> Result<()>;

    /// The container died before the workload's first instruction: finds out anew what the low-level runtime itself needs.
    /// `None`: that is known already, and is not why.
    ///
    /// # Errors
    /// When it can't be measured.
    fn recalibrate(&mut self) -> Result<Option<Decided>>;
}
