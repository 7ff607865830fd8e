//! How a profile moves by itself, with real collectors.

use std::time::Duration;

use lithify::events::EventType;
use lithify::learn::{Purpose, Subject};
use lithify::policy::Auto;
use lithify::profile::{Profile, Stage};

use crate::harness::Test;
use crate::world::{World, reap};

pub const TESTS: &[Test] = &[
    ("a_workload_goes_from_nothing_to_enforcing_and_each_step_is_told", goes_all_the_way),
    ("what_is_new_while_observing_is_told_and_learnt_and_a_finished_profile_only_tells_it", new_while_observing),
    (
        "what_an_intruder_ran_while_observing_keeps_a_profile_from_being_enforced_and_is_told_with_what_to_type",
        intruded,
    ),
    ("what_somebody_allowed_is_no_alarm_while_observing_and_another_of_its_kind_is_one", allowed),
    ("what_is_started_in_ever_new_ways_makes_room_and_that_is_told", makes_room),
    ("nothing_is_promoted_by_lives_that_end_in_their_start_up", short_lives),
    ("a_container_whose_profile_is_finished_in_its_life_is_told_of_from_then_on", finished_meanwhile),
    ("what_a_replica_does_that_is_not_enforced_yet_is_not_refused_at_its_next_start", not_yet_enforced),
];

const USUAL: &str = "echo x > /srv/usual; exec sleep 1.2";

/// Windows are of one second here: the shortest risk that a few of them can show is none at all.
fn auto() -> Auto {
    Auto { risk_ppm: 1_000_000, observe_windows: 1, startup: Duration::from_secs(1), ..Auto::default() }
}

/// One life of a container under a collector; the profile after it.
fn live(world: &World, id: &str, script: &str, purpose: Purpose) -> Profile {
    let mut container = world.container(id, script);
    let collector = world.collector(Subject { purpose, ..world.subject(id) });
    assert_eq!(collector.arm(&container), Vec::<String>::new());
    container.run();
    assert_eq!(collector.end().1, Vec::<String>::new());
    reap(collector.hang_up());
    world.profile().expect("a profile")
}

fn told(world: &World) -> Vec<String> {
    let item = |name: &serde_json::Value| name.as_str().unwrap_or("").to_owned();
    let events = world.events(EventType::WouldRefuse);
    events.iter().map(|e| format!("{} {}", item(&e.data["kind"]), item(&e.data["item"]))).collect()
}

fn goes_all_the_way() {
    let world = World::new();
    let stages: Vec<Stage> =
        ["a", "b", "c", "d"].map(|id| live(&world, id, USUAL, Purpose::Auto(auto())).stage).to_vec();
    // Its first life may show something once only, a signal say; its second then is the one that tells that it is usual.
    assert_eq!(stages, [Stage::Learning, Stage::Observing, Stage::Enforcing, Stage::Enforcing]);
    let steps = world.events(EventType::Promoted);
    let words: Vec<(&str, &str)> =
        steps.iter().filter_map(|e| Some((e.data["from"].as_str()?, e.data["to"].as_str()?))).collect();
    assert_eq!(words, [("learning", "observing"), ("observing", "enforcing")]);
    assert_eq!((steps[0].subject.as_str(), steps[1].subject.as_str()), ("b", "c"));
    assert!(steps[0].data["why"].as_str().is_some_and(|why| why.starts_with("after 2 generations")));
    assert!(steps[0].data["estimate"]["next-window"]["total"].as_u64().is_some_and(|n| n > 0));
    let profile = world.profile().expect("a profile");
    assert_eq!(profile.generations.len(), 4, "the last one is part of it, though it is enforced by then");
    assert_eq!(profile.steering.history.len(), 2);
}

fn new_while_observing() {
    let world = World::new();
    for id in ["a", "b"] {
        live(&world, id, USUAL, Purpose::Auto(auto()));
    }
    let more = "echo x > /srv/usual; echo x > /srv/new; exec sleep 1.2";
    let profile = live(&world, "c", more, Purpose::Auto(auto()));
    assert_eq!(profile.stage, Stage::Observing, "the quiet period begins anew");
    assert!(profile.workload_behaviour.writes.contains_key("/srv/new"));
    assert_eq!(told(&world).iter().filter(|item| *item == "write /srv/new").count(), 1, "{:?}", told(&world));
    // In mode learn, the same profile is finished: what goes beyond it is told and not taken in.
    let other = "echo x > /srv/other; exec sleep 1.2";
    let after = live(&world, "d", other, Purpose::Learn);
    assert!(told(&world).contains(&"write /srv/other".to_owned()), "{:?}", told(&world));
    assert_eq!(after, profile);
}

fn intruded() {
    let world = World::new();
    for id in ["a", "b"] {
        live(&world, id, USUAL, Purpose::Auto(auto()));
    }
    let intruder = "echo x > /srv/usual; cp /bin/busybox /srv/x; /srv/x true; exec sleep 1.2";
    live(&world, "c", intruder, Purpose::Auto(auto()));
    for id in ["d", "e", "f"] {
        assert_eq!(live(&world, id, USUAL, Purpose::Auto(auto())).stage, Stage::Observing, "in life {id}");
    }
    let profile = world.profile().expect("a profile");
    assert!(profile.steering.waiting.contains_key("program /srv/x"), "{:?}", profile.steering.waiting);
    assert!(!profile.workload_behaviour.programs.contains_key("/srv/x"), "it is never learnt");
    let events = world.events(EventType::Waiting);
    let items = |event: &lithify::events::Event| event.data["items"].to_string();
    assert_eq!(events.iter().filter(|event| items(event).contains("program /srv/x")).count(), 1, "{events:?}");
    let waits = events[0].data["waits-for"].as_str().unwrap_or_default();
    assert!(waits.contains("lithifyctl profile allow") && waits.contains("--force"), "{waits}");
}

fn allowed() {
    use lithify::profile::{steering::Decision, store};
    let world = World::new();
    for id in ["a", "b"] {
        live(&world, id, USUAL, Purpose::Auto(auto()));
    }
    let known = world.profile().expect("a profile");
    let by_hand = Decision { at: "2026-01-01T00:00:00.000000Z".to_owned(), why: "ours".to_owned() };
    store::update_profile(&world.data(), &known.workload, &known.revision.digest, |stored| {
        let mut profile = stored.expect("it is there");
        for item in ["program /srv/miner", "argument unshare 131072"] {
            profile.steering.decide(item.to_owned(), false, by_hand.clone());
        }
        Ok(profile)
    })
    .expect("decided");
    let script = "cp /bin/busybox /srv/miner; cp /bin/busybox /srv/other; /srv/miner unshare -m /bin/true; /srv/other true; \
                  echo x > /srv/usual; exec sleep 1.2";
    live(&world, "c", script, Purpose::Auto(auto()));
    let of = |event_type| -> Vec<String> {
        let item = |e: &lithify::events::Event| e.data["item"].as_str().unwrap_or_default().to_owned();
        world.events(event_type).iter().map(item).collect()
    };
    let (forbidden, beyond) = (of(EventType::Forbidden), of(EventType::WouldRefuse));
    assert!(forbidden.iter().any(|item| item.starts_with("program /srv/other ")), "{forbidden:?}");
    for item in forbidden.iter().chain(&beyond) {
        assert!(!item.contains("/srv/miner from") && !item.contains("unshare"), "{item} was allowed");
    }
}

fn makes_room() {
    use lithify::profile::{gc, store};
    let world = World::new();
    let mut other = live(&world, "a", USUAL, Purpose::Auto(auto()));
    let own = other.revision.digest.clone();
    let workload = other.workload.clone();
    let of = |digest: &str| store::profile_path(&world.data(), &workload, digest);
    let enforced = format!("{:032x}", 1);
    for n in 1..=200 {
        other.revision.digest = format!("{n:032x}");
        other.stage = if n == 1 { Stage::Enforcing } else { Stage::Learning };
        std::fs::write(of(&other.revision.digest), store::encode(&other).expect("JSON")).expect("written");
    }
    // What is written last is not what this container lives of.
    live(&world, "b", USUAL, Purpose::Auto(auto()));
    let left = std::fs::read_dir(of(&own).parent().expect("a folder")).expect("listed").count();
    assert_eq!(left, gc::MAX_REVISIONS);
    assert!(of(&own).exists() && of(&enforced).exists(), "{own}");
    let told = world.events(EventType::Removed);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].data["revisions"].as_array().map(Vec::len), Some(201 - gc::MAX_REVISIONS));
}

fn short_lives() {
    let world = World::new();
    let quick = "echo x > /srv/usual";
    for id in ["a", "b", "c"] {
        assert_eq!(live(&world, id, quick, Purpose::Auto(auto())).stage, Stage::Learning);
    }
    assert!(world.events(EventType::Promoted).is_empty());
}

fn finished_meanwhile() {
    goes_on_once_enforced(Purpose::Learn, false);
}

fn not_yet_enforced() {
    goes_on_once_enforced(Purpose::Auto(auto()), true);
}

/// A life in which its profile comes to be enforced: what it does from then on is told, and taken in or not.
fn goes_on_once_enforced(purpose: Purpose, taken_in: bool) {
    use crate::world::eventually;
    use lithify::profile::store;
    let world = World::new();
    let script = "echo x > /srv/usual; until [ -e /srv/go ]; do sleep 0.1; done; echo x > /srv/late; exec sleep 60";
    let mut container = world.container("a", script);
    let collector = world.collector(Subject { purpose, ..world.subject("a") });
    collector.arm(&container);
    container.go();
    eventually("it is saved", || {
        world.profile().is_some_and(|p| p.workload_behaviour.writes.contains_key("/srv/usual"))
    });
    let profile = world.profile().expect("a profile");
    let finish = |old: Option<Profile>| Ok(Profile { stage: Stage::Enforcing, ..old.expect("it was saved") });
    store::update_profile(&world.data(), &profile.workload, &profile.revision.digest, finish).expect("finished");
    // Two intervals: by then it is known that learning is over.
    std::thread::sleep(Duration::from_secs(5));
    std::fs::write(format!("/proc/{}/root/srv/go", container.pid()), "").expect("a file");
    eventually("it is told while the container runs", || told(&world).contains(&"write /srv/late".to_owned()));
    assert!(!told(&world).contains(&"write /srv/usual".to_owned()), "{:?}", told(&world));
    container.kill();
    collector.end();
    reap(collector.hang_up());
    let profile = world.profile().expect("a profile");
    assert_eq!(profile.workload_behaviour.writes.contains_key("/srv/late"), taken_in);
    assert_eq!(profile.stage, Stage::Enforcing);
}
