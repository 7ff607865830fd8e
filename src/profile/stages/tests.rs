//! Which way a profile goes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::Behaviour;
use super::super::behaviour::{Origin, Program};
use super::super::steering::Decision;
use super::*;

mod needed;
mod starts;

const MINUTE: i64 = 60_000_000;
const EPOCH: i64 = 1_767_225_600_000_000;

fn time(minutes: i64) -> String {
    clock::format(EPOCH + minutes * MINUTE)
}

fn staged(stage: Stage) -> Profile {
    Profile { stage, ..Profile::of(&observation(1, 0, 10, &["read"])) }
}

/// Easy to please: the windows of one observation are enough.
fn auto() -> Auto {
    Auto { risk_ppm: 1_000_000, observe_windows: 20, startup: Duration::from_secs(60), ..Auto::default() }
}

fn revision(n: u8) -> Revision {
    Revision {
        digest: format!("{n:032x}"),
        image: format!("sha256:{n}"),
        image_name: None,
        args: vec!["web".to_owned()],
        env: Vec::new(),
        mounts: Vec::new(),
        user: "0:0".to_owned(),
        capabilities: Vec::new(),
    }
}

/// A generation that began at a minute, lived for some, and called these.
fn observation(n: u8, began: i64, lived: i64, calls: &[&str]) -> Observation {
    let seen = super::super::Sighting { windows: 5, first: time(began), last: time(began + lived) };
    Observation {
        version: super::super::observation::VERSION,
        id: format!("{n:032x}"),
        workload: "web".to_owned(),
        revision: revision(1),
        architecture: std::env::consts::ARCH.to_owned(),
        node: "n".to_owned(),
        container: format!("c{n}"),
        generation: 1,
        started: time(began),
        until: time(began + lived),
        ended: true,
        window_seconds: 60,
        windows: 20,
        unseen: Vec::new(),
        loss: Default::default(),
        workload_behaviour: Behaviour {
            syscalls: calls.iter().map(|name| ((*name).to_owned(), seen.clone())).collect(),
            ..Behaviour::default()
        },
        exec_behaviour: Behaviour::default(),
        forbidden: BTreeMap::new(),
        peaks: Default::default(),
    }
}

fn fold(profile: Option<&Profile>, o: &Observation, auto: &Auto) -> (Profile, Option<Step>) {
    let folded = profile.map_or_else(|| Profile::of(o), |p| p.fold(o).expect("it fits"));
    after_fold(profile, folded, o, auto, &o.until)
}

/// What comes of folding these one after another, and the stages that were gone through.
fn through(all: &[Observation], auto: &Auto) -> (Profile, Vec<Stage>) {
    let (mut profile, mut stages): (Option<Profile>, Vec<Stage>) = (None, Vec::new());
    for o in all {
        let (next, _) = fold(profile.as_ref(), o, auto);
        stages.push(next.stage);
        profile = Some(next);
    }
    (profile.expect("some"), stages)
}

#[test]
fn a_profile_goes_from_learning_over_observing_to_enforcing_and_says_why() {
    let all = [
        observation(1, 0, 10, &["read", "openat"]),
        observation(2, 20, 10, &["read", "openat"]),
        observation(3, 40, 10, &["read"]),
    ];
    let (profile, stages) = through(&all, &auto());
    assert_eq!(stages, [Stage::Learning, Stage::Observing, Stage::Enforcing]);
    let whys: Vec<&str> = profile.steering.history.iter().map(|s| s.why.as_str()).collect();
    assert!(whys[0].starts_with("after 2 generations, the chance that the next minute"), "{whys:?}");
    assert!(whys[1].starts_with("1 generation showed nothing new since 2026-"), "{whys:?}");
    assert_eq!(profile.steering.quiet, None);
}

#[test]
fn what_is_new_while_observing_is_taken_in_and_begins_the_quiet_period_anew() {
    let all = [
        observation(1, 0, 10, &["read"]),
        observation(2, 20, 10, &["read"]),
        observation(3, 40, 10, &["read", "socket"]),
        observation(4, 60, 10, &["read", "socket"]),
    ];
    let (profile, stages) = through(&all, &auto());
    assert_eq!(stages, [Stage::Learning, Stage::Observing, Stage::Observing, Stage::Enforcing]);
    assert!(profile.workload_behaviour.syscalls.contains_key("socket"));
    // A generation that had begun before the last new thing is no witness.
    let late = [&all[..3], &[observation(4, 45, 30, &["read"])]].concat();
    assert_eq!(through(&late, &auto()).1.last(), Some(&Stage::Observing));
}

#[test]
fn what_a_session_does_is_taken_in_and_begins_nothing_anew() {
    let mut probed = observation(3, 40, 10, &["read"]);
    probed.exec_behaviour = observation(3, 40, 1, &["socket"]).workload_behaviour;
    let all = [observation(1, 0, 10, &["read"]), observation(2, 20, 10, &["read"]), probed];
    let (profile, stages) = through(&all, &auto());
    assert_eq!(stages.last(), Some(&Stage::Enforcing));
    assert!(profile.exec_behaviour.syscalls.contains_key("socket"));
}

/// Learnt, observed, and one more generation in which `what` was added to what it did.
fn while_observing(what: impl Fn(&mut Observation)) -> (Profile, Vec<Stage>) {
    let mut odd = observation(3, 40, 10, &["read"]);
    what(&mut odd);
    let quiet = [4, 5].map(|n| observation(n, i64::from(n) * 20, 10, &["read"]));
    let all = [observation(1, 0, 10, &["read"]), observation(2, 20, 10, &["read"]), odd].into_iter().chain(quiet);
    through(&all.collect::<Vec<_>>(), &auto())
}

fn ran(o: &mut Observation, path: &str, origin: Origin, after_minutes: i64) {
    let first = time(40 + after_minutes);
    let seen = super::super::Sighting { windows: 1, first: first.clone(), last: first };
    let program = Program { seen, origins: [origin].into(), privileged: false };
    o.workload_behaviour.programs.insert(path.to_owned(), program);
}

fn waiting(profile: &Profile) -> Vec<&str> {
    profile.steering.waiting.keys().map(String::as_str).collect()
}

fn forbid(o: &mut Observation, item: &str) {
    let seen = super::super::Sighting { windows: 1, first: o.started.clone(), last: o.started.clone() };
    o.forbidden.insert(item.to_owned(), super::super::observation::Forbidden { reason: "bad".to_owned(), seen });
}

#[test]
fn what_an_intruder_did_while_observing_does_not_become_policy_by_waiting() {
    type Did<'a> = (&'a str, Box<dyn Fn(&mut Observation) + 'a>);
    let all: [Did<'_>; 7] = [
        ("program /data/x", Box::new(|o| ran(o, "/data/x", Origin::Volume, 5))),
        ("program /bin/sh", Box::new(|o| ran(o, "/bin/sh", Origin::Image, 0))),
        ("program /tmp/x", Box::new(|o| forbid(o, "program /tmp/x from tmpfs"))),
        ("syscall init_module", Box::new(|o| forbid(o, "denied syscall init_module"))),
        ("write /etc/passwd", Box::new(|o| forbid(o, "write /etc/passwd"))),
        ("syscall io_uring_setup", Box::new(|o| *o = observation(3, 40, 10, &["read", "io_uring_setup"]))),
        ("syscall i386:read", Box::new(|o| *o = observation(3, 40, 10, &["read", "i386:read"]))),
    ];
    for (item, did) in all {
        let (profile, stages) = while_observing(did);
        assert_eq!((stages.last(), waiting(&profile)), (Some(&Stage::Observing), vec![item]));
        let waits = waits_for(&profile, &auto()).expect("it waits");
        let wanted = format!("lithifyctl profile allow web@{} '{item}'", "0".repeat(12));
        assert!(waits.starts_with("somebody to look at") && waits.contains(&wanted), "{waits}");
        let enforced = profile.steered(&mut Vec::new()).workload_behaviour;
        let name = item.split_once(' ').expect("two words").1;
        let has = enforced.programs.contains_key(name) || enforced.syscalls.contains_key(name);
        assert!(!has, "{item} is enforced by itself where somebody enforces all the same");
        // Once somebody has decided, it goes on as before.
        for denied in [false, true] {
            let mut decided = profile.clone();
            decided.steering.decide(item.to_owned(), denied, Decision { at: time(200), why: "seen".to_owned() });
            let (after, _) = fold(Some(&decided), &observation(6, 220, 10, &["read"]), &auto());
            assert_eq!((after.stage, waiting(&after).len()), (Stage::Enforcing, 0), "{item}, denied {denied}");
        }
    }
}

#[test]
fn ordinary_differences_and_what_sessions_do_wait_for_nobody() {
    let (profile, stages) = while_observing(|o| {
        *o = observation(3, 40, 10, &["read", "socket", "getrandom"]);
        let seen = super::super::Sighting { windows: 1, first: time(41), last: time(41) };
        ran(&mut *o, "/srv/tool", Origin::Image, 1);
        let programs = std::mem::take(&mut o.workload_behaviour.programs);
        o.exec_behaviour.programs = programs;
        let reason = "bad".to_owned();
        o.forbidden.insert("exec: syscall mount".to_owned(), super::super::observation::Forbidden { reason, seen });
    });
    assert_eq!((stages.last(), waiting(&profile).len()), (Some(&Stage::Enforcing), 0));
}

/// What a workload had of the network and of capabilities, each as `show` names it.
fn using(mut o: Observation, items: &[&str], minutes: i64) -> Observation {
    let first = time(minutes);
    let seen = super::super::Sighting { windows: 1, first: first.clone(), last: first };
    let behaviour = &mut o.workload_behaviour;
    for item in items {
        let (kind, name) = item.split_once(' ').expect("two words");
        let (name, seen) = (name.to_owned(), seen.clone());
        match kind {
            "socket" => drop(behaviour.arguments.entry(kind.to_owned()).or_default().insert(name, seen)),
            "capability" => drop(behaviour.capabilities.insert(name, seen)),
            "listen" => drop(behaviour.listens.insert(name, seen)),
            _ => drop(behaviour.connects.insert(name, seen)),
        }
    }
    o
}

const CAN: [&str; 3] = ["CAP_CHOWN", "CAP_KILL", "CAP_DAC_OVERRIDE"];

/// What waits once a workload that had these was observed to have those.
fn waits_after(had: &[&str], has: &[&str]) -> Vec<String> {
    let mut all =
        [observation(1, 0, 10, &["read"]), observation(2, 20, 10, &["read"]), observation(3, 40, 10, &["read"])];
    for (n, o) in all.iter_mut().enumerate() {
        o.revision.capabilities = CAN.map(str::to_owned).into();
        *o = using(o.clone(), if n < 2 { had } else { has }, 20 * n as i64 + 1);
    }
    waiting(&through(&all, &auto()).0).into_iter().map(str::to_owned).collect()
}

#[test]
fn a_first_use_of_the_network_and_a_first_capability_wait_for_a_look() {
    for (had, has, item) in [
        (&[][..], "socket 2,1,6", "argument socket 2,1,6"),
        (&["socket 1,1,0", "connect unix /run/x"][..], "socket 10,2,17", "argument socket 10,2,17"),
        (&["socket 2,1,6", "listen tcp 0.0.0.0:80"][..], "connect tcp 10.0.0.1:4444", "syscall connect"),
        (&["socket 2,2,17", "connect udp 10.0.0.2:53"][..], "connect tcp 10.0.0.1:4444", "syscall connect"),
        (&["socket 2,1,6", "connect tcp 10.0.0.1:80"][..], "listen tcp 0.0.0.0:4444", "syscall listen"),
        (&["socket 2,1,6", "connect tcp 10.0.0.1:80"][..], "listen tcp 0.0.0.0:*", "syscall listen"),
        (&["socket 2,2,17"][..], "listen udp 0.0.0.0:4444", "syscall bind"),
        (&["socket 2,1,6"][..], "socket 38,5,0", "argument socket 38,5,0"),
        (&["socket 2,1,6", "socket 16,3,0"][..], "socket 16,3,12", "argument socket 16,3,12"),
        (&["capability CAP_CHOWN"][..], "capability CAP_KILL", "capability CAP_KILL"),
    ] {
        assert_eq!(waits_after(had, &[has]), [item], "{has} after {had:?}");
        crate::profile::items::decided(item).expect("somebody can decide about it");
    }
}

#[test]
fn who_is_on_the_network_already_may_reach_others_there_and_what_stands_for_a_capability_is_known() {
    for (had, has) in [
        (&["socket 2,1,6", "connect tcp 10.0.0.1:80"][..], "connect tcp 10.9.9.9:5432"),
        (&["socket 2,1,6", "connect tcp 10.0.0.1:80"][..], "connect udp 10.0.0.2:53"),
        (&["socket 2,1,6", "listen tcp 0.0.0.0:80"][..], "listen tcp 0.0.0.0:*"),
        (&["socket 2,1,6", "listen tcp 0.0.0.0:443"][..], "listen udp 0.0.0.0:443"),
        (&["socket 2,1,6"][..], "socket 10,2,17"),
        (&["socket 2,1,6"][..], "socket 16,3,0"),
        (&["socket 2,1,6"][..], "listen udp 0.0.0.0:*"),
        (&[][..], "socket 1,1,0"),
        (&[][..], "connect unix /run/log"),
        (&["capability CAP_CHOWN"][..], "capability CAP_DAC_OVERRIDE"),
    ] {
        assert_eq!(waits_after(had, &[has]), Vec::<String>::new(), "{has} after {had:?}");
    }
}

#[test]
fn a_new_revision_may_begin_to_use_the_network_in_its_start_up_and_not_later() {
    let (old, _) = through(&[observation(1, 0, 10, &["read"]), observation(2, 20, 10, &["read"])], &auto());
    let after = |minutes: i64| {
        let o = Observation { revision: revision(2), ..observation(3, 40, 10, &["read"]) };
        let o = using(o, &["socket 2,1,6", "connect tcp 10.0.0.1:80", "capability CAP_KILL"], 40 + minutes);
        fold(Some(&candidate(&old, revision(2), &time(39))), &o, &auto()).0
    };
    assert_eq!(waiting(&after(0)), Vec::<&str>::new());
    assert_eq!(waiting(&after(2)), ["argument socket 2,1,6", "capability CAP_KILL", "syscall connect"]);
    let enforced = after(2).steered(&mut Vec::new()).workload_behaviour;
    assert!(!enforced.capabilities.contains_key("CAP_KILL") && enforced.arguments["socket"].is_empty());
}

#[test]
fn what_was_demoted_still_waits_in_the_next_revision_and_is_not_demoted_twice() {
    let (mut old, _) = through(&[observation(1, 0, 10, &["read"]), observation(2, 20, 10, &["read"])], &auto());
    old.stage = Stage::Enforcing;
    let why = format!("{DEMOTED} syscall mkdir (app)");
    old.step(Stage::Observing, &why, &time(30));
    assert!(was_demoted(&old));
    old.steering.demoted = Some(Decision { at: time(30), why });
    let new = candidate(&old, revision(2), &time(39));
    let told = &new.steering.history.last().expect("a step").why;
    assert!(told.contains("waits for somebody to promote it") && told.contains("syscall mkdir"), "{told}");
    new.check().expect("it can be stored");
    let o = Observation { revision: revision(2), ..observation(3, 40, 10, &["read"]) };
    let (mut after, step) = fold(Some(&new), &o, &auto());
    assert_eq!((after.stage, step), (Stage::Observing, None));
    assert!(waits_for(&after, &auto()).is_some_and(|w| w.contains("syscall mkdir")));
    assert!(was_demoted(&after));
    after.steering.demoted = None;
    after.step(Stage::Enforcing, "by hand", &time(60));
    assert!(was_demoted(&after), "and once somebody has looked, not by itself either");
    old.steering.demoted = None;
    assert!(!was_demoted(&candidate(&old, revision(3), &time(70))), "somebody has looked before the update");
}

#[test]
fn what_was_forbidden_while_learning_already_waits_for_nobody_again_also_in_the_next_revision() {
    let tries = |n, began| {
        let mut o = observation(n, began, 10, &["read"]);
        let seen = super::super::Sighting { windows: 1, first: time(began), last: time(began) };
        let forbidden = super::super::observation::Forbidden { reason: "bad".to_owned(), seen };
        o.forbidden.insert("denied syscall mount".to_owned(), forbidden);
        o
    };
    let (old, stages) = through(&[tries(1, 0), tries(2, 20), tries(3, 40)], &auto());
    assert_eq!(stages.last(), Some(&Stage::Enforcing));
    let new = candidate(&old, revision(2), &time(60));
    let (after, _) = fold(Some(&new), &Observation { revision: revision(2), ..tries(4, 80) }, &auto());
    assert_eq!((after.stage, waiting(&after).len()), (Stage::Enforcing, 0));
}

#[test]
fn a_new_revision_may_run_other_programs_of_its_image_in_its_start_up_and_not_later() {
    let (old, _) = through(&[observation(1, 0, 10, &["read"]), observation(2, 20, 10, &["read"])], &auto());
    let after = |minutes| {
        let mut o = Observation { revision: revision(2), ..observation(3, 40, 10, &["read"]) };
        ran(&mut o, "/usr/bin/envsubst", Origin::Image, minutes);
        fold(Some(&candidate(&old, revision(2), &time(39))), &o, &auto()).0
    };
    assert_eq!(waiting(&after(0)), Vec::<&str>::new());
    assert_eq!(waiting(&after(2)), ["program /usr/bin/envsubst"]);
    let next = candidate(&after(2), revision(3), &time(60));
    assert_eq!(waiting(&next), ["program /usr/bin/envsubst"], "an update does not answer the question");
}

#[test]
fn nothing_moves_without_a_full_start_up_or_by_generations_that_were_not_seen_in_full() {
    let short = |n| observation(n, i64::from(n) * 20, 0, &["read"]);
    let (profile, stages) = through(&[short(1), short(2), short(3)], &auto());
    assert_eq!(stages, [Stage::Learning; 3]);
    assert_eq!(waits_for(&profile, &auto()).as_deref(), Some("a full start-up"));
    let lossy = |n| {
        let mut o = observation(n, i64::from(n) * 20, 10, &["read"]);
        o.loss.table_full = 1;
        o
    };
    let (profile, stages) = through(&[lossy(1), lossy(2), lossy(3)], &auto());
    assert_eq!(stages, [Stage::Learning; 3]);
    assert!(waits_for(&profile, &auto()).is_some_and(|w| w.contains("seen in full")));
    let (_, stages) =
        through(&[observation(1, 0, 10, &["read"]), observation(2, 20, 10, &["read"]), lossy(3)], &auto());
    assert_eq!(stages.last(), Some(&Stage::Observing), "nor does it end observing");
}

#[test]
fn nothing_moves_over_the_risk_or_under_the_number_of_generations() {
    let all: Vec<Observation> = (1..6).map(|n| observation(n, i64::from(n) * 20, 10, &["read"])).collect();
    let careful = Auto { risk_ppm: 10_000, ..auto() };
    assert_eq!(through(&all, &careful).1, [Stage::Learning; 5]);
    assert!(waits_for(&through(&all, &careful).0, &careful).is_some_and(|w| w.contains("under 1 %")));
    let many = Auto { generations: 4, observe_generations: 2, ..auto() };
    let expected = [Stage::Learning, Stage::Learning, Stage::Learning, Stage::Observing, Stage::Observing];
    assert_eq!(through(&all, &many).1, expected);
    assert_eq!(waits_for(&through(&all, &many).0, &many).as_deref(), Some("1 generation with nothing new"));
}

#[test]
fn what_is_held_or_was_demoted_does_not_move_by_itself() {
    let (learnt, _) = through(&[observation(1, 0, 10, &["read"])], &auto());
    let next = observation(2, 20, 10, &["read"]);
    let mut held = learnt.clone();
    held.steering.held = true;
    assert_eq!(fold(Some(&held), &next, &auto()).0.stage, Stage::Learning);
    let (mut demoted, _) = through(&[observation(1, 0, 10, &["read"]), next], &auto());
    demoted.steering.demoted = Some(Decision { at: time(31), why: "x".to_owned() });
    let (after, step) = fold(Some(&demoted), &observation(3, 40, 10, &["read"]), &auto());
    assert_eq!((after.stage, step), (Stage::Observing, None));
    assert!(waits_for(&after, &auto()).is_some_and(|w| w.contains("somebody to promote it")));
}

#[test]
fn a_new_revision_begins_with_what_was_seen_and_decided_and_in_the_middle() {
    let mut old = staged(Stage::Enforcing);
    let decision = Decision { at: time(1), why: "by hand".to_owned() };
    old.steering.decide("syscall mkdir".to_owned(), false, decision);
    (old.steering.held, old.steering.canary) =
        (true, Some(Canary { container: "a".to_owned(), since: time(0), refused: false }));
    let new = candidate(&old, revision(2), &time(100));
    assert_eq!((new.stage, new.revision.digest.as_str()), (Stage::Observing, revision(2).digest.as_str()));
    assert_eq!(new.workload_behaviour, old.workload_behaviour);
    assert_eq!(new.steering.allowed, old.steering.allowed);
    assert_eq!((new.steering.held, &new.steering.canary), (false, &None));
    assert_eq!(new.steering.candidate.as_deref(), Some(old.revision.digest.as_str()));
    assert_eq!(differing(&old.revision, &new.revision), ["image"]);
    new.check().expect("it can be stored");
    let own = Observation { revision: revision(2), ..observation(9, 120, 10, &["read"]) };
    let (after, step) = fold(Some(&new), &own, &Auto { generations: 1, ..auto() });
    assert_eq!((after.stage, step.map(|s| s.to)), (Stage::Enforcing, Some(Stage::Enforcing)));
}
