//! `lithifyctl profile export` as people run it.

use std::process::{Command, Output};

use lithify::profile::{Profile, store};
use serde_json::Value;

use super::build;

/// A folder with a profile in a file of its own.
struct Learnt {
    dir: tempfile::TempDir,
}

impl Learnt {
    fn new(change: impl FnOnce(&mut Profile)) -> Learnt {
        let dir = tempfile::tempdir().unwrap();
        let mut profile = store::fold_observation(&dir.path().join("data"), &build::full(1)).unwrap();
        change(&mut profile);
        std::fs::write(dir.path().join("p.json"), serde_json::to_vec(&profile).unwrap()).unwrap();
        std::fs::write(dir.path().join("c.toml"), format!("data-dir = \"{}/data\"\n", dir.path().display())).unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        Learnt { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn export(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lithifyctl"));
        command.args(["--config", &self.path("c.toml"), "profile", "export", &self.path("p.json")]).args(args);
        command.output().unwrap()
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn every_format_is_printed_alone_and_its_notes_apart_from_it() {
    let learnt = Learnt::new(|_| {});
    for (format, start) in [
        ("oci-seccomp", "{\n  \"defaultAction\": \"SCMP_ACT_ERRNO\""),
        ("kubernetes", "#"),
        ("spo", "#"),
        ("docker", "--read-only --cap-drop ALL --cap-add CHOWN "),
    ] {
        let ran = learnt.export(&["--format", format]);
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
        assert!(text(&ran.stdout).starts_with(start), "{format}: {}", text(&ran.stdout));
        assert!(text(&ran.stderr).contains("note: 32-bit calls were seen"), "{format}: {}", text(&ran.stderr));
    }
}

#[test]
fn dockers_flags_name_the_filter_that_was_written_beside_them() {
    let learnt = Learnt::new(|_| {});
    let ran = learnt.export(&["--format", "docker", "--out", &learnt.path("out")]);
    let line = text(&ran.stdout);
    assert_eq!(line.lines().count(), 1);
    let file = line.split_whitespace().find_map(|word| word.strip_prefix("seccomp=")).unwrap();
    let filter: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let allowed = filter["syscalls"][0]["names"].as_array().unwrap();
    for name in ["openat", "open", "exit_group", "execve"] {
        assert!(allowed.iter().any(|n| n == name), "{name}");
    }
    let ran = learnt.export(&["--format", "docker", "--out", &learnt.path("absent")]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran.stderr).contains("must be a folder that can be written"), "{}", text(&ran.stderr));
}

#[test]
fn a_partial_profile_is_exported_only_by_force_and_says_so() {
    let learnt = Learnt::new(|profile| profile.generations.values_mut().for_each(|g| g.loss.table_full = 1));
    let ran = learnt.export(&["--format", "docker"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stdout.is_empty());
    assert!(text(&ran.stderr).contains("the profile is partial") && text(&ran.stderr).contains("--force"));
    let ran = learnt.export(&["--format", "kubernetes", "--force"]);
    assert_eq!(ran.status.code(), Some(0));
    assert!(text(&ran.stdout).contains("the profile is partial: 1 of 1 generations lost records"));
}

#[test]
fn as_json_there_are_the_text_the_files_and_the_notes() {
    let learnt = Learnt::new(|_| {});
    let ran = learnt.export(&["--format", "kubernetes", "--json"]);
    let value: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let files = value["files"].as_object().unwrap();
    assert_eq!(files.len(), 2);
    assert_eq!(value["text"], *files.iter().find(|(name, _)| name.ends_with(".pod.yaml")).unwrap().1);
    assert!(value["notes"].as_array().is_some_and(|notes| !notes.is_empty()));
}

#[test]
fn a_misspelt_format_or_an_unknown_runtime_is_refused_with_what_there_is() {
    let learnt = Learnt::new(|_| {});
    let ran = learnt.export(&["--format", "dokcer"]);
    assert_eq!(ran.status.code(), Some(2));
    assert!(text(&ran.stderr).contains("docker"), "{}", text(&ran.stderr));
    assert_eq!(learnt.export(&[]).status.code(), Some(2));
    let ran = learnt.export(&["--format", "docker", "--runtime", "youki"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran.stderr).contains("crun-1.8.1"), "{}", text(&ran.stderr));
}
