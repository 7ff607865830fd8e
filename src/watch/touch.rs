//! One touched path: what happened to it, and the change which that makes.
//!
//! Owns: deriving the kind of a change from the sum of a path's events, from what is in the upper now, and from what the
//! image has there. Must not: read events, look at files itself (it asks a [`View`]), or know of other paths.

use std::path::{Path, PathBuf};

use nix::sys::stat::FileStat;

use super::{ChangeKind, image};

/// A name was made in the upper.
pub(super) const CREATED: u32 = 1;
/// It was moved there out of overlay's work directory (or from elsewhere).
pub(super) const ARRIVED: u32 = 1 << 1;
/// Content was written, or a writer closed it.
pub(super) const MODIFIED: u32 = 1 << 2;
/// Mode, owner, times or extended attributes.
pub(super) const ATTRIBUTES: u32 = 1 << 3;
/// The name was removed.
pub(super) const DELETED: u32 = 1 << 4;
/// It was moved out of the upper.
pub(super) const VANISHED: u32 = 1 << 5;
/// It is the old name of a rename.
pub(super) const MOVED_FROM: u32 = 1 << 6;
/// It is the new name of a rename.
pub(super) const MOVED_TO: u32 = 1 << 7;

/// What is in the upper at a path now.
#[derive(Debug, Clone)]
pub(super) enum Now {
    /// Nothing.
    Absent,
    /// Overlay's mark of a deletion.
    Whiteout,
    /// A file; `opaque` for a directory that hides the image's.
    Present { stat: Box<FileStat>, opaque: bool },
}

/// How the collector sees the files.
pub(super) trait View {
    /// The upper, at a path relative to its root.
    fn now(&self, path: &Path) -> Now;
    /// The image, likewise.
    fn image(&self, path: &Path) -> Option<FileStat>;
    /// Whether the upper's directory looks to a user as it did before: mode, owner, time, attributes.
    fn looks_as_before(&self, path: &Path) -> bool;
    /// Whether the upper's directory has other extended attributes than the image's.
    fn xattrs_differ(&self, path: &Path) -> bool;
    /// Whether a name was given, in an earlier report, to the file with this handle.
    fn was_named(&self, target: &[u8]) -> bool;
}

/// What happened at one path since the last report.
#[derive(Debug)]
pub(super) struct Touch {
    pub(super) path: PathBuf,
    pub(super) bits: u32,
    pub(super) pid: i32,
    pub(super) target: Option<Box<[u8]>>,
    pub(super) old: Option<PathBuf>,
}

impl Touch {
    /// The kind, the detail, and whether it is weak; `None` when another touch tells it.
    pub(super) fn decide(&self, view: &dyn View) -> Option<(ChangeKind, Option<String>, bool)> {
        let has = |bits: u32| self.bits & bits != 0;
        let now = view.now(&self.path);
        let Now::Present { stat, opaque } = &now else {
            return self.decide_gone(&now, view);
        };
        if let Some(old) = self.old.as_ref().filter(|_| has(MOVED_TO)) {
            return Some((ChangeKind::Rename, Some(Path::new("/").join(old).to_string_lossy().into_owned()), false));
        }
        let is_dir = image::is_dir(stat);
        if has(CREATED | ARRIVED) {
            let same = |s: &FileStat| s.st_mode & libc::S_IFMT == stat.st_mode & libc::S_IFMT;
            let Some(original) = view.image(&self.path).filter(same).filter(|_| !opaque) else {
                return Some((ChangeKind::Create, None, false));
            };
            return Some(if is_dir {
                if view.looks_as_before(&self.path) {
                    return None;
                }
                // A time alone may be a by-product of what happens below.
                let differ = attributes_differ(stat, &original) || view.xattrs_differ(&self.path);
                (ChangeKind::Attributes, None, !differ)
            } else if has(MODIFIED) {
                (ChangeKind::Modify, None, false)
            } else if has(ATTRIBUTES) {
                (ChangeKind::Attributes, None, false)
            } else {
                (ChangeKind::Modify, None, !has(MOVED_FROM))
            });
        }
        // Setting the time of modification alone is a "modify" to the kernel, of a directory too.
        let has_attributes = has(ATTRIBUTES) || has(MODIFIED) && is_dir;
        if has(MODIFIED) && !is_dir {
            return Some((ChangeKind::Modify, None, false));
        }
        if has(DELETED | VANISHED) {
            // What is there now came later; its own event is on the way.
            return Some((ChangeKind::Delete, None, true));
        }
        if has_attributes && !(is_dir && view.looks_as_before(&self.path)) {
            let differs = || {
                view.image(&self.path).is_some_and(|original| attributes_differ(stat, &original))
                    || view.xattrs_differ(&self.path)
            };
            return Some((ChangeKind::Attributes, None, is_dir && !differs()));
        }
        None
    }

    fn decide_gone(&self, now: &Now, view: &dyn View) -> Option<(ChangeKind, Option<String>, bool)> {
        let has = |bits: u32| self.bits & bits != 0;
        if has(MOVED_FROM) && !has(DELETED) {
            return None;
        }
        if matches!(now, Now::Whiteout) || has(DELETED | VANISHED) && !has(CREATED) || view.image(&self.path).is_some()
        {
            return Some((ChangeKind::Delete, None, false));
        }
        if has(CREATED | ARRIVED | MOVED_TO) {
            return Some((ChangeKind::Create, Some("gone again".to_owned()), false));
        }
        if has(MODIFIED) {
            let unnamed = self.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"#"));
            return Some(if unnamed {
                (ChangeKind::Create, Some("a file without a name (O_TMPFILE)".to_owned()), true)
            } else {
                (ChangeKind::Modify, None, false)
            });
        }
        Some((ChangeKind::Attributes, None, true))
    }
}

fn attributes_differ(a: &FileStat, b: &FileStat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) != (b.st_mode, b.st_uid, b.st_gid)
}
