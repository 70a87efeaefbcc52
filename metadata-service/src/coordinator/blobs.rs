//! Looking at blobs: one by its id, or page by page.
//!
//! Reads of durable rows, outside of commits, and no snapshot: a row that a concurrent delete took away between two reads
//! is one that is not there.

use proto::ids::{BlobId, TenantId};

use crate::config::Tuning;
use crate::error::MetadataError;
use crate::store::engine::{Engine, KeyRange};
use crate::store::keys;
use crate::store::records::{BlobRecord, DeletedRecord};
use crate::store::rows::{load, record_of};

/// A committed blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its id.
    pub blob: BlobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its row.
    pub record: BlobRecord,
}

impl Blob {
    pub(super) fn new(tenant: &TenantId, blob: BlobId, record: BlobRecord) -> Self {
        Self { blob, tenant: tenant.clone(), record }
    }
}

/// A deleted blob that can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedBlob {
    /// As it was.
    pub blob: Blob,
    /// When it was deleted.
    pub delete_ms: u64,
    /// Until when it is kept, unless room is needed earlier.
    pub due_ms: u64,
}

/// Returns a blob.
///
/// # Errors
/// [`MetadataError::BlobNotFound`].
pub async fn get(engine: &dyn Engine, tenant: &TenantId, blob: BlobId) -> Result<Blob, MetadataError> {
    let record = load(engine, &keys::blob(tenant, blob)).await?;
    let record = record.ok_or_else(|| MetadataError::BlobNotFound(blob.to_string()))?;
    Ok(Blob::new(tenant, blob, record))
}

/// A page, and the key that the next one begins behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Its entries.
    pub entries: Vec<T>,
    /// The last key of this page; `None` when nothing follows.
    pub next: Option<Vec<u8>>,
}

/// Reads at most `size` rows behind `after`, and whether there are more.
///
/// # Errors
/// [`MetadataError::Engine`].
pub async fn page(
    engine: &dyn Engine,
    range: KeyRange,
    after: Option<&[u8]>,
    size: usize,
) -> Result<Page<crate::store::engine::Row>, MetadataError> {
    let range = match after {
        Some(after) => range.after(after),
        None => range,
    };
    let mut entries = engine.scan(&range, size.saturating_add(1)).await?;
    let more = entries.len() > size;
    entries.truncate(size);
    let next = entries.last().filter(|_last| more).map(|(key, _)| key.to_vec());
    Ok(Page { entries, next })
}

/// Lists blobs: in the order of their ids, or, with a prefix, of their names.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub async fn list(
    engine: &dyn Engine,
    tenant: &TenantId,
    prefix: &str,
    after: Option<&[u8]>,
    size: usize,
) -> Result<Page<Blob>, MetadataError> {
    if !prefix.is_empty() {
        return list_by_name(engine, tenant, prefix, after, size).await;
    }
    let rows = page(engine, KeyRange::prefix(&keys::blobs(tenant)), after, size).await?;
    let mut entries = Vec::with_capacity(rows.entries.len());
    for row in &rows.entries {
        let blob = keys::blob_of(&row.0).ok_or_else(|| MetadataError::missing("blob's id"))?;
        entries.push(Blob::new(tenant, blob, record_of(row)?));
    }
    Ok(Page { entries, next: rows.next })
}

async fn list_by_name(
    engine: &dyn Engine,
    tenant: &TenantId,
    prefix: &str,
    after: Option<&[u8]>,
    size: usize,
) -> Result<Page<Blob>, MetadataError> {
    let range = KeyRange::prefix(&keys::names_with_prefix(tenant, prefix));
    let rows = page(engine, range, after, size).await?;
    let mut entries = Vec::with_capacity(rows.entries.len());
    for (key, _) in &rows.entries {
        let blob = keys::blob_of(key).ok_or_else(|| MetadataError::missing("blob's id"))?;
        if let Some(record) = load(engine, &keys::blob(tenant, blob)).await? {
            entries.push(Blob::new(tenant, blob, record));
        }
    }
    Ok(Page { entries, next: rows.next })
}

/// Lists the deleted blobs that can be restored, in the order of their ids. Pages may be shorter than asked for.
///
/// # Errors
/// [`MetadataError`] when a row cannot be read.
pub async fn list_deleted(
    engine: &dyn Engine,
    tuning: &Tuning,
    tenant: &TenantId,
    after: Option<&[u8]>,
    size: usize,
) -> Result<Page<DeletedBlob>, MetadataError> {
    let rows = page(engine, KeyRange::prefix(&keys::deleted_blobs(tenant)), after, size).await?;
    let mut entries = Vec::with_capacity(rows.entries.len());
    for row in &rows.entries {
        let blob = keys::blob_of(&row.0).ok_or_else(|| MetadataError::missing("blob's id"))?;
        let DeletedRecord { blob: record, delete_ms, due_ms, collecting } = record_of(row)?;
        if !collecting {
            let due_ms = due_ms.unwrap_or_else(|| tuning.deleted_due_ms(delete_ms));
            entries.push(DeletedBlob { blob: Blob::new(tenant, blob, record), delete_ms, due_ms });
        }
    }
    Ok(Page { entries, next: rows.next })
}
