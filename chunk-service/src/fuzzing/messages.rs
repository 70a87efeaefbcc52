//! The messages of a WriteChunk stream, as bytes from a stranger.

use prost::Message as _;
use proto::checksum::Sha256;
use proto::entropy::SeededEntropy;
use proto::fuzzing::Choices;
use proto::ids::ChunkId;
use proto::pb;

use crate::grpc::convert::{frame, opening};

/// With an even first byte the others are a stream's first message, with an odd one a later one.
pub(super) fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let first = choices.byte().is_multiple_of(2);
    let Ok(message) = pb::WriteChunkRequest::decode(choices.rest()) else { return };
    let (offset, content) = (message.write_offset, message.data.clone().unwrap_or_default().content);
    let taken = if first { opening(message).map(|opening| opening.frame) } else { frame(message) };
    if let Ok(frame) = taken {
        assert_eq!((frame.offset, frame.bytes), (offset, content));
    }
}

/// A message of each kind.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let chunk_id = ChunkId::generate(1, &SeededEntropy::new(1)).to_string();
    let data = Some(pb::ChunkData { content: vec![1, 2, 3].into(), crc32c: Some(4) });
    let spec = Some(pb::WriteChunkSpec { chunk_id, size_bytes: Some(3) });
    let checksums = Some(pb::ChunkChecksums { sha256: Sha256::of(b"a").to_string() });
    let later = pb::WriteChunkRequest { data, write_offset: 3, ..Default::default() };
    let first = pb::WriteChunkRequest { spec, write_offset: 0, ..later.clone() };
    let last = pb::WriteChunkRequest { finish_write: true, checksums, ..later.clone() };
    let seeds = [(0, first), (1, later), (1, last)];
    seeds.iter().map(|(kind, message)| [&[*kind], message.encode_to_vec().as_slice()].concat()).collect()
}
