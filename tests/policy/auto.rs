//! What holds once it is known how far a profile has come.

use std::collections::BTreeMap;

use lithify::policy::annotations::settle;
use lithify::policy::config::Overrides;
use lithify::policy::{Mode, Policy, Response, RootfsKind, Standing};

use super::{config, refused};

fn settled(text: &str, pairs: &[(&str, &str)], standing: Standing) -> Policy {
    let annotations: BTreeMap<String, String> =
        pairs.iter().map(|(k, v)| (format!("lithify.dev/{k}"), v.to_string())).collect();
    settle(&config(text), &Overrides::default(), &annotations, Some("web"), standing).unwrap()
}

#[test]
fn auto_is_what_its_profile_has_come_to_and_changes_nothing_before_it_enforces() {
    let pod = [("scratch", "/tmp"), ("on-refused-syscall", "stop")];
    for (standing, mode) in [(Standing::Learning, Mode::Learn), (Standing::Observing, Mode::Observe)] {
        let policy = settled("on-write = \"restart\"", &pod, standing);
        assert_eq!((policy.mode, policy.auto, policy.is_hands_off()), (mode, true, true));
        assert_eq!((policy.on_write, policy.on_refused_syscall), (Response::Report, Response::Report));
    }
    let policy = settled("", &pod, Standing::Enforced);
    assert_eq!((policy.mode, policy.auto, policy.rootfs), (Mode::Enforce, true, RootfsKind::Sealed));
    assert_eq!((policy.on_refused_write, policy.on_refused_syscall), (Response::Restart, Response::Stop));
    assert_eq!(policy.scratch.len(), 1);
    let sealed = settled("", &[("rootfs", "sealed")], Standing::Learning);
    assert_eq!(
        (sealed.mode, sealed.rootfs),
        (Mode::Learn, RootfsKind::Sealed),
        "what somebody sets holds in every mode"
    );
}

#[test]
fn only_auto_follows_the_profile() {
    for (asked, mode) in
        [("off", Mode::Off), ("learn", Mode::Learn), ("observe", Mode::Observe), ("enforce", Mode::Enforce)]
    {
        for standing in [Standing::Learning, Standing::Observing, Standing::Immutable, Standing::Enforced] {
            let policy = settled("", &[("mode", asked)], standing);
            assert_eq!((policy.mode, policy.auto), (mode, false), "{asked} {standing:?}");
        }
    }
}

#[test]
fn what_nothing_is_known_about_is_refused_without_an_answer_unless_somebody_chose_one() {
    let policy = settled("", &[("mode", "enforce")], Standing::Immutable);
    assert_eq!((policy.on_write, policy.on_refused_write), (Response::Restart, Response::Report));
    assert_eq!(policy.on_refused_syscall, Response::Report);
    let chosen = settled("on-refused-write = \"stop\"", &[("mode", "enforce")], Standing::Immutable);
    assert_eq!((chosen.on_refused_write, chosen.on_refused_syscall), (Response::Stop, Response::Report));
    let reports = settled("on-write = \"report\"", &[("mode", "enforce")], Standing::Enforced);
    assert_eq!(reports.on_refused_write, Response::Report, "as on-write");
    let engine = settled("", &[("mode", "enforce"), ("rootfs", "engine")], Standing::Enforced);
    assert_eq!(engine.on_refused_syscall, Response::Report);
    assert!(refused("", &[("rootfs", "engine"), ("on-refused-write", "restart")]).contains("pristine"));
}
