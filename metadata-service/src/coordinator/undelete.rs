//! Restoring a deleted blob (I8): the reverse of a delete, as long as the collector has not begun with it.
//!
//! One batch: the blob's row, its name-index row and its usage come back; the tombstone, its place by age and its garbage
//! row go. The collector flips the tombstone in a commit of its own before it touches anything, and both are commits, so
//! one of them wins.
//!
//! Also a call that changed nothing, because the blob was not deleted, is remembered: its repeat, arriving after a later
//! delete, must not undo that.

use proto::ids::{BlobId, TenantId};

use super::blobs::Blob;
use super::request::{Fingerprint, Once, RequestId};
use super::{Context, Outcome, unchanged, usage};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys::{self, GarbageKind};
use crate::store::records::{BlobRecord, DeletedRecord, NameRecord, TenantRecord, UsageRecord};
use crate::store::rows::{BatchExt as _, read};

/// Restores a blob.
#[derive(Debug, Clone)]
pub struct UndeleteBlob {
    /// Whose.
    pub tenant: TenantId,
    /// Under which request.
    pub request: RequestId,
    /// The blob.
    pub blob: BlobId,
}

/// Decides it. A blob that is not deleted is returned as it is.
///
/// # Errors
/// [`MetadataError`]: never existed or gone, being collected, does not fit into the quota; of a repeat whose blob has been
/// deleted again, [`MetadataError::BlobNotFound`].
pub fn decide(view: &dyn View, context: &Context<'_>, command: &UndeleteBlob) -> Outcome<Blob> {
    let (tenant, blob) = (&command.tenant, command.blob);
    let not_found = || MetadataError::BlobNotFound(blob.to_string());
    let once = Once::new(&command.request, Fingerprint::of("UndeleteBlob").with(blob.as_bytes()));
    let repeated = once.recall(view, context)?.is_some();
    let live: Option<BlobRecord> = read(view, &keys::blob(tenant, blob))?;
    if repeated {
        return unchanged(Blob::new(tenant, blob, live.ok_or_else(not_found)?));
    }
    let mut batch = Batch::default();
    let record = match live {
        Some(live) => live,
        None => {
            let tombstone = read(view, &keys::deleted(tenant, blob))?.ok_or_else(not_found)?;
            restore(view, context, command, tombstone, &mut batch)?
        }
    };
    once.remember(&mut batch, context, blob.as_bytes());
    // It replaces rows more than it adds any.
    Ok((Decision::frees(batch), Blob::new(tenant, blob, record)))
}

fn restore(
    view: &dyn View,
    context: &Context<'_>,
    command: &UndeleteBlob,
    tombstone: DeletedRecord,
    batch: &mut Batch,
) -> Result<BlobRecord, MetadataError> {
    let (tenant, blob) = (&command.tenant, command.blob);
    if tombstone.collecting && !seeded!(CollectedRestored) {
        return Err(MetadataError::BlobCollected(blob.to_string()));
    }
    let due_ms = tombstone.due_ms.unwrap_or_else(|| context.tuning.deleted_due_ms(tombstone.delete_ms));
    let record = tombstone.blob;
    batch.set(keys::usage(tenant), &charged(view, tenant, record.size_bytes)?);
    batch.delete(keys::deleted(tenant, blob));
    batch.delete(keys::retained(tenant, tombstone.delete_ms, blob));
    batch.delete(keys::garbage(due_ms, GarbageKind::Blob, blob));
    batch.set(keys::name(tenant, &record.description.display_name, blob), &NameRecord {});
    batch.set(keys::blob(tenant, blob), &record);
    Ok(record)
}

/// The usage with the blob in it again, if the quota allows that.
fn charged(view: &dyn View, tenant: &TenantId, size_bytes: u64) -> Result<UsageRecord, MetadataError> {
    let row: TenantRecord =
        read(view, &keys::tenant(tenant))?.ok_or_else(|| MetadataError::TenantNotFound(tenant.to_string()))?;
    let mut usage: UsageRecord = read(view, &keys::usage(tenant))?.ok_or_else(|| MetadataError::missing("usage"))?;
    usage::check_one_more_blob(tenant, &usage, &row.quota)?;
    usage::check_bytes(tenant, &usage, &row.quota, size_bytes)?;
    usage::restore_blob(&mut usage, size_bytes)?;
    Ok(usage)
}
