//! Handlers of `MetadataService`.

use proto::pb;
use proto::pb::metadata_service_server::MetadataService;
use tonic::{Request, Status, async_trait};

use super::audited::{Audited, command_on_record};
use super::convert::{Call, ListBlobs, ListTenants, RotateTenantToken};
use super::{Answer, answer, batches, command, refused};
use crate::auth::{Authenticator, Caller};
use crate::error::MetadataError;
use crate::service::Service;

/// A message of a tenant's own call.
pub(super) trait Named {
    /// The tenant that it names, if any.
    fn tenant_id(&self) -> &str;
}

macro_rules! named {
    ($($message:ty),* $(,)?) => { $(
        impl Named for $message {
            fn tenant_id(&self) -> &str {
                &self.tenant_id
            }
        }
    )* };
}

named!(
    pb::StartUploadRequest,
    pb::AllocateBlocksRequest,
    pb::CommitUploadRequest,
    pb::AbortUploadRequest,
    pb::GetUploadRequest,
    pb::GetBlobRequest,
    pb::GetBlobLayoutRequest,
    pb::ListBlobsRequest,
    pb::DeleteBlobRequest,
    pb::UndeleteBlobRequest,
);

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

    /// A tenant's own call as the command it stands for.
    async fn own<T: Named, C>(&self, request: Request<T>) -> Result<C, Status>
    where
        C: TryFrom<Call<T>, Error = MetadataError>,
    {
        self.count(&request).await?;
        command(request)
    }

    /// The same, once it is on record.
    async fn own_on_record<T: Named + Audited, C>(&self, request: Request<T>) -> Result<C, Status>
    where
        C: TryFrom<Call<T>, Error = MetadataError>,
    {
        self.count(&request).await?;
        self.on_record(request).await
    }

    async fn count<T: Named>(&self, request: &Request<T>) -> Result<(), Status> {
        let Some(caller) = request.extensions().get::<Caller>() else { return Ok(()) };
        self.authenticator.count_named(caller, request.get_ref().tenant_id()).await.map_err(refused)
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
        let (command, class) = self.own(request).await?;
        answer(self.service.start_upload(command, class).await)
    }

    async fn allocate_blocks(&self, request: Request<pb::AllocateBlocksRequest>) -> Answer<pb::AllocateBlocksResponse> {
        let (command, receipts, class) = self.own(request).await?;
        answer(self.service.allocate_blocks(command, &receipts, class).await)
    }

    async fn commit_upload(&self, request: Request<pb::CommitUploadRequest>) -> Answer<pb::CommitUploadResponse> {
        let (command, receipts) = self.own(request).await?;
        answer(self.service.commit_upload(command, &receipts).await)
    }

    async fn abort_upload(&self, request: Request<pb::AbortUploadRequest>) -> Answer<pb::AbortUploadResponse> {
        let (tenant, blob) = self.own(request).await?;
        answer(self.service.abort_upload(tenant, blob).await)
    }

    async fn get_upload(&self, request: Request<pb::GetUploadRequest>) -> Answer<pb::GetUploadResponse> {
        let (tenant, blob) = self.own(request).await?;
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
        let (tenant, blob) = self.own(request).await?;
        answer(self.service.get_blob(&tenant, blob).await)
    }

    async fn get_blob_layout(&self, request: Request<pb::GetBlobLayoutRequest>) -> Answer<pb::GetBlobLayoutResponse> {
        let (tenant, blob, range, class) = self.own(request).await?;
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
        let ListBlobs { tenant, prefix, deleted, size, token } = self.own(request).await?;
        if deleted {
            return answer(self.service.list_deleted_blobs(&tenant, size, &token).await);
        }
        answer(self.service.list_blobs(&tenant, &prefix, size, &token).await)
    }

    async fn delete_blob(&self, request: Request<pb::DeleteBlobRequest>) -> Answer<pb::DeleteBlobResponse> {
        answer(self.service.delete_blob(self.own_on_record(request).await?).await)
    }

    async fn undelete_blob(&self, request: Request<pb::UndeleteBlobRequest>) -> Answer<pb::UndeleteBlobResponse> {
        answer(self.service.undelete_blob(self.own_on_record(request).await?).await)
    }
}
