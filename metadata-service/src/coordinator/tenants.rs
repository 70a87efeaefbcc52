//! Tenants and their main tokens.
//!
//! Owns: `tenant/` rows, the tenants' `token/` rows. A tenant's row, its usage row and its token rows appear and go in
//! one batch. Two main tokens are valid at a time, so that a rotation overlaps; others are made by
//! [`tokens`](super::tokens).
//!
//! An id comes free again only when no row tells of its former owner any more (I9): those rows are what keeps it taken,
//! so no other mark is needed that would have to agree with them. A remembered request answers with a token only while
//! that token is valid: it may have been rotated away since, or its tenant deleted.

use std::num::NonZeroU64;

use proto::ids::TenantId;
use proto::rates::Rates;
use proto::token::{Token, TokenKeyId};

use super::blobs::{Page, page};
use super::request::{Fingerprint, Once, RequestId, object_id};
use super::tokens::{row_of, valid};
use super::{Context, Outcome, unchanged};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, Engine, KeyRange, View};
use crate::store::keys;
use crate::store::records::{Quota, Scopes, TenantRecord, TrafficClass, UsageRecord};
use crate::store::rows::{BatchExt as _, load, read, record_of};
use crate::tokens;

/// A tenant with what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub tenant: TenantId,
    /// Its row.
    pub record: TenantRecord,
    /// What it holds.
    pub usage: UsageRecord,
}

/// Registers a tenant.
#[derive(Debug, Clone)]
pub struct RegisterTenant {
    /// Its id.
    pub tenant: TenantId,
    /// Under which request.
    pub request: RequestId,
    /// What it may hold.
    pub quota: Quota,
    /// How urgent its traffic is.
    pub traffic_class: TrafficClass,
    /// How fast it may go.
    pub rates: Rates,
}

/// Changes a tenant; what is absent stays.
#[derive(Debug, Clone)]
pub struct UpdateTenant {
    /// Which.
    pub tenant: TenantId,
    /// Under which request.
    pub request: RequestId,
    /// Replaces the whole quota.
    pub quota: Option<Quota>,
    /// Replaces the class.
    pub traffic_class: Option<TrafficClass>,
    /// Replaces all rates.
    pub rates: Option<Rates>,
}

fn not_found(tenant: &TenantId) -> MetadataError {
    MetadataError::TenantNotFound(tenant.to_string())
}

fn existing(view: &dyn View, tenant: &TenantId) -> Result<Tenant, MetadataError> {
    let record = read(view, &keys::tenant(tenant))?.ok_or_else(|| not_found(tenant))?;
    let usage = read(view, &keys::usage(tenant))?.ok_or_else(|| MetadataError::missing("usage"))?;
    Ok(Tenant { tenant: tenant.clone(), record, usage })
}

fn with_quota(fingerprint: Fingerprint, quota: Option<&Quota>) -> Fingerprint {
    match quota {
        Some(quota) => fingerprint
            .with(&[1])
            .with_number(quota.max_bytes)
            .with_number(quota.max_blobs)
            .with_number(quota.max_blob_bytes)
            .with_number(Some(quota.max_open_uploads)),
        None => fingerprint.with(&[0]),
    }
}

fn with_rates(fingerprint: Fingerprint, rates: Option<&Rates>) -> Fingerprint {
    let Some(Rates { requests_per_second, read_bytes_per_second, write_bytes_per_second }) = rates else {
        return fingerprint.with(&[0]);
    };
    let each = [requests_per_second, read_bytes_per_second, write_bytes_per_second];
    each.into_iter().fold(fingerprint.with(&[1]), |sum, rate| sum.with_number(rate.map(NonZeroU64::get)))
}

fn with_class(fingerprint: Fingerprint, class: Option<TrafficClass>) -> Fingerprint {
    match class {
        Some(TrafficClass::Gold) => fingerprint.with(b"gold"),
        Some(TrafficClass::Silver) => fingerprint.with(b"silver"),
        Some(TrafficClass::Bronze) => fingerprint.with(b"bronze"),
        None => fingerprint.with(b""),
    }
}

/// Refuses an id under which rows of a deleted tenant wait for the collector: a new owner would find them as its own.
fn check_collected(view: &dyn View, tenant: &TenantId) -> Result<(), MetadataError> {
    for prefix in [keys::uploads(tenant), keys::deleted_blobs(tenant), keys::requests(tenant)] {
        if !view.scan(&KeyRange::prefix(&prefix), 1)?.is_empty() {
            return Err(MetadataError::TenantNotCollected(tenant.to_string()));
        }
    }
    Ok(())
}

/// Registers a tenant and makes its first token. A repeat of the request that registered it returns it with that token,
/// while the token is valid; if the tenant has been deleted since, it is registered anew.
///
/// # Errors
/// [`MetadataError::TenantAlreadyExists`], [`MetadataError::TenantNotCollected`].
pub fn register(view: &dyn View, context: &Context<'_>, command: &RegisterTenant) -> Outcome<(Tenant, Token)> {
    let tenant = &command.tenant;
    let fingerprint = Fingerprint::of("RegisterTenant").with(tenant.as_str().as_bytes());
    let fingerprint = with_class(with_quota(fingerprint, Some(&command.quota)), Some(command.traffic_class));
    let fingerprint = with_rates(fingerprint, Some(&command.rates));
    let once = Once::new(&command.request, fingerprint);
    let first = once.recall(view, context)?.map(|object| object_id::<TokenKeyId>(&object)).transpose()?;
    if let Some(known) = read::<TenantRecord>(view, &keys::tenant(tenant))? {
        let taken = || MetadataError::TenantAlreadyExists(tenant.to_string());
        let token = first.filter(|token| known.tokens().any(|own| own == *token)).ok_or_else(taken)?;
        valid(view, context, tenant, token)?.ok_or_else(taken)?;
        return unchanged((existing(view, tenant)?, tokens::of_tenant(context.secret, tenant, token)));
    }
    check_collected(view, tenant)?;
    let usage = UsageRecord::default();
    let token = tokens::of_tenant(context.secret, tenant, TokenKeyId::generate(context.entropy));
    let RegisterTenant { quota, traffic_class, rates, .. } = *command;
    let record = TenantRecord { rates, ..TenantRecord::new(context.now_ms, quota, traffic_class, token.key_id) };
    let mut batch = Batch::default();
    batch.set(keys::token(token.key_id), &row_of(context, tenant, &token, Scopes::ALL, None));
    batch.set(keys::tenant(tenant), &record);
    batch.set(keys::usage(tenant), &usage);
    once.remember(&mut batch, context, token.key_id.as_bytes());
    Ok((Decision::adds(batch), (Tenant { tenant: tenant.clone(), record, usage }, token)))
}

/// Changes a tenant's quota, class or rates.
///
/// # Errors
/// [`MetadataError::TenantNotFound`].
pub fn update(view: &dyn View, context: &Context<'_>, command: &UpdateTenant) -> Outcome<Tenant> {
    let fingerprint = Fingerprint::of("UpdateTenant").with(command.tenant.as_str().as_bytes());
    let fingerprint = with_class(with_quota(fingerprint, command.quota.as_ref()), command.traffic_class);
    let once = Once::new(&command.request, with_rates(fingerprint, command.rates.as_ref()));
    let repeated = once.recall(view, context)?.is_some();
    let mut tenant = existing(view, &command.tenant)?;
    if repeated {
        return unchanged(tenant);
    }
    tenant.record.quota = command.quota.unwrap_or(tenant.record.quota);
    tenant.record.traffic_class = command.traffic_class.unwrap_or(tenant.record.traffic_class);
    tenant.record.rates = command.rates.unwrap_or(tenant.record.rates);
    let mut batch = Batch::default();
    batch.set(keys::tenant(&command.tenant), &tenant.record);
    once.remember(&mut batch, context, &[]);
    Ok((Decision::frees(batch), tenant))
}

/// Removes a tenant that holds nothing. Blobs that it deleted stay queued for the collector, and so does the row that
/// counts them; until they are collected nobody can register its id.
///
/// # Errors
/// [`MetadataError::TenantNotEmpty`], [`MetadataError::TenantNotFound`] unless the same request removed it.
pub fn delete(view: &dyn View, context: &Context<'_>, request: &RequestId, tenant: &TenantId) -> Outcome<()> {
    let once = Once::new(request, Fingerprint::of("DeleteTenant").with(tenant.as_str().as_bytes()));
    if once.recall(view, context)?.is_some() {
        return unchanged(());
    }
    let Tenant { record, usage, .. } = existing(view, tenant)?;
    if usage.used_blobs > 0 || usage.reserved_blobs > 0 {
        return Err(MetadataError::TenantNotEmpty { blobs: usage.used_blobs, uploads: usage.reserved_blobs });
    }
    let mut batch = Batch::default();
    batch.delete(keys::tenant(tenant));
    for key_id in record.tokens() {
        batch.delete(keys::token(key_id));
    }
    if usage == UsageRecord::default() {
        batch.delete(keys::usage(tenant));
    }
    once.remember(&mut batch, context, &[]);
    Ok((Decision::frees(batch), ()))
}

/// Makes the next main token, which is good for everything until `expire_ms`: when the token ends that makes it. The main
/// token before stays valid, older ones end.
///
/// # Errors
/// [`MetadataError::TenantNotFound`]; [`MetadataError::RequestIdReused`] for the repeat of a request whose token has
/// ended.
pub fn rotate_token(
    view: &dyn View,
    context: &Context<'_>,
    request: &RequestId,
    tenant: &TenantId,
    expire_ms: Option<u64>,
) -> Outcome<Token> {
    let once = Once::new(request, Fingerprint::of("RotateTenantToken").with(tenant.as_str().as_bytes()));
    let mut record = existing(view, tenant)?.record;
    if let Some(object) = once.recall(view, context)? {
        let first: TokenKeyId = object_id(&object)?;
        valid(view, context, tenant, first)?.ok_or(MetadataError::RequestIdReused)?;
        return unchanged(tokens::of_tenant(context.secret, tenant, first));
    }
    let token = tokens::of_tenant(context.secret, tenant, TokenKeyId::generate(context.entropy));
    let mut batch = Batch::default();
    if let Some(ended) = record.previous_token.replace(record.token) {
        batch.delete(keys::token(ended));
    }
    record.token = token.key_id;
    batch.set(keys::token(token.key_id), &row_of(context, tenant, &token, Scopes::ALL, expire_ms));
    batch.set(keys::tenant(tenant), &record);
    once.remember(&mut batch, context, token.key_id.as_bytes());
    Ok((Decision::frees(batch), token))
}

/// Returns a tenant.
///
/// # Errors
/// [`MetadataError::TenantNotFound`].
pub async fn get(engine: &dyn Engine, tenant: &TenantId) -> Result<Tenant, MetadataError> {
    let record = load(engine, &keys::tenant(tenant)).await?.ok_or_else(|| not_found(tenant))?;
    let usage = load(engine, &keys::usage(tenant)).await?.unwrap_or_default();
    Ok(Tenant { tenant: tenant.clone(), record, usage })
}

/// A tenant's row: how urgent its traffic is, and how fast.
///
/// # Errors
/// [`MetadataError::TenantNotFound`], and when the row cannot be read.
pub async fn row(engine: &dyn Engine, tenant: &TenantId) -> Result<TenantRecord, MetadataError> {
    load(engine, &keys::tenant(tenant)).await?.ok_or_else(|| not_found(tenant))
}

/// Lists the tenants in the order of their ids.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub async fn list(engine: &dyn Engine, after: Option<&[u8]>, size: usize) -> Result<Page<Tenant>, MetadataError> {
    let rows = page(engine, KeyRange::prefix(keys::TENANTS), after, size).await?;
    let mut entries = Vec::with_capacity(rows.entries.len());
    for row in &rows.entries {
        let tenant = keys::tenant_of(&row.0).ok_or_else(|| MetadataError::missing("tenant's id"))?;
        let usage = load(engine, &keys::usage(&tenant)).await?.unwrap_or_default();
        entries.push(Tenant { record: record_of(row)?, tenant, usage });
    }
    Ok(Page { entries, next: rows.next })
}
