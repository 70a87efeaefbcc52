//! The cluster and its nodes.

use proto::checksum::Sha256;
use proto::ids::ClusterId;

use super::Record;

/// The cluster: one row, written by the first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Its id.
    pub cluster: ClusterId,
    /// Incarnation of the metadata; grows with each import.
    pub epoch: u64,
    /// Tells whether a cluster key is this cluster's, without telling the key.
    pub key_check: Sha256,
    /// When it was made.
    pub create_ms: u64,
}

/// Layout of [`ClusterRecord`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClusterRaw {
    #[prost(bytes = "vec", tag = "1")]
    cluster: Vec<u8>,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(bytes = "vec", tag = "3")]
    key_check: Vec<u8>,
    #[prost(uint64, tag = "4")]
    create_ms: u64,
}

impl Record for ClusterRecord {
    type Raw = ClusterRaw;
    const NAME: &'static str = "cluster";

    fn to_raw(&self) -> ClusterRaw {
        ClusterRaw {
            cluster: self.cluster.as_bytes().to_vec(),
            epoch: self.epoch,
            key_check: self.key_check.as_bytes().to_vec(),
            create_ms: self.create_ms,
        }
    }

    fn from_raw(raw: ClusterRaw) -> Option<Self> {
        Some(Self {
            cluster: ClusterId::try_from(raw.cluster.as_slice()).ok()?,
            epoch: raw.epoch,
            key_check: Sha256::try_from(raw.key_check.as_slice()).ok()?,
            create_ms: raw.create_ms,
        })
    }
}

/// A registered node; how it is at the moment is kept in memory only.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeRecord {
    /// Where clients reach it.
    #[prost(string, tag = "1")]
    pub endpoint: String,
    /// What fails together with it; empty for the node alone.
    #[prost(string, tag = "2")]
    pub failure_domain: String,
    /// When it registered.
    #[prost(uint64, tag = "3")]
    pub create_ms: u64,
}

impl Record for NodeRecord {
    type Raw = Self;
    const NAME: &'static str = "node";

    fn to_raw(&self) -> Self {
        self.clone()
    }

    fn from_raw(raw: Self) -> Option<Self> {
        Some(raw)
    }
}
