//! What runc and crun keep for a container under `--root`, as far as a fast restart needs it.
//!
//! runc (1.0 to 1.3): `<root>/<id>/state.json` and, until the workload begins, `<root>/<id>/exec.fifo`, to which its init
//! writes one byte just before it executes the workload. crun (1.8): `<root>/<id>/status` and `config.json`, and an
//! `exec.fifo` from which its init reads: only `start` of crun's own lets it go. Where neither layout is found, callers use
//! `delete` and `start`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most of crun's `status` that is read, in bytes: its longest members are a few paths.
const MAX_STATUS: u64 = 1 << 20;
/// Most of a container's configuration as a runtime keeps it, in bytes: config.json and what it made of it.
const MAX_REMEMBERED: u64 = 64 << 20;

/// A container's folder under the low-level runtime's root.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
    has_gate: bool,
}

impl Layout {
    /// The folder of a container that waits to be started, with init `pid`. Told by what is in it, never by the program's
    /// name.
    pub fn created(root: Option<&Path>, id: &str, pid: i32) -> Option<Layout> {
        let of_crun = || {
            let dir = root.unwrap_or(Path::new("/run/crun")).join(id);
            (is_file(&dir.join("config.json")) && status_names(&dir.join("status"), pid))
                .then_some(Layout { dir, has_gate: false })
        };
        let waits =
            |layout: &Layout| layout.dir.join("exec.fifo").symlink_metadata().is_ok_and(|m| m.file_type().is_fifo());
        Layout::started(root, id).filter(waits).or_else(of_crun)
    }

    /// runc's folder of a container that runs or has run.
    pub fn started(root: Option<&Path>, id: &str) -> Option<Layout> {
        let dir = root.unwrap_or(Path::new("/run/runc")).join(id);
        is_file(&dir.join("state.json")).then_some(Layout { dir, has_gate: true })
    }

    /// Whether [`Layout::open_gate`] is the way to begin; otherwise that is `start`.
    pub fn has_gate(&self) -> bool {
        self.has_gate
    }

    /// Opens the fifo that the waiting init blocks on: that alone lets it go on. The descriptor becomes readable when init
    /// is about to execute the workload.
    ///
    /// # Errors
    /// When it is gone.
    pub fn open_gate(&self) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(self.dir.join("exec.fifo"))
    }

    /// Tells runc that the workload has begun: its `state` says `running` once the fifo is gone.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn mark_started(&self) -> io::Result<()> {
        std::fs::remove_file(self.dir.join("exec.fifo"))
    }

    /// Forgets a container whose processes have ended, as `delete` does, except that its cgroups stay for the next
    /// generation (engines hold event descriptors on them) and `poststop` hooks do not run: the container has not stopped.
    ///
    /// # Errors
    /// When the folder can't be removed.
    pub fn forget(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.dir)
    }

    /// Where only the low-level runtime's own `delete` will do (systemd keeps the cgroups): takes `poststop` hooks, which
    /// tear a container's network down, out of what it remembers, for the container has not stopped.
    ///
    /// # Errors
    /// When what it remembers can't be read or replaced.
    pub fn leave_out_poststop(&self) -> io::Result<()> {
        let (name, hooks) = if self.has_gate { ("state.json", "/config/Hooks") } else { ("config.json", "/hooks") };
        let (path, new) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        let mut text = Vec::new();
        open_file(&path)?.take(MAX_REMEMBERED).read_to_end(&mut text)?;
        let mut remembered: serde_json::Value = serde_json::from_slice(&text)?;
        let hooks = remembered.pointer_mut(hooks).and_then(serde_json::Value::as_object_mut);
        if hooks.and_then(|hooks| hooks.remove("poststop")).is_none() {
            return Ok(());
        }
        std::fs::write(&new, serde_json::to_vec(&remembered)?)?;
        std::fs::rename(&new, &path)
    }
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.is_file())
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)
}

/// Whether crun's `status` is that of a container with init `pid`: without `--root` its folder has a fixed place, where a
/// container of another caller's may have the same id.
fn status_names(path: &Path, pid: i32) -> bool {
    let read = || -> io::Result<serde_json::Value> {
        let mut text = Vec::new();
        open_file(path)?.take(MAX_STATUS).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    };
    read().is_ok_and(|status| status["pid"] == pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_runtimes_folder_is_told_by_what_is_in_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = Some(dir.path());
        let path = |name: &str| dir.path().join(name);
        let fifo = |name: &str| nix::unistd::mkfifo(&path(name), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        for id in ["runc", "crun", "neither"] {
            std::fs::create_dir(path(id)).expect("a folder");
        }
        std::fs::write(path("runc/state.json"), "{}").expect("a file");
        assert!(Layout::created(root, "runc", 12).is_none(), "it has begun");
        fifo("runc/exec.fifo");
        assert!(Layout::created(root, "runc", 12).is_some_and(|layout| layout.has_gate()));
        std::fs::write(path("crun/config.json"), "{}").expect("a file");
        std::fs::write(path("crun/status"), "{\"pid\": 12}").expect("a file");
        fifo("crun/exec.fifo");
        assert!(Layout::created(root, "crun", 12).is_some_and(|layout| !layout.has_gate()));
        assert!(Layout::created(root, "crun", 13).is_none(), "a container of the same id, but another one");
        assert!(Layout::started(root, "crun").is_none());
        fifo("neither/status");
        std::fs::write(path("neither/config.json"), "{}").expect("a file");
        assert!(Layout::created(root, "neither", 12).is_none());
    }
}
