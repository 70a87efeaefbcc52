//! The cluster and its nodes.

use proto::checksum::Sha256;
use proto::ids::{ChunkId, ClusterId};

use super::Record;

/// Version of the rows as a whole: which layers there are and how they belong together. A single record has a version of
/// its own besides. Folders that were made before this was written down are of version 1.
pub const SCHEMA: u32 = 1;

/// Imports that are remembered. Each one that was kept stays remembered, so that its chunks stay.
pub const RESTORES_MAX: usize = 32;

/// The cluster: one row, written by the first start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Its id.
    pub cluster: ClusterId,
    /// Incarnation of the metadata; grows with each import.
    pub epoch: u64,
    /// Tells whether a cluster key is this cluster's, without telling the key.
    pub key_check: Sha256,
    /// When it was made.
    pub create_ms: u64,
    /// See [`SCHEMA`].
    pub schema: u32,
    /// The imports that still matter, oldest first, at most [`RESTORES_MAX`].
    pub restores: Vec<RestoreRecord>,
}

impl ClusterRecord {
    /// The row after an import of metadata that held this one and reach to a commit: a new epoch, and nothing decided
    /// about what was planned behind it. Lost times that were given up before are forgotten.
    #[must_use]
    pub fn imported(mut self, sequence: u64, now_ms: u64) -> Self {
        let epoch = self.epoch;
        self.restores.retain(RestoreRecord::keeps_lost_time);
        self.restores.push(RestoreRecord { import_ms: now_ms, epoch, sequence, end: RestoreEnd::Undecided });
        Self { epoch: epoch + 1, ..self }
    }
}

/// What the operator decided about chunks that were planned after an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoreEnd {
    /// Nothing yet: nothing at all is collected.
    Undecided,
    /// They stay for ever.
    Keep,
    /// They are like any others.
    Discard,
}

/// One import: metadata as of an export, over chunks that have gone on since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreRecord {
    /// When it was imported.
    pub import_ms: u64,
    /// Epoch of the exported metadata.
    pub epoch: u64,
    /// The last commit that the export holds.
    pub sequence: u64,
    /// What became of it.
    pub end: RestoreEnd,
}

impl RestoreRecord {
    /// Whether what its lost time left stays, or may stay.
    pub fn keeps_lost_time(&self) -> bool {
        self.end != RestoreEnd::Discard
    }

    /// Whether a chunk that was planned by this commit of this epoch belongs to the time that the import lost.
    ///
    /// An export may be imported twice, and each import begins the same epoch. What the first one planned is lost by the
    /// second, too, and is told by when its id was drawn.
    pub fn lost(&self, chunk: ChunkId, epoch: u64, sequence: u64) -> bool {
        let drawn_before = chunk.drawn_ms().is_none_or(|drawn_ms| drawn_ms < self.import_ms);
        (epoch == self.epoch && sequence > self.sequence) || (epoch > self.epoch && drawn_before)
    }
}

/// Layout of [`RestoreRecord`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct RestoreRaw {
    #[prost(uint64, tag = "1")]
    import_ms: u64,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    sequence: u64,
    #[prost(uint32, tag = "4")]
    end: u32,
}

impl From<&RestoreRecord> for RestoreRaw {
    fn from(record: &RestoreRecord) -> Self {
        let RestoreRecord { import_ms, epoch, sequence, end } = *record;
        let end = match end {
            RestoreEnd::Undecided => 1,
            RestoreEnd::Keep => 2,
            RestoreEnd::Discard => 3,
        };
        Self { import_ms, epoch, sequence, end }
    }
}

impl RestoreRaw {
    fn read(self) -> Option<RestoreRecord> {
        let Self { import_ms, epoch, sequence, end } = self;
        let end = match end {
            1 => RestoreEnd::Undecided,
            2 => RestoreEnd::Keep,
            3 => RestoreEnd::Discard,
            _ => return None,
        };
        Some(RestoreRecord { import_ms, epoch, sequence, end })
    }
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
    #[prost(uint32, tag = "5")]
    schema: u32,
    #[prost(message, repeated, tag = "6")]
    restores: Vec<RestoreRaw>,
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
            schema: self.schema,
            restores: self.restores.iter().map(RestoreRaw::from).collect(),
        }
    }

    fn from_raw(raw: ClusterRaw) -> Option<Self> {
        Some(Self {
            cluster: ClusterId::try_from(raw.cluster.as_slice()).ok()?,
            epoch: raw.epoch,
            key_check: Sha256::try_from(raw.key_check.as_slice()).ok()?,
            create_ms: raw.create_ms,
            schema: raw.schema.max(1),
            restores: raw.restores.into_iter().map(RestoreRaw::read).collect::<Option<_>>()?,
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
    /// Number of the key that capabilities are minted under; 0 for the first, which is 1.
    #[prost(uint32, tag = "4")]
    pub key_id: u32,
    /// Since when; 0 since it registered.
    #[prost(uint64, tag = "5")]
    pub key_since_ms: u64,
    /// Number of the key on offer; 0 for none.
    #[prost(uint32, tag = "6")]
    pub next_key_id: u32,
    /// Keys before, the oldest first.
    #[prost(message, repeated, tag = "7")]
    pub retired_keys: Vec<RetiredKey>,
}

/// A key that was replaced.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RetiredKey {
    /// Its number.
    #[prost(uint32, tag = "1")]
    pub key_id: u32,
    /// When it was replaced.
    #[prost(uint64, tag = "2")]
    pub retire_ms: u64,
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

#[cfg(test)]
mod tests {
    use proto::entropy::SeededEntropy;

    use super::*;

    fn at(drawn_ms: u64) -> ChunkId {
        ChunkId::generate(drawn_ms, &SeededEntropy::new(1))
    }

    #[test]
    fn i16_the_lost_time_is_what_was_planned_behind_the_export_and_before_the_import() {
        let restore = RestoreRecord { import_ms: 1_000, epoch: 3, sequence: 7, end: RestoreEnd::Undecided };
        assert!(!restore.lost(at(500), 3, 7), "in the export");
        assert!(restore.lost(at(500), 3, 8));
        assert!(!restore.lost(at(500), 2, 9), "of an earlier epoch, which the export knew to its end");
        assert!(!restore.lost(at(1_000), 4, 1), "planned since the import");
        assert!(restore.lost(at(999), 4, 1), "planned by an earlier import of the same export");
        assert!(restore.lost(at(2_000), 3, 8), "whatever the clock was");
    }
}
