//! `lithifyctl profile finish`: ends learning; from then on the profile is what is compared with. Must not: call a profile
//! complete that is known not to be, unless told to.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::super::{Call, Outcome, plain, usage};
use super::{is_file, resolve, short, stage, words};
use crate::events::clock;
use crate::policy::word;
use crate::profile::steering::Step;
use crate::profile::{Profile, Progress, Stage, store};

const HELP: &str = "\
usage: lithifyctl profile finish WORKLOAD[@REVISION]... [--force] [--json]
       lithifyctl profile finish --all [--force] [--json]

Ends learning: what goes beyond the profile is told from then on, of containers in mode auto, observe and learn. In mode auto
it is observed, which adds what is still new, and then enforced; see 'lithifyctl profile hold'. A profile that is known to be
partial (records were lost, or something could not be seen) is refused.

  --all     every profile that still learns
  --force   partial ones, too
";

pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let (mut all, mut force) = (false, false);
    let mut flags = [("all", &mut all), ("force", &mut force)];
    let Some(names) = words(call, args, HELP, &mut flags)? else { return Ok(Outcome::Well) };
    if names.is_empty() != all {
        return Err(usage("expected workloads, or --all"));
    }
    if let Some(file) = names.iter().find(|name| is_file(name)) {
        return Err(usage(format!("{file} is a file; finish ends learning of what is in the store")));
    }
    let config = call.settings()?;
    let data_dir = &config.data_dir;
    let mut chosen = Vec::new();
    for name in &names {
        chosen.push(Ok(resolve(&config, name)?));
    }
    if all {
        chosen = store::all_profiles(data_dir)?.into_iter().map(|stored| stored.document).collect();
        chosen.retain(|p: &Result<Profile>| p.as_ref().map_or(true, |p| p.stage == Stage::Learning));
    }
    let (mut list, mut wrong) = (Vec::new(), false);
    for profile in chosen {
        let mut step = None;
        let outcome = profile.and_then(|p| {
            store::update_profile(data_dir, &p.workload, &p.revision.digest, |stored| {
                // What is stored now counts: an observation may have been folded in the meantime.
                let mut profile = stored.context("it was removed in the meantime")?;
                step = finish(&mut profile, force)?;
                Ok(profile)
            })
        });
        match outcome {
            Ok(profile) => {
                if let Some(step) = &step {
                    stage::tell(&config, step, &profile);
                }
                let sentence = Progress::of(&profile).to_string();
                let (name, stage) =
                    (format!("{}@{}", profile.workload, short(&profile.revision.digest)), word(&profile.stage));
                if !call.json {
                    writeln!(call.out, "{}", plain(&format!("{name} is {stage}: {sentence}")))?;
                }
                list.push(json!({"workload": profile.workload, "revision": profile.revision.digest, "stage": stage, "sentence": sentence}));
            }
            Err(e) => {
                wrong = true;
                let error = format!("{e:#}");
                if !call.json {
                    eprintln!("lithifyctl: {}", plain(&error));
                }
                list.push(json!({"error": error}));
            }
        }
    }
    if call.json {
        call.print_json(&list)?;
    }
    Ok(if wrong { Outcome::Wrong } else { Outcome::Well })
}

fn finish(profile: &mut Profile, force: bool) -> Result<Option<Step>> {
    let partial = Progress::of(profile).partial;
    ensure!(
        partial.is_empty() || force || profile.stage != Stage::Learning,
        "failed to finish {}@{}: it is partial: {}; go on learning, or use --force",
        profile.workload,
        short(&profile.revision.digest),
        partial.join("; ")
    );
    let learns = profile.stage == Stage::Learning;
    Ok(learns
        .then(|| profile.step(Stage::Observing, "learning was ended by hand", &clock::format(clock::now_micros()))))
}
