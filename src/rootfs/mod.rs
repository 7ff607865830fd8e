//! The container's root filesystem: what the engine's consists of, and the sealed or tripwire one that takes its place.
//!
//! Owns: reading layers, building the skeleton, mounting the overlay, keeping a tripwire's difference as evidence. Works
//! in the mount namespace of the caller, who has made it private, and opens layers there. Must not: edit config.json,
//! watch, or know the supervisor; everything in an image is hostile.
//!
//! The steps, in order: [`Layers::of`], [`Staging::new`], [`Staging::ground`], [`scratch_mount`] over [`Ground::view`],
//! [`Ground::skeleton`], then [`mount_sealed`] or [`mount_tripwire`].

mod attributes;
mod baseline;
mod copied;
mod evidence;
mod evidence_store;
mod layers;
mod listing;
mod options;
mod overlay;
mod resolve;
mod scratch;
mod sealed_since;
mod skeleton;
mod staging;

pub use attributes::{Attributes, is_overlay_private};
pub use baseline::Baseline;
pub use copied::restore_modes;
pub use evidence::{ArchiveLimits, Archived, archive};
pub use evidence_store::{Evidence, keep_evidence};
pub use layers::Layers;
pub use overlay::{Mounted, OPAQUE, Tripwire, mount_sealed, mount_tripwire};
pub use resolve::{Found, Resolved, resolve};
pub use scratch::{Leads, ScratchMount, mounted_places, scratch_mount};
pub use sealed_since::{SEALED, Since, seal_mark};
pub use skeleton::{Ground, MountPoint, Skeleton};
pub use staging::Staging;
