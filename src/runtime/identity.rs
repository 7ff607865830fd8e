//! Which program a low-level runtime is: what it calls itself, its version, its bytes.
//!
//! Owns: asking it, with a bound and a deadline. Must not: know what any version needs.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How long a program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most of what it tells that is read, in bytes.
const MAX_TOLD: u64 = 4096;
/// Longest name or version that is believed, in bytes.
const MAX_WORD: usize = 64;

/// What tells that a file is the one that was looked at before, for the price of one stat(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    /// Nanoseconds since 1970; no call can set the second.
    modified_ns: i128,
    changed_ns: i128,
}

impl Stamp {
    /// The stamp of a program as it is now.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of(program: &Path) -> io::Result<Stamp> {
        let facts = std::fs::metadata(program)?;
        let ns = |seconds: i64, more: i64| i128::from(seconds) * 1_000_000_000 + i128::from(more);
        Ok(Stamp {
            device: facts.dev(),
            inode: facts.ino(),
            size_bytes: facts.size(),
            modified_ns: ns(facts.mtime(), facts.mtime_nsec()),
            changed_ns: ns(facts.ctime(), facts.ctime_nsec()),
        })
    }

    /// Sixteen hex digits that stand for it in a file's name.
    pub fn key(&self) -> String {
        let text = format!("{self:?}");
        hex(&Sha256::digest(text.as_bytes()))[..16].to_string()
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Identity {
    /// What it calls itself: `runc`.
    pub program: String,
    /// As it says; `unknown` where it does not.
    pub version: String,
    /// SHA-256 of its file, as lower-case hex.
    pub digest: String,
}

impl Identity {
    /// Asks a program what it is. It is run once, with `--version`.
    ///
    /// # Errors
    /// When it can't be read or run, or does not answer in time.
    pub fn of(program: &Path) -> Result<Identity> {
        let digest = digest(program).with_context(|| format!("failed to read {}", program.display()))?;
        let told = told(program).with_context(|| format!("failed to ask {} for its version", program.display()))?;
        let (name, version) = parse(&told).unwrap_or_else(|| {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            (name.chars().filter(|c| is_plain(*c)).take(MAX_WORD).collect(), "unknown".to_string())
        });
        Ok(Identity { program: name, version, digest })
    }
}

/// `runc version 1.1.5+ds1` and the like: the name and the version of the first line.
fn parse(told: &str) -> Option<(String, String)> {
    let mut words = told.lines().next()?.split_whitespace();
    let (name, word, version) = (words.next()?, words.next()?, words.next()?);
    let believed = |text: &str| text.len() <= MAX_WORD && text.chars().all(is_plain);
    (word == "version" && believed(name) && believed(version)).then(|| (name.to_string(), version.to_string()))
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".+~_-".contains(c)
}

fn digest(program: &Path) -> io::Result<String> {
    let mut file = File::open(program)?;
    let (mut hash, mut part) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&part[..length]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What the program answers to `--version`. A wrapper's own children end with it.
fn told(program: &Path) -> Result<String> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let out = child.stdout.take().context("it has no output")?;
    let told = read_within(out.into(), PATIENCE);
    end(&mut child);
    told
}

fn end(child: &mut Child) {
    // It leads its group, and is not reaped yet: the number is still its own. One that has ended is well.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let _ = child.wait();
}

fn read_within(pipe: OwnedFd, patience: Duration) -> Result<String> {
    let deadline = Instant::now() + patience;
    let (mut pipe, mut bytes) = (File::from(pipe), Vec::new());
    while (bytes.len() as u64) < MAX_TOLD {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("it did not answer in {} s", patience.as_secs());
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let mut part = [0; 512];
        match pipe.read(&mut part)? {
            0 => break,
            length => bytes.extend(&part[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_version_are_those_of_the_first_line_and_nothing_odd_is_believed() {
        let two = |name: &str, version: &str| Some((name.to_string(), version.to_string()));
        assert_eq!(parse("runc version 1.1.5+ds1\ncommit: x\n"), two("runc", "1.1.5+ds1"));
        assert_eq!(parse("crun version 1.8.1\n"), two("crun", "1.8.1"));
        assert_eq!(parse("youki version 0.3.3"), two("youki", "0.3.3"));
        for text in
            ["", "\nrunc version 1", "runc 1.1.5", "../x version 1", "runc version 1/../x", "r\u{202e} version 1"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse(&format!("runc version {}", "1".repeat(65))), None);
    }
}
