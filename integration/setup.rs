//! lithify's own private configuration for one corner.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::corner::Corner;
use crate::journal::Journal;

/// A configuration file with its own state and data folders.
pub struct Setup {
    /// The program under test.
    pub lithify: String,
    /// Its `--config`.
    pub config: String,
    data: PathBuf,
}

/// runc, where Debian has it.
pub const RUNC: &str = "/usr/sbin/runc";

impl Setup {
    /// Writes the configuration; annotations may loosen what these tests try.
    pub fn new(corner: &Corner) -> Result<Setup> {
        Setup::with(corner, "")
    }

    /// The same with more lines of TOML at its end; what they leave unset is enforced.
    pub fn with(corner: &Corner, more: &str) -> Result<Setup> {
        let lithify = std::env::var("LITHIFY_IT_RUNTIME").unwrap_or_else(|_| env!("CARGO_BIN_EXE_lithify").to_owned());
        let (state, data) = (corner.state(), corner.path("data"));
        let mode = if more.contains("mode = ") { "" } else { "mode = \"enforce\"\n" };
        let config = corner.path("lithify.toml");
        fs::write(
            &config,
            format!(
                "state-dir = {state:?}\ndata-dir = {data:?}\nruntimes = [{RUNC:?}, \"/usr/bin/crun\"]\n\
                 allow-loosen = [\"mode\", \"rootfs\", \"on-write\", \"scratch\", \"scratch-exec\", \"restart-limit\"]\n{mode}{more}"
            ),
        )?;
        Ok(Setup { lithify, config, data: PathBuf::from(data) })
    }

    /// Where its events are.
    pub fn journal(&self) -> Journal {
        Journal::new(self.data.join("events/journal.jsonl"))
    }

    /// The folder of events and evidence.
    pub fn data(&self) -> &std::path::Path {
        &self.data
    }
}
