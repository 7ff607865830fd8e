//! What intruders do once they are in: each attack of `integration/attacks` against a server with a hole, through the network.
//! Refused or not, none may pass in silence.
//!
//! Owns: what is asked of lithify for each attack, and the table of what became of them. Must not: know an attack by name,
//! but for those that come from the host.

mod kit;
mod site;

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::eventually;
use crate::corner::Corner;
use crate::journal::{EXEC, RESTARTED, STARTED};
use kit::{Named, Place};
use site::{COMPROMISED, End, HONEST, Site, Under};

/// The profile's name: the program's.
const WORKLOAD: &str = "victim";
const OBSERVED: Under<'_> = Under::Lithify("mode = \"observe\"");
const ENFORCED: Under<'_> = Under::Lithify("mode = \"enforce\"");
/// Nothing follows but events, so that an attack gets to say how far it came.
const REPORTED: Under<'_> = Under::Lithify(
    "mode = \"enforce\"\non-write = \"report\"\non-refused-write = \"report\"\non-refused-syscall = \"report\"",
);
const TRIPWIRE: Under<'_> = Under::Lithify("mode = \"enforce\"\nrootfs = \"tripwire\"");
const LEARNT: Under<'_> = Under::Lithify("mode = \"learn\"");

/// What became of all attacks of one setting, for people; and what is wrong with it.
#[derive(Default)]
struct Table {
    rows: String,
    wrong: Vec<String>,
}

impl Table {
    fn row(&mut self, attack: &str, end: &End, told: &str) {
        let end = match end {
            End::Landed => "landed".to_owned(),
            End::Failed(said) => said.chars().take(70).collect(),
            End::Cut => "cut off".to_owned(),
        };
        let _ = writeln!(self.rows, "{attack:16} | {end:70} | {told}");
    }

    fn judge(self, setting: &str) -> Result<()> {
        println!("{setting}\n{}", self.rows);
        ensure!(self.wrong.is_empty(), "{setting}: {:#?}", self.wrong);
        Ok(())
    }
}

/// Lets honest visitors be learnt over two lives, and ends learning.
fn learn(site: &Site<'_>) -> Result<()> {
    for _ in 0..2 {
        let victim = site.begin(LEARNT, HONEST)?;
        victim.serve_honestly()?;
        victim.end()?;
    }
    eventually("the profile", Duration::from_secs(15), || {
        Ok(Some(site.ctl(&["profile", "finish", WORKLOAD, "--force"])?))
    })?;
    Ok(())
}

/// The event that names an attack, in words; `None`: silence.
fn named(events: &[Value], id: &str, expected: &[Named]) -> Option<String> {
    let is_expected =
        |(kind, item): &(&str, String)| expected.iter().any(|e| e.kind == *kind && is_named(item, &e.item));
    about(events, id).flat_map(told).find(is_expected).map(|(kind, item)| format!("{kind} {item}"))
}

fn about<'e>(events: &'e [Value], id: &str) -> impl Iterator<Item = &'e Value> {
    events.iter().filter(move |event| event["subject"].as_str().is_some_and(|subject| subject.starts_with(id)))
}

/// A name stands for itself, what is below it, and what follows it after a blank; `*` in it for one part of a path.
fn is_named(item: &str, named: &str) -> bool {
    let (mut rest, mut parts) = (item, named.split('*'));
    let begins = parts.next().is_some_and(|first| rest.strip_prefix(first).map(|after| rest = after).is_some());
    let goes_on = parts.all(|part| {
        let any = rest.find('/').unwrap_or(rest.len());
        rest[any..].strip_prefix(part).map(|after| rest = after).is_some()
    });
    begins && goes_on && (rest.is_empty() || rest.starts_with(['/', ' ', '.', ',']))
}

/// What an event says was done: one thing, or several.
fn told(event: &Value) -> Vec<(&'static str, String)> {
    let data = |key: &str| event["data"][key].as_str().unwrap_or_default().to_owned();
    let listed = |list: &str, key: &str| -> Vec<String> {
        let all = event["data"][list].as_array().into_iter().flatten();
        all.filter_map(|one| one[key].as_str()).map(str::to_owned).collect()
    };
    match event["type"].as_str().and_then(|name| name.rsplit('.').next()) {
        Some("forbidden") => vec![("forbidden", data("item"))],
        Some("would-refuse") => vec![("would-refuse", format!("{} {}", data("kind"), data("item")))],
        Some("breach") => {
            let (kind, item) = match data("kind").as_str() {
                "refused-syscall" => ("syscall", data("syscall")),
                "refused-capability" => ("capability", data("capability")),
                "foreign-program" | "unknown-program" => ("program", data("path")),
                _ => ("write", data("path")),
            };
            let more = [listed("refusals", "refused"), listed("changes", "path")].concat();
            [item].into_iter().chain(more).map(|item| (kind, item)).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether such an event is told, in what time it takes.
fn awaits(site: &Site<'_>, id: &str, kind: &str, item: &str) -> Result<()> {
    let expected = [Named { kind: kind.to_owned(), item: item.to_owned() }];
    eventually(&format!("{kind} {item}"), Duration::from_secs(10), || {
        let found = named(&site.setup.journal().events()?, id, &expected);
        ensure!(found.is_some(), "there is {:?}", events_of(site, id)?);
        Ok(found)
    })?;
    Ok(())
}

/// All that was told of a container.
fn events_of(site: &Site<'_>, id: &str) -> Result<Vec<String>> {
    let events = site.setup.journal().events()?;
    Ok(about(&events, id).flat_map(told).map(|(kind, item)| format!("{kind} {item}")).collect())
}

/// Without lithify, every attack ends as its header says: what follows proves something.
fn control(site: &Site<'_>, place: Place) -> Result<()> {
    let mut table = Table::default();
    for attack in kit::all()? {
        let victim = site.begin(Under::Runc, HONEST)?;
        let end = victim.strike(&attack)?;
        victim.end()?;
        table.row(&attack.name, &end, "");
        if attack.lands(place)? != (end == End::Landed) {
            table.wrong.push(format!("{}: {end:?}", attack.name));
        }
    }
    table.judge(&format!("{place:?}, without lithify"))
}

#[test]
fn under_dockers_defaults_attacks_end_as_their_headers_say() -> Result<()> {
    let corner = Corner::new()?;
    control(&Site::docker(&corner)?, Place::Docker)
}

#[test]
fn with_all_capabilities_and_no_filter_attacks_land() -> Result<()> {
    let corner = Corner::new()?;
    control(&Site::bare(&corner)?, Place::Bare)
}

/// Each attack against a fresh victim that is observed; honest visitors come first, and nothing of them is told.
fn observe(site: &Site<'_>, under: Under<'_>) -> Result<()> {
    learn(site)?;
    site.keep_profiles()?;
    let mut table = Table::default();
    for attack in kit::all()? {
        // What is new becomes part of a profile that is observed in mode auto; the next attack is to meet it as it was.
        site.restore_profiles()?;
        let victim = site.begin(under, HONEST)?;
        victim.serve_honestly()?;
        let id = victim.id.clone();
        let before = events_of(site, &id)?;
        let end = victim.strike(&attack)?;
        let (journal, expected) = (site.setup.journal(), attack.observed()?);
        let told = || Ok(named(&journal.events()?, &id, &expected));
        // A look at the end of its life is the last chance.
        let early = eventually("an event", Duration::from_secs(4), told).ok();
        victim.end()?;
        let told = early.map_or_else(told, |early| Ok(Some(early)))?;
        table.row(&attack.name, &end, told.as_deref().unwrap_or("SILENT"));
        if told.is_none() {
            table.wrong.push(format!("{}: no event names it, of {:?}", attack.name, events_of(site, &id)?));
        }
        if !before.is_empty() {
            table.wrong.push(format!("{}: honest visitors gave {before:?}", attack.name));
        }
    }
    table.judge(&format!("observed, {under:?}"))
}

#[test]
fn observed_under_docker_each_attack_gives_an_event_that_names_it() -> Result<()> {
    let corner = Corner::new()?;
    observe(&Site::docker(&corner)?, OBSERVED)
}

#[test]
fn observed_with_all_capabilities_each_attack_gives_an_event_that_names_it() -> Result<()> {
    let corner = Corner::new()?;
    observe(&Site::bare(&corner)?, OBSERVED)
}

#[test]
fn observed_in_mode_auto_each_attack_gives_an_event_that_names_it() -> Result<()> {
    let corner = Corner::new()?;
    observe(&Site::bare(&corner)?, Under::Lithify("mode = \"auto\""))
}

/// How attacks are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// By an event alone.
    Report,
    /// By a pristine generation in place of this one.
    Restart,
}

/// Each attack against a fresh victim that is enforced. Honest visitors come first, and nothing is told of them; what comes
/// after the attack is served again.
fn enforce(site: &Site<'_>, under: Under<'_>, answer: Answer) -> Result<()> {
    learn(site)?;
    let mut table = Table::default();
    let tripwire = under == TRIPWIRE;
    for attack in kit::all()? {
        let victim = site.begin(under, HONEST)?;
        victim.serve_honestly().with_context(|| format!("told was {:?}", events_of(site, &victim.id)))?;
        let (id, before) = (victim.id.clone(), events_of(site, &victim.id)?);
        let engine_sees = victim.identity()?;
        let end = victim.strike(&attack)?;
        let (journal, expected) = (site.setup.journal(), attack.enforced(tripwire)?);
        let told =
            eventually("an event", Duration::from_secs(4), || Ok(named(&journal.events()?, &id, &expected))).ok();
        if answer == Answer::Restart {
            // Told after the service is there again.
            let _ =
                eventually("a restart", Duration::from_secs(10), || Ok(journal.of(RESTARTED, &id)?.first().cloned()));
        }
        let serves = eventually("service", Duration::from_secs(15), || Ok(victim.serves().then_some(()))).is_ok();
        let restarts = journal.of(RESTARTED, &id)?.len();
        let same = victim.identity()? == engine_sees;
        victim.end()?;
        table.row(&attack.name, &end, &format!("{} | {restarts} restarts", told.as_deref().unwrap_or("SILENT")));
        let all = events_of(site, &id)?;
        let mut wrong =
            |what: &str| table.wrong.push(format!("{}: {what}; it ended {end:?}, told was {all:?}", attack.name));
        if told.is_none() {
            wrong("no event names it");
        }
        if end == End::Landed && !tripwire && !attack.lands_enforced() {
            wrong("it had its way");
        }
        if (restarts > 0) != (answer == Answer::Restart) {
            wrong(&format!("{restarts} restarts"));
        }
        if !serves || !same {
            wrong(&format!("afterwards it serves: {serves}, the engine sees the same container: {same}"));
        }
        if !before.is_empty() {
            wrong(&format!("honest visitors gave {before:?}"));
        }
    }
    table.judge(&format!("enforced, {under:?}"))
}

#[test]
fn enforced_under_docker_each_attack_is_refused_and_gives_an_event_that_names_it() -> Result<()> {
    let corner = Corner::new()?;
    enforce(&Site::docker(&corner)?, REPORTED, Answer::Report)
}

#[test]
fn enforced_under_docker_each_attack_ends_in_a_restart() -> Result<()> {
    let corner = Corner::new()?;
    enforce(&Site::docker(&corner)?, ENFORCED, Answer::Restart)
}

#[test]
fn enforced_with_all_capabilities_each_attack_ends_in_a_restart() -> Result<()> {
    let corner = Corner::new()?;
    enforce(&Site::bare(&corner)?, ENFORCED, Answer::Restart)
}

#[test]
fn enforced_over_a_tripwire_each_attack_ends_in_a_restart() -> Result<()> {
    let corner = Corner::new()?;
    enforce(&Site::bare(&corner)?, TRIPWIRE, Answer::Restart)
}

#[test]
fn observed_what_comes_from_the_host_gives_an_event_that_names_it() -> Result<()> {
    let corner = Corner::new()?;
    let site = Site::docker(&corner)?;
    let docker = site.engine().context("no engine")?;
    learn(&site)?;
    let victim = site.begin(OBSERVED, HONEST)?;
    let id = victim.id.clone();
    let file = corner.path("attacker/landed.sh");
    docker.ok(&["cp", &file, &format!("{id}:/srv/www/cgi-bin/landed")])?;
    awaits(&site, &id, "would-refuse", "write /srv/www/cgi-bin/landed")?;
    // A session's program is not the workload's, and nor is what it does.
    docker.ok(&["exec", &id, "sh", "-c", "cp /usr/bin/busybox /tmp/busybox-session && /tmp/busybox-session true"])?;
    awaits(&site, &id, "forbidden", "program /tmp/busybox-session")?;
    victim.end()
}

#[test]
fn enforced_what_comes_from_the_host_is_no_wider_than_the_container_and_is_told() -> Result<()> {
    let corner = Corner::new()?;
    let site = Site::docker(&corner)?;
    let docker = site.engine().context("no engine")?;
    learn(&site)?;
    let victim = site.begin(ENFORCED, HONEST)?;
    let id = victim.id.clone();
    let file = corner.path("attacker/landed.sh");
    docker.ok(&["cp", &file, &format!("{id}:/srv/www/cgi-bin/landed")])?;
    awaits(&site, &id, "write", "/srv/www/cgi-bin/landed")?;
    let found = docker.cli(&["exec", &id, "ls", "/srv/www/cgi-bin"])?;
    ensure!(
        found.stdout == "visits\n",
        "what the host writes into the engine's layer is not in the container: {found:?}"
    );
    // With all privileges that Docker would give, a session has those of the container.
    let remount = docker.cli(&["exec", "--privileged", &id, "mount", "-o", "remount,rw", "/"])?;
    ensure!(remount.code != 0, "{remount:?}");
    awaits(&site, &id, "syscall", "mount")?;
    let sessions = site.setup.journal().wait_for(EXEC, &id, 2)?;
    let taken = |event: &Value| event["data"]["refused"].to_string().contains("CAP_SYS_ADMIN");
    ensure!(sessions.iter().any(taken), "what was asked for and not given is told: {sessions:?}");
    // Who was let in is no reason to restart the workload.
    ensure!(site.setup.journal().of(RESTARTED, &id)?.is_empty(), "a session's refusal restarted the workload");
    ensure!(victim.serves(), "it serves no more");
    victim.end()?;
    let victim = site.begin(Under::Lithify("mode = \"enforce\"\nexec = \"deny\""), HONEST)?;
    let id = victim.id.clone();
    let denied = docker.cli(&["exec", &id, "true"])?;
    ensure!(denied.code != 0, "{denied:?}");
    let told = site.setup.journal().wait_for(EXEC, &id, 1)?;
    ensure!(told[0]["data"]["denied"].is_string(), "{told:?}");
    victim.end()
}

/// Refused calls are told by a socket in the container's folder, and a socket's path is short.
#[test]
fn where_refused_calls_can_not_be_told_that_is_told() -> Result<()> {
    let corner = Corner::new()?;
    let mut site = Site::docker(&corner)?;
    learn(&site)?;
    site.keep_state_in(&corner.dir().join("state"));
    let victim = site.begin(ENFORCED, HONEST)?;
    let started = site.setup.journal().wait_for(STARTED, &victim.id, 1)?;
    ensure!(started[0]["data"]["degraded"].to_string().contains("set a shorter 'state-dir'"), "{started:?}");
    victim.end()
}

/// What an intruder did before the service began is told, and none of it is in the profile.
#[test]
fn what_a_compromised_entrypoint_does_while_it_is_learnt_does_not_become_policy() -> Result<()> {
    let corner = Corner::new()?;
    let site = Site::docker(&corner)?;
    let victim = site.begin(LEARNT, COMPROMISED)?;
    victim.serve_honestly()?;
    let id = victim.id.clone();
    victim.end()?;
    let poison = [
        "program /srv/busybox-miner",
        "program /tmp/busybox-miner",
        "write /etc/crontab",
        "write /root/.ssh/authorized_keys",
        "write /usr/lib/libc.so.6",
        "denied syscall mount",
    ];
    for item in poison {
        awaits(&site, &id, "forbidden", item)?;
    }
    let profile: Value = serde_json::from_str(&site.ctl(&["profile", "show", "victim", "--json"])?)?;
    let learnt = &profile["profile"]["workload-behaviour"];
    for (section, name) in [
        ("programs", "/srv/busybox-miner"),
        ("programs", "/tmp/busybox-miner"),
        ("writes", "/etc/crontab"),
        ("writes", "/root/.ssh/authorized_keys"),
        ("writes", "/usr/lib/libc.so.6"),
        ("syscalls", "mount"),
    ] {
        let section = learnt[section].as_object().with_context(|| format!("no {section} in {profile}"))?;
        ensure!(!section.contains_key(name), "{name} was learnt");
    }
    ensure!(
        learnt["writes"].as_object().is_some_and(|all| all.contains_key("/tmp/visits")),
        "honest writes are learnt"
    );
    Ok(())
}
