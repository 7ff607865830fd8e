//! Taking the folder of a container that is to be created, against other calls that want or would remove it.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::delete;
use crate::cli::Invocation;
use crate::runtime;
use crate::supervise::control;
use crate::sys::process::Exit;

/// A container's folder, or what the low-level runtime had to say of it.
pub(super) enum Claim {
    /// It is ours, locked.
    Ours(File),
    /// The container exists: the low-level runtime has said so and ended with this status.
    Exists(i32),
}

/// Takes the container's folder.
pub(super) fn claim(invocation: &Invocation, runtime: &Path, dir: &Path) -> Result<Claim> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    let parent = dir.parent().unwrap_or(Path::new("/"));
    builder
        .recursive(true)
        .create(parent)
        .with_context(|| format!("failed to make state folder {}", parent.display()))?;
    for _ in 0..2 {
        match builder.recursive(false).create(dir) {
            Ok(()) => return Ok(Claim::Ours(lock(dir)?)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("failed to make {}", dir.display())),
        }
        if let Ok(_lease) = control::Lease::take(dir, control::Intent::Use) {
            let exit = runtime::run_and_wait(runtime, &invocation.argv)
                .with_context(|| format!("failed to start {}", runtime.display()))?;
            if exit == Exit::Code(0) {
                // It had lost the container that we supervise, and has made another one, which nobody would.
                delete::force(invocation, dir);
                bail!("failed to create a container in the place of one that still runs; it has been deleted");
            }
            return Ok(Claim::Exists(exit.shell_code()));
        }
        // Nobody supervises it: what an earlier container of that id left, or one that another create is making now.
        ensure!(
            delete::remove_stale(dir)?,
            "failed to create {}: another create of that id is under way; wait for it or delete the container",
            dir.display()
        );
    }
    bail!("failed to make {}: it is there again", dir.display())
}

/// Locks a folder that was just made, against whoever would take it for what a killed create has left.
fn lock(dir: &Path) -> Result<File> {
    use std::os::unix::fs::MetadataExt;
    let folder = File::open(dir).with_context(|| format!("failed to open {}", dir.display()))?;
    let locked = folder.try_lock().is_ok();
    let same = |a: std::fs::Metadata, b: std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let still = folder.metadata().is_ok_and(|ours| dir.metadata().is_ok_and(|there| same(ours, there)));
    ensure!(locked && still, "failed to lock {}: another call has taken it; try again", dir.display());
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_is_ours_until_we_let_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let held = lock(dir.path()).expect("ours");
        assert!(lock(dir.path()).is_err());
        assert!(!delete::remove_stale(dir.path()).expect("looked at"));
        assert!(dir.path().exists());
        drop(held);
        std::fs::write(dir.path().join("config.json"), "{}").expect("a file");
        assert!(delete::remove_stale(dir.path()).expect("removed"));
        assert!(!dir.path().exists());
    }
}
