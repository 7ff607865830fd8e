//! `lithifyctl profile`: what workloads were seen to do, one file a verb.
//!
//! Owns: which verb a call is, and which profile a name on the command line means. Must not: learn, or enforce.

mod decide;
mod diff;
mod effect;
mod export;
mod finish;
mod gc;
mod import;
mod list;
mod merge;
mod migrate;
mod schema;
mod show;
mod stage;
mod validate;

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::status::{Guard, guard};
use super::{Call, Given, Outcome, usage};
use crate::policy::Config;
use crate::policy::suggest::{nearest, quote, remedy};
use crate::profile::check::{MAX_WHY, is_sentence};
use crate::profile::{Observation, Profile, folder, store};
use crate::record::Record;

type Verb = fn(&mut Call<'_>, &mut lexopt::Parser) -> Result<Outcome>;

/// Every verb, with what it does and where.
const VERBS: &[(&str, &str, Verb)] = &[
    ("list", "one line a profile", list::run),
    ("show", "what a workload does, how sure that is, and why each entry is there", show::run),
    ("diff", "compare two revisions or replicas", diff::run),
    ("merge", "join profiles into one", merge::run),
    ("export", "say what was learnt in another tool's terms", export::run),
    ("import", "put a profile or an observation into the store", import::run),
    ("validate", "check documents", validate::run),
    ("migrate", "rewrite the store in this version's form", migrate::run),
    ("gc", "remove what is not needed any more", gc::run),
    ("finish", "end learning", finish::run),
    ("promote", "move a profile on towards being enforced", stage::promote),
    ("hold", "keep it where it is", stage::hold),
    ("rollback", "move it one stage back", stage::rollback),
    ("allow", "allow what was not seen", decide::allow),
    ("deny", "refuse what was", decide::deny),
    ("schema", "print the JSON Schema of a document", schema::run),
];

const TAIL: &str = "
WORKLOAD is its name, under Kubernetes with its namespace (shop/web), for the revision that was seen last, of those that run on
this node where any does; WORKLOAD@REVISION is that revision, of which the beginning is enough; a path with a slash at its
beginning, ./ or ../, is a file.
";

/// Runs one verb.
///
/// # Errors
/// What the verb failed on, or a mistake in the arguments.
pub fn run(call: &mut Call<'_>, args: &mut lexopt::Parser) -> Result<Outcome> {
    let verb = match call.next(args)? {
        Some(Given::Word(verb)) => verb.to_string_lossy().into_owned(),
        Some(other) => return Err(other.refuse(&[])),
        None => {
            let verbs: String = VERBS.iter().map(|(name, about, _)| format!("  {name:<10}{about}\n")).collect();
            if call.helped(&format!("usage: lithifyctl profile VERB [OPTIONS]\n\n{verbs}{TAIL}"))? {
                return Ok(Outcome::Well);
            }
            return Err(usage("expected a verb of profile; see --help"));
        }
    };
    match VERBS.iter().find(|(name, _, _)| *name == verb) {
        Some((_, _, run)) => run(call, args),
        None => {
            let names: Vec<&str> = VERBS.iter().map(|(name, _, _)| *name).collect();
            Err(usage(format!("unknown verb {} of profile; {}", quote(&verb), remedy(&verb, &names))))
        }
    }
}

/// The words of a call that has no options of its own but these, each without a value; `None`: its help was printed.
fn words(
    call: &mut Call<'_>,
    args: &mut lexopt::Parser,
    help: &str,
    flags: &mut [(&str, &mut bool)],
) -> Result<Option<Vec<String>>> {
    let mut words = Vec::new();
    while let Some(given) = call.next(args)? {
        match given {
            Given::Word(word) => words
                .push(word.into_string().map_err(|w| usage(format!("{} is not UTF-8", quote(&w.to_string_lossy()))))?),
            Given::Option(name) => match flags.iter_mut().find(|(flag, _)| *flag == name) {
                Some((_, set)) => **set = true,
                None => {
                    let known: Vec<&str> = flags.iter().map(|(flag, _)| *flag).collect();
                    return Err(Given::Option(name).refuse(&known));
                }
            },
        }
    }
    Ok(if call.helped(help)? { None } else { Some(words) })
}

/// Whether a word on the command line means a file rather than a workload.
fn is_file(word: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| word.starts_with(start))
}

/// A document in a file that the caller names: its owner is the caller's to know.
enum Document {
    Profile(Box<Profile>),
    Observation(Box<Observation>),
}

impl Document {
    fn read(path: &Path) -> Result<Document> {
        let read = || -> Result<Document> {
            let bytes = folder::bounded(File::open(path)?)?;
            // Only a profile has generations; what is neither is told as a profile that is wrong.
            let head: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
            let is_observation = head.is_some_and(|v| v.get("generations").is_none() && v.get("id").is_some());
            Ok(match is_observation {
                true => Document::Observation(Box::new(Observation::parse(&bytes)?)),
                false => Document::Profile(Box::new(Profile::parse(&bytes)?)),
            })
        };
        read().with_context(|| format!("failed to read {}", path.display()))
    }
}

/// The profile that a word on the command line means: a file, `WORKLOAD` (of several revisions one that runs, and the one
/// seen last), or `WORKLOAD@REVISION`.
pub(super) fn resolve(config: &Config, word: &str) -> Result<Profile> {
    let data_dir = &config.data_dir;
    if is_file(word) {
        return match Document::read(Path::new(word))? {
            Document::Profile(profile) => Ok(*profile),
            // What one observation alone would make.
            Document::Observation(observation) => Ok(Profile::of(&observation)),
        };
    }
    if let Some(newest) = store::newest_profile(data_dir, word)? {
        return Ok(running(config, word)?.unwrap_or(newest));
    }
    // Events write a profile with a slash.
    let slashed = word.rsplit_once('/').filter(|(_, digest)| digest.len() == 32 && is_hex(digest));
    if let Some((workload, start)) = word.rsplit_once('@').or(slashed) {
        return revision(data_dir, workload, start);
    }
    bail!("{}", unknown(data_dir, word)?)
}

/// Of the revisions of a workload that run under lithify on this node: a service is meant, rather than a program that somebody
/// ran once of its image.
fn running(config: &Config, workload: &str) -> Result<Option<Profile>> {
    let mut seen_last: Option<Profile> = None;
    for (_, record) in Record::list(&config.state_dir)? {
        // What can't be read is for `status` to tell.
        let live = record.ok().filter(|record| record.workload == workload && guard(record) == Guard::Watched);
        let Some(digest) = live.and_then(|record| record.revision) else { continue };
        let Some(profile) = store::read_profile(&config.data_dir, workload, &digest)? else { continue };
        if seen_last.as_ref().is_none_or(|last| last.until() < profile.until()) {
            seen_last = Some(profile);
        }
    }
    Ok(seen_last)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The profile of the revision whose digest begins so.
fn revision(data_dir: &Path, workload: &str, start: &str) -> Result<Profile> {
    let mut fitting = store::profiles_named(data_dir, workload, start)?;
    match fitting.len() {
        1 => fitting.remove(0).document,
        0 if !store::profiled_workloads(data_dir)?.iter().any(|known| known == workload) => {
            bail!("{}", unknown(data_dir, workload)?)
        }
        0 => bail!("no revision of {workload} begins with {}; see 'lithifyctl profile list'", quote(start)),
        n => bail!("{n} revisions of {workload} begin with {}; give more of it", quote(start)),
    }
}

fn unknown(data_dir: &Path, workload: &str) -> Result<String> {
    let all = store::all_profiles(data_dir)?;
    let near = nearest(workload, all.iter().map(|stored| stored.workload.as_str()));
    let list = "see 'lithifyctl profile list', and 'lithifyctl status' for what is being learnt and not saved yet";
    let remedy = near.map_or(list.to_string(), |name| format!("did you mean {name:?}?"));
    Ok(format!("no profile of workload {}; {remedy}", quote(workload)))
}

/// A reason that somebody gives.
fn reason(text: String) -> Result<String> {
    if is_sentence(&text) {
        return Ok(text);
    }
    Err(usage(format!("--why takes 1 to {MAX_WHY} bytes of text in one line")))
}

/// The beginning of a digest or id, for people.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A time without what is below a minute.
fn minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}
