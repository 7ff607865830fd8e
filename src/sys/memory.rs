//! Memory: files that live in it only (memfd_create(2), Linux 3.17), our own, and other processes'.

use std::ffi::CString;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

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

/// A string in another process's memory, up to its NUL byte, at most `most` bytes (process_vm_readv(2), Linux 3.2). What was
/// read before the first page that is not there counts.
///
/// # Errors
/// `EFAULT` when nothing is there, `ESRCH` when the process has gone, `EPERM`.
pub fn string_of(pid: i32, address: u64, most: usize) -> io::Result<Vec<u8>> {
    const PAGE: usize = 4096;
    let mut text = Vec::new();
    while text.len() < most {
        let Some(from) = (address as usize).checked_add(text.len()) else { break };
        // Page by page: a read that reaches into one that is missing fails as a whole.
        let length = (PAGE - from % PAGE).min(most - text.len());
        let mut part = vec![0; length];
        let remote = [RemoteIoVec { base: from, len: length }];
        match process_vm_readv(Pid::from_raw(pid), &mut [io::IoSliceMut::new(&mut part)], &remote) {
            Ok(read) => part.truncate(read),
            Err(error) if text.is_empty() => return Err(error.into()),
            Err(_) => break,
        }
        if let Some(end) = part.iter().position(|b| *b == 0) {
            text.extend(&part[..end]);
            break;
        }
        if part.is_empty() {
            break;
        }
        text.extend(part);
    }
    Ok(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_of_a_process_is_read_to_its_end_or_the_bound_and_never_past_its_memory() {
        let own = std::process::id() as i32;
        let long = CString::new(vec![b'x'; 10_000]).expect("no NUL inside");
        let at = long.as_ptr() as u64;
        assert_eq!(string_of(own, at, 65_536).expect("read").len(), 10_000);
        assert_eq!(string_of(own, at, 100).expect("read").len(), 100);
        for nowhere in [0, 8, u64::MAX, u64::MAX - 4096] {
            assert!(string_of(own, nowhere, 4096).is_err(), "{nowhere:#x}");
        }
        assert!(string_of(i32::MAX, at, 16).is_err());
    }
}
