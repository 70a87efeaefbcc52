//! Chunks that were found missing or damaged.

use proto::ids::{BlobId, BlockId, TenantId};

use super::Record;

/// What is wrong with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Its bytes are others than were committed.
    Corrupt,
    /// It has no bytes.
    Missing,
    /// The disk does not return its bytes.
    Unreadable,
}

/// A chunk that was found missing or damaged, and not sound since; which one, the row's key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageRecord {
    /// Whose it is; `None` when no row told.
    pub tenant: Option<TenantId>,
    /// Its block.
    pub block: BlockId,
    /// The blob or upload.
    pub blob: BlobId,
    /// What is wrong with it.
    pub damage: Damage,
    /// What exactly was found, for people.
    pub detail: String,
    /// When it was found first.
    pub find_ms: u64,
}

/// Layout of [`DamageRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DamageRaw {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(bytes = "vec", tag = "2")]
    block: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    blob: Vec<u8>,
    #[prost(uint32, tag = "4")]
    damage: u32,
    #[prost(string, tag = "5")]
    detail: String,
    #[prost(uint64, tag = "6")]
    find_ms: u64,
}

impl Record for DamageRecord {
    type Raw = DamageRaw;
    const NAME: &'static str = "damage";

    fn to_raw(&self) -> DamageRaw {
        let damage = match self.damage {
            Damage::Corrupt => 1,
            Damage::Missing => 2,
            Damage::Unreadable => 3,
        };
        DamageRaw {
            tenant: self.tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
            block: self.block.as_bytes().to_vec(),
            blob: self.blob.as_bytes().to_vec(),
            damage,
            detail: self.detail.clone(),
            find_ms: self.find_ms,
        }
    }

    fn from_raw(raw: DamageRaw) -> Option<Self> {
        let damage = match raw.damage {
            1 => Damage::Corrupt,
            2 => Damage::Missing,
            3 => Damage::Unreadable,
            _later => return None,
        };
        let tenant = Some(raw.tenant).filter(|tenant| !tenant.is_empty());
        Some(Self {
            tenant: tenant.map(|tenant| tenant.parse()).transpose().ok()?,
            block: BlockId::try_from(raw.block.as_slice()).ok()?,
            blob: BlobId::try_from(raw.blob.as_slice()).ok()?,
            damage,
            detail: raw.detail,
            find_ms: raw.find_ms,
        })
    }
}
