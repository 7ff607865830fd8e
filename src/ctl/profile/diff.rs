//! `lithifyctl profile diff`: what one revision or replica does and another does not. Must not: change either.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::super::{Call, Outcome, plain, usage};
use super::{resolve, short, words};
use crate::policy::word;
use crate::profile::items::Section;
use crate::profile::{Behaviour, Profile, Support, store};

const HELP: &str = "\
usage: lithifyctl profile diff WORKLOAD [--json]
       lithifyctl profile diff A B [--json]

Compares the newest revision of a workload with the one before it, or any two profiles: A and B are WORKLOAD,
WORKLOAD@REVISION or files. A line that begins with - is only in the first, one with + only in the second. The exit status
is 1 if there are any: replicas of one workload should not differ.
";

/// One item that only one of two profiles has.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Difference {
    /// `first` or `second`.
    only_in: &'static str,
    /// `workload`, `exec`, `steering` or `forbidden`.
    of: &'static str,
    /// Section, `syscalls`.
    section: &'static str,
    /// Item.
    name: String,
}

pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let Some(given) = words(call, args, HELP, &mut [])? else { return Ok(Outcome::Well) };
    let config = call.settings()?;
    let data_dir = &config.data_dir;
    let (first, second) = match given.as_slice() {
        [workload] => {
            let mut all = Vec::new();
            for stored in store::profiles(data_dir, workload)? {
                all.push(stored.document?);
            }
            ensure!(!all.is_empty(), super::unknown(data_dir, workload)?);
            ensure!(all.len() >= 2, "{workload} has only one stored revision; name two profiles to compare");
            all.sort_by(|a, b| (a.until(), &a.revision.digest).cmp(&(b.until(), &b.revision.digest)));
            let second = all.remove(all.len() - 1);
            (all.remove(all.len() - 1), second)
        }
        [a, b] => (resolve(&config, a)?, resolve(&config, b)?),
        _ => return Err(usage("expected one workload or two profiles")),
    };
    let differences = compare(&first, &second);
    if call.json {
        call.print_json(&differences)?;
    } else {
        for (sign, profile) in [("---", &first), ("+++", &second)] {
            let count = profile.generations.len();
            let plural = if count == 1 { "" } else { "s" };
            let digest = short(&profile.revision.digest);
            let stage = word(&profile.stage);
            let name = format!("{sign} {} {digest} ({count} generation{plural}, {stage})", profile.workload);
            writeln!(call.out, "{}", plain(&name))?;
        }
        for d in &differences {
            let sign = if d.only_in == "first" { '-' } else { '+' };
            let of = if d.of == "exec" { "exec: " } else { "" };
            writeln!(call.out, "{sign} {:<16}{of}{}", d.section, plain(&d.name))?;
        }
    }
    Ok(if differences.is_empty() { Outcome::Well } else { Outcome::Wrong })
}

fn compare(first: &Profile, second: &Profile) -> Vec<Difference> {
    let mut all = Vec::new();
    for (of, a, b) in [
        ("workload", &first.workload_behaviour, &second.workload_behaviour),
        ("exec", &first.exec_behaviour, &second.exec_behaviour),
    ] {
        for section in Section::ALL {
            pairs(names(a, section), names(b, section), of, section.name(), &mut all);
        }
    }
    let decided = |p: &Profile| {
        let items = |items: &BTreeMap<String, _>, what: &str| -> Vec<String> {
            items.keys().map(|item| format!("{what} {item}")).collect()
        };
        [items(&p.steering.allowed, "allowed"), items(&p.steering.denied, "denied")].concat().into_iter().collect()
    };
    pairs(decided(first), decided(second), "steering", "decisions", &mut all);
    let keys = |p: &Profile| p.forbidden.keys().cloned().collect();
    pairs(keys(first), keys(second), "forbidden", "forbidden", &mut all);
    all
}

/// What stands for an item where two are compared: of a path and a program also what was done with it, but no sizes.
fn names(behaviour: &Behaviour<Support>, section: Section) -> BTreeSet<String> {
    match section {
        Section::Writes => (behaviour.writes.iter())
            .map(|(path, w)| match (w.succeeded, w.executed) {
                (false, _) => format!("{path} (refused)"),
                (true, true) => format!("{path} (executed)"),
                (true, false) => path.clone(),
            })
            .collect(),
        Section::Programs => (behaviour.programs.iter())
            .map(|(path, p)| {
                let origins: Vec<&str> = p.origins.iter().map(|o| o.name()).collect();
                format!("{path} from {}{}", origins.join(", "), if p.privileged { ", privileged" } else { "" })
            })
            .collect(),
        section => behaviour.section(section).into_iter().map(|(name, _)| name).collect(),
    }
}

fn pairs(a: BTreeSet<String>, b: BTreeSet<String>, of: &'static str, section: &'static str, all: &mut Vec<Difference>) {
    let only = |only_in, name: &String| Difference { only_in, of, section, name: name.clone() };
    all.extend(a.difference(&b).map(|name| only("first", name)));
    all.extend(b.difference(&a).map(|name| only("second", name)));
}
