//! Which program a session would run: what its arguments lead to in the container, as the kernel will see it.
//!
//! Owns: that look. Must not: decide whether it may, or be led out of the container's root.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde_json::Value;

use crate::sys::proc_fd;

/// Where programs are looked for if the session has no `PATH`, as low-level runtimes do.
const PLACES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most places of a `PATH` that are looked at.
const MAX_PLACES: usize = 64;
/// Most of a script's first line that the kernel reads (`BINPRM_BUF_SIZE`).
const MAX_LINE: u64 = 256;

/// The program's path in the container of this init; for a script, that and its interpreter's, which is what the kernel
/// runs. Empty where there is none.
pub(super) fn programs(process: &Value, init: i32) -> Vec<String> {
    let root = File::options().read(true).open(format!("/proc/{init}/root/"));
    match (root, process["args"][0].as_str()) {
        (Ok(root), Some(name)) if !name.is_empty() => within(root.as_fd(), process, name),
        _ => Vec::new(),
    }
}

fn within(root: BorrowedFd<'_>, process: &Value, name: &str) -> Vec<String> {
    let cwd = PathBuf::from(process["cwd"].as_str().unwrap_or("/"));
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![cwd.join(name)]
    } else {
        let env = process["env"].as_array().into_iter().flatten().filter_map(Value::as_str);
        // Of two, the last one counts, as it does for who sets them one after the other.
        let path = env.filter_map(|entry| entry.strip_prefix("PATH=")).next_back().unwrap_or(PLACES);
        path.split(':').take(MAX_PLACES).map(|place| cwd.join(place).join(name)).collect()
    };
    let Some((fd, path)) = candidates.iter().find_map(|candidate| program(root, candidate)) else { return Vec::new() };
    let interpreter = interpreter(fd.as_fd()).and_then(|interpreter| program(root, &cwd.join(interpreter)));
    [Some(path), interpreter.map(|(_, path)| path)].into_iter().flatten().collect()
}

/// A file that can be executed, and its one path in the root.
fn program(root: BorrowedFd<'_>, path: &Path) -> Option<(OwnedFd, String)> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    let fd = openat2(root, path, how).ok()?;
    let facts = std::fs::metadata(proc_fd::path(fd.as_fd())).ok()?;
    if !facts.is_file() || facts.permissions().mode() & 0o111 == 0 {
        return None;
    }
    let shown = std::fs::read_link(proc_fd::path(fd.as_fd())).ok()?;
    // Seen from the container's own mount namespace the root is `/`; where it is not one's own, that is cut off.
    let base = std::fs::read_link(proc_fd::path(root)).ok()?;
    let inside = Path::new("/").join(shown.strip_prefix(&base).ok()?);
    Some((fd, inside.to_string_lossy().into_owned()))
}

/// What a script's first line names.
fn interpreter(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let file = proc_fd::reopen(fd, OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok()?;
    let file = File::from(file);
    (file.metadata().ok()?.size() > 2).then_some(())?;
    let mut line = Vec::new();
    file.take(MAX_LINE).read_to_end(&mut line).ok()?;
    let line = line.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?;
    text.split_ascii_whitespace().next().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    fn make(path: &Path, content: &str, mode: u32) {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("a file");
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its mode");
    }

    #[test]
    fn a_session_is_told_by_the_file_that_would_run_and_never_by_one_outside() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        make(&path("bin/busybox"), "\x7fELF", 0o755);
        make(&path("srv/plain"), "text", 0o644);
        make(&path("srv/check"), "#! /bin/sh -e\necho", 0o755);
        symlink("busybox", path("bin/sh")).expect("a link");
        symlink("/../../../bin/busybox", path("srv/out")).expect("a link");
        symlink("/proc/self/exe", path("srv/magic")).expect("a link");
        let root = File::open(dir.path()).expect("opened");
        let found = |process: Value| {
            let name = process["args"][0].as_str().unwrap_or_default().to_owned();
            within(root.as_fd(), &process, &name)
        };
        assert_eq!(found(json!({ "args": ["sh"] })), ["/bin/busybox"]);
        assert_eq!(found(json!({ "args": ["sh"], "env": ["PATH=/srv:/bin"] })), ["/bin/busybox"]);
        assert_eq!(found(json!({ "args": ["./check"], "cwd": "/srv" })), ["/srv/check", "/bin/busybox"]);
        assert_eq!(found(json!({ "args": ["/srv/out"] })), ["/bin/busybox"], "a link leads around the root only");
        for none in ["/srv/plain", "/srv/magic", "/nowhere", "sh/x", "/bin"] {
            assert!(found(json!({ "args": [none] })).is_empty(), "{none}");
        }
        assert!(found(json!({ "args": ["sh"], "env": ["PATH=/srv"] })).is_empty());
    }
}
