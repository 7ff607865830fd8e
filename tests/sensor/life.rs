//! Loading, unloading, and what is left when someone dies on the way.

use std::io::Read;
use std::process::{Command, Stdio};

use lithify::sensor::{Place, owners};
use lithify::sys::process::{self, Fork};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};

use crate::act::MARKERS;
use crate::container::{Container, World, called, ctl, loader, options, within};
use crate::harness::Test;

pub const TESTS: &[Test] = &[
    ("life::the_first_container_loads_and_the_last_one_unloads", first_and_last),
    ("life::two_loads_at_once_leave_one_sensor", two_loads),
    ("life::a_loader_that_is_killed_leaves_nothing_that_the_next_does_not_put_right", killed_loader),
    ("life::a_container_whose_armer_died_is_swept_and_the_sensor_unloaded", dead_armer),
    ("life::two_containers_that_get_the_same_namespace_number_are_not_mixed", recycled),
    ("life::whoever_lives_in_a_pid_namespace_arms_by_the_numbers_that_hold_there", in_pid_namespace),
    ("life::a_process_that_has_ended_can_not_be_armed", ended),
    ("life::without_btf_the_error_says_so", no_btf),
    ("life::bpffs_is_mounted_where_it_is_not", no_bpffs),
    ("life::a_sensor_in_use_is_not_unloaded_unless_forced", in_use),
    ("life::a_sensor_that_is_taken_away_while_it_records_is_a_loss_in_whole_or_in_part", taken_away),
    ("life::another_versions_sensor_is_replaced_when_nobody_uses_it", another_version),
];

fn first_and_last() {
    let world = World::new();
    assert!(!world.is_loaded());
    let (a, _one) = world.armed(&["nothing"]);
    let (b, _two) = world.armed(&["nothing"]);
    assert!(world.is_loaded());
    a.disarm().unwrap();
    assert!(world.is_loaded());
    b.disarm().unwrap();
    assert!(!world.is_loaded());
}

fn two_loads() {
    let world = World::new();
    for _ in 0..3 {
        let load = || ctl(&["sensor", "load", "--state-dir"], &world.place).stdout(Stdio::null()).spawn().unwrap();
        let mut loads = [load(), load(), load()];
        assert!(loads.iter_mut().all(|l| l.wait().unwrap().success()));
        let links = std::fs::read_dir(&world.place.pins).unwrap().flatten();
        let links = links.filter(|e| e.file_name().to_string_lossy().starts_with("link-")).count();
        assert!((5..=6).contains(&links), "{links} programs");
        assert!(!world.place.loading().exists());
        assert!(called(&world.seen_of(&["call", &MARKERS[0].to_string()]).workload, MARKERS[0]));
        assert!(!world.is_loaded());
    }
}

fn killed_loader() {
    let world = World::new();
    // Killed at moments over the whole of a load, which takes some hundred ms or, emulated, some seconds.
    let began = std::time::Instant::now();
    assert!(ctl(&["sensor", "load", "--state-dir"], &world.place).stdout(Stdio::null()).status().unwrap().success());
    let whole = began.elapsed();
    assert!(ctl(&["sensor", "unload", "--state-dir"], &world.place).stdout(Stdio::null()).status().unwrap().success());
    for part in 1..=12 {
        let mut load = ctl(&["sensor", "load", "--state-dir"], &world.place).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * part / 12);
        let _ = load.kill();
        load.wait().unwrap();
        let status = ctl(&["sensor", "status", "--state-dir"], &world.place).output().unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
        assert!(!world.place.loading().exists(), "half a sensor is none");
    }
    let reading = world.seen_of(&["call", &MARKERS[0].to_string()]);
    assert!(called(&reading.workload, MARKERS[0]));
    assert!(!world.is_loaded());
}

fn dead_armer() {
    let world = World::new();
    let container = Container::new(&["nothing"]);
    match process::fork().unwrap() {
        Fork::Parent(pid) => assert_eq!(process::wait_pid(pid).unwrap(), process::Exit::Code(0)),
        Fork::Child => {
            let armed = world.sensor().arm(container.pid(), options());
            // Its end runs nothing that lets go.
            process::exit_now(i32::from(armed.is_err()))
        }
    }
    assert!(world.is_loaded());
    assert_eq!(owners::holders(&world.place).unwrap(), None);
    assert!(!world.is_loaded());
}

fn recycled() {
    let world = World::new();
    // It stays loaded over the rounds.
    let (held, _idle) = world.armed(&["nothing"]);
    let mut numbers = std::collections::BTreeMap::new();
    for _ in 0..12 {
        let (armed, mut container) = world.armed(&["steps"]);
        let ns = std::fs::read_link(format!("/proc/{}/ns/mnt", container.pid())).unwrap();
        *numbers.entry(ns).or_insert(0) += 1;
        container.go();
        container.tell("\n");
        assert_eq!(container.end(), 0);
        // It has ended and is still armed; the next one may get its namespace's number and is not armed.
        let mut next = Container::new(&["call", &MARKERS[0].to_string()]);
        let same = std::fs::read_link(format!("/proc/{}/ns/mnt", next.pid())).unwrap();
        *numbers.entry(same).or_insert(0) += 1;
        next.go();
        next.end();
        let reading = armed.read().unwrap();
        assert!(!called(&reading.exec, MARKERS[0]) && !called(&reading.workload, MARKERS[0]));
        armed.disarm().unwrap();
    }
    held.disarm().unwrap();
    assert!(numbers.values().any(|n| *n > 1), "the kernel recycles numbers, or this has tried nothing");
}

fn in_pid_namespace() {
    let inside = || {
        let proc = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
        mount(Some("proc"), "/proc", Some("proc"), proc, None::<&str>).unwrap();
        let world = World::new();
        let (armed, mut container) = world.armed(&["call", &MARKERS[0].to_string()]);
        assert!(container.pid() < 10, "it is a number of this namespace");
        container.go();
        container.end();
        assert!(called(&armed.read().unwrap().workload, MARKERS[0]));
        armed.disarm().unwrap();
    };
    match process::fork().unwrap() {
        Fork::Parent(pid) => assert_eq!(process::wait_pid(pid).unwrap(), process::Exit::Code(0)),
        Fork::Child => {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            let code = match process::fork().unwrap() {
                Fork::Parent(pid) => process::wait_pid(pid).map_or(1, |e| e.shell_code()),
                Fork::Child => i32::from(std::panic::catch_unwind(inside).is_err()),
            };
            process::exit_now(code)
        }
    }
}

fn ended() {
    let world = World::new();
    let mut container = Container::new(&["nothing"]);
    let pid = container.pid();
    container.kill();
    let error = world.sensor().arm(pid, options()).unwrap_err();
    assert!(format!("{error:#}").contains(&pid.to_string()), "{error:#}");
}

/// Runs the loader in mounts of its own that `change` has changed; what it said, and whether it went well.
fn load_with(place: &Place, change: fn()) -> (bool, String) {
    let (read, write) = nix::unistd::pipe().unwrap();
    match process::fork().unwrap() {
        Fork::Parent(pid) => {
            drop(write);
            let mut text = String::new();
            std::fs::File::from(read).read_to_string(&mut text).unwrap();
            (process::wait_pid(pid).unwrap() == process::Exit::Code(0), text)
        }
        Fork::Child => {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            change();
            let stderr = Stdio::from(write);
            let status = ctl(&["sensor", "load", "--state-dir"], place).stderr(stderr).stdout(Stdio::null()).status();
            let well = status.is_ok_and(|s| s.success()) && place.pins.is_dir();
            process::exit_now(i32::from(!well))
        }
    }
}

fn no_btf() {
    let world = World::new();
    let (well, said) = load_with(&world.place, || {
        mount(Some("none"), "/sys/kernel/btf", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    });
    assert!(!well);
    assert!(said.contains("has no BTF") && said.contains("CONFIG_DEBUG_INFO_BTF"), "{said}");
    assert!(!world.is_loaded());
}

fn no_bpffs() {
    let world = World::new();
    let (well, said) = load_with(&world.place, || while umount("/sys/fs/bpf").is_ok() {});
    assert!(well, "{said}");
    // It was mounted in a namespace that is gone by now, and with it what was pinned there.
    within(|| !world.is_loaded());
}

fn in_use() {
    let world = World::new();
    let (armed, _container) = world.armed(&["nothing"]);
    let unload = || ctl(&["sensor", "unload", "--state-dir"], &world.place).output().unwrap();
    let said = unload();
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains(&std::process::id().to_string()));
    assert!(world.is_loaded());
    armed.disarm().unwrap();
    assert!(!world.is_loaded());
    assert!(unload().status.success(), "nothing to unload is well");
}

fn taken_away() {
    let by_force = |world: &World| {
        let force = ctl(&["sensor", "unload", "--force", "--state-dir"], &world.place).stdout(Stdio::null()).status();
        assert!(force.unwrap().success());
    };
    let one_program = |world: &World| std::fs::remove_file(world.place.pins.join("link-enter")).unwrap();
    for take in [&by_force as &dyn Fn(&World), &one_program] {
        let world = World::new();
        let (armed, mut container) = world.armed(&["call", &MARKERS[0].to_string()]);
        assert_eq!(armed.read().unwrap().loss.untracked, 0);
        take(&world);
        // A program whose last pin has gone is let go of by the kernel's own worker, some time after.
        std::thread::sleep(std::time::Duration::from_secs(1));
        container.go();
        assert_eq!(container.end(), 0);
        assert!(armed.is_broken());
        let reading = armed.read().unwrap();
        assert!(!called(&reading.workload, MARKERS[0]), "nobody was there to see it");
        assert_eq!(reading.loss.untracked, 1);
        // Loaded anew for another container, it still has not seen what this one did.
        let (other, _other) = world.armed(&["nothing"]);
        assert_eq!(armed.read().unwrap().loss.untracked, 1);
        other.disarm().unwrap();
        armed.disarm().unwrap();
    }
}

fn another_version() {
    let world = World::new();
    assert!(ctl(&["sensor", "load", "--state-dir"], &world.place).stdout(Stdio::null()).status().unwrap().success());
    let ours = Place::digest_mark(lithify::sensor::place::Set::Sensor.digest());
    let (ours, other) = (world.place.pins.join(ours), world.place.pins.join(Place::digest_mark("0123456789abcdef")));
    std::fs::rename(&ours, &other).unwrap();
    assert!(called(&world.seen_of(&["call", &MARKERS[0].to_string()]).workload, MARKERS[0]));
    let (armed, _container) = world.armed(&["nothing"]);
    std::fs::rename(&ours, &other).unwrap();
    let said = Command::new(loader()).args(["sensor", "load", "--state-dir"]).arg(world.place.state_dir()).output();
    let said = String::from_utf8_lossy(&said.unwrap().stderr).into_owned();
    assert!(said.contains("another version") && said.contains(&std::process::id().to_string()), "{said}");
    std::fs::rename(&other, &ours).unwrap();
    armed.disarm().unwrap();
    assert!(!world.is_loaded());
}
