//! Calls about tenants.

use std::num::NonZeroU64;

use proto::ids::TenantId;
use proto::limits::OPEN_UPLOADS_PER_TENANT;
use proto::pb;
use proto::rates::{BYTES_PER_SECOND_MIN, Rates};

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

fn rates(rates: pb::Rates) -> Result<Rates, MetadataError> {
    let pb::Rates { requests_per_second, read_bytes_per_second, write_bytes_per_second } = rates;
    Ok(Rates {
        requests_per_second: rate("rates.requests_per_second", requests_per_second, 1)?,
        read_bytes_per_second: rate("rates.read_bytes_per_second", read_bytes_per_second, BYTES_PER_SECOND_MIN)?,
        write_bytes_per_second: rate("rates.write_bytes_per_second", write_bytes_per_second, BYTES_PER_SECOND_MIN)?,
    })
}

/// A rate that is not so low that nothing would come to its end.
fn rate(field: &'static str, rate: Option<u64>, least: u64) -> Result<Option<NonZeroU64>, MetadataError> {
    match rate {
        Some(rate) if rate < least => Err(MetadataError::field(field, format!("must be at least {least}"))),
        Some(_) | None => Ok(rate.and_then(NonZeroU64::new)),
    }
}

impl TryFrom<Call<pb::RegisterTenantRequest>> for RegisterTenant {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::RegisterTenantRequest>) -> Result<Self, MetadataError> {
        Ok(Self {
            tenant: tenant(&caller, &message.tenant_id)?,
            request: request(&caller, message.request_id)?,
            quota: message.quota.map(quota).unwrap_or_default(),
            traffic_class: traffic_class(message.traffic_class)?.unwrap_or_default(),
            rates: message.rates.map(rates).transpose()?.unwrap_or_default(),
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
            rates: message.rates.map(rates).transpose()?,
        })
    }
}

impl TryFrom<Call<pb::DeleteTenantRequest>> for (RequestId, TenantId) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::DeleteTenantRequest>) -> Result<Self, MetadataError> {
        Ok((request(&caller, message.request_id)?, tenant(&caller, &message.tenant_id)?))
    }
}
