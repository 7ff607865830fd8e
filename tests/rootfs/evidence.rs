//! What is kept of a tripwire's difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::*;
use lithify::policy::EvidenceLimits;
use lithify::rootfs::{ArchiveLimits, Tripwire, archive, keep_evidence, mount_tripwire};
use nix::mount::{MsFlags, mount};

fn tripped(host: &Host) -> (PathBuf, Tripwire) {
    let (merged, _) = host.engine(&image(host), "");
    let layers = host.layers(&merged);
    let staging = host.staging();
    let skeleton = staging.ground(&layers, None).unwrap().skeleton(&layers, &[], Path::new("/")).unwrap();
    let tripwire = mount_tripwire(&layers, &skeleton, &staging, &merged, 32 << 20).unwrap();
    (merged, tripwire)
}

/// Entries by name: type, PAX records, link, content.
#[derive(Debug)]
struct Seen {
    kind: tar::EntryType,
    records: BTreeMap<String, Vec<u8>>,
    link: Option<PathBuf>,
    content: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
}

fn read(tar: &[u8]) -> BTreeMap<PathBuf, Seen> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let records = entry.pax_extensions().unwrap().into_iter().flatten().map(|record| {
            let record = record.unwrap();
            (record.key().unwrap().to_owned(), record.value_bytes().to_vec())
        });
        let records = records.collect();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let (kind, mode) = (header.entry_type(), header.mode().unwrap());
        let owner = (header.uid().unwrap(), header.gid().unwrap());
        let link = entry.link_name().unwrap().map(|l| l.into_owned());
        (entry.path().unwrap().into_owned(), Seen { kind, records, link, content, mode, owner })
    });
    entries.collect()
}

#[test]
fn evidence_is_a_tar_with_oci_whiteouts_that_follows_nothing() {
    let host = Host::new();
    let (root, tripwire) = tripped(&host);
    let long = "d".repeat(120);
    fs::create_dir(root.join(&long)).unwrap();
    fs::write(root.join(&long).join("f"), "deep").unwrap();
    symlink(format!("/etc/{}", "x".repeat(150)), root.join("link")).unwrap();
    fs::write(root.join("etc/app/conf"), "evil").unwrap();
    set_xattr(&root.join("etc/app/conf"), "user.by", b"\0them");
    fs::remove_file(root.join("bin/alias")).unwrap();
    fs::remove_dir_all(root.join("home")).unwrap();
    fs::create_dir(root.join("home")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRUSR);
    nix::sys::stat::mknod(&root.join("null"), kind, mode, nix::sys::stat::makedev(1, 3)).unwrap();
    fs::write(root.join("mine"), "x").unwrap();
    std::os::unix::fs::chown(root.join("mine"), Some(3_000_000_000), Some(7)).unwrap();
    fs::set_permissions(root.join("mine"), fs::Permissions::from_mode(0o4711)).unwrap();

    let mut out = Vec::new();
    let archived = archive(tripwire.upper.as_fd(), &mut out, ArchiveLimits::default()).unwrap();
    let seen = read(&out);
    assert!(!archived.truncated);
    assert_eq!(archived.entries, seen.len());
    let entry =
        |name: &str| seen.get(Path::new(name)).unwrap_or_else(|| panic!("{name} is missing: {:?}", seen.keys()));
    assert_eq!(entry(&format!("{long}/f")).content, b"deep");
    assert_eq!(entry("link").link.as_ref().unwrap().as_os_str().len(), 155);
    assert_eq!(entry("etc/app/conf").content, b"evil");
    assert_eq!(entry("etc/app/conf").records["SCHILY.xattr.user.by"], b"\0them");
    assert_eq!(entry("bin/.wh.alias").kind, tar::EntryType::Regular);
    assert_eq!(entry("home/.wh..wh..opq").content, b"");
    assert_eq!(entry("fifo").kind, tar::EntryType::Fifo);
    assert_eq!(entry("null").kind, tar::EntryType::Char);
    assert_eq!(entry("socket").records["LITHIFY.type"], b"socket");
    assert_eq!((entry("mine").mode, entry("mine").owner), (0o4711, (3_000_000_000, 7)));
    // What people have at hand reads it, too.
    fs::write(host.path("e.tar"), &out).unwrap();
    let listed = std::process::Command::new("tar").arg("-tvf").arg(host.path("e.tar")).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
}

#[test]
fn a_hostile_difference_is_cut_at_bytes_entries_and_depth() {
    let host = Host::new();
    let (root, tripwire) = tripped(&host);
    let sparse = fs::File::create(root.join("a-sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let mut deep = root.clone();
    for _ in 0..200 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    for n in 0..300 {
        fs::write(root.join("tmp").join(n.to_string()), "").unwrap();
    }
    let run = |max_bytes, max_entries| {
        let mut out = Vec::new();
        let archived = archive(tripwire.upper.as_fd(), &mut out, ArchiveLimits { max_bytes, max_entries }).unwrap();
        assert!(out.len() as u64 <= max_bytes && archived.entries <= max_entries, "{archived:?}, {}", out.len());
        assert!(archived.truncated);
        (archived, read(&out))
    };
    let (_, seen) = run(1 << 20, 10_000);
    assert_eq!(seen[Path::new("a-sparse")].records["LITHIFY.size"], (1u64 << 40).to_string().into_bytes());
    let (archived, _) = run(4 << 20, 50);
    assert_eq!(archived.entries, 50);
    sparse.set_len(0).unwrap();
    let (archived, _) = run(4 << 20, 10_000);
    assert!(archived.entries > 128 + 300, "{archived:?}");
}

#[test]
fn the_evidence_folder_keeps_the_newest_within_its_limits() {
    let host = Host::new();
    let (root, tripwire) = tripped(&host);
    fs::write(root.join("x"), vec![1u8; 10_000]).unwrap();
    let dir = host.path("data/evidence");
    let limits = EvidenceLimits { max_files: 3, ..EvidenceLimits::default() };
    for n in 0..5 {
        let kept = keep_evidence(tripwire.upper.as_fd(), &dir, &format!("e{n}"), "c", limits).unwrap();
        assert_eq!(fs::metadata(&kept.path).unwrap().mode() & 0o7777, 0o600);
        old(&kept.path, n);
    }
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["e2.c.tar", "e3.c.tar", "e4.c.tar"]);
    let small = EvidenceLimits { max_bytes: 30_000, ..limits };
    keep_evidence(tripwire.upper.as_fd(), &dir, "e5", "c", small).unwrap();
    assert_eq!(names(), ["e4.c.tar", "e5.c.tar"]);
    for bad in ["", "../x", "a/b", ".hidden", "a.b", "x\n"] {
        let error = keep_evidence(tripwire.upper.as_fd(), &dir, bad, "c", limits).unwrap_err().to_string();
        assert!(error.contains("is no file name"), "{error}");
    }
}

#[test]
fn a_container_that_fills_the_folder_pushes_out_its_own_evidence_and_that_of_nobody_else() {
    let host = Host::new();
    let (root, tripwire) = tripped(&host);
    let dir = host.path("data/evidence");
    let mut age = 0;
    let mut keep = |event: &str, container: &str, limits| {
        let kept = keep_evidence(tripwire.upper.as_fd(), &dir, event, container, limits).unwrap();
        old(&kept.path, age);
        age += 1;
    };
    let names = || {
        let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect::<BTreeSet<_>>()
    };
    let limits = EvidenceLimits { max_files: 6, ..EvidenceLimits::default() };
    fs::write(root.join("x"), vec![1u8; 10_000]).unwrap();
    keep("a", "first", limits);
    keep("b", "second", limits);
    keep("c", "../sec\nond", limits);
    for n in 0..50 {
        keep(&format!("noise{n}"), "noisy", limits);
    }
    let others = ["a.first.tar", "b.second.tar", "c...second.tar"];
    assert_eq!(
        names(),
        others
            .into_iter()
            .chain(["noise47.noisy.tar", "noise48.noisy.tar", "noise49.noisy.tar"])
            .map(String::from)
            .collect()
    );
    // By size as well: few large ones are as much as many small ones.
    fs::write(root.join("x"), vec![1u8; 100_000]).unwrap();
    let small = EvidenceLimits { max_bytes: 200_000, ..limits };
    for n in 0..5 {
        keep(&format!("large{n}"), "noisy", small);
    }
    assert_eq!(names(), others.into_iter().chain(["large4.noisy.tar"]).map(String::from).collect());
}

#[test]
fn a_full_disk_leaves_no_evidence_behind_and_is_told() {
    let host = Host::new();
    let (root, tripwire) = tripped(&host);
    fs::write(root.join("x"), vec![1u8; 2 << 20]).unwrap();
    let dir = host.make("full");
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
    let error = keep_evidence(tripwire.upper.as_fd(), &dir, "e", "c", EvidenceLimits::default()).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("e.c.tar") && text.contains("disk full") && text.contains("No space left"), "{text}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}
