//! A sealed root filesystem under each engine: nothing can be written to it, and what it serves is served.

use anyhow::Result;

use crate::attack;
use crate::containerd::Containerd;
use crate::corner::Corner;
use crate::docker::Docker;
use crate::images::Image;
use crate::journal::{BREACH, EXITED, STARTED};
use crate::podman::{Podman, Under};
use crate::setup::{RUNC, Setup};

const CAPABLE: [&str; 6] =
    ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"];

#[test]
fn docker_root_with_sys_admin_writes_under_runc_and_is_refused_when_sealed_also_after_a_remount() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Busybox)?;
    let image = Image::Busybox.reference();
    for (runtime, verdict) in [("plain", "landed"), ("lithify", "refused")] {
        let fixed = ["run", "--rm", "--runtime", runtime];
        let output = docker.ok(&[&fixed[..], &CAPABLE, &[&image, "sh", "-c", attack::SCRIPT]].concat())?;
        attack::all(verdict, &output)?;
    }
    Ok(())
}

#[test]
fn ctr_root_with_sys_admin_writes_under_runc_and_is_refused_when_sealed_also_after_a_remount() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let containerd = Containerd::start(&corner, &setup)?;
    containerd.import(Image::Busybox)?;
    let before = corner.traces()?;
    for (runtime, verdict) in [(RUNC, "landed"), (&setup.lithify, "refused")] {
        let options = ["--rm", "--cap-add", "CAP_SYS_ADMIN"];
        let output = containerd.run(runtime, &options, verdict, &["sh", "-c", attack::SCRIPT])?.success()?;
        attack::all(verdict, &output)?;
    }
    let journal = setup.journal();
    assert_eq!(journal.wait_for(STARTED, "refused", 1)?.len(), 1);
    assert_eq!(journal.wait_for(EXITED, "refused", 1)?.len(), 1);
    corner.left_nothing_since(&before)
}

#[test]
fn podman_root_with_sys_admin_writes_under_runc_and_is_refused_when_sealed_also_after_a_remount() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let podman = Podman::new(&corner, &setup)?;
    podman.load(Image::Busybox)?;
    for (under, verdict) in [(Under::Runc, "landed"), (Under::Lithify, "refused")] {
        let options = [&["--rm"], &CAPABLE[..4]].concat();
        let output = podman.run(under, &options, Image::Busybox, &["sh", "-c", attack::SCRIPT])?.success()?;
        attack::all(verdict, &output)?;
    }
    Ok(())
}

#[test]
fn nginx_serves_and_redis_answers_from_sealed_roots_without_a_breach() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let docker = Docker::start(&corner, &setup)?;
    docker.load(Image::Nginx)?;
    docker.load(Image::Redis)?;
    let before = corner.traces()?;
    let tmpfs = ["--tmpfs", "/run", "--tmpfs", "/var/lib/nginx"];
    let web = docker.start_container("lithify", &tmpfs, Image::Nginx, &[])?;
    let redis = docker.start_container("lithify", &[], Image::Redis, &[])?;
    let url = format!("http://{}/", docker.address(&web)?);
    let page = corner.run(&["curl", "--silent", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", &url])?;
    assert!(page.stdout.contains("served from stone"), "{page:?}");
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do redis-cli ping && exit; sleep 1; done; exit 1";
    assert_eq!(docker.ok(&["exec", &redis, "sh", "-c", script])?.lines().last(), Some("PONG"));
    docker.ok(&["stop", &web, &redis])?;
    assert_eq!(docker.ok(&["wait", &web, &redis])?, "0\n0");
    for id in [&web, &redis] {
        assert_eq!(setup.journal().of(BREACH, id)?, Vec::<serde_json::Value>::new());
    }
    docker.ok(&["rm", &web, &redis])?;
    corner.left_nothing_since(&before)
}

#[test]
fn a_scratch_annotation_gives_the_workload_writable_places_of_the_size_and_kind_it_names() -> Result<()> {
    let corner = Corner::new()?;
    let setup = Setup::new(&corner)?;
    let containerd = Containerd::start(&corner, &setup)?;
    containerd.import(Image::Busybox)?;
    let script = "set -e; stat -c %a /tmp; echo x >/tmp/file
        df -k /tmp | tail -n 1 | awk '{print $2}'
        cp /bin/busybox /tmp/true; /tmp/true true 2>/dev/null && echo ran || echo noexec
        cp /bin/busybox /opt/true; /opt/true true && echo ran
        echo x >/new 2>/dev/null || echo sealed";
    let options = ["--rm", "--annotation", "lithify.dev/scratch=/tmp:3m,/opt:exec"];
    let outcome = containerd.run(&setup.lithify, &options, "scratch", &["sh", "-c", script])?;
    assert_eq!(outcome.success()?, "1777\n3072\nnoexec\nran\nsealed");
    Ok(())
}
