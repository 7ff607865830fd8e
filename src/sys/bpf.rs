//! bpf(2) for maps that exist: pinned ones opened, read and written, small ones made. No loader, no libbpf.
//!
//! Sizes of keys and values are checked against the map's own before the kernel is given a buffer.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A map may be inserted into or replaced (`BPF_ANY`).
pub const ANY: u64 = 0;
/// Only inserted: `EEXIST` if the key is there (`BPF_NOEXIST`).
pub const NOEXIST: u64 = 1;
/// `BPF_F_NO_PREALLOC`: entries are allocated as they come.
pub const NO_PREALLOC: u32 = 1;

const CREATE: i32 = 0;
const LOOKUP: i32 = 1;
const UPDATE: i32 = 2;
const DELETE: i32 = 3;
const NEXT_KEY: i32 = 4;
const OBJ_GET: i32 = 7;
const INFO: i32 = 15;
const LOOKUP_BATCH: i32 = 24;
const LOOKUP_AND_DELETE_BATCH: i32 = 25;
const UPDATE_BATCH: i32 = 26;

/// Kinds of map that are made here (`enum bpf_map_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Hash table.
    Hash = 1,
    /// Ring buffer (Linux 5.8); no key, no value, entries are bytes.
    Ring = 27,
}

#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct ElementAttr {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
struct GetAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    bytes: u32,
    info: u64,
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_bytes: u32,
    value_bytes: u32,
    max_entries: u32,
    flags: u32,
}

/// An open map.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    id: u32,
    key_bytes: usize,
    value_bytes: usize,
    max_entries: u32,
}

impl Map {
    /// Opens a pinned map (`BPF_OBJ_GET`).
    ///
    /// # Errors
    /// `ENOENT` when nothing is pinned there; `EPERM` without CAP_BPF; `EINVAL` when it is no map.
    pub fn open(path: &Path) -> io::Result<Map> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let mut attr = GetAttr { path: name.as_ptr() as u64, fd: 0, flags: 0 };
        // SAFETY: the attribute has the layout of this command's; the path is a terminated string that outlives the call.
        let fd = unsafe { call(OBJ_GET, &mut attr) }?;
        // SAFETY: the kernel has just made this descriptor, with O_CLOEXEC, and nobody else owns it.
        Map::of(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn of(fd: OwnedFd) -> io::Result<Map> {
        let mut info = MapInfo::default();
        let bytes = size_of::<MapInfo>() as u32;
        let mut attr = InfoAttr { fd: fd.as_raw_fd() as u32, bytes, info: &raw mut info as u64 };
        // SAFETY: `info` is as long as said, plain data, and outlives the call.
        unsafe { call(INFO, &mut attr) }?;
        // A link or program has information of another shape, which is shorter or has no such sizes.
        let (key_bytes, value_bytes) = (info.key_bytes as usize, info.value_bytes as usize);
        if key_bytes > 1 << 16 || value_bytes > 1 << 20 {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(Map { fd, id: info.id, key_bytes, value_bytes, max_entries: info.max_entries })
    }

    /// Makes a map (`BPF_MAP_CREATE`).
    ///
    /// # Errors
    /// `EPERM` without CAP_BPF; `ENOMEM`; `EINVAL` for sizes that the kind can't have.
    pub fn create(kind: Kind, key_bytes: u32, value_bytes: u32, max_entries: u32, flags: u32) -> io::Result<Map> {
        let mut attr =
            CreateAttr { kind: kind as u32, key_bytes, value_bytes, max_entries, flags, ..CreateAttr::default() };
        attr.name[..7].copy_from_slice(b"lithify");
        // SAFETY: the attribute has the layout of this command's and holds no pointers.
        let fd = unsafe { call(CREATE, &mut attr) }?;
        // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
        Map::of(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The same map, by a descriptor of its own.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn share(&self) -> io::Result<Map> {
        Ok(Map { fd: self.fd.try_clone()?, ..*self })
    }

    /// The kernel's number of it, which no other map has while it exists.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How many entries it may have.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// Bytes of a key and of a value.
    pub fn sizes(&self) -> (usize, usize) {
        (self.key_bytes, self.value_bytes)
    }

    fn element(&self, command: i32, key: &[u8], value: u64, flags: u64) -> io::Result<()> {
        if key.len() != self.key_bytes {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let map = self.fd.as_raw_fd() as u32;
        let mut attr = ElementAttr { map, pad: 0, key: key.as_ptr() as u64, value, flags };
        // SAFETY: the key is as long as the map's; `value` is null or a buffer as long as the map's values, from a caller
        // in this module that has checked it.
        unsafe { call(command, &mut attr) }.map(drop)
    }

    /// The value of a key; `None` if there is none.
    ///
    /// # Errors
    /// `InvalidInput` when a size is not the map's.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        // The value of a map of maps is a number, whatever it is called.
        let mut value = vec![0; self.value_bytes.max(8)];
        match self.element(LOOKUP, key, value.as_mut_ptr() as u64, 0) {
            Ok(()) => {
                value.truncate(self.value_bytes);
                Ok(Some(value))
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// `EEXIST` with [`NOEXIST`]; `E2BIG` when the map is full; `InvalidInput` when a size is not the map's.
    pub fn set(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        if value.len() != self.value_bytes {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        self.element(UPDATE, key, value.as_ptr() as u64, flags)
    }

    /// Sets every key of `keys`, one after another, to `value`, by one call (`BPF_MAP_UPDATE_BATCH`, Linux 5.6).
    ///
    /// # Errors
    /// `E2BIG` when the map is full; `InvalidInput` when a size is not the map's.
    pub fn set_all(&self, keys: &[u8], value: &[u8]) -> io::Result<()> {
        if self.key_bytes == 0 || value.len() != self.value_bytes || !keys.len().is_multiple_of(self.key_bytes) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let count = keys.len() / self.key_bytes;
        let values = value.repeat(count);
        let mut attr = BatchAttr {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: count as u32,
            map: self.fd.as_raw_fd() as u32,
            ..BatchAttr::default()
        };
        // SAFETY: both buffers hold `count` keys and values of the map's sizes, and the kernel only reads them.
        if count == 0 { Ok(()) } else { unsafe { call(UPDATE_BATCH, &mut attr) }.map(drop) }
    }

    /// Puts a map into a map of maps. The kernel does it at once, and then makes the caller wait (for an RCU grace period,
    /// some milliseconds).
    ///
    /// # Errors
    /// `EINVAL` when it is not the kind of map that belongs there.
    pub fn put(&self, key: &[u8], inner: &Map) -> io::Result<()> {
        self.set(key, &inner.fd.as_raw_fd().to_ne_bytes(), ANY)
    }

    /// Removes a key; false if there was none. Of a map of maps, as slow as [`Map::put`].
    ///
    /// # Errors
    /// `InvalidInput` when a size is not the map's.
    pub fn remove(&self, key: &[u8]) -> io::Result<bool> {
        match self.element(DELETE, key, 0, 0) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// All keys, at most as many as the map may have. One that is inserted meanwhile may be missing.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        while keys.len() <= self.max_entries as usize {
            let mut next = vec![0; self.key_bytes];
            let mut attr = ElementAttr {
                map: self.fd.as_raw_fd() as u32,
                pad: 0,
                key: keys.last().map_or(0, |k| k.as_ptr() as u64),
                value: next.as_mut_ptr() as u64,
                flags: 0,
            };
            // SAFETY: both buffers are as long as the map's keys and outlive the call; null asks for the first key.
            match unsafe { call(NEXT_KEY, &mut attr) } {
                Ok(_) => keys.push(next),
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => break,
                Err(e) => return Err(e),
            }
        }
        Ok(keys)
    }

    /// Calls `each` with every key and value of a hash table (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6). Entries that are inserted
    /// meanwhile may be missing; none comes twice.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn for_each(&self, each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        self.batches(LOOKUP_BATCH, each)
    }

    /// The same, and takes each of them out of the table: under one lock, so that what is given is what was there when it was
    /// taken out (`BPF_MAP_LOOKUP_AND_DELETE_BATCH`, Linux 5.6). An entry that is inserted meanwhile is given or stays. A
    /// program that has looked an entry up just before may still write to it: that is in neither.
    ///
    /// # Errors
    /// As the kernel's; what was given by then is out of the table.
    pub fn take_each(&self, each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        self.batches(LOOKUP_AND_DELETE_BATCH, each)
    }

    fn batches(&self, command: i32, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut room: usize = 256;
        let (mut from, mut to) = ([0u8; 8], [0u8; 8]);
        let mut started = false;
        loop {
            let (mut keys, mut values) = (vec![0; room * self.key_bytes], vec![0; room * self.value_bytes]);
            let mut attr = BatchAttr {
                from: if started { from.as_mut_ptr() as u64 } else { 0 },
                to: to.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: room as u32,
                map: self.fd.as_raw_fd() as u32,
                ..BatchAttr::default()
            };
            // SAFETY: both buffers hold `count` keys and values of the map's sizes, for either command; a hash table's
            // position is four bytes.
            let result = unsafe { call(command, &mut attr) };
            let more = match result {
                Ok(_) => true,
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => false,
                // One chain of the table is longer than the buffer.
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && room <= self.max_entries as usize => {
                    room *= 4;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let count = (attr.count as usize).min(room);
            for (key, value) in keys.chunks(self.key_bytes).zip(values.chunks(self.value_bytes)).take(count) {
                each(key, value);
            }
            if !more {
                return Ok(());
            }
            from = to;
            started = true;
        }
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// bpf(2).
///
/// # Safety
/// `attr` has the layout of the command's part of `union bpf_attr`, and what it points to is valid for the command.
unsafe fn call<T>(command: i32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the kernel reads and writes no more than the size that it is told.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
