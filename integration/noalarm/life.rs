//! One service under Docker, life by life: started, under load, probed, stopped. Every request and every probe counts.
//!
//! Owns: what is done to a container, and what it must answer. Must not: judge what lithify did.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::services::{Reopen, Service};
use crate::command::{Outcome, PATIENCE, eventually, run_within};
use crate::corner::Corner;
use crate::docker::Docker;
use crate::images;

/// Time between two probes of our own; Docker's come beside them.
const BETWEEN_PROBES: Duration = Duration::from_millis(700);

/// A service, and where it runs.
pub struct Stand<'a> {
    pub corner: &'a Corner,
    pub docker: &'a Docker<'a>,
    pub service: &'a Service,
}

/// What was asked so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    pub requests: u64,
    pub probes: u64,
}

impl Stand<'_> {
    fn name(&self) -> &'static str {
        self.service.image.name()
    }

    /// Where the log is on the host.
    fn log_folder(&self) -> PathBuf {
        self.corner.dir().join("logs").join(self.name())
    }

    /// Starts it with its probe as Docker's own: the container's id.
    pub fn begin(&self) -> Result<String> {
        let mut options = vec!["--name", self.name(), "--health-cmd", self.service.probe, "--health-interval", "2s"];
        options.extend(["--health-timeout", "20s", "--health-retries", "1", "--health-start-period", "20s"]);
        let volume = self.service.log.map(|log| format!("{}:{}", self.log_folder().display(), log.folder));
        if let Some(volume) = &volume {
            fs::create_dir_all(self.log_folder())?;
            // Whoever the service is, it writes there.
            fs::set_permissions(self.log_folder(), fs::Permissions::from_mode(0o1777))?;
            options.extend(["--volume", volume]);
        }
        if let Some(data) = self.service.data {
            options.extend(["--volume", data]);
        }
        self.docker.start_container("auto", &options, self.service.image, self.service.argv)
    }

    /// The load's requests, again and again for that long; an error if any failed.
    pub fn learning_load(&self, container: &str, for_how_long: Duration) -> Result<u64> {
        let end = Instant::now() + for_how_long;
        let mut requests = 0;
        loop {
            requests += self.load(container, self.service.load, Duration::ZERO)?;
            if Instant::now() >= end {
                return Ok(requests);
            }
        }
    }

    /// The other load, for at least that long, with probes beside it.
    pub fn other_load(&self, container: &str, for_how_long: Duration) -> Result<Asked> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let prober = scope.spawn(|| {
                let mut probes = 0;
                while !done.load(Ordering::Relaxed) {
                    self.probe(container)?;
                    probes += 1;
                    std::thread::park_timeout(BETWEEN_PROBES);
                }
                anyhow::Ok(probes)
            });
            let requests = self.load(container, &format!("other/{}", self.service.load), for_how_long);
            done.store(true, Ordering::Relaxed);
            prober.thread().unpark();
            let probes = prober.join().map_err(|_| anyhow::anyhow!("the prober panicked"))?;
            Ok(Asked { requests: requests?, probes: probes? })
        })
    }

    /// What a session says that asks how it is.
    fn probe(&self, container: &str) -> Result<()> {
        self.session(container, self.service.probe)?.success().context("a probe failed")?;
        Ok(())
    }

    /// Waits until it answers: from then on it must.
    pub fn is_up(&self, container: &str) -> Result<()> {
        eventually("its first answer", PATIENCE, || self.probe(container).map(Some))
    }

    /// Somebody's session in it.
    pub fn session(&self, container: &str, line: &str) -> Result<Outcome> {
        self.docker.cli(&["exec", container, "sh", "-c", line])
    }

    /// One run of a load: how many requests it made. The loads say it in their last line; older ones only fail.
    fn load(&self, container: &str, name: &str, for_how_long: Duration) -> Result<u64> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/loads").join(name).display().to_string();
        let images = images::folder()?.display().to_string();
        let (address, seconds) = (self.docker.address(container)?, for_how_long.as_secs().to_string());
        let outcome =
            run_within(self.corner.command(&script).args([&address, &images, &seconds]), for_how_long + 8 * PATIENCE)?;
        ensure!(outcome.code == 0, "load {name}: {outcome:?}\n{}", self.logs(container));
        let counted = outcome.stdout.lines().rev().find_map(|line| line.strip_prefix("requests ")?.split(' ').next());
        counted.map_or(Ok(0), |n| n.parse().with_context(|| format!("load {name} said {n:?}")))
    }

    /// Puts the log aside as logrotate does, and has it opened anew: something must come to be in the new one.
    pub fn rotate(&self, container: &str) -> Result<()> {
        let Some(log) = self.service.log else { return Ok(()) };
        let path = self.log_folder().join(log.file);
        let before = fs::metadata(&path).with_context(|| format!("no log {}", path.display()))?.len();
        ensure!(before > 0, "nothing is in {}", path.display());
        fs::rename(&path, path.with_extension("log.1"))?;
        match log.reopen {
            Reopen::Signal(signal) => self.signal(container, signal)?,
            Reopen::Session(line) => {
                self.session(container, line)?.success()?;
            }
        }
        Ok(())
    }

    /// After [`Stand::rotate`] and some requests.
    pub fn logs_anew(&self) -> Result<()> {
        let Some(log) = self.service.log else { return Ok(()) };
        let path = self.log_folder().join(log.file);
        eventually("lines in the new log", PATIENCE, || Ok((fs::metadata(&path)?.len() > 0).then_some(())))
    }

    /// Sends a signal to the first process.
    pub fn signal(&self, container: &str, signal: &str) -> Result<()> {
        self.docker.ok(&["kill", "--signal", signal, container])?;
        Ok(())
    }

    /// Stops it; it must end as it does without lithify, by itself.
    pub fn stop(&self, container: &str) -> Result<()> {
        self.docker.ok(&["stop", "--time", "20", container])?;
        let state = self.docker.inspect(container)?["State"].clone();
        let expected = self.service.stopped;
        ensure!(state["ExitCode"] == expected && state["OOMKilled"] == false, "{state}\n{}", self.logs(container));
        Ok(())
    }

    /// Starts one that has stopped, or stops and starts one that runs, as one command of the engine.
    pub fn again(&self, command: &str, container: &str) -> Result<()> {
        let options: &[&str] = if command == "restart" { &["--time", "20"] } else { &[] };
        self.docker.ok(&[&[command], options, &[container]].concat())?;
        self.is_up(container)
    }

    /// Removes it when it has stopped.
    pub fn remove(&self, container: &str) -> Result<()> {
        self.docker.ok(&["rm", "--volumes", container])?;
        Ok(())
    }

    /// Docker's own probes have all been answered, and nobody has started it again.
    pub fn is_well(&self, container: &str) -> Result<()> {
        eventually("a health of which Docker knows", PATIENCE, || {
            let all = self.docker.inspect(container)?;
            match all["State"]["Health"]["Status"].as_str() {
                Some("healthy") => Ok(Some(())),
                Some("starting") => Ok(None),
                _ => bail!("{}\n{}", all["State"], self.logs(container)),
            }
        })?;
        let all = self.docker.inspect(container)?;
        ensure!(all["RestartCount"] == 0 && all["State"]["Running"] == true, "{}", all["State"]);
        Ok(())
    }

    /// The end of what it said.
    pub fn logs(&self, container: &str) -> String {
        let said = self.docker.cli(&["logs", "--tail", "25", container]);
        let own = self.service.log.and_then(|log| fs::read_to_string(self.log_folder().join(log.file)).ok());
        let own = own.map(|text| text.lines().rev().take(10).collect::<Vec<_>>().join("\n"));
        said.map(|logs| logs.stdout + &logs.stderr).unwrap_or_default() + &own.unwrap_or_default()
    }
}
