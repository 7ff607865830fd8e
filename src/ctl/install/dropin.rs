//! Podman and CRI-O read a folder of drop-ins: a file of ours, whole, and none of theirs touched.

use anyhow::{Result, bail};

/// Podman's drop-in (containers.conf(5)).
pub const PODMAN_PATH: &str = "/etc/containers/containers.conf.d/lithify.conf";
/// CRI-O's drop-in (crio.conf.d(5)); a high number, so that it comes after a distribution's own.
pub const CRIO_PATH: &str = "/etc/crio/crio.conf.d/99-lithify.conf";

/// The first line of every file of ours; a file without it is not touched.
const MARK: &str = "# Written by lithifyctl install; lithifyctl install --uninstall removes it.";

/// Podman's text.
pub fn podman(binary: &str) -> String {
    format!(
        "{MARK}\n\
         # lithify writes its errors to stderr, where Podman finds them. To have them through --log as well, add \"lithify\" to\n\
         # runtime_supports_json in containers.conf; set here, it would replace the whole list.\n\
         [engine.runtimes]\nlithify = [\"{binary}\"]\n"
    )
}

/// CRI-O's text. CRI-O hands every annotation of a pod on, so none need be named.
pub fn crio(binary: &str) -> String {
    format!("{MARK}\n[crio.runtime.runtimes.lithify]\nruntime_path = \"{binary}\"\nruntime_type = \"oci\"\n")
}

/// The file's text afterwards.
///
/// # Errors
/// When a file is in the place that is not ours.
pub fn edit(text: Option<&str>, ours: String, uninstall: bool) -> Result<Option<String>> {
    match text {
        Some(other) if !other.starts_with(MARK) => bail!("it was not written by lithifyctl; move it away first"),
        _ if uninstall => Ok(None),
        _ => Ok(Some(ours)),
    }
}

/// Whether a drop-in's text registers the runtime.
pub fn is_registered(text: &str) -> bool {
    text.parse::<toml::Table>().is_ok_and(|table| {
        let dig = |path: &[&str]| path.iter().try_fold(&table, |t, key| t.get(*key)?.as_table()).is_some();
        dig(&["crio", "runtime", "runtimes", "lithify"])
            || table
                .get("engine")
                .and_then(|e| e.get("runtimes"))
                .is_some_and(|runtimes| runtimes.get("lithify").is_some())
    })
}
