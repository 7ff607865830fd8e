//! Files that live in memory only (memfd_create(2), Linux 3.17).

use std::ffi::CString;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file with this content, at its start, that nobody can change any more.
///
/// # Errors
/// `EMFILE`, `ENOMEM`.
pub fn file(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fd = memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(content)?;
    file.rewind()?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// Unmaps what is resident of the program's and its libraries' code: a process that is to wait for months takes part in the
/// memory's bill with what it needs to wait. The pages stay in the page cache and are mapped again when they are run.
pub fn release_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some("r-xp")) = (fields.next(), fields.next()) else { continue };
        if !fields.last().is_some_and(|path| path.starts_with('/')) {
            continue;
        }
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        let Some((Some(from), Some(to))) = range.split_once('-').map(|(a, b)| (address(a), address(b))) else {
            continue;
        };
        // SAFETY: a private mapping of a file that is executable and was never writable holds nothing but the file's own
        // content, so the kernel maps the same again (madvise(2), MADV_DONTNEED). Position-independent code has no
        // relocations in its text.
        unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
    }
}
