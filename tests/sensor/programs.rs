//! Programs: where they came from, what they may; and the capabilities that were used.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;

use lithify::sensor::reading::{Origin, Program};

use crate::container::{Container, World, options};
use crate::harness::Test;

pub const TESTS: &[Test] = &[
    ("programs::a_program_is_told_by_its_path", path),
    ("programs::a_program_without_a_name_is_anonymous", anonymous),
    ("programs::a_program_of_a_tmpfs_is_told_as_such", tmpfs),
    ("programs::what_its_mount_keeps_from_running_is_seen_and_what_lacks_permission_is_not", kept),
    ("programs::a_library_that_the_container_wrote_is_seen_and_one_of_the_image_is_not", library),
    ("programs::a_program_of_the_image_is_told_from_one_of_the_upper_and_a_copy_up_needs_no_capability", layers),
    ("programs::a_script_that_is_not_on_the_root_is_told_beside_its_interpreter", script),
    ("programs::a_set_user_id_program_is_privileged_for_who_is_not_its_owner", privileged),
    ("programs::a_capability_that_was_used_is_seen_and_one_that_was_not_is_not", capability),
];

fn programs(act: &[&str]) -> Vec<Program> {
    World::new().seen_of(act).workload.programs.into_keys().collect()
}

fn path() {
    let exe = std::env::current_exe().unwrap().canonicalize().unwrap();
    let seen = programs(&["nothing"]);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].path.as_str(), seen[0].privileged), (exe.to_str().unwrap(), false));
    assert!(matches!(seen[0].origin, Origin::Root | Origin::Image | Origin::Upper), "{seen:?}");
}

fn anonymous() {
    let seen = programs(&["memfd"]);
    assert!(seen.iter().any(|p| p.origin == Origin::Anonymous && p.path.starts_with("/memfd:hidden")), "{seen:?}");
}

/// This program, copied to where its act can reach it.
fn copy(dir: &std::path::Path, mode: u32) -> String {
    let to = dir.join("program");
    fs::copy("/proc/self/exe", &to).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
    to.to_str().unwrap().to_string()
}

fn tmpfs() {
    // The node's own; a mount of the test's would be seen by its container only if it spread there.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let program = copy(dir.path(), 0o755);
    let seen = programs(&["execute", &program, crate::act::WORD, "nothing"]);
    let wanted = Program { path: program, origin: Origin::Tmpfs, privileged: false };
    assert!(seen.contains(&wanted), "{wanted:?} is not in {seen:?}");
}

/// Runs an act in an overlay; the programs that were seen of it, while it lives and at its end.
fn in_overlay(act: &[&str]) -> Vec<Program> {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut container = Container::in_overlay(dir.path(), act);
    let armed = world.sensor().arm(container.pid(), options()).unwrap();
    container.go();
    assert_eq!(container.end(), 0);
    let programs = armed.read().unwrap().workload.programs.into_keys().collect();
    armed.disarm().unwrap();
    programs
}

fn kept() {
    // A session's last look is at a container that lives.
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut container = Container::heard_in_overlay(dir.path(), &["guard", "noexec", "kept-and-wait", "/target"]);
    let armed = world.sensor().arm(container.pid(), options()).unwrap();
    container.go();
    container.hears("library Err(EPERM)");
    let read = || -> Vec<Program> { armed.read().unwrap().workload.programs.into_keys().collect() };
    let alive = read();
    container.end();
    for (when, seen) in [("alive", alive), ("ended", read())] {
        for path in ["/target/kept", "/target/gone", "/target/library"] {
            let wanted = Program { path: path.into(), origin: Origin::Tmpfs, privileged: false };
            assert!(seen.contains(&wanted), "{when}: {wanted:?} is not in {seen:?}");
        }
        assert!(!seen.iter().any(|p| p.path == "/permission"), "{when}: {seen:?}");
    }
    armed.disarm().unwrap();
}

fn library() {
    let seen = in_overlay(&["guard", "map", "/target/library"]);
    let wanted = Program { path: "/target/library".into(), origin: Origin::Upper, privileged: false };
    assert!(seen.contains(&wanted), "{wanted:?} is not in {seen:?}");
    // On a machine that runs from memory, so do the libraries that its containers are lent.
    assert!(!seen.iter().any(|p| p.path.ends_with(".so.6") && p.origin != Origin::Tmpfs), "{seen:?}");
}

fn layers() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut container = Container::in_overlay(dir.path(), &["overlay"]);
    let armed = world.sensor().arm(container.pid(), options()).unwrap();
    container.go();
    assert_eq!(container.end(), 0);
    let facts = armed.read().unwrap().workload;
    let seen = &facts.programs;
    for (path, origin) in [("/program", Origin::Image), ("/other", Origin::Upper)] {
        let wanted = Program { path: path.into(), origin, privileged: false };
        assert!(seen.contains_key(&wanted), "{wanted:?} is not in {seen:?}");
    }
    for path in ["/file", "/other"] {
        assert!(facts.paths.keys().any(|p| p.path == path && p.on_root), "{path} is not in {:?}", facts.paths);
    }
    // What overlay needs to copy a file up is the kernel's own business.
    assert!(facts.capabilities.is_empty(), "{:?}", facts.capabilities);
    armed.disarm().unwrap();
}

fn script() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let mut container = Container::heard_in_overlay(dir.path(), &["guard", "tmpfs", "script", "/target"]);
    let mut output = container.output();
    let armed = world.sensor().arm(container.pid(), options()).unwrap();
    container.go();
    output.read_line(&mut String::new()).unwrap();
    let alive = armed.read().unwrap().workload.programs;
    assert_eq!(container.end(), 0);
    let dead = armed.read().unwrap().workload.programs;
    assert_eq!(alive, dead, "what was found while it lived holds");
    let seen =
        |path: &str| alive.contains_key(&Program { path: path.into(), origin: Origin::Tmpfs, privileged: false });
    for path in ["/target/by-path", "/link/linked", "/target/relative", "/target/by-file"] {
        assert!(seen(path), "{path} is not in {alive:?}");
    }
    assert!(!alive.keys().any(|p| p.path == "/of-root"), "its interpreter is of the image, and so is it: {alive:?}");
    armed.disarm().unwrap();
}

fn privileged() {
    let dir = tempfile::tempdir().unwrap();
    let program = copy(&dir.path().canonicalize().unwrap(), 0o4755);
    let by_root = programs(&["execute", &program, crate::act::WORD, "nothing"]);
    assert!(by_root.iter().any(|p| p.path == program && !p.privileged), "{by_root:?}");
    let by_other = programs(&["as-user", &program, crate::act::WORD, "nothing"]);
    assert!(by_other.iter().any(|p| p.path == program && p.privileged), "{by_other:?}");
}

fn capability() {
    const SYS_CHROOT: u32 = 18;
    let world = World::new();
    let idle = world.seen_of(&["nothing"]);
    let used = world.seen_of(&["capability"]);
    if world.sensor().unseen().contains(&"capabilities".to_string()) {
        assert!(used.workload.capabilities.is_empty(), "what can't be seen is not guessed");
        return;
    }
    assert!(!idle.workload.capabilities.contains_key(&SYS_CHROOT), "{:?}", idle.workload.capabilities);
    assert!(used.workload.capabilities.contains_key(&SYS_CHROOT), "{:?}", used.workload.capabilities);
    assert!(!used.workload.capabilities.contains_key(&21), "nothing needed CAP_SYS_ADMIN");
}
