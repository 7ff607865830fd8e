//! Which revision a container is: one image with one set of parameters.
//!
//! Owns: what makes two containers the same, for the purpose of expecting the same behaviour. Pure. Must not: use what is each
//! container's own (its id, its host name, its init layer, values of its environment), or the order in which an engine
//! happens to write things.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Source;
use crate::events::EngineNames;
use crate::profile::Revision;
use crate::spec::Document;
use crate::spec::seal::clean;

/// Annotations that hold an image's digest or id, the most exact first.
const IMAGE_DIGESTS: [&str; 5] = [
    "io.kubernetes.cri-o.ImageRef",
    "io.kubernetes.cri-o.Image",
    "io.kubernetes.cri.image-name",
    "io.kubernetes.cri-o.ImageName",
    "nerdctl/image",
];

/// Where the engine itself mounts things in every container. What is below `/run/secrets` and the like comes and goes with
/// each container, and so do the pseudo filesystems' details.
const ENGINES_OWN: [&str; 14] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/mtab",
    "/run/.containerenv",
    "/run/secrets",
    "/var/run/secrets",
    "/run/lock",
    "/var/run/.containerenv",
    "/.dockerinit",
    "/.dockerenv",
    "/dev/shm",
    "/dev/mqueue",
    "/dev/termination-log",
];
/// What every container has here counts only where somebody binds something else.
const PSEUDO: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The revision of a container, by the engine's config.json (unedited), its annotations and the origin of its root.
pub fn revision(
    config: &Document,
    annotations: &BTreeMap<String, String>,
    names: &EngineNames,
    source: &Source,
) -> Revision {
    let process = &config.value()["process"];
    let (uid, gid) = config.user();
    let mut revision = Revision {
        digest: String::new(),
        image: image(annotations, source),
        image_name: names.image.clone(),
        args: config.args(),
        env: env(&process["env"]),
        mounts: mounts(&config.value()["mounts"]),
        user: format!("{uid}:{gid}"),
        capabilities: strings(&process["capabilities"]["bounding"]).collect::<BTreeSet<_>>().into_iter().collect(),
    };
    revision.digest = digest(&revision);
    revision
}

/// SHA-256 over the canonical JSON of all that counts, its first 16 bytes in hex.
fn digest(revision: &Revision) -> String {
    let Revision { image, args, env, mounts, user, capabilities, .. } = revision;
    // A list keeps its order, and so does the text.
    hash(json!([image, args, env, mounts, user, capabilities]).to_string().as_bytes())
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The image by its digest or id, `sha256:…`, where an annotation of the engine's has it.
pub(super) fn named_image(annotations: &BTreeMap<String, String>) -> Option<String> {
    let mut texts = IMAGE_DIGESTS.iter().filter_map(|key| annotations.get(*key));
    texts.find_map(|text| sha256(text)).map(|digest| format!("sha256:{digest}"))
}

fn image(annotations: &BTreeMap<String, String>, source: &Source) -> String {
    if let Some(named) = named_image(annotations) {
        return named;
    }
    match source {
        Source::Image(id) => id.clone(),
        Source::Layers(paths) => {
            let all: Vec<u8> =
                paths.iter().filter_map(|path| layer(path)).flat_map(|id| [id, vec![0]].concat()).collect();
            format!("layers:{}", hash(&all))
        }
        Source::Directory(path) => format!("rootfs:{}", hash(clean(path).as_os_str().as_bytes())),
    }
}

/// The digest in a reference (`name@sha256:…`, `sha256:…`), or an id that is nothing else.
pub(super) fn sha256(text: &str) -> Option<&str> {
    let digest = text.rsplit_once("sha256:").map_or(text, |(_, digest)| digest);
    let is_digest = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_digest.then_some(digest)
}

/// A layer's name on its node: the directory's path without what each storage driver calls the content in it. `None` for
/// Docker's layer of the container's own (`<container>-init`).
fn layer(path: &Path) -> Option<Vec<u8>> {
    let content = matches!(path.file_name().map(OsStrExt::as_bytes), Some(b"diff" | b"fs"));
    let dir = if content { path.parent().unwrap_or(path) } else { path };
    let is_inits = dir.as_os_str().as_bytes().ends_with(b"-init");
    (!is_inits).then(|| dir.as_os_str().as_bytes().to_vec())
}

fn strings(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
}

/// Names of the environment, without those by which Kubernetes tells each pod of the namespace's services: a new service
/// changes no workload.
fn env(list: &Value) -> Vec<String> {
    let names: BTreeSet<String> =
        strings(list).map(|pair| pair.split('=').next().unwrap_or_default().to_owned()).collect();
    let services: Vec<String> = names
        .iter()
        .filter_map(|name| name.strip_suffix("_SERVICE_HOST"))
        .filter(|service| names.contains(&format!("{service}_SERVICE_PORT")))
        .map(str::to_owned)
        .collect();
    let is_services = |name: &str| {
        services.iter().filter_map(|service| name.strip_prefix(service.as_str())).any(|rest| {
            ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
                .iter()
                .any(|end| rest.strip_prefix(end).is_some_and(|more| more.is_empty() || more.starts_with('_')))
        })
    };
    names.iter().filter(|name| !is_services(name)).cloned().collect()
}

/// `type destination ro|rw` of the mounts that somebody asked for.
fn mounts(list: &Value) -> Vec<String> {
    let told = |mount: &Value| {
        let destination = clean(Path::new(mount["destination"].as_str()?));
        let options: Vec<String> = strings(&mount["options"]).collect();
        let is_bind = options.iter().any(|o| o == "bind" || o == "rbind");
        let is_below = |prefixes: &[&str]| prefixes.iter().any(|prefix| destination.starts_with(prefix));
        if is_below(&ENGINES_OWN) || !is_bind && is_below(&PSEUDO) {
            return None;
        }
        let kind = if is_bind { "bind" } else { mount["type"].as_str().unwrap_or("none") };
        // As mount(8) has it, the last one counts.
        let access = options.iter().rev().find(|o| *o == "ro" || *o == "rw").map_or("rw", String::as_str);
        Some(format!("{kind} {} {access}", destination.display()))
    };
    list.as_array().into_iter().flatten().filter_map(told).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests;
