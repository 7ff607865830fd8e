//! Scratch of a sealed container, where an image or a volume has a link in its place.

use std::os::unix::fs::symlink;

use lithify::guard::Limits;
use lithify::policy::{Policy, Scratch};
use lithify::supervise::launch::Outcome;
use serde_json::Value;

use crate::harness::Test;
use crate::world::{CRUN, RUNC, World};

pub const TESTS: &[Test] = &[
    ("scratch::a_link_of_the_image_into_a_system_folder_keeps_a_container_from_being_made", refused),
    ("scratch::what_was_learnt_of_such_a_link_is_left_out_with_a_note", || left_out(RUNC)),
    ("scratch::crun_is_given_no_such_mount_either", || left_out(CRUN)),
    ("scratch::folders_that_the_image_has_for_everyone_are_everyones_in_scratch_over_runc", || modes(RUNC)),
    ("scratch::folders_that_the_image_has_for_everyone_are_everyones_in_scratch_over_crun", || modes(CRUN)),
];

/// Says what could be written, and then stays.
const SCRIPT: &str = "for f in /etc/passwd /usr/x /run/x; do (echo x >> $f) 2>/dev/null && echo $f; done > /out/wrote; \
                      echo done > /out/done; exec sleep 60";

fn world(runtime: &'static str, paths: &[(&str, bool)]) -> (World, Value, Policy) {
    let world = World::new(runtime);
    let root = world.path("rootfs");
    for name in ["rootfs/etc", "rootfs/usr", "rootfs/run", "rootfs/var"] {
        world.path(name);
    }
    std::fs::write(root.join("etc/passwd"), "").expect("a file");
    symlink("/etc", root.join("opt")).expect("a link");
    symlink("../run", root.join("var/run")).expect("a link");
    symlink("/usr", world.path("out").join("link")).expect("a link");
    let config = world.config(SCRIPT);
    let scratch = paths.iter().map(|(path, learnt)| Scratch {
        path: path.into(),
        size_bytes: None,
        exec: false,
        learnt: *learnt,
    });
    let policy = Policy { scratch: scratch.collect(), ..world.policy() };
    (world, config, policy)
}

fn refused() {
    let (mut world, config, policy) = world(RUNC, &[("/opt", false)]);
    match world.launch(config, policy, Limits::default(), None, true) {
        Outcome::Failed(why) => {
            assert!(why.contains("/opt") && why.contains("leads to /etc") && why.contains("name that"), "{why}")
        }
        other => panic!("{other:?}, {}", world.wait_written("wrote")),
    }
}

fn left_out(runtime: &'static str) {
    let (mut world, config, policy) = world(runtime, &[("/opt", true), ("/out/link", false), ("/var/run", false)]);
    let outcome = world.launch(config, policy, Limits::default(), None, true);
    assert_eq!(outcome, Outcome::Ready, "{}", world.log());
    world.wait_written("done");
    assert_eq!(world.written("wrote").as_deref(), Some("/run/x\n"), "a system folder could be written to");
    let notes = world.record().notes;
    let told = |words: [&str; 2]| notes.iter().filter(|note| words.iter().all(|word| note.contains(word))).count();
    assert_eq!((notes.len(), told(["/opt", "refused"]), told(["/out/link", "mounts /out"])), (2, 1, 1), "{notes:?}");
}

fn modes(runtime: &'static str) {
    use std::os::unix::fs::PermissionsExt;
    let (mut world, _, policy) = world(runtime, &[("/data", true)]);
    let data = world.path("rootfs").join("data");
    let wanted = [("sub", 0o1777), ("sub/deep", 0o2775), ("group", 0o770), ("plain", 0o755)];
    for (name, mode) in wanted {
        std::fs::create_dir_all(data.join(name)).expect("a folder");
        std::fs::set_permissions(data.join(name), std::fs::Permissions::from_mode(mode)).expect("its mode");
    }
    let script =
        "cd /data; stat -c '%n %a' sub sub/deep group plain > /out/modes; echo done > /out/done; exec sleep 60";
    let config = world.config(script);
    let outcome = world.launch(config, policy, Limits::default(), None, true);
    assert_eq!(outcome, Outcome::Ready, "{}", world.log());
    world.wait_written("done");
    let expected: String = wanted.iter().map(|(name, mode)| format!("{name} {mode:o}\n")).collect();
    assert_eq!(world.written("modes"), Some(expected));
    world.end();
}
