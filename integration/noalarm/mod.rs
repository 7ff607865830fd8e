//! No false alarm: services go through `auto` from nothing, all by themselves, and then run enforced under a longer and
//! different load, with reloads, rotated logs, probes, stops and restarts. No request fails, and nothing is refused.
//!
//! Owns: that way, and what must be true on it. The short tests take three services through it with small numbers; the long
//! one, all of them, is ignored here and run by `integration/no-false-alarm`, which prints its table.

mod life;
mod services;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lithify::profile::{Profile, syscalls};
use serde_json::Value;

use self::life::{Asked, Stand};
use self::services::Service;
use crate::command::{PATIENCE, eventually};
use crate::corner::Corner;
use crate::docker::Docker;
use crate::journal::BREACH;
use crate::setup::Setup;

const PROMOTED: &str = "dev.lithify.profile.promoted";
/// What must not be said about an enforced container, by the end of the event's type.
const ALARMS: [&str; 6] = ["breach", "restarted", "escalated", "demoted", "would-refuse", "degraded"];

/// How long each part takes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// `[auto] risk`.
    risk: f64,
    /// Of each life until it is enforced.
    life: Duration,
    /// More lives than this mean that it never gets there.
    lives: u32,
    /// Under the other load.
    enforced: Duration,
}

const SHORT: Pace = Pace { risk: 0.9, life: Duration::from_secs(8), lives: 5, enforced: Duration::from_secs(2) };
const LONG: Pace = Pace { risk: 0.25, life: Duration::from_secs(40), lives: 9, enforced: Duration::from_secs(120) };

impl Pace {
    fn setup(self, corner: &Corner) -> Result<Setup> {
        let Pace { risk, .. } = self;
        Setup::with(
            corner,
            &format!(
                "[learning]\nwindow = \"1s\"\ninterval = \"2s\"\n\
                 [auto]\nrisk = {risk}\ngenerations = 2\nobserve-generations = 1\nobserve-windows = 5\nstartup = \"5s\"\n"
            ),
        )
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
struct Row {
    service: &'static str,
    generations: u64,
    windows: u64,
    /// Of the next window, in percent.
    estimate: f64,
    /// Left of the engine's, and the engine's.
    syscalls: (usize, usize),
    /// Of the calls, those that were seen.
    learnt: usize,
    capabilities: (usize, usize),
    refusals: usize,
    asked: Asked,
    enforced: Duration,
}

impl Row {
    fn head() -> String {
        "| workload | generations learnt | minutes | estimate | syscalls | capabilities | refusals | requests (failed) | \
         probes (failed) | minutes enforced |\n|---|---|---|---|---|---|---|---|---|---|"
            .to_owned()
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row { service, generations, refusals, asked, .. } = self;
        let (minutes, enforced) = (self.windows as f64 / 60.0, self.enforced.as_secs_f64() / 60.0);
        write!(f, "| {service} | {generations} | {minutes:.1} | < {:.1} % ", self.estimate * 100.0)?;
        write!(f, "| {} of {} ({} seen) ", self.syscalls.0, self.syscalls.1, self.learnt)?;
        write!(f, "| {} of {} ", self.capabilities.0, self.capabilities.1)?;
        write!(f, "| {refusals} | {} (0) | {} (0) | {enforced:.1} |", asked.requests, asked.probes)
    }
}

/// `profile list`'s entry for what the container runs; `None` while there is none.
fn profile_of(stand: &Stand<'_>, setup: &Setup, container: &str) -> Result<Option<Value>> {
    let image = stand.docker.inspect(container)?["Image"].clone();
    let lithifyctl = env!("CARGO_BIN_EXE_lithifyctl");
    let list = stand.corner.run(&[lithifyctl, "--config", &setup.config, "profile", "list", "--json"])?.success()?;
    let mut list: Vec<Value> = serde_json::from_str(&list)?;
    list.retain(|profile| profile["revision"]["image"] == image);
    ensure!(list.len() < 2, "one service became more than one revision: {list:?}");
    Ok(list.pop())
}

/// What lithify decided for a container that runs.
fn inspect(stand: &Stand<'_>, setup: &Setup, container: &str) -> Result<Value> {
    let lithifyctl = env!("CARGO_BIN_EXE_lithifyctl");
    let text = stand.corner.run(&[lithifyctl, "--config", &setup.config, "inspect", container, "--json"])?.success()?;
    Ok(serde_json::from_str(&text)?)
}

/// Calls of x86-64 that a filter lets through, and capabilities of the bounding set, in a config.json.
fn rights(config: &Value) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let names = |list: &Value| -> BTreeSet<String> {
        list.as_array().into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    };
    let rules = config["linux"]["seccomp"]["syscalls"].as_array().context("no filter")?;
    let allowed = rules.iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW").flat_map(|rule| names(&rule["names"]));
    let native = allowed.filter(|name| syscalls::parse(name).is_some_and(|(compat, _)| !compat)).collect();
    Ok((native, names(&config["process"]["capabilities"]["bounding"])))
}

/// What is left of what the engine would have given.
fn what_is_left(corner: &Corner, known: &Value) -> Result<((usize, usize), (usize, usize))> {
    let id = known["id"].as_str().context("no id")?;
    let bundle = known["bundle"].as_str().context("no bundle")?;
    let state = fs::read_dir(corner.inside(corner.state()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(id)))
        .context("no state of it")?;
    let read = |path: std::path::PathBuf| -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(&path).with_context(|| path.display().to_string())?)?)
    };
    let (calls, capabilities) = rights(&read(state.join("config.json"))?)?;
    let (engine_calls, engine_capabilities) = rights(&read(corner.inside(bundle).join("config.json"))?)?;
    ensure!(calls.is_subset(&engine_calls), "wider than the engine's: {:?}", calls.difference(&engine_calls));
    ensure!(capabilities.is_subset(&engine_capabilities), "{capabilities:?}");
    Ok(((calls.len(), engine_calls.len()), (capabilities.len(), engine_capabilities.len())))
}

/// Everything that was said about these containers which must not be, and about their profile.
fn alarms(setup: &Setup, containers: &[String]) -> Result<Vec<Value>> {
    let mut events = setup.journal().events()?;
    // A program of the image, which ran, in a workload of scripts: told, and nothing follows.
    let only_told = |data: &Value| data["kind"] == "unknown-program" && data["response"] == "report";
    events.retain(|event| !only_told(&event["data"]));
    events.retain(|event| {
        let ours = event["subject"].as_str().is_some_and(|subject| containers.iter().any(|id| id == subject));
        ours && event["type"].as_str().is_some_and(|t| ALARMS.iter().any(|alarm| t.rsplit('.').next() == Some(alarm)))
    });
    Ok(events)
}

/// Lives of the service, each with the same load, until its profile is enforced: what was seen, and how often it was asked.
fn learn(stand: &Stand<'_>, setup: &Setup, pace: Pace) -> Result<(Value, Asked)> {
    let mut asked = Asked::default();
    let life = pace.life.max(Duration::from_secs(stand.service.cycle_seconds));
    let mut learnt = Value::Null;
    let mut way = Vec::new();
    for _ in 0..pace.lives {
        let container = stand.begin()?;
        let stage = inspect(stand, setup, &container)?["policy"]["mode"].clone();
        way.push(stage.clone());
        asked.requests += stand.learning_load(&container, life).with_context(|| format!("in {stage}"))?;
        stand.is_well(&container)?;
        stand.stop(&container)?;
        // The last of what was seen is folded when the container has ended.
        let profile = eventually("a profile of all that was seen", PATIENCE, || {
            let profile = profile_of(stand, setup, &container)?;
            let folded = setup.journal().of("dev.lithify.container.learnt", &container)?;
            Ok(profile.filter(|_| stage == "enforce" || !folded.is_empty()))
        })?;
        stand.remove(&container)?;
        if profile["stage"] == "observing" || learnt.is_null() {
            learnt = profile.clone();
        }
        if profile["stage"] == "enforcing" {
            ensure!(way.first() == Some(&"learn".into()) && way.contains(&"observe".into()), "the way was {way:?}");
            return Ok((learnt, asked));
        }
    }
    anyhow::bail!("after {} lives ({way:?}) it is not enforced: {learnt:#}", pace.lives)
}

/// From nothing to enforced, and through the days of a service then.
fn through_auto(corner: &Corner, setup: &Setup, docker: &Docker<'_>, service: &Service, pace: Pace) -> Result<Row> {
    docker.load(service.image)?;
    // Loads that connect for each request would run out of ports of their own in this network.
    let ports = "cd /proc/sys/net/ipv4 && echo 1 >tcp_tw_reuse && echo 1024 65535 >ip_local_port_range";
    corner.bash(ports, &[])?.success()?;
    let stand = Stand { corner, docker, service };
    let (learnt, mut asked) = learn(&stand, setup, pace).context("on its way to enforcing")?;
    let promoted = setup.journal().events()?.into_iter().filter(|event| event["type"] == PROMOTED);
    let steps: BTreeSet<String> = promoted
        .filter(|event| event["data"]["workload"] == learnt["workload"])
        .map(|event| format!("{} to {}", event["data"]["from"], event["data"]["to"]))
        .collect();
    for step in ["\"learning\" to \"observing\"", "\"observing\" to \"enforcing\""] {
        ensure!(steps.contains(step), "no event says {step}: {steps:?}");
    }

    let began = Instant::now();
    let mut containers = Vec::new();
    let judged = days(&stand, setup, pace, &mut containers, &mut asked);
    let alarms = alarms(setup, &containers)?;
    let left = judged.with_context(|| format!("while enforced; what was said: {alarms:#?}"))?;
    ensure!(alarms.is_empty(), "{}: false alarms: {alarms:#?}", service.image.name());
    is_listened_to(&stand, setup).context("what was refused on purpose")?;
    let file = learnt["path"].as_str().context("no path")?;
    let seen: Profile = serde_json::from_slice(&fs::read(file).with_context(|| format!("failed to read {file}"))?)?;
    let next = &learnt["progress"]["next-window"];
    Ok(Row {
        service: service.image.name(),
        generations: learnt["generations"].as_u64().context("no generations")?,
        windows: next["total"].as_u64().context("no windows")?,
        estimate: next["bound"].as_f64().context("no bound")?,
        syscalls: left.0,
        learnt: seen.workload_behaviour.syscalls.len(),
        capabilities: left.1,
        refusals: alarms.len(),
        asked,
        enforced: began.elapsed(),
    })
}

/// Enforced: the other load with probes, a rotated log, a reload, stop and start, restart. What is left of the engine's.
fn days(
    stand: &Stand<'_>,
    setup: &Setup,
    pace: Pace,
    containers: &mut Vec<String>,
    asked: &mut Asked,
) -> Result<((usize, usize), (usize, usize))> {
    let container = stand.begin()?;
    containers.push(container.clone());
    let enforced = |when: &str| -> Result<Value> {
        let known = inspect(stand, setup, &container).with_context(|| when.to_owned())?;
        ensure!(known["policy"]["mode"] == "enforce" && known["generation"] == 1, "{when}: {known:#}");
        Ok(known)
    };
    let mut add = |more: Asked| {
        asked.requests += more.requests;
        asked.probes += more.probes;
    };
    let left = what_is_left(stand.corner, &enforced("at its start")?)?;
    stand.is_up(&container)?;
    let identity = stand.docker.identity(&container)?;
    let half = pace.enforced / 2;
    add(stand.other_load(&container, half)?);
    stand.rotate(&container).context("a rotated log")?;
    add(Asked { requests: stand.learning_load(&container, Duration::ZERO)?, probes: 0 });
    stand.logs_anew()?;
    stand.signal(&container, "HUP").context("a reload")?;
    add(Asked { requests: stand.learning_load(&container, Duration::ZERO).context("after a reload")?, probes: 0 });
    add(stand.other_load(&container, half).context("after a reload")?);
    stand.is_well(&container)?;
    ensure!(stand.docker.identity(&container)? == identity, "it was started anew");
    enforced("after its loads")?;
    stand.stop(&container).context("a graceful stop")?;
    stand.again("start", &container)?;
    add(Asked { requests: stand.learning_load(&container, Duration::ZERO).context("started again")?, probes: 0 });
    enforced("started again")?;
    stand.again("restart", &container)?;
    add(Asked { requests: stand.learning_load(&container, Duration::ZERO).context("restarted")?, probes: 0 });
    stand.is_well(&container)?;
    enforced("restarted")?;
    stand.stop(&container)?;
    stand.remove(&container)?;
    Ok(left)
}

/// A silence into which nobody listens is worth nothing: what is refused now, in a session, so that nothing follows from it,
/// has to be told.
fn is_listened_to(stand: &Stand<'_>, setup: &Setup) -> Result<()> {
    let container = stand.begin()?;
    stand.is_up(&container)?;
    let refused = stand.session(&container, "chroot / true || echo x >/usr/bin/planted")?;
    ensure!(refused.code != 0, "neither was refused: {refused:?}");
    let told = |kind: &str, key: &str, value: &str| {
        eventually(&format!("a breach of {value}"), PATIENCE, || {
            let breaches = setup.journal().of(BREACH, &container)?;
            let named = breaches.iter().any(|event| {
                let all = event["data"]["refusals"].as_array().into_iter().flatten();
                event["data"]["kind"] == kind && all.chain([&event["data"]]).any(|one| one[key] == value)
            });
            ensure!(named, "{breaches:#?}");
            Ok(Some(()))
        })
    };
    told("refused-syscall", "syscall", "chroot")?;
    told("refused-write", "path", "/usr/bin/planted")?;
    stand.stop(&container)?;
    stand.remove(&container)
}

/// One service in a corner of its own.
fn alone(service: &Service) -> Result<()> {
    let corner = Corner::new()?;
    let setup = LONG.setup(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    let before = corner.traces()?;
    let row = through_auto(&corner, &setup, &docker, service, LONG)?;
    println!("{}\n{row}", Row::head());
    corner.left_nothing_since(&before)
}

#[test]
fn three_services_go_through_auto_by_themselves_and_are_never_alarmed_about() -> Result<()> {
    let corner = Corner::new()?;
    let setup = SHORT.setup(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    let before = corner.traces()?;
    let services = [services::NGINX, services::REDIS, services::PYTHON];
    let rows: Vec<Result<Row>> = std::thread::scope(|scope| {
        let started: Vec<_> = services
            .iter()
            .map(|service| scope.spawn(|| through_auto(&corner, &setup, &docker, service, SHORT)))
            .collect();
        started.into_iter().map(|one| one.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))).collect()
    });
    println!("{}", Row::head());
    let (rows, failures): (Vec<_>, Vec<_>) = rows.into_iter().partition(Result::is_ok);
    rows.into_iter().flatten().for_each(|row| println!("{row}"));
    ensure!(failures.is_empty(), "{failures:#?}");
    corner.left_nothing_since(&before)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn nginx_is_never_alarmed_about() -> Result<()> {
    alone(&services::NGINX)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn redis_is_never_alarmed_about() -> Result<()> {
    alone(&services::REDIS)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn postgresql_is_never_alarmed_about() -> Result<()> {
    alone(&services::POSTGRES)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn haproxy_is_never_alarmed_about() -> Result<()> {
    alone(&services::HAPROXY)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn memcached_is_never_alarmed_about() -> Result<()> {
    alone(&services::MEMCACHED)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn a_python_service_is_never_alarmed_about() -> Result<()> {
    alone(&services::PYTHON)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn a_node_service_is_never_alarmed_about() -> Result<()> {
    alone(&services::NODE)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn a_java_service_is_never_alarmed_about() -> Result<()> {
    alone(&services::JAVA)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn cron_with_shell_scripts_is_never_alarmed_about() -> Result<()> {
    alone(&services::CRON)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn apache_with_php_is_never_alarmed_about() -> Result<()> {
    alone(&services::APACHE)
}

#[test]
#[ignore = "takes minutes: integration/no-false-alarm runs it"]
fn a_gunicorn_service_is_never_alarmed_about() -> Result<()> {
    alone(&services::GUNICORN)
}
