//! What is told of a container that is compared with a profile.

use lithify::events::EventType;
use lithify::learn::{Purpose, Subject};

use crate::harness::Test;
use crate::world::{Collector, WORKLOAD, World, eventually, reap};

pub const TESTS: &[Test] = &[
    ("what_goes_beyond_the_profile_is_told_once_and_not_learnt", beyond),
    ("a_container_without_a_profile_is_said_to_have_none", no_profile),
    ("a_profile_that_was_named_is_the_one_that_is_compared_with", named),
];

const USUAL: &str = "echo x > /srv/usual; exec sleep 1";

fn observer(world: &World, id: &str, profile: Option<&str>) -> Collector {
    let purpose = Purpose::Observe { profile: profile.map(str::to_owned) };
    world.collector(Subject { purpose, ..world.subject(id) })
}

fn learn(world: &World, script: &str) {
    let mut container = world.container("learnt", script);
    let collector = world.collector(world.subject("learnt"));
    collector.arm(&container);
    container.run();
    collector.end();
    reap(collector.hang_up());
}

fn told(world: &World) -> Vec<String> {
    let item = |name: &serde_json::Value| name.as_str().unwrap_or("").to_owned();
    world
        .events(EventType::WouldRefuse)
        .iter()
        .map(|e| format!("{} {}", item(&e.data["kind"]), item(&e.data["item"])))
        .collect()
}

fn beyond() {
    let world = World::new();
    learn(&world, USUAL);
    let before = world.profile();
    let mut container = world.container("c1", "echo x > /srv/usual; echo x > /srv/new; exec sleep 60");
    let collector = observer(&world, "c1", None);
    assert_eq!(collector.arm(&container), Vec::<String>::new());
    container.go();
    eventually("it is told while the container runs", || told(&world).contains(&"write /srv/new".to_owned()));
    container.kill();
    assert_eq!(collector.end(), (None, Vec::new()));
    reap(collector.hang_up());
    let all = told(&world);
    assert_eq!(all.iter().filter(|item| *item == "write /srv/new").count(), 1, "{all:?}");
    assert!(!all.contains(&"write /srv/usual".to_owned()), "{all:?}");
    let event = &world.events(EventType::WouldRefuse)[0];
    assert_eq!((event.data["side"].as_str(), event.subject.as_str()), (Some("workload"), "c1"));
    assert!(event.data["profile"].as_str().is_some_and(|p| p.starts_with("shop/web/")));
    assert_eq!((world.profile(), world.observations().len()), (before, 1), "nothing is added");
}

fn no_profile() {
    let world = World::new();
    let mut container = world.container("c1", USUAL);
    let collector = observer(&world, "c1", None);
    collector.arm(&container);
    container.run();
    collector.end();
    reap(collector.hang_up());
    let said = world.events(EventType::Degraded);
    let reasons: Vec<&str> = said.iter().filter_map(|e| e.data["reason"].as_str()).collect();
    assert_eq!(reasons.iter().filter(|r| r.contains("no profile")).count(), 1, "{reasons:?}");
    assert_eq!((told(&world), world.profile()), (Vec::new(), None));
}

fn named() {
    let world = World::new();
    learn(&world, "echo x > /srv/usual; echo x > /srv/other; exec sleep 1");
    let digest = world.profile().expect("a profile").revision.digest;
    let mut container = world.container("c1", USUAL);
    let named = Subject { workload: "other/name".to_owned(), ..world.subject("c1") };
    let purpose = Purpose::Observe { profile: Some(format!("{WORKLOAD}@{}", &digest[..12])) };
    let collector = world.collector(Subject { purpose, ..named });
    collector.arm(&container);
    container.run();
    collector.end();
    reap(collector.hang_up());
    assert_eq!(told(&world), Vec::<String>::new());
    assert!(world.events(EventType::Degraded).is_empty());
}
