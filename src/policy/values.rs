//! The words and numbers of config.toml and of annotations: sizes, durations, limits, scratch lists.
//!
//! Owns: one parser per kind of value, shared by both, each with bounds. Must not: know keys, files or who is asking.
//! Errors are plain sentences that say what was expected; the caller adds which key and where.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::suggest::{quote, remedy};
use super::{Mode, Response, RestartLimit, RootfsKind, Scratch};

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

/// `mode`: `off`, `learn`, `observe` or `enforce`.
///
/// # Errors
/// For another word; `auto` says that this version does not have it.
pub fn mode(text: &str) -> Parsed<Mode> {
    match text {
        "off" => Ok(Mode::Off),
        "learn" => Ok(Mode::Learn),
        "observe" => Ok(Mode::Observe),
        "enforce" => Ok(Mode::Enforce),
        "auto" => {
            Err("mode \"auto\" is not supported by this version, which does not go from learning to enforcing by \
                       itself; use \"learn\", \"observe\", \"enforce\" or \"off\""
                .to_string())
        }
        _ => Err(format!("{} is not a mode; {}", quote(text), remedy(text, &["off", "learn", "observe", "enforce"]))),
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
    let mut one = Scratch { path: scratch_path(path)?, size_bytes: None, exec: false };
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_and_durations_that_people_write_are_read() {
        assert_eq!(size("64m"), Ok(64 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * DAY)));
        for text in ["", "m", "-1", "1.5g", "64 m", "64mm", "99999999999g", "+5", "1e3"] {
            assert!(size(text).is_err(), "{text}");
        }
        for text in ["", "60", "1m1h", "1s1s", "s", "-1s", "1 s", "99999999999999999999d", "9999d", "1é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_later_versions_are_refused_with_what_to_use() {
        let e = mode("auto").unwrap_err();
        assert!(e.contains("not supported by this version") && e.contains("\"enforce\""), "{e}");
        assert!(mode("lern").unwrap_err().contains("did you mean \"learn\"?"));
        assert!(mode("enfroce").unwrap_err().contains("did you mean \"enforce\"?"));
        assert!(rootfs("Sealed").unwrap_err().contains("did you mean \"sealed\"?"));
        assert!(escalation("restart").unwrap_err().contains("\"stop\" or \"pause\""));
    }

    #[test]
    fn a_restart_limit_has_bounds() {
        let want = RestartLimit { count: 5, window: Duration::from_secs(60) };
        assert_eq!(restart_limit("5/60s"), Ok(want));
        assert_eq!(restart_limit("5/1m"), Ok(want));
        for text in ["5", "0/60s", "1001/60s", "5/0s", "5/25h", "/60s", "5/", "+5/60s", "5/60"] {
            assert!(restart_limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn scratch_lists_take_sizes_and_exec_in_any_order() {
        let list = scratch("/tmp:64m,/run:exec, /data:exec:1g").unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!((list[0].size_bytes, list[0].exec), (Some(64 << 20), false));
        assert_eq!((list[1].size_bytes, list[1].exec), (None, true));
        assert_eq!((list[2].size_bytes, list[2].exec), (Some(1 << 30), true));
        assert_eq!(scratch(""), Ok(vec![]));
    }

    #[test]
    fn scratch_paths_that_mean_something_else_than_they_say_are_refused() {
        for text in [
            "tmp",
            "/",
            "/tmp/",
            "//tmp",
            "/tmp/../etc",
            "/tmp/./x",
            "/..",
            "/proc/x",
            "/sys",
            "/tmp,/tmp",
            "/tmp:4g:4g",
            "/tmp:noexec",
            "/tmp:",
            "/tmp,",
            ",",
            "/t\nmp",
            "/tmp:1k",
        ] {
            assert!(scratch(text).is_err(), "{text:?}");
        }
        let many: Vec<String> = (0..33).map(|i| format!("/s{i}")).collect();
        assert!(scratch(&many.join(",")).is_err());
    }

    #[test]
    fn system_folders_are_protected_and_their_namesakes_are_not() {
        for path in ["/etc", "/etc/x", "/usr/local", "/lib64", "/libx32/a", "/bin", "/dev/shm", "/boot/x"] {
            assert!(is_protected(Path::new(path)), "{path}");
        }
        for path in ["/tmp", "/var/lib/x", "/etcetera", "/run", "/home/u", "/srv/lib"] {
            assert!(!is_protected(Path::new(path)), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,80}") {
            let _ = (size(&text), duration(&text), restart_limit(&text), renew_every(&text));
            let _ = (scratch(&text), mode(&text), rootfs(&text), response(&text));
        }

        #[test]
        fn a_shown_duration_reads_back(ms in 0u64..=3650 * DAY * 1000) {
            let value = Duration::from_millis(ms);
            prop_assert_eq!(duration(&show_duration(value)), Ok(value));
        }

        #[test]
        fn a_size_is_its_number_times_its_unit(n in 0u64..1024, unit in 0usize..4) {
            prop_assert_eq!(size(&format!("{n}{}", ["", "k", "m", "g"][unit])), Ok(n << (10 * unit)));
        }

        #[test]
        fn every_accepted_scratch_path_is_absolute_and_plain(text in "[/a.t:,0-9m-]{0,40}") {
            for one in scratch(&text).unwrap_or_default() {
                prop_assert!(one.path.is_absolute());
                prop_assert!(one.path.components().skip(1).all(|c| matches!(c, Component::Normal(_))));
            }
        }
    }
}
