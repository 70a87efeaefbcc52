//! Deleted blobs beyond the quota: the oldest of such a tenant become due before their time.
//!
//! A tenant may keep as many bytes of deleted blobs as its quota has. What exceeds that goes, what was deleted first
//! first, but never before the grace has passed since its delete (I6). Blobs that are due or being collected already
//! count as gone; they are still there only until the collector comes to them.

use proto::ids::TenantId;
use proto::limits::BATCH_WRITES_MAX;
use proto::runtime::clock::millis;

use crate::coordinator::{Context, Outcome, unchanged};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, KeyRange, Row, View};
use crate::store::keys::{self, GarbageKind};
use crate::store::records::{DeletedRecord, GarbageRecord, TenantRecord, UsageRecord};
use crate::store::rows::{BatchExt as _, read};

/// Deleted blobs that one commit looks at.
const BLOBS_PER_COMMIT: usize = 32;

const _: () = {
    let rows_of_blob = 3; // tombstone, garbage row before and after
    assert!(BLOBS_PER_COMMIT * rows_of_blob <= BATCH_WRITES_MAX, "each of them may move in one batch");
};

/// How far the walk through a tenant's deleted blobs has got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk {
    after: Option<Vec<u8>>,
    leaving_bytes: u64,
    /// Blobs that were made due so far.
    pub hastened: u64,
    /// Whether it goes on.
    pub more: bool,
}

/// Goes on with the walk: makes blobs due until no more is kept than the quota has.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub fn walk(view: &dyn View, context: &Context<'_>, tenant: &TenantId, walk: &Walk) -> Outcome<Walk> {
    let mut walk = Walk { more: false, ..walk.clone() };
    let Some(excess) = excess(view, tenant)? else { return unchanged(walk) };
    let mut range = KeyRange::prefix(&keys::retained_blobs(tenant));
    if let Some(after) = &walk.after {
        range = range.after(after);
    }
    let rows = view.scan(&range, BLOBS_PER_COMMIT)?;
    let mut batch = Batch::default();
    for row in &rows {
        if walk.leaving_bytes >= excess || !pass(view, context, tenant, row, &mut walk, &mut batch)? {
            return Ok((Decision::frees(batch), walk));
        }
    }
    walk.more = rows.len() == BLOBS_PER_COMMIT;
    walk.after = rows.last().map(|row| row.0.to_vec());
    Ok((Decision::frees(batch), walk))
}

/// By how much a tenant's deleted blobs exceed its quota, if it has one.
fn excess(view: &dyn View, tenant: &TenantId) -> Result<Option<u64>, MetadataError> {
    let Some(row) = read::<TenantRecord>(view, &keys::tenant(tenant))? else { return Ok(None) };
    let Some(usage) = read::<UsageRecord>(view, &keys::usage(tenant))? else { return Ok(None) };
    Ok(row.quota.max_bytes.map(|max_bytes| usage.retained_bytes.saturating_sub(max_bytes)))
}

/// Takes one blob; returns whether younger ones may go, too.
fn pass(
    view: &dyn View,
    context: &Context<'_>,
    tenant: &TenantId,
    row: &Row,
    walk: &mut Walk,
    batch: &mut Batch,
) -> Result<bool, MetadataError> {
    let blob = keys::blob_of(&row.0).ok_or_else(|| MetadataError::missing("blob's id"))?;
    let key = keys::deleted(tenant, blob);
    let tombstone: DeletedRecord = read(view, &key)?.ok_or_else(|| MetadataError::missing("deleted blob"))?;
    let due_ms = tombstone.due_ms.ok_or_else(|| MetadataError::missing("deleted blob's garbage row"))?;
    let leaving = tombstone.collecting || due_ms <= context.now_ms;
    if !leaving {
        let early_ms = tombstone.delete_ms.saturating_add(millis(context.tuning.garbage_grace));
        if early_ms > context.now_ms {
            return Ok(false);
        }
        batch.delete(keys::garbage(due_ms, GarbageKind::Blob, blob));
        let garbage = GarbageRecord { tenant: tenant.clone(), first_block: 0 };
        batch.set(keys::garbage(early_ms, GarbageKind::Blob, blob), &garbage);
        batch.set(key, &DeletedRecord { due_ms: Some(early_ms), ..tombstone.clone() });
        walk.hastened += 1;
    }
    walk.leaving_bytes = walk.leaving_bytes.saturating_add(tombstone.blob.size_bytes);
    Ok(true)
}
