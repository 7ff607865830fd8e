//! Merging is a lattice's join: the order and the number of times do not matter.

use std::collections::BTreeMap;

use lithify::profile::behaviour::{MAX_ITEMS, Operation, Origin};
use lithify::profile::document::MAX_WITNESSES;
use lithify::profile::merge::{Across, merge};
use lithify::profile::steering::{Canary, Decision, Quiet, Steering, Step};
use lithify::profile::{Behaviour, Observation, Profile, Sighting, Stage};
use proptest::prelude::*;

use super::build;

fn sighting() -> impl Strategy<Value = Sighting> {
    (0u64..10, 0u64..10, 1u32..10).prop_map(|(a, b, windows)| build::seen(a.min(b), a.max(b), windows))
}

fn some<V: std::fmt::Debug>(
    names: &'static [&'static str],
    value: impl Strategy<Value = V>,
) -> impl Strategy<Value = BTreeMap<String, V>> {
    prop::collection::btree_map(prop::sample::select(names).prop_map(str::to_string), value, 0..4)
}

fn behaviour() -> impl Strategy<Value = Behaviour<Sighting>> {
    const CALLS: &[&str] = &["read", "openat", "i386:open", "#4000"];
    const PATHS: &[&str] = &["/tmp/tmp.*", "/run/a", "/etc/b"];
    let write = (sighting(), 0u64..9, any::<[bool; 4]>(), 0usize..12).prop_map(|(seen, size_bytes, flags, writers)| {
        let mut write = build::write(seen);
        write.size_bytes = size_bytes;
        (write.directory, write.executed) = (flags[0], flags[1]);
        write.by = (0..writers).map(|n| format!("w{}", n * 7 % 12)).collect();
        if flags[2] {
            write.refused.insert("EROFS".to_string());
            write.succeeded = flags[3];
            write.operations = [Operation::Remove].into();
        }
        write
    });
    let program =
        (sighting(), prop::sample::select(&[Origin::Image, Origin::Tmpfs, Origin::Volume][..]), any::<bool>())
            .prop_map(|(seen, origin, privileged)| {
                let mut program = build::program(seen, origin);
                program.privileged = privileged;
                program
            });
    (
        some(CALLS, sighting()),
        some(CALLS, sighting()),
        some(&["socket"], some(&["2,1,0", "1,1,0"], sighting())),
        some(&["CAP_CHOWN", "CAP_KILL"], sighting()),
        some(PATHS, write),
        some(PATHS, program),
        some(&["tcp 0.0.0.0:80"], sighting()),
        some(&["tcp 10.0.0.1:5432", "udp 10.0.0.2:53"], sighting()),
    )
        .prop_map(|(syscalls, denied_syscalls, arguments, capabilities, writes, programs, listens, connects)| {
            Behaviour { syscalls, denied_syscalls, arguments, capabilities, writes, programs, listens, connects }
        })
}

prop_compose! {
    fn observation()(
        n in 0u64..100, workload_behaviour in behaviour(), exec_behaviour in behaviour(), ended in any::<bool>(),
        windows in 0u32..100, lost in 0u64..2, pids in prop::option::of(0u64..9), until in 1u64..20,
        forbidden in prop::option::of(sighting()),
    ) -> Observation {
        let mut o = build::observation(n);
        (o.workload_behaviour, o.exec_behaviour, o.ended, o.windows) = (workload_behaviour, exec_behaviour, ended, windows);
        (o.loss.unreadable, o.peaks.pids, o.until) = (lost, pids, build::time(until));
        if let Some(seen) = forbidden {
            let item = lithify::profile::observation::Forbidden { reason: "r".to_string(), seen };
            o.forbidden.insert("syscall bpf".to_string(), item);
        }
        o
    }
}

fn steering() -> impl Strategy<Value = Steering> {
    let stage = || prop::sample::select(&[Stage::Learning, Stage::Observing, Stage::Enforcing][..]);
    let decision = || (0u64..4, 0u64..3).prop_map(|(at, n)| Decision { at: build::time(at), why: format!("r{n}") });
    let decisions = some(&["syscall mkdir", "write /srv/*", "capability CAP_CHOWN"], (decision(), any::<bool>()));
    let quiet = (0u64..3, prop::collection::btree_map((0u64..5).prop_map(build::id), 1u32..9, 0..3))
        .prop_map(|(since, generations)| Quiet { since: build::time(since), generations });
    let canary = (0u64..3, 0u64..3, prop::bool::ANY).prop_map(|(n, since, refused)| Canary {
        container: format!("c{n}"),
        since: build::time(since),
        refused,
    });
    let steps = prop::collection::vec((0u64..9, stage(), stage()), 0..100);
    let waiting = some(&["syscall mkdir", "write /srv/x", "program /data/x"], decision()).boxed();
    (any::<bool>(), prop::option::of(0u64..3), prop::option::of(decision()), decisions, prop::option::of(quiet))
        .prop_flat_map(move |known| (Just(known), prop::option::of(canary.clone()), steps.clone(), waiting.clone()))
        .prop_map(|((held, candidate, demoted, decisions, quiet), canary, steps, waiting)| {
            let candidate = candidate.map(build::id);
            let mut steering = Steering { held, candidate, demoted, quiet, canary, waiting, ..Steering::default() };
            for (item, (decision, denied)) in decisions {
                steering.decide(item, denied, decision);
            }
            for (at, from, to) in steps {
                steering.remember(Step { at: build::time(at), from, to, why: "r".to_string() });
            }
            steering
        })
}

prop_compose! {
    /// More observations than an item keeps witnesses, sometimes.
    fn profile()(observations in prop::collection::vec(observation(), 1..6), copies in 1u64..50, stage in 0..3, steering in steering()) -> Profile {
        let mut profile = Profile::of(&observations[0]);
        for o in &observations {
            profile = profile.fold(o).unwrap();
        }
        for n in 0..copies {
            let mut copy = observations[0].clone();
            copy.id = build::id(1000 + n * 13 % 60);
            profile = profile.fold(&copy).unwrap();
        }
        profile.stage = [Stage::Learning, Stage::Observing, Stage::Enforcing][stage as usize];
        profile.steering = steering;
        profile
    }
}

fn join(a: &Profile, b: &Profile) -> Profile {
    merge(a, b, Across::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(a in profile(), b in profile(), c in profile()) {
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        prop_assert_eq!(join(&a, &a), a.clone());
        let ab = join(&a, &b);
        prop_assert_eq!(join(&ab, &b), ab);
    }

    #[test]
    fn the_order_of_observations_does_not_matter_and_folding_one_again_changes_nothing(
        (observations, shuffled) in prop::collection::vec(observation(), 1..8)
            .prop_map(|list| (0..).zip(list).map(|(n, o)| Observation { id: build::id(n), ..o }).collect::<Vec<_>>())
            .prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
    ) {
        let fold = |list: &[Observation]| {
            list.iter().fold(Profile::of(&list[0]), |profile, o| profile.fold(o).unwrap())
        };
        let folded = fold(&observations);
        prop_assert_eq!(&fold(&shuffled), &folded);
        prop_assert_eq!(&folded.fold(&observations[0]).unwrap(), &folded);
        prop_assert!(folded.check().is_ok());
    }

    #[test]
    fn a_written_document_reads_back(o in observation(), p in profile()) {
        prop_assert_eq!(Observation::parse(&serde_json::to_vec(&o).unwrap()).unwrap(), o);
        prop_assert_eq!(Profile::parse(&serde_json::to_vec(&p).unwrap()).unwrap(), p);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let _ = (Profile::parse(&bytes), Observation::parse(&bytes));
        let mut text = serde_json::to_vec(&build::full(1)).unwrap();
        let at = at.index(text.len());
        text[at] = with;
        let _ = Observation::parse(&text);
    }
}

#[test]
fn an_item_keeps_its_earliest_witnesses_in_whatever_order_they_come() {
    let folded = |order: Vec<u64>| {
        let first = Profile::of(&build::full(order[0]));
        order.iter().fold(first, |profile, n| profile.fold(&build::full(*n)).unwrap())
    };
    let up = folded((1..=100).collect());
    assert_eq!(up, folded((1..=100).rev().collect()));
    let seen = &up.workload_behaviour.syscalls["openat"];
    assert_eq!((seen.generations.len(), seen.generations.keys().last()), (MAX_WITNESSES, Some(&build::id(32))));
    assert_eq!(up.generations.len(), 100);
}

#[test]
fn what_a_crash_left_is_completed_by_what_was_written_later() {
    let whole = build::full(1);
    let mut left = whole.clone();
    (left.ended, left.until, left.windows) = (false, build::time(5), 5);
    left.workload_behaviour.syscalls.remove("openat");
    let profile = Profile::of(&left);
    assert!(!profile.generations[&build::id(1)].ended);
    assert_eq!(profile.fold(&whole).unwrap(), Profile::of(&whole));
}

#[test]
fn a_later_state_of_an_observation_takes_the_place_of_the_earlier_one() {
    let others = Profile::of(&build::full(2)).fold(&build::full(3)).unwrap();
    let with = |paths: &[&str], until: u64, ended: bool| {
        let mut o = build::full(1);
        (o.until, o.ended) = (build::time(until), ended);
        let items = paths.iter().map(|path| (path.to_string(), build::write(build::seen(0, 0, 1))));
        o.workload_behaviour.writes.extend(items);
        o
    };
    // What was two names is a pattern by the time that a third came.
    let (early, late) = (with(&["/tmp/a1", "/tmp/b2"], 3, false), with(&["/tmp/*"], 9, true));
    let grown = others.fold(&early).unwrap().fold(&late).unwrap();
    assert_eq!(grown, others.fold(&late).unwrap());
    assert_eq!(grown.fold(&early).unwrap(), grown, "an earlier state comes too late");
    assert!(others.fold(&early).unwrap().workload_behaviour.writes.contains_key("/tmp/a1"));
    // What others have seen as well is theirs, too.
    let mut without = late.clone();
    without.workload_behaviour = Behaviour::default();
    let kept = others.fold(&early).unwrap().fold(&without).unwrap();
    assert_eq!(kept.workload_behaviour, others.workload_behaviour);
}

#[test]
fn a_section_with_too_many_items_is_cut_the_same_way_in_any_order_and_says_so() {
    let with = |n: u64, paths: std::ops::Range<usize>| {
        let mut o = build::observation(n);
        for path in paths {
            o.workload_behaviour.writes.insert(format!("/etc/{path:06}"), build::write(build::seen(0, 0, 1)));
        }
        Profile::of(&o)
    };
    let (a, b, c) = (with(1, 0..1500), with(2, 1000..2500), with(3, 0..MAX_ITEMS + 1));
    let all = join(&join(&a, &b), &c);
    assert_eq!(all, join(&a, &join(&c, &b)));
    assert_eq!(all.workload_behaviour.writes.len(), MAX_ITEMS);
    assert_eq!(all.cut.iter().collect::<Vec<_>>(), ["workload writes"]);
    assert!(a.cut.is_empty() && !c.cut.is_empty());
}

#[test]
fn another_workload_revision_architecture_or_version_is_refused_unless_asked_for() {
    let mine = Profile::of(&build::full(1));
    let refused = |change: fn(&mut Profile), across: Across| {
        let mut other = Profile::of(&build::full(2));
        change(&mut other);
        merge(&mine, &other, across).map(|_| ()).map_err(|e| e.to_string())
    };
    let no = Across::default();
    let all = Across { workloads: true, revisions: true };
    let text = refused(|p| p.workload = "db".to_string(), no).unwrap_err();
    assert!(text.contains("\"web\"") && text.contains("--across-workloads"), "{text}");
    let text = refused(|p| p.revision = build::revision(2), no).unwrap_err();
    assert!(text.contains(&build::id(2)) && text.contains("--across-revisions"), "{text}");
    assert!(refused(|p| p.workload = "db".to_string(), all).is_ok());
    assert!(refused(|p| p.revision = build::revision(2), all).is_ok());
    assert!(refused(|p| p.architecture = "aarch64".to_string(), all).unwrap_err().contains("aarch64"));
    assert!(refused(|p| p.version = 2, all).unwrap_err().contains("expected version 1, found 2"));
    let mut later = build::full(3);
    later.version = 2;
    assert!(mine.fold(&later).unwrap_err().to_string().contains("expected version 1, found 2"));
}

#[test]
fn more_generations_than_a_profile_holds_are_refused_with_the_remedy() {
    let mut full = Profile::of(&build::full(1));
    let one = full.generations[&build::id(1)].clone();
    full.generations = (1..=4096).map(|n| (build::id(n), one.clone())).collect();
    assert!(full.fold(&build::full(4096)).is_ok());
    let more = full.fold(&build::full(4097)).expect("what is started all the time is learnt all the same");
    assert!(more.generations.len() < 300 && more.generations.contains_key(&build::id(4097)));
    let text = merge(&full, &Profile::of(&build::full(4097)), Across::default()).unwrap_err().to_string();
    assert!(text.contains("4097 generations") && text.contains("profile finish"), "{text}");
}

#[test]
fn of_two_decisions_about_one_item_the_later_one_holds_and_of_the_same_time_the_denial() {
    let decided = |at: u64, denied: bool| {
        let mut profile = Profile::of(&build::full(1));
        let decision = Decision { at: build::time(at), why: "by hand".to_string() };
        profile.steering.decide("syscall mkdir".to_string(), denied, decision);
        profile
    };
    for (a, b, is_denied) in [(decided(1, true), decided(2, false), false), (decided(1, true), decided(1, false), true)]
    {
        for joined in [join(&a, &b), join(&b, &a)] {
            let denied = joined.steering.denied.contains_key("syscall mkdir");
            assert_eq!((denied, joined.steering.allowed.contains_key("syscall mkdir")), (is_denied, !is_denied));
        }
    }
}
