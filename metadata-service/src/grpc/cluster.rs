//! Handlers of `ClusterService`.

use proto::pb;
use proto::pb::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status, async_trait};

use super::answers::ExportStream;
use super::audited::{Audited, command_on_record};
use super::check_stream::{self, CheckStream};
use super::convert::{
    Call, HeartbeatOf, IncludeSecrets, ListDamagedChunks, ListNodeChunks, ListNodes, NodeOrAll, ReportChunks,
};
use super::{Answer, answer, command, refused};
use crate::error::MetadataError;
use crate::service::Service;

/// See the module.
#[derive(Debug, Clone)]
pub struct ClusterHandlers {
    service: Service,
}

impl ClusterHandlers {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }

    async fn on_record<T: Audited, C>(&self, request: Request<T>) -> Result<C, Status>
    where
        C: TryFrom<Call<T>, Error = MetadataError>,
    {
        command_on_record(self.service.audit(), request).await
    }
}

#[async_trait]
impl ClusterService for ClusterHandlers {
    type CheckClusterStream = CheckStream;
    type ExportMetadataStream = ExportStream;

    async fn register_node(&self, request: Request<pb::RegisterNodeRequest>) -> Answer<pb::RegisterNodeResponse> {
        let (join, command) = self.on_record(request).await?;
        answer(self.service.register_node(join, command).await)
    }

    async fn heartbeat(&self, request: Request<pb::HeartbeatRequest>) -> Answer<pb::HeartbeatResponse> {
        let HeartbeatOf { node, endpoint, held_keys, report } = command(request)?;
        answer(self.service.heartbeat(node, endpoint, held_keys, report).await)
    }

    async fn list_nodes(&self, request: Request<pb::ListNodesRequest>) -> Answer<pb::ListNodesResponse> {
        let ListNodes { size, token } = self.on_record(request).await?;
        answer(self.service.list_nodes(size, &token))
    }

    async fn describe_chunk(&self, request: Request<pb::DescribeChunkRequest>) -> Answer<pb::DescribeChunkResponse> {
        let (node, chunk) = command(request)?;
        answer(self.service.describe_chunk(node, chunk).await)
    }

    async fn get_cluster_status(
        &self,
        request: Request<pb::GetClusterStatusRequest>,
    ) -> Answer<pb::GetClusterStatusResponse> {
        let () = self.on_record(request).await?;
        answer(self.service.cluster_status().await)
    }

    async fn list_node_chunks(
        &self,
        request: Request<pb::ListNodeChunksRequest>,
    ) -> Answer<pb::ListNodeChunksResponse> {
        let ListNodeChunks { node, after, size } = command(request)?;
        answer(self.service.list_node_chunks(node, after, size).await)
    }

    async fn report_chunks(&self, request: Request<pb::ReportChunksRequest>) -> Answer<pb::ReportChunksResponse> {
        let ReportChunks { node, reports } = command(request)?;
        answer(self.service.report_chunks(node, reports).await)
    }

    async fn list_damaged_chunks(
        &self,
        request: Request<pb::ListDamagedChunksRequest>,
    ) -> Answer<pb::ListDamagedChunksResponse> {
        let ListDamagedChunks { size, token } = self.on_record(request).await?;
        answer(self.service.list_damaged_chunks(size, &token).await)
    }

    async fn list_workers(&self, request: Request<pb::ListWorkersRequest>) -> Answer<pb::ListWorkersResponse> {
        let () = self.on_record(request).await?;
        answer(Ok(self.service.list_workers()))
    }

    async fn update_worker(&self, request: Request<pb::UpdateWorkerRequest>) -> Answer<pb::UpdateWorkerResponse> {
        let (name, change) = self.on_record(request).await?;
        answer(self.service.update_worker(name, change).await.map(|record| (name, record)))
    }

    async fn run_worker(&self, request: Request<pb::RunWorkerRequest>) -> Answer<pb::RunWorkerResponse> {
        let (name, accept_all) = self.on_record(request).await?;
        answer(self.service.run_worker(name, accept_all).await)
    }

    async fn end_restore(&self, request: Request<pb::EndRestoreRequest>) -> Answer<pb::EndRestoreResponse> {
        let lost_time = self.on_record(request).await?;
        answer(self.service.end_restore(lost_time).await)
    }

    async fn rotate_admin_token(
        &self,
        request: Request<pb::RotateAdminTokenRequest>,
    ) -> Answer<pb::RotateAdminTokenResponse> {
        answer(self.service.rotate_admin_token(self.on_record(request).await?).await)
    }

    async fn create_join_token(
        &self,
        request: Request<pb::CreateJoinTokenRequest>,
    ) -> Answer<pb::CreateJoinTokenResponse> {
        answer(self.service.create_join_token(self.on_record(request).await?).await)
    }

    async fn rotate_node_keys(
        &self,
        request: Request<pb::RotateNodeKeysRequest>,
    ) -> Answer<pb::RotateNodeKeysResponse> {
        let NodeOrAll(node) = self.on_record(request).await?;
        answer(self.service.rotate_node_keys(node).await)
    }

    async fn check_cluster(&self, request: Request<pb::CheckClusterRequest>) -> Answer<Self::CheckClusterStream> {
        Ok(Response::new(check_stream::start(&self.service, self.on_record(request).await?)))
    }

    async fn export_metadata(&self, request: Request<pb::ExportMetadataRequest>) -> Answer<Self::ExportMetadataStream> {
        let IncludeSecrets(include_secrets) = self.on_record(request).await?;
        let pieces = self.service.export(include_secrets).map_err(refused)?;
        Ok(Response::new(ExportStream(pieces)))
    }
}
