//! Words and numbers that people write, and those that nobody should.

use proptest::prelude::*;

use super::*;

#[test]
fn sizes_and_durations_that_people_write_are_read() {
    assert_eq!(size("64m"), Ok(64 << 20));
    assert_eq!(size("1GiB"), Ok(1 << 30));
    assert_eq!(size("4096"), Ok(4096));
    assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * DAY)));
    for text in ["", "m", "-1", "1.5g", "64 m", "64mm", "99999999999g", "+5", "1e3"] {
        assert!(size(text).is_err(), "{text}");
    }
    for text in ["", "60", "1m1h", "1s1s", "s", "-1s", "1 s", "99999999999999999999d", "9999d", "1é"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn a_misspelt_word_is_refused_with_what_was_meant() {
    assert_eq!(mode("auto"), Ok(Mode::Auto));
    assert!(exec("denny").unwrap_err().contains("did you mean \"deny\"?"));
    assert!(mode("lern").unwrap_err().contains("did you mean \"learn\"?"));
    assert!(mode("enfroce").unwrap_err().contains("did you mean \"enforce\"?"));
    assert!(rootfs("Sealed").unwrap_err().contains("did you mean \"sealed\"?"));
    assert!(escalation("restart").unwrap_err().contains("\"stop\" or \"pause\""));
}

#[test]
fn a_chance_is_over_nothing_and_at_most_certain() {
    assert_eq!((chance(0.01), chance(1.0), chance(1e-6)), (Ok(10_000), Ok(1_000_000), Ok(1)));
    for number in [0.0, -0.1, 1.1, 1e-9, f64::NAN, f64::INFINITY] {
        assert!(chance(number).is_err(), "{number}");
    }
}

#[test]
fn a_restart_limit_has_bounds() {
    let want = RestartLimit { count: 5, window: Duration::from_secs(60) };
    assert_eq!(restart_limit("5/60s"), Ok(want));
    assert_eq!(restart_limit("5/1m"), Ok(want));
    for text in ["5", "0/60s", "1001/60s", "5/0s", "5/25h", "/60s", "5/", "+5/60s", "5/60"] {
        assert!(restart_limit(text).is_err(), "{text}");
    }
}

#[test]
fn scratch_lists_take_sizes_and_exec_in_any_order() {
    let list = scratch("/tmp:64m,/run:exec, /data:exec:1g").unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!((list[0].size_bytes, list[0].exec), (Some(64 << 20), false));
    assert_eq!((list[1].size_bytes, list[1].exec), (None, true));
    assert_eq!((list[2].size_bytes, list[2].exec), (Some(1 << 30), true));
    assert_eq!(scratch(""), Ok(vec![]));
}

#[test]
fn scratch_paths_that_mean_something_else_than_they_say_are_refused() {
    for text in [
        "tmp",
        "/",
        "/tmp/",
        "//tmp",
        "/tmp/../etc",
        "/tmp/./x",
        "/..",
        "/proc/x",
        "/sys",
        "/tmp,/tmp",
        "/tmp:4g:4g",
        "/tmp:noexec",
        "/tmp:",
        "/tmp,",
        ",",
        "/t\nmp",
        "/tmp:1k",
    ] {
        assert!(scratch(text).is_err(), "{text:?}");
    }
    let many: Vec<String> = (0..33).map(|i| format!("/s{i}")).collect();
    assert!(scratch(&many.join(",")).is_err());
}

#[test]
fn system_folders_are_protected_and_their_namesakes_are_not() {
    for path in ["/etc", "/etc/x", "/usr/local", "/lib64", "/libx32/a", "/bin", "/dev/shm", "/boot/x"] {
        assert!(is_protected(Path::new(path)), "{path}");
    }
    for path in ["/tmp", "/var/lib/x", "/etcetera", "/run", "/home/u", "/srv/lib"] {
        assert!(!is_protected(Path::new(path)), "{path}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in ".{0,80}") {
        let _ = (size(&text), duration(&text), restart_limit(&text), renew_every(&text));
        let _ = (scratch(&text), mode(&text), rootfs(&text), response(&text));
    }

    #[test]
    fn a_shown_duration_reads_back(ms in 0u64..=3650 * DAY * 1000) {
        let value = Duration::from_millis(ms);
        prop_assert_eq!(duration(&show_duration(value)), Ok(value));
    }

    #[test]
    fn a_size_is_its_number_times_its_unit(n in 0u64..1024, unit in 0usize..4) {
        prop_assert_eq!(size(&format!("{n}{}", ["", "k", "m", "g"][unit])), Ok(n << (10 * unit)));
    }

    #[test]
    fn every_accepted_scratch_path_is_absolute_and_plain(text in "[/a.t:,0-9m-]{0,40}") {
        for one in scratch(&text).unwrap_or_default() {
            prop_assert!(one.path.is_absolute());
            prop_assert!(one.path.components().skip(1).all(|c| matches!(c, Component::Normal(_))));
        }
    }
}
