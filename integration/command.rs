//! Running a program with a deadline, and waiting for a state with a deadline.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollTimeout, poll};

/// How long a program may take that should be quick; generous, because test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a program left.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Exit code; 128 + n for death by signal n, as a shell counts.
    pub code: i32,
    /// Everything on stdout, lossily decoded.
    pub stdout: String,
    /// Everything on stderr, lossily decoded.
    pub stderr: String,
    /// From start to the last writer of its output having gone.
    pub took: Duration,
}

impl Outcome {
    /// Its stdout without surrounding blanks, if it succeeded.
    pub fn success(self) -> Result<String> {
        ensure!(self.code == 0, "exit code {}; stdout: {}; stderr: {}", self.code, self.stdout, self.stderr);
        Ok(self.stdout.trim().to_owned())
    }
}

/// Runs a program to its end *and* to the end of its output: whoever keeps our pipe open after the program has gone is an
/// error here, as it would be a hang for an engine.
pub fn run(command: &mut Command) -> Result<Outcome> {
    run_within(command, PATIENCE)
}

/// The same for what takes long by intention.
pub fn run_within(command: &mut Command, patience: Duration) -> Result<Outcome> {
    let what = format!("{command:?}");
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to run {what}"))?;
    let (sender, receiver) = mpsc::channel();
    read_to_end(child.stdout.take().context("no stdout")?, true, sender.clone());
    read_to_end(child.stderr.take().context("no stderr")?, false, sender);
    let (mut stdout, mut stderr) = (String::new(), String::new());
    for _ in 0..2 {
        let left = patience.saturating_sub(start.elapsed());
        match receiver.recv_timeout(left) {
            Ok((true, text)) => stdout = text,
            Ok((false, text)) => stderr = text,
            Err(_) => {
                let ended = child.try_wait()?;
                let _ = child.kill();
                let _ = child.wait();
                bail!("{what} still held its output open after {patience:?}; the program itself: {ended:?}");
            }
        }
    }
    let status = child.wait()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(Outcome { code, stdout, stderr, took: start.elapsed() })
}

fn read_to_end(mut pipe: impl Read + Send + 'static, is_stdout: bool, sender: mpsc::Sender<(bool, String)>) {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send((is_stdout, String::from_utf8_lossy(&bytes).into_owned()));
    });
}

/// Asks every 10 ms until there is an answer; an error that names what was awaited, and the last reason, at the deadline.
pub fn eventually<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut reason = None;
    while start.elapsed() < deadline {
        match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => reason = None,
            Err(error) => reason = Some(error),
        }
        poll(&mut [], PollTimeout::from(10u8))?;
    }
    match reason {
        Some(error) => Err(error.context(format!("waited {deadline:?} in vain: {what}"))),
        None => bail!("waited {deadline:?} in vain: {what}"),
    }
}
