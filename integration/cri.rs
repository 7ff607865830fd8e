//! lithify under Kubernetes' container runtime interface: what a kubelet asks of containerd, asked by a test.

mod client;
mod messages;
mod node;
mod pod;

use anyhow::{Context, Result, bail, ensure};
use messages::*;
use node::wait_for;
use pod::{Handler, Pod, Wishes};

/// A workload that ends by itself on SIGTERM with a status of its own, and says each time that it begins.
const WORKLOAD: &str = "trap 'exit 7' TERM; echo a life begins; while :; do sleep 60 & wait $!; done";

/// All that a kubelet does with a pod in its life, with what has to be true at each step.
fn lives_its_whole_life(handler: Handler) -> Result<()> {
    let mut pod = Pod::run(handler, Wishes::default())?;
    let container = pod.container("app", WORKLOAD)?;
    let before = pod.status(&container)?;
    ensure!(before.state == CONTAINER_RUNNING, "expected a running container, found {before:?}");
    ensure!(pod.ip()?.starts_with("198.51.100."), "the pod's address {} is not the network's", pod.ip()?);

    let said = pod.exec(&container, &["sh", "-c", "echo to stdout; echo to stderr >&2; exit 3"])?;
    ensure!(
        (said.stdout.as_slice(), said.stderr.as_slice(), said.exit_code) == (b"to stdout\n", b"to stderr\n", 3),
        "{said:?}"
    );
    let address = pod.exec(&container, &["ip", "-4", "addr", "show", "eth0"])?;
    let address = String::from_utf8_lossy(&address.stdout).into_owned();
    ensure!(address.contains(&format!("{}/", pod.ip()?)), "eth0 in the container has another address: {address}");
    let stats = pod.node.cri.container_stats(ContainerId { container_id: container.clone() })?.stats;
    let memory = stats.and_then(|s| s.memory).and_then(|m| m.working_set_bytes).map_or(0, |v| v.value);
    ensure!(memory > 0, "the container's memory is not accounted");
    wait_for("the workload's first line in the log", || Ok((pod.lives("app")? == 1).then_some(())))?;

    pod.stop(&container)?;
    let after = pod.status(&container)?;
    ensure!(
        (after.state, after.exit_code) == (CONTAINER_EXITED, 7),
        "the workload's own exit status is lost: {after:?}"
    );
    ensure!(after.started_at == before.started_at, "the start time has changed");
    pod.node.cri.remove_container(ContainerId { container_id: container })?;
    pod.end()
}

#[test]
fn a_pod_under_plain_runc_lives_its_whole_life() -> Result<()> {
    lives_its_whole_life(Handler::Runc)
}

#[test]
fn a_pod_under_lithify_lives_its_whole_life() -> Result<()> {
    lives_its_whole_life(Handler::Lithify)
}

#[test]
fn a_sealed_container_of_a_pod_refuses_writes_to_its_root() -> Result<()> {
    let mut pod = Pod::run(Handler::Lithify, Wishes::annotated(&[("lithify.dev/scratch.app", "/tmp:16m")]))?;
    let container = pod.container("app", WORKLOAD)?;
    let refused = pod.exec(&container, &["sh", "-c", "echo owned >/etc/owned"])?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.exit_code != 0 && why.contains("Read-only file system"), "{refused:?}");
    let scratch = pod.exec(&container, &["sh", "-c", "echo work >/tmp/work && cat /tmp/work"])?;
    ensure!(scratch.stdout == b"work\n", "the scratch folder can't be written: {scratch:?}");
    pod.end()
}

#[test]
fn a_write_in_a_tripwire_container_restarts_it_and_the_kubelet_cannot_tell() -> Result<()> {
    let annotations = [("lithify.dev/rootfs", "tripwire"), ("lithify.dev/scratch.app", "/tmp:16m")];
    let mut pod = Pod::run(Handler::Lithify, Wishes::annotated(&annotations))?;
    let container = pod.container("app", WORKLOAD)?;
    let scratch = pod.exec(&container, &["sh", "-c", "echo work >/tmp/work"])?;
    ensure!(scratch.exit_code == 0, "a write to the scratch folder fails: {scratch:?}");
    let (before, pid, ip) = (pod.status(&container)?, pod.pid(&container)?, pod.ip()?);
    ensure!(pod.events(&container, "breach")?.is_empty(), "a write to the scratch folder counts as a breach");

    // The program is killed with the generation it broke into, so what becomes of it says nothing.
    let _ = pod.exec(&container, &["sh", "-c", "mkdir -p /etc/deep/er; echo owned >/etc/deep/er/owned; sleep 5"]);
    wait_for("a restart event", || Ok((!pod.events(&container, "restarted")?.is_empty()).then_some(())))
        .with_context(|| pod.node.log_tail())?;
    let breaches = pod.events(&container, "breach")?;
    let paths: Vec<_> = breaches.iter().filter_map(|event| event["data"]["path"].as_str()).collect();
    ensure!(paths.iter().any(|path| path.starts_with("/etc/deep")), "no breach names what was written: {breaches:?}");
    ensure!(breaches[0]["data"]["pod"] == pod.name(), "the event does not name the pod: {}", breaches[0]);
    wait_for("the second life's line in the same log", || Ok((pod.lives("app")? == 2).then_some(())))?;

    let gone = pod.exec(&container, &["sh", "-c", "ls /etc/deep /tmp/work; ip -4 addr show eth0"])?;
    let seen = String::from_utf8_lossy(&gone.stdout).into_owned();
    ensure!(!seen.contains("owned") && !seen.contains("/tmp/work"), "the new life finds what was written: {seen}");
    ensure!(seen.contains(&format!("{ip}/")), "the new life has another address than {ip}: {seen}");
    let after = pod.status(&container)?;
    ensure!((after.state, after.started_at) == (CONTAINER_RUNNING, before.started_at), "{before:?} became {after:?}");
    ensure!(pod.pid(&container)? == pid && pod.ip()? == ip, "the kubelet sees another pid or address");

    pod.stop(&container)?;
    let stopped = pod.status(&container)?;
    ensure!(
        (stopped.state, stopped.exit_code) == (CONTAINER_EXITED, 7),
        "the restarted workload does not stop: {stopped:?}"
    );
    pod.end()
}

#[test]
fn a_pods_containers_are_learnt_and_its_pause_container_is_not() -> Result<()> {
    let mut pod = Pod::run(Handler::Lithify, Wishes::annotated(&[("lithify.dev/mode", "learn")]))?;
    let container = pod.container("app", WORKLOAD)?;
    let written = pod.exec(&container, &["sh", "-c", "echo x >/etc/written && cat /etc/written"])?;
    ensure!(written.stdout == b"x\n", "the root is not the engine's: {written:?}");
    pod.stop(&container)?;
    ensure!(pod.status(&container)?.exit_code == 7, "the workload's own exit status is lost");
    let exited = wait_for("the end's event", || Ok(pod.events(&container, "exited")?.pop()))?;
    ensure!(exited["data"]["observation"].is_string(), "no observation: {exited}");
    ensure!(exited["data"]["workload"] == "shop/app", "{exited}");
    let strangers: Vec<_> = pod.node.journal()?.into_iter().filter(|e| e["subject"] != container.as_str()).collect();
    ensure!(strangers.is_empty(), "events of another container: {strangers:?}");
    pod.end()
}

/// The message of the first call that fails on the way to a running container.
fn refusal(annotation: (&str, &str)) -> Result<String> {
    let mut pod = match Pod::run(Handler::Lithify, Wishes::annotated(&[annotation])) {
        Ok(pod) => pod,
        Err(e) => return Ok(format!("{e:#}")),
    };
    match pod.container("app", WORKLOAD) {
        Ok(_) => bail!("a container with the annotation {annotation:?} was started"),
        Err(e) => Ok(format!("{e:#}")),
    }
}

#[test]
fn a_misspelt_annotation_fails_the_pod_with_a_message_that_names_it() -> Result<()> {
    let message = refusal(("lithify.dev/rootsf", "sealed"))?;
    ensure!(message.contains("lithify.dev/rootsf"), "the kubelet is told: {message}");
    Ok(())
}

#[test]
fn an_unknown_annotation_value_fails_the_pod_with_a_message_that_names_both() -> Result<()> {
    let message = refusal(("lithify.dev/on-write", "explode"))?;
    ensure!(message.contains("lithify.dev/on-write") && message.contains("explode"), "the kubelet is told: {message}");
    Ok(())
}

/// A pod with one pid namespace for all: the two containers see each other, and nothing of the node.
fn shares_its_pid_namespace(handler: Handler) -> Result<()> {
    let mut pod = Pod::run(handler, Wishes { shared_pids: true, ..Wishes::default() })?;
    let first = pod.container("first", "while :; do sleep 12345 & wait $!; done")?;
    let second = pod.container("second", WORKLOAD)?;
    let seen = pod.exec(&second, &["ps", "-o", "pid,args"])?;
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    ensure!(seen.lines().any(|l| l.trim() == "1 /pause"), "pid 1 is not the pod's pause program: {seen}");
    ensure!(seen.contains("sleep 12345"), "the pod's other container is not seen: {seen}");
    ensure!(seen.lines().count() < 12, "more is seen than the pod has: {seen}");
    let namespace =
        |pod: &mut Pod, id: &str| -> Result<Vec<u8>> { Ok(pod.exec(id, &["readlink", "/proc/self/ns/pid"])?.stdout) };
    let (one, two) = (namespace(&mut pod, &first)?, namespace(&mut pod, &second)?);
    let node = std::fs::read_link("/proc/self/ns/pid")?;
    ensure!(
        one == two && String::from_utf8_lossy(&one).trim() != node.to_string_lossy(),
        "the node's pid namespace is in the pod"
    );
    pod.stop(&second)?;
    ensure!(pod.status(&second)?.exit_code == 7, "the workload's own exit status is lost");
    ensure!(pod.status(&first)?.state == CONTAINER_RUNNING, "the other container ended, too");
    pod.end()
}

#[test]
fn a_pod_with_a_shared_pid_namespace_under_plain_runc_sees_itself_only() -> Result<()> {
    shares_its_pid_namespace(Handler::Runc)
}

#[test]
fn a_pod_with_a_shared_pid_namespace_under_lithify_sees_itself_only() -> Result<()> {
    shares_its_pid_namespace(Handler::Lithify)
}

#[test]
fn a_container_with_mode_off_cannot_get_the_nodes_pids_by_way_of_a_protected_pod() -> Result<()> {
    let annotations = Wishes::annotated(&[("lithify.dev/mode.second", "off")]).annotations;
    let mut pod = Pod::run(Handler::Lithify, Wishes { annotations, shared_pids: true })?;
    pod.container("first", WORKLOAD)?;
    match pod.container("second", WORKLOAD) {
        Ok(_) => bail!("a container with mode off was started in the pid namespace of a protected pod"),
        Err(e) => ensure!(format!("{e:#}").contains("which is protected"), "the kubelet is told: {e:#}"),
    }
    Ok(())
}

#[test]
fn a_restart_in_a_shared_pid_namespace_ends_the_intruder_and_spares_the_rest_of_the_pod() -> Result<()> {
    let annotations = Wishes::annotated(&[("lithify.dev/rootfs.second", "tripwire")]).annotations;
    let mut pod = Pod::run(Handler::Lithify, Wishes { annotations, shared_pids: true })?;
    let first = pod.container("first", "while :; do sleep 12345 & wait $!; done")?;
    let second = pod.container("second", WORKLOAD)?;
    let pids_of = |pod: &mut Pod, program: &str| -> Result<Vec<String>> {
        let seen = pod.exec(&first, &["ps", "-o", "pid,args"])?;
        let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
        let rows = seen.lines().filter_map(|line| line.trim().split_once(' '));
        Ok(rows.filter(|(_, args)| args.trim() == program).map(|(pid, _)| pid.to_owned()).collect())
    };
    let neighbour = pids_of(&mut pod, "sleep 12345")?;
    ensure!(!neighbour.is_empty(), "the neighbour's program does not run");

    // It outlives the session that started it, and no pid namespace of its own ends with the container's init.
    let _ = pod.exec(&second, &["sh", "-c", "(setsid sleep 54321 >/dev/null 2>&1 &); echo owned >/etc/owned"]);
    wait_for("a restart event", || Ok((!pod.events(&second, "restarted")?.is_empty()).then_some(())))
        .with_context(|| pod.node.log_tail())?;
    wait_for("the second life's line in the log", || Ok((pod.lives("second")? == 2).then_some(())))?;
    ensure!(pids_of(&mut pod, "sleep 54321")?.is_empty(), "the intruder's program has outlived the restart");
    ensure!(pids_of(&mut pod, "sleep 12345")? == neighbour, "the neighbour's program was ended");
    let owned = pod.exec(&second, &["cat", "/etc/owned"])?;
    ensure!(owned.exit_code != 0, "the new life finds what was written");
    pod.stop(&second)?;
    ensure!(pod.status(&second)?.exit_code == 7, "the restarted workload does not stop");
    pod.end()
}
