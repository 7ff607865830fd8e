//! Placeholder: replaced by the merge of h/harden.
use crate::guard::Limits;
use crate::policy::{Policy, Scratch};
use crate::profile::Profile;
use crate::runtime::needs::Needs;
use crate::spec::Document;
use anyhow::Result;
use serde_json::Value;
use std::path::Path;
pub struct Given<'a> {
    pub profile: &'a Profile,
    pub document: &'a Document,
    pub policy: &'a Policy,
    pub needs: &'a Needs,
    pub listener: Option<&'a Path>,
}
pub struct Edit {
    pub pointer: String,
    pub value: Value,
    pub what: String,
    pub why: String,
}
pub struct Hardening {
    pub edits: Vec<Edit>,
    pub scratch: Vec<Scratch>,
    pub limits: Limits,
    pub notes: Vec<String>,
}
pub fn harden(_given: &Given<'_>) -> Result<Hardening> {
    Ok(Hardening { edits: Vec::new(), scratch: Vec::new(), limits: Limits::default(), notes: Vec::new() })
}
impl Hardening {
    pub fn apply(&self, _document: &mut Document) -> Result<()> {
        Ok(())
    }
}
