//! Where attacks are tried: a victim under Docker or as a bare bundle, an attacker's server beside it, and what comes back.
//!
//! Owns: starting and ending victims, honest traffic, strikes. Must not: judge what became of an attack.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lithify::sensor::Place;
use serde_json::{Value, json};

use super::kit::{self, Attack, Payload};
use crate::bare::{Bundle, Runtime};
use crate::command::{eventually, run};
use crate::corner::Corner;
use crate::docker::Docker;
use crate::images;
use crate::setup::{RUNC, Setup};

const IMAGE: &str = "localhost/victim:lithify";
const VOLUME: &str = "victim-data";
/// The program of an honest victim, and of one whose entrypoint is somebody else's.
pub const HONEST: &str = "/usr/sbin/victim";
/// See [`HONEST`].
pub const COMPROMISED: &str = "/srv/compromised";
/// How an attack ends that may not end at all.
const STRIKE_SECONDS: &str = "10";

/// What runs the victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under<'a> {
    /// The engine's own runtime, with nothing of ours.
    Runc,
    /// lithify with these lines in its configuration.
    Lithify(&'a str),
}

/// How a strike ended, as the attacker sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It had its way.
    Landed,
    /// It said what went wrong, or was killed.
    Failed(String),
    /// The connection was cut: nobody is there any more.
    Cut,
}

enum Engine<'c> {
    Docker(Docker<'c>),
    Bare(Cell<u32>),
}

/// One place, with an attacker's server.
pub struct Site<'c> {
    corner: &'c Corner,
    /// Configuration and journal.
    pub setup: Setup,
    base: String,
    state: PathBuf,
    engine: Engine<'c>,
    attackers: Vec<Child>,
}

/// A running victim.
pub struct Victim<'s, 'c> {
    site: &'s Site<'c>,
    /// Container id.
    pub id: String,
    url: String,
    bundle: Option<(Bundle<'c>, Runtime)>,
}

/// The victim's root filesystem and the same as a tar.
fn image() -> Result<(PathBuf, String)> {
    let images = images::folder()?;
    run(Command::new(kit::folder().join("image")).arg(&images))?.success()?;
    Ok((images.join("victim/rootfs"), images.join("victim.tar").display().to_string()))
}

impl<'c> Site<'c> {
    /// Under a dockerd of the corner's own, with Docker's defaults.
    pub fn docker(corner: &'c Corner) -> Result<Site<'c>> {
        let mut site = Site::new(corner, Engine::Bare(Cell::new(0)))?;
        let docker = Docker::start(corner, &site.setup)?;
        let (_, tar) = image()?;
        docker.ok(&["import", &tar, IMAGE])?;
        site.engine = Engine::Docker(docker);
        Ok(site)
    }

    /// Without an engine, in bundles that are given every capability that this machine has, and no filter.
    pub fn bare(corner: &'c Corner) -> Result<Site<'c>> {
        Site::new(corner, Engine::Bare(Cell::new(0)))
    }

    fn new(corner: &'c Corner, engine: Engine<'c>) -> Result<Site<'c>> {
        // What a failed attack took down with it is not to hold up the next one. Which mode it is, is said for each victim.
        let anew = "mode = \"learn\"\n";
        let setup = Setup::with(corner, &format!("restart-limit = \"20/10s\"\n{anew}"))?;
        // Docker's ids are long, and a socket's path in a container's folder has to fit 108 bytes. The corner's /run is its own.
        let (long, name) = (corner.path("state"), corner.cgroup());
        let state = Path::new("/run").join(name.rsplit('-').next().context("a corner without a name")?);
        let base = fs::read_to_string(&setup.config)?.replace(anew, "").replace(&long, &state.display().to_string());
        let mut site = Site { corner, setup, base, state, engine, attackers: Vec::new() };
        site.attacker()?;
        Ok(site)
    }

    /// Serves a script on port 8000, takes shells on 4444 and miners on 3333.
    fn attacker(&mut self) -> Result<()> {
        let served = self.corner.dir().join("attacker");
        fs::create_dir_all(&served)?;
        fs::write(served.join("landed.sh"), "echo landed\n")?;
        let busybox = images::folder()?.join("busybox/rootfs/usr/bin/busybox").display().to_string();
        let served = served.display().to_string();
        let daemons: [&[&str]; 3] = [
            &["httpd", "-f", "-p", "8000", "-h", &served],
            &["nc", "-ll", "-p", "4444", "-e", "/bin/sh", "-c", "echo exit 0"],
            &["nc", "-ll", "-p", "3333", "-e", "/bin/echo", "work"],
        ];
        for argv in daemons {
            let mut command = self.corner.command(&busybox);
            self.attackers.push(self.corner.daemon(command.args(argv), "attacker.log")?);
        }
        let listens = "for port in 8000 4444 3333; do until echo >/dev/tcp/127.0.0.1/$port; do sleep 0.05; done; done 2>/dev/null";
        self.corner.bash(listens, &[])?.success()?;
        Ok(())
    }

    /// Sets what lithify is to do with victims from now on: lines of configuration, tables last.
    fn configure(&self, lines: &str) -> Result<()> {
        let text = format!("{}{lines}\n[learning]\nwindow = \"1s\"\ninterval = \"1s\"\n", self.base);
        fs::write(&self.setup.config, text)?;
        Ok(())
    }

    /// Starts a fresh victim and waits until it serves.
    pub fn begin(&self, under: Under<'_>, program: &str) -> Result<Victim<'_, 'c>> {
        if let Under::Lithify(lines) = under {
            self.configure(lines)?;
        }
        let victim = match &self.engine {
            Engine::Docker(docker) => {
                let runtime = if matches!(under, Under::Runc) { "plain" } else { "lithify" };
                let volume = format!("{VOLUME}:/data");
                let id = docker.ok(&[
                    "run",
                    "--detach",
                    "--runtime",
                    runtime,
                    "--volume",
                    &volume,
                    "--env",
                    "ATTACKER=10.213.0.1",
                    IMAGE,
                    program,
                    "80",
                ])?;
                let url = format!("http://{}", docker.address(&id)?);
                Victim { site: self, id, url, bundle: None }
            }
            Engine::Bare(nth) => {
                nth.set(nth.get() + 1);
                let bundle = self.bundle(nth.get(), program)?;
                let runtime = match under {
                    Under::Runc => Runtime::plain(RUNC),
                    Under::Lithify(_) => Runtime::lithify(&self.setup, &[]),
                };
                let start = "$R create --bundle $B --pid-file $B/pid $ID >$B/out 2>&1 </dev/null && $R start $ID || { cat $B/out >&2; exit 1; }";
                bundle.bash(&runtime, start)?.success()?;
                let url = "http://127.0.0.1:8080".to_owned();
                Victim { site: self, id: bundle.id.clone(), url, bundle: Some((bundle, runtime)) }
            }
        };
        eventually("the victim to serve", Duration::from_secs(15), || {
            Ok((victim.get("/")? == "honest\n").then_some(()))
        })
        .with_context(|| victim.logs())?;
        Ok(victim)
    }

    /// Bundles are one folder with one root, so that all are one revision; only ids differ.
    fn bundle(&self, nth: u32, program: &str) -> Result<Bundle<'c>> {
        let last = self.corner.dir().join("bundles/victim");
        if last.exists() {
            fs::remove_dir_all(&last)?;
        }
        let mut bundle = Bundle::new(self.corner, "victim", "")?;
        bundle.id = format!("victim-{nth}");
        let (rootfs, _) = image()?;
        let copy = "rm -rf \"$B/rootfs\" \"$B/data\"; mkdir \"$B/data\"; cp -a \"$0\" \"$B/rootfs\"";
        run(Command::new("bash").args(["-c", copy]).arg(rootfs).env("B", &bundle.path))?.success()?;
        let all: Vec<String> = caps::read(None, caps::CapSet::Bounding)?.iter().map(ToString::to_string).collect();
        let data = bundle.path.join("data");
        bundle.edit(|spec| {
            spec["process"]["args"] = json!([program, "8080"]);
            spec["process"]["env"].as_array_mut().into_iter().for_each(|env| env.push(json!("ATTACKER=127.0.0.1")));
            spec["process"]["noNewPrivileges"] = json!(false);
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = json!(all);
            }
            for list in ["maskedPaths", "readonlyPaths"] {
                spec["linux"][list] = json!([]);
            }
            spec["linux"]["cgroupsPath"] = json!(format!("{}/victim-{nth}", self.corner.cgroup()));
            // It shares the corner's network, in which its attacker is.
            let namespaces = spec["linux"]["namespaces"].as_array_mut();
            namespaces.into_iter().for_each(|all| all.retain(|one| one["type"] != "network"));
            let mounts = spec["mounts"].as_array_mut();
            mounts.into_iter().for_each(|mounts| {
                mounts
                    .iter_mut()
                    .filter(|m| m["destination"] == "/dev/shm")
                    .for_each(|m| m["options"] = json!(["nosuid", "nodev"]));
                mounts
                    .push(json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "rw"]}));
            });
        })?;
        Ok(bundle)
    }

    /// lithifyctl on this site's store.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        let ctl = env!("CARGO_BIN_EXE_lithifyctl");
        self.corner.run(&[&[ctl, "--config", self.setup.config.as_str()], args].concat())?.success()
    }

    /// Containers' folders are elsewhere from now on.
    pub fn keep_state_in(&mut self, state: &Path) {
        self.base = self.base.replace(&self.state.display().to_string(), &state.display().to_string());
        self.state = state.to_owned();
    }

    /// Remembers the profiles as they are.
    pub fn keep_profiles(&self) -> Result<()> {
        let (now, kept) = (self.setup.data().join("profiles"), self.corner.dir().join("profiles-kept"));
        run(Command::new("cp").arg("-a").arg(now).arg(kept))?.success()?;
        Ok(())
    }

    /// They are as they were when that was said.
    pub fn restore_profiles(&self) -> Result<()> {
        let (now, kept) = (self.setup.data().join("profiles"), self.corner.dir().join("profiles-kept"));
        fs::remove_dir_all(&now)?;
        run(Command::new("cp").arg("-a").arg(kept).arg(now))?.success()?;
        Ok(())
    }

    /// The dockerd, where there is one.
    pub fn engine(&self) -> Option<&Docker<'c>> {
        match &self.engine {
            Engine::Docker(docker) => Some(docker),
            Engine::Bare(_) => None,
        }
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // nsenter passes no signal on; the corner's end takes what this leaves.
        for attacker in &mut self.attackers {
            let _ = attacker.kill();
            let _ = attacker.wait();
        }
        // The kernel's programs are the node's: what an attack that failed has left of them would outlive the corner.
        let place = Place::of(&self.state);
        for pins in [&place.pins, &place.guard().pins] {
            let _ = fs::remove_dir_all(self.corner.inside(pins));
        }
    }
}

impl Victim<'_, '_> {
    /// All of what honest visitors do. Every answer must be right.
    pub fn serve_honestly(&self) -> Result<()> {
        for nth in 0..5 {
            ensure!(self.get("/")? == "honest\n", "the page");
            let counted = self.get("/cgi-bin/visits")?;
            ensure!(counted.starts_with("VISITORS: "), "the counter said {counted:?}");
            let kept = self.post(&format!("/upload/order-{nth}"), "one of each")?;
            ensure!(kept == "kept\n", "an upload was answered with {kept:?}");
            ensure!(self.get("/absent")?.is_empty(), "what is not there");
        }
        Ok(())
    }

    /// Still, or again, there.
    pub fn serves(&self) -> bool {
        self.get("/").is_ok_and(|page| page == "honest\n")
    }

    /// Sends an attack through a hole.
    pub fn strike(&self, attack: &Attack) -> Result<End> {
        let said = match &attack.payload {
            Payload::Shell(script) => self.post("/hole/shell", script)?,
            Payload::Code => self.post(&format!("/hole/code/{}", attack.name), "")?,
        };
        let ended = said.lines().rev().find(|line| line.starts_with("exit ") || line.starts_with("signal "));
        Ok(match ended {
            _ if said.lines().any(|line| line == "landed") => End::Landed,
            Some(_) => End::Failed(said.split_whitespace().collect::<Vec<_>>().join(" ")),
            None => End::Cut,
        })
    }

    fn get(&self, path: &str) -> Result<String> {
        let argv = ["curl", "--silent", "--max-time", "5", &format!("{}{path}", self.url)];
        Ok(self.site.corner.run(&argv)?.stdout)
    }

    fn post(&self, path: &str, body: &str) -> Result<String> {
        let url = format!("{}{path}", self.url);
        let argv = ["curl", "--silent", "--max-time", STRIKE_SECONDS, "--data-binary", body, &url];
        Ok(self.site.corner.run(&argv)?.stdout)
    }

    fn logs(&self) -> String {
        match (&self.bundle, self.site.engine()) {
            (Some((bundle, _)), _) => fs::read_to_string(bundle.path.join("out")).unwrap_or_default(),
            (None, Some(docker)) => format!("{:?}", docker.cli(&["logs", "--tail", "20", &self.id])),
            (None, None) => String::new(),
        }
    }

    /// What the engine says of it; `null` where there is none.
    pub fn identity(&self) -> Result<Value> {
        self.site.engine().map_or(Ok(Value::Null), |docker| docker.identity(&self.id))
    }

    /// Ends it, and removes all that it left.
    pub fn end(self) -> Result<()> {
        match (&self.bundle, self.site.engine()) {
            (Some((bundle, runtime)), _) => {
                let script = "$R kill $ID KILL; for i in $(seq 200); do $R state $ID | grep -q '\"stopped\"' && break; sleep 0.02; done; $R delete --force $ID";
                bundle.bash(runtime, script)?;
            }
            (None, Some(docker)) => {
                docker.ok(&["rm", "--force", &self.id])?;
                docker.ok(&["volume", "rm", VOLUME])?;
            }
            (None, None) => {}
        }
        Ok(())
    }
}
