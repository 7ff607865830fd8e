//! The node's policy: `/etc/lithify/config.toml`.
//!
//! Owns: where the file is, its meaning and its defaults. Must not: start anything, or accept a file in part. How a
//! document is walked, and how its mistakes are told, is in [`super::document`].

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::document;
use super::{Dirs, ExecRule, Mode, Response, RestartLimit, RootfsKind, Scratch};

/// Where the file is when neither `--config` nor [`CONFIG_ENV`] says otherwise.
pub const DEFAULT_PATH: &str = "/etc/lithify/config.toml";
/// Environment variable that names another file.
pub const CONFIG_ENV: &str = "LITHIFY_CONFIG";
/// A larger file is refused, in bytes.
pub const MAX_LEN: u64 = 1 << 20;

/// What annotations may loosen, by the name in `allow-loosen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loosen {
    /// `mode`: to one that does less.
    Mode,
    /// `rootfs`: from `sealed` to `tripwire` or `engine`, from `tripwire` to `engine`.
    Rootfs,
    /// `on-write`: to a weaker response.
    OnWrite,
    /// `on-refused-write`: to a weaker response.
    OnRefusedWrite,
    /// `on-refused-syscall`: to a weaker response.
    OnRefusedSyscall,
    /// `exec`: to a wider rule.
    Exec,
    /// `restart-limit`: more restarts, or more of them per time.
    RestartLimit,
    /// `renew-every`: less often, or never.
    RenewEvery,
    /// `scratch`: paths below system folders.
    Scratch,
    /// `scratch-exec`: programs in a scratch mount may be executed.
    ScratchExec,
}

impl Loosen {
    /// Every name that `allow-loosen` takes.
    pub const NAMES: [(&'static str, Loosen); 10] = [
        ("mode", Loosen::Mode),
        ("rootfs", Loosen::Rootfs),
        ("on-write", Loosen::OnWrite),
        ("on-refused-write", Loosen::OnRefusedWrite),
        ("on-refused-syscall", Loosen::OnRefusedSyscall),
        ("exec", Loosen::Exec),
        ("restart-limit", Loosen::RestartLimit),
        ("renew-every", Loosen::RenewEvery),
        ("scratch", Loosen::Scratch),
        ("scratch-exec", Loosen::ScratchExec),
    ];

    /// The name in `allow-loosen`.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, l)| *l == self).map_or("", |(name, _)| name)
    }
}

/// Limits of the folder with kept diffs (`[evidence]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceLimits {
    /// Most files kept.
    pub max_files: u32,
    /// Most bytes kept, all files together.
    pub max_bytes: u64,
    /// Most bytes of one file.
    pub max_file_bytes: u64,
}

impl Default for EvidenceLimits {
    /// 100 files, 1 GiB, 64 MiB each.
    fn default() -> Self {
        EvidenceLimits { max_files: 100, max_bytes: 1 << 30, max_file_bytes: 64 << 20 }
    }
}

/// Limits of the journal (`[journal]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLimits {
    /// A file that would grow past this is rotated.
    pub max_bytes: u64,
    /// Files kept, the one being written among them.
    pub max_files: u32,
}

impl Default for JournalLimits {
    fn default() -> Self {
        JournalLimits { max_bytes: 16 << 20, max_files: 8 }
    }
}

/// How learning goes (`[learning]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learning {
    /// Length of an observation window: what was seen is counted by windows.
    pub window: Duration,
    /// How often what was seen so far is saved: a crash loses at most this.
    pub interval: Duration,
    /// Most different paths, programs, peers and arguments that the kernel keeps for one container; more are counted as lost.
    pub table_entries: u32,
}

impl Default for Learning {
    /// 60 s, 5 min, 16,384 entries.
    fn default() -> Self {
        Learning { window: Duration::from_secs(60), interval: Duration::from_secs(300), table_entries: 16_384 }
    }
}

/// How mode `auto` goes from learning over observing to enforcing (`[auto]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auto {
    /// Learning is over once the chance that the next window shows something new is at most this, in millionths.
    pub risk_ppm: u32,
    /// And not before so many generations.
    pub generations: u32,
    /// Observing is over after so many generations that showed nothing new.
    pub observe_generations: u32,
    /// And so many windows in which they did something. A new revision begins with what older ones were seen to do; this is
    /// how much it has to do itself.
    pub observe_windows: u32,
    /// What lives this long has been through its start-up. A refusal before is one of the start-up.
    pub startup: Duration,
    /// For how long one replica enforces before the others do; zero: all at once.
    pub canary_for: Duration,
}

impl Default for Auto {
    /// 1 %, 2 and 1 generations, 60 windows, 30 s, no canary.
    fn default() -> Self {
        Auto {
            risk_ppm: 10_000,
            generations: 2,
            observe_generations: 1,
            observe_windows: 60,
            startup: Duration::from_secs(30),
            canary_for: Duration::ZERO,
        }
    }
}

/// The node's settings, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Low-level runtimes, names or absolute paths; the first found is used.
    pub runtimes: Vec<PathBuf>,
    /// Live state.
    pub state_dir: PathBuf,
    /// Events and evidence.
    pub data_dir: PathBuf,
    /// How much is done.
    pub mode: Mode,
    /// Root filesystem; while learning and observing it holds only if the file sets it.
    pub rootfs: RootfsKind,
    /// Answer to a breach; `None`: not set, which is `restart`, and `report` where the rootfs is the engine's or nothing is
    /// enforced.
    pub on_write: Option<Response>,
    /// Answer to a write that is refused; `None`: not set, which is `report`, and `on_write` once a profile is enforced.
    pub on_refused_write: Option<Response>,
    /// Answer to a system call, a capability or a program that is refused; `None`: likewise.
    pub on_refused_syscall: Option<Response>,
    /// Who may run programs in a container that runs.
    pub exec: ExecRule,
    /// How often `restart` may be the answer.
    pub restart_limit: RestartLimit,
    /// What follows at the limit: `Stop` or `Pause`.
    pub escalate_to: Response,
    /// A fresh generation on a schedule.
    pub renew_every: Option<Duration>,
    /// Scratch mounts of every container.
    pub scratch: Vec<Scratch>,
    /// Size limit of a scratch mount that names none.
    pub scratch_size_bytes: u64,
    /// Size limit of a tripwire's upper.
    pub tripwire_size_bytes: u64,
    /// What annotations may loosen.
    pub allow_loosen: BTreeSet<Loosen>,
    /// What the file sets: only that binds annotations, a default does not.
    pub binding: BTreeSet<Loosen>,
    /// Refuse to start in `enforce` without a profile.
    pub require_profile: bool,
    /// Whether fs.inotify and fs.fanotify limits may be raised.
    pub raise_limits: bool,
    /// `[evidence]`.
    pub evidence: EvidenceLimits,
    /// `[journal]`.
    pub journal: JournalLimits,
    /// `[learning]`.
    pub learning: Learning,
    /// `[auto]`.
    pub auto: Auto,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            runtimes: vec!["runc".into(), "crun".into()],
            state_dir: "/run/lithify".into(),
            data_dir: "/var/lib/lithify".into(),
            mode: Mode::Auto,
            rootfs: RootfsKind::Sealed,
            on_write: None,
            on_refused_write: None,
            on_refused_syscall: None,
            exec: ExecRule::Allow,
            restart_limit: RestartLimit { count: 5, window: Duration::from_secs(60) },
            escalate_to: Response::Stop,
            renew_every: None,
            scratch: Vec::new(),
            scratch_size_bytes: 64 << 20,
            tripwire_size_bytes: 64 << 20,
            allow_loosen: BTreeSet::new(),
            binding: BTreeSet::new(),
            require_profile: false,
            raise_limits: false,
            evidence: EvidenceLimits::default(),
            journal: JournalLimits::default(),
            learning: Learning::default(),
            auto: Auto::default(),
        }
    }
}

/// `--mode`, `--rootfs` and `--on-write` of the lithify program: the node's settings for one registered runtime, set by
/// whoever registered it; they take the place of what config.toml says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--mode`.
    pub mode: Option<Mode>,
    /// `--rootfs`.
    pub rootfs: Option<RootfsKind>,
    /// `--on-write`.
    pub on_write: Option<Response>,
}

impl Overrides {
    /// Reads the flags' words.
    ///
    /// # Errors
    /// Names the flag whose word is none of its values.
    pub fn from_flags(mode: Option<&str>, rootfs: Option<&str>, on_write: Option<&str>) -> Result<Overrides> {
        fn read<T>(flag: &str, word: Option<&str>, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>> {
            let value = word.map(parse).transpose();
            value.map_err(|error| anyhow::anyhow!("failed to read the command line: --{flag}: {error}"))
        }
        Ok(Overrides {
            mode: read("mode", mode, super::values::mode)?,
            rootfs: read("rootfs", rootfs, super::values::rootfs)?,
            on_write: read("on-write", on_write, super::values::response)?,
        })
    }
}

/// One mistake in a config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl Config {
    /// The node's settings: from `cli` (`--config`), else the file that [`CONFIG_ENV`] names, else [`DEFAULT_PATH`], which
    /// may be missing.
    ///
    /// # Errors
    /// When a file that was named is missing, or a file can't be read or has a mistake.
    pub fn load(cli: Option<&Path>) -> Result<Config> {
        match Self::load_readable(cli) {
            (config, None) => Ok(config),
            (_, Some(error)) => Err(error),
        }
    }

    /// As [`Config::load`], as far as it can be read, and why that is not all: where containers are has to be known to whoever
    /// is to stop, enter or look at one, whatever somebody has misspelt since.
    pub fn load_readable(cli: Option<&Path>) -> (Config, Option<anyhow::Error>) {
        let (path, explicit) = Self::locate(cli, std::env::var_os(CONFIG_ENV).as_deref().map(Path::new));
        if !explicit && matches!(path.symlink_metadata(), Err(e) if e.kind() == std::io::ErrorKind::NotFound) {
            return (Config::default(), None);
        }
        let text = match Self::read(&path) {
            Ok(text) => text,
            Err(error) => return (Config::default(), Some(error)),
        };
        let (config, mistakes) = document::walk(&text);
        let more = match mistakes.len() {
            0 | 1 => String::new(),
            n => format!(" ({} more; run 'lithifyctl config check {}')", n - 1, path.display()),
        };
        let error = mistakes
            .first()
            .map(|first| anyhow::anyhow!("failed to read configuration {}: {first}{more}", path.display()));
        (config, error)
    }

    /// Which file [`Config::load`] reads, and whether someone named it. An empty environment variable names nothing.
    pub fn locate(cli: Option<&Path>, env: Option<&Path>) -> (PathBuf, bool) {
        match cli.or(env.filter(|p| !p.as_os_str().is_empty())) {
            Some(path) => (path.to_path_buf(), true),
            None => (DEFAULT_PATH.into(), false),
        }
    }

    /// Reads a config file's text, at most [`MAX_LEN`].
    ///
    /// # Errors
    /// When it can't be read, is too large, is no regular file, or is not UTF-8.
    pub fn read(path: &Path) -> Result<String> {
        let context = || format!("failed to read configuration {}", path.display());
        // Without O_NONBLOCK, a fifo in the file's place would stop every container's start.
        let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
        let file = file.with_context(context)?;
        if !file.metadata().with_context(context)?.is_file() {
            bail!("{}: it is not a regular file", context());
        }
        let mut bytes = Vec::new();
        file.take(MAX_LEN + 1).read_to_end(&mut bytes).with_context(context)?;
        if bytes.len() as u64 > MAX_LEN {
            bail!("{}: it is larger than {MAX_LEN} bytes", context());
        }
        String::from_utf8(bytes).with_context(context)
    }

    /// Reads settings from the text of a config file.
    ///
    /// # Errors
    /// Every mistake in it, by line.
    pub fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
        let (config, mistakes) = document::walk(text);
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }

    /// The folders of the running system.
    pub fn dirs(&self) -> Dirs {
        Dirs { state: self.state_dir.clone(), data: self.data_dir.clone() }
    }
}
