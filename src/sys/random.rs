//! Random bytes from the kernel. Must not: be used for keys that outlive the process.

use std::io;

/// Fills `buf` from the kernel's generator (getrandom(2), Linux 3.17).
///
/// # Errors
/// When the system call fails, which it does not once the generator is seeded.
pub fn fill(buf: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        let rest = &mut buf[done..];
        // SAFETY: the pointer and length describe `rest`, which is writable and outlives the call.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        if n < 0 {
            let e = io::Error::last_os_error();
            if e.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(e);
        }
        done += n as usize;
    }
    Ok(())
}

/// `len` random bytes as lower-case hex, for the names of temporary files.
///
/// # Errors
/// As [`fill`].
pub fn hex(len: usize) -> io::Result<String> {
    let mut bytes = vec![0u8; len];
    fill(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}
