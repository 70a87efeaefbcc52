//! The operator's tokens: the admin's next one, and those by which nodes join.
//!
//! Owns: the `token/` rows of these. At any time exactly one admin token has no end: rotation makes the next one and gives
//! the one that asked for it an end, in one batch; one that has an end makes no other. So whoever holds a token that was
//! rotated away has it for the overlap and no longer, and the row of the one that ends names its successor, by which a
//! start finds out that the file beside the folder is not the latest word.

use std::time::Duration;

use proto::runtime::clock::millis;
use proto::token::{Token, TokenKeyId};

use super::request::{Fingerprint, Once, RequestId, object_id};
use super::{Context, Outcome, unchanged};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys;
use crate::store::records::{Holder, TokenRecord};
use crate::store::rows::{BatchExt as _, read};
use crate::tokens;

/// Makes the next admin token.
#[derive(Debug, Clone)]
pub struct RotateAdminToken {
    /// Under which request.
    pub request: RequestId,
    /// The token that asks.
    pub current: TokenKeyId,
    /// How long that one stays valid.
    pub overlap: Duration,
}

/// Makes a token by which a node can join.
#[derive(Debug, Clone)]
pub struct CreateJoinToken {
    /// Under which request.
    pub request: RequestId,
    /// Within which time a node has to join with it.
    pub life: Duration,
}

fn existing(view: &dyn View, key_id: TokenKeyId) -> Result<TokenRecord, MetadataError> {
    read(view, &keys::token(key_id))?.ok_or(MetadataError::TokenInvalid)
}

/// Makes the next admin token; returns it and when the one before ends. A repeat of the request shows the same one.
///
/// # Errors
/// [`MetadataError::ScopeMissing`] for a token that has been rotated; [`MetadataError::RequestIdReused`] for the repeat of a
/// request whose token has ended.
pub fn rotate_admin(view: &dyn View, context: &Context<'_>, command: &RotateAdminToken) -> Outcome<(Token, u64)> {
    let RotateAdminToken { request, current, overlap } = command;
    let once = Once::new(request, Fingerprint::of("RotateAdminToken").with_number(Some(millis(*overlap))));
    let row = existing(view, *current)?;
    if let Some(object) = once.recall(view, context)? {
        let first: TokenKeyId = object_id(&object)?;
        // Only to the token that made it; whoever has the new one need not ask for it.
        let made = row.expire_ms.filter(|_end| row.successor == Some(first));
        let expire_ms = made.ok_or(MetadataError::RequestIdReused)?;
        return unchanged((tokens::of_admin(context.secret, first), expire_ms));
    }
    if row.expire_ms.is_some() {
        let why = "this admin token was rotated and is about to end; use the one that took its place";
        return Err(MetadataError::ScopeMissing(why));
    }
    let token = tokens::of_admin(context.secret, TokenKeyId::generate(context.entropy));
    let expire_ms = context.now_ms.saturating_add(millis(*overlap));
    let ending = TokenRecord { expire_ms: Some(expire_ms), successor: Some(token.key_id), ..row };
    let next = TokenRecord { create_ms: Some(context.now_ms), ..tokens::record(&token, Holder::Admin) };
    let mut batch = Batch::default();
    batch.set(keys::token(*current), &ending);
    batch.set(keys::token(token.key_id), &next);
    once.remember(&mut batch, context, token.key_id.as_bytes());
    Ok((Decision::frees(batch), (token, expire_ms)))
}

/// Makes a token by which one node can join; returns it and when it ends. A repeat of the request shows the same one.
///
/// # Errors
/// [`MetadataError::RequestIdReused`] for the repeat of a request whose token is gone.
pub fn create_join(view: &dyn View, context: &Context<'_>, command: &CreateJoinToken) -> Outcome<(Token, u64)> {
    let CreateJoinToken { request, life } = command;
    let once = Once::new(request, Fingerprint::of("CreateJoinToken").with_number(Some(millis(*life))));
    if let Some(object) = once.recall(view, context)? {
        let first: TokenKeyId = object_id(&object)?;
        let row: Option<TokenRecord> = read(view, &keys::token(first))?;
        let expire_ms = row.and_then(|row| row.expire_ms).ok_or(MetadataError::RequestIdReused)?;
        return unchanged((tokens::of_join(context.secret, first), expire_ms));
    }
    let token = tokens::of_join(context.secret, TokenKeyId::generate(context.entropy));
    let expire_ms = context.now_ms.saturating_add(millis(*life));
    let row = tokens::record(&token, Holder::Join(None));
    let row = TokenRecord { create_ms: Some(context.now_ms), expire_ms: Some(expire_ms), ..row };
    let mut batch = Batch::default();
    batch.set(keys::token(token.key_id), &row);
    once.remember(&mut batch, context, token.key_id.as_bytes());
    Ok((Decision::adds(batch), (token, expire_ms)))
}
