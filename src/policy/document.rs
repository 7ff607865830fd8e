//! Walks a config document against the table of known keys, and collects every mistake with its line.
//!
//! Owns: the tables of keys ([`KEYS`], [`SECTIONS`]). Must not: stop at the first mistake, or read a file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::config::{Config, Loosen, Mistake};
use super::suggest::{quote, remedy};
use super::values::{self, Parsed};

type Value<'a> = Spanned<DeValue<'a>>;
/// A key's name, what it means in a few words, and how its value gets into the settings.
type Key = (&'static str, &'static str, fn(&mut Config, &Value<'_>) -> Parsed<()>);

/// Keys at the top of the file.
pub const KEYS: &[Key] = &[
    ("runtimes", "low-level runtimes, names or absolute paths; the first found is used", |c, v| {
        c.runtimes = runtimes(v)?;
        Ok(())
    }),
    ("state-dir", "folder of live state", |c, v| set(&mut c.state_dir, dir(v))),
    ("data-dir", "folder of events, evidence and profiles", |c, v| set(&mut c.data_dir, dir(v))),
    ("mode", "off, learn, observe, auto or enforce", |c, v| {
        c.binding.insert(Loosen::Mode);
        set(&mut c.mode, string(v).and_then(values::mode))
    }),
    ("rootfs", "sealed, tripwire or engine", |c, v| {
        c.binding.insert(Loosen::Rootfs);
        set(&mut c.rootfs, string(v).and_then(values::rootfs))
    }),
    ("on-write", "report, pause, stop or restart", |c, v| {
        c.binding.insert(Loosen::OnWrite);
        set(&mut c.on_write, string(v).and_then(values::response).map(Some))
    }),
    ("on-refused-write", "report, pause, stop or restart, for writes that are refused", |c, v| {
        c.binding.insert(Loosen::OnRefusedWrite);
        set(&mut c.on_refused_write, string(v).and_then(values::response).map(Some))
    }),
    ("on-refused-syscall", "the same, for system calls, capabilities and programs that are refused", |c, v| {
        c.binding.insert(Loosen::OnRefusedSyscall);
        set(&mut c.on_refused_syscall, string(v).and_then(values::response).map(Some))
    }),
    ("exec", "allow, profile or deny programs that are run in a running container", |c, v| {
        c.binding.insert(Loosen::Exec);
        set(&mut c.exec, string(v).and_then(values::exec))
    }),
    ("restart-limit", "restarts per time, e.g. \"5/60s\"", |c, v| {
        c.binding.insert(Loosen::RestartLimit);
        set(&mut c.restart_limit, string(v).and_then(values::restart_limit))
    }),
    ("escalate-to", "what follows at the limit: stop or pause", |c, v| {
        set(&mut c.escalate_to, string(v).and_then(values::escalation))
    }),
    ("renew-every", "a duration, or off", |c, v| {
        c.binding.insert(Loosen::RenewEvery);
        set(&mut c.renew_every, string(v).and_then(values::renew_every))
    }),
    ("scratch", "scratch mounts of every container, e.g. \"/tmp:64m,/run:exec\"", |c, v| {
        set(&mut c.scratch, string(v).and_then(values::scratch))
    }),
    ("scratch-size", "size of a scratch mount that names none", |c, v| set(&mut c.scratch_size_bytes, tmpfs_size(v))),
    ("tripwire-size", "size of a tripwire's upper", |c, v| set(&mut c.tripwire_size_bytes, tmpfs_size(v))),
    ("allow-loosen", "what annotations may loosen, e.g. [\"rootfs\"]", |c, v| {
        c.allow_loosen = loosen(v)?.into_iter().collect();
        Ok(())
    }),
    ("require-profile", "true refuses starts in enforce without a profile", |c, v| {
        set(&mut c.require_profile, boolean(v))
    }),
    ("raise-limits", "true lets lithify raise fs.inotify and fs.fanotify limits", |c, v| {
        set(&mut c.raise_limits, boolean(v))
    }),
    ("evidence", "limits of kept diffs", |_, _| Ok(())),
    ("journal", "limits of the journal", |_, _| Ok(())),
    ("learning", "how learning goes", |_, _| Ok(())),
    ("auto", "how auto goes from learning to enforcing", |_, _| Ok(())),
];

/// Keys of `[evidence]`.
pub const EVIDENCE_KEYS: &[Key] = &[
    ("max-files", "most diffs kept", |c, v| set(&mut c.evidence.max_files, count(v, 0, 100_000))),
    ("max-bytes", "most bytes kept, all together", |c, v| set(&mut c.evidence.max_bytes, size(v, 0))),
    ("max-file-bytes", "most bytes of one diff", |c, v| set(&mut c.evidence.max_file_bytes, size(v, 0))),
];

/// Keys of `[journal]`. A file holds at least a few events, or rotation would lose what was just written.
pub const JOURNAL_KEYS: &[Key] = &[
    ("max-bytes", "a larger file is rotated", |c, v| set(&mut c.journal.max_bytes, size(v, 256 << 10))),
    ("max-files", "files kept, the current one among them", |c, v| set(&mut c.journal.max_files, count(v, 2, 1000))),
];

/// Keys of `[learning]`.
pub const LEARNING_KEYS: &[Key] = &[
    ("window", "length of an observation window, 1s to 1h", |c, v| {
        set(&mut c.learning.window, duration(v, Duration::from_secs(1), Duration::from_secs(3600)))
    }),
    ("interval", "how often what was learnt is saved, 1s to 24h", |c, v| {
        set(&mut c.learning.interval, duration(v, Duration::from_secs(1), Duration::from_secs(24 * 3600)))
    }),
    ("table-entries", "most paths, programs, peers and arguments of one container in the kernel", |c, v| {
        set(&mut c.learning.table_entries, count(v, 256, 1 << 20))
    }),
];

/// Keys of `[auto]`.
pub const AUTO_KEYS: &[Key] = &[
    ("risk", "the chance of something new in the next window at which learning is over, e.g. 0.01", |c, v| {
        set(&mut c.auto.risk_ppm, number(v).and_then(values::chance))
    }),
    ("generations", "and not before so many, 1 to 1000", |c, v| set(&mut c.auto.generations, count(v, 1, 1000))),
    ("observe-generations", "generations with nothing new before it is enforced, 1 to 1000", |c, v| {
        set(&mut c.auto.observe_generations, count(v, 1, 1000))
    }),
    ("observe-windows", "and windows of theirs with work and nothing new in them, 1 to 100000", |c, v| {
        set(&mut c.auto.observe_windows, count(v, 1, 100_000))
    }),
    ("startup", "what a start-up takes, 1s to 1h", |c, v| {
        set(&mut c.auto.startup, duration(v, Duration::from_secs(1), Duration::from_secs(3600)))
    }),
    ("canary-for", "how long one replica enforces before the others, 0s (not at all) to 30d", |c, v| {
        set(&mut c.auto.canary_for, duration(v, Duration::ZERO, Duration::from_secs(30 * 24 * 3600)))
    }),
];

/// The tables by their name.
pub const SECTIONS: [(&str, &[Key]); 4] =
    [("evidence", EVIDENCE_KEYS), ("journal", JOURNAL_KEYS), ("learning", LEARNING_KEYS), ("auto", AUTO_KEYS)];

/// Reads a document into settings, with every mistake in it, in the order of their lines: what is wrong is as it is by default.
pub(super) fn walk(text: &str) -> (Config, Vec<Mistake>) {
    let mut found = Walk { text, mistakes: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    for e in errors {
        found.at(e.span().unwrap_or(0..0), e.message().to_string());
    }
    let mut config = Config::default();
    if found.mistakes.is_empty() {
        found.table(&mut config, document.get_ref(), KEYS, "");
        for (name, keys) in SECTIONS {
            let Some(value) = document.get_ref().get(name) else { continue };
            match value.get_ref() {
                DeValue::Table(table) => found.table(&mut config, table, keys, name),
                other => found.at(value.span(), format!("{name} is a {}; write it as a table, [{name}]", kind(other))),
            }
        }
        found.across(&config, document.get_ref());
    } else {
        // After a syntax error the rest of the table may be a guess of the parser's: what more there is to say of it would mislead.
        let mut unsaid = Walk { text, mistakes: Vec::new() };
        unsaid.table(&mut config, document.get_ref(), KEYS, "");
    }
    found.mistakes.sort_by_key(|m| m.line);
    found.mistakes.truncate(100);
    (config, found.mistakes)
}

struct Walk<'t> {
    text: &'t str,
    mistakes: Vec<Mistake>,
}

impl Walk<'_> {
    fn at(&mut self, span: Range<usize>, message: String) {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        self.mistakes.push(Mistake { line, message });
    }

    fn table(&mut self, config: &mut Config, table: &DeTable<'_>, keys: &[Key], section: &str) {
        let names: Vec<&str> = keys.iter().map(|(name, ..)| *name).collect();
        let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            match keys.iter().find(|(known, ..)| *known == name) {
                Some((_, _, apply)) => {
                    if let Err(message) = apply(config, value) {
                        self.at(value.span(), format!("{prefix}{name}: {message}"));
                    }
                }
                None => {
                    let message =
                        format!("unknown key {}; {}", quote(&format!("{prefix}{name}")), remedy(name, &names));
                    self.at(key.span(), message);
                }
            }
        }
    }

    /// What no key shows by itself.
    fn across(&mut self, config: &Config, document: &DeTable<'_>) {
        let span = |name: &str| document.get(name).map_or(0..0, |v| v.span());
        if config.evidence.max_file_bytes > config.evidence.max_bytes {
            let message =
                "evidence.max-file-bytes is more than evidence.max-bytes; raise max-bytes or lower max-file-bytes";
            self.at(span("evidence"), message.to_string());
        }
        if config.rootfs == super::RootfsKind::Engine && config.on_write == Some(super::Response::Restart) {
            let message = "on-write: \"restart\" can't make the engine's own rootfs pristine; use rootfs \"sealed\" or \
                           \"tripwire\", or another response";
            self.at(span("on-write"), message.to_string());
        }
        for (name, response) in
            [("on-refused-write", config.on_refused_write), ("on-refused-syscall", config.on_refused_syscall)]
        {
            if config.rootfs == super::RootfsKind::Engine && response == Some(super::Response::Restart) {
                let message =
                    format!("{name}: \"restart\" can't make the engine's own rootfs pristine; use another response");
                self.at(span(name), message);
            }
        }
        if config.learning.interval < config.learning.window {
            let message = "learning.interval is shorter than learning.window; what was learnt is saved when a window ends: \
                           raise interval or shorten window";
            self.at(span("learning"), message.to_string());
        }
        if config.state_dir == config.data_dir {
            self.at(span("data-dir"), "data-dir: it is the same folder as state-dir; use two".to_string());
        }
    }
}

fn set<T>(place: &mut T, value: Parsed<T>) -> Parsed<()> {
    *place = value?;
    Ok(())
}

fn kind(value: &DeValue<'_>) -> &'static str {
    value.type_str()
}

fn string<'v>(value: &'v Value<'_>) -> Parsed<&'v str> {
    let v = value.get_ref();
    v.as_str().ok_or_else(|| format!("expected a string in quotes, found a value of type {}", kind(v)))
}

fn boolean(value: &Value<'_>) -> Parsed<bool> {
    let v = value.get_ref();
    v.as_bool().ok_or_else(|| format!("expected true or false, without quotes, found a value of type {}", kind(v)))
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str().trim_start_matches('+'), number.radix()).ok()
}

fn number(value: &Value<'_>) -> Parsed<f64> {
    let v = value.get_ref();
    let found = match (v.as_float(), integer(v)) {
        (Some(float), _) => float.as_str().parse().ok(),
        (None, whole) => whole.map(|n| n as f64),
    };
    found.ok_or_else(|| format!("expected a number without quotes, found a value of type {}", kind(v)))
}

fn count(value: &Value<'_>, min: u32, max: u32) -> Parsed<u32> {
    let number = integer(value.get_ref()).and_then(|n| u32::try_from(n).ok());
    number
        .filter(|n| (min..=max).contains(n))
        .ok_or_else(|| format!("expected a whole number between {min} and {max}, without quotes"))
}

fn size(value: &Value<'_>, min: u64) -> Parsed<u64> {
    let bytes = match (integer(value.get_ref()), value.get_ref().as_str()) {
        (Some(n), _) => values::size(&n.to_string())?,
        (None, Some(text)) => values::size(text)?,
        (None, None) => return Err("expected a size, e.g. \"64m\"".to_string()),
    };
    if bytes < min {
        return Err(format!("{bytes} bytes is too small; use at least {}k", min >> 10));
    }
    Ok(bytes)
}

fn duration(value: &Value<'_>, min: Duration, max: Duration) -> Parsed<Duration> {
    let text = string(value)?;
    let found = values::duration(text)?;
    if found < min || found > max {
        let (min, max) = (values::show_duration(min), values::show_duration(max));
        return Err(format!("{} is out of bounds; write between {min} and {max}", quote(text)));
    }
    Ok(found)
}

fn tmpfs_size(value: &Value<'_>) -> Parsed<u64> {
    size(value, values::MIN_SIZE_BYTES)
}

fn dir(value: &Value<'_>) -> Parsed<PathBuf> {
    let text = string(value)?;
    let path = Path::new(text);
    let plain: PathBuf = path.components().filter(|c| *c != std::path::Component::ParentDir).collect();
    if !path.is_absolute() || plain != path || text == "/" || text.contains('\0') || text.len() > 1024 {
        return Err(format!("{} is not a folder's absolute path without '..', e.g. \"/var/lib/lithify\"", quote(text)));
    }
    Ok(plain)
}

fn list<'v, 'i>(value: &'v Value<'i>) -> Parsed<&'v toml::de::DeArray<'i>> {
    let v = value.get_ref();
    v.as_array().ok_or_else(|| format!("expected a list of strings, e.g. [\"…\"], found a value of type {}", kind(v)))
}

fn runtimes(value: &Value<'_>) -> Parsed<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in list(value)?.iter() {
        let text = string(entry)?;
        let name = !text.contains('/') && !text.is_empty() && text != "." && text != "..";
        if text.contains('\0') || !(name || Path::new(text).is_absolute()) {
            return Err(format!("{} is neither a program's name nor an absolute path", quote(text)));
        }
        if Path::new(text).file_name().is_some_and(|n| n == "lithify") {
            return Err("lithify can't be its own low-level runtime; name runc or crun".to_string());
        }
        all.push(PathBuf::from(text));
    }
    if all.is_empty() || all.len() > 16 {
        return Err("expected between 1 and 16 runtimes, e.g. [\"runc\", \"crun\"]".to_string());
    }
    Ok(all)
}

fn loosen(value: &Value<'_>) -> Parsed<Vec<Loosen>> {
    let names: Vec<&str> = Loosen::NAMES.iter().map(|(name, _)| *name).collect();
    let find = |text: &str| Loosen::NAMES.iter().find(|(name, _)| *name == text).map(|(_, l)| *l);
    list(value)?
        .iter()
        .map(|entry| {
            let text = string(entry)?;
            find(text).ok_or_else(|| format!("{} can't be loosened; {}", quote(text), remedy(text, &names)))
        })
        .collect()
}

#[cfg(test)]
mod tests;
