//! containerd: `/etc/containerd/config.toml`, or a drop-in where that is safe.
//!
//! containerd 1.x merges an imported file plugin by plugin: a drop-in that names one runtime puts every other setting of
//! the CRI plugin back to its default (seen with 1.6: `bin_dir` was lost). Only files of version 3, which containerd 2
//! reads, are merged key by key. So: a drop-in where the user's file is of version 3 and imports containerd's own
//! `conf.d`; otherwise a marked block at the end of the user's file.
//!
//! A file that names any runtime replaces containerd's built-in table of them, `runc` included (seen with 1.6: every pod
//! without a RuntimeClass would fail). Where the user's file names none, the block therefore names `runc` as well.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::place::Root;

/// containerd's file.
pub const PATH: &str = "/etc/containerd/config.toml";
/// Our drop-in, where the user's file imports the folder.
pub const DROP_IN_PATH: &str = "/etc/containerd/conf.d/99-lithify.toml";
const IMPORT: &str = "/etc/containerd/conf.d/*.toml";

const BEGIN: &str = "# >>> lithify: written by lithifyctl install, removed by lithifyctl install --uninstall >>>\n";
/// The same, where the user's file ended without a newline, which has to be taken back too.
const BEGIN_JOINED: &str =
    "# >>> lithify: written by lithifyctl install, removed by lithifyctl install --uninstall (joined) >>>\n";
const END: &str = "# <<< lithify <<<\n";

/// Which file is edited: the drop-in if there is one or it is safe, else containerd's own.
///
/// # Errors
/// When containerd's file can't be read.
pub fn place(root: &Root) -> Result<PathBuf> {
    let main = root.read(Path::new(PATH))?.unwrap_or_default();
    let ours_is_there = main.contains(BEGIN) || main.contains(BEGIN_JOINED);
    let imports = |table: &toml::Table| {
        let list = table.get("imports").and_then(|v| v.as_array());
        list.is_some_and(|list| list.iter().any(|v| v.as_str() == Some(IMPORT)))
    };
    let table: toml::Table = main.parse().unwrap_or_default();
    let drop_in = version(&table) >= 3 && imports(&table) && !ours_is_there;
    Ok(PathBuf::from(if drop_in { DROP_IN_PATH } else { PATH }))
}

/// Whether a path is our drop-in.
pub fn is_drop_in(path: &Path) -> bool {
    path == Path::new(DROP_IN_PATH)
}

/// The file's text with the runtime in it. `main` is the text of containerd's own file where `text` is our drop-in's.
///
/// # Errors
/// When it is no TOML, or the runtime can't be added without changing the user's own lines.
pub fn add(text: Option<&str>, main: Option<&str>, binary: &str) -> Result<Option<String>> {
    // An older block is replaced: the program may have moved, or the version of the file changed.
    let user = remove(text).unwrap_or_default();
    let table: toml::Table = parse(&user).context("it is not valid TOML; mend it first")?;
    if registered_in(&table) {
        ensure!(text == Some(user.as_str()), "it names a runtime lithify twice; remove the one outside of our block");
        // Registered by hand: that is the user's, and as good.
        return Ok(Some(user));
    }
    let fresh = user.is_empty();
    let version = match (fresh, main.is_some()) {
        (true, true) => 3,
        // Read by every containerd from 1.3 on.
        (true, false) => 2,
        (false, _) => version(&table),
    };
    let plugin = plugin(version)?;
    let joined = !fresh && !user.ends_with('\n');
    let mut out = user.clone();
    out.push_str(if joined { "\n" } else { "" });
    out.push_str(if joined { BEGIN_JOINED } else { BEGIN });
    if fresh {
        out.push_str(&format!("version = {version}\n"));
    }
    let main: toml::Table = match main {
        Some(main) => parse(main).context("containerd's own file is not valid TOML; mend it first")?,
        None => table,
    };
    let known = runtimes(&main, self::version(&main));
    if known.is_none_or(|all| all.is_empty()) {
        out.push_str(&format!(
            "[plugins.{plugin}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n"
        ));
    }
    out.push_str(&format!(
        "[plugins.{plugin}.containerd.runtimes.lithify]\n  runtime_type = \"io.containerd.runc.v2\"\n  pod_annotations = \
         [\"lithify.dev/*\"]\n  [plugins.{plugin}.containerd.runtimes.lithify.options]\n    BinaryName = \"{binary}\"\n"
    ));
    // The kubelet and runtime must agree on who drives cgroups: as the node has it for runc, so for us.
    if systemd_cgroup(known) {
        out.push_str("    SystemdCgroup = true\n");
    }
    out.push_str(END);
    let parsed: toml::Table = parse(&out).context(
        "the runtime can't be added at its end, because the file writes the CRI plugin's tables inline; write them as \
         [tables]",
    )?;
    ensure!(registered_in(&parsed), "the runtime could not be added");
    Ok(Some(out))
}

/// The file's text without our block; `None` where nothing of the user's is left.
pub fn remove(text: Option<&str>) -> Option<String> {
    let text = text?;
    for (begin, joined) in [(BEGIN, false), (BEGIN_JOINED, true)] {
        let Some(start) = text.find(begin) else { continue };
        let Some(end) = text[start..].find(END).map(|i| start + i + END.len()) else { continue };
        let head = &text[..start];
        let head = if joined { head.strip_suffix('\n').unwrap_or(head) } else { head };
        let rest = format!("{head}{}", &text[end..]);
        return (!rest.is_empty()).then_some(rest);
    }
    Some(text.to_string())
}

/// Whether a file's text registers the runtime.
pub fn is_registered(text: &str) -> bool {
    text.parse::<toml::Table>().is_ok_and(|table| registered_in(&table))
}

/// Whether the file switches the CRI plugin off, as Docker's own package of containerd does.
pub fn cri_is_off(text: &str) -> bool {
    let table: toml::Table = text.parse().unwrap_or_default();
    let off = table.get("disabled_plugins").and_then(|v| v.as_array()).cloned().unwrap_or_default();
    off.iter().filter_map(|v| v.as_str()).any(|name| name == "cri" || name.starts_with("io.containerd.grpc.v1.cri"))
}

/// Parses, with an error of one line: engines and logs show no more.
fn parse(text: &str) -> Result<toml::Table> {
    text.parse().map_err(|e: toml::de::Error| {
        let before = e.span().map_or("", |span| text.get(..span.start).unwrap_or(text));
        anyhow!("line {}: {}", 1 + before.matches('\n').count(), e.message())
    })
}

fn version(table: &toml::Table) -> i64 {
    // Without a version it is 1 (containerd-config.toml(5)).
    table.get("version").and_then(|v| v.as_integer()).unwrap_or(1)
}

fn plugin(version: i64) -> Result<&'static str> {
    match version {
        1 => Ok("cri"),
        2 => Ok("\"io.containerd.grpc.v1.cri\""),
        3 | 4 => Ok("\"io.containerd.cri.v1.runtime\""),
        other => bail!("it has version = {other}, which this lithifyctl does not know"),
    }
}

fn runtimes(table: &toml::Table, version: i64) -> Option<&toml::Table> {
    let name = plugin(version).ok()?.trim_matches('"');
    table.get("plugins")?.get(name)?.get("containerd")?.get("runtimes")?.as_table()
}

fn registered_in(table: &toml::Table) -> bool {
    runtimes(table, version(table)).is_some_and(|all| all.contains_key(super::NAME))
}

fn systemd_cgroup(runtimes: Option<&toml::Table>) -> bool {
    let options = runtimes.and_then(|all| all.get("runc")?.get("options"));
    options.and_then(|o| o.get("SystemdCgroup")?.as_bool()).unwrap_or(false)
}
