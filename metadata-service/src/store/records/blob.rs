//! Blobs, committed or deleted.

use std::collections::BTreeMap;

use proto::checksum::Sha256;

use super::Record;

/// What a writer says about a blob; bounded by [`limits`](proto::limits).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// A name for people.
    pub display_name: String,
    /// The media type.
    pub content_type: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// A committed blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRecord {
    /// What its writer says about it.
    pub description: Description,
    /// Its size.
    pub size_bytes: u64,
    /// SHA-256 of the whole.
    pub sha256: Sha256,
    /// When its upload was started.
    pub start_ms: u64,
    /// When it was committed.
    pub create_ms: u64,
    /// Size of every block but the last.
    pub block_size_bytes: u64,
}

impl BlobRecord {
    /// Number of its blocks; 0 for an empty blob.
    pub fn block_count(&self) -> u64 {
        self.size_bytes.div_ceil(self.block_size_bytes)
    }
}

/// Layout of [`BlobRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BlobRaw {
    #[prost(string, tag = "1")]
    display_name: String,
    #[prost(string, tag = "2")]
    content_type: String,
    #[prost(btree_map = "string, string", tag = "3")]
    labels: BTreeMap<String, String>,
    #[prost(uint64, tag = "4")]
    size_bytes: u64,
    #[prost(bytes = "vec", tag = "5")]
    sha256: Vec<u8>,
    #[prost(uint64, tag = "6")]
    start_ms: u64,
    #[prost(uint64, tag = "7")]
    create_ms: u64,
    #[prost(uint64, tag = "8")]
    block_size_bytes: u64,
}

impl Record for BlobRecord {
    type Raw = BlobRaw;
    const NAME: &'static str = "blob";

    fn to_raw(&self) -> BlobRaw {
        BlobRaw {
            display_name: self.description.display_name.clone(),
            content_type: self.description.content_type.clone(),
            labels: self.description.labels.clone(),
            size_bytes: self.size_bytes,
            sha256: self.sha256.as_bytes().to_vec(),
            start_ms: self.start_ms,
            create_ms: self.create_ms,
            block_size_bytes: self.block_size_bytes,
        }
    }

    fn from_raw(raw: BlobRaw) -> Option<Self> {
        let BlobRaw { display_name, content_type, labels, .. } = raw;
        (raw.block_size_bytes > 0).then_some(Self {
            description: Description { display_name, content_type, labels },
            size_bytes: raw.size_bytes,
            sha256: Sha256::try_from(raw.sha256.as_slice()).ok()?,
            start_ms: raw.start_ms,
            create_ms: raw.create_ms,
            block_size_bytes: raw.block_size_bytes,
        })
    }
}

/// A blob between its deletion and its collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedRecord {
    /// The blob as it was.
    pub blob: BlobRecord,
    /// When it was deleted.
    pub delete_ms: u64,
    /// The moment in the key of its garbage row; `None` in a record that an older version wrote.
    pub due_ms: Option<u64>,
    /// The collector has begun: it can no longer be restored.
    pub collecting: bool,
}

/// Layout of [`DeletedRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeletedRaw {
    #[prost(message, optional, tag = "1")]
    blob: Option<BlobRaw>,
    #[prost(uint64, tag = "2")]
    delete_ms: u64,
    #[prost(uint64, optional, tag = "3")]
    due_ms: Option<u64>,
    #[prost(bool, tag = "4")]
    collecting: bool,
}

impl Record for DeletedRecord {
    type Raw = DeletedRaw;
    const NAME: &'static str = "deleted blob";

    fn to_raw(&self) -> DeletedRaw {
        let Self { delete_ms, due_ms, collecting, .. } = *self;
        DeletedRaw { blob: Some(self.blob.to_raw()), delete_ms, due_ms, collecting }
    }

    fn from_raw(raw: DeletedRaw) -> Option<Self> {
        let DeletedRaw { delete_ms, due_ms, collecting, .. } = raw;
        Some(Self { blob: BlobRecord::from_raw(raw.blob?)?, delete_ms, due_ms, collecting })
    }
}

/// An entry of the index of deleted blobs by age; its key says everything.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RetainedRecord {}

impl Record for RetainedRecord {
    type Raw = Self;
    const NAME: &'static str = "retained blob";

    fn to_raw(&self) -> Self {
        *self
    }

    fn from_raw(raw: Self) -> Option<Self> {
        Some(raw)
    }
}

/// An entry of the name index; its key says everything.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct NameRecord {}

impl Record for NameRecord {
    type Raw = Self;
    const NAME: &'static str = "name";

    fn to_raw(&self) -> Self {
        *self
    }

    fn from_raw(raw: Self) -> Option<Self> {
        Some(raw)
    }
}
