//! What `benches/` measures of what is private here. Not an interface of this crate.

use proto::capability::ChunkBinding;
use proto::checksum::{ChunkSums, Sha256};
use proto::entropy::SeededEntropy;
use proto::ids::{BlobId, BlockId, ChunkId};
use proto::limits::PIECE_BYTES;

use crate::store::chk::Chk;

/// A checksum file.
#[derive(Debug)]
pub struct ChkFile(Chk);

impl ChkFile {
    /// That of some chunk of so many bytes.
    pub fn of_chunk(size_bytes: u64) -> Self {
        let entropy = SeededEntropy::new(1);
        let binding = ChunkBinding {
            chunk: ChunkId::generate(1, &entropy),
            block: BlockId::generate(1, &entropy),
            blob: BlobId::generate(1, &entropy),
            shard_index: 0,
            shard_count: 1,
            generation: 1,
            epoch: 1,
            sequence: 42,
        };
        let pieces = (0..size_bytes.div_ceil(PIECE_BYTES)).map(|piece| proto::checksum::crc32c(&piece.to_be_bytes()));
        Self(Chk { binding, sums: ChunkSums { size_bytes, sha256: Sha256::of(b"hello"), pieces: pieces.collect() } })
    }

    /// Its text.
    pub fn print(&self) -> String {
        self.0.print()
    }

    /// Reads one; `None` when it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Chk::parse(bytes).ok().map(Self)
    }
}
