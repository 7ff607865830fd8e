//! Extended attributes (xattr(7)) of open files, `O_PATH` ones and symbolic links included: the f-calls refuse those, so
//! the file is named as `/proc/self/fd/N`.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Longest list of names and longest value that Linux has (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`), in bytes.
const LIMIT_BYTES: usize = 65536;

/// Names of all attributes that the caller may see. A filesystem without attributes has none.
///
/// # Errors
/// What listxattr(2) says.
pub fn list(fd: impl AsFd) -> io::Result<Vec<OsString>> {
    let path = name(fd.as_fd());
    let mut buffer = vec![0u8; 1024];
    loop {
        // SAFETY: `path` is a C string and `buffer` has the length that is passed; both outlive the call.
        let n = unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match done(n) {
            Ok(n) => {
                let names = buffer[..n].split(|b| *b == 0).filter(|name| !name.is_empty());
                return Ok(names.map(|name| OsString::from_vec(name.to_vec())).collect());
            }
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && buffer.len() < LIMIT_BYTES => {
                buffer.resize(LIMIT_BYTES, 0);
            }
            Err(e) => return Err(e),
        }
    }
}

/// The value of an attribute; `None` where there is none of this name, or the filesystem has no attributes.
///
/// # Errors
/// What getxattr(2) says.
pub fn get(fd: impl AsFd, key: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let path = name(fd.as_fd());
    let key = CString::new(key.as_bytes())?;
    let mut buffer = vec![0u8; 256];
    loop {
        // SAFETY: both names are C strings and `buffer` has the length that is passed; all outlive the call.
        let n = unsafe { libc::getxattr(path.as_ptr(), key.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match done(n) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(Some(buffer));
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && buffer.len() < LIMIT_BYTES => {
                buffer.resize(LIMIT_BYTES, 0);
            }
            Err(e) => return Err(e),
        }
    }
}

/// Sets an attribute, whether or not it was there.
///
/// # Errors
/// What setxattr(2) says; EOPNOTSUPP where the filesystem does not keep such attributes.
pub fn set(fd: impl AsFd, key: &OsStr, value: &[u8]) -> io::Result<()> {
    write(name(fd.as_fd()).as_c_str(), key, value, 0)
}

/// Sets an attribute that must not be there yet.
///
/// # Errors
/// EEXIST where it is; else as [`set`].
pub fn create(fd: impl AsFd, key: &OsStr, value: &[u8]) -> io::Result<()> {
    write(name(fd.as_fd()).as_c_str(), key, value, libc::XATTR_CREATE)
}

fn write(path: &CStr, key: &OsStr, value: &[u8], flags: libc::c_int) -> io::Result<()> {
    let key = CString::new(key.as_bytes())?;
    // SAFETY: both names are C strings and `value` has the length that is passed; all outlive the call.
    let code = unsafe { libc::setxattr(path.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn name(fd: BorrowedFd<'_>) -> CString {
    CString::new(super::proc_fd::path(fd)).unwrap_or_default()
}

fn done(n: isize) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
