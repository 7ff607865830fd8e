//! What was learnt, as edits of an engine's config.json: a plain low-level runtime builds the container by it, the workload
//! goes on as before, and nothing else does.

mod kernel;
#[path = "../tests/profile/model.rs"]
mod model;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lithify::harden::{Given, harden};
use lithify::policy::{self, Config};
use lithify::profile::behaviour::{Origin, Program};
use lithify::runtime::needs;
use lithify::spec::Document;
use serde_json::{Value, json};

use crate::bare::{Bundle, Runtime};
use crate::corner::Corner;
use crate::learn::{CRUN, profile};
use crate::setup::{RUNC, Setup};

/// Docker's own filter, as it is in a config.json.
const DOCKER: &str = include_str!("../tests/profile/engines/docker-20.10.json");
const PODMAN: &str = include_str!("../tests/profile/engines/podman-4.3.json");
/// As containers-common has it for a container without CAP_AUDIT_WRITE.
const PODMAN_WITHOUT_AUDIT: &str = include_str!("../tests/profile/engines/podman-4.3-without-audit.json");
/// Serves itself a file, and gives one away.
const WORK: &str = "httpd -p 8080 -h /srv && wget -qO- http://127.0.0.1:8080/file && rm -f /srv/given && echo x >/srv/given \
                    && chown 1:1 /srv/given && kill $(pidof httpd) && echo worked";
/// What it never did; each says so when it works. The last one needs a capability that is taken.
const ATTACK: &str = "unshare -U true && echo unshared; mount -t tmpfs none /mnt && echo mounted; chroot / true && echo \
                      changed; mknod /srv/node c 1 3 && echo made; echo attacked";

fn edit_as_engine(spec: &mut Value) {
    let engine: Value = serde_json::from_str(DOCKER).unwrap_or_default();
    spec["linux"]["seccomp"] = engine["linux"]["seccomp"].clone();
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(["CAP_CHOWN", "CAP_KILL", "CAP_MKNOD", "CAP_SYS_CHROOT"]);
    }
}

/// Learns the work with one runtime, then runs work and attack under the same one without lithify.
fn holds_without_lithify(runtime: &str, corner: &Corner, no_new_privileges: bool) -> Result<()> {
    let setup = Setup::new(corner)?;
    let config = fs::read_to_string(&setup.config)?.replace(RUNC, runtime);
    fs::write(&setup.config, config)?;
    let before = corner.traces()?;
    let bundle = Bundle::new(corner, "hardened", WORK)?;
    bundle.edit(|spec| {
        edit_as_engine(spec);
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
    })?;
    let run = "$R run --bundle $B $ID </dev/null; code=$?; $R delete --force $ID 2>/dev/null; exit $code";
    let learnt = bundle.bash(&Runtime::lithify(&setup, &["--mode", "learn"]), run)?.success()?;
    ensure!(learnt.ends_with("worked"), "{learnt}");
    let mut profile = profile(&setup)?;
    if !no_new_privileges {
        // A program that gains privileges keeps no-new-privileges away, and the runtime is filtered earlier.
        let seen = profile.workload_behaviour.syscalls.values().next().context("no system call was learnt")?.clone();
        let program = Program { seen, origins: [Origin::Image].into(), privileged: true };
        profile.workload_behaviour.programs.insert("/bin/su".into(), program);
    }

    bundle.edit(|spec| spec["process"]["args"] = json!(["sh", "-c", format!("{WORK}; {ATTACK}")]))?;
    let mut document = Document::read(&bundle.path)?;
    let policy = policy::resolve(&Config::default(), &Default::default(), &document.annotations()?, None)?;
    let needs = needs::of(Path::new(runtime), setup.data())?;
    let given = Given { profile: &profile, document: &document, policy: &policy, needs: &needs, listener: None };
    let hardening = harden(&given)?;
    ensure!(hardening.edits.iter().any(|edit| edit.pointer == "/linux/seccomp"), "{:?}", hardening.notes);
    hardening.apply(&mut document)?;
    ensure!(document.value()["process"]["noNewPrivileges"] == no_new_privileges, "{:?}", hardening.edits);
    fs::write(bundle.path.join("config.json"), document.to_json())?;
    let outcome = bundle.bash(&Runtime::plain(runtime), run)?;
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    ensure!(lines.ends_with(&["worked", "attacked"]), "{runtime}: {outcome:?}");
    fs::remove_dir_all(&bundle.path)?;
    corner.left_nothing_since(&before)
}

#[test]
fn what_was_learnt_holds_under_a_plain_runc_with_and_without_new_privileges() -> Result<()> {
    for no_new_privileges in [true, false] {
        holds_without_lithify(RUNC, &Corner::new()?, no_new_privileges)
            .with_context(|| no_new_privileges.to_string())?;
    }
    Ok(())
}

#[test]
fn what_was_learnt_holds_under_a_plain_crun_with_and_without_new_privileges() -> Result<()> {
    for no_new_privileges in [true, false] {
        holds_without_lithify(CRUN, &Corner::without_unified()?, no_new_privileges)
            .with_context(|| no_new_privileges.to_string())?;
    }
    Ok(())
}

#[test]
fn a_plan_of_a_bundle_is_shown_with_its_reasons_and_changes_nothing() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let bundle = Bundle::new(&corner, "planned", "echo x >/srv/x")?;
    bundle.edit(edit_as_engine)?;
    let plan = |more: &[&str]| {
        let mut command = corner.command(env!("CARGO_BIN_EXE_lithifyctl"));
        command.args(["--config", setup.config.as_str(), "plan", bundle.dir().unwrap_or_default()]).args(more);
        crate::command::run(&mut command)
    };
    let unlearnt = plan(&[])?;
    ensure!(unlearnt.code == 1 && unlearnt.stderr.contains("no profile of the bundle's workload"), "{unlearnt:?}");
    let learn = "$R run --bundle $B $ID; $R delete --force $ID 2>/dev/null";
    bundle.bash(&Runtime::lithify(&setup, &["--mode", "learn"]), learn)?;
    profile(&setup)?;
    let before = fs::read(bundle.path.join("config.json"))?;
    let shown = plan(&[])?.success()?;
    for part in ["/linux/seccomp", "why: ", "of the 292 that the engine allows", "/srv", "runtime   runc 1.1.5"] {
        ensure!(shown.contains(part), "{part}: {shown}");
    }
    let json: Value = serde_json::from_str(&plan(&["--json"])?.success()?)?;
    ensure!(json["edits"][0]["why"].is_string() && json["scratch"][0]["path"] == "/srv", "{json}");
    ensure!(fs::read(bundle.path.join("config.json"))? == before, "the bundle was changed");
    Ok(())
}
