//! Which image Docker made a container from: Docker 20.10 tells a runtime nothing of it, but notes it beside its layers.
//!
//! Owns: finding that note, `<data-root>/containers/<id>/config.v2.json`. Must not: need it: without it the layers' names tell
//! images apart, but they are the node's own, and new after each pull.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::Deserialize;

use super::revision::sha256;

/// Longest note that is read, in bytes; it holds the container's environment and labels.
const MAX_NOTE: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Note {
    image: String,
}

/// The image's id, `sha256:…`, the same on every node; `None` where this is no container of Docker's.
pub(super) fn image_id(rootfs: &Path, container: &str) -> Option<String> {
    if container.len() != 64 || !container.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    // <data-root>/<storage driver>/<layer>/merged
    let file = open(&rootfs.ancestors().nth(3)?.join("containers").join(container).join("config.v2.json"))?;
    let note: Note = serde_json::from_reader(file.take(MAX_NOTE)).ok()?;
    sha256(&note.image).map(|digest| format!("sha256:{digest}"))
}

/// A plain file of root's that nobody else can write.
fn open(path: &Path) -> Option<File> {
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    let meta = file.metadata().ok()?;
    (meta.is_file() && meta.uid() == 0 && meta.mode() & 0o022 == 0).then_some(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A data root with one container and this note of it: the container's root, and the note's path.
    fn data_root(dir: &Path, note: &str) -> (PathBuf, PathBuf) {
        let folder = dir.join("containers").join(ID);
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("config.v2.json");
        fs::write(&path, note).expect("a note");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        (dir.join("overlay2/layer/merged"), path)
    }

    #[test]
    fn an_image_is_known_by_dockers_note_of_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let (rootfs, path) = data_root(dir.path(), &format!(r#"{{"ID":"{ID}","Image":"sha256:{ID}","More":{{}}}}"#));
        let expected = (nix::unistd::geteuid().is_root()).then(|| format!("sha256:{ID}"));
        assert_eq!(image_id(&rootfs, ID), expected);
        assert_eq!(image_id(&rootfs, "web"), None);
        assert_eq!(image_id(&rootfs, &"../".repeat(22)[..64]), None);
        assert_eq!(image_id(Path::new("/rootfs"), ID), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("a mode");
        assert_eq!(image_id(&rootfs, ID), None, "what anybody can write says nothing");
    }

    #[test]
    fn a_note_that_is_none_says_nothing() {
        for note in ["", "{", r#"{"Image":1}"#, r#"{"Image":"nginx:latest"}"#, r#"{"Image":"sha256:../x"}"#, "[]"] {
            let dir = tempfile::tempdir().expect("a folder");
            let (rootfs, path) = data_root(dir.path(), note);
            assert_eq!(image_id(&rootfs, ID), None, "{note}");
            fs::rename(&path, path.with_extension("real")).expect("renamed");
            symlink(path.with_extension("real"), &path).expect("a link");
            assert_eq!(image_id(&rootfs, ID), None, "a link to {note}");
        }
    }
}
