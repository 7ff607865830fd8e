//! The verb of a call and its arguments, as far as they matter to us.
//!
//! Owns: which of a verb's flags have a meaning here. Must not: tell flags from words, which is [`Parsed`]'s.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::parsed::Parsed;

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
        /// The signal is SIGKILL.
        sigkill: bool,
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
    /// No command at all but help on all of them.
    Help,
    /// Everything else: forwarded, and none of our business.
    Other,
}

impl Verb {
    /// Reads what stands behind the verb's word.
    pub(super) fn read(verb: &[u8], rest: &[OsString]) -> Verb {
        let first = |rest: &[OsString], verb| Parsed::read(verb, rest).id();
        match verb {
            b"create" => Verb::Create(create_args("create", rest)),
            b"run" => Verb::Run(create_args("run", rest)),
            b"restore" => Verb::Restore(create_args("restore", rest)),
            b"exec" => Verb::Exec(exec_args(rest)),
            b"start" => Verb::Start(first(rest, "start")),
            b"kill" => {
                let parsed = Parsed::read("kill", rest);
                let signal = parsed.words.get(1).map(|word| word.to_string_lossy().to_uppercase());
                let sigkill = signal.is_some_and(|signal| matches!(signal.as_str(), "9" | "KILL" | "SIGKILL"));
                Verb::Kill { all: parsed.is_set(&["all", "a"]), id: parsed.id(), sigkill }
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
            b"help" | b"h" if rest.is_empty() => Verb::Help,
            _ => Verb::Other,
        }
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
