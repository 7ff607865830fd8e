//! Which knowledge holds for a runtime, how long, and what it costs to have it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use lithify::runtime::needs::{self, Needs};
use lithify::sys::process::{self, Exit, Fork};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::Test;
use crate::world::{RUNC, World, left_nothing_since, traces};

pub const TESTS: &[Test] = &[
    ("a_built_in_version_is_measured_only_when_asked_to_and_then_that_holds", built_in),
    ("an_unknown_version_is_measured_once_and_again_when_it_changed", upgraded),
    ("the_same_bytes_with_another_date_are_not_measured_again", touched),
    ("two_that_meet_an_unknown_version_at_once_measure_it_once", at_once),
    ("one_that_can_not_be_measured_gets_what_its_program_is_known_to_need_and_is_not_tried_at_each_start", guessed),
    ("one_that_does_not_tell_its_version_in_time_is_an_error", hangs),
    ("a_data_folder_that_can_not_be_written_costs_only_the_memory", unwritable),
    ("a_full_disk_costs_only_the_memory", full),
    ("what_others_could_have_written_is_not_believed_and_is_replaced", untrusted),
    ("what_can_not_be_read_is_replaced", corrupt),
    ("of_a_built_in_version_only_that_it_is_one_is_kept", not_kept),
    ("what_is_kept_is_had_in_well_under_a_millisecond", quick),
];

fn of(runtime: &Path, world: &World) -> Needs {
    needs::of(runtime, &world.data()).unwrap_or_else(|e| panic!("{e:#}"))
}

fn built_in() {
    let world = World::new();
    let runtime = world.runc_that_says("1.1.5+ds1");
    let needs = of(&runtime, &world);
    assert_eq!((needs.source.as_str(), needs.version.as_str()), ("built in for runc 1.1.5", "1.1.5+ds1"));
    assert_eq!((of(&runtime, &world), world.created()), (needs.clone(), 0));

    let before = traces();
    let measured = needs::measure(&runtime, &world.data()).unwrap();
    left_nothing_since(&before);
    assert!(world.created() > 0 && measured.listener && measured.source.contains("measured"), "{measured:?}");
    assert_eq!(of(&runtime, &world), measured);
    assert_eq!(needs::known(&runtime, &world.data()).unwrap(), Some(measured));
}

fn upgraded() {
    let world = World::new();
    let runtime = world.runc_that_says("9.8.7");
    assert_eq!(needs::known(&runtime, &world.data()).unwrap(), None);
    let needs = of(&runtime, &world);
    assert!(needs.source.contains("measured") && needs.listener && needs.notes.is_empty(), "{needs:?}");
    assert!(needs.names(true).any(|name| name == "execve") && needs.names(false).any(|name| name == "capset"));
    let once = world.created();
    assert_eq!((of(&runtime, &world), world.created()), (needs.clone(), once));

    world.runc_that_says("9.8.8");
    assert_eq!(needs::known(&runtime, &world.data()).unwrap(), None);
    let newer = of(&runtime, &world);
    assert_eq!((newer.version.as_str(), world.created(), world.kept().len()), ("9.8.8", 2 * once, 1));
    assert_ne!(newer.digest, needs.digest);
}

fn touched() {
    let world = World::new();
    let runtime = world.runc_that_says("9.8.7");
    let (needs, once) = (of(&runtime, &world), world.created());
    let file = std::fs::File::options().append(true).open(&runtime).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    drop(file);
    assert_eq!(needs::known(&runtime, &world.data()).unwrap(), None);
    assert_eq!((of(&runtime, &world), world.created(), world.kept().len()), (needs, once, 1));
}

fn at_once() {
    let alone = World::new();
    of(&alone.runc_that_says("9.8.7"), &alone);
    let (world, before) = (World::new(), traces());
    let runtime = world.runc_that_says("9.8.7");
    let both = [(), ()].map(|()| match process::fork().unwrap() {
        Fork::Child => {
            process::exit_now(needs::of(&runtime, &world.data()).map_or(1, |needs| needs.notes.len() as i32))
        }
        Fork::Parent(pid) => pid,
    });
    for pid in both {
        assert_eq!(process::wait_pid(pid).unwrap(), Exit::Code(0));
    }
    assert_eq!((world.created(), world.kept().len()), (alone.created(), 1));
    left_nothing_since(&before);
}

fn guessed() {
    let world = World::new();
    let text = format!(
        r#"echo x >>{}; [ "$1" = --version ] && echo "runc version 9.9" && exit; echo it burns >&2; exit 1"#,
        world.path("created").display()
    );
    let runtime = world.script("runc", &text);
    let needs = of(&runtime, &world);
    assert!(!needs.listener && needs.notes[0].contains("it burns"), "{needs:?}");
    assert!(needs.names(false).any(|name| name == "capset"), "{needs:?}");
    let runs = world.created();
    assert_eq!((of(&runtime, &world), world.created()), (needs, runs));
    let error = format!("{:#}", needs::measure(&runtime, &world.data()).unwrap_err());
    assert!(error.contains("failed to measure") && error.contains("it burns"), "{error}");
}

fn hangs() {
    let world = World::new();
    let runtime = world.script("runc", "sleep 1000");
    let error = format!("{:#}", needs::of(&runtime, &world.data()).unwrap_err());
    assert!(error.contains("for its version") && error.contains("did not answer in"), "{error}");
    assert!(world.kept().is_empty());
}

fn unwritable() {
    let world = World::new();
    std::fs::write(world.data(), "a file").unwrap();
    let runtime = world.runc_that_says("9.8.7");
    for needs in [of(&runtime, &world), needs::measure(&runtime, &world.data()).unwrap()] {
        assert!(needs.listener && needs.source.contains("measured"), "{needs:?}");
        assert!(needs.notes.len() == 1 && needs.notes[0].contains("could not be kept"), "{needs:?}");
    }
}

fn full() {
    let world = World::new();
    std::fs::create_dir(world.data()).unwrap();
    mount(Some("tmpfs"), &world.data(), Some("tmpfs"), MsFlags::empty(), Some("size=4k,mode=700")).unwrap();
    let filled = std::fs::write(world.data().join("filler"), [b'x'; 4096]);
    let needs = filled.map(|()| of(&world.runc_that_says("9.8.7"), &world));
    umount2(&world.data(), MntFlags::MNT_DETACH).unwrap();
    let needs = needs.unwrap();
    assert!(needs.source.contains("measured") && needs.notes.len() == 1, "{needs:?}");
    assert!(needs.notes[0].contains("No space left"), "{needs:?}");
}

fn untrusted() {
    let world = World::new();
    let runtime = world.runc_that_says("9.8.7");
    of(&runtime, &world);
    let file = world.kept().remove(0);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"execve\"", "\"execve\", \"mount\"")).unwrap();
    assert!(of(&runtime, &world).always.contains("mount"), "what root wrote holds");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(!of(&runtime, &world).always.contains("mount"));
    std::os::unix::fs::chown(&file, Some(1000), None).unwrap();
    of(&runtime, &world);
    let facts = std::fs::metadata(&file).unwrap();
    assert_eq!((facts.uid(), facts.mode() & 0o777), (0, 0o600));
}

fn corrupt() {
    let world = World::new();
    let runtime = world.runc_that_says("9.8.7");
    of(&runtime, &world);
    let (file, once) = (world.kept().remove(0), world.created());
    let text = std::fs::read_to_string(&file).unwrap();
    let wrongs = [
        String::new(),
        "{".into(),
        text.replace("\"execve\"", "\"execv\""),
        text.replace("\"execve\"", "\"i386:execve\""),
        text.replace("\"version\": 1", "\"version\": 2"),
        text.replace("\"at\"", "\"more\": 1, \"at\""),
    ];
    for (n, wrong) in wrongs.iter().enumerate() {
        std::fs::write(&file, wrong).unwrap();
        assert!(of(&runtime, &world).source.contains("measured"));
        assert_eq!(world.created(), (n + 2) * once, "{wrong}");
        assert!(needs::known(&runtime, &world.data()).unwrap().is_some(), "it was not replaced");
    }
}

/// What is built in may have been mended since a file was written.
fn not_kept() {
    let world = World::new();
    of(&world.runc_that_says("1.1.5"), &world);
    let text = std::fs::read_to_string(world.kept().remove(0)).unwrap();
    assert!(text.contains("built-in") && !text.contains("execve"), "{text}");
}

fn quick() {
    let world = World::new();
    let runtime = Path::new(RUNC);
    of(runtime, &world);
    let mut times: Vec<Duration> = (0..1000)
        .map(|_| {
            let began = Instant::now();
            of(runtime, &world);
            began.elapsed()
        })
        .collect();
    times.sort();
    println!("median {:?}, 99th percentile {:?}", times[500], times[990]);
    assert!(times[500] < Duration::from_millis(1), "{:?}", times[500]);
}
