//! Kubernetes' side of CRI: the calls that a kubelet makes, blocking, over the engine's unix socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};

use super::messages::*;

/// Longest a call may take: a StopContainer waits for its own timeout, which is far shorter in all tests.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// A connection to one engine. The one-thread runtime is driven only while a call is under way.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    grpc: Grpc<Channel>,
}

/// One line of a call table: the method's Rust name, its service and CRI name, what it takes and what it answers.
macro_rules! calls {
    ($($name:ident = $path:literal ($request:ty) -> $response:ty;)*) => {
        $(pub fn $name(&mut self, request: $request) -> Result<$response, tonic::Status> {
            self.call(concat!("/runtime.v1.", $path), request)
        })*
    };
}

impl Client {
    /// Connects to the socket, once.
    pub fn connect(socket: &Path) -> Result<Client> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to build the runtime that drives gRPC")?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?.timeout(CALL_DEADLINE);
        let channel = runtime
            .block_on(endpoint.connect())
            .with_context(|| format!("failed to connect to CRI socket {}", socket.display()))?;
        Ok(Client { runtime, grpc: Grpc::new(channel) })
    }

    fn call<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, tonic::Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let grpc = &mut self.grpc;
        self.runtime.block_on(async move {
            grpc.ready().await.map_err(|e| tonic::Status::unavailable(format!("engine does not answer: {e}")))?;
            let path = PathAndQuery::from_static(path);
            grpc.unary(tonic::Request::new(request), path, codec).await.map(tonic::Response::into_inner)
        })
    }

    calls! {
        status = "RuntimeService/Status" (Empty) -> RuntimeStatusResponse;
        image_status = "ImageService/ImageStatus" (ImageStatusRequest) -> ImageStatusResponse;
        run_pod_sandbox = "RuntimeService/RunPodSandbox" (RunPodSandboxRequest) -> PodSandboxId;
        pod_sandbox_status = "RuntimeService/PodSandboxStatus" (StatusRequest) -> PodSandboxStatusResponse;
        list_pod_sandbox = "RuntimeService/ListPodSandbox" (Empty) -> ListPodSandboxResponse;
        stop_pod_sandbox = "RuntimeService/StopPodSandbox" (PodSandboxId) -> Empty;
        remove_pod_sandbox = "RuntimeService/RemovePodSandbox" (PodSandboxId) -> Empty;
        create_container = "RuntimeService/CreateContainer" (CreateContainerRequest) -> ContainerId;
        start_container = "RuntimeService/StartContainer" (ContainerId) -> Empty;
        exec_sync = "RuntimeService/ExecSync" (ExecSyncRequest) -> ExecSyncResponse;
        container_status = "RuntimeService/ContainerStatus" (StatusRequest) -> ContainerStatusResponse;
        container_stats = "RuntimeService/ContainerStats" (ContainerId) -> ContainerStatsResponse;
        stop_container = "RuntimeService/StopContainer" (StopContainerRequest) -> Empty;
        remove_container = "RuntimeService/RemoveContainer" (ContainerId) -> Empty;
    }
}
