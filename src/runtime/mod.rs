//! The low-level runtime: finding runc or crun, handing a call on to it, and the traces of a container in its root.
//!
//! Owns: which program that is, and the layout of its state folder. Must not: decide whether a container is protected.

pub mod calibrate;
pub mod identity;
pub mod kept;
pub mod layout;
pub mod needs;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::sys::process::Exit;
use crate::sys::signals::Mask;
use crate::sys::spawn::{Spawn, exec_program};

/// Where programs are looked for: an engine may call us with no PATH at all (Podman does).
const PLACES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The first of the configured runtimes that is on this machine. Names are looked up in the usual places and then in PATH;
/// a program that is lithify itself under another name is passed over.
///
/// # Errors
/// When none is there: names them all, and the remedy.
pub fn find(names: &[PathBuf]) -> Result<PathBuf> {
    let own = std::fs::metadata("/proc/self/exe").ok().map(|m| (m.dev(), m.ino()));
    let usable = |path: &Path| {
        std::fs::metadata(path)
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0 && Some((m.dev(), m.ino())) != own)
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    for name in names {
        let candidates: Vec<PathBuf> = if name.is_absolute() {
            vec![name.clone()]
        } else {
            let places = PLACES.iter().map(PathBuf::from).chain(std::env::split_paths(&path));
            places.filter(|p| p.is_absolute()).map(|p| p.join(name)).collect()
        };
        if let Some(found) = candidates.into_iter().find(|c| usable(c)) {
            return Ok(found);
        }
    }
    bail!(
        "failed to find a low-level runtime: none of {} is an executable on this machine; install runc or crun, or name one \
         in 'runtimes' of the configuration",
        names.iter().map(|n| n.display().to_string()).collect::<Vec<_>>().join(", ")
    )
}

/// Becomes the low-level runtime. Returns only the error.
pub fn become_runtime(runtime: &Path, argv: &[OsString]) -> io::Error {
    let words: Vec<&OsStr> = argv.iter().map(OsString::as_os_str).collect();
    exec_program(runtime, &words)
}

/// Runs the low-level runtime on our own standard streams and waits for it; it ends if we do.
///
/// # Errors
/// When it can't be started.
pub fn run_and_wait(runtime: &Path, argv: &[OsString]) -> io::Result<Exit> {
    let words: Vec<&OsStr> = argv.iter().map(OsString::as_os_str).collect();
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let child = Spawn {
        program: runtime,
        args: &words,
        stdio: [input.as_fd(), output.as_fd(), error.as_fd()],
        extra: Vec::new(),
        mask: Mask::current(),
        parent_death_signal: libc::SIGKILL,
        listening: false,
    }
    .start()?;
    crate::sys::process::wait_pid(child.pid)
}
