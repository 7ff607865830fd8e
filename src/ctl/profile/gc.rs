//! `lithifyctl profile gc`: removes what is not needed any more. Must not: remove what no profile has.

use anyhow::Result;

use super::super::{Call, Given, Outcome, plain, text, usage};
use super::short;
use crate::events::clock;
use crate::learn::living;
use crate::policy::suggest::quote;
use crate::policy::values;
use crate::profile::gc::{Keep, MAX_OBSERVATIONS, collect, make_room};

const HELP: &str = "\
usage: lithifyctl profile gc [--observations N] [--older-than T] [--revisions-unseen T] [--dry-run] [--json]

Removes observations that are part of a profile and will not be written any more; and of workloads with more than 160
revisions, or 80 MiB of profiles, the profiles of those that were started once at most, then of the others, the oldest first,
until 128 and 64 MiB are left (learning does that by itself). Never one that is enforced, held, or was decided about by hand,
nor one of a container that runs, nor the newest 16.

  --observations N       keep the newest N of each workload; 256 if neither this nor --older-than is given
  --older-than T         remove those that are older, e.g. 30d
  --revisions-unseen T   also remove profiles of revisions that were not seen for so long, e.g. 90d
  --dry-run              only say what would be removed
";

pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let (mut observations, mut older, mut unseen, mut dry) = (None, None, None, false);
    while let Some(given) = call.next(args)? {
        match given {
            Given::Option(name) if name == "observations" => {
                let given = text(args)?;
                let number = given.parse::<usize>();
                observations =
                    Some(number.map_err(|_| usage(format!("--observations {}: write a number", quote(&given))))?);
            }
            Given::Option(name) if name == "older-than" => older = Some(duration("older-than", &text(args)?)?),
            Given::Option(name) if name == "revisions-unseen" => {
                unseen = Some(duration("revisions-unseen", &text(args)?)?)
            }
            Given::Option(name) if name == "dry-run" => dry = true,
            other => return Err(other.refuse(&["observations", "older-than", "revisions-unseen", "dry-run"])),
        }
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let default = if older.is_some() { usize::MAX } else { MAX_OBSERVATIONS };
    let keep = Keep { observations: observations.unwrap_or(default), observation_age: older, revision_age: unseen };
    let config = call.settings()?;
    let mut removed = collect(&config.data_dir, keep, clock::now_micros(), dry)?;
    let live = living(&config.state_dir);
    removed.extend(make_room(&config.data_dir, |workload| live.get(workload).cloned().unwrap_or_default(), dry)?);
    if call.json {
        call.print_json(&removed)?;
    } else {
        let verb = if dry { "would remove" } else { "removed" };
        for one in &removed {
            let line = format!("{verb} {} {} of {}", one.kind, short(&one.name), one.workload);
            writeln!(call.out, "{}", plain(&line))?;
        }
    }
    Ok(Outcome::Well)
}

fn duration(option: &str, text: &str) -> Result<std::time::Duration> {
    values::duration(text).map_err(|e| usage(format!("--{option}: {e}")))
}
