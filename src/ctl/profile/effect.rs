//! What a denial, or an allowance, really comes to: said when it is decided, and not at the next start.
//!
//! Owns: which items can't be decided about, and why, and the words for those that can. Must not: change a profile.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::policy::Config;
use crate::policy::suggest::quote;
use crate::profile::behaviour::Origin;
use crate::profile::export::places::places;
use crate::profile::filter::{Compare, Filter, filter};
use crate::profile::generalise::covers;
use crate::profile::{Profile, layers};
use crate::runtime::needs::{self, Needs};

/// What this node's low-level runtime needs, where there is one.
pub(super) fn needs_of_node(config: &Config) -> Option<Needs> {
    crate::runtime::find(&config.runtimes).and_then(|runtime| needs::of(&runtime, &config.data_dir)).ok()
}

/// What is known where something is denied.
pub(super) struct Denials {
    always: BTreeSet<String>,
    needs: Option<Needs>,
    /// The profile as it was before.
    before: Profile,
    /// What would be enforced, with the denials.
    after: Profile,
    filter: Filter,
}

impl Denials {
    /// For a profile in which they have been decided, and what the low-level runtime needs.
    ///
    /// # Errors
    /// When the built-in layer is wrong.
    pub(super) fn of(needs: Option<Needs>, before: Profile, decided: &Profile) -> Result<Denials> {
        let after = decided.steered(&mut Vec::new());
        let privileged = |profile: &Profile| {
            let sides = [&profile.workload_behaviour, &profile.exec_behaviour];
            sides.iter().flat_map(|side| side.programs.values()).any(|program| program.privileged)
        };
        // As for a container's start.
        let no_new_privileges = !privileged(&after);
        let always: BTreeSet<String> = layers::always()?.names(no_new_privileges).map(str::to_owned).collect();
        let own = needs.iter().flat_map(|needs| needs.names(no_new_privileges));
        let filter = filter(&after, always.iter().map(String::as_str).chain(own), &mut Vec::new());
        Ok(Denials { always, needs, before, after, filter })
    }

    /// What follows from the denial of an item, to stand after "is denied"; empty: just that.
    ///
    /// # Errors
    /// When it would be denied and happen all the same; says why.
    pub(super) fn effect(&self, item: &str) -> Result<String> {
        match item.split_once(' ') {
            Some(("syscall", name)) => self.syscall(name),
            Some(("argument", name)) => self.argument(name),
            Some(("write", path)) => self.write(path),
            Some(("program", path)) => self.program(path),
            _ => Ok(String::new()),
        }
    }

    fn syscall(&self, name: &str) -> Result<String> {
        let bare = name.strip_prefix("i386:").unwrap_or(name);
        if self.always.contains(bare) {
            bail!("syscall {name} can't be denied: every process needs it, and every filter has it");
        }
        if let Some(needs) = self.needs.as_ref().filter(|_| self.filter.allowed.contains(bare)) {
            bail!(
                "syscall {name} can't be denied: {} {} itself calls it in each container, after the filter is loaded \
                 ('lithifyctl runtime status')",
                needs.program,
                needs.version
            );
        }
        let left = self.filter.conditional.iter().any(|rule| rule.name == bare);
        if self.filter.allowed.contains(bare) || left {
            bail!(
                "syscall {name} can't be denied: the low-level runtime itself, or every process, needs it with some arguments"
            );
        }
        Ok(match self.needs {
            Some(_) => String::new(),
            None => {
                "unless the low-level runtime, which was not found here, needs it itself: the next start says so".into()
            }
        })
    }

    fn argument(&self, name: &str) -> Result<String> {
        let (call, value) = name.split_once(' ').unwrap_or((name, ""));
        let bare = call.strip_prefix("i386:").unwrap_or(call);
        let first: Option<u64> = value.split(',').next().and_then(|first| first.parse().ok());
        let fits = |is: &Compare| match (is, first) {
            (Compare::Equal(value), Some(first)) => *value == first,
            (Compare::Masked { mask, value }, Some(first)) => first & mask == *value,
            (_, None) => false,
        };
        if self.filter.conditional.iter().any(|rule| rule.name == bare && fits(&rule.is)) {
            bail!(
                "argument {name} can't be denied: another use of {bare} that stays allowed looks the same to a filter; see \
                 'lithifyctl profile show', or deny the whole call: 'syscall {bare}'"
            );
        }
        if self.filter.allowed.contains(bare) {
            bail!(
                "argument {name} can't be denied: {bare} is allowed with all its arguments; deny the whole call: 'syscall {bare}'"
            );
        }
        Ok(String::new())
    }

    fn write(&self, path: &str) -> Result<String> {
        let below = |place: &str| path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
        if let Some(place) = places(&self.after, &mut Vec::new()).into_iter().find(|place| below(&place.path)) {
            let sides = [&self.after.workload_behaviour, &self.after.exec_behaviour];
            let mut writes = sides.iter().flat_map(|side| &side.writes);
            let other = writes.find(|(other, write)| write.succeeded && other.starts_with(&format!("{}/", place.path)));
            let why = other.map_or_else(String::new, |(other, _)| format!(", for {}", quote(other)));
            bail!(
                "write {path} can't be denied alone: {} is to stay writable{why}; deny that in the same command",
                place.path
            );
        }
        Ok(String::new())
    }

    fn program(&self, path: &str) -> Result<String> {
        let of_image: Vec<&String> = image_programs(&self.before).collect();
        let meant: Vec<&String> = of_image.iter().copied().filter(|seen| covers(path, seen)).collect();
        if path.contains(['*', '?']) {
            if let Some(seen) = meant.first() {
                bail!(
                    "program {path} can't be denied: a pattern holds for what is not of the image; deny each of the \
                       image's by its own path, such as 'program {seen}'"
                );
            }
            return Ok(
                "programs there that are not of the image are killed before they begin; those of the image are told, \
                       and answered as on-refused-syscall says"
                    .into(),
            );
        }
        if let ([only], [_]) = (of_image.as_slice(), meant.as_slice()) {
            bail!(
                "program {only} can't be denied: it is the only one that the workload was seen to run, and so what its \
                   containers begin with"
            );
        }
        let killed = "it is killed before it begins, and told";
        let first = "what a container begins with runs all the same";
        let seen = [&self.before.workload_behaviour, &self.before.exec_behaviour];
        let lives = seen.iter().filter_map(|side| side.programs.get(path)).map(|p| p.seen.generations.len()).max();
        let in_usr = format!("/usr{path}");
        let is_linked = lives.is_none() && ["/bin/", "/sbin/"].iter().any(|folder| path.starts_with(folder));
        if is_linked && seen.iter().any(|side| side.programs.contains_key(&in_usr)) {
            bail!(
                "program {path} can't be denied: in this image it is {in_usr}, to which a link leads; deny 'program {in_usr}'"
            );
        }
        Ok(match lives {
            Some(lives) => format!(
                "{killed}. It was seen to run in {lives} of {} lives: what needs it there will fail; {first}",
                self.before.generations.len()
            ),
            None => format!(
                "{killed}, and answered as on-refused-syscall says, or on-write where it is not of the image. It was never \
                 seen to run by this path, which has to be its file's own; {first}"
            ),
        })
    }
}

/// What follows from allowing an item, to stand after "is allowed"; empty: just that.
///
/// # Errors
/// When it is a write for which no place can be made: it would be refused all the same, and answered. Says why, and what to do
/// instead.
pub(super) fn of_allowed(allowed: &Profile, item: &str) -> Result<String> {
    let Some(path) = item.strip_prefix("write ") else { return Ok(String::new()) };
    let mut only = allowed.steered(&mut Vec::new());
    for side in [&mut only.workload_behaviour, &mut only.exec_behaviour] {
        side.writes.retain(|written, _| written == path);
    }
    let mut notes = Vec::new();
    let made = places(&only, &mut notes);
    match notes.first() {
        Some(why) => bail!(
            "{item} can't be allowed: {why}; mount a volume there, have it written elsewhere, or, where the workload does without, \
             'lithifyctl profile deny' it, and it is told and no more"
        ),
        None => Ok(made.first().map_or_else(String::new, |place| {
            format!("{} is a scratch mount then, if no mount of the engine is there", place.path)
        })),
    }
}

fn image_programs(profile: &Profile) -> impl Iterator<Item = &String> {
    let is_of_image = |origins: &BTreeSet<Origin>| origins.contains(&Origin::Image) || origins.contains(&Origin::Root);
    let programs = profile.workload_behaviour.programs.iter();
    programs.filter(move |(_, program)| is_of_image(&program.origins)).map(|(path, _)| path)
}

/// Refuses to allow what nothing could let happen, by the words that somebody wrote.
///
/// # Errors
/// When it is a program without a file.
pub(super) fn can_be_allowed(item: &str) -> Result<()> {
    if item.starts_with("program /memfd:") || item.starts_with("program ") && item.ends_with(" from anonymous") {
        bail!(
            "{} can't be allowed: a program without a file has no path that it could be known by; have it written where it may \
             run",
            quote(item)
        );
    }
    Ok(())
}
