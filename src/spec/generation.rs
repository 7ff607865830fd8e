//! What changes in config.json from the first generation to the next ones, and namespaces of other protected containers.

use serde_json::{Value, json};

use super::Document;

/// What the supervisor found out about the container's first generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The anchor, whose namespaces the next generation joins.
    pub anchor_pid: i32,
    /// Another process lives in the container's ipc namespace.
    pub ipc: bool,
    /// Another process lives in the container's uts namespace.
    pub uts: bool,
}

/// Turns the first generation's document into the next one's: it joins the network that the container has had all along
/// (and ipc and uts where somebody else is in them), and hooks that set that network up do not run again.
pub fn next(document: &mut Document, kept: Kept) {
    let anchor = kept.anchor_pid;
    for namespace in document.list_mut("/linux/namespaces") {
        let file = match namespace["type"].as_str() {
            Some("network") => "net",
            Some("ipc") if kept.ipc => "ipc",
            Some("uts") if kept.uts => "uts",
            _ => continue,
        };
        if namespace["path"].as_str().unwrap_or("").is_empty() {
            namespace["path"] = json!(format!("/proc/{anchor}/ns/{file}"));
        }
    }
    for kind in ["/hooks/prestart", "/hooks/createRuntime"] {
        if let Some(hooks) = document.value_mut().pointer_mut(kind).and_then(Value::as_array_mut) {
            hooks.retain(|hook| !sets_up_network(hook));
        }
    }
}

/// Docker's `libnetwork-setkey` and nerdctl's `oci-hook` give the container its network: once, for all generations.
fn sets_up_network(hook: &Value) -> bool {
    let args = hook["args"].as_array();
    args.into_iter().flatten().any(|a| a == "libnetwork-setkey" || a == "oci-hook")
}

/// Paths `/proc/<pid>/ns/<kind>` among the namespaces to join, with their kind's file name: pids that may be an anchor,
/// which lives in its container's namespaces but for pid and user.
pub fn joined_through_proc(document: &Document) -> Vec<(i32, String)> {
    let namespaces = document.value()["linux"]["namespaces"].as_array();
    let paths = namespaces.into_iter().flatten().filter_map(|n| n["path"].as_str());
    paths.filter_map(proc_namespace).filter(|(_, kind)| kind == "pid" || kind == "user").collect()
}

/// Replaces `/proc/<from>/ns/{pid,user}` by the same of `to`.
pub fn rejoin(document: &mut Document, from: i32, to: i32) {
    for namespace in document.list_mut("/linux/namespaces") {
        let Some((pid, kind)) = namespace["path"].as_str().and_then(proc_namespace) else { continue };
        if pid == from && (kind == "pid" || kind == "user") {
            namespace["path"] = json!(format!("/proc/{to}/ns/{kind}"));
        }
    }
}

fn proc_namespace(path: &str) -> Option<(i32, String)> {
    let rest = path.strip_prefix("/proc/")?;
    let (pid, rest) = rest.split_once('/')?;
    Some((pid.parse().ok()?, rest.strip_prefix("ns/")?.to_owned()))
}
