//! Uploads that end without a blob: given up by their writer, or expired with their lease.
//!
//! One batch: the upload's row stays and says how it ended, so that it can never be committed; the reservation is
//! released; one garbage row, not due before the grace has passed, hands its blocks to the collector.

use proto::ids::{BlobId, TenantId};

use super::{Context, Outcome, unchanged, usage};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys::{self, GarbageKind};
use crate::store::records::{GarbageRecord, UploadRecord, UploadState, UsageRecord};
use crate::store::rows::{BatchExt as _, read};

/// Gives an upload up. One that is over already stays as it is.
///
/// # Errors
/// [`MetadataError::UploadCommitted`] or [`MetadataError::UploadNotFound`].
pub fn abort(view: &dyn View, context: &Context<'_>, tenant: &TenantId, blob: BlobId) -> Outcome<()> {
    match read::<UploadRecord>(view, &keys::upload(tenant, blob))? {
        Some(upload) if upload.state == UploadState::Pending => {
            Ok((end(view, context, tenant, blob, upload, UploadState::Aborted)?, ()))
        }
        Some(_over) => unchanged(()),
        None if view.get(&keys::blob(tenant, blob))?.is_some() => Err(MetadataError::UploadCommitted),
        None => Err(MetadataError::UploadNotFound(blob.to_string())),
    }
}

/// Expires an upload if its lease has run out by now; returns whether it did.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub fn expire(view: &dyn View, context: &Context<'_>, tenant: &TenantId, blob: BlobId) -> Outcome<bool> {
    let now_ms = if seeded!(ForeignClock) { context.now_ms + 600_000 } else { context.now_ms };
    match read::<UploadRecord>(view, &keys::upload(tenant, blob))? {
        Some(upload) if upload.state == UploadState::Pending && upload.lease_is_over(now_ms) => {
            Ok((end(view, context, tenant, blob, upload, UploadState::Expired)?, true))
        }
        Some(_open_or_over) => unchanged(false),
        None => unchanged(false),
    }
}

fn end(
    view: &dyn View,
    context: &Context<'_>,
    tenant: &TenantId,
    blob: BlobId,
    mut upload: UploadRecord,
    state: UploadState,
) -> Result<Decision, MetadataError> {
    let mut usage: UsageRecord = read(view, &keys::usage(tenant))?.ok_or_else(|| MetadataError::missing("usage"))?;
    usage::close_upload(&mut usage, upload.reserved_bytes)?;
    upload.state = state;
    upload.end_epoch = Some(context.epoch);
    let due_ms = context.tuning.garbage_due_ms(context.now_ms);
    let mut batch = Batch::default();
    batch.set(keys::usage(tenant), &usage);
    batch.set(keys::upload(tenant, blob), &upload);
    let garbage = GarbageRecord { tenant: tenant.clone(), first_block: 0 };
    batch.set(keys::garbage(due_ms, GarbageKind::Upload, blob), &garbage);
    Ok(Decision::frees(batch))
}
