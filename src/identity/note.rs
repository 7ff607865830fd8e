//! Which image Docker or Podman made a container from: they tell a runtime nothing of it, but note it beside its layers.
//!
//! Owns: finding that note, `<data-root>/containers/<id>/config.v2.json` or
//! `<graphroot>/overlay-containers/containers.json`. Must not: need it: without it the layers' names tell images apart, but
//! they are the node's own, and new after each pull.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::Deserialize;

use super::revision::sha256;

/// Longest note that is read, in bytes: Docker's holds the container's environment and labels, Podman's all containers.
const MAX_NOTE: u64 = 4 << 20;

/// An image, as the engine notes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id, `sha256:…`, the same on every node.
    pub id: String,
    /// Its repository, without the tag: what outlives an update. `None` where whoever made the container gave an id.
    pub repository: Option<String>,
}

/// Docker's note of one container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Docker {
    image: String,
    config: Option<DockersConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockersConfig {
    image: Option<String>,
}

/// Podman's notes, one for each container.
#[derive(Deserialize)]
struct Podman {
    id: String,
    image: Option<String>,
    metadata: Option<String>,
}

/// What Podman has within [`Podman::metadata`], as a text.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct PodmansMetadata {
    image_name: Option<String>,
}

/// The image of a container; `None` where this is no container of Docker's or Podman's.
pub fn image(rootfs: &Path, container: &str) -> Option<Image> {
    if container.len() != 64 || !container.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    // <data-root>/<storage driver>/<layer>/merged
    let storage = rootfs.ancestors().nth(3)?;
    let (id, name) = docker(storage, container).or_else(|| podman(storage, container))?;
    let digest = sha256(&id)?;
    // Docker notes what was typed, which may be an id's first digits.
    let repository = name.as_deref().and_then(repository).filter(|name| !digest.starts_with(name));
    Some(Image { id: format!("sha256:{digest}"), repository: repository.map(str::to_owned) })
}

fn docker(storage: &Path, container: &str) -> Option<(String, Option<String>)> {
    let file = open(&storage.join("containers").join(container).join("config.v2.json"))?;
    let note: Docker = serde_json::from_reader(file.take(MAX_NOTE)).ok()?;
    Some((note.image, note.config.and_then(|config| config.image)))
}

fn podman(storage: &Path, container: &str) -> Option<(String, Option<String>)> {
    let file = open(&storage.join("overlay-containers").join("containers.json"))?;
    let notes: Vec<Podman> = serde_json::from_reader(std::io::BufReader::new(file.take(MAX_NOTE))).ok()?;
    let note = notes.into_iter().find(|note| note.id == container)?;
    let metadata: Option<PodmansMetadata> = note.metadata.and_then(|text| serde_json::from_str(&text).ok());
    Some((format!("sha256:{}", note.image?), metadata.and_then(|metadata| metadata.image_name)))
}

/// The repository of an image's reference, as Docker shows it: `nginx` for `docker.io/library/nginx:1.27@sha256:…`. `None` for
/// an id.
pub fn repository(reference: &str) -> Option<&str> {
    let name = reference.split('@').next().unwrap_or_default();
    // A registry's port is no tag.
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let familiar = ["docker.io/library/", "docker.io/", "localhost/"];
    let name = familiar.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    (!name.is_empty() && name != "sha256").then_some(name)
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

    fn id_of(rootfs: &Path, container: &str) -> Option<String> {
        image(rootfs, container).map(|image| image.id)
    }

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
        assert_eq!(id_of(&rootfs, ID), expected);
        assert_eq!(id_of(&rootfs, "web"), None);
        assert_eq!(id_of(&rootfs, &"../".repeat(22)[..64]), None);
        assert_eq!(id_of(Path::new("/rootfs"), ID), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("a mode");
        assert_eq!(id_of(&rootfs, ID), None, "what anybody can write says nothing");
    }

    #[test]
    fn a_note_that_is_none_says_nothing() {
        for note in ["", "{", r#"{"Image":1}"#, r#"{"Image":"nginx:latest"}"#, r#"{"Image":"sha256:../x"}"#, "[]"] {
            let dir = tempfile::tempdir().expect("a folder");
            let (rootfs, path) = data_root(dir.path(), note);
            assert_eq!(id_of(&rootfs, ID), None, "{note}");
            fs::rename(&path, path.with_extension("real")).expect("renamed");
            symlink(path.with_extension("real"), &path).expect("a link");
            assert_eq!(id_of(&rootfs, ID), None, "a link to {note}");
        }
    }

    #[test]
    fn a_repository_is_what_outlives_an_update() {
        let long = format!("docker.io/library/nginx:1.27@sha256:{ID}");
        for (reference, name) in [
            ("nginx", Some("nginx")),
            ("nginx:1.27-alpine", Some("nginx")),
            (long.as_str(), Some("nginx")),
            ("docker.io/grafana/loki:3", Some("grafana/loki")),
            ("localhost/mine:latest", Some("mine")),
            ("registry:5000/shop/api", Some("registry:5000/shop/api")),
            ("registry:5000/shop/api:2", Some("registry:5000/shop/api")),
            (&format!("sha256:{ID}"), None),
            ("", None),
            (":1", None),
        ] {
            assert_eq!(repository(reference), name, "{reference}");
        }
    }

    #[test]
    fn docker_and_podman_note_an_images_name_too() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let repository_of = |note: &str| {
            let dir = tempfile::tempdir().expect("a folder");
            let (rootfs, _) = data_root(dir.path(), note);
            image(&rootfs, ID).and_then(|image| image.repository)
        };
        let docker = |name: &str| repository_of(&format!(r#"{{"Image":"sha256:{ID}","Config":{{"Image":"{name}"}}}}"#));
        assert_eq!(docker("nginx:1").as_deref(), Some("nginx"));
        assert_eq!(docker(&ID[..12]), None, "the first digits of its id");
        assert_eq!(docker(&format!("sha256:{ID}")), None);

        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("overlay-containers");
        fs::create_dir(&folder).expect("a folder");
        let metadata = r#"{\"image-name\":\"docker.io/library/redis:7\",\"name\":\"web\"}"#;
        let notes = format!(
            r#"[{{"id":"other","image":"x"}},{{"id":"{ID}","names":["web"],"image":"{ID}","metadata":"{metadata}"}}]"#
        );
        fs::write(folder.join("containers.json"), notes).expect("a note");
        fs::set_permissions(folder.join("containers.json"), fs::Permissions::from_mode(0o600)).expect("a mode");
        let found = image(&dir.path().join("overlay/layer/merged"), ID);
        assert_eq!(found, Some(Image { id: format!("sha256:{ID}"), repository: Some("redis".into()) }));
    }
}
