//! The edits that a protected container's first generation gets.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::Document;
use crate::rootfs::ScratchMount;

/// Marks the root read-only: what the sealed overlay enforces anyway, said where programs look (`/proc/mounts`, statvfs).
pub fn read_only_root(document: &mut Document) {
    if let Some(root) = document.root_mut() {
        root.insert("readonly".to_owned(), Value::Bool(true));
    }
}

/// Points `root.path` elsewhere (for containers that must be built in the host's mount namespace).
pub fn root_path(document: &mut Document, path: &Path) {
    if let Some(root) = document.root_mut() {
        root.insert("path".to_owned(), json!(path));
    }
}

/// Makes relative bind sources absolute, as the low-level runtime would against the bundle.
pub fn absolute_sources(document: &mut Document, bundle: &Path) {
    for mount in document.list_mut("/mounts") {
        let bind = mount["options"].as_array().into_iter().flatten().any(|o| o == "bind" || o == "rbind");
        if let Some(source) = mount["source"].as_str().filter(|s| bind && !s.starts_with('/')) {
            mount["source"] = json!(bundle.join(source));
        }
    }
}

/// Adds scratch mounts. A destination that the engine mounts something on already keeps the engine's mount. Each goes
/// before the first mount that lies below it, which it would hide otherwise.
pub fn add_scratch(document: &mut Document, scratch: &[ScratchMount]) {
    if scratch.is_empty() {
        return;
    }
    let mounts = &mut document.value_mut()["mounts"];
    if !mounts.is_array() {
        *mounts = json!([]);
    }
    let Some(mounts) = mounts.as_array_mut() else { return };
    for new in scratch {
        let place = clean(&new.destination);
        let at = |m: &Value| m["destination"].as_str().map(|d| clean(Path::new(d))).unwrap_or_default();
        if mounts.iter().any(|m| at(m) == place) {
            continue;
        }
        let index = mounts.iter().position(|m| at(m).starts_with(&place)).unwrap_or(mounts.len());
        mounts
            .insert(index, json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": new.options }));
    }
}

/// A destination without `.`, `..`, doubled or trailing slashes, absolute.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}
