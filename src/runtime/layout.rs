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
    /// Finds it by what is in it, never by the program's name.
    pub fn find(root: Option<&Path>, id: &str) -> Option<Layout> {
        let roots: Vec<PathBuf> = match root {
            Some(root) => vec![root.to_owned()],
            None => vec![PathBuf::from("/run/runc")],
        };
        let dirs = roots.into_iter().map(|root| root.join(id));
        dirs.map(|dir| Layout { dir }).find(|layout| layout.is_runc())
    }

    fn is_runc(&self) -> bool {
        let regular = |name: &str| self.dir.join(name).symlink_metadata().is_ok_and(|m| m.is_file());
        let fifo = self.dir.join("exec.fifo").symlink_metadata().is_ok_and(|m| m.file_type().is_fifo());
        regular("state.json") && fifo
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
