//! Tenants.

use std::num::NonZeroU64;

use proto::pb;
use proto::rates::Rates;
use proto::token::Token;

use super::{FromAnswer, timestamp, usage};
use crate::coordinator::tenants::Tenant;
use crate::store::records::Quota;

impl From<Tenant> for pb::Tenant {
    fn from(Tenant { tenant, record, usage: held }: Tenant) -> Self {
        let Quota { max_bytes, max_blobs, max_blob_bytes, max_open_uploads } = record.quota;
        let max_open_uploads = Some(max_open_uploads);
        Self {
            tenant_id: tenant.to_string(),
            create_time: Some(timestamp(record.create_ms)),
            quota: Some(pb::Quota { max_bytes, max_blobs, max_blob_bytes, max_open_uploads }),
            usage: Some(usage(held)),
            traffic_class: pb::TrafficClass::from(record.traffic_class).into(),
            rates: Some(rates(record.rates)),
        }
    }
}

fn rates(Rates { requests_per_second, read_bytes_per_second, write_bytes_per_second }: Rates) -> pb::Rates {
    pb::Rates {
        requests_per_second: requests_per_second.map(NonZeroU64::get),
        read_bytes_per_second: read_bytes_per_second.map(NonZeroU64::get),
        write_bytes_per_second: write_bytes_per_second.map(NonZeroU64::get),
    }
}

impl FromAnswer<(Tenant, Token)> for pb::RegisterTenantResponse {
    fn from_answer((tenant, token): (Tenant, Token)) -> Self {
        Self { tenant: Some(tenant.into()), token: token.expose().to_string() }
    }
}

impl FromAnswer<Tenant> for pb::GetTenantResponse {
    fn from_answer(tenant: Tenant) -> Self {
        Self { tenant: Some(tenant.into()) }
    }
}

impl FromAnswer<(Vec<Tenant>, String)> for pb::ListTenantsResponse {
    fn from_answer((tenants, next_page_token): (Vec<Tenant>, String)) -> Self {
        Self { tenants: tenants.into_iter().map(pb::Tenant::from).collect(), next_page_token }
    }
}

impl FromAnswer<Tenant> for pb::UpdateTenantResponse {
    fn from_answer(tenant: Tenant) -> Self {
        Self { tenant: Some(tenant.into()) }
    }
}

impl FromAnswer<()> for pb::DeleteTenantResponse {
    fn from_answer((): ()) -> Self {
        Self {}
    }
}
