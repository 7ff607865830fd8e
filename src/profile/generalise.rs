//! Names that a program makes up become patterns: `/tmp/tmp.Xk3fQa` is written as `/tmp/tmp.*`.
//!
//! Owns: which parts of a path are made up. Pure: equal sets give equal patterns, in whatever order they
//! came. Must not: widen anything below a protected prefix, or at the root itself: there every name counts.
//!
//! A part is a pattern for one of two reasons. Its **shape**: a UUID, a hash, a long number, what mkstemp(3) makes; so that
//! one run's name and the next run's are the same item. Its **company**: [`MANY`] names of a directory that differ in
//! numbers only, or [`CROWD`] kinds of names; a pattern that is there already takes in what it would stand for. With more
//! names there are never fewer patterns, so that generations come to the same ones in whatever order they are put
//! together. `*` stands for one or more bytes without a slash, `?` for one lower-case letter, digit or `_`. A `*` in a real
//! name is written `\052`, a `?` `\077` and a backslash `\134`, as mountinfo does, so that no file name is ever taken for a
//! pattern.

use std::collections::{BTreeMap, BTreeSet};

/// System folders, in which every name counts. A folder with one of these at its beginning is one, too.
pub const PROTECTED: [&str; 9] = ["/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"];
/// Where programs put what does not outlive them: numbers are process ids there.
const VOLATILE: [&str; 6] = ["/tmp", "/var/tmp", "/run", "/var/run", "/dev/shm", "/var/lock"];
/// Names that differ in numbers only and are one pattern.
pub const MANY: usize = 3;
/// Names in one directory of which nobody will read every one.
pub const CROWD: usize = 64;
/// Longest path that is kept as it is, in bytes; Linux has none that is longer.
pub const MAX_PATH: usize = 4096;
/// Deepest directory that is looked into; what is below it belongs to it.
const MAX_DEPTH: usize = 64;

/// Whether a path is below a prefix, or is it.
pub fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a file is written as that was there for a moment only, if its name is one of those that Python's tempfile makes to
/// see whether it may write there: eight of lower-case letters, digits and `_`, which nothing tells from a word. What stands
/// for it stands for such names only: a `*` would take in all that is ever put there.
pub fn passing(path: &str) -> Option<String> {
    let (at, name) = path.rsplit_once('/')?;
    let made = name.len() == 8 && name.bytes().all(is_made) && VOLATILE.iter().any(|prefix| is_below(at, prefix));
    made.then(|| format!("{}/????????", escape(at)))
}

/// One of the letters that Python's tempfile makes names of.
fn is_made(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

/// Whether every name at this path counts.
pub fn is_protected(path: &str) -> bool {
    PROTECTED.iter().any(|prefix| is_below(path, prefix))
}

/// Each path with the pattern that stands for it. A path that is not absolute stands for itself.
pub fn paths<'a>(paths: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, String> {
    patterns(paths, escape)
}

/// The pattern that a path has for its shape, whatever its company; `None` if that makes it none, or it may be a [`passing`]
/// one. Paths of one such pattern are one and the same to [`paths`].
pub fn alone(path: &str) -> Option<String> {
    let pattern = paths([path]).remove(path)?;
    (pattern.contains('*') && passing(path).is_none()).then_some(pattern)
}

/// The same for paths as documents have them, patterns among them: what several generations wrote, together.
pub fn written<'a>(paths: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, String> {
    patterns(paths, str::to_owned)
}

fn patterns<'a>(paths: impl IntoIterator<Item = &'a str>, write: fn(&str) -> String) -> BTreeMap<String, String> {
    let mut root = Node::default();
    let mut found = BTreeMap::new();
    for path in paths {
        if !path.starts_with('/') || is_protected(path) || path.len() > MAX_PATH {
            found.insert(path.to_owned(), write(path));
            continue;
        }
        let mut node = &mut root;
        for name in path.split('/').filter(|name| !name.is_empty()).take(MAX_DEPTH) {
            node = node.below.entry(write(name)).or_default();
        }
        node.of.push(path.to_owned());
    }
    root.give("", &mut found);
    found
}

/// Paths by their components, those of one pattern together.
#[derive(Default)]
struct Node {
    /// The paths that end here.
    of: Vec<String>,
    below: BTreeMap<String, Node>,
}

impl Node {
    fn give(mut self, at: &str, found: &mut BTreeMap<String, String>) {
        let here = if at.is_empty() { "/" } else { at };
        found.extend(self.of.drain(..).map(|path| (path, here.to_owned())));
        for (name, node) in Node::together(self.below, at) {
            node.give(&format!("{at}/{name}"), found);
        }
    }

    fn add(&mut self, other: Node) {
        self.of.extend(other.of);
        for (name, node) in other.below {
            self.below.entry(name).or_default().add(node);
        }
    }

    /// The entries of the directory `at`, those that belong together as one.
    fn together(names: BTreeMap<String, Node>, at: &str) -> BTreeMap<String, Node> {
        // A pattern there would stand for system folders, too.
        if at.is_empty() {
            return names;
        }
        let volatile = VOLATILE.iter().any(|prefix| is_below(at, prefix));
        let mut grouped = regroup(names, |name| shape(name, volatile));
        // What company makes is company for others: until nothing changes, or putting the result together with more would
        // go on from here. Each round but the last leaves fewer names.
        loop {
            let mut alike: BTreeMap<String, usize> = BTreeMap::new();
            for name in grouped.keys() {
                *alike.entry(numberless(name)).or_default() += 1;
            }
            // Kinds are counted, not names: of those, more names never make fewer.
            if alike.len() >= CROWD || grouped.contains_key("*") {
                return regroup(grouped, |_| "*".to_owned());
            }
            let known: BTreeSet<String> = grouped.keys().filter(|name| name.contains('*')).cloned().collect();
            let pattern_of = |name: &str| {
                let pattern = numberless(name);
                let many = known.contains(&pattern) || alike.get(&pattern).is_some_and(|n| *n >= MANY);
                if many { pattern } else { name.to_owned() }
            };
            if grouped.keys().all(|name| pattern_of(name) == *name) {
                return grouped;
            }
            grouped = regroup(grouped, pattern_of);
        }
    }
}

fn regroup(names: BTreeMap<String, Node>, pattern: impl Fn(&str) -> String) -> BTreeMap<String, Node> {
    let mut groups: BTreeMap<String, Node> = BTreeMap::new();
    for (name, node) in names {
        groups.entry(pattern(&name)).or_default().add(node);
    }
    groups
}

/// A name or path as documents have it: a `*`, a `?` and a backslash of its own as octal escapes.
pub fn escape(name: &str) -> String {
    if !name.contains(['*', '?', '\\']) {
        return name.to_owned();
    }
    name.replace('\\', "\\134").replace('*', "\\052").replace('?', "\\077")
}

/// One name, with what is made up in it as `*`.
pub fn shape(name: &str, volatile: bool) -> String {
    if volatile && let Some(rest) = name.strip_prefix("tmp") {
        // mktemp(1), and Python's tempfile, whose eight may all be letters.
        if rest.len() == 8 && rest.bytes().all(is_made) {
            return "tmp*".to_owned();
        }
        if rest.strip_prefix('.').is_some_and(|r| r.len() >= 6 && r.bytes().all(|b| b.is_ascii_alphanumeric())) {
            return "tmp.*".to_owned();
        }
    }
    let passing =
        volatile || ["tmp", "temp"].iter().any(|word| name.starts_with(word) || name.contains(&format!(".{word}")));
    let made_up = |run: &str| is_made_up(run) || passing && is_number(run);
    let pattern = around_escapes(name, |text| replace_runs(&without_uuids(text), made_up));
    // With an ending as files have it, or without.
    let stem = pattern.rfind('.').filter(|dot| is_ending(&pattern[dot + 1..])).unwrap_or(pattern.len());
    let made = [stem, pattern.len()].into_iter().find_map(|end| Some((temporary(&pattern[..end])?, end)));
    match made {
        Some((at, end)) if volatile => format!("{}*{}", &pattern[..at], &pattern[end..]),
        _ => pattern,
    }
}

/// Where a name ends that a program begins temporary ones with, if such a name is one: the six of mkstemp(3) follow, or the eight
/// of Python's tempfile.
fn temporary(name: &str) -> Option<usize> {
    let ends = |length: usize, is_made: fn(&str) -> bool| {
        let (at, before) = name.char_indices().rev().nth(length)?;
        (matches!(before, '.' | '-' | '_') && is_made(&name[at + 1..])).then_some(at + 1)
    };
    ends(6, is_mkstemp).or_else(|| ends(8, is_tempfile))
}

/// `log`, `json`.
fn is_ending(end: &str) -> bool {
    (1..=5).contains(&end.len()) && end.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// The eight of Python's tempfile at the end of a name (`wgunicorn-4n292jlh`); one in seventeen has only letters, as words do.
fn is_tempfile(end: &str) -> bool {
    end.bytes().all(is_made) && end.bytes().any(|b| !b.is_ascii_lowercase())
}

/// The six of mkstemp(3) at the end of a name; one in two hundred has only lower-case letters, as words do.
fn is_mkstemp(end: &str) -> bool {
    end.bytes().all(|b| b.is_ascii_alphanumeric()) && !end.bytes().all(|b| b.is_ascii_lowercase())
}

/// One name, with every number in it as `*`.
fn numberless(name: &str) -> String {
    around_escapes(name, without_numbers)
}

fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut in_number = false;
    for c in text.chars() {
        let part = c.is_ascii_digit() || in_number && c.is_ascii_hexdigit() && !c.is_ascii_lowercase();
        if part && !in_number {
            out.push('*');
        } else if !part {
            out.push(c);
        }
        in_number = part;
    }
    squeeze(&out)
}

/// Digits only.
pub fn is_number(run: &str) -> bool {
    run.bytes().all(|b| b.is_ascii_digit())
}

/// A hash, a long number, or letters of both cases and digits as no person mixes them.
fn is_made_up(run: &str) -> bool {
    let (digits, letters) = (run.bytes().any(|b| b.is_ascii_digit()), run.bytes().any(|b| b.is_ascii_alphabetic()));
    if run.len() < 6 {
        return false;
    }
    if digits && !letters {
        return true;
    }
    let is_hex = run.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        || run.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    if digits && is_hex && run.len() >= 8 {
        return true;
    }
    !is_worded(run)
}

/// As people write: words, perhaps in camel case, and a short number at the end (`sha256`, `NginxLog`, `UTF8`).
fn is_worded(run: &str) -> bool {
    let stem = run.trim_end_matches(|c: char| c.is_ascii_digit());
    if run.len() - stem.len() > 4 || stem.bytes().any(|b| b.is_ascii_digit()) {
        // A number inside: "x86abc" and "ipv4addr" have one, what mkstemp(3) makes has it among letters of both cases.
        let mixed = run.bytes().any(|b| b.is_ascii_uppercase()) && run.bytes().any(|b| b.is_ascii_lowercase());
        let numbers = run.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty()).count();
        return !mixed && numbers < 3;
    }
    // Words of camel case have three letters and more, on average.
    let (mut words, mut last) = (1, b'A');
    for byte in stem.bytes() {
        words += usize::from(byte.is_ascii_uppercase() && last.is_ascii_lowercase());
        last = byte;
    }
    let capitals = stem.bytes().filter(u8::is_ascii_uppercase).count();
    stem.len() >= words * 3 && (capitals <= words || capitals == stem.len())
}

fn without_uuids(name: &str) -> String {
    let mut out = name.to_owned();
    let mut from = 0;
    while let Some(window) = out.as_bytes().get(from..from + 36) {
        let is_uuid = window.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => matches!(b, b'-' | b'_'),
            _ => b.is_ascii_hexdigit(),
        });
        if is_uuid {
            // All of it is ASCII, so that both ends are between characters.
            out.replace_range(from..from + 36, "*");
        }
        from += 1;
    }
    out
}

fn replace_runs(name: &str, is_pattern: impl Fn(&str) -> bool) -> String {
    let mut out = String::new();
    let mut rest = name;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        out.push_str(if !run.is_empty() && is_pattern(run) { "*" } else { run });
        let next = after.chars().next().map_or(0, char::len_utf8);
        out.push_str(&after[..next]);
        rest = &after[next..];
    }
    squeeze(&out)
}

/// A name with what is between its escapes replaced: the number of an escape is not one of the name.
fn around_escapes(name: &str, replace: impl Fn(&str) -> String) -> String {
    let mut parts = name.split('\\');
    let mut out = replace(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.bytes().take(3).take_while(u8::is_ascii_digit).count();
        let (number, text) = part.split_at(digits);
        out += &format!("\\{number}{}", replace(text));
    }
    out
}

/// `a**` says no more than `a*`.
fn squeeze(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        if c != '*' || !out.ends_with('*') {
            out.push(c);
        }
    }
    out
}

/// Whether a pattern stands for everything that another one (or a path, as [`paths`] writes it) stands for. One that begins
/// with `/**/`, which only people write, says how a path ends, wherever it is.
pub fn covers(pattern: &str, item: &str) -> bool {
    if let Some(end) = pattern.strip_prefix("/**/") {
        let names = item.strip_prefix('/').into_iter().flat_map(|rest| {
            let begins = rest.match_indices('/').map(|(slash, _)| slash + 1);
            std::iter::once(0).chain(begins).map(move |begin| &rest[begin..])
        });
        return names.into_iter().any(|name| covers(end, name));
    }
    let (mut parts, mut names) = (pattern.split('/'), item.split('/'));
    loop {
        match (parts.next(), names.next()) {
            (None, None) => return true,
            (Some(part), Some(name)) if part_covers(part.as_bytes(), name.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// One component; linear but for the product of their lengths at the very worst.
fn part_covers(part: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when the bytes after the last star do not fit: one byte more for the star.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p < part.len() && part[p] == b'*' && n < name.len() {
            retry = Some((p + 1, n + 1));
            (p, n) = (p + 1, n + 1);
        } else if n < name.len() && p < part.len() && part[p] != b'*' && one_covers(part[p], name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if n == name.len() && p == part.len() {
            return true;
        } else if let Some((after, at)) = retry.filter(|(_, at)| *at < name.len()) {
            retry = Some((after, at + 1));
            (p, n) = (after, at + 1);
        } else {
            return false;
        }
    }
}

/// One byte, which is no star.
fn one_covers(part: u8, name: u8) -> bool {
    part == name || part == b'?' && is_made(name)
}

#[cfg(test)]
mod tests;
