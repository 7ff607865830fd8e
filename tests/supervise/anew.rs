//! Generations that are decided anew: back to observing, on to enforcing, and with what the low-level runtime needs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use lithify::guard::{Limits, Refusal};
use lithify::policy::{Mode, Policy, Response, RestartLimit, RootfsKind};
use lithify::record::{Phase, Remarks};
use lithify::spec::Document;
use lithify::supervise::director::{Decided, Director};
use lithify::supervise::launch::Outcome;
use serde_json::Value;

use crate::harness::Test;
use crate::world::{CRUN, RUNC, World};

pub const TESTS: &[Test] = &[
    ("anew::a_start_up_that_is_refused_something_goes_back_to_observing_at_once", demoted),
    ("anew::a_start_up_that_follows_an_attack_stays_enforced_whatever_it_is_refused", attacked_before),
    ("anew::what_no_honest_start_up_needs_is_reported_and_ends_no_enforcement", attacked_meanwhile),
    ("anew::a_generation_that_is_promoted_is_sealed_and_filtered_and_one_that_is_not_is_as_before", promoted),
    ("anew::what_cannot_be_decided_leaves_the_next_generation_as_the_last_one", undecided),
    ("anew::a_create_that_is_refused_something_is_made_again_and_the_engine_sees_one", || created_again(RUNC)),
    ("anew::crun_is_given_what_it_needs_as_well", || created_again(CRUN)),
    ("anew::an_init_that_dies_before_the_workload_is_started_again", started_again),
    ("anew::a_create_that_fails_for_another_reason_fails_as_the_runtime_says", not_created),
];

/// Does what it was told beforehand, and writes down what it was asked; it is asked in another process.
#[derive(Debug, Default)]
struct Script {
    asked: PathBuf,
    /// What each `next` gives, in order; then nothing.
    next: Vec<Result<Option<Decided>, String>>,
    /// What `next` gives once it was demoted.
    demoted: Option<Decided>,
    is_demoted: bool,
    recalibrated: Option<Decided>,
}

impl Script {
    fn note(&self, word: &str) -> Result<()> {
        use std::io::Write;
        Ok(writeln!(std::fs::File::options().create(true).append(true).open(&self.asked)?, "{word}")?)
    }
}

impl Director for Script {
    fn next(&mut self) -> Result<Option<Decided>> {
        self.note("next")?;
        if self.is_demoted {
            return Ok(self.demoted.take());
        }
        if self.next.is_empty() {
            return Ok(None);
        }
        match self.next.remove(0) {
            Ok(decided) => Ok(decided),
            Err(text) => bail!(text),
        }
    }

    fn demote(&mut self, refusal: &Refusal) -> Result<bool> {
        self.note(&format!("demote session={}", refusal.session))?;
        self.is_demoted = self.demoted.is_some();
        Ok(self.is_demoted)
    }

    fn refused(&mut self, refusal: &Refusal) -> Result<()> {
        let what = format!("{:?}", refusal.refused);
        Ok(std::fs::write(self.asked.with_extension("refused"), what)?)
    }

    fn recalibrate(&mut self) -> Result<Option<Decided>> {
        self.note("recalibrate")?;
        Ok(self.recalibrated.take())
    }
}

fn asked(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn decided(config: Value, policy: Policy, limits: Limits) -> Decided {
    let config = Document::parse(config.to_string().as_bytes()).expect("a config.json");
    Decided { policy, config, limits, companion: None, remarks: Remarks::default() }
}

fn observing(world: &World) -> Policy {
    Policy { mode: Mode::Observe, auto: true, rootfs: RootfsKind::Engine, ..world.policy() }
}

fn enforcing(world: &World) -> Policy {
    Policy { auto: true, on_refused_syscall: Response::Restart, ..world.policy() }
}

fn demoted() {
    let mut world = World::new(RUNC);
    let script = "echo up >>/out/ups; mkdir /out/made && touch /anywhere && echo free >/out/free; exec sleep 1000";
    let plain = world.config(script);
    let mut config = plain.clone();
    config["linux"]["seccomp"] = world.filter(&["mkdir", "mkdirat"]);
    let asks = world.path("log").join("asked");
    let back = decided(plain, observing(&world), Limits::default());
    let director = Script { asked: asks.clone(), demoted: Some(back), ..Script::default() };
    let limits = Limits { startup_ms: Some(60_000), ..world.limits() };
    let policy = enforcing(&world);
    let outcome = world.launch(config, policy, limits, Some(Box::new(director)), false);
    assert_eq!(outcome, Outcome::Ready, "{}", world.log());
    world.start();
    world.wait_written("free");
    let restarted = world.wait_for("restarted", |_| true);
    assert_eq!((&restarted["mode"], &restarted["rootfs"]), (&"observe".into(), &"engine".into()), "{restarted}");
    let breach = world.wait_for("breach", |data| data["kind"] == "refused-syscall");
    assert_eq!(breach["generation"], 1, "{breach}");
    assert_eq!(asked(&asks), "demote session=false\nnext\n");
    assert_eq!(world.written("ups").as_deref(), Some("up\nup\n"));
    let record = world.record();
    assert_eq!((record.phase, record.policy.mode, record.profile), (Phase::Running, Mode::Observe, None));
}

const MOUNT: &str = "busybox mount -t tmpfs none /tmp";

/// Refused `mount` and `mkdir` in its start-up, with a director that would demote it; what that was asked.
fn attacked(world: &mut World, script: &str, policy: Policy) -> PathBuf {
    let plain = world.config(script);
    let mut config = plain.clone();
    config["linux"]["seccomp"] = world.filter(&["mkdir", "mkdirat", "mount"]);
    let asks = world.path("log").join("asked");
    let back = decided(plain, observing(world), Limits::default());
    let director = Script { asked: asks.clone(), demoted: Some(back), ..Script::default() };
    let limits = Limits { startup_ms: Some(60_000), ..world.limits() };
    let outcome = world.launch(config, policy, limits, Some(Box::new(director)), false);
    assert_eq!(outcome, Outcome::Ready, "{}", world.log());
    world.start();
    asks
}

fn attacked_before() {
    let mut world = World::new(RUNC);
    let once = format!("[ -e /out/once ] || {{ : >/out/once; {MOUNT}; exec sleep 1000; }};");
    let script = format!("{once} mkdir /out/made && touch /anywhere && echo free >/out/free; exec sleep 1000");
    let restart_limit = RestartLimit { count: 2, window: Duration::from_secs(60) };
    let policy = Policy { restart_limit, ..enforcing(&world) };
    let asks = attacked(&mut world, &script, policy);
    let escalated = world.wait_for("escalated", |_| true);
    assert_eq!((&escalated["response"], &escalated["generation"]), (&"stop".into(), &3.into()), "{escalated}");
    world.wait_for("exited", |_| true);
    assert_eq!((asked(&asks).as_str(), world.written("free")), ("next\nnext\n", None));
    assert!(world.of("restarted").iter().all(|event| event["data"]["mode"] == "enforce"));
}

fn attacked_meanwhile() {
    let mut world = World::new(RUNC);
    let script = format!("{MOUNT}; mkdir /out/made; echo $? >/out/status; exec sleep 1000");
    let policy = Policy { on_refused_syscall: Response::Report, ..enforcing(&world) };
    let asks = attacked(&mut world, &script, policy);
    assert_eq!(world.wait_written("status"), "1\n");
    world.eventually("both to be told", || (world.record().refusals >= 2).then_some(()));
    let record = world.record();
    assert_eq!((asked(&asks).as_str(), record.generation, record.policy.mode), ("", 1, Mode::Enforce));
    let heard = asks.with_extension("refused");
    let heard = world.eventually("what an honest one might need to be said", || std::fs::read_to_string(&heard).ok());
    assert!(heard.contains("mkdir") && !heard.contains("mount"), "{heard}");
}

/// With a fresh generation on a schedule, so that the next one need not be earned.
fn renewed(policy: Policy) -> Policy {
    Policy { renew_every: Some(Duration::from_millis(1500)), ..policy }
}

fn promoted() {
    let mut world = World::new(RUNC);
    let script = "trap 'exit 0' TERM; n=$(cat /out/n 2>/dev/null || echo 0); n=$((n+1)); echo $n >/out/n; \
        touch /file 2>/dev/null; echo $? >/out/touch$n; mkdir /out/made$n 2>/dev/null; echo $? >/out/mkdir$n; \
        while :; do sleep 0.05; done";
    let plain = world.config(script);
    let mut filtered = plain.clone();
    filtered["linux"]["seccomp"] = world.filter(&["mkdir", "mkdirat"]);
    let observing = renewed(observing(&world));
    let enforcing = Policy {
        on_refused_syscall: Response::Report,
        on_refused_write: Response::Report,
        renew_every: observing.renew_every,
        ..enforcing(&world)
    };
    let next = vec![
        Ok(Some(decided(filtered, enforcing, world.limits()))),
        Ok(None),
        Ok(Some(decided(plain.clone(), observing.clone(), Limits::default()))),
    ];
    let asks = world.path("log").join("asked");
    let director = Script { asked: asks, next, ..Script::default() };
    let outcome = world.launch(plain, observing, Limits::default(), Some(Box::new(director)), true);
    assert_eq!(outcome, Outcome::Ready, "{}", world.log());
    let codes = |n: u32| [format!("touch{n}"), format!("mkdir{n}")].map(|name| world.wait_written(&name));
    assert_eq!(codes(1), ["0\n", "0\n"], "it is only observed");
    assert_eq!(codes(2), ["1\n", "1\n"], "it is sealed and filtered");
    assert_eq!(codes(3), ["1\n", "1\n"], "as before");
    assert_eq!(codes(4), ["0\n", "0\n"], "and back");
    world.wait_for("breach", |data| data["kind"] == "refused-syscall" && data["generation"] == 2);
    let degraded: Vec<Value> = world.of("degraded");
    assert!(degraded.is_empty(), "{degraded:#?}");
}

fn undecided() {
    let mut world = World::new(RUNC);
    let script = "trap 'exit 0' TERM; echo up >>/out/ups; while :; do sleep 0.05; done";
    let config = world.config(script);
    let policy = renewed(world.policy());
    let director = Script {
        asked: world.path("log").join("asked"),
        next: vec![Err("the profile can't be read".to_owned())],
        ..Script::default()
    };
    let outcome = world.launch(config, policy, Limits::default(), Some(Box::new(director)), true);
    assert_eq!(outcome, Outcome::Ready, "{}", world.log());
    world.eventually("a second life", || world.written("ups").filter(|ups| ups == "up\nup\n"));
    let degraded = world.wait_for("degraded", |_| true);
    assert!(degraded["reason"].as_str().is_some_and(|r| r.contains("the profile can't be read")), "{degraded}");
    assert_eq!(world.record().policy.mode, Mode::Enforce);
}

/// Without no_new_privileges both runtimes set the workload's capabilities after the filter.
fn created_again(runtime: &'static str) {
    let mut world = World::new(runtime);
    let mut config = world.config("echo up >/out/up; exec sleep 1000");
    config["linux"]["seccomp"] = world.filter(&["capset", "mkdir"]);
    let mut enough = config.clone();
    enough["linux"]["seccomp"] = world.filter(&["mkdir"]);
    let asks = world.path("log").join("asked");
    let again = decided(enough, enforcing(&world), world.limits());
    let director = Script { asked: asks.clone(), recalibrated: Some(again), ..Script::default() };
    let (policy, limits) = (enforcing(&world), world.limits());
    let outcome = world.launch(config, policy, limits, Some(Box::new(director)), false);
    assert_eq!(outcome, Outcome::Ready, "{}", world.log());
    world.start();
    world.wait_written("up");
    assert_eq!(asked(&asks), "recalibrate\n");
    let record = world.record();
    assert_eq!(record.generation, 1);
    assert!(record.degraded.iter().any(|d| d.contains("was refused capset")), "{:?}", record.degraded);
    assert!(world.of("breach").is_empty(), "the workload did nothing");
}

/// The last calls before the workload's first instruction come after the engine's `start`.
fn started_again() {
    for start_apart in [false, true] {
        let mut world = World::new(RUNC);
        let mut config = world.config("echo up >/out/up; exec sleep 1000");
        config["linux"]["seccomp"] = world.filter(&["execve", "mkdir"]);
        let mut enough = config.clone();
        enough["linux"]["seccomp"] = world.filter(&["mkdir"]);
        let asks = world.path("log").join("asked");
        let again = decided(enough, enforcing(&world), world.limits());
        let director = Script { asked: asks.clone(), recalibrated: Some(again), ..Script::default() };
        let (policy, limits) = (enforcing(&world), world.limits());
        let outcome = world.launch(config, policy, limits, Some(Box::new(director)), !start_apart);
        assert_eq!(outcome, Outcome::Ready, "{}", world.log());
        if start_apart {
            world.start();
        }
        world.wait_written("up");
        assert!(asked(&asks).starts_with("recalibrate\n"), "{} {:#?}", asked(&asks), world.events());
        world.eventually("its second life", || {
            let record = world.record();
            (record.phase == Phase::Running && record.generation == 2).then_some(())
        });
    }
}

fn not_created() {
    let mut world = World::new(RUNC);
    let mut config = world.config("true");
    config["linux"]["seccomp"] = world.filter(&["mkdir"]);
    config["process"]["args"] = serde_json::json!(["/nowhere/program"]);
    let asks = world.path("log").join("asked");
    let director = Script { asked: asks.clone(), ..Script::default() };
    let (policy, limits) = (enforcing(&world), world.limits());
    let outcome = world.launch(config, policy, limits, Some(Box::new(director)), false);
    assert_eq!(outcome, Outcome::RuntimeFailed(1), "{}", world.log());
    assert!(!world.sensor().guard().pins.exists(), "a guard that was loaded for nobody");
    assert_eq!(world.log().matches("create failed").count(), 1, "said once, by the runtime: {}", world.log());
    assert_eq!(asked(&asks), "recalibrate\n");
}
