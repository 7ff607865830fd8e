//! What has to be allowed beside what a workload was seen to do: the layers of `seccomp-profiles/`, built in.
//!
//! Owns: the shape of those files, read as strictly as any input. Must not: know a workload.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::syscalls;

/// Format version of a layer.
const VERSION: u32 = 1;
const ALWAYS: &str = include_str!("../../seccomp-profiles/always.json");
const RUNTIMES: [(&str, &str); 2] = [
    ("runc-1.1.5.json", include_str!("../../seccomp-profiles/runc-1.1.5.json")),
    ("crun-1.8.1.json", include_str!("../../seccomp-profiles/crun-1.8.1.json")),
];

/// For whom a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Every process.
    Always,
    /// A low-level runtime, between loading the filter and the workload's `execve`.
    Runtime,
}

/// When an entry is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// In each container.
    Always,
    /// Only without no-new-privileges: the filter is loaded earlier then.
    WithoutNoNewPrivileges,
}

/// One system call of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When it is needed.
    pub when: When,
    /// Why.
    pub reason: String,
    /// Whether it is called depends on the moment (another thread, a signal, memory): measuring can't bring it about, so that
    /// it is added to what was measured of another version.
    #[serde(default)]
    pub chance: bool,
}

/// One file of `seccomp-profiles/`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Layer {
    version: u32,
    /// For whom.
    pub layer: Kind,
    /// `runc`.
    pub program: String,
    /// `1.1.5`.
    pub program_version: String,
    /// How it was found out.
    pub measured: String,
    /// Whether a runtime hands the descriptor of refused calls to a listener (`linux.seccomp.listenerPath`).
    #[serde(default)]
    pub listener: bool,
    /// By system call's name.
    pub syscalls: BTreeMap<String, Entry>,
}

impl Layer {
    fn parse(file: &str, text: &str) -> Result<Layer> {
        let context = || format!("failed to read layer {file}");
        let layer: Layer = serde_json::from_str(text).with_context(context)?;
        ensure!(layer.version == VERSION, "{}: expected version {VERSION}, found {}", context(), layer.version);
        for (name, entry) in &layer.syscalls {
            let known = syscalls::parse(name).is_some_and(|(compat, _)| !compat) && !name.starts_with('#');
            ensure!(known, "{}: there is no system call {name:?}", context());
            ensure!(!entry.reason.trim().is_empty(), "{}: {name} has no reason", context());
        }
        Ok(layer)
    }

    /// The names that are needed, given whether the container has no-new-privileges.
    pub fn names(&self, no_new_privileges: bool) -> impl Iterator<Item = &str> {
        let needed = move |entry: &Entry| entry.when == When::Always || !no_new_privileges;
        self.syscalls.iter().filter(move |(_, entry)| needed(entry)).map(|(name, _)| name.as_str())
    }
}

/// What every process may call.
///
/// # Errors
/// When the built-in file is wrong.
pub fn always() -> Result<Layer> {
    Layer::parse("always.json", ALWAYS)
}

/// The layers of the low-level runtimes: all of them, or those of the program (`runc`) or version (`runc-1.1.5`) named.
///
/// # Errors
/// When none has that name, or a built-in file is wrong.
pub fn runtimes(named: Option<&str>) -> Result<Vec<Layer>> {
    let all: Vec<Layer> = RUNTIMES.iter().map(|(file, text)| Layer::parse(file, text)).collect::<Result<_>>()?;
    let Some(name) = named else { return Ok(all) };
    let full = |layer: &Layer| format!("{}-{}", layer.program, layer.program_version);
    let names: Vec<String> = all.iter().map(full).collect();
    let fitting: Vec<Layer> = all.into_iter().filter(|l| l.program == name || full(l) == name).collect();
    if fitting.is_empty() {
        bail!("the needs of runtime {name:?} are not known; use one of {}, or leave it out for all", names.join(", "));
    }
    Ok(fitting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_names_real_calls_and_a_reason_for_each() {
        assert_eq!(always().unwrap().layer, Kind::Always);
        assert!(always().unwrap().names(true).any(|name| name == "exit_group"));
        let all = runtimes(None).unwrap();
        assert!(all.iter().all(|l| l.layer == Kind::Runtime && !l.syscalls.is_empty()));
    }

    #[test]
    fn without_no_new_privileges_a_runtime_needs_more() {
        for layer in runtimes(None).unwrap() {
            let narrow: Vec<&str> = layer.names(true).collect();
            let wide: Vec<&str> = layer.names(false).collect();
            assert!(wide.contains(&"capset") && !narrow.contains(&"capset"), "{}", layer.program);
            assert!(narrow.iter().all(|name| wide.contains(name)));
        }
    }

    #[test]
    fn a_runtime_is_found_by_program_or_version_and_an_unknown_one_refused() {
        assert_eq!(runtimes(Some("runc")).unwrap().len(), 1);
        assert_eq!(runtimes(Some("crun-1.8.1")).unwrap()[0].program, "crun");
        assert!(runtimes(Some("youki")).unwrap_err().to_string().contains("runc-1.1.5"));
    }

    #[test]
    fn a_layer_with_an_unknown_call_or_field_or_without_a_reason_is_refused() {
        let with = |entry: &str| {
            format!(
                r#"{{"version":1,"layer":"always","program":"p","program-version":"1","measured":"m","syscalls":{{{entry}}}}}"#
            )
        };
        let refused = |entry: &str| format!("{:#}", Layer::parse("f", &with(entry)).unwrap_err());
        assert!(Layer::parse("f", &with(r#""read":{"when":"always","reason":"r"}"#)).is_ok());
        assert!(refused(r#""raed":{"when":"always","reason":"r"}"#).contains("raed"));
        assert!(refused(r##""#1":{"when":"always","reason":"r"}"##).contains("no system call"));
        assert!(refused(r#""read":{"when":"always","reason":" "}"#).contains("no reason"));
        assert!(refused(r#""read":{"when":"never","reason":"r"}"#).contains("never"));
        assert!(refused(r#""read":{"when":"always","reason":"r","x":1}"#).contains("unknown field"));
    }
}
