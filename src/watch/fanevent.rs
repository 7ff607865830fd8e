//! The bytes that a fanotify group with `FAN_REPORT_DFID_NAME` gives, as events.
//!
//! Owns: the format of linux/fanotify.h, version 3. Must not: look at a file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// `FANOTIFY_METADATA_VERSION`.
const VERSION: u8 = 3;
/// Bytes of `struct fanotify_event_metadata`.
const METADATA_BYTES: usize = 24;
/// Bytes of an info record before the handle's own: header 4, fsid 8, handle length 4, handle type 4.
const RECORD_BYTES: usize = 20;

/// A file handle as the kernel gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle<'a> {
    pub(super) kind: i32,
    pub(super) data: &'a [u8],
}

/// A directory and a name in it. The name is `.` for the directory itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    pub(super) dir: Handle<'a>,
    pub(super) name: &'a OsStr,
}

/// One event. Which of the parts are there depends on the mask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FanEvent<'a> {
    pub(super) mask: u64,
    pub(super) pid: i32,
    pub(super) at: Option<Name<'a>>,
    pub(super) from: Option<Name<'a>>,
    pub(super) to: Option<Name<'a>>,
    pub(super) target: Option<Handle<'a>>,
}

/// The events in what one read(2) gave; ends early at anything that does not have the format.
pub(super) struct FanEvents<'a> {
    rest: &'a [u8],
}

impl<'a> FanEvents<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> FanEvents<'a> {
        FanEvents { rest: bytes }
    }
}

impl<'a> Iterator for FanEvents<'a> {
    type Item = FanEvent<'a>;

    fn next(&mut self) -> Option<FanEvent<'a>> {
        let length = u32_at(self.rest, 0)? as usize;
        let version = *self.rest.get(4)?;
        let metadata = usize::from(u16::from_ne_bytes(self.rest.get(6..8)?.try_into().ok()?));
        if version != VERSION || metadata < METADATA_BYTES || length < metadata || length > self.rest.len() {
            self.rest = &[];
            return None;
        }
        let (bytes, rest) = self.rest.split_at(length);
        self.rest = rest;
        let mask = u64::from_ne_bytes(bytes[8..16].try_into().ok()?);
        let mut event = FanEvent { mask, pid: u32_at(bytes, 20)? as i32, ..FanEvent::default() };
        let mut records = &bytes[metadata..];
        while let Some((record, rest)) = split_record(records) {
            records = rest;
            add_record(&mut event, record);
        }
        Some(event)
    }
}

fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(records.get(2..4)?.try_into().ok()?));
    if length < 4 || length > records.len() {
        return None;
    }
    Some(records.split_at(length))
}

fn add_record<'a>(event: &mut FanEvent<'a>, record: &'a [u8]) {
    let (Some(&kind), Some(handle_bytes), Some(handle_kind)) = (record.first(), u32_at(record, 12), u32_at(record, 16))
    else {
        return;
    };
    let end = RECORD_BYTES.saturating_add(handle_bytes as usize);
    let Some(data) = record.get(RECORD_BYTES..end) else { return };
    let handle = Handle { kind: handle_kind as i32, data };
    let text = &record[end..];
    let name = OsStr::from_bytes(&text[..text.iter().position(|b| *b == 0).unwrap_or(text.len())]);
    match kind {
        libc::FAN_EVENT_INFO_TYPE_FID => event.target = Some(handle),
        libc::FAN_EVENT_INFO_TYPE_DFID_NAME => event.at = Some(Name { dir: handle, name }),
        libc::FAN_EVENT_INFO_TYPE_DFID => event.at = Some(Name { dir: handle, name: OsStr::new(".") }),
        libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => event.from = Some(Name { dir: handle, name }),
        libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => event.to = Some(Name { dir: handle, name }),
        // Records of kinds that later kernels add say nothing about the name.
        _ => {}
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u8, data: &[u8], name: &[u8]) -> Vec<u8> {
        let mut r = vec![kind, 0, 0, 0];
        r.extend_from_slice(&[0; 8]);
        r.extend_from_slice(&(data.len() as u32).to_ne_bytes());
        r.extend_from_slice(&1i32.to_ne_bytes());
        r.extend_from_slice(data);
        r.extend_from_slice(name);
        r.push(0);
        r.resize(r.len().next_multiple_of(4), 0);
        let length = (r.len() as u16).to_ne_bytes();
        r[2..4].copy_from_slice(&length);
        r
    }

    fn event(mask: u64, pid: i32, records: &[u8]) -> Vec<u8> {
        let mut e = ((METADATA_BYTES + records.len()) as u32).to_ne_bytes().to_vec();
        e.extend_from_slice(&[VERSION, 0]);
        e.extend_from_slice(&(METADATA_BYTES as u16).to_ne_bytes());
        e.extend_from_slice(&mask.to_ne_bytes());
        e.extend_from_slice(&(-1i32).to_ne_bytes());
        e.extend_from_slice(&pid.to_ne_bytes());
        e.extend_from_slice(records);
        e
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = FanEvents::new(&bytes).count();
        }

        #[test]
        fn a_damaged_event_never_panics(at in 0usize..120, byte in any::<u8>()) {
            let mut bytes = event(2, 7, &[record(2, b"12345678", b"name"), record(1, b"abcd", b"")].concat());
            bytes.extend(event(0x4000, 0, &[]));
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
            let _ = FanEvents::new(&bytes).count();
        }

        #[test]
        fn handle_and_name_come_back_as_they_went(data in proptest::collection::vec(any::<u8>(), 0..64), name in "[^\0/]{1,80}") {
            let bytes = event(0x100, 42, &record(2, &data, name.as_bytes()));
            let events: Vec<_> = FanEvents::new(&bytes).collect();
            prop_assert_eq!(events.len(), 1);
            prop_assert_eq!(events[0].pid, 42);
            let at = events[0].at.expect("a name");
            prop_assert_eq!(at.dir.data, &data[..]);
            prop_assert_eq!(at.name, OsStr::new(&name));
        }
    }
}
