//! Extended attributes (xattr(7)), with bounded buffers: of open files, `O_PATH` ones and symbolic links included (the
//! f-calls refuse those, so the file is named as `/proc/self/fd/N`), and of paths whose last part is never followed.

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
    // SAFETY: `path` is a C string and the kernel writes at most the buffer's length; both outlive the call.
    names(|buffer| unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// As [`list`], for a path whose last part is never followed.
///
/// # Errors
/// What llistxattr(2) says.
pub fn list_at(path: &CStr) -> io::Result<Vec<OsString>> {
    // SAFETY: as in `list`.
    names(|buffer| unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// The value of an attribute; `None` where there is none of this name, or the filesystem has no attributes.
///
/// # Errors
/// What getxattr(2) says.
pub fn get(fd: impl AsFd, key: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let path = name(fd.as_fd());
    let key = CString::new(key.as_bytes())?;
    // SAFETY: both names are C strings and the kernel writes at most the buffer's length; all outlive the call.
    filled(|buffer| unsafe { libc::getxattr(path.as_ptr(), key.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// As [`get`], for a path whose last part is never followed.
///
/// # Errors
/// What lgetxattr(2) says.
pub fn get_at(path: &CStr, key: &CStr) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: as in `get`.
    filled(|buffer| unsafe { libc::lgetxattr(path.as_ptr(), key.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

fn names(call: impl Fn(&mut [u8]) -> libc::ssize_t) -> io::Result<Vec<OsString>> {
    let all = filled(call)?.unwrap_or_default();
    let names = all.split(|b| *b == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsString::from_vec(name.to_vec())).collect())
}

/// Asks with a small buffer, and with the largest that can be needed where that does not do.
fn filled(call: impl Fn(&mut [u8]) -> libc::ssize_t) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0u8; 512];
    loop {
        match usize::try_from(call(&mut buffer)).map_err(|_| io::Error::last_os_error()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn attributes_are_read_by_descriptor_and_by_path_and_large_ones_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        let file = File::create(&path).expect("a file");
        let large = vec![7u8; 3000];
        set(&file, OsStr::new("trusted.large"), &large).expect("set");
        create(&file, OsStr::new("trusted.small"), b"x").expect("created");
        assert!(create(&file, OsStr::new("trusted.small"), b"y").is_err());
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        assert_eq!(get(&file, OsStr::new("trusted.large")).expect("read"), Some(large.clone()));
        assert_eq!(get_at(&path, c"trusted.large").expect("read"), Some(large));
        assert_eq!(get_at(&path, c"trusted.none").expect("read"), None);
        let mut names = [list(&file).expect("listed"), list_at(&path).expect("listed")];
        names.iter_mut().for_each(|names| names.sort());
        assert_eq!(names[0], names[1]);
        assert!(names[0].iter().any(|n| n == "trusted.large") && names[0].iter().any(|n| n == "trusted.small"));
    }

    #[test]
    fn a_link_at_the_end_of_a_path_is_not_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = File::create(dir.path().join("file")).expect("a file");
        set(&file, OsStr::new("trusted.it"), b"x").expect("set");
        std::os::unix::fs::symlink("file", dir.path().join("link")).expect("a link");
        let link = CString::new(dir.path().join("link").as_os_str().as_bytes()).expect("no NUL");
        assert_eq!(get_at(&link, c"trusted.it").expect("read"), None);
    }
}
