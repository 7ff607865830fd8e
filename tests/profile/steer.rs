//! `lithifyctl profile promote`, `hold`, `rollback`, `allow` and `deny` as people run them, and what the store keeps of it.

use lithify::events::EventType;
use lithify::events::reader::{Filter, Reader};
use lithify::policy::Auto;
use lithify::profile::{Profile, Stage, stages, store};

use super::build;
use super::ctl::Node;

/// A node that has learnt two generations of one revision.
fn learnt() -> Node {
    let node = Node::new();
    for n in 1..=2 {
        store::fold_observation(&node.data(), &build::full(n)).unwrap();
    }
    node
}

fn told(node: &Node, event_type: EventType) -> Vec<(String, String)> {
    let filter = Filter { event_type: Some(event_type), ..Filter::default() };
    let mut journal = Reader::open(&node.data(), filter).unwrap();
    let events = std::iter::from_fn(|| journal.next_event().unwrap());
    events.map(|e| (e.data["to"].as_str().unwrap().to_string(), e.data["why"].as_str().unwrap().to_string())).collect()
}

#[test]
fn promote_goes_stage_by_stage_or_straight_to_one_and_each_step_is_kept_and_told() {
    let node = learnt();
    let ran = node.profile(&["promote", "web"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.starts_with("web@000000000000 is observing, from each container's next start, and waits for "),
        "{}",
        ran.out
    );
    assert_eq!(node.profile(&["promote", "web", "--why", "looked at it"]).code, 0);
    let profile = node.stored(1);
    assert_eq!(profile.stage, Stage::Enforcing);
    assert_eq!(profile.steering.history.last().unwrap().why, "looked at it");
    let ran = node.profile(&["promote", "web"]);
    assert!(ran.code == 1 && ran.err.contains("enforced already"), "{}", ran.err);
    let told = told(&node, EventType::Promoted);
    let expected = [("observing", "promoted by hand"), ("enforcing", "looked at it")];
    assert_eq!(told, expected.map(|(to, why)| (to.to_string(), why.to_string())));
    let finished = learnt();
    assert_eq!(finished.profile(&["finish", "web"]).code, 0);
    let expected = ("observing".to_string(), "learning was ended by hand".to_string());
    assert_eq!(self::told(&finished, EventType::Promoted), [expected]);
    let straight = learnt();
    assert_eq!(straight.json(&["promote", "web", "--to", "enforcing"])["stage"], "enforcing");
    let ran = straight.profile(&["promote", "web", "--to", "observing"]);
    assert!(ran.code == 1 && ran.err.contains("rollback"), "{}", ran.err);
}

#[test]
fn a_partial_profile_is_promoted_only_by_force() {
    let node = Node::new();
    let mut o = build::full(1);
    o.loss.table_full = 1;
    store::fold_observation(&node.data(), &o).unwrap();
    let ran = node.profile(&["promote", "web"]);
    assert!(ran.code == 1 && ran.err.contains("partial") && ran.err.contains("--force"), "{}", ran.err);
    assert_eq!(node.stored(1).stage, Stage::Learning);
    assert_eq!(node.profile(&["promote", "web", "--force"]).code, 0);
    assert_eq!(node.stored(1).stage, Stage::Observing);
}

#[test]
fn a_profile_in_which_something_waits_for_a_look_is_enforced_only_by_force_or_once_somebody_has_decided() {
    let waits = || {
        let node = learnt();
        node.profile(&["promote", "web"]);
        let mut o = build::full(3);
        let program = build::program(build::seen(3, 3, 1), lithify::profile::behaviour::Origin::Volume);
        o.workload_behaviour.programs.insert("/data/x".to_string(), program);
        let easy = Auto { risk_ppm: 1_000_000, observe_windows: 1, ..Auto::default() };
        store::fold_by_rules(&node.data(), &o, &easy, &build::time(500)).unwrap();
        node
    };
    let node = waits();
    let ran = node.profile(&["promote", "web"]);
    let typed = "lithifyctl profile allow web@000000000000 'program /data/x'";
    assert!(ran.code == 1 && ran.err.contains(typed) && ran.err.contains("--force"), "{}", ran.err);
    let shown = node.profile(&["show", "web"]).out;
    assert!(shown.contains("WAITING for somebody") && shown.contains(typed), "{shown}");
    assert!(node.profile(&["list"]).out.contains("1 WAITING"), "{}", node.profile(&["list"]).out);
    assert_eq!(node.profile(&["deny", "web", "program /data/x"]).code, 0);
    assert_eq!(node.json(&["promote", "web"])["stage"], "enforcing");
    let forced = waits();
    assert_eq!(forced.json(&["promote", "web", "--force"])["stage"], "enforcing");
    assert!(forced.stored(1).steering.waiting.is_empty());
    assert!(forced.stored(1).steered(&mut Vec::new()).workload_behaviour.programs.contains_key("/data/x"));
}

#[test]
fn rollback_goes_one_stage_back_and_holds_the_profile_there() {
    let node = learnt();
    node.profile(&["promote", "web", "--to", "enforcing"]);
    assert_eq!(node.json(&["rollback", "web"])["stage"], "observing");
    assert!(node.stored(1).steering.held);
    assert_eq!(told(&node, EventType::Demoted).len(), 1);
    let easy = Auto { risk_ppm: 1_000_000, generations: 1, observe_windows: 1, ..Auto::default() };
    let now = build::time(500);
    let (after, step) = store::fold_by_rules(&node.data(), &build::full(7), &easy, &now).unwrap();
    assert_eq!((after.stage, step), (Stage::Observing, None), "time does not undo it");
    assert!(node.profile(&["hold", "web", "--release"]).out.contains("observing"));
    assert!(!node.stored(1).steering.held);
    assert_eq!(node.json(&["rollback", "web"])["stage"], "learning");
    let ran = node.profile(&["rollback", "web"]);
    assert!(ran.code == 1 && ran.err.contains("no stage before"), "{}", ran.err);
}

#[test]
fn rollback_to_a_revision_begins_anew_with_what_that_was_seen_to_do() {
    let node = learnt();
    let mut next = build::full(3);
    next.revision = build::revision(0x2000_0000);
    next.workload_behaviour.syscalls.insert("connect".to_string(), build::seen(1, 5, 3));
    store::fold_observation(&node.data(), &next).unwrap();
    let digest = build::id(0x2000_0000);
    let of = |digest: &str| format!("web@{digest}");
    assert_eq!(node.profile(&["promote", &of(&digest), "--to", "enforcing"]).code, 0);
    let rolled = node.json(&["rollback", &of(&digest), "--to-revision", &build::id(1)]);
    assert_eq!(rolled["stage"], "observing", "{rolled}");
    let profile = node.stored(0x2000_0000);
    assert!(!profile.workload_behaviour.syscalls.contains_key("connect"));
    assert_eq!(profile.steering.candidate, Some(build::id(1)));
    assert_eq!(profile.steering.history.len(), 2);
    let ran = node.profile(&["rollback", &of(&digest), "--to-revision", &digest]);
    assert!(ran.code == 1 && ran.err.contains("itself"), "{}", ran.err);
}

#[test]
fn allow_and_deny_take_items_as_they_are_shown_and_the_later_one_holds() {
    let node = learnt();
    let ran =
        node.profile(&["allow", "web", "syscall", "mkdir", "capability net_raw", "write /srv/*", "--why", "a ticket"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("web@000000000000: capability CAP_NET_RAW is allowed"), "{}", ran.out);
    assert!(
        ran.out.contains("write /srv/* is allowed, from each container's next start: /srv is a scratch"),
        "{}",
        ran.out
    );
    let steering = node.stored(1).steering;
    let items: Vec<&String> = steering.allowed.keys().collect();
    assert_eq!(items, ["capability CAP_NET_RAW", "syscall mkdir", "write /srv/*"]);
    assert_eq!(steering.allowed["syscall mkdir"].why, "a ticket");
    assert_eq!(node.profile(&["deny", "web", "syscall mkdir"]).code, 0);
    let steering = node.stored(1).steering;
    assert!(steering.denied.contains_key("syscall mkdir") && !steering.allowed.contains_key("syscall mkdir"));
    for (item, says) in [
        ("syscall mkdri", "there is no system call \"mkdri\"; did you mean \"mkdir\"?"),
        ("argument unhsare 0", "did you mean \"unshare\"?"),
        ("syscall i386:scoketcall", "did you mean \"i386:socketcall\"?"),
        ("capability chwon", "did you mean \"CAP_CHOWN\"?"),
        ("program /memfd:x", "a program without a file"),
        ("capability CAP_EVERYTHING", "no capability"),
        ("write srv/x", "not absolute"),
        ("program /bin/../x", "not absolute"),
        ("listen tcp 0.0.0.0:80", "write its kind"),
        ("mkdir", "write its kind"),
    ] {
        let ran = node.profile(&["allow", "web", item]);
        assert!(ran.code == 2 && ran.err.contains(says), "{item}: {} {}", ran.code, ran.err);
    }
    for (item, says) in [("write /etc/web/*", "would hide system files"), ("write /x", "directly in the root")] {
        let ran = node.profile(&["allow", "web", item]);
        assert!(
            ran.code == 1 && ran.err.contains(says) && ran.err.contains("deny"),
            "{item}: {} {}",
            ran.code,
            ran.err
        );
    }
    let shown = node.profile(&["show", "web"]).out;
    assert!(shown.contains("ALLOWED by hand (2)") && shown.contains("DENIED by hand (1)"), "{shown}");
    assert!(node.profile(&["list"]).out.contains("3 by hand"));
}

#[test]
fn what_can_not_be_denied_is_refused_with_the_reason_and_nothing_is_changed() {
    let node = learnt();
    let decided = |item: &str| node.profile(&["deny", "web", item]);
    for (item, says) in [
        ("syscall exit_group", "every process needs it"),
        ("syscall write", "can't be denied"),
        ("syscall getdents64", "can't be denied"),
        ("argument clone 0", "looks the same to a filter"),
        ("program /usr/*/*", "deny each of the image's by its own path"),
    ] {
        let mut with = build::full(9);
        let program = build::program(build::seen(3, 3, 1), lithify::profile::behaviour::Origin::Image);
        with.workload_behaviour.programs.insert("/usr/bin/curl".to_string(), program);
        with.workload_behaviour.syscalls.insert("clone".to_string(), build::seen(1, 5, 3));
        store::fold_observation(&node.data(), &with).unwrap();
        let ran = decided(item);
        assert!(ran.code == 1 && ran.err.contains(says), "{item}: {} {} {}", ran.code, ran.out, ran.err);
    }
    assert!(node.stored(1).steering.denied.is_empty(), "{:?}", node.stored(1).steering.denied);
    assert_eq!(decided("syscall mkdir").code, 0);
}

#[test]
fn a_denial_of_a_program_says_what_becomes_of_it_and_the_only_one_that_ran_can_not_be_denied() {
    let node = learnt();
    let programs: Vec<String> = node.stored(1).workload_behaviour.programs.keys().cloned().collect();
    let [only] = programs.as_slice() else { panic!("{programs:?}") };
    let deny = |path: &str| node.profile(&["deny", "web", &format!("program {path}")]);
    let ran = deny(only);
    assert!(ran.code == 1 && ran.err.contains("what its containers begin with"), "{} {}", ran.out, ran.err);
    let said = deny("/usr/bin/curl").out;
    assert!(
        said.contains("is denied, from each container's next start: it is killed before it begins")
            && said.contains("never seen to run"),
        "{said}"
    );
    let mut with = build::full(3);
    let program = build::program(build::seen(3, 3, 1), lithify::profile::behaviour::Origin::Image);
    with.workload_behaviour.programs.insert("/usr/bin/curl".to_string(), program);
    store::fold_observation(&node.data(), &with).unwrap();
    let said = deny("/usr/bin/curl").out;
    assert!(said.contains("seen to run in 1 of 3 lives"), "{said}");
}

#[test]
fn a_write_is_not_denied_where_another_one_keeps_its_place_writable() {
    let node = Node::new();
    let mut o = build::full(1);
    o.workload_behaviour.writes.clear();
    for path in ["/srv/cache/a", "/srv/cache/b"] {
        o.workload_behaviour.writes.insert(path.to_string(), build::write(build::seen(0, 0, 1)));
    }
    store::fold_observation(&node.data(), &o).unwrap();
    let ran = node.profile(&["deny", "web", "write /srv/cache/a"]);
    assert!(ran.code == 1 && ran.err.contains("\"/srv/cache/b\""), "{} {}", ran.out, ran.err);
    assert_eq!(node.profile(&["deny", "web", "write /srv/cache/a", "write /srv/cache/b"]).code, 0);
}

#[test]
fn what_is_steered_is_read_back_as_it_was_and_what_contradicts_itself_is_not() {
    let mut profile = Profile::of(&build::full(1));
    profile.steering = build::steering();
    let text = store::encode(&profile).unwrap();
    assert_eq!(Profile::parse(&text).unwrap(), profile);
    let mut both = profile.clone();
    both.steering.denied.insert("syscall mkdir".to_string(), profile.steering.allowed["syscall mkdir"].clone());
    assert!(format!("{:#}", both.check().unwrap_err()).contains("both allowed and denied"));
    let mut unknown = profile.clone();
    unknown.steering.allowed.insert("syscall nothing".to_string(), profile.steering.allowed["syscall mkdir"].clone());
    assert!(unknown.check().is_err());
    let mut long = profile;
    long.steering.demoted.as_mut().unwrap().why = "x".repeat(2000);
    assert!(long.check().is_err());
}

#[test]
fn a_candidate_is_the_newest_before_anybody_has_run_it_and_validate_takes_one_revision() {
    let node = learnt();
    let old = node.stored(1);
    let new = stages::candidate(&old, build::revision(0), &build::time(50));
    store::update_profile(&node.data(), "web", &build::id(0), |_| Ok(new)).unwrap();
    assert_eq!(store::newest_profile(&node.data(), "web").unwrap().unwrap().revision.digest, build::id(0));
    let ran = node.profile(&["validate", &format!("web@{}", build::id(1))]);
    assert_eq!((ran.code, ran.out.lines().count()), (0, 1), "{} {}", ran.out, ran.err);
    assert!(node.profile(&["show", "web"]).out.contains("began with   what revision 000000000000 was seen to do"));
}
