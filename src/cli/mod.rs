//! argv → [`Invocation`]: runc's grammar as one table, read once. Nothing behind this module looks at argv again.
//!
//! Owns: which flags there are and which take a value. Must not: open a file, or change a byte of what is forwarded.

mod flags;
mod parsed;
mod verb;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Result, bail};

pub use flags::{Flag, Scan};
pub use verb::{CreateArgs, ExecArgs, Verb};

/// The flags that are lithify's own; they stand before the verb and are not forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnFlags {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--mode M`, as given.
    pub mode: Option<String>,
    /// `--rootfs R`, as given.
    pub rootfs: Option<String>,
    /// `--on-write W`, as given.
    pub on_write: Option<String>,
}

/// The low-level runtime's global flags that matter to us too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    /// `--root DIR`, as given.
    pub root: Option<PathBuf>,
    /// `--log FILE`.
    pub log: Option<PathBuf>,
    /// `--log-format json`.
    pub log_json: bool,
    /// `--systemd-cgroup`.
    pub systemd_cgroup: bool,
    /// All of them as received, own flags taken out.
    pub forwarded: Vec<OsString>,
    /// As `forwarded` without `--log`, `--log-format` and `--debug`: for calls of ours that no engine asked for.
    pub quiet: Vec<OsString>,
}

/// One call of the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Ours.
    pub own: OwnFlags,
    /// The low-level runtime's.
    pub globals: Globals,
    /// What is to be done.
    pub verb: Verb,
    /// All arguments for the low-level runtime, byte for byte as received, own flags taken out.
    pub argv: Vec<OsString>,
    /// Where the verb is in `argv`; its length when there is none.
    pub verb_at: usize,
}

impl Invocation {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// When an own flag lacks its value, or when it can't be told where the verb is: then a `create` could slip by.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation> {
        let args: Vec<OsString> = args.into_iter().collect();
        let mut own = OwnFlags::default();
        let mut globals = Globals::default();
        let mut unknown: Option<OsString> = None;
        // For the version, or for what only the low-level runtime knows of: its answer alone is the answer.
        let mut asks_else = false;
        let mut at = 0;
        while at < args.len() {
            if args[at] == "--" {
                // The end of the flags; the verb follows.
                break;
            }
            let Some(flag) = Flag::read(&args[at]) else { break };
            let scan = flags::global(flag.name);
            let (value, used) = flag.value(scan, args.get(at + 1).map(OsString::as_os_str));
            let words = &args[at..(at + used).min(args.len())];
            if let Some(slot) = own.slot(flag.name) {
                match value {
                    Some(value) => slot.set(value)?,
                    None => bail!("failed to read the command line: flag --{} needs a value", show(flag.name)),
                }
            } else {
                globals.note(flag.name, value);
                globals.forwarded.extend_from_slice(words);
                if !matches!(flag.name, b"log" | b"log-format" | b"log-level" | b"debug") {
                    globals.quiet.extend_from_slice(words);
                }
                asks_else |= scan == Scan::Unknown || matches!(flag.name, b"version" | b"v" | b"V");
                // With its value in the same word a flag can't take the verb for it.
                if scan == Scan::Unknown && !args[at].as_bytes().contains(&b'=') {
                    unknown = Some(args[at].clone());
                }
            }
            at += used;
        }
        let mut argv = globals.forwarded.clone();
        argv.extend_from_slice(args.get(at..).unwrap_or_default());
        let dashes = usize::from(args.get(at).is_some_and(|word| word == "--"));
        let rest = args.get(at + dashes..).unwrap_or_default();
        let verb_at = argv.len() - rest.len();
        let verb = match rest {
            [word, rest @ ..] => {
                if let Some(flag) = &unknown {
                    rule_out_hidden_verb(flag, word, rest)?;
                }
                Verb::read(word.as_bytes(), rest)
            }
            [] => Verb::Help,
        };
        let verb = if verb == Verb::Help && asks_else { Verb::Other } else { verb };
        Ok(Invocation { own, globals, verb, argv, verb_at })
    }
}

/// What one own flag writes to.
enum Slot<'a> {
    Path(&'a mut Option<PathBuf>),
    Word(&'a mut Option<String>, &'static str),
}

impl Slot<'_> {
    fn set(self, value: &OsStr) -> Result<()> {
        match self {
            Slot::Path(slot) => *slot = Some(PathBuf::from(value)),
            Slot::Word(slot, name) => match value.to_str() {
                Some(word) => *slot = Some(word.to_owned()),
                None => bail!("failed to read the command line: flag --{name} is not UTF-8"),
            },
        }
        Ok(())
    }
}

impl OwnFlags {
    fn slot(&mut self, name: &[u8]) -> Option<Slot<'_>> {
        Some(match name {
            b"config" => Slot::Path(&mut self.config),
            b"mode" => Slot::Word(&mut self.mode, "mode"),
            b"rootfs" => Slot::Word(&mut self.rootfs, "rootfs"),
            b"on-write" => Slot::Word(&mut self.on_write, "on-write"),
            _ => return None,
        })
    }
}

impl Globals {
    fn note(&mut self, name: &[u8], value: Option<&OsStr>) {
        match name {
            b"root" => self.root = value.map(PathBuf::from),
            b"log" => self.log = value.map(PathBuf::from),
            b"log-format" => self.log_json = value.is_some_and(|v| v == "json"),
            b"systemd-cgroup" => self.systemd_cgroup = flags::truth(value),
            b"cgroup-manager" => self.systemd_cgroup = value.is_some_and(|v| v == "systemd"),
            _ => {}
        }
    }
}

fn show(name: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(name)
}

/// An unknown flag may take the next word as its value: then the word we took for the verb is that value, and the real verb
/// stands behind it.
fn rule_out_hidden_verb(flag: &OsStr, verb: &OsStr, rest: &[OsString]) -> Result<()> {
    let matters = |word: &OsString| matches!(word.as_bytes(), b"create" | b"run" | b"restore" | b"exec" | b"start");
    let watched = matches!(verb.as_bytes(), b"create" | b"run" | b"restore");
    if flags::is_verb(verb.as_bytes()) && (watched || !rest.iter().any(matters)) {
        return Ok(());
    }
    bail!(
        "failed to read the command line: unknown flag {} before {}, which may be its value or the command; write it as \
         --flag=value, or run the low-level runtime by its own name",
        flag.to_string_lossy(),
        verb.to_string_lossy()
    )
}
