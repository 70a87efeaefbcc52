//! Handlers of `MetadataService`.

use proto::pb;
use proto::pb::metadata_service_server::MetadataService;
use tonic::{Request, Status, async_trait};

use super::audited::{Audited, command_on_record};
use super::convert::{Call, ListBlobs, ListTenants, RotateTenantToken};
use super::{Answer, answer, batches, command};
use crate::auth::Authenticator;
use crate::error::MetadataError;
use crate::service::Service;

/// See the module.
#[derive(Debug, Clone)]
pub struct MetadataHandlers {
    service: Service,
    authenticator: Authenticator,
}

impl MetadataHandlers {
    pub(super) fn new(service: Service, authenticator: Authenticator) -> Self {
        Self { service, authenticator }
    }

    async fn on_record<T: Audited, C>(&self, request: Request<T>) -> Result<C, Status>
    where
        C: TryFrom<Call<T>, Error = MetadataError>,
    {
        command_on_record(self.service.audit(), request).await
    }
}

#[async_trait]
impl MetadataService for MetadataHandlers {
    async fn register_tenant(&self, request: Request<pb::RegisterTenantRequest>) -> Answer<pb::RegisterTenantResponse> {
        answer(self.service.register_tenant(self.on_record(request).await?).await)
    }

    async fn get_tenant(&self, request: Request<pb::GetTenantRequest>) -> Answer<pb::GetTenantResponse> {
        answer(self.service.get_tenant(&self.on_record(request).await?).await)
    }

    async fn list_tenants(&self, request: Request<pb::ListTenantsRequest>) -> Answer<pb::ListTenantsResponse> {
        let ListTenants { size, token } = self.on_record(request).await?;
        answer(self.service.list_tenants(size, &token).await)
    }

    async fn update_tenant(&self, request: Request<pb::UpdateTenantRequest>) -> Answer<pb::UpdateTenantResponse> {
        answer(self.service.update_tenant(self.on_record(request).await?).await)
    }

    async fn delete_tenant(&self, request: Request<pb::DeleteTenantRequest>) -> Answer<pb::DeleteTenantResponse> {
        let (request, tenant) = self.on_record(request).await?;
        answer(self.service.delete_tenant(request, tenant).await)
    }

    async fn rotate_tenant_token(
        &self,
        request: Request<pb::RotateTenantTokenRequest>,
    ) -> Answer<pb::RotateTenantTokenResponse> {
        let RotateTenantToken { request, tenant, expire_ms } = self.on_record(request).await?;
        answer(self.service.rotate_token(request, tenant, expire_ms).await)
    }

    async fn create_tenant_token(
        &self,
        request: Request<pb::CreateTenantTokenRequest>,
    ) -> Answer<pb::CreateTenantTokenResponse> {
        answer(self.service.create_tenant_token(self.on_record(request).await?).await)
    }

    async fn list_tenant_tokens(
        &self,
        request: Request<pb::ListTenantTokensRequest>,
    ) -> Answer<pb::ListTenantTokensResponse> {
        answer(self.service.list_tenant_tokens(&self.on_record(request).await?).await)
    }

    async fn revoke_tenant_token(
        &self,
        request: Request<pb::RevokeTenantTokenRequest>,
    ) -> Answer<pb::RevokeTenantTokenResponse> {
        answer(self.service.revoke_tenant_token(self.on_record(request).await?).await)
    }

    async fn start_upload(&self, request: Request<pb::StartUploadRequest>) -> Answer<pb::StartUploadResponse> {
        let (command, class) = command(request)?;
        answer(self.service.start_upload(command, class).await)
    }

    async fn allocate_blocks(&self, request: Request<pb::AllocateBlocksRequest>) -> Answer<pb::AllocateBlocksResponse> {
        let (command, receipts, class) = command(request)?;
        answer(self.service.allocate_blocks(command, &receipts, class).await)
    }

    async fn commit_upload(&self, request: Request<pb::CommitUploadRequest>) -> Answer<pb::CommitUploadResponse> {
        let (command, receipts) = command(request)?;
        answer(self.service.commit_upload(command, &receipts).await)
    }

    async fn abort_upload(&self, request: Request<pb::AbortUploadRequest>) -> Answer<pb::AbortUploadResponse> {
        let (tenant, blob) = command(request)?;
        answer(self.service.abort_upload(tenant, blob).await)
    }

    async fn get_upload(&self, request: Request<pb::GetUploadRequest>) -> Answer<pb::GetUploadResponse> {
        let (tenant, blob) = command(request)?;
        answer(self.service.get_upload(&tenant, blob).await)
    }

    async fn start_uploads(&self, request: Request<pb::StartUploadsRequest>) -> Answer<pb::StartUploadsResponse> {
        let start = |(command, class)| self.service.start_upload(command, class);
        batches::each(&self.authenticator, request, start).await
    }

    async fn commit_uploads(&self, request: Request<pb::CommitUploadsRequest>) -> Answer<pb::CommitUploadsResponse> {
        let commit =
            |(command, receipts): (_, Vec<_>)| async move { self.service.commit_upload(command, &receipts).await };
        batches::each(&self.authenticator, request, commit).await
    }

    async fn get_blob(&self, request: Request<pb::GetBlobRequest>) -> Answer<pb::GetBlobResponse> {
        let (tenant, blob) = command(request)?;
        answer(self.service.get_blob(&tenant, blob).await)
    }

    async fn get_blob_layout(&self, request: Request<pb::GetBlobLayoutRequest>) -> Answer<pb::GetBlobLayoutResponse> {
        let (tenant, blob, range, class) = command(request)?;
        answer(self.service.get_layout(&tenant, blob, range, class).await)
    }

    async fn get_blob_layouts(
        &self,
        request: Request<pb::GetBlobLayoutsRequest>,
    ) -> Answer<pb::GetBlobLayoutsResponse> {
        let look =
            |(tenant, blob, range, class)| async move { self.service.get_layout(&tenant, blob, range, class).await };
        batches::each(&self.authenticator, request, look).await
    }

    async fn list_blobs(&self, request: Request<pb::ListBlobsRequest>) -> Answer<pb::ListBlobsResponse> {
        let ListBlobs { tenant, prefix, deleted, size, token } = command(request)?;
        if deleted {
            return answer(self.service.list_deleted_blobs(&tenant, size, &token).await);
        }
        answer(self.service.list_blobs(&tenant, &prefix, size, &token).await)
    }

    async fn delete_blob(&self, request: Request<pb::DeleteBlobRequest>) -> Answer<pb::DeleteBlobResponse> {
        answer(self.service.delete_blob(self.on_record(request).await?).await)
    }

    async fn undelete_blob(&self, request: Request<pb::UndeleteBlobRequest>) -> Answer<pb::UndeleteBlobResponse> {
        answer(self.service.undelete_blob(self.on_record(request).await?).await)
    }
}
