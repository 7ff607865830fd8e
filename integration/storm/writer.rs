//! The container that writes: its image, the program in it, and what that program says.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::bare::Bundle;
use crate::command::run;
use crate::corner::Corner;
use crate::setup::Setup;

/// The unprivileged user, to whom `/srv/user` belongs.
pub const USER: u32 = 1000;

/// How long the container may take for one step; generous, because test machines are busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the manifest of a root filesystem comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    sum: String,
    count: String,
    lines: BTreeSet<String>,
}

/// A bundle with a tree of files of many kinds and names, and what it holds.
pub struct Image<'c> {
    bundle: Bundle<'c>,
    manifest: Manifest,
}

impl<'c> Image<'c> {
    /// The busybox image, the program as `/storm`, and the trees that it attacks: root's and the user's.
    pub fn new(corner: &'c Corner, id: &str) -> Result<Image<'c>> {
        let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("integration/storm");
        let bundle = Bundle::new(corner, id, "")?;
        let rootfs = bundle.path.join("rootfs");
        let program = rootfs.join("storm");
        let mut compile = Command::new("cc");
        compile.args(["-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program);
        run(compile.args(["storm.c", "tree.c", "targets.c", "ops.c"].map(|name| sources.join(name))))?
            .success()
            .context("failed to compile the writer")?;
        for (tree, uid) in [("srv/tree", "0"), ("srv/user", &USER.to_string())] {
            run(Command::new(&program).arg("plant").arg(rootfs.join(tree)).args([uid, "7"]))?.success()?;
        }
        let held = caps::read(None, caps::CapSet::Effective).context("failed to read our capabilities")?;
        let held: Vec<String> = held.iter().map(ToString::to_string).collect();
        bundle.edit(|spec| {
            spec["process"]["args"] = json!(["/storm", "serve"]);
            spec["process"]["noNewPrivileges"] = json!(false);
            // Everything that there is to give: also with that no write may go unseen, or land on a sealed root.
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = json!(held);
            }
        })?;
        let listed = run(Command::new(&program).arg("manifest").arg(&rootfs))?.success()?;
        let mut manifest = None;
        let mut lines = BTreeSet::new();
        for line in listed.lines() {
            match Heard::parse(line) {
                Some(Heard::Sum { sum, count, .. }) => manifest = Some((sum, count)),
                _ if line.is_empty() => {}
                _ => drop(lines.insert(line.to_owned())),
            }
        }
        let (sum, count) = manifest.with_context(|| format!("no manifest: {listed}"))?;
        Ok(Image { bundle, manifest: Manifest { sum, count, lines } })
    }
}

/// One whole line that the program said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A generation begins, or was asked: what the manifest of its root comes to.
    Sum { ready: bool, sum: String, count: String },
    /// It is about to change these paths, the one to be told first.
    Op { name: String, paths: Vec<String> },
    /// It has tried, with this result.
    Done { name: String, errno: i32 },
    /// The kernel lacks or refuses a way to write.
    Absent(String),
    /// The sequence is over, with the wait status of its process.
    End(i32),
    /// Results of the attempts to make the root writable.
    Remounted(Vec<i32>),
}

impl Heard {
    /// `None` for what was cut short, and for lines of a manifest.
    fn parse(line: &str) -> Option<Heard> {
        let mut words = line.strip_suffix(" .")?.split(' ');
        let verb = words.next()?;
        let mut word = || words.next().map(str::to_owned);
        Some(match verb {
            "ready" | "listed" => Heard::Sum { ready: verb == "ready", sum: word()?, count: word()? },
            "done" => Heard::Done { name: word()?, errno: word()?.parse().ok()? },
            "absent" => {
                Heard::Absent(format!("{}: {}", word()?, std::io::Error::from_raw_os_error(word()?.parse().ok()?)))
            }
            "end" => Heard::End(word()?.parse().ok()?),
            "remounted" => Heard::Remounted(words.map(|w| w.parse().ok()).collect::<Option<_>>()?),
            "op" => Heard::Op { name: word()?, paths: words.map(path).collect::<Option<_>>()? },
            _ => return None,
        })
    }
}

/// A path as events tell it: what is not UTF-8 in it is replaced.
fn path(hex: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect();
    Some(PathBuf::from(OsString::from_vec(bytes?)).display().to_string())
}

/// The running container.
pub struct Writer<'c> {
    corner: &'c Corner,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    manifest: Option<(String, String)>,
    end: Vec<String>,
}

impl<'c> Writer<'c> {
    /// Runs the image's program under lithify in the foreground, and waits until it is ready.
    pub fn start(corner: &'c Corner, setup: &Setup, image: &Image<'_>, flags: &[&str]) -> Result<Writer<'c>> {
        let bundle = &image.bundle;
        let root = bundle.root();
        let runtime = [&[setup.lithify.as_str(), "--config", &setup.config], flags, &["--root", &root]].concat();
        let mut child = corner
            .command(runtime[0])
            .args(&runtime[1..])
            .args(["run", "--bundle", bundle.dir()?, &bundle.id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to run lithify")?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(|line| line.ok()) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let end = [&runtime[..], &["kill", &bundle.id, "KILL"]].concat().into_iter().map(str::to_owned).collect();
        let mut writer = Writer { corner, child, stdin, lines, manifest: None, end };
        writer.until_ready()?;
        Ok(writer)
    }

    /// Gives the program one line to obey.
    pub fn send(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}").context("failed to write to the container")
    }

    /// The root that the program last looked at is the image's, byte for byte and attribute for attribute.
    pub fn expect_pristine(&mut self, image: &Image<'_>) -> Result<()> {
        let Manifest { sum, count, lines } = &image.manifest;
        if self.manifest.as_ref() == Some(&(sum.clone(), count.clone())) {
            return Ok(());
        }
        self.send("manifest")?;
        let mut now = BTreeSet::new();
        loop {
            let line = self.line()?;
            match Heard::parse(&line) {
                Some(Heard::Sum { ready: false, .. }) => break,
                _ => drop((!line.is_empty()).then(|| now.insert(line))),
            }
        }
        let (lost, new): (Vec<_>, Vec<_>) = (lines.difference(&now).collect(), now.difference(lines).collect());
        bail!(
            "the root is not the image's ({sum} {count}, but {:?}); in the image: {lost:#?}, in the container: {new:#?}",
            self.manifest
        )
    }

    fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(error) => bail!("the container says nothing more ({error}; lithify: {:?})", self.child.try_wait()?),
        }
    }

    fn until(&mut self, last: impl Fn(&Heard) -> bool) -> Result<Vec<Heard>> {
        let mut all = Vec::new();
        let start = Instant::now();
        loop {
            ensure!(start.elapsed() < PATIENCE, "no end after {all:?}");
            let line = self.line().with_context(|| format!("after {all:?}"))?;
            let Some(heard) = Heard::parse(&line) else { continue };
            if let Heard::Sum { sum, count, .. } = &heard {
                self.manifest = Some((sum.clone(), count.clone()));
            }
            let over = last(&heard);
            all.push(heard);
            if over {
                return Ok(all);
            }
        }
    }

    /// Everything up to the beginning of the next generation.
    pub fn until_ready(&mut self) -> Result<Vec<Heard>> {
        self.until(|heard| matches!(heard, Heard::Sum { ready: true, .. }))
    }

    /// Everything up to the end of a manifest that was asked for.
    pub fn until_ready_or_listed(&mut self) -> Result<Vec<Heard>> {
        self.until(|heard| matches!(heard, Heard::Sum { .. }))
    }

    /// Everything up to the end of a sequence that nobody interrupts.
    pub fn until_end(&mut self) -> Result<Vec<Heard>> {
        let all = self.until(|heard| matches!(heard, Heard::End(_)))?;
        ensure!(all.last() == Some(&Heard::End(0)), "the sequence failed: {all:?}");
        Ok(all)
    }

    /// Results of the attempts to make the root writable.
    pub fn until_remounted(&mut self) -> Result<Vec<i32>> {
        match self.until(|heard| matches!(heard, Heard::Remounted(_)))?.pop() {
            Some(Heard::Remounted(results)) => Ok(results),
            other => bail!("no result of the remounts: {other:?}"),
        }
    }

    /// Kills the container; the `run` in the foreground ends as it did.
    pub fn end(mut self) -> Result<()> {
        let words: Vec<&str> = self.end.iter().map(String::as_str).collect();
        self.corner.run(&words)?.success()?;
        let status = crate::command::eventually("the end of run", PATIENCE, || Ok(self.child.try_wait()?))?;
        ensure!(status.code() == Some(137), "run ended with {status}");
        Ok(())
    }
}
