//! The JSON Schemas of both documents, for other tools. Must not: differ from what [`super::check`] reads; a test compares.

/// Of an observation.
pub const OBSERVATION: &str = include_str!("observation.json");
/// Of a profile.
pub const PROFILE: &str = include_str!("profile.json");
