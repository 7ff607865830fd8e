//! Help for people: the low-level runtime's own, byte for byte, and then what lithify adds to it.
//!
//! Owns: the text about lithify's flags. Must not: change what else the low-level runtime says of itself (`--version`,
//! `features`, a verb's help), by which engines tell what it can.

use std::io::Write;

use anyhow::{Context, Result};

use super::node;
use crate::cli::Invocation;
use crate::policy::config::{CONFIG_ENV, DEFAULT_PATH};
use crate::policy::document::KEYS;
use crate::runtime;

/// Flags that take the place of these keys of the configuration.
const KEY_FLAGS: [&str; 3] = ["mode", "rootfs", "on-write"];

/// Shows both. The exit status is the low-level runtime's; where none is found, our part is shown all the same.
pub(super) fn help(invocation: &Invocation) -> Result<i32> {
    let status = runtime::find(&node(invocation).runtimes).and_then(|runtime| {
        let exit = runtime::run_and_wait(&runtime, &invocation.argv)
            .with_context(|| format!("failed to start {}", runtime.display()))?;
        Ok(exit.shell_code())
    });
    let mut out = std::io::stdout();
    out.write_all(text().as_bytes()).and_then(|()| out.flush()).context("failed to write lithify's own help")?;
    status
}

fn text() -> String {
    let flag = |name: &str, what: &str| format!("   {:<20}{what}\n", format!("--{name} value"));
    let keys = KEYS.iter().filter(|(key, ..)| KEY_FLAGS.contains(key));
    let flags: String = keys.map(|(key, what, _)| flag(key, what)).collect();
    let config = flag("config", &format!("the node's configuration (default: ${CONFIG_ENV}, or {DEFAULT_PATH})"));
    format!(
        "\nLITHIFY:\n   \
         This is lithify, in front of the low-level runtime, whose commands and flags it takes as they are. Before the command\n   \
         it takes flags of its own, in the place of what the configuration says:\n\n\
         {flags}{config}\n   \
         To see what is protected and what was learnt, and for everything else: lithifyctl --help\n   \
         When something is wrong: lithifyctl doctor\n"
    )
}
