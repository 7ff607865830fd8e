//! `lithifyctl`: what people and the node ask, one file a verb.
//!
//! Owns: its arguments, its output and its exit statuses (0: well; 1: a failure, or something is wrong; 2: usage).
//! Must not: be needed for a container to start or stay protected.

pub mod config;
pub mod diff;
pub mod doctor;
pub mod events;
pub mod hook;
pub mod inspect;
pub mod install;
pub mod learning;
pub mod plan;
pub mod profile;
pub mod runtime;
pub mod sensor;
pub mod status;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use lexopt::prelude::*;

use crate::policy::config::Config;
use crate::policy::suggest::{quote, remedy};

const HELP: &str = "\
lithifyctl: see and set up what lithify protects

usage: lithifyctl [--config FILE] VERB [OPTIONS]

  status      one line a container
  inspect     everything about one container
  events      what happened
  profile     what workloads were seen to do
  plan        what enforcing a profile would change in a container, and why
  doctor      what this host has and lacks
  install     register the runtime with an engine
  hook        learn under a plain runc or crun: what OCI hooks call
  config      check a configuration file
  runtime     what runc or crun itself needs of a filter
  sensor      what records containers while they are learnt

options of every verb:
  --config FILE   the configuration, instead of /etc/lithify/config.toml or $LITHIFY_CONFIG
  --json          print JSON
  --help          explain the verb
  --version       print the version
";

/// How a verb ends when nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Well,
    /// It did its work, and found something wrong: exit status 1.
    Wrong,
}

/// A mistake in the arguments: exit status 2.
#[derive(Debug)]
pub struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A usage error with this message.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow!(Usage(message.into()))
}

/// Options that every verb takes, and where its output goes.
pub struct Call<'o> {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--json`.
    pub json: bool,
    /// Standard output, or a test's buffer.
    pub out: &'o mut dyn Write,
    help: bool,
}

impl Call<'_> {
    /// The next argument that is the verb's own; `None` at the end. Options of every verb are taken here.
    ///
    /// # Errors
    /// When an argument is malformed.
    pub fn next(&mut self, args: &mut lexopt::Parser) -> Result<Option<Given>> {
        while let Some(arg) = args.next().map_err(|e| usage(e.to_string()))? {
            match arg {
                Long("config") => self.config = Some(value(args)?.into()),
                Long("json") => self.json = true,
                Long("help") | Short('h') => self.help = true,
                Long(name) => return Ok(Some(Given::Option(name.to_string()))),
                Short(c) => return Ok(Some(Given::Option(c.to_string()))),
                Value(value) => return Ok(Some(Given::Word(value))),
            }
        }
        Ok(None)
    }

    /// Whether `--help` was given; prints the verb's text then.
    ///
    /// # Errors
    /// When standard output can't be written.
    pub fn helped(&mut self, text: &str) -> Result<bool> {
        if self.help {
            self.out.write_all(text.as_bytes())?;
        }
        Ok(self.help)
    }

    /// The node's settings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn settings(&self) -> Result<Config> {
        Config::load(self.config.as_deref())
    }

    /// The settings as far as they can be read, for what only looks: a mistake is no reason not to see what runs.
    pub fn readable_settings(&self) -> Config {
        let (config, error) = Config::load_readable(self.config.as_deref());
        if let Some(error) = error {
            eprintln!(
                "lithifyctl: {}",
                plain(&format!("{error:#}; no container is protected anew until that is mended"))
            );
        }
        config
    }

    /// Prints a value as JSON and a newline.
    ///
    /// # Errors
    /// When standard output can't be written.
    pub fn print_json(&mut self, value: &impl serde::Serialize) -> Result<()> {
        serde_json::to_writer_pretty(&mut self.out, value).map_err(io::Error::from)?;
        Ok(writeln!(self.out)?)
    }
}

/// An argument that is the verb's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// An option's name, without dashes.
    Option(String),
    /// Anything else.
    Word(OsString),
}

impl Given {
    /// The error for an argument that the verb does not take.
    pub fn refuse(self, options: &[&str]) -> anyhow::Error {
        let all: Vec<&str> = options.iter().copied().chain(["config", "json", "help"]).collect();
        match self {
            Given::Option(name) => usage(format!("unknown option {}; {}", quote(&name), remedy(&name, &all))),
            Given::Word(word) => usage(format!("unexpected argument {}; see --help", quote(&word.to_string_lossy()))),
        }
    }
}

/// The value of the option that was read last.
///
/// # Errors
/// When there is none.
pub fn value(args: &mut lexopt::Parser) -> Result<OsString> {
    args.value().map_err(|e| usage(e.to_string()))
}

/// As [`value`], as text.
///
/// # Errors
/// When there is none or it is not UTF-8.
pub fn text(args: &mut lexopt::Parser) -> Result<String> {
    value(args)?.into_string().map_err(|word| usage(format!("{} is not UTF-8", quote(&word.to_string_lossy()))))
}

/// Runs the program on these arguments, and says how it ends.
pub fn main(args: lexopt::Parser) -> ExitCode {
    let mut out = io::stdout().lock();
    match run(args, &mut out).and_then(|outcome| Ok(out.flush().map(|()| outcome)?)) {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::Wrong) => ExitCode::FAILURE,
        // Whoever read the output has seen enough.
        Err(e) if e.chain().any(|c| c.downcast_ref::<io::Error>().is_some_and(is_closed)) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lithifyctl: {}", plain(&format!("{e:#}")));
            ExitCode::from(if e.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn is_closed(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::BrokenPipe
}

/// Runs one verb.
///
/// # Errors
/// What the verb failed on; [`Usage`] for a mistake in the arguments.
pub fn run(mut args: lexopt::Parser, out: &mut dyn Write) -> Result<Outcome> {
    const VERBS: [&str; 11] =
        ["status", "inspect", "events", "profile", "plan", "doctor", "install", "hook", "config", "runtime", "sensor"];
    let mut call = Call { config: None, json: false, out, help: false };
    let verb = match call.next(&mut args)? {
        None => {
            call.out.write_all(HELP.as_bytes())?;
            return if call.help { Ok(Outcome::Well) } else { Err(usage("expected a verb")) };
        }
        Some(Given::Option(name)) if name == "version" || name == "V" => {
            let version = env!("CARGO_PKG_VERSION");
            if let Some(given) = call.next(&mut args)? {
                return Err(given.refuse(&[]));
            }
            if call.json {
                call.print_json(&serde_json::json!({"name": "lithifyctl", "version": version}))?;
            } else {
                writeln!(call.out, "lithifyctl {version}")?;
            }
            return Ok(Outcome::Well);
        }
        Some(Given::Word(verb)) => verb.to_string_lossy().into_owned(),
        Some(other) => return Err(other.refuse(&["version"])),
    };
    match verb.as_str() {
        "status" => status::run(&mut call, &mut args),
        "inspect" => inspect::run(&mut call, &mut args),
        "events" => events::run(&mut call, &mut args),
        "profile" => profile::run(&mut call, &mut args),
        "plan" => plan::run(&mut call, &mut args),
        "doctor" => doctor::run(&mut call, &mut args),
        "install" => install::run(&mut call, &mut args),
        "hook" => hook::run(&mut call, &mut args),
        "config" => config::run(&mut call, &mut args),
        "runtime" => runtime::run(&mut call, &mut args),
        "sensor" => sensor::run(&mut call, &mut args),
        _ => Err(usage(format!("unknown verb {}; {}", quote(&verb), remedy(&verb, &VERBS)))),
    }
}

/// Text that can't move a terminal's cursor or forge a line: control characters are shown escaped. Names and paths
/// come from containers.
pub fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Direction marks can make one path read as another.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// Most characters of a value that others chose, where it is one of many in a line.
pub const A_CELL: usize = 80;
/// The same where it has room of its own.
pub const A_FIELD: usize = 512;
/// Most characters of a sentence of ours that has such values in it.
pub const A_SENTENCE: usize = 1024;

/// As [`plain`], and at most so many characters: a long name must not push other lines out of sight. The whole is in the JSON.
pub fn short(text: &str, most: usize) -> String {
    let mut shown = plain(text);
    if let Some((end, _)) = shown.char_indices().nth(most) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_move_the_cursor_or_turn_the_text_round() {
        assert_eq!(plain("/tmp/\u{1b}[2J\nx\u{202e}é"), "/tmp/\\u{1b}[2J\\nx\\u{202e}é");
    }

    #[test]
    fn what_is_shown_of_a_long_name_is_counted_as_it_is_shown() {
        assert_eq!(short("/é", 2), "/é");
        assert_eq!(short("/éx", 2), "/é…");
        assert_eq!(short(&"\u{1}".repeat(4090), 80).chars().count(), 81);
    }
}
