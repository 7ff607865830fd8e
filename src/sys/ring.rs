//! A ring buffer of the kernel's BPF programs (`Documentation/bpf/ringbuf.rst`, Linux 5.8): made, mapped, read.
//!
//! The kernel writes, we read; what it has committed stays as it is until the consumer's position has passed it.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::bpf::{Kind, Map};

/// In a record's length: it is still being written (`BPF_RINGBUF_BUSY_BIT`).
const BUSY: u32 = 1 << 31;
/// It was given up (`BPF_RINGBUF_DISCARD_BIT`).
const DISCARDED: u32 = 1 << 30;
/// Bytes of a record's head (`BPF_RINGBUF_HDR_SZ`); records begin at multiples of it.
const HEAD: u64 = 8;

/// A ring buffer; readable when something has been written.
#[derive(Debug)]
pub struct Ring {
    map: Map,
    consumer: NonNull<AtomicU64>,
    /// The producer's position; a page further the data, twice in a row, so that no record is ever cut.
    producer: NonNull<AtomicU64>,
    page_bytes: NonZeroUsize,
    seen_bytes: NonZeroUsize,
    data_bytes: u64,
}

// SAFETY: the mappings belong to the process, not to a thread; both sides use their words atomically, and reading takes
// `&mut self`.
unsafe impl Send for Ring {}

impl Ring {
    /// Makes one with room for so many bytes: rounded up to a power of two, a page at least.
    ///
    /// # Errors
    /// As [`Map::create`], or when it can't be mapped.
    pub fn create(data_bytes: u32) -> io::Result<Ring> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
        let page_bytes = NonZeroUsize::new(page as usize).ok_or(io::ErrorKind::InvalidData)?;
        let data = data_bytes.max(page as u32).checked_next_power_of_two().ok_or(io::ErrorKind::InvalidInput)?;
        let seen_bytes = page_bytes.saturating_add(2 * data as usize);
        let map = Map::create(Kind::Ring, 0, 0, data, 0)?;
        let write = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes; its only page is the consumer's position (bpf ringbuf ABI).
        let consumer = unsafe { mmap(None, page_bytes, write, MapFlags::MAP_SHARED, &map, 0) }?;
        // SAFETY: as before; from the second page on it may only be read: the producer's position, then the data twice.
        let producer = unsafe { mmap(None, seen_bytes, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &map, page) };
        match producer {
            Ok(producer) => Ok(Ring {
                map,
                consumer: consumer.cast(),
                producer: producer.cast(),
                page_bytes,
                seen_bytes,
                data_bytes: u64::from(data),
            }),
            Err(e) => {
                // SAFETY: the mapping that was just made, and of which no reference exists.
                let _ = unsafe { munmap(consumer, page_bytes.get()) };
                Err(e.into())
            }
        }
    }

    /// The ring, to be put into a map of maps.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Throws away what is in it: it is not readable then, until more is written.
    pub fn hush(&self) {
        // SAFETY: both pages stay mapped as long as `self`, and their first word is only used atomically by both sides.
        unsafe {
            let at = self.producer.as_ref().load(Ordering::Acquire);
            self.consumer.as_ref().store(at, Ordering::Release);
        }
    }

    /// Calls `each` with every record that is whole, oldest first, at most what the ring holds at one time.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        // SAFETY: as in `hush`.
        let (mut at, end) =
            unsafe { (self.consumer.as_ref().load(Ordering::Relaxed), self.producer.as_ref().load(Ordering::Acquire)) };
        // The consumer's page is ours to write, and only ours: a distance beyond the ring can't be.
        let end = end.min(at.saturating_add(self.data_bytes));
        while at < end {
            let offset = self.page_bytes.get() + (at & (self.data_bytes - 1)) as usize;
            // SAFETY: `offset` is within the mapped data and a multiple of eight, as all heads are; the kernel writes the
            // word atomically.
            let head = unsafe { self.producer.byte_add(offset).cast::<AtomicU32>().as_ref().load(Ordering::Acquire) };
            let length = head & !(BUSY | DISCARDED);
            if head & BUSY != 0 || u64::from(length) + HEAD > self.data_bytes {
                return;
            }
            if head & DISCARDED == 0 {
                // SAFETY: a record is no longer than the data, which is mapped twice; it is committed, and the kernel
                // does not write there before the consumer's position has passed it, below.
                let record = unsafe {
                    let start = self.producer.byte_add(offset + HEAD as usize).cast::<u8>();
                    std::slice::from_raw_parts(start.as_ptr(), length as usize)
                };
                each(record);
            }
            at += (u64::from(length) + HEAD).next_multiple_of(HEAD);
            // SAFETY: as in `hush`.
            unsafe { self.consumer.as_ref().store(at, Ordering::Release) };
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `create`, and the last reference to it ends here.
        let _ = unsafe { munmap(self.consumer.cast(), self.page_bytes.get()) };
        // SAFETY: the same.
        let _ = unsafe { munmap(self.producer.cast(), self.seen_bytes.get()) };
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}
