//! A blob as programs see it.

use std::collections::BTreeMap;

use proto::checksum::Sha256;
use proto::ids::BlobId;
use proto::pb;

/// Immutable bytes with an id and what is known about them.
#[derive(Debug, Clone, PartialEq)]
pub struct Blob {
    /// Its id.
    pub blob_id: BlobId,
    /// The tenant it belongs to.
    pub tenant_id: String,
    /// A name for people; need not be unique and may be empty.
    pub display_name: String,
    /// The media type its writer stated; may be empty.
    pub content_type: String,
    /// The labels its writer stated.
    pub labels: BTreeMap<String, String>,
    /// Size of the whole blob.
    pub size_bytes: u64,
    /// SHA-256 of the whole blob. For one block its chunk service computed it too; for more it is the writer's statement.
    pub sha256: Sha256,
    /// When its upload was committed, by the metadata service's clock. Prints as RFC 3339.
    pub create_time: prost_types::Timestamp,
    /// Size of every block but the last.
    pub block_size_bytes: u64,
    /// Number of blocks; 0 for an empty blob.
    pub block_count: u64,
    /// When it was deleted; set in lists of deleted blobs only.
    pub delete_time: Option<prost_types::Timestamp>,
    /// Until when it can be restored, unless room is needed earlier; set together with `delete_time`.
    pub expire_time: Option<prost_types::Timestamp>,
}

impl TryFrom<pb::Blob> for Blob {
    /// What is missing or malformed.
    type Error = &'static str;

    fn try_from(blob: pb::Blob) -> Result<Self, &'static str> {
        Ok(Self {
            blob_id: blob.blob_id.parse().map_err(|_malformed| "a blob without an id")?,
            tenant_id: blob.tenant_id,
            display_name: blob.display_name,
            content_type: blob.content_type,
            labels: blob.labels.into_iter().collect(),
            size_bytes: blob.size_bytes,
            sha256: blob.sha256.parse().map_err(|_malformed| "a blob without a SHA-256")?,
            create_time: blob.create_time.ok_or("a blob without a time")?,
            block_size_bytes: blob.block_size_bytes,
            block_count: blob.block_count,
            delete_time: blob.delete_time,
            expire_time: blob.expire_time,
        })
    }
}
