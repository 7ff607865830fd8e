//! One pod on a node of its own, in the few words that the tests need.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::messages::*;
use super::node::{BUSYBOX, Node};

/// Which RuntimeClass handler the pod asks for.
#[derive(Clone, Copy)]
pub enum Handler {
    Runc,
    Lithify,
}

/// What is out of the ordinary about a pod.
#[derive(Default)]
pub struct Wishes {
    pub annotations: HashMap<String, String>,
    /// `shareProcessNamespace` in a pod's manifest.
    pub shared_pids: bool,
}

impl Wishes {
    pub fn annotated(annotations: &[(&str, &str)]) -> Wishes {
        let annotations = annotations.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Wishes { annotations, ..Wishes::default() }
    }
}

/// A pod's sandbox; its node ends with it.
pub struct Pod {
    pub node: Node,
    id: String,
    config: PodSandboxConfig,
    namespaces: NamespaceOption,
}

impl Pod {
    /// Starts a node, and the pod's sandbox on it.
    pub fn run(handler: Handler, wishes: Wishes) -> Result<Pod> {
        let mut node = Node::start()?;
        let pid = if wishes.shared_pids { NAMESPACE_POD } else { NAMESPACE_CONTAINER };
        let namespaces = NamespaceOption { network: NAMESPACE_POD, pid, ipc: NAMESPACE_POD };
        let metadata = PodSandboxMetadata { name: "web-0".into(), uid: "uid-0".into(), namespace: "shop".into() };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            hostname: "web-0".into(),
            log_directory: node.log_dir().display().to_string(),
            annotations: wishes.annotations,
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: node.cgroup_parent(),
                security_context: Some(LinuxSandboxSecurityContext { namespace_options: Some(namespaces.clone()) }),
            }),
        };
        let runtime_handler = match handler {
            Handler::Runc => "runc",
            Handler::Lithify => "lithify",
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: runtime_handler.into() };
        let id = node.cri.run_pod_sandbox(request).context("RunPodSandbox")?.pod_sandbox_id;
        Ok(Pod { node, id, config, namespaces })
    }

    /// The pod's name in its metadata.
    pub fn name(&self) -> &str {
        self.config.metadata.as_ref().map_or("", |m| &m.name)
    }

    /// Creates and starts a container that runs a shell script; answers its id.
    pub fn container(&mut self, name: &str, script: &str) -> Result<String> {
        let security = LinuxContainerSecurityContext { namespace_options: Some(self.namespaces.clone()) };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into() }),
            image: Some(ImageSpec { image: BUSYBOX.into() }),
            command: ["/bin/sh", "-c", script].map(String::from).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig { security_context: Some(security) }),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let container_id = self.node.cri.create_container(request).context("CreateContainer")?.container_id;
        self.node.cri.start_container(ContainerId { container_id: container_id.clone() }).context("StartContainer")?;
        Ok(container_id)
    }

    /// Runs a program in a container, to its end.
    pub fn exec(&mut self, container: &str, cmd: &[&str]) -> Result<ExecSyncResponse> {
        let cmd = cmd.iter().map(|word| word.to_string()).collect();
        let request = ExecSyncRequest { container_id: container.into(), cmd, timeout: 20 };
        self.node.cri.exec_sync(request).context("ExecSync")
    }

    pub fn status(&mut self, container: &str) -> Result<ContainerStatus> {
        let request = StatusRequest { id: container.into(), verbose: false };
        self.node.cri.container_status(request).context("ContainerStatus")?.status.context("no status")
    }

    /// The container's pid, as the engine has it.
    pub fn pid(&mut self, container: &str) -> Result<i64> {
        let request = StatusRequest { id: container.into(), verbose: true };
        let answer = self.node.cri.container_status(request).context("ContainerStatus")?;
        let info: Value = serde_json::from_str(answer.info.get("info").context("no verbose status")?)?;
        info["pid"].as_i64().with_context(|| format!("no pid in {info}"))
    }

    /// The pod's address.
    pub fn ip(&mut self) -> Result<String> {
        let request = StatusRequest { id: self.id.clone(), verbose: false };
        let status = self.node.cri.pod_sandbox_status(request).context("PodSandboxStatus")?.status;
        Ok(status.and_then(|s| s.network).context("no network in the pod's status")?.ip)
    }

    /// How often the workload has said in its log that it begins.
    pub fn lives(&self, container: &str) -> Result<usize> {
        let path = self.node.log_dir().join(format!("{container}.log"));
        let log = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(log.lines().filter(|line| line.ends_with("a life begins")).count())
    }

    /// The container's events of one kind, oldest first.
    pub fn events(&self, container: &str, kind: &str) -> Result<Vec<Value>> {
        let kind = format!("dev.lithify.container.{kind}");
        let mut events = self.node.journal()?;
        events.retain(|event| event["subject"] == container && event["type"] == kind.as_str());
        Ok(events)
    }

    /// Asks the workload to end, with time to do so.
    pub fn stop(&mut self, container: &str) -> Result<()> {
        let request = StopContainerRequest { container_id: container.into(), timeout: 10 };
        self.node.cri.stop_container(request).context("StopContainer")?;
        Ok(())
    }

    /// Ends the pod as a kubelet does, and looks whether anything is left of it.
    pub fn end(mut self) -> Result<()> {
        let pod = PodSandboxId { pod_sandbox_id: self.id.clone() };
        self.node.cri.stop_pod_sandbox(pod.clone()).context("StopPodSandbox")?;
        self.node.cri.remove_pod_sandbox(pod).context("RemovePodSandbox")?;
        let left = self.node.leftovers();
        ensure!(left.is_empty(), "the pod has ended, and left behind: {left:?}");
        Ok(())
    }
}
