//! `lithifyctl sensor`: whether the sensor is loaded and who uses it; loading and unloading it by hand.
//!
//! Must not: be needed by a person. The runtime runs `sensor load` itself, and the last container unloads.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::{Call, Given, Outcome, usage, value};
use crate::policy::suggest::{quote, remedy};
use crate::sensor::place::Set;
use crate::sensor::{self, Place, load, owners};

const HELP: &str = "\
usage: lithifyctl sensor status [--json] [--state-dir DIR]
       lithifyctl sensor load [--guard] [--state-dir DIR]
       lithifyctl sensor unload [--guard] [--force] [--state-dir DIR]

The sensor records what containers do while they are learnt; the guard tells what enforced ones are refused. Each is loaded
when the first container that needs it starts and unloaded when the last one ends; none of this has to be done by hand.

  status           whether each is loaded, what it can't see here, and who uses it; clears up after processes that died
  load             loads it
  unload           unloads it, if nobody uses it
  --guard          the guard instead of the sensor
  --force          even if somebody does: what they learn, or are refused, from then on is lost
  --state-dir DIR  the state folder that it belongs to, instead of the configuration's
";

/// Runs `status`, `load` or `unload`.
///
/// # Errors
/// When the sensor can't be loaded, unloaded or looked at, or the arguments are wrong.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    const VERBS: [&str; 3] = ["status", "load", "unload"];
    let (mut verb, mut state_dir, mut force, mut guard) = (None, None, false, false);
    while let Some(given) = call.next(args)? {
        match given {
            Given::Option(name) if name == "state-dir" => state_dir = Some(PathBuf::from(value(args)?)),
            Given::Option(name) if name == "force" => force = true,
            Given::Option(name) if name == "guard" => guard = true,
            Given::Word(word) if verb.is_none() => verb = Some(word.to_string_lossy().into_owned()),
            other => return Err(other.refuse(&["force", "guard", "state-dir"])),
        }
    }
    if call.helped(HELP)? {
        return Ok(Outcome::Well);
    }
    let verb = verb.ok_or_else(|| usage("expected status, load or unload"))?;
    if force && verb != "unload" {
        return Err(usage("--force belongs to unload"));
    }
    if guard && verb == "status" {
        return Err(usage("status tells of both: --guard belongs to load and unload"));
    }
    let place = |call: &Call<'_>| -> Result<Place> {
        let sensor = Place::of(&match state_dir {
            Some(dir) => dir,
            None => call.settings()?.state_dir,
        });
        Ok(if guard { sensor.guard() } else { sensor })
    };
    match verb.as_str() {
        "status" => status(call, &place(call)?),
        "load" => {
            load::load(&place(call)?)?;
            say(call, "loaded", true)
        }
        "unload" => {
            let was = load::unload(&place(call)?, force)?;
            say(call, if was { "unloaded" } else { "was not loaded" }, false)
        }
        _ => Err(usage(format!("unknown verb {}; {}", quote(&verb), remedy(&verb, &VERBS)))),
    }
}

fn say(call: &mut Call<'_>, text: &str, loaded: bool) -> Result<Outcome> {
    if call.json {
        call.print_json(&json!({"loaded": loaded}))?;
    } else {
        writeln!(call.out, "{text}")?;
    }
    Ok(Outcome::Well)
}

fn status(call: &mut Call<'_>, place: &Place) -> Result<Outcome> {
    let both = [place.clone(), place.guard()];
    if call.json {
        let of = |place: &Place| -> Result<serde_json::Value> {
            let holders = owners::holders(place)?;
            let (pins, unseen) = (place.pins.display().to_string(), sensor::unseen(place));
            let loaded = holders.is_some();
            Ok(json!({"loaded": loaded, "pins": pins, "unseen": unseen, "containers": holders.unwrap_or_default()}))
        };
        let mut status = of(&both[0])?;
        status["guard"] = of(&both[1])?;
        call.print_json(&status)?;
        return Ok(Outcome::Well);
    }
    for place in &both {
        let set = place.set.name();
        let Some(holders) = owners::holders(place)? else {
            let nothing = if place.set == Set::Sensor { "learnt" } else { "guarded" };
            writeln!(call.out, "{set} not loaded: nothing is {nothing}")?;
            continue;
        };
        let plural = if holders.len() == 1 { "" } else { "s" };
        writeln!(call.out, "{set} loaded in {}; {} container{plural}", place.pins.display(), holders.len())?;
        let unseen = sensor::unseen(place);
        if !unseen.is_empty() {
            writeln!(call.out, "  not seen on this kernel: {}", unseen.join(", "))?;
        }
        for holder in holders {
            writeln!(call.out, "  init {}, for process {}", holder.init, holder.pid)?;
        }
    }
    Ok(Outcome::Well)
}
