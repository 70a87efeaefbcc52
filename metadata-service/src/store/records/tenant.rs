//! Tenants, what they hold, and the requests they made.

use std::num::NonZeroU64;

use proto::checksum::Sha256;
use proto::limits::{OPEN_UPLOADS_PER_TENANT, TENANT_TOKENS_MAX};
use proto::rates::Rates;
use proto::token::TokenKeyId;
pub use proto::traffic::TrafficClass;

use super::Record;

/// What a tenant may hold. A bound that is absent does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Most bytes, committed and reserved together.
    pub max_bytes: Option<u64>,
    /// Most blobs, committed and reserved together.
    pub max_blobs: Option<u64>,
    /// Most bytes of one blob. It bounds what is written; what was written before stays, and comes back when undeleted.
    pub max_blob_bytes: Option<u64>,
    /// Most uploads open at a time: each costs rows until it ends, whatever it writes.
    pub max_open_uploads: u64,
}

impl Quota {
    /// Without a bound but the one that always exists.
    pub const UNLIMITED: Self =
        Self { max_bytes: None, max_blobs: None, max_blob_bytes: None, max_open_uploads: OPEN_UPLOADS_PER_TENANT };
}

impl Default for Quota {
    fn default() -> Self {
        Self::UNLIMITED
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// When it was registered.
    pub create_ms: u64,
    /// What it may hold.
    pub quota: Quota,
    /// How urgent its traffic is.
    pub traffic_class: TrafficClass,
    /// How fast it may go.
    pub rates: Rates,
    /// Its newest main token. Whether it is valid, its own row says: it may have been revoked.
    pub token: TokenKeyId,
    /// The main token before.
    pub previous_token: Option<TokenKeyId>,
    /// Its other tokens, oldest first; at most [`MORE_TOKENS_MAX`].
    pub more_tokens: Vec<TokenKeyId>,
}

/// Tokens of a tenant besides the two main ones.
pub const MORE_TOKENS_MAX: usize = TENANT_TOKENS_MAX - 2;

impl TenantRecord {
    /// A tenant with its first token.
    pub fn new(create_ms: u64, quota: Quota, traffic_class: TrafficClass, token: TokenKeyId) -> Self {
        let rates = Rates::default();
        Self { create_ms, quota, traffic_class, rates, token, previous_token: None, more_tokens: Vec::new() }
    }

    /// The tokens that it may have, the main ones first.
    pub fn tokens(&self) -> impl Iterator<Item = TokenKeyId> {
        [Some(self.token), self.previous_token].into_iter().flatten().chain(self.more_tokens.iter().copied())
    }

    /// Takes a token out that has ended. The last main one stays named, so that there is one to rotate.
    pub fn forget_token(&mut self, ended: TokenKeyId) {
        self.more_tokens.retain(|token| *token != ended);
        if self.previous_token == Some(ended) {
            self.previous_token = None;
        }
        if self.token == ended {
            self.token = self.previous_token.take().unwrap_or(ended);
        }
    }
}

/// Layout of [`TenantRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct TenantRaw {
    #[prost(uint64, tag = "1")]
    create_ms: u64,
    #[prost(uint64, optional, tag = "2")]
    max_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    max_blobs: Option<u64>,
    #[prost(uint32, tag = "4")]
    traffic_class: u32,
    #[prost(bytes = "vec", tag = "5")]
    token: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "6")]
    previous_token: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "7")]
    max_blob_bytes: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    max_open_uploads: Option<u64>,
    #[prost(uint64, tag = "9")]
    requests_per_second: u64,
    #[prost(uint64, tag = "10")]
    read_bytes_per_second: u64,
    #[prost(uint64, tag = "11")]
    write_bytes_per_second: u64,
    #[prost(bytes = "vec", repeated, tag = "20")]
    more_tokens: Vec<Vec<u8>>,
}

impl Record for TenantRecord {
    type Raw = TenantRaw;
    const NAME: &'static str = "tenant";

    fn to_raw(&self) -> TenantRaw {
        let traffic_class = match self.traffic_class {
            TrafficClass::Gold => 1,
            TrafficClass::Silver => 2,
            TrafficClass::Bronze => 3,
        };
        TenantRaw {
            create_ms: self.create_ms,
            max_bytes: self.quota.max_bytes,
            max_blobs: self.quota.max_blobs,
            max_blob_bytes: self.quota.max_blob_bytes,
            max_open_uploads: Some(self.quota.max_open_uploads),
            requests_per_second: self.rates.requests_per_second.map_or(0, NonZeroU64::get),
            read_bytes_per_second: self.rates.read_bytes_per_second.map_or(0, NonZeroU64::get),
            write_bytes_per_second: self.rates.write_bytes_per_second.map_or(0, NonZeroU64::get),
            traffic_class,
            token: self.token.as_bytes().to_vec(),
            previous_token: self.previous_token.map(|token| token.as_bytes().to_vec()),
            more_tokens: self.more_tokens.iter().map(|token| token.as_bytes().to_vec()).collect(),
        }
    }

    fn from_raw(raw: TenantRaw) -> Option<Self> {
        let traffic_class = match raw.traffic_class {
            1 => TrafficClass::Gold,
            2 => TrafficClass::Silver,
            3 => TrafficClass::Bronze,
            _ => return None,
        };
        let quota = Quota {
            max_bytes: raw.max_bytes,
            max_blobs: raw.max_blobs,
            max_blob_bytes: raw.max_blob_bytes,
            // Rows from before there was this bound do not name it.
            max_open_uploads: raw.max_open_uploads.unwrap_or(OPEN_UPLOADS_PER_TENANT),
        };
        Some(Self {
            create_ms: raw.create_ms,
            quota,
            traffic_class,
            rates: Rates {
                requests_per_second: NonZeroU64::new(raw.requests_per_second),
                read_bytes_per_second: NonZeroU64::new(raw.read_bytes_per_second),
                write_bytes_per_second: NonZeroU64::new(raw.write_bytes_per_second),
            },
            token: TokenKeyId::try_from(raw.token.as_slice()).ok()?,
            previous_token: raw.previous_token.as_deref().map(TokenKeyId::try_from).transpose().ok()?,
            more_tokens: raw
                .more_tokens
                .iter()
                .map(|id| TokenKeyId::try_from(id.as_slice()).ok())
                .collect::<Option<_>>()?,
        })
    }
}

/// What a tenant holds, counted in the commits that change it (I11).
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct UsageRecord {
    /// Bytes of committed blobs.
    #[prost(uint64, tag = "1")]
    pub used_bytes: u64,
    /// Committed blobs.
    #[prost(uint64, tag = "2")]
    pub used_blobs: u64,
    /// Bytes promised to open uploads.
    #[prost(uint64, tag = "3")]
    pub reserved_bytes: u64,
    /// Open uploads.
    #[prost(uint64, tag = "4")]
    pub reserved_blobs: u64,
    /// Bytes of deleted blobs that have not been collected.
    #[prost(uint64, tag = "5")]
    pub retained_bytes: u64,
    /// Deleted blobs that have not been collected.
    #[prost(uint64, tag = "6")]
    pub retained_blobs: u64,
}

impl Record for UsageRecord {
    type Raw = Self;
    const NAME: &'static str = "usage";

    fn to_raw(&self) -> Self {
        *self
    }

    fn from_raw(raw: Self) -> Option<Self> {
        Some(raw)
    }
}

/// A request that had its effect, so that a repeat has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// Method and arguments, summed up.
    pub fingerprint: Sha256,
    /// What it made or changed: an id whose kind the method tells.
    pub object: Vec<u8>,
    /// When it is forgotten.
    pub expire_ms: u64,
}

/// Layout of [`RequestRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestRaw {
    #[prost(bytes = "vec", tag = "1")]
    fingerprint: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    object: Vec<u8>,
    #[prost(uint64, tag = "3")]
    expire_ms: u64,
}

impl Record for RequestRecord {
    type Raw = RequestRaw;
    const NAME: &'static str = "request";

    fn to_raw(&self) -> RequestRaw {
        RequestRaw {
            fingerprint: self.fingerprint.as_bytes().to_vec(),
            object: self.object.clone(),
            expire_ms: self.expire_ms,
        }
    }

    fn from_raw(raw: RequestRaw) -> Option<Self> {
        let fingerprint = Sha256::try_from(raw.fingerprint.as_slice()).ok()?;
        Some(Self { fingerprint, object: raw.object, expire_ms: raw.expire_ms })
    }
}
