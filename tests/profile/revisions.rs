//! A workload may have any number of revisions: which of them a new one begins with, and which make room for others.

use std::path::Path;

use lithify::profile::gc::{Live, Room, trim_revisions, trim_workloads};
use lithify::profile::shorten::MAX_CARRIED;
use lithify::profile::steering::Decision;
use lithify::profile::{Profile, Progress, Stage, gc, stages, store};

use super::build;

/// The profile of a revision that one generation was seen of, as if it had been written in minute `n`.
fn put(data: &Path, n: u64, change: impl FnOnce(&mut Profile)) -> Profile {
    let mut o = build::full(n);
    o.revision = build::revision(n);
    (o.started, o.until) = (build::time(100 * n), build::time(100 * n + 10));
    let mut profile = Profile::of(&o);
    change(&mut profile);
    keep(data, &profile, n);
    profile
}

fn keep(data: &Path, profile: &Profile, n: u64) {
    // Not by the store, which would wait for the disk each time.
    let path = store::profile_path(data, "web", &profile.revision.digest);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, store::encode(profile).unwrap()).unwrap();
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_767_225_600 + 60 * n)).unwrap();
}

fn stage(to: Stage) -> impl FnOnce(&mut Profile) {
    move |profile| profile.stage = to
}

fn sibling(data: &Path) -> Option<String> {
    store::sibling(data, "web").unwrap().profile.map(|profile| profile.revision.digest)
}

fn stored(data: &Path) -> Vec<String> {
    let mut all: Vec<String> = store::profiles(data, "web")
        .unwrap()
        .into_iter()
        .map(|stored| stored.document.unwrap().revision.digest)
        .collect();
    all.sort();
    all
}

/// Four revisions, and the newest of them whatever it is.
const SMALL: Room = Room { revisions: 4, bytes: 1 << 40, newest: 1, patience: usize::MAX };

fn trim(data: &Path) -> Vec<String> {
    trim_revisions(data, "web", SMALL, Live::default, false).unwrap()
}

fn ids(all: impl IntoIterator<Item = u64>) -> Vec<String> {
    all.into_iter().map(build::id).collect()
}

#[test]
fn a_new_revision_begins_with_what_is_enforced_whatever_was_started_since() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    assert_eq!(sibling(data), None);
    put(data, 1, stage(Stage::Learning));
    assert_eq!(sibling(data), Some(build::id(1)), "there is no other");
    put(data, 2, stage(Stage::Observing));
    put(data, 3, stage(Stage::Learning));
    assert_eq!(sibling(data), Some(build::id(2)), "somebody ran a program of the image to learn it");
    put(data, 4, stage(Stage::Enforcing));
    put(data, 5, stage(Stage::Enforcing));
    put(data, 6, |profile| {
        profile.stage = Stage::Observing;
        profile.steering.demoted = Some(Decision { at: build::time(601), why: "refused".to_owned() });
    });
    put(data, 7, stage(Stage::Learning));
    assert_eq!(sibling(data), Some(build::id(5)), "the newest that is enforced");
    assert_eq!(store::newest_profile(data, "web").unwrap().unwrap().revision.digest, build::id(7));
}

#[test]
fn a_profile_that_cannot_be_read_is_passed_over_and_told_and_of_many_a_few_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    put(data, 1, stage(Stage::Enforcing));
    put(data, 2, stage(Stage::Enforcing));
    // The newest one's head is whole, and what follows is not.
    let path = store::profile_path(data, "web", &build::id(2));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"version\": 1,", "\"version\": 1, \"unknown\": 1,")).unwrap();
    for n in 3..20 {
        put(data, n, |_| {});
        std::fs::write(store::profile_path(data, "web", &build::id(n)), "{").unwrap();
    }
    let found = store::sibling(data, "web").unwrap();
    assert_eq!(found.profile.unwrap().revision.digest, build::id(1));
    assert_eq!(found.unreadable.len(), 4);
    let told = format!("{:#}", found.unreadable[0]);
    assert!(told.contains("failed to read profile") && told.contains("profiles/web/"), "{told}");
}

#[test]
fn the_oldest_of_those_that_were_started_once_make_room_first() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    // One that was started twice is worth more than younger ones that were not.
    put(data, 1, |profile| {
        let mut again = build::full(101);
        again.revision = build::revision(1);
        *profile = profile.fold(&again).unwrap();
    });
    for n in 2..=5 {
        put(data, n, |_| {});
    }
    assert_eq!(trim(data), ids([]), "a quarter more is no crowd");
    put(data, 6, |_| {});
    let would = trim_revisions(data, "web", SMALL, Live::default, true).unwrap();
    assert_eq!((would, stored(data).len()), (ids([2, 3]), 6));
    assert_eq!((trim(data), stored(data)), (ids([2, 3]), ids([1, 4, 5, 6])));
    // Where there are none of the others, the older of these goes as well.
    for n in 7..=12 {
        put(data, n, stage(Stage::Enforcing));
    }
    assert_eq!((trim(data), stored(data)), (ids([4, 5, 6, 1]), ids(7..=12)));
}

#[test]
fn what_decides_about_containers_or_was_decided_about_stays_however_old_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let by_hand = || Decision { at: build::time(9000), why: "a ticket".to_owned() };
    put(data, 1, stage(Stage::Enforcing));
    put(data, 2, |profile| profile.steering.held = true);
    put(data, 3, |profile| profile.steering.decide("syscall mkdir".to_owned(), false, by_hand()));
    put(data, 4, |profile| profile.steering.decide("syscall mkdir".to_owned(), true, by_hand()));
    put(data, 5, |profile| profile.steering.demoted = Some(by_hand()));
    for n in 6..=12 {
        put(data, n, |_| {});
    }
    std::fs::write(store::profile_path(data, "web", &build::id(13)), "{").unwrap();
    // A container lives of the one, and another is recorded.
    let live = || Live { revisions: [build::id(6)].into(), observations: [build::id(7)].into() };
    assert_eq!(trim_revisions(data, "web", SMALL, live, false).unwrap(), ids(8..=12));
    assert!(store::profile_path(data, "web", &build::id(13)).exists(), "what can't be read is for somebody to look at");
}

#[test]
fn a_copy_of_what_was_decided_about_was_not_decided_about() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let by_hand = |n| Decision { at: build::time(n), why: "a ticket".to_owned() };
    let origin = put(data, 1, |profile| {
        profile.stage = Stage::Enforcing;
        profile.steering.decide("syscall mkdir".to_owned(), false, by_hand(120));
    });
    for n in 2..=12 {
        let mut copy = stages::candidate(&origin, build::revision(n), &build::time(200));
        if n == 3 {
            copy.steering.decide("syscall rmdir".to_owned(), false, by_hand(201));
        }
        keep(data, &copy, n);
    }
    assert_eq!(trim(data), ids([2, 4, 5, 6, 7, 8, 9, 10]));
    assert_eq!(stored(data), ids([1, 3, 11, 12]));
}

#[test]
fn large_profiles_make_room_before_they_are_many() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    for n in 1..=4 {
        put(data, n, |_| {});
    }
    let one = std::fs::metadata(store::profile_path(data, "web", &build::id(1))).unwrap().len();
    let room = Room { revisions: 100, bytes: 2 * one + one / 2, ..SMALL };
    assert_eq!(trim_revisions(data, "web", room, Live::default, false).unwrap(), ids([1, 2]));
}

#[test]
fn what_made_room_is_not_made_again_from_its_observations_and_its_origin_keeps_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    for n in 1..=6 {
        let mut o = build::full(n);
        o.revision = build::revision(n);
        store::write_observation(data, &o).unwrap();
        store::fold_observation(data, &o).unwrap();
    }
    let copy = stages::candidate(
        &store::read_profile(data, "web", &build::id(6)).unwrap().unwrap(),
        build::revision(7),
        &build::time(200),
    );
    keep(data, &copy, 0);
    let gone = trim(data);
    assert!(gone.contains(&build::id(7)) && gone.len() == 3, "{gone:?}");
    let left = store::observation_files(data, "web").unwrap();
    assert_eq!(left.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), ids(3..=6));
    assert_eq!(store::recover(data, "web", |_| false).unwrap().0, 0);
    assert_eq!(stored(data).len(), 4);
    store::remove_profile(data, "web", &build::id(6)).unwrap();
    assert_eq!(store::recover(data, "web", |_| false).unwrap().0, 0);
}

#[test]
fn a_workload_that_is_started_in_ever_new_ways_keeps_to_its_room() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    put(data, 1, stage(Stage::Enforcing));
    for n in 2..=400 {
        put(data, n, |_| {});
        trim_revisions(data, "web", gc::STARTING, Live::default, false).unwrap();
    }
    let left = stored(data);
    assert!(left.len() <= gc::MAX_REVISIONS + gc::MAX_REVISIONS / 4, "{}", left.len());
    assert_eq!((left.first(), left.last()), (Some(&build::id(1)), Some(&build::id(400))));
    // Where there are too many for somebody whom a container waits for, it is left to the collector beside it.
    for n in 401..=900 {
        put(data, n, |_| {});
    }
    assert_eq!(trim_revisions(data, "web", gc::STARTING, Live::default, false).unwrap(), ids([]));
    trim_revisions(data, "web", gc::ROOM, Live::default, false).unwrap();
    assert_eq!(stored(data).len(), gc::MAX_REVISIONS);
}

#[test]
fn a_copy_of_a_copy_of_a_copy_holds_what_was_seen_and_is_not_surer_than_before() {
    let mut o = build::full(1);
    o.workload_behaviour.syscalls.insert("mkdir".to_owned(), build::seen(0, 0, 1));
    let mut profile = Profile::of(&o);
    for n in 2..=2 * MAX_CARRIED as u64 {
        let mut o = build::full(n);
        o.windows = if n % 3 == 0 { 30 } else { 1 };
        o.unseen = if n == 7 { vec!["peers".to_owned()] } else { Vec::new() };
        profile = profile.fold(&o).unwrap();
    }
    let copy = stages::candidate(&profile, build::revision(2), &build::time(50));
    copy.check().unwrap();
    assert!(copy.generations.len() <= MAX_CARRIED + 2, "{}", copy.generations.len());
    let names = |p: &Profile| p.workload_behaviour.items().map(|(s, name, _)| (s, name)).collect::<Vec<_>>();
    assert_eq!(names(&copy), names(&profile));
    let (before, after) = (Progress::of(&profile), Progress::of(&copy));
    assert_eq!(
        (after.next_window.lonely, after.next_start.lonely),
        (before.next_window.lonely, before.next_start.lonely)
    );
    assert!(after.next_window.bound >= before.next_window.bound && !after.seen_in_full);
    assert!(after.next_window.total > before.next_window.total * 8 / 10, "what says most is kept");
    // The next in line takes in its own, and the one after that begins with no more.
    let mut line = copy;
    for n in 1000..1100 {
        line = stages::candidate(&line, build::revision(n), &build::time(n));
        let mut o = build::full(n);
        o.revision = build::revision(n);
        line = line.fold(&o).unwrap();
    }
    assert!(line.generations.len() <= MAX_CARRIED + 3, "{}", line.generations.len());
    line.check().unwrap();
}

#[test]
fn a_namespace_of_ever_new_workloads_displaces_its_own_and_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let start = |n: u64, workload: &str| {
        let mut o = build::full(n);
        (o.workload, o.revision) = (workload.to_owned(), build::revision(n % 96));
        store::write_observation(data, &o).unwrap();
        store::fold_observation(data, &o).unwrap();
        let age = std::time::Duration::from_secs(1_767_225_600 + n);
        let folder = store::profile_path(data, workload, "x").parent().unwrap().to_owned();
        std::fs::File::open(folder).unwrap().set_modified(std::time::UNIX_EPOCH + age).unwrap();
    };
    for (n, workload) in ["shop/web", "nginx", "evil/enforced", "evil/lives", "evil/twice"].iter().enumerate() {
        start(n as u64, workload);
    }
    start(100, "evil/twice");
    store::update_profile(data, "evil/enforced", &build::id(2), |old| {
        Ok(Profile { stage: Stage::Enforcing, ..old.unwrap() })
    })
    .unwrap();
    for n in 10..20 {
        start(n, &format!("evil/{n}"));
    }
    // The folder's time is that of what was written in it last: these are the oldest.
    for workload in ["evil/enforced", "evil/lives", "evil/twice"] {
        let folder = store::profile_path(data, workload, "x").parent().unwrap().to_owned();
        std::fs::File::open(folder).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let live = || std::collections::BTreeMap::from([("evil/lives".to_owned(), Live::default())]);
    let room = Room { revisions: 5, ..SMALL };
    let none = trim_workloads(data, "shop/web", room, live).unwrap();
    assert_eq!(none, Vec::<String>::new(), "another namespace is not its to look after");
    let gone = trim_workloads(data, "evil/19", room, live).unwrap();
    assert_eq!(gone, (10..18).map(|n| format!("evil/{n}")).collect::<Vec<_>>());
    let mut left = store::profiled_workloads(data).unwrap();
    assert_eq!(left, store::observed_workloads(data).unwrap());
    left.sort();
    assert_eq!(left, ["evil/18", "evil/19", "evil/enforced", "evil/lives", "evil/twice", "nginx", "shop/web"]);
}
