//! What becomes of a reading and a scan.

use proptest::prelude::*;

use super::*;
use crate::sensor::Reading;

const WINDOWS: Windows = Windows { started_micros: 1_700_000_000_000_000, seconds: 60 };

fn seen(first: u32, last: u32, windows: u32) -> Seen {
    Seen { first, last, windows }
}

fn used(path: &str, operation: reading::Operation, errno: i32) -> PathUse {
    PathUse { path: path.to_owned(), operation, errno: errno as u32, on_root: true, by: "sh".to_owned() }
}

fn of(reading: &Reading, found: &[(&str, Found)]) -> Items {
    let found = found.iter().map(|(path, found)| ((*path).to_owned(), *found)).collect();
    assemble(&Material { reading, found: &found, ephemeral: (32768, 60999), windows: WINDOWS })
}

fn created(size_bytes: u64) -> Found {
    Found { operation: Some(Operation::Create), size_bytes, directory: false, seen: seen(3, 3, 1) }
}

#[test]
fn numbers_become_names_and_windows_become_times() {
    let mut reading = Reading::default();
    reading.workload.syscalls.insert(Syscall { abi: Abi::Native, number: 257 }, seen(0, 2, 3));
    reading.workload.syscalls.insert(Syscall { abi: Abi::Compat, number: 5 }, seen(1, 1, 1));
    reading.exec.denied.insert(Syscall { abi: Abi::Native, number: 9999 }, seen(0, 0, 1));
    reading.workload.capabilities.insert(0, seen(0, 0, 1));
    reading.workload.arguments.insert(Argument::Socket { family: 2, kind: 1, protocol: 6 }, seen(0, 0, 1));
    let clone = Syscall { abi: Abi::Native, number: 56 };
    reading.workload.arguments.insert(Argument::Namespaces { syscall: clone, flags: 131072 }, seen(0, 0, 1));
    let items = of(&reading, &[]);
    let openat = &items.workload.syscalls["openat"];
    assert_eq!((openat.windows, openat.first.as_str()), (3, "2023-11-14T22:13:20.000000Z"));
    assert_eq!(openat.last, "2023-11-14T22:15:20.000000Z");
    assert!(items.workload.syscalls.contains_key("i386:open"));
    assert_eq!(items.exec.denied_syscalls.keys().collect::<Vec<_>>(), ["#9999"]);
    assert_eq!(items.workload.capabilities.keys().collect::<Vec<_>>(), ["CAP_CHOWN"]);
    assert!(items.workload.arguments["socket"].contains_key("2,1,6"));
    assert!(items.workload.arguments["clone"].contains_key("131072"));
}

#[test]
fn the_scans_sizes_and_the_sensors_writers_meet_at_the_path() {
    let mut reading = Reading::default();
    reading.workload.paths.insert(used("/var/log/a", reading::Operation::Create, 0), seen(0, 1, 2));
    reading.workload.paths.insert(used("/tmp/tmp.Xk3fQabcde", reading::Operation::Create, 0), seen(0, 0, 1));
    reading.workload.paths.insert(used("/tmp/tmp.Xk3fQabcde", reading::Operation::Remove, 0), seen(0, 0, 1));
    reading.workload.paths.insert(used("/etc/x", reading::Operation::Write, libc::EROFS), seen(0, 0, 1));
    reading.exec.paths.insert(used("/by-exec", reading::Operation::Write, 0), seen(5, 5, 1));
    let volume = PathUse { on_root: false, ..used("/volume/x", reading::Operation::Write, 0) };
    reading.workload.paths.insert(volume, seen(0, 0, 1));
    let items = of(&reading, &[("/var/log/a", created(10)), ("/unseen", created(7)), ("/by-exec", created(3))]);
    let writes = &items.workload.writes;
    assert_eq!(writes.keys().collect::<Vec<_>>(), ["/etc/x", "/tmp/tmp.*", "/unseen", "/var/log/a"]);
    let log = &writes["/var/log/a"];
    assert_eq!((log.size_bytes, log.seen.windows, log.by.iter().next().map(String::as_str)), (10, 2, Some("sh")));
    let made: Vec<_> = writes["/tmp/tmp.*"].operations.iter().copied().collect();
    assert_eq!(made, [Operation::Create, Operation::Remove]);
    let refused = &writes["/etc/x"];
    assert!(!refused.succeeded && refused.refused.contains("EROFS"));
    assert!(writes["/unseen"].by.is_empty() && writes["/unseen"].succeeded, "nobody was seen to write it");
    assert_eq!(items.exec.writes.keys().collect::<Vec<_>>(), ["/by-exec"]);
}

#[test]
fn a_write_outside_of_the_root_counts_where_it_commands_the_kernel_or_another_process() {
    let mut reading = Reading::default();
    for path in ["/proc/17/mem", "/proc/18/mem", "/proc/17/oom_score_adj", "/proc/sys/kernel/core_pattern"] {
        let elsewhere = PathUse { on_root: false, ..used(path, reading::Operation::Write, 0) };
        reading.workload.paths.insert(elsewhere, seen(0, 0, 1));
    }
    let writes = of(&reading, &[]).workload.writes;
    assert_eq!(writes.keys().collect::<Vec<_>>(), ["/proc/*/mem", "/proc/sys/kernel/core_pattern"]);
}

#[test]
fn a_program_that_was_written_and_run_is_told_at_both_places() {
    let mut reading = Reading::default();
    let program = |path: &str, origin| reading::Program { path: path.to_owned(), origin, privileged: false };
    reading.workload.programs.insert(program("/tmp/tmp.Xk3fQabcde", reading::Origin::Upper), seen(0, 0, 1));
    reading.workload.programs.insert(program("/app/d41d8cd98f00b204e9800998", reading::Origin::Image), seen(0, 0, 1));
    reading.workload.paths.insert(used("/tmp/tmp.Xk3fQabcde", reading::Operation::Create, 0), seen(0, 0, 1));
    let items = of(&reading, &[]);
    let names: Vec<_> = items.workload.programs.keys().map(String::as_str).collect();
    assert_eq!(names, ["/app/d41d8cd98f00b204e9800998", "/tmp/tmp.*"], "the image's names are its maker's");
    assert!(items.workload.writes["/tmp/tmp.*"].executed);
}

#[test]
fn items_that_became_one_are_counted_in_the_windows_that_are_known_to_differ() {
    let mut reading = Reading::default();
    for (name, window) in [("tmp.aaaaaaaaA1", 1), ("tmp.aaaaaaaaA2", 1), ("tmp.aaaaaaaaA3", 4)] {
        let path = format!("/tmp/{name}");
        reading.workload.paths.insert(used(&path, reading::Operation::Create, 0), seen(window, window, 1));
    }
    let write = &of(&reading, &[]).workload.writes["/tmp/tmp.*"];
    assert_eq!(write.seen.windows, 2);
    assert_eq!((&write.seen.first, &write.seen.last), (&WINDOWS.began(1), &WINDOWS.began(4)));
}

#[test]
fn listeners_and_peers_are_told_by_protocol_with_chosen_ports_as_any() {
    let mut reading = Reading::default();
    let peer = |direction, protocol: &str, address: &str| Peer {
        direction,
        protocol: protocol.to_owned(),
        address: address.to_owned(),
    };
    for one in [
        peer(Direction::Listen, "tcp", "0.0.0.0:80"),
        peer(Direction::Listen, "udp", "0.0.0.0:40001"),
        peer(Direction::Listen, "unix", "@0001f"),
        peer(Direction::Connect, "tcp", "10.0.0.1:40001"),
    ] {
        reading.workload.peers.insert(one, seen(0, 0, 1));
    }
    let items = of(&reading, &[]);
    assert_eq!(items.workload.listens.keys().collect::<Vec<_>>(), ["tcp 0.0.0.0:80", "udp 0.0.0.0:*", "unix @*"]);
    assert_eq!(items.workload.connects.keys().collect::<Vec<_>>(), ["tcp 10.0.0.1:40001"]);
}

#[test]
fn more_than_fits_is_left_out_and_counted() {
    let mut reading = Reading::default();
    for n in 0..MAX_ITEMS + 5 {
        let path = format!("/etc/{n:05}");
        reading.workload.paths.insert(used(&path, reading::Operation::Create, 0), seen(0, 0, 1));
    }
    let items = of(&reading, &[]);
    assert_eq!((items.workload.writes.len(), items.left_out), (MAX_ITEMS, 5));
    let mut long = Reading::default();
    for n in 0..1000 {
        let path = format!("/etc/{n:05}{}", "x".repeat(5000));
        long.workload.paths.insert(used(&path, reading::Operation::Create, 0), seen(0, 0, 1));
    }
    let items = of(&long, &[]);
    assert!(items.left_out > 0 && items.workload.writes.keys().map(String::len).sum::<usize>() <= MAX_NAMES_BYTES);
}

#[test]
fn what_is_forbidden_is_told_however_many_names_come_before_it() {
    let mut reading = Reading::default();
    let program = |path: &str, origin| reading::Program { path: path.to_owned(), origin, privileged: false };
    for n in 0..MAX_ITEMS + 5 {
        // At the root every name counts.
        reading.workload.programs.insert(program(&format!("/a{n:05}"), reading::Origin::Root), seen(0, 0, 1));
        reading.workload.paths.insert(used(&format!("/b{n:05}"), reading::Operation::Create, 0), seen(0, 0, 1));
    }
    reading.workload.programs.insert(program("x", reading::Origin::Anonymous), seen(0, 0, 1));
    reading.workload.paths.insert(used("/etc/passwd", reading::Operation::Write, 0), seen(0, 0, 1));
    let Items { workload, left_out, .. } = of(&reading, &[]);
    assert!(workload.programs.contains_key("/x") && workload.writes.contains_key("/etc/passwd"));
    assert_eq!((workload.programs.len(), workload.writes.len(), left_out), (MAX_ITEMS + 1, MAX_ITEMS + 1, 10));
}

#[test]
fn what_python_tries_a_folder_with_is_the_same_item_in_each_run() {
    let of_run = |name: &str, last: reading::Operation| {
        let mut reading = Reading::default();
        for operation in [reading::Operation::Create, reading::Operation::Write, last] {
            reading.workload.paths.insert(used(name, operation, 0), seen(0, 0, 1));
        }
        of(&reading, &[]).workload.writes.into_keys().collect::<Vec<_>>()
    };
    for name in ["/tmp/j6hd5khi", "/tmp/abcdefgh", "/tmp/________"] {
        assert_eq!(of_run(name, reading::Operation::Remove), ["/tmp/????????"], "{name}");
    }
    assert_eq!(of_run("/tmp/sessions", reading::Operation::Attributes), ["/tmp/sessions"], "it stays");
    assert_eq!(of_run("/srv/abcdefgh", reading::Operation::Remove), ["/srv/abcdefgh"]);
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let operation = prop_oneof![Just(reading::Operation::Write), Just(reading::Operation::Attributes)];
    let path = ("[/.*a-zA-Z0-9\\\\]{0,24}", operation, prop_oneof![Just(0), Just(30), Just(1)], any::<bool>());
    let paths = proptest::collection::vec((path, 0u32..9, 0u32..9), 0..20);
    let programs = proptest::collection::vec(("(/memfd:)?[/.*a-z0-9]{0,12}", any::<bool>(), 0u32..9), 0..9);
    let peers = proptest::collection::vec(("(tcp|unix|17/3)", "[@/:.0-9a-f]{0,12}", any::<bool>()), 0..9);
    let calls = proptest::collection::btree_map(0u32..600, (0u32..9, 0u32..9), 0..9);
    (paths, programs, peers, calls).prop_map(|(paths, programs, peers, calls)| {
        let mut reading = Reading::default();
        for ((path, operation, errno, on_root), first, more) in paths {
            let used = PathUse { path, operation, errno, on_root, by: "é".repeat(more as usize * 10) };
            let facts = if more % 2 == 0 { &mut reading.workload } else { &mut reading.exec };
            facts.paths.insert(used, seen(first, first + more, 1 + more.min(1)));
        }
        for (path, image, first) in programs {
            let origin = if image { reading::Origin::Image } else { reading::Origin::Anonymous };
            reading
                .workload
                .programs
                .insert(reading::Program { path, origin, privileged: image }, seen(first, first, 1));
        }
        for (protocol, address, listen) in peers {
            let direction = if listen { Direction::Listen } else { Direction::Connect };
            reading.workload.peers.insert(Peer { direction, protocol, address }, seen(0, 0, 1));
        }
        let syscall = |number| Syscall { abi: if number % 3 == 0 { Abi::Compat } else { Abi::Native }, number };
        reading.workload.syscalls = calls.iter().map(|(n, (a, b))| (syscall(*n), seen(*a, a + b, 1))).collect();
        reading
    })
}

proptest! {
    #[test]
    fn whatever_a_container_does_becomes_a_document_that_its_readers_accept(reading in any_reading()) {
        let found = [("/data", created(1)), ("/a/../*", created(2))];
        let items = of(&reading, &found);
        let revision = crate::profile::Revision {
            digest: "0".repeat(32), image: "rootfs:".to_owned(), image_name: None, args: Vec::new(), env: Vec::new(),
            mounts: Vec::new(), user: "0:0".to_owned(), capabilities: Vec::new(),
        };
        let observation = crate::profile::Observation {
            version: crate::profile::observation::VERSION,
            id: "0".repeat(32), workload: "w".to_owned(), revision,
            architecture: std::env::consts::ARCH.to_owned(), node: "n".to_owned(), container: "c".to_owned(),
            generation: 1, started: WINDOWS.began(0), until: WINDOWS.began(9), ended: true, window_seconds: 60,
            windows: 9, unseen: Default::default(), loss: Default::default(),
            workload_behaviour: items.workload, exec_behaviour: items.exec, forbidden: Default::default(),
            peaks: Default::default(),
        };
        let checked = observation.check();
        prop_assert!(checked.is_ok(), "{:?}", checked);
        let bytes = crate::profile::store::encode(&observation).expect("JSON");
        prop_assert_eq!(crate::profile::Observation::parse(&bytes).expect("read back"), observation);
    }
}

#[test]
fn a_program_that_the_container_wrote_is_not_the_images_though_the_root_has_no_layers() {
    let mut reading = Reading::default();
    for path in ["/bin/dropped", "/bin/sh", "/bin/found"] {
        let program = reading::Program { path: path.to_owned(), origin: reading::Origin::Root, privileged: false };
        reading.workload.programs.insert(program, seen(0, 0, 1));
    }
    reading.exec.paths.insert(used("/bin/dropped", reading::Operation::Write, 0), seen(0, 0, 1));
    reading.exec.paths.insert(used("/bin/sh", reading::Operation::Write, libc::EROFS), seen(0, 0, 1));
    let programs = of(&reading, &[("/bin/found", created(9))]).workload.programs;
    let origins: Vec<_> = programs.iter().map(|(path, p)| (path.as_str(), p.origins.first().copied())).collect();
    let expected = [("/bin/dropped", Origin::Upper), ("/bin/found", Origin::Upper), ("/bin/sh", Origin::Root)];
    assert_eq!(origins, expected.map(|(path, origin)| (path, Some(origin))));
}

#[test]
fn who_uses_io_uring_is_not_seen_in_full() {
    let mut reading = Reading::default();
    assert!(of(&reading, &[]).unseen.is_empty());
    reading.exec.syscalls.insert(Syscall { abi: Abi::Native, number: 425 }, seen(0, 0, 1));
    assert!(of(&reading, &[]).unseen.contains(UNSEEN_IO_URING));
}
