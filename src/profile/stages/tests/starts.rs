//! What a container makes of where its profile is when it starts.

use super::*;

fn at(mode: Mode, own: Option<&Profile>, sibling: Option<&Profile>) -> Option<Start> {
    let situation = Situation { own, sibling, is_sandbox: false, container: "c", replicas: &[], now_micros: EPOCH };
    at_start(mode, &situation, &auto())
}

#[test]
fn auto_does_what_its_revisions_profile_has_come_to_and_a_new_revision_begins_with_the_old_ones() {
    let [learning, observing, enforcing] = [Stage::Learning, Stage::Observing, Stage::Enforcing].map(staged);
    assert_eq!(at(Mode::Auto, None, None), Some(Start::Learn));
    assert_eq!(at(Mode::Auto, None, Some(&learning)), Some(Start::Learn));
    assert_eq!(at(Mode::Auto, None, Some(&observing)), Some(Start::Candidate));
    assert_eq!(at(Mode::Auto, None, Some(&enforcing)), Some(Start::Candidate));
    assert_eq!(at(Mode::Auto, Some(&learning), Some(&enforcing)), Some(Start::Learn));
    assert_eq!(at(Mode::Auto, Some(&observing), None), Some(Start::Observe));
    assert_eq!(at(Mode::Auto, Some(&enforcing), None), Some(Start::Enforce));
    for mode in [Mode::Off, Mode::Learn, Mode::Observe] {
        assert_eq!(at(mode, Some(&enforcing), None), None, "{mode:?}");
    }
}

#[test]
fn enforcing_takes_a_profile_that_is_finished_or_complete_and_else_nothing_but_immutability() {
    let [learning, observing, enforcing] = [Stage::Learning, Stage::Observing, Stage::Enforcing].map(staged);
    assert!(matches!(at(Mode::Enforce, None, Some(&enforcing)), Some(Start::Immutable(_))));
    assert!(
        matches!(at(Mode::Enforce, Some(&learning), None), Some(Start::Immutable(why)) if why.contains("still learns"))
    );
    assert_eq!(at(Mode::Enforce, Some(&observing), None), Some(Start::Enforce));
    assert_eq!(at(Mode::Enforce, Some(&enforcing), None), Some(Start::Enforce));
    let all: Vec<Observation> = (1..4).map(|n| observation(n, i64::from(n) * 20, 0, &["read"])).collect();
    let (complete, _) = through(&all, &auto());
    assert_eq!(at(Mode::Enforce, Some(&complete), None), Some(Start::Enforce), "complete, though it still learns");
    let sandbox =
        Situation { own: None, sibling: None, is_sandbox: true, container: "c", replicas: &[], now_micros: EPOCH };
    assert!(matches!(at_start(Mode::Auto, &sandbox, &auto()), Some(Start::Immutable(_))));
}

#[test]
fn one_replica_enforces_first_and_one_that_is_gone_gives_its_place_to_the_next() {
    let canary = Auto { canary_for: Duration::from_secs(600), ..auto() };
    let mut profile = staged(Stage::Enforcing);
    let turn = |profile: &Profile, container: &str, replicas: &[&str], minutes: i64| {
        let replicas: Vec<String> = replicas.iter().map(|r| (*r).to_owned()).collect();
        let situation = Situation {
            own: Some(profile),
            sibling: None,
            is_sandbox: false,
            container,
            replicas: &replicas,
            now_micros: EPOCH + minutes * MINUTE,
        };
        at_start(Mode::Auto, &situation, &canary).expect("a start")
    };
    assert_eq!(turn(&profile, "a", &["b"], 0), Start::Lead);
    profile.steering.canary = Some(Canary { container: "a".to_owned(), since: time(0), refused: false });
    assert_eq!(turn(&profile, "a", &["b"], 5), Start::Enforce, "it goes on");
    assert_eq!(turn(&profile, "b", &["a"], 5), Start::Follow("a".to_owned()));
    assert_eq!(turn(&profile, "b", &[], 5), Start::Lead, "a is gone");
    assert_eq!(turn(&profile, "b", &[], 0), Start::Follow("a".to_owned()), "a is being made");
    assert_eq!(turn(&profile, "b", &["a"], 10), Start::Enforce, "the time has passed");
    assert_eq!(turn(&profile, "b", &["a"], -60), Start::Follow("a".to_owned()), "a clock that was set back");
    assert_eq!(leader(&profile, &canary, EPOCH + 5 * MINUTE), Some("a"));
    assert_eq!(leader(&profile, &canary, EPOCH + 10 * MINUTE), None);
    // What others, or it, are refused later holds nobody back; nor does what it is refused that somebody has decided about.
    let refused = |profile: &mut Profile, container, minutes| {
        refused_first(profile, container, "syscall symlink", &canary, &time(minutes))
    };
    assert!(!refused(&mut profile, "b", 5) && !refused(&mut profile, "a", 10));
    assert!(refused(&mut profile, "a", 5) && !refused(&mut profile, "a", 6), "once");
    profile.check().expect("it can be stored");
    for minutes in [5, 10, 10_000] {
        assert_eq!(turn(&profile, "b", &[], minutes), Start::Follow("a".to_owned()));
        assert_eq!(turn(&profile, "a", &["b"], minutes), Start::Enforce, "it itself is protected");
    }
    assert_eq!(leader(&profile, &canary, EPOCH + 10_000 * MINUTE), Some("a"));
    assert!(waits_for(&profile, &canary).is_some_and(|w| w.contains("allow web@") && !w.contains("--force")));
    profile.steering.decide("syscall symlink".to_owned(), false, Decision { at: time(11), why: "seen".to_owned() });
    assert_eq!(turn(&profile, "b", &["a"], 11), Start::Enforce, "somebody has looked");
    assert!(!refused(&mut profile, "a", 5));
    let later = Decision { at: time(20), why: "an old replica did it".to_owned() };
    profile.steering.wait_for([("syscall connect".to_owned(), later)].into());
    assert_eq!(turn(&profile, "b", &["a"], 21), Start::Enforce, "nobody who is enforced is let go");
    profile.step(Stage::Observing, "x", &time(6));
    assert_eq!(profile.steering.canary, None, "who goes first is found anew");
}

#[test]
fn a_new_revision_is_not_enforced_by_what_older_ones_did_before_it_did_something_itself() {
    let all: Vec<Observation> = (1..4).map(|n| observation(n, i64::from(n) * 20, 10, &["read"])).collect();
    let old = through(&all, &auto()).0;
    assert_eq!(old.stage, Stage::Enforcing);
    let long = Auto { observe_windows: 50, ..auto() };
    let mut new = candidate(&old, revision(2), &time(100));
    for (n, waits) in [(5, Some(30)), (6, Some(10)), (7, None)] {
        let own = Observation { revision: revision(2), ..observation(n, 100 + i64::from(n), 10, &["read"]) };
        new = fold(Some(&new), &own, &long).0;
        let words = waits.map(|more| format!("{more} windows of 60 s with work and nothing new in them"));
        assert_eq!(waits_for(&new, &long), words);
    }
    assert_eq!(new.stage, Stage::Enforcing);
    assert!(new.steering.history.last().is_some_and(|s| s.why.contains(", in 60 windows, and")));
}
