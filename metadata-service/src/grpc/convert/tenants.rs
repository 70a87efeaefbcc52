//! Calls about tenants.

use proto::ids::TenantId;
use proto::limits::OPEN_UPLOADS_PER_TENANT;
use proto::pb;

use super::Call;
use super::fields::{request, tenant, traffic_class};
use crate::coordinator::request::RequestId;
use crate::coordinator::tenants::{RegisterTenant, UpdateTenant};
use crate::error::MetadataError;
use crate::page_token::page_size;
use crate::store::records::Quota;

/// A page of tenants.
#[derive(Debug)]
pub(in crate::grpc) struct ListTenants {
    pub(in crate::grpc) size: usize,
    pub(in crate::grpc) token: String,
}

fn quota(quota: pb::Quota) -> Quota {
    let pb::Quota { max_bytes, max_blobs, max_blob_bytes, max_open_uploads } = quota;
    let max_open_uploads = max_open_uploads.unwrap_or(OPEN_UPLOADS_PER_TENANT);
    Quota { max_bytes, max_blobs, max_blob_bytes, max_open_uploads }
}

impl TryFrom<Call<pb::RegisterTenantRequest>> for RegisterTenant {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::RegisterTenantRequest>) -> Result<Self, MetadataError> {
        Ok(Self {
            tenant: tenant(&caller, &message.tenant_id)?,
            request: request(&caller, message.request_id)?,
            quota: message.quota.map(quota).unwrap_or_default(),
            traffic_class: traffic_class(message.traffic_class)?.unwrap_or_default(),
        })
    }
}

impl TryFrom<Call<pb::GetTenantRequest>> for TenantId {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::GetTenantRequest>) -> Result<Self, MetadataError> {
        tenant(&caller, &message.tenant_id)
    }
}

impl TryFrom<Call<pb::ListTenantsRequest>> for ListTenants {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::ListTenantsRequest>) -> Result<Self, MetadataError> {
        Ok(Self { size: page_size(message.page_size)?, token: message.page_token })
    }
}

impl TryFrom<Call<pb::UpdateTenantRequest>> for UpdateTenant {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::UpdateTenantRequest>) -> Result<Self, MetadataError> {
        Ok(Self {
            tenant: tenant(&caller, &message.tenant_id)?,
            request: request(&caller, message.request_id)?,
            quota: message.quota.map(quota),
            traffic_class: traffic_class(message.traffic_class)?,
        })
    }
}

impl TryFrom<Call<pb::DeleteTenantRequest>> for (RequestId, TenantId) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::DeleteTenantRequest>) -> Result<Self, MetadataError> {
        Ok((request(&caller, message.request_id)?, tenant(&caller, &message.tenant_id)?))
    }
}
