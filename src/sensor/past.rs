//! Records that were taken out of a container's table, so that there is room in it for others.
//!
//! Owns: keeping them, joining one with what the kernel has recorded of the same thing since, and letting files that came and
//! went under names like each other's be one. Must not: read a map, or know what makes names alike.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::decode::{operation, path};
use super::layout::{KEY_BYTES, Record, VALUE_BYTES, word};
use super::reading::Operation;

/// Most records that are kept beside a table of usual size: some 15 MB with paths as they are, twice that with the longest.
const MOST: usize = 65_536;
/// From so many on, those that can be one are made one.
const MANY: usize = MOST / 4;

/// Where a key's text begins, and how long it is.
const TEXT_AT: usize = 24;
const TEXT_BYTES: usize = KEY_BYTES as usize - TEXT_AT;

type Value = [u8; VALUE_BYTES as usize];
/// A path on one side: sessions', and text.
type Place = (bool, String);

/// What is known of a container beside its table.
#[derive(Debug, Default)]
pub struct Past {
    /// By key, without the zeros at its end.
    records: HashMap<Box<[u8]>, Value>,
    /// How many were left when they were last made fewer.
    left: usize,
    /// How many come at once.
    table_entries: usize,
}

impl Past {
    /// Of a container whose table has so many entries.
    pub fn beside(table_entries: usize) -> Past {
        Past { table_entries, ..Past::default() }
    }

    /// Makes records fewer, where there are many more than the last time: of files that were removed or renamed, and whose
    /// paths are `alike`, the first in order stands for all. What it is for two paths to be alike must depend on them alone,
    /// and nobody may tell alike paths apart later. A path that a program was run from is not touched.
    pub fn condense(&mut self, alike: impl Fn(&str) -> Option<String>) {
        let many = self.records.len() >= MANY.max(self.left.saturating_mul(2)) || !self.has_room();
        if !many || self.records.len() == self.left {
            return;
        }
        let mut run = HashSet::new();
        let mut gone: BTreeMap<Place, bool> = BTreeMap::new();
        each(&self.records, |_, record| match (record.kind, operation(record.what)) {
            (Record::PROGRAM, _) => drop(run.insert(path(record))),
            (Record::PATH, Some(operation)) => {
                let leaves = matches!(operation, Operation::Remove | Operation::Rename) && record.number == 0;
                *gone.entry((record.exec, path(record))).or_default() |= leaves;
            }
            _ => {}
        });
        let mut first: HashMap<Place, String> = HashMap::new();
        let mut stands: HashMap<Place, String> = HashMap::new();
        for (exec, path) in gone
            .into_iter()
            .filter(|((_, path), gone)| *gone && !run.contains(path) && path.len() <= TEXT_BYTES)
            .map(|(at, _)| at)
        {
            if let Some(pattern) = alike(&path) {
                let one = first.entry((exec, pattern)).or_insert_with(|| path.clone()).clone();
                stands.insert((exec, path), one);
            }
        }
        let mut fewer: HashMap<Box<[u8]>, Vec<Value>> = HashMap::new();
        let mut rest = HashMap::new();
        each(&self.records, |key, record| {
            let value = self.records[key];
            match stands.get(&(record.exec, path(record))).filter(|_| record.kind == Record::PATH) {
                Some(one) => fewer.entry(renamed(key, one)).or_default().push(value),
                None => drop(rest.insert(key.into(), value)),
            }
        });
        for (key, mut values) in fewer {
            values.sort_unstable_by_key(|value| (word(value, 0), word(value, 4)));
            let together = values.into_iter().reduce(|all, value| together(&all, &value));
            rest.extend(together.map(|value| (key, value)));
        }
        self.left = rest.len();
        self.records = rest;
    }

    /// Whether there is room for all that the table may hold.
    pub fn has_room(&self) -> bool {
        self.records.len() + self.table_entries <= MOST.max(2 * self.table_entries)
    }

    /// Keeps a record that was taken out of the table.
    pub fn keep(&mut self, key: &[u8], value: &[u8]) {
        let Ok(value) = Value::try_from(value) else { return };
        match self.records.get_mut(short(key)) {
            Some(known) => *known = joined(known, &value),
            None => drop(self.records.insert(short(key).into(), value)),
        }
    }

    /// What is known together with a table, record by record: of what is in both, what both tell.
    pub fn with(&self) -> With<'_> {
        With { past: self, again: HashSet::new() }
    }
}

/// A [`Past`] while a table is read beside it.
pub struct With<'p> {
    past: &'p Past,
    again: HashSet<&'p [u8]>,
}

impl With<'_> {
    /// A record of the table, with what is known of the same thing.
    pub fn now(&mut self, key: &[u8], value: &[u8], mut take: impl FnMut(&Record<'_>)) {
        match (self.past.records.get_key_value(short(key)), Value::try_from(value)) {
            (Some((known, before)), Ok(value)) => {
                self.again.insert(known);
                take(&Record::parse(key, &joined(before, &value)));
            }
            (Some(_), Err(_)) | (None, _) => take(&Record::parse(key, value)),
        }
    }

    /// All that was not in the table.
    pub fn rest(self, mut take: impl FnMut(&Record<'_>)) {
        each(&self.past.records, |key, record| {
            if !self.again.contains(key) {
                take(record);
            }
        });
    }
}

/// Every record, with its short key.
fn each<'r>(records: &'r HashMap<Box<[u8]>, Value>, mut take: impl FnMut(&'r [u8], &Record<'_>)) {
    let mut whole = vec![0; KEY_BYTES as usize];
    for (key, value) in records {
        whole.fill(0);
        whole[..key.len()].copy_from_slice(key);
        take(key, &Record::parse(&whole, value));
    }
}

/// A path's key with another path in it, which was in a key itself.
fn renamed(key: &[u8], path: &str) -> Box<[u8]> {
    let mut whole = vec![0; TEXT_AT];
    let head = key.len().min(TEXT_AT);
    whole[..head].copy_from_slice(&key[..head]);
    whole.extend(path.bytes().take(TEXT_BYTES));
    short(&whole).into()
}

/// A key is compared with all of its bytes: what is cut off is always the same.
fn short(key: &[u8]) -> &[u8] {
    let end = key.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &key[..end.min(KEY_BYTES as usize)]
}

/// Two records of one thing, of which the second began when the first had been taken out. Windows are counted by a clock that
/// never goes back: they have one in common at most, in which the first was taken out.
fn joined(before: &Value, after: &Value) -> Value {
    let of = |value: &Value| (word(value, 0), word(value, 4), word(value, 8));
    let ((first, last, windows), (again, newest, more)) = (of(before), of(after));
    let newest = newest.max(last);
    let common = u32::from(again <= last);
    // Whatever happens in between, there are no more windows than time has.
    let most = newest.saturating_sub(first).saturating_add(1);
    let windows = windows.saturating_add(more.saturating_sub(common)).min(most);
    // Who did it first stays who did it first.
    let mut value = *before;
    for (at, number) in [(0, first), (4, newest), (8, windows)] {
        value[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    value
}

/// Records of two things that are one from now on, in the order in which they began. Of windows that both may have been seen
/// in, no more are counted than one of them has.
fn together(one: &Value, other: &Value) -> Value {
    let of = |value: &Value| (word(value, 0), word(value, 4), word(value, 8));
    let ((_, last, windows), (again, newest, more)) = (of(one), of(other));
    if again >= last {
        return joined(one, other);
    }
    let mut value = *one;
    let beyond = u32::from(newest > last);
    for (at, number) in [(4, newest.max(last)), (8, windows.saturating_add(beyond).max(more))] {
        value[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Vec<u8> {
        let mut key = vec![0; KEY_BYTES as usize];
        (key[1], key[2]) = (Record::PATH, 1);
        key[24..24 + name.len()].copy_from_slice(name.as_bytes());
        key
    }

    fn value(first: u32, last: u32, windows: u32, comm: &str) -> Vec<u8> {
        let mut value: Vec<u8> = [first, last, windows, 0].iter().flat_map(|w| w.to_ne_bytes()).collect();
        value.extend(comm.bytes().chain(std::iter::repeat(0)).take(16));
        value
    }

    /// By name, what is known: first, last, windows, who.
    fn told(past: &Past, table: &[(Vec<u8>, Vec<u8>)]) -> Vec<(String, u32, u32, u32, String)> {
        let text = |bytes: &[u8]| super::super::decode::lossy(bytes);
        let mut all = Vec::new();
        let mut take = |r: &Record<'_>| all.push((text(r.text), r.first, r.last, r.windows, text(r.comm)));
        let mut with = past.with();
        table.iter().for_each(|(key, value)| with.now(key, value, &mut take));
        with.rest(take);
        all.sort();
        all
    }

    #[test]
    fn what_was_taken_out_and_is_seen_again_is_one_record_with_all_its_windows() {
        let mut past = Past::default();
        past.keep(&key("/a"), &value(0, 3, 2, "first"));
        past.keep(&key("/b"), &value(1, 1, 1, "b"));
        let one = |first, last, windows| ("/a".to_owned(), first, last, windows, "first".to_owned());
        let b = ("/b".to_owned(), 1, 1, 1, "b".to_owned());
        for (again, expected) in [
            // Taken out in window 3, and seen in it again: it is one window.
            ((3, 3, 1), one(0, 3, 2)),
            ((3, 5, 2), one(0, 5, 3)),
            ((4, 4, 1), one(0, 4, 3)),
            ((7, 9, 3), one(0, 9, 5)),
        ] {
            let table = [(key("/a"), value(again.0, again.1, again.2, "later")), (key("/c"), value(9, 9, 1, "c"))];
            let c = ("/c".to_owned(), 9, 9, 1, "c".to_owned());
            assert_eq!(told(&past, &table), [expected.clone(), b.clone(), c.clone()], "in the table");
            let mut both = Past::default();
            both.keep(&key("/a"), &value(0, 3, 2, "first"));
            table.iter().for_each(|(key, value)| both.keep(key, value));
            assert_eq!(told(&both, &[]), [expected, c], "taken out, too");
        }
        assert_eq!(told(&past, &[]), [one(0, 3, 2), b], "looking changes nothing");
    }

    #[test]
    fn however_often_it_is_taken_out_it_has_the_windows_that_it_was_seen_in() {
        // Windows in which it was seen, and whether the table was relieved at the end of each, all ways there are.
        let seen = [0u32, 1, 4, 5, 9, 12];
        for taken in 0..1u32 << seen.len() {
            let (mut past, mut now) = (Past::default(), None::<(u32, u32, u32)>);
            for (at, window) in seen.into_iter().enumerate() {
                now = Some(now.map_or((window, window, 1), |(first, _, n)| (first, window, n + 1)));
                if taken & 1 << at != 0
                    && let Some((first, last, n)) = now.take()
                {
                    past.keep(&key("/a"), &value(first, last, n, ""));
                    // And once more in the same window.
                    now = Some((window, window, 1));
                }
            }
            let table: Vec<_> = now.iter().map(|(first, last, n)| (key("/a"), value(*first, *last, *n, ""))).collect();
            assert_eq!(told(&past, &table), [("/a".to_owned(), 0, 12, 6, String::new())], "{taken:b}");
        }
    }

    /// `/tmp/NAME` of one who makes names up.
    fn made_up(path: &str) -> Option<String> {
        path.starts_with("/tmp/made-").then(|| "/tmp/made-*".to_owned())
    }

    #[test]
    fn files_that_came_and_went_under_names_alike_are_one_and_what_is_still_there_or_was_run_is_not() {
        let with = |what: u8, name: &str| {
            let mut key = key(name);
            key[2] = what;
            key
        };
        let (create, remove) = (2, 3);
        let mut past = Past::beside(MANY);
        for n in 0..MANY as u32 {
            let name = format!("/tmp/made-{n:06}");
            past.keep(&with(create, &name), &value(n / 1000, n / 1000, 1, "w"));
            past.keep(&with(remove, &name), &value(n / 1000, n / 1000 + 1, 2, "w"));
        }
        for name in ["/tmp/made-stays", "/tmp/made-run", "/srv/named"] {
            past.keep(&with(create, name), &value(1, 1, 1, "w"));
        }
        past.keep(&with(remove, "/tmp/made-run"), &value(1, 1, 1, "w"));
        let mut program = with(2, "/tmp/made-run");
        program[1] = Record::PROGRAM;
        past.keep(&program, &value(1, 1, 1, "w"));
        past.condense(made_up);
        let last = (MANY as u32 - 1) / 1000;
        let of = |name: &str, last: u32, windows: u32| {
            (name.to_owned(), u32::from(name != "/tmp/made-000000"), last, windows, "w".to_owned())
        };
        let expected = [
            of("/srv/named", 1, 1),
            of("/tmp/made-000000", last, last + 1),
            of("/tmp/made-000000", last + 1, last + 2),
            of("/tmp/made-run", 1, 1),
            of("/tmp/made-run", 1, 1),
            of("/tmp/made-run", 1, 1),
            of("/tmp/made-stays", 1, 1),
        ];
        assert_eq!(told(&past, &[]), expected);
        // And on from there: it goes on for as long as it may, and never comes to an end of the room.
        for n in 0..3 * MOST as u32 {
            let name = format!("/tmp/made-{:06}", MANY as u32 + n);
            past.keep(&with(create, &name), &value(50, 50, 1, "w"));
            past.keep(&with(remove, &name), &value(50, 50, 1, "w"));
            if n % 4096 == 0 {
                past.condense(made_up);
                assert!(past.has_room(), "after {n} files");
            }
        }
    }

    #[test]
    fn what_can_not_be_made_fewer_is_kept_as_it_is() {
        let mut past = Past::default();
        (0..MANY as u32).for_each(|n| past.keep(&key(&format!("/srv/{n}")), &value(0, 0, 1, "w")));
        let before = told(&past, &[]);
        past.condense(made_up);
        past.condense(|_| panic!("nothing has changed since"));
        assert_eq!(told(&past, &[]), before);
    }

    #[test]
    fn no_bytes_are_too_strange_to_be_kept_and_there_is_an_end_to_it() {
        let mut past = Past::default();
        past.keep(&[], &[]);
        past.keep(&[0xff; 1000], &[0xff; VALUE_BYTES as usize]);
        past.keep(&[0; KEY_BYTES as usize], &[0xff; VALUE_BYTES as usize]);
        past.keep(&[0; KEY_BYTES as usize], &[0xff; VALUE_BYTES as usize]);
        assert_eq!(told(&past, &[(vec![], vec![])]).len(), 3);
        past.table_entries = 1;
        (0..MOST as u32 - 3).for_each(|n| past.keep(&key(&n.to_string()), &value(0, 0, 1, "")));
        assert!(past.has_room());
        past.keep(&key("one more"), &value(0, 0, 1, ""));
        assert!(!past.has_room());
    }
}
