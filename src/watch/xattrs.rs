//! Extended attributes as one number, so that two files' can be compared.
//!
//! Owns: which attributes count. Must not: keep them.

use std::ffi::{CStr, CString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use crate::rootfs::is_overlay_private;
use crate::sys::xattr;

/// A path for the calls that take no directory descriptor; its last part is the file itself, never what it points to.
pub(super) fn path_of(dir: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    // Neither part has a NUL in it.
    CString::new(path).unwrap_or_default()
}

/// A hash of all attributes but overlay's own, whatever their order; 0 for none.
///
/// # Errors
/// When they can't be read.
pub(super) fn hash_of(path: &CStr) -> io::Result<u64> {
    let mut sum = 0u64;
    for name in xattr::list_at(path)? {
        // Overlay's own book-keeping changes with what happens elsewhere.
        if is_overlay_private(&name) {
            continue;
        }
        let Ok(key) = CString::new(name.as_bytes()) else { continue };
        let value = xattr::get_at(path, &key)?.unwrap_or_default();
        sum = sum.wrapping_add(hash(&[name.as_bytes(), b"\0", &value].concat()));
    }
    Ok(sum)
}

/// 64 bits of some bytes; not against someone who looks for a collision.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
