//! Extended attributes of a path whose last component is never followed (xattr(7)).
//!
//! Owns: lgetxattr(2) and llistxattr(2) with bounded buffers. Must not: interpret names or values.

use std::ffi::CStr;
use std::io;

/// Largest value, and largest list of names, that the kernel allows (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`, limits.h).
const MAX_BYTES: usize = 65536;

/// The value of one attribute; `None` when the object lacks it or its filesystem has no such attributes.
///
/// # Errors
/// Those of lgetxattr(2) other than `ENODATA` and `EOPNOTSUPP`.
pub fn get(path: &CStr, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let size = |buffer: &mut [u8]| {
        // SAFETY: both strings end in NUL and the kernel writes at most `buffer.len()` bytes; length 0 asks for the size.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    };
    filled(size)
}

/// The names of all attributes, each ended by NUL; `None` when the filesystem has none.
///
/// # Errors
/// Those of llistxattr(2) other than `EOPNOTSUPP`.
pub fn list(path: &CStr) -> io::Result<Option<Vec<u8>>> {
    let size = |buffer: &mut [u8]| {
        // SAFETY: `path` ends in NUL and the kernel writes at most `buffer.len()` bytes; length 0 asks for the size.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    };
    filled(size)
}

/// Asks for the size, then for the content; an attribute that grew in between is asked for again, at full size.
fn filled(call: impl Fn(&mut [u8]) -> libc::ssize_t) -> io::Result<Option<Vec<u8>>> {
    let mut wanted = call(&mut []);
    for _ in 0..2 {
        if wanted <= 0 {
            break;
        }
        let mut buffer = vec![0; (wanted as usize).min(MAX_BYTES)];
        let got = call(&mut buffer);
        if got >= 0 {
            buffer.truncate(got as usize);
            return Ok(Some(buffer));
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::ERANGE) {
            wanted = got;
            break;
        }
        wanted = MAX_BYTES as libc::ssize_t;
    }
    if wanted == 0 {
        return Ok(Some(Vec::new()));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENODATA | libc::EOPNOTSUPP) => Ok(None),
        _ => Err(error),
    }
}
