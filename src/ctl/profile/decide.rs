//! `lithifyctl profile allow` and `deny`: what somebody knows better than what was seen. Must not: take an item that nobody
//! could have done.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::effect::{self, Denials};

use super::super::{Call, Given, Outcome, plain, text, usage};
use super::{is_file, resolve, short};
use crate::events::clock;
use crate::policy::suggest::quote;
use crate::profile::items::{self, DECIDED};
use crate::profile::steering::{Decision, MAX_DECISIONS};
use crate::profile::store;

const ALLOW: &str = "\
usage: lithifyctl profile allow WORKLOAD[@REVISION] ITEM... [--why TEXT] [--json]

Allows what was not seen, as 'show' and events name it: 'syscall symlink', 'capability CAP_CHOWN', 'write /var/cache/*', 'program
/usr/bin/git'; in quotes, or as two words. It holds from each container's next generation on. A denial of the same item is
over. The scratch mount that an allowed program's path is in lets programs run; others there are killed all the same. An allowed
write is given a place to write; where there can be none (/etc, /usr, the root itself), it is an error.

  --why TEXT   kept with it
";

const DENY: &str = "\
usage: lithifyctl profile deny WORKLOAD[@REVISION] ITEM... [--why TEXT] [--json]

Refuses what was seen or allowed, as 'show' and events name it: 'syscall ptrace', 'capability CAP_NET_RAW', 'program
/usr/bin/curl'; in quotes, or as two words. It holds from each container's next generation on. What would happen all the same
is an error, which says why: a call that every process or the low-level runtime needs, the only program that was seen to run.

A denied program is killed before its first instruction, one of the image, too, but for the one that the container begins with;
by the path of its file, to which symbolic links lead; another name of the same file (a hard link) is another program.

  --why TEXT   kept with it
";

pub fn allow(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    decide(call, args, false)
}

pub fn deny(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    decide(call, args, true)
}

fn decide(call: &mut Call<'_>, args: &mut lexopt::Parser, denied: bool) -> Result<Outcome> {
    let (mut words, mut why) = (Vec::new(), None);
    while let Some(given) = call.next(args)? {
        match given {
            Given::Option(name) if name == "why" => why = Some(super::reason(text(args)?)?),
            Given::Word(word) => words
                .push(word.into_string().map_err(|w| usage(format!("{} is not UTF-8", quote(&w.to_string_lossy()))))?),
            other => return Err(other.refuse(&["why"])),
        }
    }
    if call.helped(if denied { DENY } else { ALLOW })? {
        return Ok(Outcome::Well);
    }
    let (name, items) = match words.split_first() {
        Some((name, items)) if !items.is_empty() => (name, read(items, denied)?),
        _ => return Err(usage("expected a workload and an item")),
    };
    if is_file(name) {
        return Err(usage(format!("{} is a file; name what is in the store", quote(name))));
    }
    let config = call.settings()?;
    let data_dir = &config.data_dir;
    let found = resolve(&config, name)?;
    let decision = Decision {
        at: clock::format(clock::now_micros()),
        why: why.unwrap_or_else(|| format!("{} by hand", if denied { "denied" } else { "allowed" })),
    };
    let needs = if denied { effect::needs_of_node(&config) } else { None };
    let mut effects = Vec::new();
    let profile = store::update_profile(data_dir, &found.workload, &found.revision.digest, |stored| {
        let mut profile = stored.context("it was removed in the meantime")?;
        let before = profile.clone();
        for item in &items {
            profile.steering.decide(item.clone(), denied, decision.clone());
        }
        let count = profile.steering.allowed.len().max(profile.steering.denied.len());
        ensure!(count <= MAX_DECISIONS, "more than {MAX_DECISIONS} decisions; name patterns, or learn it anew");
        if denied {
            let denials = Denials::of(needs, before, &profile)?;
            effects = items.iter().map(|item| denials.effect(item)).collect::<Result<_>>()?;
        } else {
            effects = items.iter().map(|item| effect::of_allowed(&profile, item)).collect::<Result<_>>()?;
        }
        Ok(profile)
    })
    .with_context(|| format!("failed to change profile {}@{}", found.workload, short(&found.revision.digest)))?;
    let verb = if denied { "denied" } else { "allowed" };
    if call.json {
        call.print_json(&json!({
            "workload": profile.workload,
            "revision": profile.revision.digest,
            verb: items,
            "effects": items.iter().zip(&effects).filter(|(_, effect)| !effect.is_empty()).collect::<BTreeMap<_, _>>(),
            "steering": profile.steering,
        }))?;
    } else {
        let name = format!("{}@{}", profile.workload, short(&profile.revision.digest));
        for (n, item) in items.iter().enumerate() {
            let effect = effects.get(n).filter(|effect| !effect.is_empty()).map(|effect| format!(": {effect}"));
            let effect = effect.unwrap_or_default();
            writeln!(
                call.out,
                "{}",
                plain(&format!("{name}: {item} is {verb}, from each container's next start{effect}"))
            )?;
        }
    }
    Ok(Outcome::Well)
}

/// Items that are one word each, or two.
fn read(words: &[String], denied: bool) -> Result<Vec<String>> {
    let (mut all, mut rest) = (Vec::new(), words.iter());
    while let Some(word) = rest.next() {
        let is_kind = DECIDED.iter().any(|section| section.singular() == word);
        let item = match rest.as_slice().first() {
            Some(next) if is_kind => {
                rest.next();
                format!("{word} {next}")
            }
            _ => word.clone(),
        };
        if !denied {
            effect::can_be_allowed(&item).map_err(|e| usage(format!("{e:#}")))?;
        }
        all.push(items::decided(&item).map_err(|e| usage(format!("{e:#}")))?);
    }
    Ok(all)
}
