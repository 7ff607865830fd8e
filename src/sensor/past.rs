//! Records that were taken out of a container's table, so that there is room in it for others.
//!
//! Owns: keeping them, and joining one with what the kernel has recorded of the same thing since. Must not: read a map.

use std::collections::{HashMap, HashSet};

use super::layout::{KEY_BYTES, Record, VALUE_BYTES, word};

/// Most records that are kept: some 15 MB with paths as they are, twice that with the longest.
const MOST: usize = 65_536;

type Value = [u8; VALUE_BYTES as usize];

/// What is known of a container beside its table.
#[derive(Debug, Default)]
pub struct Past {
    /// By key, without the zeros at its end.
    records: HashMap<Box<[u8]>, Value>,
}

impl Past {
    /// Whether there is room for so many more, whatever they are.
    pub fn has_room(&self, more: usize) -> bool {
        self.records.len().saturating_add(more) <= MOST
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
        let mut whole = vec![0; KEY_BYTES as usize];
        for (key, value) in self.past.records.iter().filter(|(key, _)| !self.again.contains(&***key)) {
            whole.fill(0);
            whole[..key.len()].copy_from_slice(key);
            take(&Record::parse(&whole, value));
        }
    }
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

    #[test]
    fn no_bytes_are_too_strange_to_be_kept_and_there_is_an_end_to_it() {
        let mut past = Past::default();
        past.keep(&[], &[]);
        past.keep(&[0xff; 1000], &[0xff; VALUE_BYTES as usize]);
        past.keep(&[0; KEY_BYTES as usize], &[0xff; VALUE_BYTES as usize]);
        past.keep(&[0; KEY_BYTES as usize], &[0xff; VALUE_BYTES as usize]);
        assert_eq!(told(&past, &[(vec![], vec![])]).len(), 3);
        assert!(past.has_room(MOST - 2) && !past.has_room(MOST - 1) && !past.has_room(usize::MAX));
    }
}
