//! One image with one set of runtime parameters.

use serde::{Deserialize, Serialize};

/// What a revision is made of. Two containers with equal revisions are expected to behave alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Revision {
    /// SHA-256 over the canonical JSON of the other fields, the first 16 bytes in hex.
    pub digest: String,
    /// The image: `sha256:…` where the engine tells, else `layers:…` or `rootfs:…`.
    pub image: String,
    /// Repository and tag, for people; not part of the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_name: Option<String>,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Names (not values) of the environment, sorted.
    pub env: Vec<String>,
    /// Mounts of the container that are not the engine's own: `type destination options`, sorted.
    pub mounts: Vec<String>,
    /// `uid:gid`.
    pub user: String,
    /// Bounding capabilities that the engine grants, sorted.
    pub capabilities: Vec<String>,
}
