//! Uploads.

use super::Record;
use super::blob::Description;
use super::cluster::RestoreRecord;

/// Where an upload stands; committed ones have no row, their blob has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadState {
    /// Open.
    Pending,
    /// Given up by its writer.
    Aborted,
    /// Its lease ran out.
    Expired,
}

/// A blob being written.
///
/// Blocks are planned from index 0 on without gaps, and sealed in any order. How far that got is kept as numbers, so
/// that a commit needs to look at few blocks but those whose receipts come with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRecord {
    /// Where it stands.
    pub state: UploadState,
    /// What its writer says about the blob.
    pub description: Description,
    /// The size that its writer stated.
    pub declared_bytes: Option<u64>,
    /// Size of every block but the last.
    pub block_size_bytes: u64,
    /// Blocks planned so far.
    pub planned_blocks: u64,
    /// Bytes reserved: the declared size, or else the most that the planned blocks may hold.
    pub reserved_bytes: u64,
    /// Blocks sealed so far.
    pub sealed_blocks: u64,
    /// Sum of their sizes.
    pub sealed_bytes: u64,
    /// All blocks before this index are sealed; the one at it may be, too, and not be counted yet.
    pub sealed_prefix: u64,
    /// The one sealed block that is shorter than the block size; it must become the last.
    pub short_block: Option<u64>,
    /// When it was started.
    pub create_ms: u64,
    /// When its lease runs out.
    pub lease_expire_ms: u64,
    /// The metadata's epoch when it was started; 0 in rows from before this was noted.
    pub start_epoch: u64,
    /// The metadata's epoch when it ended; `None` while it is open, and in rows from before this was noted.
    pub end_epoch: Option<u64>,
}

impl UploadRecord {
    /// Whether it was open in an export that was imported while it was: then it may have been committed in the time that
    /// the import lost, and its chunks be an acknowledged blob's. An epoch ends with an import and with nothing else, so
    /// this is told without any clock; where it was not noted, it may have been.
    pub fn outlived(&self, restore: &RestoreRecord) -> bool {
        self.start_epoch <= restore.epoch && self.end_epoch.is_none_or(|end_epoch| end_epoch > restore.epoch)
    }

    /// Most bytes that a planned block may hold. With a declared size it must hold exactly these.
    pub fn max_bytes_of(&self, index: u64) -> u64 {
        let total = self.declared_bytes.unwrap_or(self.reserved_bytes);
        total.saturating_sub(index.saturating_mul(self.block_size_bytes)).min(self.block_size_bytes)
    }

    /// Whether its lease has run out.
    pub fn lease_is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.lease_expire_ms
    }
}

/// Layout of [`UploadRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct UploadRaw {
    #[prost(uint32, tag = "1")]
    state: u32,
    #[prost(string, tag = "2")]
    display_name: String,
    #[prost(string, tag = "3")]
    content_type: String,
    #[prost(btree_map = "string, string", tag = "4")]
    labels: std::collections::BTreeMap<String, String>,
    #[prost(uint64, optional, tag = "5")]
    declared_bytes: Option<u64>,
    #[prost(uint64, tag = "6")]
    block_size_bytes: u64,
    #[prost(uint64, tag = "7")]
    planned_blocks: u64,
    #[prost(uint64, tag = "8")]
    reserved_bytes: u64,
    #[prost(uint64, tag = "9")]
    sealed_blocks: u64,
    #[prost(uint64, tag = "10")]
    sealed_bytes: u64,
    #[prost(uint64, tag = "11")]
    sealed_prefix: u64,
    #[prost(uint64, optional, tag = "12")]
    short_block: Option<u64>,
    #[prost(uint64, tag = "13")]
    create_ms: u64,
    #[prost(uint64, tag = "14")]
    lease_expire_ms: u64,
    #[prost(uint64, tag = "15")]
    start_epoch: u64,
    #[prost(uint64, optional, tag = "16")]
    end_epoch: Option<u64>,
}

impl Record for UploadRecord {
    type Raw = UploadRaw;
    const NAME: &'static str = "upload";

    fn to_raw(&self) -> UploadRaw {
        let state = match self.state {
            UploadState::Pending => 1,
            UploadState::Aborted => 2,
            UploadState::Expired => 3,
        };
        UploadRaw {
            state,
            display_name: self.description.display_name.clone(),
            content_type: self.description.content_type.clone(),
            labels: self.description.labels.clone(),
            declared_bytes: self.declared_bytes,
            block_size_bytes: self.block_size_bytes,
            planned_blocks: self.planned_blocks,
            reserved_bytes: self.reserved_bytes,
            sealed_blocks: self.sealed_blocks,
            sealed_bytes: self.sealed_bytes,
            sealed_prefix: self.sealed_prefix,
            short_block: self.short_block,
            create_ms: self.create_ms,
            lease_expire_ms: self.lease_expire_ms,
            start_epoch: self.start_epoch,
            end_epoch: self.end_epoch,
        }
    }

    fn from_raw(raw: UploadRaw) -> Option<Self> {
        let state = match raw.state {
            1 => UploadState::Pending,
            2 => UploadState::Aborted,
            3 => UploadState::Expired,
            _ => return None,
        };
        let UploadRaw { display_name, content_type, labels, .. } = raw;
        (raw.block_size_bytes > 0).then_some(Self {
            state,
            description: Description { display_name, content_type, labels },
            declared_bytes: raw.declared_bytes,
            block_size_bytes: raw.block_size_bytes,
            planned_blocks: raw.planned_blocks,
            reserved_bytes: raw.reserved_bytes,
            sealed_blocks: raw.sealed_blocks,
            sealed_bytes: raw.sealed_bytes,
            sealed_prefix: raw.sealed_prefix,
            short_block: raw.short_block,
            create_ms: raw.create_ms,
            lease_expire_ms: raw.lease_expire_ms,
            start_epoch: raw.start_epoch,
            end_epoch: raw.end_epoch,
        })
    }
}
