//! Checks of the engines and low-level runtimes on this host. Must not: talk to a running engine.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::{Check, Verdict};
use crate::ctl::install::place::Root;
use crate::ctl::install::{Engine, containerd, docker, dropin};
use crate::policy::config::Config;
use crate::runtime::needs;

/// Where programs are looked for besides PATH, which a service's environment may lack.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// How long a program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// The runtimes that the configuration names; one of them has to be there.
pub fn runtimes(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut found_one = false;
    for runtime in &config.runtimes {
        let name = runtime.display().to_string();
        let check = match find(runtime) {
            Some(path) => {
                let first = if found_one { "" } else { " (used)" };
                found_one = true;
                let (needs, verdict) = needs_of(&path, config);
                Check::new(
                    &name,
                    verdict,
                    format!("{} {}{first}; what it needs: {needs}", path.display(), version(&path)),
                )
            }
            None => Check::new(&name, Verdict::Info, "not found"),
        };
        checks.push(check);
    }
    if !found_one {
        let check = Check::new("low-level runtime", Verdict::Missing, "none of the configuration's runtimes was found");
        checks.push(check.remedy("install runc or crun, or name one in runtimes by its absolute path"));
    }
    checks
}

/// Whether it is known what a runtime itself calls, so that a filter leaves it that.
fn needs_of(runtime: &Path, config: &Config) -> (String, Verdict) {
    match needs::known(runtime, &config.data_dir) {
        Ok(Some(needs)) if needs.notes.is_empty() => (needs.source, Verdict::Ok),
        Ok(Some(needs)) => (format!("{}: {}", needs.source, needs.notes.join("; ")), Verdict::Warn),
        Ok(None) => ("not looked at yet, which its first start does".into(), Verdict::Ok),
        Err(e) => (format!("{e:#}"), Verdict::Warn),
    }
}

/// The engines, and whether each knows the runtime.
pub fn engines() -> Vec<Check> {
    let mut checks = Vec::new();
    for engine in Engine::ALL {
        let program = if engine == Engine::Docker { "dockerd" } else { engine.name() };
        let Some(path) = find(Path::new(program)) else {
            checks.push(Check::new(program, Verdict::Info, "not found"));
            continue;
        };
        checks.push(Check::new(program, Verdict::Ok, format!("{} {}", path.display(), version(&path))));
        checks.push(registration(engine));
    }
    if checks.iter().all(|c| c.verdict == Verdict::Info) {
        let check = Check::new("engines", Verdict::Warn, "none found");
        checks.push(check.remedy("install containerd, Docker, Podman or CRI-O, or call lithify as runc is called"));
    }
    checks
}

fn registration(engine: Engine) -> Check {
    let name = format!("{} registration", engine.name());
    let remedy = format!("lithifyctl install --{}", engine.name());
    match is_registered(engine) {
        Ok((true, path)) => Check::new(&name, Verdict::Ok, format!("in {}", path.display())),
        Ok((false, path)) => Check::new(&name, Verdict::Warn, format!("not in {}", path.display())).remedy(remedy),
        Err(e) => Check::new(&name, Verdict::Warn, format!("{e:#}")).remedy("mend the file, then install"),
    }
}

fn is_registered(engine: Engine) -> anyhow::Result<(bool, PathBuf)> {
    let root = Root::open(Path::new("/"))?;
    let (path, known): (PathBuf, fn(&str) -> bool) = match engine {
        Engine::Containerd => (containerd::place(&root)?, containerd::is_registered),
        Engine::Docker => (docker::PATH.into(), docker::is_registered),
        Engine::Podman => (dropin::PODMAN_PATH.into(), dropin::is_registered),
        Engine::Crio => (dropin::CRIO_PATH.into(), dropin::is_registered),
    };
    let text = root.read(&path)?;
    Ok((text.as_deref().is_some_and(known), path))
}

fn find(program: &Path) -> Option<PathBuf> {
    if program.is_absolute() {
        return is_program(program).then(|| program.to_path_buf());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).filter(|p| p.is_absolute()).chain(FOLDERS.map(PathBuf::from));
    folders.map(|dir| dir.join(program)).find(|p| is_program(p))
}

fn is_program(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file()
}

/// The first line of `--version`, or why there is none.
fn version(program: &Path) -> String {
    let spawned = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => return format!("(can't be run: {e})"),
    };
    let (send, receive) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // An unreadable answer is shown as an empty one.
            let _ = out.take(4096).read_to_end(&mut text);
            let _ = send.send(text);
        });
    }
    let text = receive.recv_timeout(PATIENCE);
    if text.is_err() {
        // Already ended, or told to now; either way it is waited for.
        let _ = child.kill();
    }
    let _ = child.wait();
    match text {
        Ok(text) => format!("({})", String::from_utf8_lossy(&text).lines().next().unwrap_or("no version told").trim()),
        Err(_) => "(did not tell its version in 10s)".to_string(),
    }
}
