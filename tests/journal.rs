//! The journal under concurrency, crashes and full disks. Needs root, for a tmpfs in a mount namespace of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lithify::events::journal::{CURRENT, Durability, Journal};
use lithify::events::reader::{Filter, Follower, Reader};
use lithify::events::recorder::{MAX_KEPT, Recorded, Recorder};
use lithify::events::{Event, EventType};
use lithify::policy::config::JournalLimits;

const ROLE: &str = "LITHIFY_TEST_JOURNAL_WRITER";

fn event(subject: &str, n: u64) -> Event {
    Event::new(EventType::Breach, subject, BTreeMap::new()).with("n", n).with("path", "/etc/passwd")
}

fn read_all(data: &Path, filter: Filter) -> (Vec<Event>, u64) {
    let mut reader = Reader::open(data, filter).unwrap();
    let mut all = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        all.push(event);
    }
    (all, reader.skipped())
}

fn n(event: &Event) -> u64 {
    event.data["n"].as_u64().unwrap()
}

/// Run by the next tests in processes of its own; by itself it has nothing to do.
#[test]
fn writer_process_appends_what_it_is_told_to() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let [data, subject, count, max_bytes, max_files] = role.split('\t').collect::<Vec<_>>()[..] else {
        panic!("{role}")
    };
    let limits = JournalLimits { max_bytes: max_bytes.parse().unwrap(), max_files: max_files.parse().unwrap() };
    let mut journal = Journal::open(Path::new(data), limits);
    for i in 0..count.parse().unwrap() {
        journal.append(&event(subject, i), Durability::Buffered).unwrap();
    }
}

fn writers(data: &Path, processes: usize, count: u64, limits: JournalLimits) -> Vec<std::process::Child> {
    (0..processes)
        .map(|p| {
            let role = format!("{}\tw{p}\t{count}\t{}\t{}", data.display(), limits.max_bytes, limits.max_files);
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "writer_process_appends_what_it_is_told_to"])
                .env(ROLE, role)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect()
}

fn finish(children: Vec<std::process::Child>) {
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

fn assert_complete(events: &[Event], processes: usize, count: u64) {
    for p in 0..processes {
        let own: Vec<u64> = events.iter().filter(|e| e.subject == format!("w{p}")).map(n).collect();
        assert_eq!(own, (0..count).collect::<Vec<_>>(), "writer {p}");
    }
}

#[test]
fn events_of_many_processes_all_arrive_in_each_ones_order_across_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let limits = JournalLimits { max_bytes: 64 << 10, max_files: 200 };
    finish(writers(dir.path(), 6, 500, limits));
    let (events, skipped) = read_all(dir.path(), Filter::default());
    assert_eq!(skipped, 0);
    assert_complete(&events, 6, 500);
    let sizes: Vec<u64> =
        std::fs::read_dir(dir.path().join("events")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() > 5, "rotated: {sizes:?}");
    assert!(sizes.iter().all(|s| *s <= 66 << 10), "within the limit: {sizes:?}");
}

#[test]
fn a_follower_misses_and_doubles_nothing_while_files_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let mut follower = Follower::open(dir.path(), Filter::default()).unwrap();
    let children = writers(dir.path(), 3, 400, JournalLimits { max_bytes: 32 << 10, max_files: 200 });
    let mut events = Vec::new();
    // The deadline: when the other end closes, a follower that still waits gives up.
    let (reader, writer) = std::io::pipe().unwrap();
    let (done, patience) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = patience.recv_timeout(Duration::from_secs(60));
        drop(reader);
    });
    while events.len() < 1200 {
        let event = follower.next_event(Some(std::os::fd::AsFd::as_fd(&writer))).unwrap();
        events.push(event.expect("an event was missed"));
    }
    drop(done);
    finish(children);
    assert_complete(&events, 3, 400);
    assert_eq!(follower.reader().skipped(), 0);
}

#[test]
fn a_follower_ends_when_the_one_it_writes_to_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut follower = Follower::open(dir.path(), Filter::default()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(follower.next_event(Some(std::os::fd::AsFd::as_fd(&writer))).unwrap(), None);
}

#[test]
fn rotation_keeps_as_many_files_as_it_may_and_drops_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), JournalLimits { max_bytes: 2000, max_files: 3 });
    for i in 0..100 {
        journal.append(&event("c", i), Durability::Synced).unwrap();
    }
    let (events, _) = read_all(dir.path(), Filter::default());
    assert_eq!(std::fs::read_dir(dir.path().join("events")).unwrap().count(), 3);
    let numbers: Vec<u64> = events.iter().map(n).collect();
    assert_eq!(numbers, (100 - numbers.len() as u64..100).collect::<Vec<_>>());
}

#[test]
fn a_line_torn_by_a_crash_costs_itself_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), JournalLimits::default());
    journal.append(&event("c", 0), Durability::Synced).unwrap();
    let path = dir.path().join("events").join(CURRENT);
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"specversion\":\"1.0\",\"id").unwrap();
    journal.append(&event("c", 1), Durability::Synced).unwrap();
    Journal::open(dir.path(), JournalLimits::default()).append(&event("c", 2), Durability::Synced).unwrap();
    let (events, skipped) = read_all(dir.path(), Filter::default());
    assert_eq!((events.iter().map(n).collect::<Vec<_>>(), skipped), (vec![0, 1, 2], 1));
}

#[test]
fn an_overlong_or_foreign_line_is_skipped_without_being_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), JournalLimits::default());
    journal.append(&event("c", 0), Durability::Buffered).unwrap();
    let path = dir.path().join("events").join(CURRENT);
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&[b'x'; 3 << 20]).unwrap();
    file.write_all(b"\n\xff\xfe\n\n").unwrap();
    journal.append(&event("c", 1), Durability::Buffered).unwrap();
    let (events, skipped) = read_all(dir.path(), Filter::default());
    assert_eq!((events.len(), skipped), (2, 2));
}

#[test]
fn a_removed_or_replaced_folder_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), JournalLimits::default());
    journal.append(&event("c", 0), Durability::Synced).unwrap();
    std::fs::remove_dir_all(dir.path().join("events")).unwrap();
    journal.append(&event("c", 1), Durability::Synced).unwrap();
    assert_eq!(read_all(dir.path(), Filter::default()).0.iter().map(n).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_frozen_holder_of_the_lock_does_not_stop_others() {
    let dir = tempfile::tempdir().unwrap();
    let limits = JournalLimits { max_bytes: 1000, max_files: 3 };
    let mut journal = Journal::open(dir.path(), limits);
    journal.append(&event("c", 0), Durability::Synced).unwrap();
    let holder = std::fs::File::open(dir.path().join("events")).unwrap();
    holder.lock().unwrap();
    let begin = Instant::now();
    for i in 1..5 {
        journal.append(&event("c", i), Durability::Synced).unwrap();
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
    drop(holder);
    assert_eq!(read_all(dir.path(), Filter::default()).0.len(), 5);
}

#[test]
fn files_are_for_root_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    Journal::open(&data, JournalLimits::default()).append(&event("c", 0), Durability::Buffered).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data.join("events")), mode(&data.join("events").join(CURRENT))), (0o700, 0o600));
}

#[test]
fn a_link_in_the_journals_place_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    std::fs::write(&target, "").unwrap();
    std::fs::create_dir(dir.path().join("events")).unwrap();
    std::os::unix::fs::symlink(&target, dir.path().join("events").join(CURRENT)).unwrap();
    let mut journal = Journal::open(dir.path(), JournalLimits::default());
    assert!(journal.append(&event("c", 0), Durability::Buffered).is_err());
    assert_eq!(std::fs::read(&target).unwrap(), b"");
}

#[test]
fn filters_select_by_container_time_and_type() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), JournalLimits::default());
    for (i, subject) in ["abc", "abd", "x"].into_iter().enumerate() {
        let mut e = event(subject, i as u64);
        e.time = format!("2026-01-0{}T00:00:00.000000Z", i + 1);
        journal.append(&e, Durability::Buffered).unwrap();
    }
    let select = |filter| read_all(dir.path(), filter).0.iter().map(n).collect::<Vec<_>>();
    assert_eq!(select(Filter { container: Some("ab".into()), ..Filter::default() }), [0, 1]);
    let since = lithify::events::clock::parse("2026-01-02T01:00:00+01:00");
    assert_eq!(select(Filter { since_micros: since, ..Filter::default() }), [1, 2]);
    assert_eq!(select(Filter { event_type: Some(EventType::Exec), ..Filter::default() }), [0u64; 0]);
}

#[test]
fn a_full_disk_keeps_events_waiting_and_the_gap_is_told_with_exact_counts() {
    lithify::sys::probe::in_private_mounts(|tmp| {
        let data = tmp.join("data");
        let mut recorder = Recorder::new(Journal::open(&data, JournalLimits::default()), "c");
        assert_eq!(recorder.record(event("c", 0), Durability::Synced), Recorded::Saved);
        let filler = tmp.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        while file.write(&[0; 4096]).is_ok() {}
        // The journal's own last page takes a few more events, and tears one.
        let mut sent = 1;
        while recorder.record(event("c", sent), Durability::Synced) == Recorded::Saved {
            sent += 1;
        }
        let first_kept = sent;
        for i in 1..MAX_KEPT as u64 {
            assert_eq!(recorder.record(event("c", first_kept + i), Durability::Synced), Recorded::Kept);
        }
        for i in 0..7 {
            assert_eq!(recorder.record(event("c", 10_000 + i), Durability::Synced), Recorded::Lost);
        }
        assert_eq!(recorder.waiting(), MAX_KEPT);
        assert!(recorder.trouble().unwrap().contains("failed to append to journal"));
        std::fs::remove_file(&filler).unwrap();
        drop(file);
        assert_eq!(recorder.record(event("c", 20_000), Durability::Synced), Recorded::Saved);
        let (events, skipped) = read_all(&data, Filter::default());
        assert_eq!(skipped, 0, "the torn line was taken back");
        let (told, others): (Vec<_>, Vec<_>) = events.into_iter().partition(|e| e.event_type == EventType::Degraded);
        let mut want: Vec<u64> = (0..first_kept + MAX_KEPT as u64).collect();
        want.push(20_000);
        assert_eq!(others.iter().map(n).collect::<Vec<_>>(), want);
        assert_eq!(told.len(), 1);
        assert_eq!((&told[0].data["reason"], &told[0].data["lost"]), (&"journal".into(), &7.into()));
        assert_eq!(told[0].data["delayed"], MAX_KEPT);
        assert!(told[0].data["from"].as_str() <= told[0].data["to"].as_str());
    })
    .unwrap();
}

#[test]
fn a_read_only_disk_stops_nothing_and_is_told_once_it_can_be_written_again() {
    use nix::mount::{MsFlags, mount};
    lithify::sys::probe::in_private_mounts(|tmp| {
        let none: Option<&str> = None;
        let remount = |flags| mount(none, tmp, none, MsFlags::MS_REMOUNT | flags, none).unwrap();
        let data = tmp.join("data");
        remount(MsFlags::MS_RDONLY);
        let mut recorder = Recorder::new(Journal::open(&data, JournalLimits::default()), "c");
        assert_eq!(recorder.record(event("c", 0), Durability::Synced), Recorded::Kept);
        assert!(!recorder.flush());
        remount(MsFlags::empty());
        assert!(recorder.flush());
        let (events, _) = read_all(&data, Filter::default());
        assert_eq!(events.len(), 2);
        assert_eq!((events[1].event_type, &events[1].data["lost"]), (EventType::Degraded, &0.into()));
    })
    .unwrap();
}
