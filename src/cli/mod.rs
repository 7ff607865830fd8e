//! argv → [`Invocation`]: runc's grammar as one table, read once. Nothing behind this module looks at argv again.
//!
//! Owns: which flags there are and which take a value. Must not: open a file, or change a byte of what is forwarded.

mod flags;
mod parsed;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Result, bail};

pub use flags::{Flag, Scan};
use parsed::Parsed;

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

/// What `create` and `run` were asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateArgs {
    /// Container id; empty where there is not exactly one word, which every low-level runtime refuses.
    pub id: OsString,
    /// `--help`: shown, and nothing is done.
    pub help: bool,
    /// `--bundle`; the current directory when absent.
    pub bundle: Option<PathBuf>,
    /// `--pid-file`.
    pub pid_file: Option<PathBuf>,
    /// `--console-socket`.
    pub console_socket: Option<PathBuf>,
    /// `--preserve-fds N`.
    pub preserve_fds: u32,
    /// `run --detach`.
    pub detach: bool,
    /// `run --keep`.
    pub keep: bool,
    /// crun's `--config FILE`: another file than the bundle's config.json.
    pub config_file: Option<PathBuf>,
    /// Every other flag, as received.
    pub others: Vec<OsString>,
    /// Why it can't be told what the low-level runtime would make of these arguments: such a call is not protected.
    pub doubt: Option<String>,
}

/// What `exec` was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecArgs {
    /// Container id.
    pub id: OsString,
    /// `--process FILE`.
    pub process: Option<PathBuf>,
    /// `--cwd`.
    pub cwd: Option<OsString>,
    /// `--env`, each.
    pub env: Vec<OsString>,
    /// `--tty`.
    pub tty: bool,
    /// `--user`.
    pub user: Option<OsString>,
    /// `--additional-gids`, each.
    pub additional_gids: Vec<OsString>,
    /// `--process-label`.
    pub process_label: Option<OsString>,
    /// `--apparmor`.
    pub apparmor: Option<OsString>,
    /// `--no-new-privs`.
    pub no_new_privs: Option<bool>,
    /// `--cap`, each.
    pub caps: Vec<OsString>,
    /// `--preserve-fds N`.
    pub preserve_fds: u32,
    /// Flags about the call rather than the process (`--detach`, `--pid-file`, `--console-socket`, `--cgroup`, …), as
    /// received.
    pub others: Vec<OsString>,
    /// The program and its arguments.
    pub args: Vec<OsString>,
    /// As in [`CreateArgs`].
    pub doubt: Option<String>,
}

/// The verb, with what we need to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// `create`.
    Create(CreateArgs),
    /// `run`.
    Run(CreateArgs),
    /// `restore`: would start a container that nothing protects.
    Restore(CreateArgs),
    /// `exec`.
    Exec(ExecArgs),
    /// `start`.
    Start(OsString),
    /// `kill`.
    Kill {
        /// Container id.
        id: OsString,
        /// `--all`.
        all: bool,
    },
    /// `delete`.
    Delete {
        /// Container id.
        id: OsString,
        /// `--force`.
        force: bool,
    },
    /// `ps`.
    Ps {
        /// Container id.
        id: OsString,
        /// `--format json`.
        json: bool,
    },
    /// `update`.
    Update {
        /// Container id.
        id: OsString,
        /// `--resources`, as given (`-` for standard input).
        resources: Option<OsString>,
    },
    /// `state`.
    State(OsString),
    /// `list`.
    List,
    /// A verb that is over soon and only names a container: `pause`.
    Brief(OsString),
    /// `resume`.
    Resume(OsString),
    /// Everything else: forwarded, and none of our business.
    Other,
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
                read_verb(word.as_bytes(), rest)
            }
            [] => Verb::Other,
        };
        Ok(Invocation { own, globals, verb, argv, verb_at })
    }
}

/// Most descriptors that `--preserve-fds` may name: what a process can have open by default (`fs.nr_open`).
const MAX_PRESERVED: u32 = 1 << 20;

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

fn read_verb(verb: &[u8], rest: &[OsString]) -> Verb {
    let first = |rest: &[OsString], verb| Parsed::read(verb, rest).id();
    match verb {
        b"create" => Verb::Create(create_args("create", rest)),
        b"run" => Verb::Run(create_args("run", rest)),
        b"restore" => Verb::Restore(create_args("restore", rest)),
        b"exec" => Verb::Exec(exec_args(rest)),
        b"start" => Verb::Start(first(rest, "start")),
        b"kill" => {
            let parsed = Parsed::read("kill", rest);
            Verb::Kill { all: parsed.is_set(&["all", "a"]), id: parsed.id() }
        }
        b"delete" => {
            let parsed = Parsed::read("delete", rest);
            Verb::Delete { force: parsed.is_set(&["force", "f"]), id: parsed.id() }
        }
        b"ps" => {
            let parsed = Parsed::read("ps", rest);
            Verb::Ps { json: parsed.last(&["format", "f"]).is_some_and(|f| f == "json"), id: parsed.id() }
        }
        b"update" => {
            let parsed = Parsed::read("update", rest);
            Verb::Update { resources: parsed.last(&["resources", "r"]).map(OsStr::to_owned), id: parsed.id() }
        }
        b"state" => Verb::State(first(rest, "state")),
        b"list" => Verb::List,
        b"pause" => Verb::Brief(first(rest, "pause")),
        b"resume" => Verb::Resume(first(rest, "resume")),
        _ => Verb::Other,
    }
}

fn create_args(verb: &str, rest: &[OsString]) -> CreateArgs {
    let parsed = Parsed::read(verb, rest);
    let path = |names| parsed.last(names).map(PathBuf::from);
    let mut doubt = None;
    let preserve_fds = parsed.number(&["preserve-fds"], &mut doubt);
    let doubt = parsed.unclear(verb).or(doubt);
    CreateArgs {
        bundle: path(&["bundle", "b"]),
        pid_file: path(&["pid-file"]),
        console_socket: path(&["console-socket"]),
        preserve_fds,
        detach: parsed.is_set(&["detach", "d"]),
        keep: parsed.is_set(&["keep"]),
        config_file: path(&["config", "f"]),
        others: parsed.others(&[
            "bundle",
            "b",
            "pid-file",
            "console-socket",
            "preserve-fds",
            "detach",
            "d",
            "keep",
            "no-subreaper",
        ]),
        help: parsed.is_set(&["help", "h", "?", "usage"]),
        id: if parsed.words.len() == 1 { parsed.id() } else { OsString::new() },
        doubt,
    }
}

fn exec_args(rest: &[OsString]) -> ExecArgs {
    let parsed = Parsed::read("exec", rest);
    let word = |names| parsed.last(names).map(OsStr::to_owned);
    let mut doubt = None;
    let preserve_fds = parsed.number(&["preserve-fds"], &mut doubt);
    let doubt = parsed.unclear("exec").or(doubt);
    ExecArgs {
        process: parsed.last(&["process", "p"]).map(PathBuf::from),
        cwd: word(&["cwd"]),
        env: parsed.all(&["env", "e"]),
        tty: parsed.is_set(&["tty", "t"]),
        user: word(&["user", "u"]),
        additional_gids: parsed.all(&["additional-gids", "g"]),
        process_label: word(&["process-label"]),
        apparmor: word(&["apparmor"]),
        no_new_privs: parsed.flags.iter().any(|f| f.0 == b"no-new-privs").then(|| parsed.is_set(&["no-new-privs"])),
        caps: parsed.all(&["cap", "c"]),
        preserve_fds,
        others: parsed.others(&[
            "process",
            "p",
            "cwd",
            "env",
            "e",
            "tty",
            "t",
            "user",
            "u",
            "additional-gids",
            "g",
            "process-label",
            "apparmor",
            "no-new-privs",
            "cap",
            "c",
        ]),
        args: parsed.words.iter().skip(1).map(|w| (*w).clone()).collect(),
        id: parsed.id(),
        doubt,
    }
}
