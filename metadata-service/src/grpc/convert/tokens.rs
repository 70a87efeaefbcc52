//! Calls about tokens.

use std::ops::RangeInclusive;
use std::time::Duration;

use proto::ids::TenantId;
use proto::limits;
use proto::pb;
use proto::runtime::clock::millis;

use super::Call;
use super::fields::{request, span, tenant};
use crate::coordinator::operator_tokens::{CreateJoinToken, RotateAdminToken};
use crate::coordinator::request::RequestId;
use crate::coordinator::tokens::{CreateTenantToken, RevokeTenantToken};
use crate::error::MetadataError;
use crate::store::records::{Scope, Scopes};

/// How long a tenant's token may be valid if it has an end at all: up to 100 years.
const TENANT_TOKEN_LIFE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Whose main token to rotate, and when its successor ends at the latest.
#[derive(Debug)]
pub(in crate::grpc) struct RotateTenantToken {
    pub(in crate::grpc) request: RequestId,
    pub(in crate::grpc) tenant: TenantId,
    pub(in crate::grpc) expire_ms: Option<u64>,
}

impl TryFrom<Call<pb::RotateTenantTokenRequest>> for RotateTenantToken {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::RotateTenantTokenRequest>) -> Result<Self, MetadataError> {
        Ok(Self {
            request: request(&caller, message.request_id)?,
            tenant: tenant(&caller, &message.tenant_id)?,
            expire_ms: caller.expire_ms.filter(|_end| caller.is_tenant()),
        })
    }
}

fn scopes(numbers: Vec<i32>) -> Result<Scopes, MetadataError> {
    let unknown = || MetadataError::field("scopes", "must be scopes that exist");
    let scope = |number: i32| match pb::TokenScope::try_from(number) {
        Ok(pb::TokenScope::Read) => Ok(Scope::Read),
        Ok(pb::TokenScope::Write) => Ok(Scope::Write),
        Ok(pb::TokenScope::Delete) => Ok(Scope::Delete),
        Ok(pb::TokenScope::List) => Ok(Scope::List),
        Ok(pb::TokenScope::Unspecified) | Err(_) => Err(unknown()),
    };
    let scopes: Scopes = numbers.into_iter().map(scope).collect::<Result<_, _>>()?;
    Ok(if scopes.is_empty() { Scopes::ALL } else { scopes })
}

impl TryFrom<Call<pb::CreateTenantTokenRequest>> for CreateTenantToken {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::CreateTenantTokenRequest>) -> Result<Self, MetadataError> {
        Ok(Self {
            tenant: tenant(&caller, &message.tenant_id)?,
            request: request(&caller, message.request_id)?,
            scopes: scopes(message.scopes)?,
            life_ms: span("ttl", message.ttl, TENANT_TOKEN_LIFE)?.map(millis),
            // Of what the admin makes for a tenant, the admin's own token is no bound.
            maker_expire_ms: caller.expire_ms.filter(|_end| caller.is_tenant()),
        })
    }
}

impl TryFrom<Call<pb::ListTenantTokensRequest>> for TenantId {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::ListTenantTokensRequest>) -> Result<Self, MetadataError> {
        tenant(&caller, &message.tenant_id)
    }
}

impl TryFrom<Call<pb::RevokeTenantTokenRequest>> for RevokeTenantToken {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::RevokeTenantTokenRequest>) -> Result<Self, MetadataError> {
        let malformed = |_malformed| MetadataError::field("key_id", "must be 16 hex digits in lower case");
        Ok(Self {
            tenant: tenant(&caller, &message.tenant_id)?,
            request: request(&caller, message.request_id)?,
            key_id: message.key_id.parse().map_err(malformed)?,
        })
    }
}

impl TryFrom<Call<pb::RotateAdminTokenRequest>> for RotateAdminToken {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::RotateAdminTokenRequest>) -> Result<Self, MetadataError> {
        let overlap = span("overlap", message.overlap, Duration::ZERO..=limits::ADMIN_TOKEN_OVERLAP_MAX)?;
        Ok(Self {
            request: request(&caller, message.request_id)?,
            current: caller.key_id.ok_or(MetadataError::ScopeMissing("authentication is off: no token makes it"))?,
            overlap: overlap.unwrap_or(limits::ADMIN_TOKEN_OVERLAP),
        })
    }
}

impl TryFrom<Call<pb::CreateJoinTokenRequest>> for CreateJoinToken {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::CreateJoinTokenRequest>) -> Result<Self, MetadataError> {
        let life = span("ttl", message.ttl, Duration::from_secs(1)..=limits::JOIN_TOKEN_LIFE_MAX)?;
        Ok(Self { request: request(&caller, message.request_id)?, life: life.unwrap_or(limits::JOIN_TOKEN_LIFE) })
    }
}
