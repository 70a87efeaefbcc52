//! Tenants, their tokens, what they hold, and the requests they made.

use proto::checksum::Sha256;
use proto::ids::{NodeId, TenantId};
use proto::token::TokenKeyId;
pub use proto::traffic::TrafficClass;

use super::Record;

/// What a tenant may hold. A bound that is absent does not exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Most bytes, committed and reserved together.
    pub max_bytes: Option<u64>,
    /// Most blobs, committed and reserved together.
    pub max_blobs: Option<u64>,
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
    /// Its newest token.
    pub token: TokenKeyId,
    /// The token before, which is valid too.
    pub previous_token: Option<TokenKeyId>,
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
            traffic_class,
            token: self.token.as_bytes().to_vec(),
            previous_token: self.previous_token.map(|token| token.as_bytes().to_vec()),
        }
    }

    fn from_raw(raw: TenantRaw) -> Option<Self> {
        let traffic_class = match raw.traffic_class {
            1 => TrafficClass::Gold,
            2 => TrafficClass::Silver,
            3 => TrafficClass::Bronze,
            _ => return None,
        };
        Some(Self {
            create_ms: raw.create_ms,
            quota: Quota { max_bytes: raw.max_bytes, max_blobs: raw.max_blobs },
            traffic_class,
            token: TokenKeyId::try_from(raw.token.as_slice()).ok()?,
            previous_token: raw.previous_token.as_deref().map(TokenKeyId::try_from).transpose().ok()?,
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

/// Whose a token is, and what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The operator.
    Admin,
    /// A tenant.
    Tenant(TenantId),
    /// Whoever joins with it first: that node, once one has.
    Join(Option<NodeId>),
    /// A node.
    Node(NodeId),
}

/// A token: enough to recognise it, not enough to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Whose it is.
    pub holder: Holder,
    /// SHA-256 of its secret.
    pub secret_sha256: Sha256,
}

/// Layout of [`TokenRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct TokenRaw {
    #[prost(bytes = "vec", tag = "1")]
    secret_sha256: Vec<u8>,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(string, tag = "3")]
    tenant: String,
    #[prost(bytes = "vec", tag = "4")]
    node: Vec<u8>,
}

impl Record for TokenRecord {
    type Raw = TokenRaw;
    const NAME: &'static str = "token";

    fn to_raw(&self) -> TokenRaw {
        let secret_sha256 = self.secret_sha256.as_bytes().to_vec();
        let raw = TokenRaw { secret_sha256, ..TokenRaw::default() };
        match &self.holder {
            Holder::Admin => TokenRaw { kind: 1, ..raw },
            Holder::Tenant(tenant) => TokenRaw { kind: 2, tenant: tenant.to_string(), ..raw },
            Holder::Join(node) => {
                let node = node.map(|node| node.as_bytes().to_vec()).unwrap_or_default();
                TokenRaw { kind: 3, node, ..raw }
            }
            Holder::Node(node) => TokenRaw { kind: 4, node: node.as_bytes().to_vec(), ..raw },
        }
    }

    fn from_raw(raw: TokenRaw) -> Option<Self> {
        let node = || NodeId::try_from(raw.node.as_slice()).ok();
        let holder = match raw.kind {
            1 => Holder::Admin,
            2 => Holder::Tenant(raw.tenant.parse().ok()?),
            3 if raw.node.is_empty() => Holder::Join(None),
            3 => Holder::Join(Some(node()?)),
            4 => Holder::Node(node()?),
            _ => return None,
        };
        Some(Self { holder, secret_sha256: Sha256::try_from(raw.secret_sha256.as_slice()).ok()? })
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
