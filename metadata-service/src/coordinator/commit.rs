//! Making a blob visible (I3, I4, I5): the one place where a blob appears.
//!
//! One bounded batch: the upload's row goes; the blob's row and its name-index row appear; the reservation becomes usage;
//! the blocks whose receipts came along seal; one garbage row takes the blocks planned behind the end. Nothing is
//! believed but receipts: they must cover blocks 0 to n - 1, all but the last of the block size, and add up to the size.
//!
//! A repeat finds the blob instead of the upload and returns it; expiry and commit are both commits, so one of them wins.

use proto::checksum::Sha256;
use proto::ids::{BlobId, TenantId};
use proto::receipt::Receipt;

use super::blobs::Blob;
use super::seal::{Sealing, seal};
use super::upload::pending;
use super::{Context, Outcome, unchanged, usage};
use crate::error::MetadataError;
use crate::store::engine::{Batch, Decision, View};
use crate::store::keys::{self, GarbageKind};
use crate::store::records::{BlobRecord, ExtentRecord, GarbageRecord, NameRecord, UploadRecord, UsageRecord};
use crate::store::rows::{BatchExt as _, read};

/// Makes an upload a blob.
#[derive(Debug, Clone)]
pub struct CommitUpload {
    /// Whose.
    pub tenant: TenantId,
    /// The upload.
    pub blob: BlobId,
    /// Size of the whole blob.
    pub size_bytes: u64,
    /// SHA-256 of the whole blob.
    pub sha256: Sha256,
    /// The receipts not given before, whose signatures hold; at most
    /// [`RECEIPTS_PER_CALL`](proto::limits::RECEIPTS_PER_CALL).
    pub receipts: Vec<Receipt>,
}

/// Decides it.
///
/// # Errors
/// [`MetadataError`]: the upload is over or unknown, was committed otherwise, is incomplete, or its sums do not match.
pub fn decide(view: &dyn View, context: &Context<'_>, command: &CommitUpload) -> Outcome<Blob> {
    let (tenant, blob) = (&command.tenant, command.blob);
    if let Some(record) = read::<BlobRecord>(view, &keys::blob(tenant, blob))? {
        let same = record.size_bytes == command.size_bytes && record.sha256 == command.sha256;
        return if same { unchanged(Blob::new(tenant, blob, record)) } else { Err(MetadataError::UploadCommitted) };
    }
    let mut upload = pending(view, context, tenant, blob)?;
    let sealing = seal(view, blob, &mut upload, &command.receipts)?;
    check_complete(&upload, &sealing, command)?;
    check_sha256(view, &upload, &sealing, command)?;
    let mut batch = Batch::default();
    sealing.write(&mut batch);
    settle(view, &upload, command, &mut batch)?;
    trim(view, context, &upload, command, &mut batch)?;
    let record = appear(context, upload, command, &mut batch);
    // It replaces rows more than it adds any, and finishing what was begun is what frees the rest.
    Ok((Decision::frees(batch), Blob::new(tenant, blob, record)))
}

fn incomplete(problem: impl Into<String>, block_index: Option<u64>) -> MetadataError {
    MetadataError::UploadIncomplete { problem: problem.into(), block_index }
}

/// Whether exactly the blocks of a blob of this size are sealed.
fn check_complete(upload: &UploadRecord, sealing: &Sealing, command: &CommitUpload) -> Result<(), MetadataError> {
    if let Some(declared) = upload.declared_bytes.filter(|declared| *declared != command.size_bytes) {
        let problem = format!("must be {declared}, as StartUpload said");
        return Err(MetadataError::field("size_bytes", problem));
    }
    let blocks = command.size_bytes.div_ceil(upload.block_size_bytes);
    check_none_missing(upload, sealing, blocks)?;
    if let Some(short) = upload.short_block.filter(|short| short + 1 != blocks) {
        return Err(incomplete(format!("block {short} is shorter than the others but not the last"), None));
    }
    if upload.sealed_blocks != blocks || upload.sealed_bytes != command.size_bytes {
        let (sealed, stated) = (upload.sealed_bytes, command.size_bytes);
        return Err(incomplete(format!("its receipts add up to {sealed} bytes, not to {stated}"), None));
    }
    Ok(())
}

/// Whether blocks 0 to `blocks - 1` are sealed. When every planned block is, that needs no counting.
fn check_none_missing(upload: &UploadRecord, sealing: &Sealing, blocks: u64) -> Result<(), MetadataError> {
    let all_planned = upload.sealed_blocks == upload.planned_blocks && blocks <= upload.planned_blocks;
    if all_planned || upload.sealed_prefix >= blocks {
        return Ok(());
    }
    // A block that is not planned yet has no receipt either.
    let unplanned = (upload.sealed_prefix == upload.planned_blocks).then_some(upload.planned_blocks);
    match sealing.first_missing().or(unplanned) {
        Some(missing) => Err(incomplete(format!("block {missing} of {blocks} has no receipt yet"), Some(missing))),
        None => {
            let problem = "its blocks were sealed in an order that is still being counted; \
                           call AllocateBlocks for 0 blocks until its receipts are, then commit again";
            Err(incomplete(problem, None))
        }
    }
}

/// Whether the stated SHA-256 is what can be known: that of no bytes, or that of the only block.
fn check_sha256(
    view: &dyn View,
    upload: &UploadRecord,
    sealing: &Sealing,
    command: &CommitUpload,
) -> Result<(), MetadataError> {
    let known = match upload.sealed_blocks {
        0 => Some(Sha256::of(b"")),
        1 => sealing.block(view, command.blob, 0)?.sealed.map(|sums| sums.sha256),
        _more => None,
    };
    if known.is_some_and(|known| known != command.sha256) { Err(MetadataError::ChecksumMismatch) } else { Ok(()) }
}

/// The reservation becomes usage.
fn settle(
    view: &dyn View,
    upload: &UploadRecord,
    command: &CommitUpload,
    batch: &mut Batch,
) -> Result<(), MetadataError> {
    let key = keys::usage(&command.tenant);
    let mut usage: UsageRecord = read(view, &key)?.ok_or_else(|| MetadataError::missing("usage"))?;
    usage::close_upload(&mut usage, upload.reserved_bytes)?;
    usage::add_blob(&mut usage, command.size_bytes)?;
    if !seeded!(UsageInSecondCommit) {
        batch.set(key, &usage);
    }
    Ok(())
}

/// The last extent gets its true size; blocks behind it become garbage.
fn trim(
    view: &dyn View,
    context: &Context<'_>,
    upload: &UploadRecord,
    command: &CommitUpload,
    batch: &mut Batch,
) -> Result<(), MetadataError> {
    let blob = command.blob;
    if let Some(last) = upload.short_block {
        let extent: ExtentRecord =
            read(view, &keys::extent(blob, last))?.ok_or_else(|| MetadataError::missing("extent"))?;
        let size_bytes = command.size_bytes - last * upload.block_size_bytes;
        batch.set(keys::extent(blob, last), &ExtentRecord { size_bytes, ..extent });
    }
    if upload.sealed_blocks < upload.planned_blocks {
        let due_ms = context.tuning.garbage_due_ms(context.now_ms);
        let surplus = GarbageRecord { tenant: command.tenant.clone(), first_block: upload.sealed_blocks };
        batch.set(keys::garbage(due_ms, GarbageKind::Surplus, blob), &surplus);
    }
    Ok(())
}

/// The blob takes the upload's place.
fn appear(context: &Context<'_>, upload: UploadRecord, command: &CommitUpload, batch: &mut Batch) -> BlobRecord {
    let (tenant, blob) = (&command.tenant, command.blob);
    let record = BlobRecord {
        description: upload.description,
        size_bytes: command.size_bytes,
        sha256: command.sha256,
        start_ms: upload.create_ms,
        create_ms: context.now_ms,
        block_size_bytes: upload.block_size_bytes,
    };
    batch.delete(keys::upload(tenant, blob));
    batch.set(keys::name(tenant, &record.description.display_name, blob), &NameRecord {});
    batch.set(keys::blob(tenant, blob), &record);
    record
}
