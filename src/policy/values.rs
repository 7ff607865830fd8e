//! The words and numbers of config.toml and of annotations: sizes, durations, limits, scratch lists.
//!
//! Owns: one parser per kind of value, shared by both, each with bounds. Must not: know keys, files or who is asking.
//! Errors are plain sentences that say what was expected; the caller adds which key and where.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::suggest::{quote, remedy};
use super::{ExecRule, Mode, Response, RestartLimit, RootfsKind, Scratch};

/// What a parser says when it refuses: what was found, what was expected.
pub type Parsed<T> = Result<T, String>;

/// Longest value that is looked at, in bytes.
pub const MAX_VALUE_LEN: usize = 4096;
/// Most scratch mounts of one container.
pub const MAX_SCRATCH: usize = 32;
/// Largest size that is accepted anywhere: 1 TiB.
pub const MAX_SIZE_BYTES: u64 = 1 << 40;
/// Smallest tmpfs that is worth mounting: 64 KiB.
pub const MIN_SIZE_BYTES: u64 = 64 << 10;
const DAY: u64 = 24 * 3600;

/// A size: bytes, or a whole number with `k`, `m` or `g` (powers of 1024; `64m`, `64MiB` and `64mb` are the same).
///
/// # Errors
/// When it is not of that form or over 1 TiB.
pub fn size(text: &str) -> Parsed<u64> {
    let bad = || format!("{} is not a size; write bytes or a number with k, m or g, e.g. \"64m\"", quote(text));
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let number: u64 = lower[..end].parse().map_err(|_| bad())?;
    let shift = match &lower[end..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(bad()),
    };
    let bytes = number.checked_mul(1 << shift).filter(|b| *b <= MAX_SIZE_BYTES);
    bytes.ok_or_else(|| format!("{} is more than the largest size, 1024g", quote(text)))
}

/// A duration: whole numbers with `ms`, `s`, `m`, `h` or `d`, each unit once, largest first: `90s`, `1h30m`.
///
/// # Errors
/// When it is not of that form or over ten years.
pub fn duration(text: &str) -> Parsed<Duration> {
    let bad = || format!("{} is not a duration; write e.g. \"90s\", \"10m\" or \"1h30m\"", quote(text));
    const UNITS: [(&str, u64); 5] = [("d", DAY * 1000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let (mut rest, mut next_unit, mut total_ms) = (text, 0, 0u64);
    if rest.is_empty() || text.len() > 64 {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let at = UNITS.iter().position(|(name, _)| *name == &rest[..letters]).ok_or_else(bad)?;
        if at < next_unit {
            return Err(bad());
        }
        next_unit = at + 1;
        rest = &rest[letters..];
        let ms = number.checked_mul(UNITS[at].1).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(bad)?;
        total_ms = ms;
    }
    if total_ms > 3650 * DAY * 1000 {
        return Err(format!("{} is longer than ten years", quote(text)));
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration so that [`duration`] reads it back; zero is `0s`. Below a millisecond nothing is kept.
pub fn show_duration(value: Duration) -> String {
    let ms = value.as_millis() as u64;
    let parts = [
        (ms / (DAY * 1000), "d"),
        (ms / 3_600_000 % 24, "h"),
        (ms / 60_000 % 60, "m"),
        (ms / 1000 % 60, "s"),
        (ms % 1000, "ms"),
    ];
    let shown: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if shown.is_empty() { "0s".to_string() } else { shown }
}

/// `mode`: `off`, `learn`, `observe`, `auto` or `enforce`.
///
/// # Errors
/// For another word.
pub fn mode(text: &str) -> Parsed<Mode> {
    match text {
        "off" => Ok(Mode::Off),
        "learn" => Ok(Mode::Learn),
        "observe" => Ok(Mode::Observe),
        "enforce" => Ok(Mode::Enforce),
        "auto" => Ok(Mode::Auto),
        _ => {
            let known = ["off", "learn", "observe", "auto", "enforce"];
            Err(format!("{} is not a mode; {}", quote(text), remedy(text, &known)))
        }
    }
}

/// `rootfs`: `sealed`, `tripwire` or `engine`.
///
/// # Errors
/// For another word.
pub fn rootfs(text: &str) -> Parsed<RootfsKind> {
    match text {
        "sealed" => Ok(RootfsKind::Sealed),
        "tripwire" => Ok(RootfsKind::Tripwire),
        "engine" => Ok(RootfsKind::Engine),
        _ => {
            Err(format!("{} is not a kind of rootfs; {}", quote(text), remedy(text, &["sealed", "tripwire", "engine"])))
        }
    }
}

/// `on-write`: `report`, `pause`, `stop` or `restart`.
///
/// # Errors
/// For another word.
pub fn response(text: &str) -> Parsed<Response> {
    match text {
        "report" => Ok(Response::Report),
        "pause" => Ok(Response::Pause),
        "stop" => Ok(Response::Stop),
        "restart" => Ok(Response::Restart),
        _ => {
            Err(format!("{} is not a response; {}", quote(text), remedy(text, &["report", "pause", "stop", "restart"])))
        }
    }
}

/// `exec`: `allow`, `profile` or `deny`.
///
/// # Errors
/// For another word.
pub fn exec(text: &str) -> Parsed<ExecRule> {
    match text {
        "allow" => Ok(ExecRule::Allow),
        "profile" => Ok(ExecRule::Profile),
        "deny" => Ok(ExecRule::Deny),
        _ => Err(format!("{} is no rule for exec; {}", quote(text), remedy(text, &["allow", "profile", "deny"]))),
    }
}

/// A chance: more than 0 and at most 1, in millionths.
///
/// # Errors
/// When it is out of bounds, or no number.
pub fn chance(number: f64) -> Parsed<u32> {
    let ppm = (number * 1e6).round();
    if !(1.0..=1e6).contains(&ppm) {
        return Err(format!("{number} is no chance; write a number over 0 and up to 1, e.g. 0.01"));
    }
    Ok(ppm as u32)
}

/// `escalate-to`: `stop` or `pause`.
///
/// # Errors
/// For another word: `report` and `restart` would let a storm go on.
pub fn escalation(text: &str) -> Parsed<Response> {
    match response(text) {
        Ok(r @ (Response::Stop | Response::Pause)) => Ok(r),
        _ => Err(format!("{} can't end a storm of restarts; use \"stop\" or \"pause\"", quote(text))),
    }
}

/// `restart-limit`: `COUNT/WINDOW`, e.g. `5/60s`; 1 to 1000 restarts in 1 s to 24 h.
///
/// # Errors
/// When it is not of that form or out of bounds.
pub fn restart_limit(text: &str) -> Parsed<RestartLimit> {
    let bad = || format!("{} is not a restart limit; write restarts per time, e.g. \"5/60s\"", quote(text));
    let (count, window) = text.split_once('/').ok_or_else(bad)?;
    if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let count = count.parse().ok().filter(|n| *n <= 1000).ok_or("the limit is at most 1000 restarts".to_string())?;
    if count == 0 {
        return Err("a limit of 0 restarts is no restart at all; use on-write \"stop\" instead".to_string());
    }
    let window = duration(window)?;
    if window < Duration::from_secs(1) || window > Duration::from_secs(DAY) {
        return Err(format!("the window of {} must be between 1s and 24h", quote(text)));
    }
    Ok(RestartLimit { count, window })
}

/// `renew-every`: a duration between 1 s and 365 d, or `off`.
///
/// # Errors
/// When it is neither.
pub fn renew_every(text: &str) -> Parsed<Option<Duration>> {
    if text == "off" {
        return Ok(None);
    }
    let every = duration(text).map_err(|e| format!("{e}, or \"off\""))?;
    if every < Duration::from_secs(1) || every > Duration::from_secs(365 * DAY) {
        return Err(format!("{} is out of bounds; write between 1s and 365d, or \"off\"", quote(text)));
    }
    Ok(Some(every))
}

/// `scratch`: a comma-separated list of `PATH[:SIZE][:exec]`; empty means none. At most [`MAX_SCRATCH`].
///
/// # Errors
/// When an entry is not of that form, comes twice, or can't be a mount point of ours (`/`, `/proc`, `/sys`).
pub fn scratch(text: &str) -> Parsed<Vec<Scratch>> {
    if text.len() > MAX_VALUE_LEN {
        return Err(format!("the list is longer than {MAX_VALUE_LEN} bytes"));
    }
    let mut list: Vec<Scratch> = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty() || !text.trim().is_empty()) {
        let one = scratch_entry(entry)?;
        if list.iter().any(|s| s.path == one.path) {
            return Err(format!("{} comes twice", quote(&one.path.to_string_lossy())));
        }
        list.push(one);
        if list.len() > MAX_SCRATCH {
            return Err(format!("the list names more than {MAX_SCRATCH} paths"));
        }
    }
    Ok(list)
}

fn scratch_entry(entry: &str) -> Parsed<Scratch> {
    let mut words = entry.split(':');
    let path = words.next().unwrap_or_default();
    let mut one = Scratch { path: scratch_path(path)?, size_bytes: None, exec: false, learnt: false };
    for word in words {
        if word == "exec" && !one.exec {
            one.exec = true;
        } else if one.size_bytes.is_none() && word.starts_with(|c: char| c.is_ascii_digit()) {
            let bytes = size(word)?;
            if bytes < MIN_SIZE_BYTES {
                return Err(format!("{} in {} is too small; use at least 64k", quote(word), quote(entry)));
            }
            one.size_bytes = Some(bytes);
        } else {
            return Err(format!("{} in {} is neither a size nor \"exec\"", quote(word), quote(entry)));
        }
    }
    Ok(one)
}

fn scratch_path(text: &str) -> Parsed<PathBuf> {
    let bad = |why: &str| Err(format!("{} is not a scratch path: {why}", quote(text)));
    if !text.starts_with('/') {
        return bad("it must be absolute, e.g. \"/tmp\"");
    }
    if text.len() > 1024 || text.chars().any(char::is_control) {
        return bad("it is too long or has control characters");
    }
    // Compared as text, so that `//`, `/./`, `/../` and a trailing slash can't hide what a path means.
    let plain: PathBuf = Path::new(text).components().filter(|c| !matches!(c, Component::ParentDir)).collect();
    if plain.as_os_str() != text {
        return bad("write it without '.', '..', '//' or a slash at the end");
    }
    if text == "/" || ["/proc", "/sys"].iter().any(|p| plain.starts_with(p)) {
        return bad("a tmpfs can't take the place of /, /proc or /sys");
    }
    Ok(plain)
}

/// Whether a scratch mount there would hide what the image's author put under a system folder.
pub fn is_protected(path: &Path) -> bool {
    let Some(Component::Normal(top)) = path.components().nth(1) else { return true };
    let top = top.to_string_lossy();
    ["bin", "sbin", "usr", "etc", "proc", "sys", "dev", "boot"].contains(&top.as_ref()) || top.starts_with("lib")
}

#[cfg(test)]
mod tests;
