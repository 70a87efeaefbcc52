//! Between messages and what the node works with. What is missing or malformed ends here.

use bytes::Bytes;
use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::{ChunkSums, Sha256, crc32c};
use proto::ids::ChunkId;
use proto::limits::FRAME_BYTES_MAX;
use proto::pb;
use tonic::{Code, Status, Streaming};

use crate::error::ChunkError;
use crate::store::chk::Chk;
use crate::store::listing::{ChunkFiles, Page};
use crate::store::reading::{Frame as ReadFrame, Range};
use crate::store::verify::{Condition, Finding};
use crate::store::writing::WriteStatus;
use crate::write::{Finish, Frame, FrameSource, Opening, SourceError};

/// A chunk id in a request.
///
/// # Errors
/// [`ChunkError::FieldInvalid`].
pub(crate) fn chunk_id(field: &'static str, text: &str) -> Result<ChunkId, ChunkError> {
    text.parse().map_err(|error: proto::ids::IdError| ChunkError::field(field, error.to_string()))
}

/// The chunk id of a request, which must be the capability's.
///
/// # Errors
/// [`ChunkError::FieldInvalid`], [`ChunkError::CapabilityInvalid`].
pub(crate) fn permitted_chunk(text: &str, permitted: ChunkId) -> Result<(), ChunkError> {
    if chunk_id("chunk_id", text)? == permitted { Ok(()) } else { Err(ChunkError::CapabilityInvalid) }
}

/// The stream of a WriteChunk call.
#[derive(Debug)]
pub(crate) struct Frames(Streaming<pb::WriteChunkRequest>);

impl Frames {
    pub(crate) fn new(stream: Streaming<pb::WriteChunkRequest>) -> Self {
        Self(stream)
    }
}

impl FrameSource for Frames {
    async fn opening(&mut self) -> Result<Opening, SourceError> {
        let message = self.0.message().await.map_err(|status| source_error(&status))?;
        let message = message.ok_or_else(|| ChunkError::field("spec", "the stream has no message"));
        message.and_then(opening).map_err(SourceError::Invalid)
    }

    async fn next(&mut self) -> Result<Option<Frame>, SourceError> {
        let Some(message) = self.0.message().await.map_err(|status| source_error(&status))? else { return Ok(None) };
        if message.spec.is_some() {
            return Err(SourceError::Invalid(ChunkError::field("spec", "belongs into the first message only")));
        }
        frame(message).map(Some).map_err(SourceError::Invalid)
    }
}

/// What tonic says when no message comes: its decoder's complaints have no source, the transport's have one.
fn source_error(status: &Status) -> SourceError {
    use std::error::Error as _;
    match status.code() {
        Code::OutOfRange => SourceError::Invalid(ChunkError::FrameTooLarge { max: FRAME_BYTES_MAX }),
        Code::Internal | Code::Unimplemented if status.source().is_none() => {
            SourceError::Invalid(ChunkError::field("message", "cannot be decoded"))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => SourceError::Broken,
    }
}

/// The first message of a stream.
///
/// # Errors
/// [`ChunkError::FieldInvalid`].
pub(crate) fn opening(mut message: pb::WriteChunkRequest) -> Result<Opening, ChunkError> {
    let spec = message.spec.take().ok_or_else(|| ChunkError::field("spec", "is missing in the first message"))?;
    let chunk = chunk_id("spec.chunk_id", &spec.chunk_id)?;
    Ok(Opening { chunk, size_bytes: spec.size_bytes, frame: frame(message)? })
}

/// A chunk that came as a whole, as the only message of its stream.
///
/// # Errors
/// [`ChunkError::FieldInvalid`].
pub(crate) fn whole_chunk(item: pb::WriteChunksItem) -> Result<Opening, ChunkError> {
    let pb::WriteChunksItem { chunk_id, capability: _, data, checksums } = item;
    let chunk = self::chunk_id("chunk_id", &chunk_id)?;
    let pb::ChunkData { content, crc32c } = data.unwrap_or_default();
    let size_bytes = Some(content.len() as u64);
    let finish = Some(Finish { sha256: sha256(checksums)? });
    Ok(Opening { chunk, size_bytes, frame: Frame { offset: 0, bytes: content, crc32c, finish } })
}

/// What every message of a stream has.
///
/// # Errors
/// [`ChunkError::FieldInvalid`].
pub(crate) fn frame(message: pb::WriteChunkRequest) -> Result<Frame, ChunkError> {
    let pb::WriteChunkRequest { spec: _, write_offset, data, finish_write, checksums } = message;
    let finish = match (finish_write, checksums) {
        (true, checksums) => Some(Finish { sha256: sha256(checksums)? }),
        (false, None) => None,
        (false, Some(_)) => return Err(ChunkError::field("checksums", "belong into the last message only")),
    };
    let pb::ChunkData { content, crc32c } = data.unwrap_or_default();
    Ok(Frame { offset: write_offset, bytes: content, crc32c, finish })
}

fn sha256(checksums: Option<pb::ChunkChecksums>) -> Result<Option<Sha256>, ChunkError> {
    let text = checksums.unwrap_or_default().sha256;
    if text.is_empty() {
        return Ok(None);
    }
    let malformed = |error: proto::checksum::DigestError| ChunkError::field("checksums.sha256", error.to_string());
    text.parse().map(Some).map_err(malformed)
}

/// The answer to WriteChunk.
pub(crate) fn written(chunk: ChunkId, sums: &ChunkSums, receipt: Bytes) -> pb::WriteChunkResponse {
    pb::WriteChunkResponse {
        chunk_id: chunk.to_string(),
        persisted_size_bytes: sums.size_bytes,
        sha256: sums.sha256.to_string(),
        receipt,
    }
}

/// The answer to QueryWriteStatus; `receipt` is asked for a complete chunk only.
pub(crate) fn write_status<E>(
    status: WriteStatus,
    receipt: impl FnOnce(&ChunkSums) -> Result<Bytes, E>,
) -> Result<pb::QueryWriteStatusResponse, E> {
    Ok(match status {
        WriteStatus::Open(received) => {
            pb::QueryWriteStatusResponse { persisted_size_bytes: received, ..Default::default() }
        }
        WriteStatus::Complete(sums) => pb::QueryWriteStatusResponse {
            persisted_size_bytes: sums.size_bytes,
            complete: true,
            sha256: sums.sha256.to_string(),
            receipt: receipt(&sums)?,
        },
    })
}

/// The range of a ReadChunk request.
pub(crate) fn range(request: &pb::ReadChunkRequest) -> Range {
    let limit = (request.read_limit > 0).then_some(request.read_limit);
    Range { offset: request.read_offset, limit }
}

/// What is known of a chunk.
pub(crate) fn chunk_info(place: &ChunkBinding, claims: &ReadClaims) -> pb::ChunkInfo {
    pb::ChunkInfo {
        chunk_id: place.chunk.to_string(),
        size_bytes: claims.size_bytes,
        sha256: claims.sha256.to_string(),
        pieces_sha256: claims.pieces_sha256.to_string(),
        generation: place.generation,
    }
}

/// A message of a ReadChunk stream.
pub(crate) fn read_frame(frame: ReadFrame) -> pb::ReadChunkResponse {
    let ReadFrame { offset, bytes } = frame;
    let data = pb::ChunkData { crc32c: Some(crc32c(&bytes)), content: bytes };
    pb::ReadChunkResponse { chunk: None, read_offset: offset, data: Some(data) }
}

/// How a chunk is.
pub(crate) fn condition(condition: Condition) -> pb::ChunkCondition {
    match condition {
        Condition::Sound => pb::ChunkCondition::Sound,
        Condition::Rebuilt => pb::ChunkCondition::Rebuilt,
        Condition::ChecksumFileBad => pb::ChunkCondition::ChecksumFileBad,
        Condition::ChecksumFileTooNew => pb::ChunkCondition::ChecksumFileTooNew,
        Condition::Corrupt => pb::ChunkCondition::Corrupt,
        Condition::Missing => pb::ChunkCondition::Missing,
        Condition::Unreadable => pb::ChunkCondition::Unreadable,
    }
}

/// The answer to VerifyChunk.
pub(crate) fn verified(finding: Finding) -> pb::VerifyChunkResponse {
    pb::VerifyChunkResponse { condition: condition(finding.condition).into(), detail: finding.detail }
}

/// A message of a ListChunks stream.
pub(crate) fn listed(page: Page) -> pb::ListChunksResponse {
    let Page { chunks, foreign, complete } = page;
    pb::ListChunksResponse { chunks: chunks.into_iter().map(chunk_files).collect(), foreign_names: foreign, complete }
}

fn chunk_files(files: ChunkFiles) -> pb::ChunkFiles {
    let ChunkFiles { chunk, data_size, has_chk, chk } = files;
    pb::ChunkFiles {
        chunk_id: chunk.to_string(),
        data_size_bytes: data_size,
        has_checksum_file: has_chk,
        checksum_file: chk.map(checksum_file),
    }
}

fn checksum_file(Chk { binding, sums }: Chk) -> pb::ChecksumFile {
    pb::ChecksumFile {
        block_id: binding.block.to_string(),
        blob_id: binding.blob.to_string(),
        shard_index: binding.shard_index,
        shard_count: binding.shard_count,
        size_bytes: sums.size_bytes,
        sha256: sums.sha256.to_string(),
        generation: binding.generation,
        epoch: binding.epoch,
        sequence: binding.sequence,
    }
}
