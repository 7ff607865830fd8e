//! Names that runc reads otherwise than they are written.
//!
//! Go's `encoding/json` takes `Root` for `root`, the last one of them winning, and `ſ` (U+017F) and `K` (U+212A) for `s` and
//! `k`. crun and we take names as they are. A document that uses this says one thing to us and another to runc, so it is
//! refused.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// What a protected container's document must not say in another spelling: our edits, and what they are made from.
const CONFIG: [&str; 6] = ["root", "mounts", "process", "linux", "hooks", "annotations"];
const ROOT: [&str; 2] = ["path", "readonly"];
const MOUNT: [&str; 4] = ["destination", "type", "source", "options"];
const LINUX: [&str; 7] =
    ["namespaces", "rootfsPropagation", "cgroupsPath", "seccomp", "maskedPaths", "readonlyPaths", "resources"];
const SECCOMP: [&str; 7] =
    ["defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls"];
const SYSCALL: [&str; 4] = ["names", "action", "errnoRet", "args"];
const ARGUMENT: [&str; 4] = ["index", "value", "valueTwo", "op"];
const NAMESPACE: [&str; 2] = ["type", "path"];
const PROCESS: [&str; 8] =
    ["args", "cwd", "user", "terminal", "capabilities", "noNewPrivileges", "apparmorProfile", "selinuxLabel"];
const CAPABILITIES: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];
const HOOKS: [&str; 3] = ["prestart", "createRuntime", "poststart"];

/// Looks through a config.json.
///
/// # Errors
/// Names the first one that runc would read as another.
pub fn check_config(config: &Value) -> Result<()> {
    check(config, &CONFIG)?;
    check(&config["root"], &ROOT)?;
    each(&config["mounts"], &MOUNT)?;
    check(&config["linux"], &LINUX)?;
    each(&config["linux"]["namespaces"], &NAMESPACE)?;
    let seccomp = &config["linux"]["seccomp"];
    check(seccomp, &SECCOMP)?;
    each(&seccomp["syscalls"], &SYSCALL)?;
    seccomp["syscalls"].as_array().into_iter().flatten().try_for_each(|rule| each(&rule["args"], &ARGUMENT))?;
    check(&config["linux"]["resources"], &["pids"])?;
    check(&config["linux"]["resources"]["pids"], &["limit"])?;
    check(&config["hooks"], &HOOKS)?;
    check_process(&config["process"])
}

/// Looks through a process document.
///
/// # Errors
/// As [`check_config`].
pub fn check_process(process: &Value) -> Result<()> {
    check(process, &PROCESS)?;
    check(&process["user"], &["uid", "gid", "additionalGids"])?;
    check(&process["capabilities"], &CAPABILITIES)
}

fn each(list: &Value, names: &[&str]) -> Result<()> {
    list.as_array().into_iter().flatten().try_for_each(|item| check(item, names))
}

fn check(object: &Value, names: &[&str]) -> Result<()> {
    let keys = object.as_object().into_iter().flat_map(Map::keys);
    for key in keys {
        if let Some(name) = names.iter().find(|name| **name != key && reads_as(key, name)) {
            bail!("expected {name:?} instead of {key:?}, which low-level runtimes read in different ways");
        }
    }
    Ok(())
}

/// Whether Go's `encoding/json` takes `key` for `name`, which is ASCII.
fn reads_as(key: &str, name: &str) -> bool {
    let folded = key.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    });
    folded.eq(name.chars().map(|c| c.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_that_runc_reads_as_another_is_refused_wherever_it_matters() {
        for config in [
            json!({ "root": { "path": "/sealed" }, "Root": { "path": "/other" } }),
            json!({ "mount\u{17f}": [] }),
            json!({ "LINU\u{58}": {} }),
            json!({ "root": { "PATH": "/other" } }),
            json!({ "mounts": [{ "destination": "/a" }, { "Destination": "/b" }] }),
            json!({ "linux": { "Namespaces": [] } }),
            json!({ "linux": { "seccomp": { "DefaultAction": "SCMP_ACT_KILL" } } }),
            json!({ "linux": { "seccomp": { "syscalls": [{ "Action": "SCMP_ACT_ALLOW" }] } } }),
            json!({ "linux": { "seccomp": { "syscalls": [{ "args": [{ "Value": 1 }] }] } } }),
            json!({ "linux": { "resources": { "pids": { "Limit": 1 } } } }),
            json!({ "linux": { "namespaces": [{ "type": "network", "Path": "/proc/1/ns/net" }] } }),
            json!({ "process": { "Capabilities": {} } }),
            json!({ "process": { "noNewPrivilege\u{17f}": false } }),
            json!({ "process": { "capabilities": { "Bounding": [] } } }),
            json!({ "hooks": { "PreStart": [] } }),
        ] {
            assert!(check_config(&config).is_err(), "{config}");
        }
    }

    #[test]
    fn other_names_are_nobodys_business() {
        let config = json!({
            "ociVersion": "1.0.2", "ROOTS": 1, "vm": {}, "root": { "path": "/", "Note": 1 },
            "annotations": { "Root": "x" }, "process": { "env": ["ROOT=1"], "Args2": null }, "linux": null, "mounts": {},
        });
        check_config(&config).expect("nothing is ambiguous");
    }
}
