//! Reading config.json, and the questions that the rest of lithify asks of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Mount};
use serde_json::Value;

/// Largest config.json that is read, in bytes: the largest seen in the field are under 100 KiB.
pub const MAX_BYTES: u64 = 8 << 20;

/// A config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    value: Value,
}

impl Document {
    /// Reads `<bundle>/config.json`.
    ///
    /// # Errors
    /// When it can't be opened, is not a regular file, is larger than [`MAX_BYTES`], or is not a JSON object.
    pub fn read(bundle: &Path) -> Result<Document> {
        let path = bundle.join("config.json");
        // Non-blocking, so that a fifo in its place can't hold the engine up.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&path);
        let file = file.with_context(|| format!("failed to open {}", path.display()))?;
        let facts = file.metadata().with_context(|| format!("failed to look at {}", path.display()))?;
        ensure!(facts.is_file(), "failed to read {}: not a regular file", path.display());
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut text)
            .with_context(|| format!("failed to read {}", path.display()))?;
        ensure!(
            text.len() as u64 <= MAX_BYTES,
            "failed to read {}: larger than {MAX_BYTES} bytes; is it really a runtime configuration?",
            path.display()
        );
        Document::parse(&text).with_context(|| format!("failed to parse {}", path.display()))
    }

    /// Parses a document.
    ///
    /// # Errors
    /// When it is not a JSON object, or a name in it would be read in two ways ([`super::names`]).
    pub fn parse(text: &[u8]) -> Result<Document> {
        let value: Value = serde_json::from_slice(text)?;
        ensure!(value.is_object(), "expected a JSON object");
        super::names::check_config(&value)?;
        Ok(Document { value })
    }

    /// The document as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.value).expect("a JSON value always serialises")
    }

    /// The value, to read.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The value, to edit.
    pub(super) fn value_mut(&mut self) -> &mut Value {
        &mut self.value
    }

    /// Puts a value at a JSON pointer (RFC 6901), making the objects on the way that are absent or null. Only names of objects:
    /// a list's members are not pointed at.
    ///
    /// # Errors
    /// When something else than an object is on the way.
    pub fn set(&mut self, pointer: &str, value: Value) -> Result<()> {
        let names: Vec<&str> = pointer.split('/').skip(1).collect();
        let mut at = &mut self.value;
        for name in names {
            if at.is_null() {
                *at = Value::Object(serde_json::Map::new());
            }
            let object = at.as_object_mut();
            let object = object.with_context(|| format!("failed to edit {pointer}: no object before {name}"))?;
            at = object.entry(name.to_owned()).or_insert(Value::Null);
        }
        *at = value;
        Ok(())
    }

    /// The members of a list, to edit; none where there is no list. The path is a JSON pointer (RFC 6901).
    pub(super) fn list_mut(&mut self, pointer: &str) -> impl Iterator<Item = &mut Value> {
        self.value.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
    }

    /// `root`, to edit; [`Document::rootfs`] has refused a document without one.
    pub(super) fn root_mut(&mut self) -> Option<&mut serde_json::Map<String, Value>> {
        self.value.get_mut("root").and_then(Value::as_object_mut)
    }

    /// `annotations`; absent and null are the same (Docker writes null).
    ///
    /// # Errors
    /// When it is neither an object of strings nor null.
    pub fn annotations(&self) -> Result<BTreeMap<String, String>> {
        match &self.value["annotations"] {
            Value::Null => Ok(BTreeMap::new()),
            value => BTreeMap::deserialize_from(value).context("failed to read annotations: expected strings by name"),
        }
    }

    /// `root.path`, absolute.
    ///
    /// # Errors
    /// When there is none.
    pub fn rootfs(&self, bundle: &Path) -> Result<PathBuf> {
        match self.value["root"]["path"].as_str() {
            Some(path) if !path.is_empty() && !path.contains('\0') => Ok(bundle.join(path)),
            _ => bail!("failed to read root.path of {}: expected the path of a root filesystem", self.place(bundle)),
        }
    }

    fn place(&self, bundle: &Path) -> String {
        bundle.join("config.json").display().to_string()
    }

    /// `mounts`.
    ///
    /// # Errors
    /// When one of them has another shape than the runtime specification's.
    pub fn mounts(&self) -> Result<Vec<Mount>> {
        match &self.value["mounts"] {
            Value::Null => Ok(Vec::new()),
            value => Vec::<Mount>::deserialize_from(value).context("failed to read mounts"),
        }
    }

    /// `linux.namespaces`.
    ///
    /// # Errors
    /// When one of them has another shape than the runtime specification's.
    pub fn namespaces(&self) -> Result<Vec<LinuxNamespace>> {
        match &self.value["linux"]["namespaces"] {
            Value::Null => Ok(Vec::new()),
            value => Vec::<LinuxNamespace>::deserialize_from(value).context("failed to read linux.namespaces"),
        }
    }

    /// Whether the container gets a pid namespace made for it (one that its init's death ends).
    ///
    /// # Errors
    /// As [`Document::namespaces`].
    pub fn has_own_pid_namespace(&self) -> Result<bool> {
        let own = |n: &LinuxNamespace| n.typ() == LinuxNamespaceType::Pid && n.path().is_none();
        Ok(self.namespaces()?.iter().any(own))
    }

    /// `process.terminal`.
    pub fn terminal(&self) -> bool {
        self.value["process"]["terminal"].as_bool().unwrap_or(false)
    }

    /// `process.cwd`.
    pub fn cwd(&self) -> PathBuf {
        PathBuf::from(self.value["process"]["cwd"].as_str().unwrap_or("/"))
    }

    /// `process.user` as uid and gid; root where it is absent.
    pub fn user(&self) -> (u32, u32) {
        let id =
            |name: &str| self.value["process"]["user"][name].as_u64().and_then(|id| id.try_into().ok()).unwrap_or(0);
        (id("uid"), id("gid"))
    }

    /// `process.args`.
    pub fn args(&self) -> Vec<String> {
        let args = self.value["process"]["args"].as_array();
        args.into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect()
    }

    /// Whether mounts made in the container are meant to reach the host (`rshared` or `shared` on the root or on a mount).
    ///
    /// # Errors
    /// As [`Document::mounts`].
    pub fn propagates_to_host(&self) -> Result<bool> {
        let shared = |word: &str| matches!(word, "rshared" | "shared");
        if self.value["linux"]["rootfsPropagation"].as_str().is_some_and(shared) {
            return Ok(true);
        }
        Ok(self.mounts()?.iter().any(|m| m.options().iter().flatten().any(|o| shared(o))))
    }

    /// The programs of all `hooks`.
    pub fn hook_paths(&self) -> Vec<PathBuf> {
        let kinds = self.value["hooks"].as_object().into_iter().flat_map(|kinds| kinds.values());
        let hooks = kinds.filter_map(Value::as_array).flatten();
        hooks.filter_map(|hook| hook["path"].as_str().map(PathBuf::from)).collect()
    }

    /// Whether `hooks` has one of this kind.
    pub fn has_hooks(&self, kind: &str) -> bool {
        self.value["hooks"][kind].as_array().is_some_and(|hooks| !hooks.is_empty())
    }
}

/// Deserialising from a borrowed value, without a copy of it.
trait DeserializeFrom: Sized {
    fn deserialize_from(value: &Value) -> serde_json::Result<Self>;
}

impl<T: serde::de::DeserializeOwned> DeserializeFrom for T {
    fn deserialize_from(value: &Value) -> serde_json::Result<T> {
        T::deserialize(value)
    }
}
