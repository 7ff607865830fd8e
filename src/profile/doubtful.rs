//! What was seen while observing and is not to become policy by waiting: an intruder can wait as well.
//!
//! Owns: which new things somebody has to look at before the profile that has them is enforced, and
//! how they are asked to. Pure. Must not: keep them, or
//! hold up what services differ in from day to day: paths, ordinary calls, addresses.
//!
//! | seen by the workload for the first time | why somebody looks |
//! | --- | --- |
//! | what the baseline forbids, also where it was only tried, also while learning | nobody does it in earnest by mistake; or it is needed at each start, and no start would do without |
//! | a program that is not of the image | whoever can write to its mount could have put it there |
//! | a program of the image, where no scripts run, but for helpers beside others | a shell is in most images; of a new revision, its start-up may run others |
//! | a call that the baseline has told, or one of the i386 interface | exploits begin with it |
//! | a socket of a family that it never had, a first connection, a first port | who had no network has one now: a way in or out |
//! | a capability that neither it nor what stands for it ever used | a program that was taken over reaches for more |
//!
//! Of a new revision, its start-up may do the last two, too. A filter tells no address from another: of connections and ports what is
//! asked is whether it may make any. Who connects (or listens) already may do so to others.

use std::collections::{BTreeMap, BTreeSet};

use super::behaviour::Origin;
use super::beyond::beyond;
use super::document::{Profile, Stage};
use super::items::{Section, as_decided, item_name};
use super::observation::Observation;
use super::{Behaviour, baseline, capabilities};
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

/// Programs of the image in one folder that make it a folder of helpers.
const MANY_HELPERS: usize = 3;
/// Folders in which images keep the tools of everyone: a shell, a client that fetches.
const OF_EVERYONE: [&str; 3] = ["/sbin", "/usr/sbin", "/usr/local/sbin"];

/// Folders of helpers: of the image, no `bin`, and several programs of it were run. Such a server is many programs, and has others
/// for its errors and for those who ask how it is than a quiet day shows: Postfix runs `bounce` when a mail can't be delivered.
pub fn helpers(profile: &Profile) -> BTreeSet<String> {
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, program) in &profile.workload_behaviour.programs {
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        let is_own = !folder.is_empty() && !folder.ends_with("/bin") && !OF_EVERYONE.contains(&folder);
        // What a pattern stands for is no folder that was seen.
        let is_plain = !folder.contains(['*', '?', '\\']) && !name.contains('*');
        if is_own && is_plain && program.origins.contains(&Origin::Image) {
            *folders.entry(folder).or_default() += 1;
        }
    }
    let many = folders.into_iter().filter(|(_, count)| *count >= MANY_HELPERS);
    many.map(|(folder, _)| folder.to_owned()).collect()
}

/// Whether a program is directly in one of these folders.
pub fn is_helper(folders: &BTreeSet<String>, program: &str) -> bool {
    program.rsplit_once('/').is_some_and(|(folder, _)| folders.contains(folder))
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
    let helpers = helpers(before);
    let network = Network::of(before);
    let capabilities = capabilities::needed(before, &mut Vec::new());
    for new in beyond(before, &observation.workload_behaviour, &Behaviour::default()) {
        let is_start = before.steering.candidate.is_some() && in_start_up(observation, &new.first, auto);
        let mut name = item_name(new.section, &new.item);
        let why = match new.section {
            Section::Programs => {
                let program = observation.workload_behaviour.programs.get(&new.item);
                let is_foreign = program.is_none_or(|program| program.origins.contains(&Origin::Volume));
                match is_foreign {
                    true => Some("is not of the image: whoever can write there could have put it there"),
                    false => (!runs_scripts && !is_start && !is_helper(&helpers, &new.item))
                        .then_some("was never seen to run in this workload before"),
                }
            }
            Section::Syscalls if new.item.starts_with("i386:") => {
                Some("is of the i386 interface, which most filters forget")
            }
            Section::Syscalls => baseline::reason_to_tell(&new.item),
            Section::Arguments if !is_start => network.of_socket(&new.item),
            Section::Connects | Section::Listens if !is_start => {
                network.of_address(new.section, &new.item).map(|(call, why)| {
                    name = item_name(Section::Syscalls, call);
                    why
                })
            }
            Section::Capabilities if !is_start && !capabilities.contains(&new.item) => {
                Some("was never used by this workload before")
            }
            Section::Arguments
            | Section::Capabilities
            | Section::Connects
            | Section::Listens
            | Section::DeniedSyscalls
            | Section::Writes => None,
        };
        let Some(why) = why else { continue };
        let why = match new.section {
            // The call alone does not say what there is to look at.
            Section::Connects | Section::Listens => format!("{why}: {}", new.item),
            _ => why.to_owned(),
        };
        all.entry(as_decided(&name)).or_insert(why);
    }
    all.retain(|item, _| !before.steering.is_decided(item));
    all
}

/// What the baseline forbids and the workload did all the same while it was learnt, as [`doubtful`] has it. It is in no profile, so
/// that enforcing would refuse it at each start and answer that: somebody says first whether the workload does without. Not
/// [`vain`] tries.
pub fn never_learnt(profile: &Profile) -> BTreeMap<String, String> {
    let of_workload = profile.forbidden.iter().filter(|(item, _)| !item.starts_with("exec: "));
    let all = of_workload.map(|(item, forbidden)| (as_decided(item), forbidden.reason.clone()));
    let vain = vain(profile);
    all.filter(|(item, _)| !profile.steering.is_decided(item) && !vain.contains(item)).collect()
}

/// System calls that the baseline forbids and that the workload tried in more than one life, in vain, since the engine itself
/// refuses them: it lives without. Each login of sshd asks for a keyring (pam_keyinit). Not those for which it would be killed.
pub fn vain(profile: &Profile) -> BTreeSet<String> {
    let tried = profile.forbidden.iter().filter(|(_, forbidden)| forbidden.seen.generations.len() > 1);
    let calls = tried.filter_map(|(item, _)| item.strip_prefix("denied syscall "));
    calls.filter(|call| !baseline::deadly(call)).map(|call| item_name(Section::Syscalls, call)).collect()
}

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;

/// What a workload was seen to have of the network.
struct Network<'a> {
    /// Its sockets: family, and of netlink the protocol.
    sockets: BTreeSet<(u64, u64)>,
    connects: BTreeSet<&'a str>,
    listens: BTreeSet<&'a str>,
}

impl<'a> Network<'a> {
    fn of(profile: &'a Profile) -> Network<'a> {
        let Behaviour { arguments, connects, listens, .. } = &profile.workload_behaviour;
        let values = arguments.iter().flat_map(|(call, values)| values.keys().map(move |value| (call, value)));
        Network {
            sockets: values.filter_map(|(call, value)| socket(&format!("{call} {value}"))).collect(),
            connects: connects.keys().filter_map(|address| protocol(address)).collect(),
            listens: listens.keys().filter_map(|address| protocol(address)).collect(),
        }
    }

    fn has_internet(&self) -> bool {
        let families = self.sockets.iter().map(|(family, _)| *family);
        families.into_iter().any(is_internet) || !self.connects.is_empty() || !self.listens.is_empty()
    }

    /// Why somebody looks at the argument of a call.
    fn of_socket(&self, argument: &str) -> Option<&'static str> {
        let (family, protocol) = socket(argument)?;
        let is_known = match family {
            AF_UNIX => true,
            AF_INET | AF_INET6 => self.has_internet(),
            // Who has addresses asks the kernel for them (protocol 0): every resolver does.
            AF_NETLINK if protocol == 0 => self.has_internet(),
            _ => false,
        };
        let why = match family {
            AF_INET | AF_INET6 => "is the first use of the network by this workload",
            _ => "is of a family of sockets that this workload never had before",
        };
        (!is_known && !self.sockets.contains(&(family, protocol))).then_some(why)
    }

    /// The call that somebody looks at for an address, and why.
    fn of_address(&self, section: Section, address: &str) -> Option<(&'static str, &'static str)> {
        let protocol = protocol(address)?;
        let (is_known, call, why) = match section {
            // Who resolves names only is no client yet.
            Section::Connects => (
                self.connects.contains(TCP) || self.connects.contains(protocol),
                "connect",
                "is the first connection of this workload over the network",
            ),
            _ if protocol == TCP => {
                (!self.listens.is_empty(), "listen", "is the first port that this workload listens on")
            }
            _ => (!self.listens.is_empty(), "bind", "is the first port that this workload takes datagrams on"),
        };
        (!is_known).then_some((call, why))
    }
}

const TCP: &str = "tcp";

/// Family of an argument of `socket`, and its protocol where that tells kinds apart.
fn socket(argument: &str) -> Option<(u64, u64)> {
    let value = argument.strip_prefix("i386:").unwrap_or(argument).strip_prefix("socket ")?;
    let mut numbers = value.split(',').map(|number| number.parse().ok());
    let (family, protocol) = (numbers.next()??, numbers.nth(1)??);
    Some((family, if family == AF_NETLINK { protocol } else { 0 }))
}

fn is_internet(family: u64) -> bool {
    family == AF_INET || family == AF_INET6
}

/// What is spoken at an address; `None` where that is not the network's, or no port that anybody would know of: resolvers take
/// one for each question.
fn protocol(address: &str) -> Option<&str> {
    let (protocol, at) = address.split_once(' ')?;
    let is_nobodys = protocol != TCP && at.ends_with(":*");
    (!matches!(protocol, "unix" | "netlink") && !is_nobodys).then_some(protocol)
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
    let all = match profile.stage {
        Stage::Enforcing => String::new(),
        Stage::Learning | Stage::Observing => {
            format!("; or, to take all as it was seen: lithifyctl profile promote {name} --to enforcing --force")
        }
    };
    format!(
        "somebody to look at {item} ({}){more}; then type: lithifyctl profile allow {name} {item}; or: lithifyctl profile deny \
         {name} {item}{all}",
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
