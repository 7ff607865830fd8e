//! Learning and observing under real engines: what a known workload does is in its profile, and the workload feels nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lithify::learn::presence;
use lithify::profile::{Behaviour, Profile, Support};
use lithify::sensor::Place;
use serde_json::json;

use crate::bare::{Bundle, Runtime};
use crate::command::eventually;
use crate::containerd::Containerd;
use crate::corner::{Corner, Traces};
use crate::docker::Docker;
use crate::images::Image;
use crate::journal::RESTARTED;
use crate::podman::{Podman, Under};
use crate::setup::{RUNC, Setup};

/// crun, where Debian has it.
pub const CRUN: &str = "/usr/bin/crun";
const FORBIDDEN: &str = "dev.lithify.container.forbidden";
const WOULD_REFUSE: &str = "dev.lithify.container.would-refuse";
const DEGRADED: &str = "dev.lithify.watch.degraded";

/// Writes a file of six bytes, one that is gone again, uses a capability, listens on a port, and stays.
pub const WORK: &str = "echo hello >/srv/written; chown 1:1 /srv/written; echo x >/srv/gone; rm /srv/gone; \
                    nc -l -p 8080 </dev/null >/dev/null & echo ready; exec sleep 1000";
/// What a session of somebody else does in it.
const SESSION: [&str; 3] = ["sh", "-c", "touch /srv/by-session"];

/// The only profile in the store.
pub fn profile(setup: &Setup) -> Result<Profile> {
    eventually("one profile", Duration::from_secs(15), || {
        let mut found = Vec::new();
        for workload in fs::read_dir(setup.data().join("profiles"))? {
            let workload = workload?.path();
            for file in fs::read_dir(&workload).into_iter().flatten() {
                let path = file?.path();
                if path.extension().is_some_and(|e| e == "json") {
                    found.push(path);
                }
            }
        }
        ensure!(found.len() == 1, "{found:?}");
        Ok(Some(serde_json::from_slice(&fs::read(&found[0])?)?))
    })
}

/// The profile is that of [`WORK`] and [`SESSION`].
pub fn is_of_the_work(profile: &Profile) -> Result<()> {
    let ours = &profile.workload_behaviour;
    let calls = |names: &[&str]| names.iter().any(|name| ours.syscalls.contains_key(*name));
    ensure!(calls(&["execve"]) && calls(&["open", "openat"]), "syscalls: {:?}", ours.syscalls.keys());
    ensure!(calls(&["chown", "lchown", "fchownat"]) && calls(&["listen"]), "syscalls: {:?}", ours.syscalls.keys());
    let written = ours.writes.get("/srv/written").with_context(|| format!("writes: {:?}", ours.writes.keys()))?;
    ensure!(written.succeeded && written.size_bytes == 6, "{written:?}");
    ensure!(ours.writes.contains_key("/srv/gone"), "what was removed again: {:?}", ours.writes.keys());
    ensure!(ours.listens.keys().any(|address| address.ends_with(":8080")), "listens: {:?}", ours.listens);
    let generation = profile.generations.values().next().context("no generation")?;
    if !generation.unseen.iter().any(|what| what == "capabilities") {
        ensure!(ours.capabilities.contains_key("CAP_CHOWN"), "capabilities: {:?}", ours.capabilities);
    }
    ensure!(generation.ended && !lossy(profile), "{generation:?}");
    let wrote = |side: &Behaviour<Support>| side.writes.contains_key("/srv/by-session");
    ensure!(wrote(&profile.exec_behaviour), "the session: {:?}", profile.exec_behaviour.writes.keys());
    ensure!(!wrote(ours), "a session of somebody else is not the workload's: {:?}", ours.writes.keys());
    ensure!(ours.programs.keys().any(|path| path.ends_with("busybox")), "programs: {:?}", ours.programs);
    Ok(())
}

fn lossy(profile: &Profile) -> bool {
    profile.generations.values().any(|g| g.loss.table_full + g.loss.unreadable + g.loss.untracked > 0)
}

/// What `lithifyctl status` says.
pub fn status(corner: &Corner, setup: &Setup) -> Result<String> {
    corner.run(&[env!("CARGO_BIN_EXE_lithifyctl"), "--config", &setup.config, "status"])?.success()
}

/// Nothing is left: no process, mount or cgroup, and no sensor.
pub fn nothing_is_left(corner: &Corner, before: &Traces) -> Result<()> {
    corner.left_nothing_since(before)?;
    eventually("the sensor's end", Duration::from_secs(10), || Ok((!is_loaded(corner)).then_some(())))
}

/// Whether the sensor of this corner's state folder is loaded.
fn is_loaded(corner: &Corner) -> bool {
    let pins = Place::of(&corner.state()).pins;
    corner.inside(pins).exists()
}

/// Lets the bundle's container run, does what a session does, and ends it.
pub fn work_through(bundle: &Bundle, runtime: &Runtime) -> Result<()> {
    let script = r#"
        $R create --bundle $B --pid-file $B/pid $ID >$B/out 2>&1 </dev/null && $R start $ID || exit 1
        for i in $(seq 200); do grep -q ready $B/out && grep -q ':1F90 .* 0A ' /proc/$(cat $B/pid)/net/tcp* && break; sleep 0.05; done
        $R exec $ID sh -c 'touch /srv/by-session' || exit 2
        $R kill $ID KILL || exit 3
        for i in $(seq 200); do $R state $ID | grep -q '"stopped"' && break; sleep 0.05; done
        $R delete $ID"#;
    bundle.bash(runtime, script)?.success().with_context(|| {
        format!("the container said {:?}", fs::read_to_string(bundle.path.join("out")).unwrap_or_default())
    })?;
    Ok(())
}

/// A bundle of [`WORK`], with the capability that it uses.
pub fn working_bundle<'c>(corner: &'c Corner, id: &str) -> Result<Bundle<'c>> {
    let bundle = Bundle::new(corner, id, WORK)?;
    bundle.edit(|spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(["CAP_CHOWN", "CAP_KILL"]);
        }
    })?;
    Ok(bundle)
}

#[test]
fn a_bundle_is_learnt_over_runc_and_over_crun() -> Result<()> {
    for (runtimes, corner) in [(RUNC, Corner::new()?), (CRUN, Corner::without_unified()?)] {
        let setup = Setup::new(&corner)?;
        let config = fs::read_to_string(&setup.config)?.replace(RUNC, runtimes);
        fs::write(&setup.config, config)?;
        let before = corner.traces()?;
        let bundle = working_bundle(&corner, "learnt")?;
        work_through(&bundle, &Runtime::lithify(&setup, &["--mode", "learn"]))?;
        is_of_the_work(&profile(&setup)?).context(runtimes)?;
        nothing_is_left(&corner, &before)?;
    }
    Ok(())
}

#[test]
fn what_docker_runs_is_learnt() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let before = corner.traces()?;
    let id = docker.start_container("learn", &[], Image::Busybox, &["sh", "-c", WORK])?;
    let listening =
        [&["exec", &id, "sh", "-c"][..], &["until netstat -ltn | grep -q :8080; do sleep 0.1; done"]].concat();
    docker.ok(&listening)?;
    docker.ok(&[&["exec", id.as_str()][..], &SESSION].concat())?;
    assert_eq!(docker.ok(&["logs", &id])?, "ready");
    docker.ok(&["stop", "--time", "0", &id])?;
    let profile = profile(&setup)?;
    is_of_the_work(&profile)?;
    assert_eq!(profile.workload, Image::Busybox.name(), "not by its program, which is sh");
    assert!(profile.revision.image.starts_with("sha256:"), "{:?}", profile.revision);
    ensure!(setup.journal().of(crate::journal::BREACH, &id)?.is_empty(), "what is learnt is no breach");
    docker.ok(&["rm", &id])?;
    nothing_is_left(&corner, &before)
}

#[test]
fn what_ctr_runs_is_learnt() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::with(&corner, "mode = \"learn\"")?;
    let containerd = Containerd::start(&corner, &setup)?;
    containerd.import(Image::Busybox)?;
    let before = corner.traces()?;
    containerd.run(&setup.lithify, &["--detach"], "work", &["sh", "-c", WORK])?.success()?;
    let listening = ["sh", "-c", "until netstat -ltn | grep -q :8080; do sleep 0.1; done"];
    containerd.exec("work", "listening", &listening)?.success()?;
    containerd.exec("work", "session", &SESSION)?.success()?;
    containerd.remove("work")?;
    is_of_the_work(&profile(&setup)?)?;
    nothing_is_left(&corner, &before)
}

#[test]
fn what_podman_runs_is_learnt_where_an_annotation_says_so() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let podman = Podman::new(&corner, &setup)?;
    podman.load(Image::Busybox)?;
    podman.run(Under::Runc, &["--rm"], Image::Busybox, &["true"])?.success()?;
    let before = corner.traces()?;
    let options = ["--detach", "--name", "work", "--annotation", "lithify.dev/mode=learn"];
    podman.run(Under::Lithify, &options, Image::Busybox, &["sh", "-c", WORK])?.success()?;
    session_under_podman(&podman, Under::Lithify)?;
    podman.ok(Under::Lithify, &["rm", "--force", "--time", "0", "work"])?;
    let profile = profile(&setup)?;
    is_of_the_work(&profile)?;
    assert_eq!(profile.workload, Image::Busybox.name(), "not by its program, which is sh");
    assert!(profile.revision.image.starts_with("sha256:"), "{:?}", profile.revision);
    nothing_is_left(&corner, &before)
}

/// Waits until the work listens, and lets a session in.
pub fn session_under_podman(podman: &Podman, under: Under) -> Result<()> {
    let listening = "until netstat -ltn | grep -q :8080; do sleep 0.1; done";
    podman.ok(under, &["exec", "work", "sh", "-c", listening])?;
    podman.ok(under, &[&["exec", "work"][..], &SESSION].concat())?;
    Ok(())
}

#[test]
fn a_workload_that_is_learnt_sees_what_it_would_see_under_runc() -> Result<()> {
    let look = "cut -d' ' -f4- /proc/self/mountinfo; cat /proc/self/cgroup; \
                grep -E '^(Cap|NoNew|Seccomp|Uid|Groups)' /proc/1/status; stat -c '%A %U %G %s %t %T %n' /* /dev/* /srv/* | grep -v ' /proc$'; ulimit -a; env; id; \
                readlink /proc/self/ns/user; cat /proc/1/oom_score_adj; mount -t tmpfs none /srv; echo $?; touch /srv/x; echo $?";
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let mut seen = Vec::new();
    for runtime in [
        Runtime::plain(RUNC),
        Runtime::lithify(&setup, &["--mode", "learn"]),
        Runtime::lithify(&setup, &["--mode", "observe"]),
    ] {
        // The same id, so that the cgroup's name is the same.
        let bundle = Bundle::new(&corner, "look", look)?;
        let outcome = bundle.bash(&runtime, "$R run --bundle $B $ID </dev/null; $R delete --force $ID")?;
        fs::remove_dir_all(&bundle.path)?;
        seen.push(outcome.stdout);
    }
    ensure!(seen[0].lines().count() > 40, "{}", seen[0]);
    assert_eq!(seen[0], seen[1], "learn");
    assert_eq!(seen[0], seen[2], "observe");
    Ok(())
}

#[test]
fn a_mount_that_a_container_shares_reaches_the_host_while_it_is_learnt_as_under_runc() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let shared = corner.path("shared");
    let engine = ["--rootfs", "engine"];
    for (n, flags) in [None, Some(&["--mode", "learn"][..]), Some(&engine[..])].into_iter().enumerate() {
        let runtime = flags.map_or_else(|| Runtime::plain(RUNC), |flags| Runtime::lithify(&setup, flags));
        let script = format!("mkdir -p /shared/{n} && mount -t tmpfs none /shared/{n} && touch /shared/{n}/seen");
        let bundle = Bundle::new(&corner, &format!("shares{n}"), &script)?;
        bundle.edit(|spec| {
            spec["linux"]["rootfsPropagation"] = json!("rshared");
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
            }
            let mount =
                json!({"destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "rshared"]});
            spec["mounts"].as_array_mut().into_iter().for_each(|mounts| mounts.push(mount.clone()));
        })?;
        let around = format!(
            "mkdir -p {shared}; mount --bind {shared} {shared}; $R run --bundle $B $ID; $R delete --force $ID 2>/dev/null; \
             ls {shared}/{n}; umount {shared}/{n}; umount {shared}"
        );
        let outcome = bundle.bash(&runtime, &around)?;
        assert_eq!(outcome.stdout, "seen\n", "{flags:?}: {outcome:?}");
    }
    Ok(())
}

#[test]
fn a_container_goes_on_when_its_collector_is_killed_and_that_is_said() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let before = corner.traces()?;
    let bundle = working_bundle(&corner, "unheard")?;
    let runtime = Runtime::lithify(&setup, &["--mode", "learn"]);
    let start = "$R create --bundle $B --pid-file $B/pid $ID >$B/out 2>&1 </dev/null && $R start $ID";
    bundle.bash(&runtime, start)?.success()?;
    let entry = eventually("the collector", Duration::from_secs(5), || {
        Ok(presence::list(&corner.inside(corner.state()))?.into_iter().find(|e| e.container == "unheard"))
    })?;
    ensure!(is_loaded(&corner), "no sensor where one has to be");
    let told = status(&corner, &setup)?;
    ensure!(told.contains(", learning; no profile yet"), "{told}");
    corner.run(&["kill", "-KILL", &entry.pid.to_string()])?.success()?;
    let said = setup.journal().wait_for(DEGRADED, "unheard", 1)?;
    ensure!(said[0]["data"]["reason"].as_str().is_some_and(|r| r.starts_with("learning: ")), "{said:?}");
    let state = bundle.bash(&runtime, "$R state $ID | jq -r .status; $R exec $ID echo in")?.success()?;
    assert_eq!(state, "running\nin");
    let told = status(&corner, &setup)?;
    ensure!(told.contains("learn, but nobody records") && told.contains("degraded: "), "{told}");
    bundle.bash(&runtime, "$R kill $ID KILL; $R delete --force $ID")?.success()?;
    // Its sensor's part is swept by whoever comes next.
    work_through(&working_bundle(&corner, "next")?, &runtime)?;
    nothing_is_left(&corner, &before)
}

#[test]
fn a_container_that_fails_to_start_leaves_no_sensor_behind() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "nothing", "true")?;
    bundle.edit(|spec| spec["process"]["args"] = json!(["/no/such/program"]))?;
    let outcome = bundle.bash(&Runtime::lithify(&setup, &["--mode", "learn"]), "$R run --bundle $B $ID")?;
    ensure!(outcome.code != 0 && outcome.stderr.contains("no such file"), "{outcome:?}");
    nothing_is_left(&corner, &before)
}

#[test]
fn a_tripwire_that_restarts_while_learning_makes_an_observation_of_each_generation() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let before = corner.traces()?;
    let bundle = Bundle::new(&corner, "tripped", "echo up; exec sleep 1000")?;
    let runtime = Runtime::lithify(&setup, &["--mode", "learn", "--rootfs", "tripwire", "--on-write", "restart"]);
    let start = "$R create --bundle $B --pid-file $B/pid $ID >$B/out 2>&1 </dev/null && $R start $ID";
    bundle.bash(&runtime, start)?.success()?;
    bundle.bash(&runtime, "$R exec $ID sh -c 'echo x >/srv/implant; sleep 10'")?;
    setup.journal().wait_for(RESTARTED, "tripped", 1)?;
    bundle.bash(&runtime, "$R kill $ID KILL; $R delete --force $ID")?.success()?;
    let learnt = profile(&setup)?;
    ensure!(learnt.generations.len() == 2 && learnt.generations.values().all(|g| g.ended), "{:?}", learnt.generations);
    ensure!(learnt.exec_behaviour.writes.contains_key("/srv/implant"), "{:?}", learnt.exec_behaviour.writes);
    let calls = &learnt.workload_behaviour.syscalls["execve"].generations;
    ensure!(calls.len() == 2, "each generation is seen from its first instruction: {calls:?}");
    nothing_is_left(&corner, &before)
}

#[test]
fn observing_tells_what_a_profile_does_not_have_and_adds_nothing_to_it() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let bundle = working_bundle(&corner, "seen")?;
    bundle.annotate("workload", "shop")?;
    work_through(&bundle, &Runtime::lithify(&setup, &["--mode", "learn"]))?;
    let learnt = profile(&setup)?;
    bundle.edit(|spec| {
        let more = format!("mkdir /srv/unheard-of; {WORK}");
        spec["process"]["args"] = json!(["sh", "-c", more]);
    })?;
    work_through(&bundle, &Runtime::lithify(&setup, &["--mode", "observe"]))?;
    let told = setup.journal().of(WOULD_REFUSE, "seen")?;
    let text = serde_json::to_string(&told)?;
    ensure!(text.contains("/srv/unheard-of") && text.contains("mkdir"), "{text}");
    ensure!(!text.contains("/srv/written"), "what the profile has is not told: {text}");
    assert_eq!(profile(&setup)?, learnt);
    Ok(())
}

#[test]
fn what_is_never_learnt_is_told_instead() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let poison = ["sh", "-c", "cp /bin/busybox /srv/echo; /srv/echo planted; touch /etc/planted"];
    let id = docker.start_container("learn", &[], Image::Busybox, &poison)?;
    assert_eq!(docker.ok(&["wait", &id])?, "0");
    let told = serde_json::to_string(&setup.journal().wait_for(FORBIDDEN, &id, 2)?)?;
    ensure!(told.contains("/etc/planted") && told.contains("/srv/echo"), "{told}");
    let learnt = profile(&setup)?;
    ensure!(!learnt.workload_behaviour.writes.contains_key("/etc/planted"), "{:?}", learnt.workload_behaviour.writes);
    ensure!(!learnt.workload_behaviour.programs.contains_key("/srv/echo"), "{:?}", learnt.workload_behaviour.programs);
    Ok(())
}
