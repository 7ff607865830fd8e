//! How a collector ends, and what is left when it is ended.

use std::time::Duration;

use lithify::events::EventType;
use lithify::learn::Subject;
use lithify::learn::presence;

use crate::harness::Test;
use crate::world::{World, eventually, reap};

pub const TESTS: &[Test] = &[
    ("a_killed_collector_loses_at_most_its_interval_and_the_next_one_folds_it", killed),
    ("init_s_end_ends_the_observation_without_anybody_saying_so", init_ends),
    ("a_hook_s_collector_outlives_the_hook_and_is_waited_for", hook),
    ("the_end_of_the_socket_ends_the_collector_and_keeps_what_was_seen", socket_ends),
    ("an_observation_of_a_living_collector_is_left_alone", living),
    ("nonsense_on_the_socket_ends_the_collector_with_what_it_has", nonsense),
];

fn killed() {
    let world = World::new();
    let mut container = world.container("c1", "echo x > /srv/early; exec sleep 60");
    let collector = world.collector(world.subject("c1"));
    collector.arm(&container);
    container.go();
    eventually("an interim observation with it", || {
        world.observations().iter().any(|o| o.workload_behaviour.writes.contains_key("/srv/early"))
    });
    collector.kill();
    let [left] = &world.observations()[..] else { panic!("one observation") };
    assert!(!left.ended && left.workload_behaviour.syscalls.contains_key("execve"));
    // As if its fold had not been reached, either; perhaps it was not.
    let _ = std::fs::remove_dir_all(world.data().join("profiles"));
    container.kill();
    let mut next = world.container("c2", "exit 0");
    let collector = world.collector(world.subject("c2"));
    collector.arm(&next);
    next.run();
    collector.end();
    reap(collector.hang_up());
    let profile = world.profile().expect("a profile");
    assert_eq!(profile.generations.len(), 2);
    assert!(!profile.generations[&left.id].ended && profile.workload_behaviour.writes.contains_key("/srv/early"));
    assert!(world.events(EventType::Learnt).iter().any(|e| e.data.get("recovered") == Some(&1.into())));
    // Whoever comes next sweeps what the killed one had armed.
    world.ctl("status");
    eventually("an unloaded sensor", || world.is_quiet());
}

fn init_ends() {
    let world = World::new();
    let mut container = world.container("c1", "echo x > /srv/f");
    let collector = world.collector(world.subject("c1"));
    collector.arm(&container);
    container.run();
    eventually("the observation", || world.observations().iter().any(|o| o.ended));
    let (id, _) = collector.end();
    assert_eq!(id.as_ref(), world.observations().first().map(|o| &o.id), "who comes late is told which it was");
    reap(collector.hang_up());
}

fn hook() {
    let world = World::new();
    let subject = Subject { unattended: true, ..world.subject("c1") };
    let rootfs = subject.rootfs.clone();
    let mut container = world.container("c1", "echo x > /srv/f; exec sleep 1");
    let collector = world.collector(subject);
    collector.arm(&container);
    let pid = collector.hang_up();
    container.go();
    let wait = |patience| presence::wait(&world.state(), "c1", &rootfs, patience).expect("waited");
    assert!(!wait(Duration::from_millis(50)), "it lives as long as the container");
    container.kill();
    assert!(wait(Duration::from_secs(10)));
    assert!(world.observations().iter().any(|o| o.ended && o.workload_behaviour.writes.contains_key("/srv/f")));
    reap(pid);
    eventually("an unloaded sensor", || world.is_quiet());
}

fn socket_ends() {
    let world = World::new();
    let mut container = world.container("c1", "echo x > /srv/f; exec sleep 60");
    let collector = world.collector(world.subject("c1"));
    collector.arm(&container);
    container.go();
    let upper = world.path("c1/upper");
    eventually("the write", || upper.join("srv/f").exists());
    reap(collector.hang_up());
    let [observation] = &world.observations()[..] else { panic!("one observation") };
    assert!(!observation.ended, "it goes on, unseen");
    assert!(observation.workload_behaviour.writes.contains_key("/srv/f"));
    assert!(world.is_quiet());
}

fn living() {
    let world = World::new();
    let mut long = world.container("c1", "exec sleep 60");
    let first = world.collector(world.subject("c1"));
    first.arm(&long);
    long.go();
    eventually("an interim observation", || !world.observations().is_empty());
    let entries = presence::list(&world.state()).expect("listed");
    assert_eq!((entries.len(), entries[0].pid), (1, first.pid()));
    let mut short = world.container("c2", "exit 0");
    let second = world.collector(world.subject("c2"));
    second.arm(&short);
    short.run();
    second.end();
    reap(second.hang_up());
    assert!(world.events(EventType::Learnt).iter().all(|e| !e.data.contains_key("recovered")));
    long.kill();
    first.end();
    reap(first.hang_up());
    assert!(world.observations().iter().all(|o| o.ended));
}

fn nonsense() {
    use lithify::sys::socket;
    use std::os::fd::AsFd;
    let world = World::without_sensor();
    let mut container = world.container("c1", "echo x > /srv/f; exec sleep 60");
    let handle = lithify::learn::start(world.subject("c1")).expect("a collector");
    let arm = format!("{{\"arm\":{{\"pid\":{},\"generation\":1}}}}", container.pid());
    for message in [arm.as_bytes(), b"{\"arm\":{}}"] {
        socket::send(handle.socket.as_fd(), message, &[]).expect("it hears");
    }
    reap(handle.pid);
    container.kill();
    assert_eq!(world.observations().len(), 1);
    let said = world.events(EventType::Degraded);
    assert!(said.iter().any(|e| e.data["reason"].as_str().is_some_and(|r| r.contains("failed to read a request"))));
}
