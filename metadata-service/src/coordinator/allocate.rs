//! Going on with an upload: seal what has receipts, plan more, renew the lease.
//!
//! One batch. A repeat finds the blocks planned and the receipts taken, and so returns the same plan. A refusal writes
//! nothing, also not the receipts that came along.

use proto::ids::{BlobId, TenantId};
use proto::receipt::Receipt;
use proto::runtime::clock::millis;

use super::plan::{self, Next, Owner, PlannedBlock};
use super::seal::seal;
use super::start::Planned;
use super::upload::{Upload, pending};
use super::{Context, Outcome, usage};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys;
use crate::store::records::{TenantRecord, UploadRecord, UsageRecord};
use crate::store::rows::{BatchExt as _, read};

/// Seals, plans and renews.
#[derive(Debug, Clone)]
pub struct AllocateBlocks {
    /// Whose.
    pub tenant: TenantId,
    /// The upload.
    pub blob: BlobId,
    /// First block wanted.
    pub first_block: u64,
    /// How many; at most [`BLOCKS_PER_ALLOCATION`](proto::limits::BLOCKS_PER_ALLOCATION).
    pub block_count: u32,
    /// Receipts whose signatures hold; at most [`RECEIPTS_PER_CALL`](proto::limits::RECEIPTS_PER_CALL).
    pub receipts: Vec<Receipt>,
}

/// Decides it.
///
/// # Errors
/// [`MetadataError`]: the upload is over or unknown, a receipt does not fit, the plan would have a gap, the quota has
/// nothing left, no node.
pub fn decide(view: &dyn View, context: &Context<'_>, command: &AllocateBlocks) -> Outcome<Planned> {
    let (tenant, blob) = (&command.tenant, command.blob);
    let mut upload = pending(view, context, tenant, blob)?;
    let sealing = seal(view, blob, &mut upload, &command.receipts)?;
    let mut batch = Batch::default();
    sealing.write(&mut batch);
    let mut blocks = planned_before(view, &upload, command)?;
    blocks.extend(plan_more(view, context, &mut upload, command, blocks.is_empty(), &mut batch)?);
    renew(context, &mut upload);
    batch.set(keys::upload(tenant, blob), &upload);
    let upload = Upload::of_record(tenant, blob, &upload, context.now_ms);
    Ok((Decision::adds(batch), Planned { upload, blocks }))
}

fn planned_before(
    view: &dyn View,
    upload: &UploadRecord,
    command: &AllocateBlocks,
) -> Result<Vec<PlannedBlock>, MetadataError> {
    if command.first_block > upload.planned_blocks {
        let problem = format!("must be at most {}, the number of blocks planned so far", upload.planned_blocks);
        return Err(MetadataError::field("first_block_index", problem));
    }
    plan::planned(view, command.blob, upload, command.first_block, u64::from(command.block_count))
}

fn plan_more(
    view: &dyn View,
    context: &Context<'_>,
    upload: &mut UploadRecord,
    command: &AllocateBlocks,
    nothing_else: bool,
    batch: &mut Batch,
) -> Result<Vec<PlannedBlock>, MetadataError> {
    let end = command.first_block.saturating_add(u64::from(command.block_count));
    if end <= upload.planned_blocks {
        return Ok(Vec::new());
    }
    let next = match upload.declared_bytes {
        Some(_reserved_already) => plan::next(upload, end, 0),
        None => reserve(view, upload, command, end, nothing_else, batch)?,
    };
    let owner = Owner { tenant: &command.tenant, blob: command.blob };
    plan::plan(view, context, owner, upload, next, batch)
}

/// Reserves what the next blocks of an upload of unknown size may hold.
fn reserve(
    view: &dyn View,
    upload: &UploadRecord,
    command: &AllocateBlocks,
    end: u64,
    nothing_else: bool,
    batch: &mut Batch,
) -> Result<Next, MetadataError> {
    let tenant = &command.tenant;
    let row: TenantRecord = read(view, &keys::tenant(tenant))?.ok_or_else(|| MetadataError::missing("tenant"))?;
    let mut usage: UsageRecord = read(view, &keys::usage(tenant))?.ok_or_else(|| MetadataError::missing("usage"))?;
    let next = plan::next(upload, end, usage::bytes_left(&usage, &row.quota, upload.reserved_bytes));
    if next.blocks == 0 && nothing_else {
        return Err(usage::exhausted(tenant, &row.quota, upload.reserved_bytes));
    }
    usage::reserve_more(&mut usage, next.reserve_bytes)?;
    batch.set(keys::usage(tenant), &usage);
    Ok(next)
}

/// A lease only grows, and never past the longest life of an upload.
fn renew(context: &Context<'_>, upload: &mut UploadRecord) {
    let wanted = context.now_ms.saturating_add(millis(context.tuning.upload_lease));
    let last = upload.create_ms.saturating_add(millis(context.tuning.upload_life_max));
    upload.lease_expire_ms = upload.lease_expire_ms.max(wanted.min(last));
}
