//! Which revision of a workload a container is: one image with one set of parameters.
//!
//! Owns: finding that out before the container is made, for whoever learns, compares or enforces. Must not: know what a
//! profile says.
//!
//! | file | what |
//! | --- | --- |
//! | `revision.rs` | pure: what makes two containers the same |
//! | `origin.rs` | where the root filesystem comes from |
//! | `note.rs` | which image, where Docker or Podman alone knows |

pub mod note;
pub mod origin;
pub mod revision;

use std::collections::BTreeMap;
use std::path::Path;

pub use origin::Source;
pub use revision::revision;

use crate::events::EngineNames;
use crate::profile::Revision;
use crate::spec::Document;

/// The revision of a container that is about to be made: its engine's config.json, unedited, with its annotations, and its
/// root filesystem as the engine made it, in the mount namespace of the caller. Opens no more than it has to: where the
/// engine names the image, nothing.
pub fn of(
    config: &Document,
    annotations: &BTreeMap<String, String>,
    names: &EngineNames,
    rootfs: &Path,
    container: &str,
) -> Revision {
    let source = match revision::named_image(annotations) {
        Some(digest) => Source::Image(digest),
        None => Source::find(rootfs, container),
    };
    revision(config, annotations, names, &source)
}
