//! The store keeps what was learnt over crashes, and folds each observation once.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lithify::events::clock;
use lithify::profile::gc::{Keep, collect};
use lithify::profile::{Observation, Profile, Stage, store};

use super::build;

pub fn profile_path(data: &Path) -> PathBuf {
    data.join("profiles/web").join(format!("{}.json", build::id(1)))
}

fn ids(data: &Path) -> Vec<String> {
    store::observation_files(data, "web").unwrap().into_iter().map(|(id, _)| id).collect()
}

#[test]
fn an_observation_is_written_read_and_folded_and_only_root_can_look() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut o = build::full(1);
    o.workload = "shop/web:1".to_string();
    store::write_observation(&data, &o).unwrap();
    let path = data.join("observations/shop%2Fweb%3A1").join(format!("{}.json", o.id));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    for folder in ["", "observations", "observations/shop%2Fweb%3A1"] {
        assert_eq!(std::fs::metadata(data.join(folder)).unwrap().permissions().mode() & 0o7777, 0o700, "{folder}");
    }
    assert_eq!(store::read_observation(&data, &o.workload, &o.id).unwrap(), Some(o.clone()));
    let profile = store::fold_observation(&data, &o).unwrap();
    assert_eq!(store::read_profile(&data, &o.workload, &build::id(1)).unwrap(), Some(profile.clone()));
    assert_eq!(store::newest_profile(&data, &o.workload).unwrap(), Some(profile));
    assert_eq!(store::observed_workloads(&data).unwrap(), ["shop/web:1"]);
    assert_eq!(store::newest_profile(&data, "other").unwrap(), None);
    assert!(store::all_profiles(&dir.path().join("none")).unwrap().is_empty());
}

#[test]
fn an_observation_grows_until_it_has_ended_and_does_not_change_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut growing = build::full(1);
    (growing.ended, growing.windows) = (false, 3);
    store::write_observation(dir.path(), &growing).unwrap();
    store::write_observation(dir.path(), &build::full(1)).unwrap();
    store::write_observation(dir.path(), &build::full(1)).unwrap();
    let e = store::write_observation(dir.path(), &growing).unwrap_err();
    assert!(e.to_string().contains("has ended, and does not change any more"), "{e}");
    assert_eq!(store::read_observation(dir.path(), "web", &build::id(1)).unwrap(), Some(build::full(1)));
}

#[test]
fn folding_an_observation_again_does_not_touch_the_file() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    store::fold_observation(dir.path(), &build::full(1)).unwrap();
    // A durable write makes another inode.
    let before = std::fs::metadata(profile_path(dir.path())).unwrap().ino();
    store::fold_observation(dir.path(), &build::full(1)).unwrap();
    assert_eq!(std::fs::metadata(profile_path(dir.path())).unwrap().ino(), before);
    store::fold_observation(dir.path(), &build::full(2)).unwrap();
    assert_ne!(std::fs::metadata(profile_path(dir.path())).unwrap().ino(), before);
}

#[test]
fn what_a_crash_left_is_recovered_once_and_what_is_still_written_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut left = build::full(1);
    left.ended = false;
    let mut live = build::full(2);
    live.ended = false;
    for o in [&left, &live, &build::full(3)] {
        store::write_observation(dir.path(), o).unwrap();
    }
    let is_live = |o: &Observation| o.id == build::id(2);
    let (folded, failed) = store::recover(dir.path(), "web", is_live).unwrap();
    assert!(folded == 2 && failed.is_empty(), "{failed:?}");
    let profile = store::newest_profile(dir.path(), "web").unwrap().unwrap();
    assert_eq!(profile.generations.keys().collect::<Vec<_>>(), [&build::id(1), &build::id(3)]);
    assert!(!profile.generations[&build::id(1)].ended && profile.generations[&build::id(3)].ended);
    assert_eq!(store::recover(dir.path(), "web", is_live).unwrap().0, 0);
}

#[test]
fn once_learning_has_ended_nothing_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let first = store::fold_observation(dir.path(), &build::full(1)).unwrap();
    let end = |old: Option<Profile>| Ok(Profile { stage: Stage::Observing, ..old.unwrap() });
    store::update_profile(dir.path(), "web", &build::id(1), end).unwrap();
    let after = store::fold_observation(dir.path(), &build::full(2)).unwrap();
    assert_eq!(after, Profile { stage: Stage::Observing, ..first });
}

#[test]
fn names_as_long_as_they_come_in_every_generation_do_not_end_learning() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=12 {
        let mut o = build::observation(n);
        // A control character is six bytes in JSON.
        for item in 0..1500 {
            let path = format!("/etc/{n:02}{item:06}{}", "\u{1}".repeat(200));
            o.exec_behaviour.writes.insert(path.clone(), build::write(build::seen(0, 0, 1)));
            o.workload_behaviour.writes.insert(path.clone(), build::write(build::seen(0, 0, 1)));
            o.workload_behaviour.listens.insert(format!("unix {path}"), build::seen(0, 0, 1));
        }
        store::fold_observation(dir.path(), &o).unwrap();
    }
    let profile = store::newest_profile(dir.path(), "web").unwrap().unwrap();
    assert_eq!(profile.generations.len(), 12);
    assert!(profile.cut.contains("workload writes"), "{:?}", profile.cut);
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for n in 1..=16 {
            let data = dir.path();
            scope.spawn(move || store::fold_observation(data, &build::full(n)).unwrap());
        }
    });
    let profile = store::newest_profile(dir.path(), "web").unwrap().unwrap();
    assert_eq!(profile.generations.len(), 16);
}

#[test]
fn names_that_lead_elsewhere_stay_inside_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for name in ["..", "../../x", "/etc/passwd", "%", "a/../b"] {
        let mut o = build::full(1);
        o.workload = name.to_string();
        store::write_observation(&data, &o).unwrap();
        store::fold_observation(&data, &o).unwrap();
        assert_eq!(store::newest_profile(&data, name).unwrap().unwrap().workload, name);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(data.join("profiles")).unwrap().count(), 5);
    // A revision on the command line or in an annotation is no path either.
    assert_eq!(store::read_profile(&data, "..", "../../x").unwrap(), None);
}

#[test]
fn a_workload_whose_folder_name_is_cut_is_found_by_its_whole_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut o = build::full(1);
    o.workload = format!("registry/{}", "é".repeat(200));
    store::write_observation(dir.path(), &o).unwrap();
    store::fold_observation(dir.path(), &o).unwrap();
    assert_eq!(store::observed_workloads(dir.path()).unwrap(), [o.workload.clone()]);
    assert_eq!(store::newest_profile(dir.path(), &o.workload).unwrap().unwrap().workload, o.workload);
}

#[test]
fn gc_removes_old_observations_that_a_profile_has_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let ids = || ids(dir.path());
    for n in 1..=6 {
        let mut o = build::full(n);
        // 2 is not folded; 3 may still be written.
        o.ended = n != 3;
        if n == 3 {
            o.until = clock::format(clock::now_micros());
        }
        store::write_observation(dir.path(), &o).unwrap();
        if n != 2 {
            store::fold_observation(dir.path(), &o).unwrap();
        }
    }
    let keep = Keep { observations: 2, observation_age: None, revision_age: None };
    let now = clock::now_micros();
    let would = collect(dir.path(), keep, now, true).unwrap();
    assert_eq!(ids().len(), 6);
    assert_eq!(collect(dir.path(), keep, now, false).unwrap(), would);
    assert_eq!(ids(), [2, 3, 5, 6].map(build::id));
    let old = Keep { observations: 100, observation_age: Some(Duration::from_secs(3600)), revision_age: None };
    collect(dir.path(), old, clock::parse(&build::time(0)).unwrap() + 24 * 3_600_000_000, false).unwrap();
    assert_eq!(ids(), [2, 3].map(build::id));
    // Profiles go only when that is asked for.
    assert!(profile_path(dir.path()).exists());
    let unseen = Keep { observations: 100, observation_age: None, revision_age: Some(Duration::from_secs(60)) };
    collect(dir.path(), unseen, now, false).unwrap();
    assert!(profile_path(dir.path()).exists(), "generation 3 was seen just now");
    let removed = collect(dir.path(), unseen, now + 120_000_000, false).unwrap();
    assert!(removed.len() == 1 && removed[0].kind == "profile" && !profile_path(dir.path()).exists());
}

#[test]
fn a_container_that_starts_all_the_time_does_not_fill_the_store() {
    let dir = tempfile::tempdir().unwrap();
    // What 329 starts have left, not one by one: each would wait for the disk.
    let mut profile = Profile::of(&build::observation(1));
    store::write_observation(dir.path(), &build::observation(1)).unwrap();
    for n in 2..=329 {
        let o = build::observation(n);
        profile = profile.fold(&o).unwrap();
        let path = dir.path().join("observations/web").join(format!("{}.json", o.id));
        std::fs::write(path, serde_json::to_vec(&o).unwrap()).unwrap();
    }
    store::update_profile(dir.path(), "web", &build::id(1), |_| Ok(profile)).unwrap();
    store::write_observation(dir.path(), &build::observation(330)).unwrap();
    store::fold_observation(dir.path(), &build::observation(330)).unwrap();
    let ids = ids(dir.path());
    assert_eq!((ids.len(), ids.last()), (256, Some(&build::id(330))));
    assert_eq!(store::newest_profile(dir.path(), "web").unwrap().unwrap().generations.len(), 330);
}

#[test]
fn observations_that_no_profile_takes_do_not_fill_the_store_either() {
    let dir = tempfile::tempdir().unwrap();
    store::write_observation(dir.path(), &build::observation(1)).unwrap();
    for n in 2..=1400 {
        let o = build::observation(n);
        let path = dir.path().join("observations/web").join(format!("{}.json", o.id));
        std::fs::write(path, serde_json::to_vec(&o).unwrap()).unwrap();
    }
    store::fold_observation(dir.path(), &build::observation(1400)).unwrap();
    let ids = ids(dir.path());
    assert_eq!((ids.len(), ids.last()), (1024, Some(&build::id(1400))));
}

#[test]
fn large_observations_go_before_they_are_many() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=12 {
        store::write_observation(dir.path(), &build::full(n)).unwrap();
        let path = dir.path().join("observations/web").join(format!("{}.json", build::id(n)));
        let mut text = std::fs::read(&path).unwrap();
        text.resize(9_000_000, b' ');
        std::fs::write(&path, text).unwrap();
        store::fold_observation(dir.path(), &build::full(n)).unwrap();
    }
    let size = store::observations_size(dir.path(), "web").unwrap();
    assert!(size.1 <= 80 << 20 && ids(dir.path()).contains(&build::id(12)), "{size:?}");
}
