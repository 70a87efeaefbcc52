//! Nodes and the cluster.

use bytes::Bytes;
use proto::capability::NodeKey;
use proto::ids::{ChunkId, NodeId};
use proto::pb;
use proto::runtime::worker::Pass;

use super::{FromAnswer, timestamp, usage};
use crate::nodes::damage::{DamagedChunk, NodeChunk};
use crate::nodes::keys;
use crate::nodes::usecases::Described;
use crate::nodes::{NodeStatus, State};
use crate::service::{Beat, ClusterStatus, Joined};
use crate::store::records::{Damage, RestoreRecord, WorkerRecord};
use crate::workers::board::{WorkerName, WorkerView};

impl FromAnswer<Joined> for pb::RegisterNodeResponse {
    fn from_answer(joined: Joined) -> Self {
        Self {
            cluster_id: joined.cluster.to_string(),
            keys: joined.keys.iter().map(node_key).collect(),
            node_token: joined.token.expose().to_string(),
            server_time: Some(timestamp(joined.beat.now_ms)),
            heartbeat_interval_ms: joined.beat.interval_ms,
        }
    }
}

impl FromAnswer<Beat> for pb::HeartbeatResponse {
    fn from_answer(beat: Beat) -> Self {
        Self {
            server_time: Some(timestamp(beat.now_ms)),
            heartbeat_interval_ms: beat.interval_ms,
            worker_settings: beat.workers.into_iter().map(settings).collect(),
            hold_key_ids: beat.keys.hold,
            keys: beat.keys.given.iter().map(node_key).collect(),
        }
    }
}

impl FromAnswer<Vec<(NodeId, u32)>> for pb::RotateNodeKeysResponse {
    fn from_answer(offers: Vec<(NodeId, u32)>) -> Self {
        let offer = |(node, next_key_id): (NodeId, u32)| pb::NodeKeyOffer { node_id: node.to_string(), next_key_id };
        Self { offers: offers.into_iter().map(offer).collect() }
    }
}

fn node_key(key: &NodeKey) -> pb::NodeKey {
    pb::NodeKey { key_id: key.key_id, secret: Bytes::copy_from_slice(key.secret.expose()) }
}

fn settings((name, record): (WorkerName, WorkerRecord)) -> pb::WorkerSettings {
    let WorkerRecord { paused, pace_per_second, run_count, run_ms } = record;
    let run_time = (run_ms > 0).then(|| timestamp(run_ms));
    pb::WorkerSettings { name: name.as_str().to_owned(), paused, pace_per_second, run_count, run_time }
}

fn pass(pass: Pass) -> pb::WorkerPass {
    let Pass { examined, changed, skipped, failed, more, held_back: _said_in_words } = pass;
    pb::WorkerPass { examined, changed, skipped, failed, more }
}

impl FromAnswer<(WorkerName, WorkerRecord)> for pb::UpdateWorkerResponse {
    fn from_answer(updated: (WorkerName, WorkerRecord)) -> Self {
        Self { settings: Some(settings(updated)) }
    }
}

impl FromAnswer<Option<Pass>> for pb::RunWorkerResponse {
    fn from_answer(ran: Option<Pass>) -> Self {
        Self { pass: ran.map(pass) }
    }
}

impl FromAnswer<Vec<(Option<NodeId>, WorkerView)>> for pb::ListWorkersResponse {
    fn from_answer(workers: Vec<(Option<NodeId>, WorkerView)>) -> Self {
        Self { workers: workers.into_iter().map(worker).collect() }
    }
}

fn worker((node, worker): (Option<NodeId>, WorkerView)) -> pb::Worker {
    pb::Worker {
        name: worker.name,
        node_id: node.map(|node| node.to_string()).unwrap_or_default(),
        paused: worker.paused,
        pace_per_second: worker.pace_per_second,
        pace_unit: worker.pace_unit,
        pass_count: worker.passes,
        last_pass: worker.last_pass.map(pass),
        last_pass_time: worker.last_pass_ms.map(timestamp),
        last_error: worker.last_error,
        holds_back: worker.holds_back,
        last_sweep_time: worker.last_sweep_ms.map(timestamp),
    }
}

impl FromAnswer<Option<Described>> for pb::DescribeChunkResponse {
    fn from_answer(described: Option<Described>) -> Self {
        let unknown = || Self { state: pb::ChunkState::Unknown.into(), ..Self::default() };
        described.map_or_else(unknown, Self::from)
    }
}

impl From<Described> for pb::DescribeChunkResponse {
    fn from(chunk: Described) -> Self {
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

impl FromAnswer<(Vec<NodeChunk>, Option<ChunkId>)> for pb::ListNodeChunksResponse {
    fn from_answer((chunks, next): (Vec<NodeChunk>, Option<ChunkId>)) -> Self {
        let chunk = |NodeChunk { chunk, described, damaged }| pb::NodeChunk {
            chunk_id: chunk.to_string(),
            description: Some(described.into()),
            damaged,
        };
        Self {
            chunks: chunks.into_iter().map(chunk).collect(),
            next_after_chunk_id: next.map(|next| next.to_string()).unwrap_or_default(),
        }
    }
}

impl FromAnswer<()> for pb::ReportChunksResponse {
    fn from_answer((): ()) -> Self {
        Self {}
    }
}

impl From<DamagedChunk> for pb::DamagedChunk {
    fn from(DamagedChunk { node, chunk, record }: DamagedChunk) -> Self {
        let condition = match record.damage {
            Damage::Corrupt => pb::ChunkCondition::Corrupt,
            Damage::Missing => pb::ChunkCondition::Missing,
            Damage::Unreadable => pb::ChunkCondition::Unreadable,
        };
        Self {
            chunk_id: chunk.to_string(),
            node_id: node.to_string(),
            block_id: record.block.to_string(),
            blob_id: record.blob.to_string(),
            condition: condition.into(),
            detail: record.detail,
            find_time: Some(timestamp(record.find_ms)),
            tenant_id: record.tenant.map(|tenant| tenant.to_string()).unwrap_or_default(),
        }
    }
}

impl FromAnswer<(Vec<DamagedChunk>, String)> for pb::ListDamagedChunksResponse {
    fn from_answer((chunks, next_page_token): (Vec<DamagedChunk>, String)) -> Self {
        Self { chunks: chunks.into_iter().map(pb::DamagedChunk::from).collect(), next_page_token }
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
            key_id: keys::current(&status.record),
            next_key_id: status.record.next_key_id,
            endpoint: status.record.endpoint,
            failure_domain: status.record.failure_domain,
            state: state.into(),
            read_only_reason: status.report.read_only_reason,
            capacity_bytes: status.report.capacity_bytes,
            free_bytes: status.report.free_bytes,
            create_time: Some(timestamp(status.record.create_ms)),
            last_heartbeat_time: status.heard_ms.map(timestamp),
            version: status.report.version,
            class_loads: status.report.loads.into_iter().map(pb::ClassLoad::from).collect(),
            connections: status.report.connections.map(pb::ConnectionCounts::from),
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
            damaged_chunk_count: status.damaged_chunks,
            restore: status.restore.map(restore),
            warnings: status.warnings,
            connections: Some(status.connections.into()),
        }
    }
}

fn restore(restore: RestoreRecord) -> pb::Restore {
    let RestoreRecord { import_ms, epoch, sequence, .. } = restore;
    pb::Restore { import_time: Some(timestamp(import_ms)), epoch, sequence }
}

impl FromAnswer<()> for pb::EndRestoreResponse {
    fn from_answer((): ()) -> Self {
        Self {}
    }
}
