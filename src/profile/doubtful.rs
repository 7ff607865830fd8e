//! What was seen while observing and is not to become policy by waiting: an intruder can wait as well.
//!
//! Owns: which new things somebody has to look at before the profile that has them is enforced, and
//! how they are asked to. Pure. Must not: keep them, or
//! hold up what services differ in from day to day: paths, ordinary calls, addresses.
//!
//! | seen by the workload for the first time | why somebody looks |
//! | --- | --- |
//! | what the baseline forbids, also where it was only tried | nobody does it in earnest by mistake |
//! | a program that is not of the image | whoever can write to its mount could have put it there |
//! | a program of the image, where no scripts run | a shell is in most images; of a new revision, its start-up may run others |
//! | a call that the baseline has told, or one of the i386 interface | exploits begin with it |

use std::collections::BTreeMap;

use super::behaviour::Origin;
use super::beyond::beyond;
use super::document::Profile;
use super::items::{Section, as_decided, item_name};
use super::observation::Observation;
use super::{Behaviour, baseline};
use crate::events::clock;
use crate::policy::Auto;

/// A workload that ran so many programs of its image runs scripts.
const MANY_PROGRAMS: usize = 8;

/// Whether what a workload runs is up to scripts: those have other programs for their errors, nights and months than learning
/// saw. A server that runs no other program, or only a few, has none of these.
pub fn runs_scripts(profile: &Profile) -> bool {
    let programs = profile.workload_behaviour.programs.values();
    programs.filter(|program| program.origins.contains(&Origin::Image)).count() >= MANY_PROGRAMS
}

/// The doubtful things in an observation that the profile, as it was before, did not have: item, as `allow` and `deny` take it,
/// to the reason. What was decided about by hand is none of them, nor is what sessions did.
pub fn doubtful(before: &Profile, observation: &Observation, auto: &Auto) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let of_workload = observation.forbidden.iter().filter(|(item, _)| !item.starts_with("exec: "));
    for (item, forbidden) in of_workload.filter(|(item, _)| !before.forbidden.contains_key(*item)) {
        all.insert(as_decided(item), forbidden.reason.clone());
    }
    let runs_scripts = runs_scripts(before);
    for new in beyond(before, &observation.workload_behaviour, &Behaviour::default()) {
        let why = match new.section {
            Section::Programs => {
                let program = observation.workload_behaviour.programs.get(&new.item);
                let is_foreign = program.is_none_or(|program| program.origins.contains(&Origin::Volume));
                let is_start = before.steering.candidate.is_some() && in_start_up(observation, &new.first, auto);
                match is_foreign {
                    true => Some("is not of the image: whoever can write there could have put it there"),
                    false => (!runs_scripts && !is_start).then_some("was never seen to run in this workload before"),
                }
            }
            Section::Syscalls if new.item.starts_with("i386:") => {
                Some("is of the i386 interface, which most filters forget")
            }
            Section::Syscalls => baseline::reason_to_tell(&new.item),
            _ => None,
        };
        if let Some(why) = why {
            all.insert(as_decided(&item_name(new.section, &new.item)), why.to_owned());
        }
    }
    all.retain(|item, _| !before.steering.is_decided(item));
    all
}

/// Who is to decide what, in words, with what they can type for it; empty where nothing waits.
pub fn decision_wanted(profile: &Profile) -> String {
    let waiting = &profile.steering.waiting;
    let Some((first, doubt)) = waiting.first_key_value() else { return String::new() };
    let name = format!("{}@{}", profile.workload, profile.revision.digest.get(..12).unwrap_or_default());
    let (name, item) = (typed(&name), typed(first));
    let more = match waiting.len() - 1 {
        0 => String::new(),
        more => format!(", and at {more} more that lithifyctl profile show {name} names"),
    };
    format!(
        "somebody to look at {item} ({}){more}; then type: lithifyctl profile allow {name} {item}; or: lithifyctl profile deny \
         {name} {item}; or, to take all as it was seen: lithifyctl profile promote {name} --to enforcing --force",
        doubt.why
    )
}

/// As a shell takes it for one word, whatever an intruder has called his program.
fn typed(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@._-/:".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Whether what was seen first in a window belongs to the start-up of its generation.
fn in_start_up(observation: &Observation, first: &str, auto: &Auto) -> bool {
    let (Some(began), Some(first)) = (clock::parse(&observation.started), clock::parse(first)) else { return false };
    u128::try_from(first.saturating_sub(began)).is_ok_and(|after| after < auto.startup.as_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_typed_is_one_word_to_a_shell_whatever_its_name() {
        assert_eq!(typed("web@0123"), "web@0123");
        assert_eq!(typed("program /data/x"), "'program /data/x'");
        assert_eq!(typed("program /d/$(id)'`x`"), "'program /d/$(id)'\\''`x`'");
    }
}
