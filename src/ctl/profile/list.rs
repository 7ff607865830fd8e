//! `lithifyctl profile list`: one line a profile. Must not: change one.

use anyhow::Result;
use serde_json::json;

use super::super::status::{age, print_table};
use super::super::{Call, Outcome};
use super::{short, words};
use crate::events::clock;
use crate::policy::{Auto, word};
use crate::profile::estimate::percent_up;
use crate::profile::store::{self, Stored};
use crate::profile::{Profile, Progress, stages};

const HELP: &str = "\
usage: lithifyctl profile list [--json]

One line a profile: workload, revision, stage, how many generations and observation windows it is made from, how many items
it has, the chance that the next window shows something new (its bound, with 95 % confidence), when the revision was last
seen, and what is to be known: items that the baseline forbids, why a profile is partial, whether it was demoted, is held,
or has decisions made by hand. Of one workload about 128 revisions are kept: see 'lithifyctl profile gc --help'. The exit
status is 1 when a profile can't be read.
";

pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let Some(none) = words(call, args, HELP, &mut [])? else { return Ok(Outcome::Well) };
    if let Some(word) = none.into_iter().next() {
        return Err(super::Given::Word(word.into()).refuse(&[]));
    }
    let config = call.settings()?;
    let all = store::all_profiles(&config.data_dir)?;
    let wrong = all.iter().any(|stored| stored.document.is_err());
    if call.json {
        let list: Vec<_> = all.iter().map(as_json).collect();
        call.print_json(&list)?;
    } else {
        let head = ["WORKLOAD", "REVISION", "STAGE", "GEN", "WINDOWS", "ITEMS", "NEW NEXT", "SEEN", "NOTES"];
        let mut rows = vec![head.map(String::from)];
        rows.extend(all.iter().map(|stored| row(stored, &config.auto)));
        print_table(call, &rows)?;
    }
    Ok(if wrong { Outcome::Wrong } else { Outcome::Well })
}

fn row(stored: &Stored<Profile>, auto: &Auto) -> [String; 9] {
    let profile = match &stored.document {
        Ok(profile) => profile,
        Err(e) => {
            let mut row = ["-"; 9].map(String::from);
            row[0] = stored.workload.clone();
            row[8] = format!("UNREADABLE: {e:#}");
            return row;
        }
    };
    let progress = Progress::of(profile);
    let mut notes = Vec::new();
    if !profile.forbidden.is_empty() {
        notes.push(format!("{} FORBIDDEN", profile.forbidden.len()));
    }
    if !progress.partial.is_empty() {
        notes.push(format!("partial: {}", progress.partial.join("; ")));
    }
    let steering = &profile.steering;
    notes.extend(steering.demoted.as_ref().map(|d| format!("DEMOTED: {}", d.why)));
    let waiting = steering.waiting.len();
    notes.extend((waiting > 0).then(|| format!("{waiting} WAITING for somebody to look")));
    notes.extend(steering.held.then(|| "held".to_string()));
    notes.extend(stages::leader(profile, auto, clock::now_micros()).map(|c| format!("canary {}", short(c))));
    let decisions = steering.allowed.len() + steering.denied.len();
    notes.extend((decisions > 0).then(|| format!("{decisions} by hand")));
    let bound = progress.next_window.bound;
    [
        profile.workload.clone(),
        short(&profile.revision.digest).to_string(),
        word(&profile.stage),
        profile.generations.len().to_string(),
        progress.next_window.total.to_string(),
        (profile.workload_behaviour.len() + profile.exec_behaviour.len()).to_string(),
        if bound < 1.0 { format!("<{} %", percent_up(bound)) } else { "?".to_string() },
        profile.until().map_or("-".to_string(), |time| format!("{} ago", age(time))),
        notes.join("; "),
    ]
}

fn as_json(stored: &Stored<Profile>) -> serde_json::Value {
    match &stored.document {
        Ok(profile) => json!({
            "workload": profile.workload,
            "revision": profile.revision,
            "stage": profile.stage,
            "steering": profile.steering,
            "generations": profile.generations.len(),
            "items": profile.workload_behaviour.len(),
            "exec-items": profile.exec_behaviour.len(),
            "forbidden": profile.forbidden.len(),
            "until": profile.until(),
            "progress": Progress::of(profile),
            "path": stored.path,
        }),
        Err(e) => json!({"workload": stored.workload, "path": stored.path, "error": format!("{e:#}")}),
    }
}
