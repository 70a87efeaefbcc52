//! Uploads and blobs.

use proto::limits::{FRAME_BYTES, FRAME_BYTES_MAX, READ_FRAME_BYTES};
use proto::pb;

use super::{FromAnswer, timestamp};
use crate::coordinator::PlannedBlock;
use crate::coordinator::blobs::{Blob, DeletedBlob};
use crate::coordinator::layout::SealedBlock;
use crate::coordinator::upload::{Standing, Upload};
use crate::mint::Granted;
use crate::service::{ReadPlan, WritePlan};
use crate::store::records::Encoding;

impl From<Upload> for pb::Upload {
    fn from(upload: Upload) -> Self {
        let state = match upload.standing {
            Standing::Pending => pb::UploadState::Pending,
            Standing::Committed => pb::UploadState::Committed,
            Standing::Aborted => pb::UploadState::Aborted,
            Standing::Expired => pb::UploadState::Expired,
        };
        Self {
            blob_id: upload.blob.to_string(),
            tenant_id: upload.tenant.to_string(),
            state: state.into(),
            display_name: upload.display_name,
            size_bytes: upload.size_bytes,
            block_size_bytes: upload.block_size_bytes,
            planned_block_count: upload.planned_blocks,
            sealed_block_count: upload.sealed_blocks,
            create_time: Some(timestamp(upload.create_ms)),
            lease_expire_time: upload.lease_expire_ms.map(timestamp),
        }
    }
}

fn encoding(encoding: Encoding) -> pb::Encoding {
    let Encoding::Replicated { copies } = encoding;
    pb::Encoding { kind: Some(pb::encoding::Kind::Replication(pb::Replication { copies })) }
}

fn block_plan((planned, chunks): (PlannedBlock, Vec<Granted>)) -> pb::BlockPlan {
    let chunk_plan = |granted: Granted| pb::ChunkPlan {
        chunk_id: granted.chunk.chunk.to_string(),
        node_id: granted.chunk.node.to_string(),
        endpoint: granted.endpoint,
        shard_index: granted.shard_index,
        capability: granted.capability,
        capability_expire_time: Some(timestamp(granted.expire_ms)),
    };
    pb::BlockPlan {
        block_id: planned.block.to_string(),
        block_index: planned.record.index,
        offset_bytes: planned.offset_bytes,
        max_bytes: planned.max_bytes,
        encoding: Some(encoding(planned.record.encoding)),
        generation: planned.record.generation,
        chunks: chunks.into_iter().map(chunk_plan).collect(),
    }
}

impl FromAnswer<WritePlan> for pb::StartUploadResponse {
    fn from_answer(WritePlan { upload, blocks }: WritePlan) -> Self {
        Self {
            block_size_bytes: upload.block_size_bytes,
            upload: Some(upload.into()),
            blocks: blocks.into_iter().map(block_plan).collect(),
            frame_size_bytes: FRAME_BYTES,
            max_frame_size_bytes: FRAME_BYTES_MAX,
        }
    }
}

impl FromAnswer<WritePlan> for pb::AllocateBlocksResponse {
    fn from_answer(WritePlan { upload, blocks }: WritePlan) -> Self {
        Self { upload: Some(upload.into()), blocks: blocks.into_iter().map(block_plan).collect() }
    }
}

impl From<Blob> for pb::Blob {
    fn from(Blob { blob, tenant, record }: Blob) -> Self {
        let block_count = record.block_count();
        Self {
            blob_id: blob.to_string(),
            tenant_id: tenant.to_string(),
            display_name: record.description.display_name,
            content_type: record.description.content_type,
            labels: record.description.labels.into_iter().collect(),
            size_bytes: record.size_bytes,
            sha256: record.sha256.to_string(),
            create_time: Some(timestamp(record.create_ms)),
            block_size_bytes: record.block_size_bytes,
            block_count,
            delete_time: None,
            expire_time: None,
        }
    }
}

impl FromAnswer<Blob> for pb::CommitUploadResponse {
    fn from_answer(blob: Blob) -> Self {
        Self { blob: Some(blob.into()) }
    }
}

impl FromAnswer<()> for pb::AbortUploadResponse {
    fn from_answer((): ()) -> Self {
        Self {}
    }
}

impl FromAnswer<Upload> for pb::GetUploadResponse {
    fn from_answer(upload: Upload) -> Self {
        Self { upload: Some(upload.into()) }
    }
}

impl FromAnswer<Blob> for pb::GetBlobResponse {
    fn from_answer(blob: Blob) -> Self {
        Self { blob: Some(blob.into()) }
    }
}

fn chunk_location(granted: Granted) -> pb::ChunkLocation {
    let sums = granted.chunk.sums;
    pb::ChunkLocation {
        chunk_id: granted.chunk.chunk.to_string(),
        node_id: granted.chunk.node.to_string(),
        endpoint: granted.endpoint,
        shard_index: granted.shard_index,
        size_bytes: sums.map_or(0, |sums| sums.size_bytes),
        sha256: sums.map(|sums| sums.sha256.to_string()).unwrap_or_default(),
        pieces_sha256: sums.map(|sums| sums.pieces_sha256.to_string()).unwrap_or_default(),
        capability: granted.capability,
        capability_expire_time: Some(timestamp(granted.expire_ms)),
    }
}

fn block_layout((sealed, chunks): (SealedBlock, Vec<Granted>)) -> pb::BlockLayout {
    pb::BlockLayout {
        block_id: sealed.block.to_string(),
        block_index: sealed.record.index,
        offset_bytes: sealed.offset_bytes,
        size_bytes: sealed.sums.size_bytes,
        sha256: sealed.sums.sha256.to_string(),
        encoding: Some(encoding(sealed.record.encoding)),
        generation: sealed.record.generation,
        chunks: chunks.into_iter().map(chunk_location).collect(),
    }
}

impl FromAnswer<ReadPlan> for pb::GetBlobLayoutResponse {
    fn from_answer(ReadPlan { blob, blocks, next_read_offset }: ReadPlan) -> Self {
        Self {
            blob: Some(blob.into()),
            blocks: blocks.into_iter().map(block_layout).collect(),
            next_read_offset,
            frame_size_bytes: READ_FRAME_BYTES,
            max_frame_size_bytes: FRAME_BYTES_MAX,
        }
    }
}

impl FromAnswer<(Vec<Blob>, String)> for pb::ListBlobsResponse {
    fn from_answer((blobs, next_page_token): (Vec<Blob>, String)) -> Self {
        Self { blobs: blobs.into_iter().map(pb::Blob::from).collect(), next_page_token }
    }
}

impl FromAnswer<()> for pb::DeleteBlobResponse {
    fn from_answer((): ()) -> Self {
        Self {}
    }
}

impl FromAnswer<(Vec<DeletedBlob>, String)> for pb::ListBlobsResponse {
    fn from_answer((blobs, next_page_token): (Vec<DeletedBlob>, String)) -> Self {
        let blob = |deleted: DeletedBlob| pb::Blob {
            delete_time: Some(timestamp(deleted.delete_ms)),
            expire_time: Some(timestamp(deleted.due_ms)),
            ..pb::Blob::from(deleted.blob)
        };
        Self { blobs: blobs.into_iter().map(blob).collect(), next_page_token }
    }
}

impl FromAnswer<Blob> for pb::UndeleteBlobResponse {
    fn from_answer(blob: Blob) -> Self {
        Self { blob: Some(blob.into()) }
    }
}
