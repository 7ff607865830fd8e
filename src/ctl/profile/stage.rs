//! `lithifyctl profile promote`, `hold` and `rollback`: a profile's stage, by hand. Must not: promote what is known to be
//! partial, unless told to.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::super::{Call, Given, Outcome, plain, text, usage};
use super::{is_file, resolve, short};
use crate::events::{Durability, Journal, Recorder, clock};
use crate::policy::suggest::{quote, remedy};
use crate::policy::{Config, word};
use crate::profile::steering::Step;
use crate::profile::{Profile, Progress, Stage, doubtful, moved, stages, store};

const PROMOTE: &str = "\
usage: lithifyctl profile promote WORKLOAD[@REVISION] [--to observing|enforcing] [--force] [--why TEXT] [--json]

Moves a profile on: from learning to observing, from observing to enforcing, or straight to the stage named. It holds from
each container's next generation on. A profile that was demoted may be enforced again. One that is known to be partial, or
in which something waits for somebody to look at it, is refused.

  --to STAGE   observing or enforcing; without it, the next stage
  --force      a partial one, too: what was not seen will be refused; and one in which something waits for somebody to look
               at it: what of that may be learnt is allowed then
  --why TEXT   kept in the profile's history
";

const HOLD: &str = "\
usage: lithifyctl profile hold WORKLOAD[@REVISION] [--release] [--json]

Holds a profile's stage: neither time nor a refusal moves it, only promote and rollback do.

  --release   lets it move by itself again
";

const ROLLBACK: &str = "\
usage: lithifyctl profile rollback WORKLOAD[@REVISION] [--to-revision REVISION] [--why TEXT] [--json]

Moves a profile one stage back and holds it there, from each container's next generation on; 'hold --release' lets it move
by itself again.

  --to-revision REVISION   instead, begin it anew, to be observed, with what this revision of the workload was seen to do
  --why TEXT               kept in the profile's history
";

/// What was given to one of the three.
#[derive(Default)]
struct Asked {
    name: Option<String>,
    to: Option<Stage>,
    revision: Option<String>,
    why: Option<String>,
    force: bool,
    release: bool,
}

/// Reads the arguments of a verb with these options; `None`: its help was printed.
fn read(call: &mut Call<'_>, args: &mut lexopt::Parser, help: &str, options: &[&str]) -> Result<Option<Asked>> {
    let mut asked = Asked::default();
    while let Some(given) = call.next(args)? {
        match given {
            Given::Option(name) if options.contains(&name.as_str()) => match name.as_str() {
                "force" => asked.force = true,
                "release" => asked.release = true,
                "why" => asked.why = Some(super::reason(text(args)?)?),
                "to-revision" => asked.revision = Some(text(args)?),
                _ => asked.to = Some(stage(&text(args)?)?),
            },
            Given::Word(word) if asked.name.is_none() => asked.name = Some(word.to_string_lossy().into_owned()),
            other => return Err(other.refuse(options)),
        }
    }
    Ok(if call.helped(help)? { None } else { Some(asked) })
}

fn stage(text: &str) -> Result<Stage> {
    match text {
        "observing" => Ok(Stage::Observing),
        "enforcing" => Ok(Stage::Enforcing),
        _ => {
            let known = ["observing", "enforcing"];
            Err(usage(format!("{} is no stage to promote to; {}", quote(text), remedy(text, &known))))
        }
    }
}

pub fn promote(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let Some(asked) = read(call, args, PROMOTE, &["to", "force", "why"])? else { return Ok(Outcome::Well) };
    let why = asked.why.unwrap_or_else(|| "promoted by hand".to_owned());
    change(call, asked.name, |profile, now| {
        let to = match (asked.to, profile.stage) {
            (Some(to), _) => to,
            (None, Stage::Learning) => Stage::Observing,
            (None, Stage::Observing) => Stage::Enforcing,
            (None, Stage::Enforcing) => bail!("it is enforced already"),
        };
        let already = word(&profile.stage);
        ensure!(to > profile.stage, "it is {already} already; 'lithifyctl profile rollback' moves it back");
        let partial = Progress::of(profile).partial;
        ensure!(
            partial.is_empty() || asked.force,
            "it is partial: {}; go on learning, or use --force",
            partial.join("; ")
        );
        ensure!(
            to != Stage::Enforcing || profile.steering.waiting.is_empty() || asked.force,
            "it waits for {}",
            doubtful::decision_wanted(profile)
        );
        profile.steering.demoted = None;
        Ok(Some(profile.step(to, &why, now)))
    })
}

pub fn hold(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let Some(asked) = read(call, args, HOLD, &["release"])? else { return Ok(Outcome::Well) };
    change(call, asked.name, |profile, _| {
        profile.steering.held = !asked.release;
        Ok(None)
    })
}

pub fn rollback(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let Some(asked) = read(call, args, ROLLBACK, &["to-revision", "why"])? else { return Ok(Outcome::Well) };
    let config = call.settings()?;
    let origin = match (&asked.revision, &asked.name) {
        (Some(start), Some(name)) => Some(super::revision(&config.data_dir, &resolve(&config, name)?.workload, start)?),
        _ => None,
    };
    let why = asked.why.unwrap_or_else(|| "rolled back by hand".to_owned());
    change(call, asked.name, |profile, now| {
        let Some(origin) = &origin else {
            let to = match profile.stage {
                Stage::Enforcing => Stage::Observing,
                Stage::Observing => Stage::Learning,
                Stage::Learning => bail!("it learns, and there is no stage before that"),
            };
            profile.steering.held = true;
            return Ok(Some(profile.step(to, &why, now)));
        };
        ensure!(
            origin.revision.digest != profile.revision.digest,
            "it is of revision {} itself",
            origin.revision.digest
        );
        let (from, history) = (profile.stage, std::mem::take(&mut profile.steering.history));
        *profile = stages::candidate(origin, profile.revision.clone(), now);
        let why = format!("{why}: it begins anew with revision {}", origin.revision.digest);
        profile.steering.history = history;
        let step = Step { at: now.to_owned(), from, to: Stage::Observing, why };
        profile.steering.remember(step.clone());
        Ok(Some(step))
    })
}

/// Changes one stored profile under its lock, tells the step that it took, and prints where it is now.
fn change(
    call: &mut Call<'_>,
    name: Option<String>,
    change: impl FnOnce(&mut Profile, &str) -> Result<Option<Step>>,
) -> Result<Outcome> {
    let Some(name) = name else { return Err(usage("expected a workload")) };
    if is_file(&name) {
        return Err(usage(format!("{} is a file; name what is in the store", quote(&name))));
    }
    let config = call.settings()?;
    let found = resolve(&config, &name)?;
    let now = clock::format(clock::now_micros());
    let mut step = None;
    let profile = store::update_profile(&config.data_dir, &found.workload, &found.revision.digest, |stored| {
        // What is stored now counts: a collector may have moved it in the meantime.
        let mut profile = stored.context("it was removed in the meantime")?;
        step = change(&mut profile, &now)?;
        Ok(profile)
    })
    .with_context(|| format!("failed to change profile {}@{}", found.workload, short(&found.revision.digest)))?;
    if let Some(step) = &step {
        tell(&config, step, &profile);
    }
    print(call, &profile, &config)
}

/// Says in the journal which step somebody had a profile take.
pub(super) fn tell(config: &Config, step: &Step, profile: &Profile) {
    let origin = store::origin(&config.data_dir, profile);
    let journal = Journal::open(&config.data_dir, config.journal);
    let mut recorder = Recorder::new(journal, &profile.workload);
    recorder.record(moved::event(&profile.workload, step, profile, origin.as_ref()), Durability::Synced);
    recorder.flush();
}

/// Where a profile is, and what it waits for.
pub(super) fn print(call: &mut Call<'_>, profile: &Profile, config: &Config) -> Result<Outcome> {
    let waits = stages::waits_for(profile, &config.auto);
    let held = profile.steering.held;
    if call.json {
        call.print_json(&json!({
            "workload": profile.workload,
            "revision": profile.revision.digest,
            "stage": profile.stage,
            "held": held,
            "waits-for": waits,
            "steering": profile.steering,
        }))?;
        return Ok(Outcome::Well);
    }
    let name = format!("{}@{}", profile.workload, short(&profile.revision.digest));
    let mut line = format!("{name} is {}, from each container's next start", word(&profile.stage));
    match waits {
        Some(waits) => line.push_str(&format!(", and waits for {waits}")),
        None if held => line.push_str(", and held there"),
        None => {}
    }
    writeln!(call.out, "{}", plain(&line))?;
    Ok(Outcome::Well)
}
