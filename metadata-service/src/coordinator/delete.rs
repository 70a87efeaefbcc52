//! Deleting a blob (I8, I20): from the answer on no call sees it.
//!
//! One batch: the blob's row moves to `deleted/`, its name-index row goes, usage drops and retained grows, one garbage
//! row waits for the longer of retention and grace, and a row keeps the tenant's deleted blobs in the order of their age.
//! Nothing but an explicit undelete brings it back.

use proto::ids::{BlobId, TenantId};

use super::request::{Fingerprint, Once, RequestId};
use super::{Context, Outcome, unchanged, usage};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys::{self, GarbageKind};
use crate::store::records::{BlobRecord, DeletedRecord, GarbageRecord, RetainedRecord, UsageRecord};
use crate::store::rows::{BatchExt as _, read};

/// Deletes a blob.
#[derive(Debug, Clone)]
pub struct DeleteBlob {
    /// Whose.
    pub tenant: TenantId,
    /// Under which request.
    pub request: RequestId,
    /// The blob.
    pub blob: BlobId,
}

/// Decides it.
///
/// # Errors
/// [`MetadataError::BlobNotFound`], unless the same request deleted it.
pub fn decide(view: &dyn View, context: &Context<'_>, command: &DeleteBlob) -> Outcome<()> {
    let (tenant, blob) = (&command.tenant, command.blob);
    let once = Once::new(&command.request, Fingerprint::of("DeleteBlob").with(blob.as_bytes()));
    if once.recall(view, context)?.is_some() {
        return unchanged(());
    }
    let record: BlobRecord =
        read(view, &keys::blob(tenant, blob))?.ok_or_else(|| MetadataError::BlobNotFound(blob.to_string()))?;
    let mut usage: UsageRecord = read(view, &keys::usage(tenant))?.ok_or_else(|| MetadataError::missing("usage"))?;
    usage::retire_blob(&mut usage, record.size_bytes)?;
    let mut batch = Batch::default();
    batch.set(keys::usage(tenant), &usage);
    batch.delete(keys::name(tenant, &record.description.display_name, blob));
    batch.delete(keys::blob(tenant, blob));
    let (delete_ms, due_ms) = (context.now_ms, context.tuning.deleted_due_ms(context.now_ms));
    let tombstone = DeletedRecord { blob: record, delete_ms, due_ms: Some(due_ms), collecting: false };
    batch.set(keys::deleted(tenant, blob), &tombstone);
    batch.set(keys::retained(tenant, delete_ms, blob), &RetainedRecord {});
    let garbage = GarbageRecord { tenant: tenant.clone(), first_block: 0 };
    batch.set(keys::garbage(due_ms, GarbageKind::Blob, blob), &garbage);
    once.remember(&mut batch, context, blob.as_bytes());
    Ok((Decision::frees(batch), ()))
}
