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
use kit::{Attack, Named, Place};
use site::{COMPROMISED, End, HONEST, Site, Under, Victim};

/// The profile's name: the program's.
const WORKLOAD: &str = "victim";
const OBSERVED: Under<'_> = Under::Lithify("mode = \"observe\"");
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
    let ours = events.iter().filter(|event| event["subject"].as_str().is_some_and(|subject| subject.starts_with(id)));
    ours.filter_map(told)
        .find(|(kind, item)| expected.iter().any(|e| e.kind == *kind && is_named(item, &e.item)))
        .map(|(kind, item)| format!("{kind} {item}"))
}

/// A name stands for itself, what is below it, and what follows it after a blank.
fn is_named(item: &str, named: &str) -> bool {
    item.strip_prefix(named).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ' ', '.', ',']))
}

/// What an event says was done.
fn told(event: &Value) -> Option<(String, String)> {
    let data = |key: &str| event["data"][key].as_str().unwrap_or_default().to_owned();
    match event["type"].as_str()? {
        "dev.lithify.container.forbidden" => Some(("forbidden".to_owned(), data("item"))),
        "dev.lithify.container.would-refuse" => {
            Some(("would-refuse".to_owned(), format!("{} {}", data("kind"), data("item"))))
        }
        _ => None,
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

fn events_of(site: &Site<'_>, id: &str) -> Result<Vec<String>> {
    Ok(site
        .setup
        .journal()
        .events()?
        .iter()
        .filter(|e| e["subject"].as_str().is_some_and(|s| s.starts_with(id)))
        .filter_map(told)
        .map(|(k, i)| format!("{k} {i}"))
        .collect())
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
fn observe(site: &Site<'_>) -> Result<()> {
    learn(site)?;
    let mut table = Table::default();
    for attack in kit::all()? {
        let victim = site.begin(OBSERVED, HONEST)?;
        victim.serve_honestly()?;
        let id = victim.id.clone();
        let before = events_of(site, &id)?;
        let end = victim.strike(&attack)?;
        let (journal, expected) = (site.setup.journal(), attack.observed()?);
        let told = || Ok(named(&journal.events()?, &id, &expected));
        // A look at the end of its life is the last chance.
        let early = eventually("an event", Duration::from_secs(4), told).ok();
        victim.end()?;
        let told = early.map_or_else(|| told(), |early| Ok(Some(early)))?;
        table.row(&attack.name, &end, told.as_deref().unwrap_or("SILENT"));
        if told.is_none() {
            table.wrong.push(format!("{}: no event names it, of {:?}", attack.name, events_of(site, &id)?));
        }
        if !before.is_empty() {
            table.wrong.push(format!("{}: honest visitors gave {before:?}", attack.name));
        }
    }
    table.judge("observed")
}

#[test]
fn observed_under_docker_each_attack_gives_an_event_that_names_it() -> Result<()> {
    let corner = Corner::new()?;
    observe(&Site::docker(&corner)?)
}

#[test]
fn observed_with_all_capabilities_each_attack_gives_an_event_that_names_it() -> Result<()> {
    let corner = Corner::new()?;
    observe(&Site::bare(&corner)?)
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
    let profile: Value = serde_json::from_str(&site.ctl(&["profile", "show", "compromised", "--json"])?)?;
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
