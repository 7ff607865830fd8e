//! What becomes of what a container does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lithify::events::EventType;
use lithify::identity;
use lithify::learn::Subject;
use lithify::profile::behaviour::{Operation, Origin};
use lithify::profile::{Behaviour, Observation, Profile};
use lithify::spec::Document;

use crate::harness::Test;
use crate::world::{WORKLOAD, World, eventually};

pub const TESTS: &[Test] = &[
    ("a_container_leaves_an_observation_and_a_profile_and_nothing_else", leaves_a_profile),
    ("twenty_identical_runs_leave_identical_profiles", twenty_runs),
    ("what_the_baseline_forbids_is_told_once_and_never_learnt", forbidden),
    ("without_a_sensor_files_are_still_recorded_and_it_is_said", without_sensor),
    ("each_generation_is_an_observation_of_its_own", generations),
    ("a_table_that_is_too_small_for_all_that_a_container_does_leaves_the_profile_that_a_large_one_leaves", small_table),
    ("peaks_are_those_of_the_containers_own_cgroups", peaks),
    ("the_revision_of_a_container_is_found_out_within_a_millisecond", identity_is_quick),
    ("arming_is_answered_within_a_few_milliseconds", arming_is_quick),
];

const SCRIPT: &str = "
    echo hello > /var/log/known.log
    mkdir -p /srv/data
    printf '%05000d' 1 > /srv/data/file
    made=$(mktemp) && echo x > $made && rm $made
    rm -f /etc/debian_version
    echo x > /run/app.$$
    exec true";

fn leaves_a_profile() {
    let world = World::new();
    let mut container = world.container("c1", SCRIPT);
    let collector = world.collector(world.subject("c1"));
    assert_eq!(collector.arm(&container), Vec::<String>::new());
    container.run();
    let (id, degraded) = collector.end();
    assert_eq!(degraded, Vec::<String>::new());
    let pid = collector.hang_up();
    crate::world::reap(pid);
    let [observation] = &world.observations()[..] else { panic!("one observation") };
    assert_eq!((Some(&observation.id), observation.ended), (id.as_ref(), true));
    assert_eq!((observation.unseen.len(), observation.loss), (0, Default::default()));
    let seen = &observation.workload_behaviour;
    for call in ["execve", "openat", "write", "exit_group"] {
        assert!(seen.syscalls.contains_key(call), "{call}");
    }
    let write = |path: &str| seen.writes.get(path).unwrap_or_else(|| panic!("{path} in {:?}", seen.writes.keys()));
    assert_eq!((write("/var/log/known.log").size_bytes, write("/srv/data/file").size_bytes), (6, 5000));
    assert!(write("/srv/data").directory && write("/srv/data/file").by.contains("sh"));
    let made: Vec<_> = write("/tmp/tmp.*").operations.iter().copied().collect();
    assert!(made.contains(&Operation::Create) && made.contains(&Operation::Remove), "{made:?}");
    assert!(write("/run/app.*").succeeded);
    assert!(!seen.writes.contains_key("/mount-point"), "it was there before");
    assert!(observation.forbidden.contains_key("write /etc/debian_version"), "{:?}", observation.forbidden.keys());
    assert!(seen.programs.keys().any(|program| program.ends_with("/mktemp")));
    assert!(seen.programs.values().all(|p| !p.origins.contains(&Origin::Upper)), "{:?}", seen.programs);
    let profile = world.profile().expect("a profile");
    assert_eq!(profile.generations.len(), 1);
    assert!(profile.workload_behaviour.writes.contains_key("/tmp/tmp.*"));
    let learnt = world.events(EventType::Learnt);
    assert_eq!((learnt.len(), &learnt[0].data["workload"]), (1, &WORKLOAD.into()));
    eventually("an unloaded sensor", || world.is_quiet());
}

/// Everything but when it was and whose.
fn names(profile: &Profile) -> Vec<String> {
    let side = |behaviour: &Behaviour<_>| -> Vec<String> {
        let items = behaviour.items().map(|(section, name, _)| format!("{} {name}", section.name()));
        let writes = behaviour.writes.iter().map(|(path, w)| {
            format!("{path} {:?} {} {} {:?} {:?}", w.operations, w.size_bytes, w.directory, w.by, w.refused)
        });
        items.chain(writes).collect()
    };
    let forbidden = profile.forbidden.keys().cloned().collect();
    [side(&profile.workload_behaviour), side(&profile.exec_behaviour), forbidden].concat()
}

fn twenty_runs() {
    let runs: Vec<Vec<String>> = (0..20)
        .map(|n| {
            let world = World::new();
            let id = format!("run{n}");
            let mut container = world.container(&id, SCRIPT);
            let collector = world.collector(world.subject(&id));
            assert_eq!(collector.arm(&container), Vec::<String>::new());
            container.run();
            collector.end();
            crate::world::reap(collector.hang_up());
            names(&world.profile().expect("a profile"))
        })
        .collect();
    for run in &runs[1..] {
        let differs = |a: &[String], b: &[String]| a.iter().filter(|x| !b.contains(x)).cloned().collect::<Vec<_>>();
        assert_eq!((differs(&runs[0], run), differs(run, &runs[0])), (vec![], vec![]));
    }
}

/// Some hundred paths at a time, and some that come before and after them all.
const CROWDED: &str = "
    mkdir /srv/a /srv/b /srv/only
    echo x > /srv/usual
    echo x > /srv/only/at-first
    i=0
    while [ $i -lt 1200 ]; do
        echo x > /srv/a/file$i
        i=$((i + 1))
        [ $((i % 80)) != 0 ] || sleep 0.2
    done
    echo x > /srv/usual
    echo x > /srv/b/at-last
    exec sleep 1.2";

fn small_table() {
    let life = |table_entries: u32| {
        let world = World::new();
        let mut container = world.container("c1", CROWDED);
        let collector = world.collector(Subject { table_entries, ..world.subject("c1") });
        assert_eq!(collector.arm(&container), Vec::<String>::new());
        container.run();
        collector.end();
        crate::world::reap(collector.hang_up());
        let observation = world.observations().pop().expect("an observation");
        assert_eq!(observation.loss, Default::default(), "of {table_entries} entries");
        let usual = &observation.workload_behaviour.writes["/srv/usual"].seen;
        assert!(usual.first < usual.last && usual.windows == 2, "in its first and in its last window: {usual:?}");
        names(&world.profile().expect("a profile"))
    };
    let (small, large) = (life(512), life(8192));
    assert!(large.iter().any(|item| item.contains("/srv/only/at-first")), "{large:?}");
    assert_eq!(small, large);
}

fn forbidden() {
    let world = World::new();
    let mut container = world.container("c1", "echo x >> /etc/passwd; mount -t tmpfs none /srv; exec sleep 4");
    let collector = world.collector(world.subject("c1"));
    collector.arm(&container);
    container.go();
    // Interval by interval, and once more at the end.
    eventually("an interim observation", || !world.observations().is_empty());
    container.kill();
    collector.end();
    crate::world::reap(collector.hang_up());
    let told: Vec<String> =
        world.events(EventType::Forbidden).iter().map(|e| e.data["item"].as_str().unwrap_or("").to_owned()).collect();
    let count = |item: &str| told.iter().filter(|t| *t == item).count();
    assert_eq!((count("write /etc/passwd"), count("syscall mount")), (1, 1), "{told:?}");
    let profile = world.profile().expect("a profile");
    assert!(!profile.workload_behaviour.writes.contains_key("/etc/passwd"));
    assert!(!profile.workload_behaviour.syscalls.contains_key("mount"));
    assert!(profile.forbidden.contains_key("syscall mount"));
}

fn without_sensor() {
    let world = World::without_sensor();
    let mut container = world.container("c1", SCRIPT);
    let collector = world.collector(world.subject("c1"));
    let missing = collector.arm(&container);
    assert!(missing.iter().any(|reason| reason.contains("sensor")), "{missing:?}");
    container.run();
    let (id, degraded) = collector.end();
    assert_eq!((id.is_some(), degraded), (true, Vec::new()), "what was said is not said again");
    crate::world::reap(collector.hang_up());
    let [observation] = &world.observations()[..] else { panic!("one observation") };
    assert_eq!(observation.unseen, ["everything"]);
    let writes = &observation.workload_behaviour.writes;
    assert_eq!(writes["/srv/data/file"].size_bytes, 5000);
    assert!(!writes.contains_key("/mount-point") && !writes.contains_key("/tmp/tmp.*"));
    assert!(observation.forbidden.contains_key("write /etc/debian_version"));
    assert!(observation.windows > 0 && world.profile().is_some());
}

fn generations() {
    let world = World::new();
    let subject = world.subject("c1");
    let mut first = world.container("c1", "echo x > /srv/first");
    let collector = world.collector(subject);
    collector.arm(&first);
    first.run();
    let (one, _) = collector.end();
    assert_eq!(collector.end().0, one, "asked again, it says the same");
    let mut second = world.container("c2", "echo x > /srv/second");
    collector.arm_generation(&second, 2);
    second.run();
    let (two, _) = collector.end();
    assert_ne!(one, two);
    crate::world::reap(collector.hang_up());
    let all: Vec<Observation> = world.observations();
    assert_eq!(all.iter().map(|o| o.generation).collect::<Vec<_>>(), [1, 2]);
    assert!(!all[1].workload_behaviour.writes.contains_key("/srv/first"));
    assert_eq!(world.profile().expect("a profile").generations.len(), 2);
}

fn identity_is_quick() {
    let world = World::new();
    let _container = world.container("c1", "exit 0");
    let document = Document::parse(br#"{"process":{"args":["/bin/sh"],"env":["A=1"]}}"#).expect("a document");
    let (names, rootfs) = (Default::default(), world.path("c1/root"));
    let mut times: Vec<Duration> = (0..51)
        .map(|_| {
            let began = Instant::now();
            let revision = identity::of(&document, &BTreeMap::new(), &names, &rootfs, "c1");
            assert!(revision.image.starts_with("layers:"), "{}", revision.image);
            began.elapsed()
        })
        .collect();
    times.sort();
    println!("identity: median {:?}, slowest {:?}", times[25], times[50]);
    // The fastest: on a busy host the others tell of its other work.
    assert!(times[0] < Duration::from_millis(1), "{times:?}");
}

fn arming_is_quick() {
    let world = World::new();
    let mut times: Vec<Duration> = (0..9)
        .map(|n| {
            let id = format!("c{n}");
            let mut container = world.container(&id, "exit 0");
            let collector = world.collector(world.subject(&id));
            // It is asked once the low-level runtime has made the container: by then the sensor is open.
            std::thread::sleep(Duration::from_millis(100));
            let began = Instant::now();
            collector.arm(&container);
            let took = began.elapsed();
            container.run();
            collector.end();
            crate::world::reap(collector.hang_up());
            took
        })
        .collect();
    times.sort();
    println!("arming: median {:?}, all {times:?}", times[4]);
    // The fastest: on a busy host the others tell of its other work.
    assert!(times[0] < Duration::from_millis(5), "{times:?}");
}

fn peaks() {
    let world = World::new();
    let Some(cgroups) = Cgroups::new() else { panic!("no cgroup hierarchy can be written here") };
    let mut container =
        world.container("c1", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sh -c 'sleep 1 & wait'");
    cgroups.enter(container.pid());
    let collector = world.collector(world.subject("c1"));
    assert_eq!(collector.arm(&container), Vec::<String>::new());
    container.run();
    collector.end();
    crate::world::reap(collector.hang_up());
    let [observation] = &world.observations()[..] else { panic!("one observation") };
    let peaks = observation.peaks;
    assert!(peaks.memory_bytes.is_some_and(|bytes| bytes > 100_000), "{peaks:?}");
    assert!(peaks.pids.is_some_and(|pids| (3..20).contains(&pids)), "{peaks:?}");
    assert!(peaks.cpu_millis.is_some_and(|millis| (10..=4000).contains(&millis)), "{peaks:?}");
}

/// A cgroup in each hierarchy that counts something, as a low-level runtime makes one.
struct Cgroups(Vec<std::path::PathBuf>);

impl Cgroups {
    fn new() -> Option<Cgroups> {
        let own = lithify::supervise::cgroup::Cgroups::of(std::process::id() as i32).expect("our cgroups");
        let name = format!("lithify-learn-test-{}", std::process::id());
        let counts = |controllers: &[String]| {
            controllers.is_empty() || controllers.iter().any(|c| ["memory", "pids", "cpuacct"].contains(&c.as_str()))
        };
        let all = own.0.into_iter().filter(|c| counts(&c.controllers)).map(|c| c.path.join(&name));
        let made: Vec<_> = all.filter(|path| std::fs::create_dir(path).is_ok()).collect();
        (!made.is_empty()).then_some(Cgroups(made))
    }

    fn enter(&self, pid: i32) {
        for path in &self.0 {
            std::fs::write(path.join("cgroup.procs"), pid.to_string()).expect("moved");
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_dir(path);
        }
    }
}
