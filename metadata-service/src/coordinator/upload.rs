//! What an upload is, seen from outside: its row while it has not become a blob, the blob's row afterwards.

use proto::ids::{BlobId, TenantId};

use super::Context;
use crate::error::MetadataError;
use crate::store::engine::{Engine, View};
use crate::store::keys;
use crate::store::records::{BlobRecord, UploadRecord, UploadState};
use crate::store::rows::{load, read};

/// Where an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Open.
    Pending,
    /// Its blob is visible.
    Committed,
    /// Given up by its writer.
    Aborted,
    /// Its lease ran out, whether or not that is written down yet.
    Expired,
}

/// An upload as its writer may know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its id, and the blob's.
    pub blob: BlobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where it stands.
    pub standing: Standing,
    /// The blob's name for people.
    pub display_name: String,
    /// The declared size; of a committed one the blob's.
    pub size_bytes: Option<u64>,
    /// Size of every block but the last.
    pub block_size_bytes: u64,
    /// Blocks planned so far.
    pub planned_blocks: u64,
    /// Blocks sealed so far.
    pub sealed_blocks: u64,
    /// When it was started.
    pub create_ms: u64,
    /// When its lease runs out; a committed one has none.
    pub lease_expire_ms: Option<u64>,
}

impl Upload {
    pub(super) fn of_record(tenant: &TenantId, blob: BlobId, record: &UploadRecord, now_ms: u64) -> Self {
        let standing = match record.state {
            UploadState::Pending if record.lease_is_over(now_ms) => Standing::Expired,
            UploadState::Pending => Standing::Pending,
            UploadState::Aborted => Standing::Aborted,
            UploadState::Expired => Standing::Expired,
        };
        Self {
            blob,
            tenant: tenant.clone(),
            standing,
            display_name: record.description.display_name.clone(),
            size_bytes: record.declared_bytes,
            block_size_bytes: record.block_size_bytes,
            planned_blocks: record.planned_blocks,
            sealed_blocks: record.sealed_blocks,
            create_ms: record.create_ms,
            lease_expire_ms: Some(record.lease_expire_ms),
        }
    }

    pub(super) fn of_blob(tenant: &TenantId, blob: BlobId, record: &BlobRecord) -> Self {
        Self {
            blob,
            tenant: tenant.clone(),
            standing: Standing::Committed,
            display_name: record.description.display_name.clone(),
            size_bytes: Some(record.size_bytes),
            block_size_bytes: record.block_size_bytes,
            planned_blocks: record.block_count(),
            sealed_blocks: record.block_count(),
            create_ms: record.start_ms,
            lease_expire_ms: None,
        }
    }
}

/// The upload's row, if the upload is open at this moment.
pub(super) fn pending(
    view: &dyn View,
    context: &Context<'_>,
    tenant: &TenantId,
    blob: BlobId,
) -> Result<UploadRecord, MetadataError> {
    match read::<UploadRecord>(view, &keys::upload(tenant, blob))? {
        Some(upload) if upload.state == UploadState::Pending && !upload.lease_is_over(context.now_ms) => Ok(upload),
        Some(upload) if seeded!(EndedUploadCommitted) => Ok(upload),
        Some(_over) => Err(MetadataError::UploadExpired),
        None if view.get(&keys::blob(tenant, blob))?.is_some() => Err(MetadataError::UploadCommitted),
        None => Err(MetadataError::UploadNotFound(blob.to_string())),
    }
}

/// Returns an upload.
///
/// # Errors
/// [`MetadataError::UploadNotFound`].
pub async fn get(engine: &dyn Engine, tenant: &TenantId, blob: BlobId, now_ms: u64) -> Result<Upload, MetadataError> {
    // In this order, since a commit replaces the first row by the second.
    if let Some(record) = load::<UploadRecord>(engine, &keys::upload(tenant, blob)).await? {
        return Ok(Upload::of_record(tenant, blob, &record, now_ms));
    }
    let record = load::<BlobRecord>(engine, &keys::blob(tenant, blob)).await?;
    let record = record.ok_or_else(|| MetadataError::UploadNotFound(blob.to_string()))?;
    Ok(Upload::of_blob(tenant, blob, &record))
}
