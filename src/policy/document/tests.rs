//! What a file says, and that every mistake in one is told.

use super::*;

fn mistakes(text: &str) -> Vec<(usize, String)> {
    Config::parse(text).unwrap_err().into_iter().map(|m| (m.line, m.message)).collect()
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(Config::parse("# nothing\n"), Ok(Config::default()));
}

#[test]
fn every_mistake_is_told_with_its_line() {
    let text = "mode = \"atuo\"\nrotofs = \"sealed\"\nruntimes = []\nstate-dir = \"run\"\nrequire-profile = \"yes\"\n\
                [journal]\nmax-files = 1\nmax-byte = \"1m\"\n";
    let found = mistakes(text);
    let lines: Vec<usize> = found.iter().map(|(l, _)| *l).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 7, 8], "{found:#?}");
    assert!(found[1].1.contains("did you mean \"rootfs\"?"));
    assert!(found[6].1.contains("\"journal.max-byte\"; did you mean \"max-bytes\"?"));
}

#[test]
fn a_syntax_error_is_told_with_its_line_and_nothing_is_guessed() {
    let found = mistakes("mode = \"off\"\nrootfs = \n");
    assert!(found.iter().all(|(line, _)| *line == 2), "{found:?}");
    assert!(!mistakes("mode = \"off\"\nmode = \"off\"\n").is_empty());
}

#[test]
fn settings_that_contradict_each_other_are_mistakes() {
    assert_eq!(mistakes("rootfs = \"engine\"\non-write = \"restart\"\n")[0].0, 2);
    assert_eq!(mistakes("\n[evidence]\nmax-bytes = \"1m\"\n")[0].0, 2);
    assert!(mistakes("runtimes = [\"/usr/bin/lithify\"]")[0].1.contains("its own low-level runtime"));
}

#[test]
fn learning_has_bounds_and_is_not_saved_more_often_than_it_is_looked_at() {
    let learning = |text: &str| Config::parse(&format!("[learning]\n{text}")).map(|config| config.learning);
    let read = learning("window = \"10s\"\ninterval = \"1m\"\ntable-entries = 1000\n").expect("good");
    let want = super::super::Learning {
        window: Duration::from_secs(10),
        interval: Duration::from_secs(60),
        table_entries: 1000,
    };
    assert_eq!(read, want);
    for (text, says) in [
        ("window = \"0s\"", "between 1s and 1h"),
        ("window = 60", "a string in quotes"),
        ("interval = \"25h\"", "between 1s and 1d"),
        ("interval = \"30s\"", "shorter than learning.window"),
        ("table-entries = 255", "between 256 and 1048576"),
        ("windows = \"1s\"", "did you mean \"window\"?"),
    ] {
        let found = learning(text).expect_err(text);
        assert!(found[0].message.contains(says), "{text}: {found:?}");
    }
}

#[test]
fn auto_has_bounds_and_takes_a_chance_as_a_number() {
    let auto = |text: &str| Config::parse(&format!("[auto]\n{text}")).map(|config| config.auto);
    let read = auto(
        "risk = 0.005\ngenerations = 3\nobserve-generations = 2\nobserve-windows = 600\nstartup = \"10s\"\ncanary-for = \"1h\"\n",
    );
    let want = super::super::Auto {
        risk_ppm: 5000,
        generations: 3,
        observe_generations: 2,
        observe_windows: 600,
        startup: Duration::from_secs(10),
        canary_for: Duration::from_secs(3600),
    };
    assert_eq!(read, Ok(want));
    assert_eq!(auto("risk = 1\n").map(|a| a.risk_ppm), Ok(1_000_000));
    for (text, says) in [
        ("risk = 0", "over 0 and up to 1"),
        ("risk = 2.5", "over 0 and up to 1"),
        ("risk = nan", "over 0 and up to 1"),
        ("risk = \"1%\"", "a number without quotes"),
        ("generations = 0", "between 1 and 1000"),
        ("startup = \"0s\"", "between 1s and 1h"),
        ("canary-for = \"31d\"", "between 0s and 30d"),
        ("canary-fro = \"1h\"", "did you mean \"canary-for\"?"),
    ] {
        let found = auto(text).expect_err(text);
        assert!(found[0].message.contains(says), "{text}: {found:?}");
    }
}

#[test]
fn a_section_written_as_a_value_is_a_mistake() {
    assert!(mistakes("evidence = 3\n")[0].1.contains("[evidence]"));
}
