//! What is made up and what is not, and that patterns stand for what they came from.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn of(path: &str) -> String {
    paths([path]).remove(path).expect("its pattern")
}

#[test]
fn a_made_up_name_is_a_pattern_even_when_it_is_alone() {
    for (path, pattern) in [
        ("/tmp/tmp.Xk3fQabcde", "/tmp/tmp.*"),
        ("/tmp/tmpabcdefgh", "/tmp/tmp*"),
        ("/tmp/tmpk3_0fab2/x", "/tmp/tmp*/x"),
        ("/tmp/sess_Ab3dEf", "/tmp/sess_*"),
        ("/tmp/sess_ABCDEF", "/tmp/sess_*"),
        ("/tmp/wgunicorn-4n292jlh", "/tmp/wgunicorn-*"),
        ("/tmp/apache-stderr---supervisor-0r458_ts.log", "/tmp/apache-stderr---supervisor-*.log"),
        ("/tmp/upload_Ab3dEf.jpeg", "/tmp/upload_*.jpeg"),
        ("/run/app/1234.pid", "/run/app/*.pid"),
        ("/data/6ba7b810-9dad-11d1-80b4-00c04fd430c8/f", "/data/*/f"),
        ("/srv/cache/d41d8cd98f00b204e9800998ecf8427e", "/srv/cache/*"),
        ("/data/pg_wal/000000010000000000000001", "/data/pg_wal/*"),
        ("/var/lib/redis/temp-27.rdb", "/var/lib/redis/temp-*.rdb"),
        ("/srv/app/state.tmp.31", "/srv/app/state.tmp.*"),
        ("/srv/spool/1700000000.M12P34.host", "/srv/spool/*.M12P34.host"),
    ] {
        assert_eq!(of(path), pattern, "{path}");
    }
}

#[test]
fn a_name_that_a_person_gave_stays_as_it_is() {
    for path in [
        "/tmp/nginx.socket",
        "/tmp/web-settings",
        "/srv/web-4n292jlh",
        "/srv/web-4n292jlh.log",
        "/run/nginx.pid",
        "/var/lib/postgresql/15/main",
        "/srv/README",
        "/srv/sha256sums",
        "/srv/NginxLog.txt",
        "/srv/ipv4addr",
        "/var/cache/nginx/proxy_temp",
        "/tmp",
        "/",
        "/srv/Übergröße",
    ] {
        assert_eq!(of(path), path, "{path}");
    }
}

#[test]
fn many_names_that_differ_in_numbers_are_one_and_few_are_not() {
    let all: Vec<String> = (0..MANY).map(|n| format!("/var/lib/db/base/{}", 1000 + n)).collect();
    let got = paths(all.iter().map(String::as_str));
    assert!(got.values().all(|p| p == "/var/lib/db/base/*"), "{got:?}");
    let few = paths(all[1..].iter().map(String::as_str));
    assert!(few.iter().all(|(path, pattern)| path == pattern));
}

#[test]
fn a_crowd_in_one_directory_is_one_and_what_is_below_it_joins() {
    let names = (0..CROWD).map(|n| {
        let letter = |n: usize| char::from(b'a' + (n % 26) as u8);
        format!("/srv/{}{}x/log", letter(n), letter(n / 26))
    });
    let all: Vec<String> = names.collect();
    let got = paths(all.iter().map(String::as_str));
    assert_eq!(got.values().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(), ["/srv/*/log"]);
}

#[test]
fn nothing_is_widened_below_a_system_folder_or_at_the_root() {
    let all: Vec<String> = PROTECTED
        .iter()
        .flat_map(|prefix| (0..100).map(move |n| format!("{prefix}/{n}/d41d8cd98f00b204e9800998ecf8427e")))
        .chain((0..100).map(|n| format!("/{n}1700000000")))
        .collect();
    let got = paths(all.iter().map(String::as_str));
    assert!(got.iter().all(|(path, pattern)| path == pattern));
    assert!(!is_protected("/etcetera") && is_protected("/etc"));
}

#[test]
fn what_stands_for_a_passing_file_stands_for_nothing_else() {
    let pattern = passing("/tmp/k3_0fab2").expect("a pattern");
    assert_eq!(pattern, "/tmp/????????");
    assert!(covers(&pattern, "/tmp/abcdefgh") && covers(&pattern, &pattern));
    for other in
        ["/tmp/abcdefg", "/tmp/abcdefghi", "/tmp/ABCDEFGH", "/tmp/a.cdefgh", "/tmp/abcdefgh/x", "/tmp/sess.php"]
    {
        assert!(!covers(&pattern, other), "{other}");
    }
    let all = written(["/tmp/????????", "/tmp/miner", "/tmp/app.sock"]);
    assert!(all.iter().all(|(path, pattern)| path == pattern), "its neighbours stay what they are: {all:?}");
    assert_eq!(of("/srv/what?"), "/srv/what\\077");
    assert!(!covers(&of("/srv/what?"), "/srv/whats"));
    for word in ["/tmp/Abcdefgh", "/srv/abcdefgh", "/tmp/abcdefghi"] {
        assert_eq!(passing(word), None, "{word}");
    }
}

/// Generations put together in one order and in the other.
fn both_ways(a: &[&str], b: &[&str], c: &[&str]) -> [BTreeSet<String>; 2] {
    let of = |sets: &[&BTreeSet<String>]| -> BTreeSet<String> {
        written(sets.iter().flat_map(|set| set.iter()).map(String::as_str)).into_values().collect()
    };
    let [a, b, c] = [a, b, c].map(|all| paths(all.iter().copied()).into_values().collect::<BTreeSet<_>>());
    [of(&[&of(&[&a, &b]), &c]), of(&[&a, &of(&[&b, &c])])]
}

#[test]
fn a_pattern_that_company_has_made_takes_in_its_neighbours_at_once_and_not_only_the_next_time() {
    let [forth, back] = both_ways(&["/a"], &["/ba/0", "/ba/1"], &["/ba/2", "/ba/tmp.aaAAa0A0a0"]);
    assert_eq!(forth, back);
    assert_eq!(forth.into_iter().collect::<Vec<_>>(), ["/a", "/ba/*"]);
    let once: BTreeSet<String> = paths(["/ba/0", "/ba/1", "/ba/2", "/ba/name"]).into_values().collect();
    assert_eq!(written(once.iter().map(String::as_str)).into_values().collect::<BTreeSet<_>>(), once);
}

#[test]
fn the_number_of_an_escape_is_no_number_of_the_name() {
    let all = ["/srv/*", "/srv/?", "/srv/\\", "/srv/name"];
    let got = paths(all);
    let expected = ["/srv/\\052", "/srv/\\077", "/srv/\\134", "/srv/name"];
    assert_eq!(all.map(|path| got[path].as_str()), expected, "three files that differ in no number");
    assert_eq!(of("/srv/cache/\\d41d8cd98f00b204e9800998ecf8427e"), "/srv/cache/\\134*");
    assert_eq!(of("/srv/\\6789-9dad-11d1-80b4-00c04fd430c8"), "/srv/\\1346789-9dad-11d1-80b4-*");
    let many = ["/srv/a\\1", "/srv/a\\2", "/srv/a\\3"];
    assert!(paths(many).values().all(|pattern| pattern == "/srv/a\\134*"));
    assert_eq!(written(["/srv/\\", "/srv/\\x", "/srv/ü\\ü1"]).len(), 3, "what no name is written as is no matter");
}

#[test]
fn a_star_in_a_real_name_is_no_pattern() {
    assert_eq!(of("/srv/*"), "/srv/\\052");
    assert_eq!(of("/etc/a*\\b"), "/etc/a\\052\\134b");
    assert!(!covers(&of("/srv/*"), "/srv/x"));
    assert!(covers("/srv/*", &of("/srv/*")));
}

#[test]
fn a_star_stands_for_at_least_one_byte_and_never_for_a_slash() {
    assert!(covers("/tmp/tmp.*", "/tmp/tmp.a") && covers("/tmp/*a*b", "/tmp/xaab"));
    assert!(!covers("/tmp/tmp.*", "/tmp/tmp.") && !covers("/tmp/*", "/tmp/a/b") && !covers("/tmp/*", "/tmp"));
    assert!(!covers("/tmp/a*b", "/tmp/ab") && covers("/tmp/a*b", "/tmp/a*b"));
    assert!(!covers(&format!("/{}", "*a".repeat(500)), &format!("/{}b", "a".repeat(2000))), "and it comes to an end");
}

fn any_path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "[a-c]{1,2}",
        "[0-9]{1,8}",
        "[A-Za-z0-9]{6}",
        "tmp\\.[A-Za-z0-9]{10}",
        "[a-z]{1,4}[0-9]{1,3}",
        "[*?\\\\ü.a-]{1,3}",
        Just("etc".to_owned()),
        Just("usr".to_owned()),
        Just("tmp".to_owned()),
    ];
    proptest::collection::vec(name, 1..5).prop_map(|names| format!("/{}", names.join("/")))
}

proptest! {
    #[test]
    fn every_pattern_stands_for_the_path_it_came_from(all in proptest::collection::vec(any_path(), 1..120)) {
        for (path, pattern) in paths(all.iter().map(String::as_str)) {
            prop_assert!(covers(&pattern, &escape(&path)), "{} {}", path, pattern);
            prop_assert_eq!(path.split('/').count(), pattern.split('/').count());
        }
    }

    #[test]
    fn paths_that_are_one_pattern_alone_change_nothing_when_one_stands_for_all(
        all in proptest::collection::vec(any_path(), 1..120)
    ) {
        let mut alike: BTreeSet<String> = BTreeSet::new();
        let ones: Vec<&String> = all.iter().filter(|path| alone(path).is_none_or(|p| alike.insert(p))).collect();
        let patterns = |paths: BTreeMap<String, String>| paths.into_values().collect::<BTreeSet<_>>();
        let (some, every) = (paths(ones.iter().map(|p| p.as_str())), paths(all.iter().map(String::as_str)));
        prop_assert_eq!(patterns(some), patterns(every));
    }

    #[test]
    fn the_order_in_which_paths_come_changes_nothing(all in proptest::collection::vec(any_path(), 1..120)) {
        let forth = paths(all.iter().map(String::as_str));
        let back = paths(all.iter().rev().map(String::as_str));
        prop_assert_eq!(forth, back);
    }

    #[test]
    fn no_pattern_stands_for_anything_in_a_system_folder(all in proptest::collection::vec(any_path(), 1..120)) {
        for pattern in paths(all.iter().map(String::as_str)).values().filter(|p| p.contains('*')) {
            let first = pattern.split('/').nth(1).unwrap_or_default();
            prop_assert!(!first.contains('*') && !is_protected(pattern), "{}", pattern);
        }
    }

    #[test]
    fn generations_come_to_the_same_patterns_in_whatever_order_they_are_put_together(
        a in proptest::collection::vec(any_path(), 1..60),
        b in proptest::collection::vec(any_path(), 1..60),
        c in proptest::collection::vec(any_path(), 1..60),
    ) {
        let of = |sets: &[&BTreeSet<String>]| -> BTreeSet<String> {
            written(sets.iter().flat_map(|set| set.iter()).map(String::as_str)).into_values().collect()
        };
        let [a, b, c] = [a, b, c].map(|all| paths(all.iter().map(String::as_str)).into_values().collect::<BTreeSet<_>>());
        prop_assert_eq!(&of(&[&a]), &a, "what is a pattern already stays one");
        let (ab, bc) = (of(&[&a, &b]), of(&[&b, &c]));
        prop_assert_eq!(of(&[&ab, &c]), of(&[&a, &bc]));
    }

    #[test]
    fn what_mkstemp_makes_is_one_item_whatever_it_made(made in "[A-Za-z0-9]{6}") {
        prop_assume!(!made.bytes().all(|b| b.is_ascii_lowercase()));
        prop_assert_eq!(of(&format!("/tmp/app-{made}")), "/tmp/app-*");
    }

    #[test]
    fn a_directory_never_has_more_items_than_a_crowd(all in proptest::collection::vec("/srv/[a-z]{1,3}", 1..400)) {
        let kinds: BTreeSet<String> = paths(all.iter().map(String::as_str)).into_values().collect();
        prop_assert!(kinds.len() < CROWD);
    }
}

#[test]
fn a_pattern_of_peoples_says_how_a_path_ends_wherever_it_is() {
    for path in ["/usr/lib/x/__pycache__/a.cpython-311.pyc", "/__pycache__/b.pyc", "/a/__pycache__/*.pyc"] {
        assert!(covers("/**/__pycache__/*.pyc", path), "{path}");
    }
    for path in ["/a/__pycache__/x/b.pyc", "/a/x__pycache__/b.pyc", "__pycache__/b.pyc", "/a/__pycache__/b.so", "/"] {
        assert!(!covers("/**/__pycache__/*.pyc", path), "{path}");
    }
}
