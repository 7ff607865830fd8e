//! What runc and crun keep for a container under `--root`, as far as a fast restart needs it.
//!
//! runc (1.0 to 1.3): `<root>/<id>/state.json` and, until the workload begins, `<root>/<id>/exec.fifo`, to which its init
//! writes one byte just before it executes the workload. Where that layout is not found, callers use `delete` and `start`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A container's folder under the low-level runtime's root.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The folder of a container that waits to be started. Told by what is in it, never by the program's name.
    pub fn created(root: Option<&Path>, id: &str) -> Option<Layout> {
        let layout = Layout::started(root, id)?;
        let fifo = layout.dir.join("exec.fifo").symlink_metadata().is_ok_and(|m| m.file_type().is_fifo());
        fifo.then_some(layout)
    }

    /// The folder of a container that runs or has run.
    pub fn started(root: Option<&Path>, id: &str) -> Option<Layout> {
        let dir = root.unwrap_or(Path::new("/run/runc")).join(id);
        let state = dir.join("state.json").symlink_metadata().is_ok_and(|m| m.is_file());
        state.then_some(Layout { dir })
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
}
