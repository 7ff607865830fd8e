//! The harness itself, under plain runc and crun: what these fail is no fault of lithify's.

use anyhow::Result;

use crate::bare::{Bundle, Runtime};
use crate::containerd::Containerd;
use crate::corner::Corner;
use crate::docker::Docker;
use crate::images::Image;
use crate::podman::{Podman, Under};
use crate::setup::{RUNC, Setup};

#[test]
fn docker_serves_a_page_under_runc_and_leaves_nothing() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Nginx)?;
    let before = corner.traces()?;
    let web = docker.start_container("plain", &["--tmpfs", "/run", "--tmpfs", "/var/lib/nginx"], Image::Nginx, &[])?;
    let url = format!("http://{}/", docker.address(&web)?);
    let page = corner.run(&["curl", "--silent", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", &url])?;
    assert!(page.stdout.contains("served from stone"), "{page:?}");
    assert!(docker.ok(&["top", &web])?.contains("nginx: worker"));
    docker.ok(&["stop", &web])?;
    docker.ok(&["rm", &web])?;
    corner.left_nothing_since(&before)
}

#[test]
fn redis_answers_under_runc() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Redis)?;
    let redis = docker.start_container("plain", &[], Image::Redis, &[])?;
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do redis-cli ping && exit; sleep 1; done; exit 1";
    assert_eq!(docker.ok(&["exec", &redis, "sh", "-c", script])?.lines().last(), Some("PONG"));
    docker.ok(&["rm", "--force", &redis])?;
    Ok(())
}

#[test]
fn ctr_runs_a_container_under_runc_and_leaves_nothing() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let containerd = Containerd::start(&corner, &setup)?;
    containerd.import(Image::Busybox)?;
    let before = corner.traces()?;
    let once = containerd.run(RUNC, &["--rm"], "once", &["sh", "-c", "echo out; echo err >&2; exit 4"])?;
    assert_eq!((once.code, once.stdout.as_str(), once.stderr.as_str()), (4, "out\n", "err\n"));
    containerd.run(RUNC, &["--detach"], "stays", &["sleep", "1000"])?.success()?;
    let (pid, status) = containerd.task("stays")?;
    assert_eq!(status, "RUNNING");
    assert!(corner.inside(format!("/proc/{pid}")).exists());
    assert_eq!(containerd.exec("stays", "first", &["cat", "/srv/file"])?.success()?, "as the image has it");
    containerd.remove("stays")?;
    corner.left_nothing_since(&before)
}

#[test]
fn podman_runs_a_container_under_runc_and_leaves_nothing() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let podman = Podman::new(&corner, &setup)?;
    podman.load(Image::Busybox)?;
    let argv = ["sh", "-c", "echo out; echo err >&2; exit 5"];
    let once = podman.run(Under::Runc, &["--rm"], Image::Busybox, &argv)?;
    assert_eq!((once.code, once.stdout.as_str(), once.stderr.as_str()), (5, "out\n", "err\n"));
    // Podman itself leaves /run/netns mounted and a cgroup for its conmons: those are there by now.
    let before = corner.traces()?;
    podman.run(Under::Runc, &["--detach", "--name", "stays"], Image::Busybox, &["sleep", "1000"])?.success()?;
    assert!(
        podman.inspect("stays")?["NetworkSettings"]["IPAddress"].as_str().is_some_and(|ip| ip.starts_with("10.214."))
    );
    assert_eq!(podman.ok(Under::Runc, &["exec", "stays", "cat", "/srv/file"])?, "as the image has it");
    podman.ok(Under::Runc, &["rm", "--force", "--time", "0", "stays"])?;
    corner.left_nothing_since(&before)
}

#[test]
fn a_bundle_runs_under_runc_and_under_crun() -> Result<()> {
    for (runtime, corner) in [(RUNC, Corner::new()?), ("/usr/bin/crun", Corner::without_unified()?)] {
        let bundle = Bundle::new(&corner, "bare", "echo out; exit 6")?;
        let before = corner.traces()?;
        let outcome = bundle.bash(&Runtime::plain(runtime), "$R run --bundle $B $ID")?;
        assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (6, "out\n", ""), "{runtime}");
        corner.left_nothing_since(&before)?;
    }
    Ok(())
}
