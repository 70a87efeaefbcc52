//! Opening an upload.
//!
//! One batch: the upload's row, the reservation, the first blocks' rows, the request's row. A known size is reserved as a
//! whole and refused when it does not fit; an unknown one reserves block by block.

use proto::ids::{BlobId, TenantId};
use proto::limits::BLOCKS_PER_ALLOCATION;
use proto::runtime::clock::millis;

use super::plan::{self, FIRST_BLOCKS_OF_UNKNOWN_SIZE, Next, Owner, PlannedBlock};
use super::request::{Fingerprint, Once, RequestId, object_id};
use super::upload::{Standing, Upload};
use super::{Context, Outcome, unchanged, usage};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys;
use crate::store::records::{BlobRecord, Description, Quota, TenantRecord, UploadRecord, UploadState, UsageRecord};
use crate::store::rows::{BatchExt as _, read};

/// Opens an upload.
#[derive(Debug, Clone)]
pub struct StartUpload {
    /// Whose.
    pub tenant: TenantId,
    /// Under which request.
    pub request: RequestId,
    /// What the writer says about the blob.
    pub description: Description,
    /// Its size, if known; at most [`BLOB_BYTES_MAX`](proto::limits::BLOB_BYTES_MAX).
    pub declared_bytes: Option<u64>,
}

/// An upload and blocks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The upload.
    pub upload: Upload,
    /// Blocks to be written.
    pub blocks: Vec<PlannedBlock>,
}

/// Decides it.
///
/// # Errors
/// [`MetadataError`]: quota, no node, unknown tenant, `request_id` used otherwise.
pub fn decide(view: &dyn View, context: &Context<'_>, command: &StartUpload) -> Outcome<Planned> {
    let once = Once::new(&command.request, fingerprint(command));
    if let Some(object) = once.recall(view, context)? {
        return unchanged(again(view, context, &command.tenant, object_id(&object)?)?);
    }
    let tenant = &command.tenant;
    let row: TenantRecord =
        read(view, &keys::tenant(tenant))?.ok_or_else(|| MetadataError::TenantNotFound(tenant.to_string()))?;
    let mut usage: UsageRecord = read(view, &keys::usage(tenant))?.unwrap_or_default();
    let blob = BlobId::generate(context.now_ms, context.entropy);
    let mut upload = open(context, command);
    let next = reserve(tenant, &mut usage, &row.quota, &upload)?;
    let mut batch = Batch::default();
    let blocks = plan::plan(view, context, Owner { tenant, blob }, &mut upload, next, &mut batch)?;
    once.remember(&mut batch, context, blob.as_bytes());
    batch.set(keys::usage(tenant), &usage);
    batch.set(keys::upload(tenant, blob), &upload);
    // Of one block a crash loses a plan whose commit finds nothing to commit; whoever wrote more of it would lose more.
    let answered_early = upload.declared_bytes.is_some_and(|bytes| bytes <= upload.block_size_bytes);
    let upload = Upload::of_record(tenant, blob, &upload, context.now_ms);
    Ok((Decision { answered_early, ..Decision::adds(batch) }, Planned { upload, blocks }))
}

fn fingerprint(command: &StartUpload) -> Fingerprint {
    let Description { display_name, content_type, labels } = &command.description;
    let first = Fingerprint::of("StartUpload")
        .with_number(command.declared_bytes)
        .with(display_name.as_bytes())
        .with(content_type.as_bytes());
    labels.iter().fold(first, |sum, (key, value)| sum.with(key.as_bytes()).with(value.as_bytes()))
}

fn open(context: &Context<'_>, command: &StartUpload) -> UploadRecord {
    UploadRecord {
        state: UploadState::Pending,
        description: command.description.clone(),
        declared_bytes: command.declared_bytes,
        block_size_bytes: context.tuning.block_bytes_for(command.declared_bytes),
        planned_blocks: 0,
        reserved_bytes: command.declared_bytes.unwrap_or(0),
        sealed_blocks: 0,
        sealed_bytes: 0,
        sealed_prefix: 0,
        short_block: None,
        create_ms: context.now_ms,
        lease_expire_ms: context.now_ms.saturating_add(millis(context.tuning.upload_lease)),
        start_epoch: context.epoch,
        end_epoch: None,
    }
}

/// Reserves for the upload and its first blocks, or refuses.
fn reserve(
    tenant: &TenantId,
    usage: &mut UsageRecord,
    quota: &Quota,
    upload: &UploadRecord,
) -> Result<Next, MetadataError> {
    usage::check_one_more_upload(tenant, usage, quota)?;
    usage::check_one_more_blob(tenant, usage, quota)?;
    usage::check_blob_size(tenant, quota, upload.reserved_bytes)?;
    usage::check_bytes(tenant, usage, quota, upload.reserved_bytes)?;
    let end = match upload.declared_bytes {
        Some(_known) => u64::from(BLOCKS_PER_ALLOCATION),
        None => FIRST_BLOCKS_OF_UNKNOWN_SIZE,
    };
    let next = plan::next(upload, end, usage::bytes_left(usage, quota, 0));
    if upload.declared_bytes.is_none() && next.blocks == 0 {
        return Err(usage::exhausted(tenant, quota, 0));
    }
    usage::open_upload(usage, upload.reserved_bytes)?;
    usage::reserve_more(usage, next.reserve_bytes)?;
    Ok(next)
}

/// The answer to a repeat: the upload as it now is, with the plan of its first blocks while it is open.
fn again(view: &dyn View, context: &Context<'_>, tenant: &TenantId, blob: BlobId) -> Result<Planned, MetadataError> {
    let Some(record) = read::<UploadRecord>(view, &keys::upload(tenant, blob))? else {
        let record = read::<BlobRecord>(view, &keys::blob(tenant, blob))?;
        let record = record.ok_or_else(|| MetadataError::UploadNotFound(blob.to_string()))?;
        return Ok(Planned { upload: Upload::of_blob(tenant, blob, &record), blocks: Vec::new() });
    };
    let upload = Upload::of_record(tenant, blob, &record, context.now_ms);
    if upload.standing != Standing::Pending {
        return Err(MetadataError::UploadExpired);
    }
    let blocks = plan::planned(view, blob, &record, 0, u64::from(BLOCKS_PER_ALLOCATION))?;
    Ok(Planned { upload, blocks })
}
