//! What honest services do that looks like an intruder's work: it neither becomes policy by itself nor ends them.

use super::*;

/// Tomcat makes a folder in /etc at each start, and goes on where it can't; what writes its settings there does not.
#[test]
fn what_each_start_does_against_the_baseline_waits_for_a_look_before_it_would_be_refused_at_each_start() {
    let lives = |item: &str, lives: std::ops::RangeInclusive<u8>| -> Vec<Observation> {
        let all = (1..=4).map(|n| observation(n, i64::from(n) * 20, 10, &["read"]));
        let did = all.map(|mut o| {
            if lives.contains(&(o.id.as_bytes()[31] - b'0')) {
                forbid(&mut o, item);
            }
            o
        });
        did.collect()
    };
    let write = "write /etc/app/state";
    let (profile, stages) = through(&lives(write, 1..=4), &auto());
    assert_eq!((stages.last(), waiting(&profile)), (Some(&Stage::Observing), vec![write]));
    let mut decided = profile.clone();
    decided.steering.decide(write.to_owned(), true, Decision { at: time(200), why: "it does without".to_owned() });
    let mut again = observation(6, 220, 10, &["read"]);
    forbid(&mut again, write);
    assert_eq!(fold(Some(&decided), &again, &auto()).0.stage, Stage::Enforcing);
    // What the engine refuses anyway, life after life, can't be missed; once may have been anybody.
    let keyring = "denied syscall keyctl";
    assert_eq!(through(&lives(keyring, 1..=4), &auto()).1.last(), Some(&Stage::Enforcing));
    assert_eq!(waiting(&through(&lives(keyring, 1..=1), &auto()).0), ["syscall keyctl"]);
    assert_eq!(waiting(&through(&lives("denied syscall init_module", 1..=4), &auto()).0), ["syscall init_module"]);
    assert_eq!(through(&lives("exec: write /etc/app/state", 1..=4), &auto()).1.last(), Some(&Stage::Enforcing));
}

/// Postfix runs `bounce` when a mail can't be delivered, which a quiet day does not show.
#[test]
fn another_helper_beside_those_that_were_seen_waits_for_nobody_and_a_shell_does() {
    let path = |name: &str| format!("/usr/lib/postfix/sbin/{name}");
    let waits_for = |helpers: &[&str], new: &str| {
        let mut all = [1, 2, 3].map(|n| observation(n, i64::from(n - 1) * 20, 10, &["read"]));
        for o in &mut all {
            helpers.iter().for_each(|name| ran(o, &path(name), Origin::Image, 0));
        }
        ran(&mut all[2], new, Origin::Image, 0);
        waiting(&through(&all, &auto()).0).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let several = ["master", "qmgr", "smtpd"];
    assert_eq!(waits_for(&several, &path("bounce")), Vec::<String>::new());
    assert_eq!(waits_for(&several[1..], &path("bounce")), ["program /usr/lib/postfix/sbin/bounce"]);
    assert_eq!(waits_for(&several, "/usr/lib/postfix/sbin/deep/er"), ["program /usr/lib/postfix/sbin/deep/er"]);
    assert_eq!(waits_for(&several, "/bin/sh"), ["program /bin/sh"]);
    // Whatever was seen of them, folders of everyone's tools are none of helpers.
    for folder in ["/usr/bin", "/sbin", "/usr/local/sbin", "/opt/conda/bin", ""] {
        let mut profile = observation(1, 0, 10, &["read"]);
        ["a", "b", "c", "d"].iter().for_each(|name| ran(&mut profile, &format!("{folder}/{name}"), Origin::Image, 0));
        assert_eq!(crate::profile::doubtful::helpers(&Profile::of(&profile)), [].into(), "{folder}");
    }
}
