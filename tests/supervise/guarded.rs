//! What the guard tells becomes breaches: refused writes and foreign programs, each with its own response.

use lithify::guard::Limits;
use lithify::policy::{Policy, Response};
use lithify::record::Phase;
use lithify::supervise::launch::Outcome;

use crate::harness::Test;
use crate::world::{RUNC, World};

pub const TESTS: &[Test] = &[
    ("guarded::a_refused_write_is_told_and_a_known_one_is_not", writes),
    ("guarded::a_known_path_that_leads_elsewhere_by_a_link_of_the_containers_own_is_told", linked),
    ("guarded::after_a_flood_of_known_writes_another_is_told_or_that_something_was_lost_is", known_flood),
    ("guarded::a_flood_of_refused_writes_is_told_as_a_loss_while_it_lasts", flood),
    ("guarded::a_program_that_removes_what_an_earlier_life_may_have_left_is_not_told_and_does_not_begin_again", tidies),
    ("guarded::a_foreign_program_is_killed_and_the_container_begins_again", foreign),
    ("guarded::a_denied_program_of_the_image_is_killed_and_told_by_its_item_and_the_container_goes_on", denied),
    ("guarded::a_program_that_was_allowed_by_hand_runs_and_another_one_beside_it_does_not", allowed),
    ("guarded::without_a_loader_the_container_runs_and_says_what_is_missing", unguarded),
];

fn policy(world: &World, on_write: Response, others: Response) -> Policy {
    Policy { on_write, on_refused_write: others, on_refused_syscall: others, ..world.policy() }
}

fn writes() {
    let mut world = World::new(RUNC);
    let limits = Limits { known_writes: ["/known*".to_owned()].into(), listener: false, ..world.limits() };
    let config = world.config("touch /known.pyc; touch /unheard; echo done >/out/done; exec sleep 1000");
    let policy = policy(&world, Response::Restart, Response::Report);
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    let breach = world.wait_for("breach", |data| data["kind"] == "refused-write");
    assert_eq!((&breach["path"], &breach["response"]), (&"/unheard".into(), &"report".into()), "{breach}");
    world.wait_written("done");
    assert_eq!(world.record().phase, Phase::Running);
    world.end();
    assert!(!world.events().iter().any(|event| event.to_string().contains("known.pyc")), "{:#?}", world.events());
    assert_eq!(world.of("exited").len(), 1);
    assert!(!world.sensor().guard().pins.exists(), "the last container unloads the guard");
}

fn linked() {
    let mut world = World::new(RUNC);
    let known = ["/out/cache/*".to_owned(), "/known*".to_owned()];
    let limits = Limits { known_writes: known.into(), listener: false, ..world.limits() };
    // What the path says, and where it leads: by a link that it has made; by one's folder; by a name that climbs; and not at all.
    let config = world.config(
        "mkdir -p /out/cache/d; ln -s /bin/planted /out/cache/x; ln -s /bin /out/cache/e; \
         for path in /out/cache/x /out/cache/e/planted /out/cache/e/../known /known.pyc /out/cache/../../known.pyc; do \
         command : 2>/dev/null >$path; done; touch /unheard; echo done >/out/done; exec sleep 1000",
    );
    let policy = policy(&world, Response::Restart, Response::Report);
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    world.wait_for("breach", |data| data.to_string().contains("/unheard"));
    let told = format!("{:?}", world.of("breach"));
    world.end();
    for path in ["/out/cache/x", "/out/cache/known", "/out/cache/e/planted"] {
        assert!(told.contains(&format!("\"{path}\"")), "{path} led to what it did not say: {told}");
    }
    assert!(!told.contains("/known.pyc"), "{told}");
}

/// Tries to make so many files, by a shell alone.
fn floods(world: &World, name: &str) -> serde_json::Value {
    let script = "i=0; while [ $i -lt 3000 ]; do command : 2>/dev/null >/NAME$i; i=$((i+1)); done; touch /unheard; echo done >/out/done; exec sleep 1000";
    world.config(&script.replace("NAME", name))
}

fn known_flood() {
    let mut world = World::new(RUNC);
    let limits = Limits { known_writes: ["/known*".to_owned()].into(), listener: false, ..world.limits() };
    let config = floods(&world, "known");
    let policy = policy(&world, Response::Restart, Response::Report);
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    let told = |data: &serde_json::Value| ["/unheard", "(unknown)"].iter().any(|path| data.to_string().contains(path));
    let breach = world.wait_for("breach", told);
    assert_eq!((&breach["kind"], &breach["response"]), (&"refused-write".into(), &"report".into()), "{breach}");
    world.end();
}

fn flood() {
    let mut world = World::new(RUNC);
    let limits = Limits { listener: false, ..world.limits() };
    let config = floods(&world, "news");
    let policy = policy(&world, Response::Restart, Response::Report);
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    world.wait_for("breach", |data| data.to_string().contains("(unknown)"));
    let lost = |data: &serde_json::Value| data["reason"].as_str().is_some_and(|r| r.contains("could not tell all"));
    world.wait_for("degraded", lost);
    assert_eq!(world.of("exited").len(), 0, "it is told while the container runs");
    world.end();
}

fn tidies() {
    let mut world = World::new(RUNC);
    let limits = Limits { listener: false, ..world.limits() };
    let script = "b=/bin/busybox; $b unlink /app.pid; $b unlink /bin/app.sock; $b rmdir /app.d; echo done >/out/done; while [ ! -e /out/go ]; do sleep 0.1; done; $b unlink /bin/busybox; exec sleep 1000";
    let config = world.config(script);
    let policy = policy(&world, Response::Restart, Response::Stop);
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    world.wait_written("done");
    assert_eq!((world.of("breach"), world.record().phase), (Vec::new(), Phase::Running));
    std::fs::write(world.path("out").join("go"), "").expect("a file");
    let breach = world.wait_for("breach", |data| data["kind"] == "refused-write");
    assert_eq!((&breach["path"], &breach["response"]), (&"/bin/busybox".into(), &"stop".into()), "{breach}");
    world.eventually("its end", || (world.record().phase == Phase::Stopped).then_some(()));
    assert!(!world.events().iter().any(|event| event.to_string().contains("app.")), "{:#?}", world.events());
}

fn foreign() {
    let mut world = World::new(RUNC);
    let limits = Limits { kill_foreign: true, listener: false, ..world.limits() };
    let script = "[ -e /out/once ] && { echo again >/out/again; exec sleep 1000; }; : >/out/once; cp /bin/busybox /out/x; /out/x touch /out/lived; exec sleep 1000";
    let config = world.config(script);
    let policy = policy(&world, Response::Restart, Response::Report);
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    let breach = world.wait_for("breach", |data| data["kind"] == "foreign-program");
    assert_eq!((&breach["path"], &breach["killed"]), (&"/out/x".into(), &true.into()), "{breach}");
    assert_eq!(breach["response"], "restart", "{breach}");
    world.wait_written("again");
    assert_eq!(world.written("lived"), None);
    world.eventually("the second generation", || (world.record().generation == 2).then_some(()));
}

fn denied() {
    let mut world = World::new(RUNC);
    let item = "program /bin/busybox";
    let limits = Limits {
        denied: [item.to_owned()].into(),
        denied_habits: [item.to_owned()].into(),
        listener: false,
        ..world.limits()
    };
    nix::unistd::mkfifo(&world.path("out").join("never"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let config = world.config("/bin/busybox touch /out/made; echo $? >/out/status; read x </out/never");
    let policy = policy(&world, Response::Restart, Response::Restart);
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    assert_eq!((world.wait_written("status"), world.written("made")), ("137\n".to_owned(), None));
    let breach = world.wait_for("breach", |data| data["kind"] == "denied-program");
    assert_eq!((&breach["item"], &breach["killed"]), (&item.into(), &true.into()), "{breach}");
    assert_eq!((&breach["origin"], &breach["response"]), (&"image".into(), &"report".into()), "{breach}");
    assert_eq!((world.record().phase, world.record().generation), (Phase::Running, 1));
}

fn allowed() {
    let mut world = World::new(RUNC);
    let limits = Limits {
        kill_foreign: true,
        listener: false,
        allowed: ["program /out/busybox".to_owned()].into(),
        programs: ["/out/busybox".to_owned()].into(),
        ..world.limits()
    };
    let script = "cp /bin/busybox /out/busybox; cp /bin/busybox /out/other; /out/busybox touch /out/lived; /out/other touch /out/died; echo done >/out/done; exec sleep 1000";
    let config = world.config(script);
    let policy = policy(&world, Response::Report, Response::Report);
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    world.wait_written("done");
    assert_eq!((world.written("lived").is_some(), world.written("died")), (true, None));
    let breach = world.wait_for("breach", |data| data["kind"] == "foreign-program");
    assert_eq!((&breach["item"], &breach["killed"]), (&"program /out/other".into(), &true.into()), "{breach}");
    assert!(!world.events().iter().any(|event| event["data"]["path"] == "/out/busybox"), "{:#?}", world.events());
}

fn unguarded() {
    let mut world = World::new(RUNC);
    world.loader = "/nowhere/lithifyctl".into();
    let config = world.config("echo done >/out/done; exec sleep 1000");
    let policy = policy(&world, Response::Restart, Response::Restart);
    let limits = Limits { listener: false, ..world.limits() };
    assert_eq!(world.launch(config, policy, limits, None, true), Outcome::Ready, "{}", world.log());
    world.wait_written("done");
    let degraded = world.wait_for("degraded", |data| data["reason"].as_str().is_some_and(|r| r.contains("no guard")));
    assert!(degraded["reason"].as_str().is_some_and(|r| r.contains("/nowhere/lithifyctl")), "{degraded}");
}
