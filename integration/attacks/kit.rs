//! The attacks as they are in this folder: each file says at its beginning what must become of it.
//!
//! Owns: reading those headers. Must not: run an attack.
//!
//! After a sentence about what it does, a header has one line for each place where it is tried, `key: what must happen`;
//! where one of several things may tell of it, they stand with ` | ` between them:
//!
//! | key | value |
//! | --- | --- |
//! | `docker` | with Docker's defaults and no lithify: `lands`, or `refused by …` |
//! | `bare` | the same in a bundle with all capabilities and no filter; `lands` where nothing is said |
//! | `enforce` | the breach that names it: `write`, `syscall`, `capability` or `program`, and what of it |
//! | `inside` | `lands`: nothing refuses it even then, and it is for the response to end it |
//! | `tripwire` | the same over a tripwire; as `enforce` where nothing is said |
//! | `observe` | `forbidden` or `would-refuse`, and the beginning of the item |

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// What reaches the victim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A script for the victim's shell.
    Shell(String),
    /// Code that is part of the victim already, by its name.
    Code,
}

/// One attack.
#[derive(Debug, Clone)]
pub struct Attack {
    /// File name without its end.
    pub name: String,
    /// What is sent.
    pub payload: Payload,
    said: BTreeMap<String, String>,
}

/// An event that names an attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// `forbidden`, `would-refuse`; of a breach its kind.
    pub kind: String,
    /// What the item begins with.
    pub item: String,
}

/// Where an attack is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Docker's defaults.
    Docker,
    /// A bundle that is given all there is.
    Bare,
}

const KEYS: [&str; 6] = ["docker", "bare", "enforce", "inside", "tripwire", "observe"];

/// The folder of the attacks.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/attacks")
}

/// All attacks, by name; with `LITHIFY_IT_ATTACKS=name,name` in the environment, these alone.
pub fn all() -> Result<Vec<Attack>> {
    let chosen = std::env::var("LITHIFY_IT_ATTACKS").ok();
    let mut attacks = Vec::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        let (Some(name), Some(end)) = (path.file_stem(), path.extension()) else { continue };
        if end != "sh" && end != "c" {
            continue;
        }
        let name = name.to_str().context("a name that is no text")?.to_owned();
        if chosen.as_ref().is_some_and(|chosen| !chosen.split(',').any(|one| one == name)) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let said = header(&text).with_context(|| format!("failed to read the header of {}", path.display()))?;
        let payload = if end == "sh" { Payload::Shell(text) } else { Payload::Code };
        attacks.push(Attack { name, payload, said });
    }
    ensure!(!attacks.is_empty(), "there is none of the attacks {chosen:?}");
    attacks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(attacks)
}

/// The lines `key: value` of the first comment.
fn header(text: &str) -> Result<BTreeMap<String, String>> {
    let mut said = BTreeMap::new();
    let comment = text.lines().take_while(|line| line.starts_with(['#', '/']) || line.starts_with(" *"));
    for line in comment {
        let line = line.trim_start_matches(['#', '/', '*', ' ']);
        if let Some((key, value)) = line.split_once(": ").filter(|(key, _)| KEYS.contains(key)) {
            said.insert(key.to_owned(), value.trim().to_owned());
        }
    }
    for key in ["docker", "enforce", "observe"] {
        ensure!(said.contains_key(key), "it does not say '{key}: …'");
    }
    Ok(said)
}

impl Attack {
    /// Whether it has its way where nothing but the engine's own defaults stands against it.
    pub fn lands(&self, place: Place) -> Result<bool> {
        let said = match place {
            Place::Docker => self.said.get("docker").map(String::as_str),
            Place::Bare => self.said.get("bare").map(String::as_str),
        };
        match said.unwrap_or("lands") {
            "lands" => Ok(true),
            other if other.starts_with("refused by ") => Ok(false),
            other => bail!("{}: expected 'lands' or 'refused by …', found {other:?}", self.name),
        }
    }

    /// Whether it has its way even where it is enforced, until the response ends it.
    pub fn lands_enforced(&self) -> bool {
        self.said.get("inside").is_some_and(|said| said == "lands")
    }

    /// Breaches of which one must be told where it is enforced.
    pub fn enforced(&self, tripwire: bool) -> Result<Vec<Named>> {
        let said = self.said.get("tripwire").filter(|_| tripwire).or(self.said.get("enforce"));
        self.named(said, &["write", "syscall", "capability", "program"])
    }

    /// Events of which one must be told where it is observed.
    pub fn observed(&self) -> Result<Vec<Named>> {
        self.named(self.said.get("observe"), &["forbidden", "would-refuse"])
    }

    fn named(&self, said: Option<&String>, kinds: &[&str]) -> Result<Vec<Named>> {
        let said = said.with_context(|| format!("{}: its header says too little", self.name))?;
        let one = |one: &str| {
            let (kind, item) = one.split_once(' ').unwrap_or((one, ""));
            ensure!(kinds.contains(&kind) && !item.is_empty(), "{}: {one:?} is none of {kinds:?}", self.name);
            Ok(Named { kind: kind.to_owned(), item: item.to_owned() })
        };
        said.split(" | ").map(one).collect()
    }
}
