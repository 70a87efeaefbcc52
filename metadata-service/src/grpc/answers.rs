//! Answers into messages.

use prost_types::Timestamp;
use proto::limits::{FRAME_BYTES, FRAME_BYTES_MAX};
use proto::pb;
use proto::token::Token;

use crate::coordinator::PlannedBlock;
use crate::coordinator::blobs::Blob;
use crate::coordinator::layout::SealedBlock;
use crate::coordinator::tenants::Tenant;
use crate::coordinator::upload::{Standing, Upload};
use crate::mint::Granted;
use crate::nodes::usecases::Described;
use crate::nodes::{NodeStatus, State};
use crate::service::{ClusterStatus, Joined, ReadPlan, WritePlan};
use crate::store::records::{Encoding, Quota, TrafficClass, UsageRecord};

/// Makes a response of what a call returned.
pub(super) trait FromAnswer<A> {
    fn from_answer(answer: A) -> Self;
}

fn timestamp(ms: u64) -> Timestamp {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1000 * 1_000_000).expect("less than a second of nanoseconds fits");
    Timestamp { seconds, nanos }
}

fn usage(usage: UsageRecord) -> pb::Usage {
    let UsageRecord { used_bytes, used_blobs, reserved_bytes, reserved_blobs, retained_bytes, retained_blobs } = usage;
    pb::Usage { used_bytes, used_blobs, reserved_bytes, reserved_blobs, retained_bytes, retained_blobs }
}

impl From<Tenant> for pb::Tenant {
    fn from(Tenant { tenant, record, usage: held }: Tenant) -> Self {
        let Quota { max_bytes, max_blobs } = record.quota;
        let class = match record.traffic_class {
            TrafficClass::Gold => pb::TrafficClass::Gold,
            TrafficClass::Silver => pb::TrafficClass::Silver,
            TrafficClass::Bronze => pb::TrafficClass::Bronze,
        };
        Self {
            tenant_id: tenant.to_string(),
            create_time: Some(timestamp(record.create_ms)),
            quota: Some(pb::Quota { max_bytes, max_blobs }),
            usage: Some(usage(held)),
            traffic_class: class.into(),
        }
    }
}

impl FromAnswer<(Tenant, Token)> for pb::RegisterTenantResponse {
    fn from_answer((tenant, token): (Tenant, Token)) -> Self {
        Self { tenant: Some(tenant.into()), token: token.expose().to_string() }
    }
}

impl FromAnswer<Tenant> for pb::GetTenantResponse {
    fn from_answer(tenant: Tenant) -> Self {
        Self { tenant: Some(tenant.into()) }
    }
}

impl FromAnswer<(Vec<Tenant>, String)> for pb::ListTenantsResponse {
    fn from_answer((tenants, next_page_token): (Vec<Tenant>, String)) -> Self {
        Self { tenants: tenants.into_iter().map(pb::Tenant::from).collect(), next_page_token }
    }
}

impl FromAnswer<Tenant> for pb::UpdateTenantResponse {
    fn from_answer(tenant: Tenant) -> Self {
        Self { tenant: Some(tenant.into()) }
    }
}

impl FromAnswer<()> for pb::DeleteTenantResponse {
    fn from_answer((): ()) -> Self {
        Self {}
    }
}

impl FromAnswer<Token> for pb::RotateTenantTokenResponse {
    fn from_answer(token: Token) -> Self {
        Self { token: token.expose().to_string() }
    }
}

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
            frame_size_bytes: FRAME_BYTES,
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

impl FromAnswer<Joined> for pb::RegisterNodeResponse {
    fn from_answer(joined: Joined) -> Self {
        let key = joined.key;
        let secret = bytes::Bytes::copy_from_slice(key.secret.expose());
        Self {
            cluster_id: joined.cluster.to_string(),
            keys: vec![pb::NodeKey { key_id: key.key_id, secret }],
            node_token: joined.token.expose().to_string(),
            server_time: Some(timestamp(joined.beat.now_ms)),
            heartbeat_interval_ms: joined.beat.interval_ms,
        }
    }
}

impl FromAnswer<crate::service::Beat> for pb::HeartbeatResponse {
    fn from_answer(beat: crate::service::Beat) -> Self {
        Self { server_time: Some(timestamp(beat.now_ms)), heartbeat_interval_ms: beat.interval_ms }
    }
}

impl FromAnswer<Option<Described>> for pb::DescribeChunkResponse {
    fn from_answer(described: Option<Described>) -> Self {
        let Some(chunk) = described else {
            return Self { state: pb::ChunkState::Unknown.into(), ..Self::default() };
        };
        let state = if chunk.sums.is_some() { pb::ChunkState::Sealed } else { pb::ChunkState::Open };
        Self {
            state: state.into(),
            block_id: chunk.block.to_string(),
            blob_id: chunk.blob.to_string(),
            shard_index: chunk.shard_index,
            shard_count: chunk.shard_count,
            size_bytes: chunk.sums.map_or(0, |sums| sums.size_bytes),
            sha256: chunk.sums.map(|sums| sums.sha256.to_string()).unwrap_or_default(),
            pieces_sha256: chunk.sums.map(|sums| sums.pieces_sha256.to_string()).unwrap_or_default(),
            generation: chunk.generation,
            epoch: chunk.epoch,
            sequence: chunk.sequence,
        }
    }
}

impl From<NodeStatus> for pb::Node {
    fn from(status: NodeStatus) -> Self {
        let state = match status.state {
            State::Alive => pb::NodeState::Alive,
            State::ReadOnly => pb::NodeState::ReadOnly,
            State::Lost => pb::NodeState::Lost,
        };
        Self {
            node_id: status.node.to_string(),
            endpoint: status.record.endpoint,
            failure_domain: status.record.failure_domain,
            state: state.into(),
            read_only_reason: status.report.read_only_reason,
            capacity_bytes: status.report.capacity_bytes,
            free_bytes: status.report.free_bytes,
            create_time: Some(timestamp(status.record.create_ms)),
            last_heartbeat_time: status.heard_ms.map(timestamp),
            version: status.report.version,
        }
    }
}

impl FromAnswer<(Vec<NodeStatus>, String)> for pb::ListNodesResponse {
    fn from_answer((nodes, next_page_token): (Vec<NodeStatus>, String)) -> Self {
        Self { nodes: nodes.into_iter().map(pb::Node::from).collect(), next_page_token }
    }
}

impl FromAnswer<ClusterStatus> for pb::GetClusterStatusResponse {
    fn from_answer(status: ClusterStatus) -> Self {
        Self {
            cluster_id: status.cluster.to_string(),
            epoch: status.epoch,
            sequence: status.sequence,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            read_only_reason: status.read_only_reason,
            nodes: status.nodes.into_iter().map(pb::Node::from).collect(),
            usage: Some(usage(status.usage)),
            tenant_count: status.tenants,
            start_time: Some(timestamp(status.start_ms)),
        }
    }
}
