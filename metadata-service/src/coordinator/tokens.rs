//! The tokens of a tenant besides its main ones, and how expired tokens of all kinds are forgotten.
//!
//! Owns: the `token/` rows of these, and the list of them in the tenant's row, which changes in the same batch. A token is
//! valid as long as its row is there and its time is not over; the tenant's row only says where to look. Besides the two
//! main tokens, which rotation makes, a tenant has at most [`MORE_TOKENS_MAX`].
//!
//! No token makes one that outlives it, and only one with all scopes makes any.
//!
//! An expired token is known for [`EXPIRED_TOKEN_KEPT`], so that its holder is told TOKEN_EXPIRED rather than
//! TOKEN_INVALID; then the sweep of the uploads' worker drops its row ([`forget`]). It goes earlier when the room is needed
//! for a new one of the same tenant. Tokens without an end are never swept, so nothing ends that its owner has not ended.

use std::collections::BTreeMap;

use proto::ids::TenantId;
use proto::limits::EXPIRED_TOKEN_KEPT;
use proto::runtime::clock::millis;
use proto::token::{Token, TokenKeyId};

use super::request::{Fingerprint, Once, RequestId, object_id};
use super::{Context, Outcome, unchanged};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, Engine, View};
use crate::store::keys;
use crate::store::records::{Holder, MORE_TOKENS_MAX, Scopes, TenantRecord, TokenRecord};
use crate::store::rows::{BatchExt as _, load, read};
use crate::tokens;

/// A tenant's token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantToken {
    /// Its name.
    pub key_id: TokenKeyId,
    /// What it is good for.
    pub scopes: Scopes,
    /// When it was made, if that is known.
    pub create_ms: Option<u64>,
    /// When it ends, if it does.
    pub expire_ms: Option<u64>,
    /// Whether it is one of the two that rotation keeps.
    pub main: bool,
}

/// Makes one more token for a tenant.
#[derive(Debug, Clone)]
pub struct CreateTenantToken {
    /// Whose.
    pub tenant: TenantId,
    /// Under which request.
    pub request: RequestId,
    /// What it is to be good for.
    pub scopes: Scopes,
    /// How long it is to be valid; `None` for as long as may be.
    pub life_ms: Option<u64>,
    /// When the token ends that makes it.
    pub maker_expire_ms: Option<u64>,
}

/// Ends a tenant's token.
#[derive(Debug, Clone)]
pub struct RevokeTenantToken {
    /// Whose.
    pub tenant: TenantId,
    /// Under which request.
    pub request: RequestId,
    /// Which.
    pub key_id: TokenKeyId,
}

fn described(record: &TenantRecord, key_id: TokenKeyId, token: &TokenRecord) -> TenantToken {
    let TokenRecord { scopes, create_ms, expire_ms, .. } = *token;
    TenantToken { key_id, scopes, create_ms, expire_ms, main: !record.more_tokens.contains(&key_id) }
}

fn tenant_row(view: &dyn View, tenant: &TenantId) -> Result<TenantRecord, MetadataError> {
    read(view, &keys::tenant(tenant))?.ok_or_else(|| MetadataError::TenantNotFound(tenant.to_string()))
}

/// The row of a tenant's token, if that is valid.
pub(super) fn valid(
    view: &dyn View,
    context: &Context<'_>,
    tenant: &TenantId,
    key_id: TokenKeyId,
) -> Result<Option<TokenRecord>, MetadataError> {
    let row: Option<TokenRecord> = read(view, &keys::token(key_id))?;
    let is_own = |row: &TokenRecord| matches!(&row.holder, Holder::Tenant(own) if own == tenant);
    Ok(row.filter(|row| is_own(row) && !row.is_expired(context.now_ms)))
}

/// The row of a tenant's new token.
pub(super) fn row_of(
    context: &Context<'_>,
    tenant: &TenantId,
    token: &Token,
    scopes: Scopes,
    expire_ms: Option<u64>,
) -> TokenRecord {
    let row = tokens::record(token, Holder::Tenant(tenant.clone()));
    TokenRecord { scopes, create_ms: Some(context.now_ms), expire_ms, ..row }
}

/// When a new token ends.
fn end_of(context: &Context<'_>, command: &CreateTenantToken) -> Result<Option<u64>, MetadataError> {
    let Some(life_ms) = command.life_ms else { return Ok(command.maker_expire_ms) };
    let expire_ms = context.now_ms.saturating_add(life_ms);
    if command.maker_expire_ms.is_some_and(|maker| maker < expire_ms) {
        return Err(MetadataError::field("ttl", "must not be longer than that of the token that makes it"));
    }
    Ok(Some(expire_ms))
}

/// Makes one more token. A repeat of the request shows the same one, while it is valid.
///
/// # Errors
/// [`MetadataError::TenantNotFound`], [`MetadataError::TooManyTokens`]; [`MetadataError::Field`] for one that would outlive
/// its maker; [`MetadataError::RequestIdReused`] for the repeat of a request whose token has ended.
pub fn create(view: &dyn View, context: &Context<'_>, command: &CreateTenantToken) -> Outcome<(Token, TenantToken)> {
    let CreateTenantToken { tenant, request, scopes, life_ms, .. } = command;
    let fingerprint = Fingerprint::of("CreateTenantToken").with(tenant.as_str().as_bytes());
    let once = Once::new(request, fingerprint.with(scopes.to_string().as_bytes()).with_number(*life_ms));
    let mut record = tenant_row(view, tenant)?;
    if let Some(object) = once.recall(view, context)? {
        let first: TokenKeyId = object_id(&object)?;
        let row = valid(view, context, tenant, first)?.ok_or(MetadataError::RequestIdReused)?;
        return unchanged((tokens::of_tenant(context.secret, tenant, first), described(&record, first, &row)));
    }
    let expire_ms = end_of(context, command)?;
    let mut batch = Batch::default();
    make_room(view, context, tenant, &mut record, &mut batch)?;
    let token = tokens::of_tenant(context.secret, tenant, TokenKeyId::generate(context.entropy));
    let row = row_of(context, tenant, &token, *scopes, expire_ms);
    record.more_tokens.push(token.key_id);
    batch.set(keys::token(token.key_id), &row);
    batch.set(keys::tenant(tenant), &record);
    once.remember(&mut batch, context, token.key_id.as_bytes());
    let made = described(&record, token.key_id, &row);
    Ok((Decision::adds(batch), (token, made)))
}

/// Takes those tokens out of the tenant's row that have no row of their own (those of an import without secrets), and, if
/// there is still no room for one more, drops those that have expired.
fn make_room(
    view: &dyn View,
    context: &Context<'_>,
    tenant: &TenantId,
    record: &mut TenantRecord,
    batch: &mut Batch,
) -> Result<(), MetadataError> {
    let mut expired = Vec::new();
    for key_id in record.more_tokens.clone() {
        match read::<TokenRecord>(view, &keys::token(key_id))? {
            None => record.forget_token(key_id),
            Some(row) if row.is_expired(context.now_ms) => expired.push(key_id),
            Some(_valid) => {}
        }
    }
    if record.more_tokens.len() < MORE_TOKENS_MAX {
        return Ok(());
    }
    for key_id in &expired {
        record.forget_token(*key_id);
        batch.delete(keys::token(*key_id));
    }
    if expired.is_empty() { Err(MetadataError::TooManyTokens(tenant.to_string())) } else { Ok(()) }
}

/// Ends a token at once, also the last one: the admin can make another.
///
/// # Errors
/// [`MetadataError::TenantNotFound`]; [`MetadataError::Field`] when the tenant has no such token.
pub fn revoke(view: &dyn View, context: &Context<'_>, command: &RevokeTenantToken) -> Outcome<()> {
    let RevokeTenantToken { tenant, request, key_id } = command;
    let fingerprint = Fingerprint::of("RevokeTenantToken").with(tenant.as_str().as_bytes());
    let once = Once::new(request, fingerprint.with(key_id.as_bytes()));
    if once.recall(view, context)?.is_some() {
        return unchanged(());
    }
    let mut record = tenant_row(view, tenant)?;
    let known = view.get(&keys::token(*key_id))?.is_some();
    // Another tenant's token is as if it were not there (I9).
    let own = record.tokens().any(|own| own == *key_id) || seeded!(ForeignTokenRevoked);
    if !known || !own {
        return Err(MetadataError::field("key_id", "names no token of this tenant"));
    }
    record.forget_token(*key_id);
    let mut batch = Batch::default();
    batch.delete(keys::token(*key_id));
    batch.set(keys::tenant(tenant), &record);
    once.remember(&mut batch, context, &[]);
    Ok((Decision::frees(batch), ()))
}

/// Lists a tenant's tokens, the main ones first.
///
/// # Errors
/// [`MetadataError::TenantNotFound`].
pub async fn list(engine: &dyn Engine, tenant: &TenantId) -> Result<Vec<TenantToken>, MetadataError> {
    let record: Option<TenantRecord> = load(engine, &keys::tenant(tenant)).await?;
    let record = record.ok_or_else(|| MetadataError::TenantNotFound(tenant.to_string()))?;
    let mut found = Vec::new();
    for key_id in record.tokens() {
        if let Some(row) = load::<TokenRecord>(engine, &keys::token(key_id)).await? {
            found.push(described(&record, key_id, &row));
        }
    }
    Ok(found)
}

/// Whether an expired token need not be known any more.
pub fn is_forgettable(row: &TokenRecord, now_ms: u64) -> bool {
    row.expire_ms.is_some_and(|expire_ms| expire_ms.saturating_add(millis(EXPIRED_TOKEN_KEPT)) <= now_ms)
}

/// Tokens that [`forget`] takes at once: each one changes its own row and perhaps a tenant's.
pub const FORGOTTEN_AT_ONCE: usize = proto::limits::BATCH_WRITES_MAX / 2;

/// Drops the rows of those of these tokens that expired long ago; returns how many. At most [`FORGOTTEN_AT_ONCE`].
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub fn forget(view: &dyn View, context: &Context<'_>, key_ids: &[TokenKeyId]) -> Outcome<u64> {
    let (mut batch, mut owners, mut forgotten) = (Batch::default(), BTreeMap::<TenantId, TenantRecord>::new(), 0);
    for key_id in key_ids {
        let row = read::<TokenRecord>(view, &keys::token(*key_id))?;
        let Some(row) = row.filter(|row| is_forgettable(row, context.now_ms)) else { continue };
        batch.delete(keys::token(*key_id));
        forgotten += 1;
        let Holder::Tenant(tenant) = row.holder else { continue };
        let owner = match owners.remove(&tenant) {
            Some(owner) => Some(owner),
            None => read(view, &keys::tenant(&tenant))?,
        };
        if let Some(mut owner) = owner {
            owner.forget_token(*key_id);
            owners.insert(tenant, owner);
        }
    }
    owners.iter().for_each(|(tenant, owner)| batch.set(keys::tenant(tenant), owner));
    Ok((Decision::frees(batch), forgotten))
}
