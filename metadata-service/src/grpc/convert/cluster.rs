//! Calls of nodes and operators.

use proto::ids::{ChunkId, NodeId};
use proto::limits;
use proto::pb;
use proto::runtime::transport::ConnectionCounts;
use proto::runtime::worker::Pass;
use proto::token::TokenKeyId;
use proto::traffic::{ClassLoad, TrafficClass};

use super::Call;
use super::fields::{endpoint, id, node, text};
use crate::auth::{Caller, Principal};
use crate::check::Options;
use crate::error::MetadataError;
use crate::nodes::Report;
use crate::nodes::damage::{ChunkReport, REPORTS_MAX};
use crate::nodes::usecases::RegisterNode;
use crate::page_token::page_size;
use crate::service::LostTime;
use crate::store::records::Damage;
use crate::workers::board::{Change, WorkerName, WorkerView};

/// Characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 256;
/// Warnings of a node that are kept.
const WARNINGS_PER_NODE_MAX: usize = 16;
/// Workers of a node that are kept.
const WORKERS_PER_NODE_MAX: usize = 16;

/// A heartbeat and whose it is.
#[derive(Debug)]
pub(in crate::grpc) struct HeartbeatOf {
    pub(in crate::grpc) node: NodeId,
    pub(in crate::grpc) endpoint: String,
    pub(in crate::grpc) held_keys: Vec<u32>,
    pub(in crate::grpc) report: Report,
}

/// Most keys of a node that are looked at; it is never told to hold nearly as many.
const KEYS_PER_NODE_MAX: usize = 256;

/// Longest text of what was found of a chunk.
const DETAIL_BYTES_MAX: usize = 255;

/// A page of the chunks that a node should hold.
#[derive(Debug)]
pub(in crate::grpc) struct ListNodeChunks {
    pub(in crate::grpc) node: NodeId,
    pub(in crate::grpc) after: Option<ChunkId>,
    pub(in crate::grpc) size: usize,
}

/// What a node found of chunks of its own.
#[derive(Debug)]
pub(in crate::grpc) struct ReportChunks {
    pub(in crate::grpc) node: NodeId,
    pub(in crate::grpc) reports: Vec<ChunkReport>,
}

/// A page of chunks that are missing or damaged.
#[derive(Debug)]
pub(in crate::grpc) struct ListDamagedChunks {
    pub(in crate::grpc) size: usize,
    pub(in crate::grpc) token: String,
}

/// A page of nodes.
#[derive(Debug)]
pub(in crate::grpc) struct ListNodes {
    pub(in crate::grpc) size: usize,
    pub(in crate::grpc) token: String,
}

/// One node, or every node.
#[derive(Debug, Clone, Copy)]
pub(in crate::grpc) struct NodeOrAll(pub(in crate::grpc) Option<NodeId>);

/// Whether an export is to hold secrets.
#[derive(Debug, Clone, Copy)]
pub(in crate::grpc) struct IncludeSecrets(pub(in crate::grpc) bool);

impl TryFrom<Call<pb::ExportMetadataRequest>> for IncludeSecrets {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::ExportMetadataRequest>) -> Result<Self, MetadataError> {
        Ok(Self(message.include_secrets))
    }
}

impl TryFrom<Call<pb::RegisterNodeRequest>> for (TokenKeyId, RegisterNode) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::RegisterNodeRequest>) -> Result<Self, MetadataError> {
        let Principal::Join(join) = caller.principal else {
            return Err(MetadataError::Bug("a call came past its access check"));
        };
        let command = RegisterNode {
            node: id("node_id", &message.node_id)?,
            endpoint: endpoint(&message.endpoint)?,
            failure_domain: text("failure_domain", message.failure_domain, limits::ENDPOINT_BYTES_MAX)?,
        };
        Ok((join, command))
    }
}

impl TryFrom<Call<pb::HeartbeatRequest>> for HeartbeatOf {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::HeartbeatRequest>) -> Result<Self, MetadataError> {
        let own = own_node(&caller, &message.node_id)?;
        let report = Report {
            capacity_bytes: message.capacity_bytes,
            free_bytes: message.free_bytes,
            read_only_reason: clipped(&message.read_only_reason),
            version: clipped(&message.version),
            workers: message.workers.iter().take(WORKERS_PER_NODE_MAX).map(worker).collect(),
            loads: loads(&message.class_loads),
            connections: message.connections.map(ConnectionCounts::from),
            warnings: message.warnings.iter().take(WARNINGS_PER_NODE_MAX).map(|words| clipped(words)).collect(),
        };
        let held_keys = message.key_ids.into_iter().take(KEYS_PER_NODE_MAX).collect();
        Ok(Self { node: own, endpoint: endpoint(&message.endpoint)?, held_keys, report })
    }
}

/// What a node says of each class, once; what is of no known class is passed over.
fn loads(loads: &[pb::ClassLoad]) -> Vec<ClassLoad> {
    let of = |class| move |load: &ClassLoad| load.class == class;
    TrafficClass::ALL
        .into_iter()
        .filter_map(|class| loads.iter().filter_map(ClassLoad::from_wire).find(of(class)))
        .collect()
}

fn clipped(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}

/// What a node says of its background work. Its times are its own; they are shown and nothing is decided by them.
fn worker(worker: &pb::Worker) -> WorkerView {
    WorkerView {
        name: clipped(&worker.name),
        paused: worker.paused,
        pace_per_second: worker.pace_per_second,
        pace_unit: clipped(&worker.pace_unit),
        passes: worker.pass_count,
        last_pass: worker.last_pass.map(|pass| {
            let pb::WorkerPass { examined, changed, skipped, failed, more } = pass;
            Pass { examined, changed, skipped, failed, more, held_back: false }
        }),
        last_pass_ms: worker.last_pass_time.as_ref().and_then(unix_ms),
        last_error: clipped(&worker.last_error),
        holds_back: clipped(&worker.holds_back),
        last_sweep_ms: worker.last_sweep_time.as_ref().and_then(unix_ms),
    }
}

fn unix_ms(time: &prost_types::Timestamp) -> Option<u64> {
    let seconds = u64::try_from(time.seconds).ok()?.checked_mul(1000)?;
    seconds.checked_add(u64::try_from(time.nanos).ok()? / 1_000_000)
}

fn worker_name(name: &str) -> Result<WorkerName, MetadataError> {
    let names = WorkerName::ALL.map(WorkerName::as_str).join(", ");
    WorkerName::parse(name).ok_or_else(|| MetadataError::field("name", format!("must be one of {names}")))
}

impl TryFrom<Call<pb::ListWorkersRequest>> for () {
    type Error = MetadataError;
    fn try_from(_nothing: Call<pb::ListWorkersRequest>) -> Result<Self, MetadataError> {
        Ok(())
    }
}

impl TryFrom<Call<pb::UpdateWorkerRequest>> for (WorkerName, Change) {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::UpdateWorkerRequest>) -> Result<Self, MetadataError> {
        let pb::UpdateWorkerRequest { name, paused, pace_per_second } = message;
        Ok((worker_name(&name)?, Change { paused, pace_per_second, run: false }))
    }
}

/// Which worker, and whether it may do what it would hold back from.
impl TryFrom<Call<pb::RunWorkerRequest>> for (WorkerName, bool) {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::RunWorkerRequest>) -> Result<Self, MetadataError> {
        Ok((worker_name(&message.name)?, message.accept_all))
    }
}

impl TryFrom<Call<pb::RotateNodeKeysRequest>> for NodeOrAll {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::RotateNodeKeysRequest>) -> Result<Self, MetadataError> {
        let named = Some(message.node_id.as_str()).filter(|named| !named.is_empty());
        Ok(Self(named.map(|named| id("node_id", named)).transpose()?))
    }
}

impl TryFrom<Call<pb::DescribeChunkRequest>> for (NodeId, ChunkId) {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::DescribeChunkRequest>) -> Result<Self, MetadataError> {
        Ok((node(&caller)?, id("chunk_id", &message.chunk_id)?))
    }
}

impl TryFrom<Call<pb::ListNodesRequest>> for ListNodes {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::ListNodesRequest>) -> Result<Self, MetadataError> {
        Ok(Self { size: page_size(message.page_size)?, token: message.page_token })
    }
}

impl TryFrom<Call<pb::GetClusterStatusRequest>> for () {
    type Error = MetadataError;
    fn try_from(_nothing: Call<pb::GetClusterStatusRequest>) -> Result<Self, MetadataError> {
        Ok(())
    }
}

impl TryFrom<Call<pb::EndRestoreRequest>> for LostTime {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::EndRestoreRequest>) -> Result<Self, MetadataError> {
        match message.lost_time() {
            pb::LostTime::Keep => Ok(Self::Keep),
            pb::LostTime::Discard => Ok(Self::Discard),
            pb::LostTime::Unspecified => Err(MetadataError::field("lost_time", "must be KEEP or DISCARD")),
        }
    }
}

impl TryFrom<Call<pb::CheckClusterRequest>> for Options {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::CheckClusterRequest>) -> Result<Self, MetadataError> {
        Ok(Self { repair: message.repair, skip_bytes: message.skip_bytes })
    }
}

/// The calling node, which a request names.
fn own_node(caller: &Caller, named: &str) -> Result<NodeId, MetadataError> {
    let own = node(caller)?;
    if id::<NodeId>("node_id", named)? == own {
        Ok(own)
    } else {
        Err(MetadataError::ScopeMissing("it is another node's"))
    }
}

impl TryFrom<Call<pb::ListNodeChunksRequest>> for ListNodeChunks {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::ListNodeChunksRequest>) -> Result<Self, MetadataError> {
        let node = own_node(&caller, &message.node_id)?;
        let after = Some(message.after_chunk_id).filter(|after| !after.is_empty());
        let after = after.map(|after| id("after_chunk_id", &after)).transpose()?;
        Ok(Self { node, after, size: page_size(message.page_size)? })
    }
}

impl TryFrom<Call<pb::ReportChunksRequest>> for ReportChunks {
    type Error = MetadataError;
    fn try_from(Call { caller, message }: Call<pb::ReportChunksRequest>) -> Result<Self, MetadataError> {
        let node = own_node(&caller, &message.node_id)?;
        if message.reports.len() > REPORTS_MAX {
            return Err(MetadataError::field("reports", format!("must be at most {REPORTS_MAX}")));
        }
        let reports = message.reports.into_iter().map(chunk_report).collect::<Result<_, _>>()?;
        Ok(Self { node, reports })
    }
}

fn chunk_report(report: pb::ChunkReport) -> Result<ChunkReport, MetadataError> {
    let damage = match report.condition() {
        pb::ChunkCondition::Sound
        | pb::ChunkCondition::Rebuilt
        | pb::ChunkCondition::ChecksumFileBad
        | pb::ChunkCondition::ChecksumFileTooNew => None,
        pb::ChunkCondition::Corrupt => Some(Damage::Corrupt),
        pb::ChunkCondition::Missing => Some(Damage::Missing),
        pb::ChunkCondition::Unreadable => Some(Damage::Unreadable),
        pb::ChunkCondition::Unspecified => {
            return Err(MetadataError::field("reports.condition", "is missing or unknown"));
        }
    };
    let chunk = id("reports.chunk_id", &report.chunk_id)?;
    Ok(ChunkReport { chunk, damage, detail: text("reports.detail", report.detail, DETAIL_BYTES_MAX)?, tenant: None })
}

impl TryFrom<Call<pb::ListDamagedChunksRequest>> for ListDamagedChunks {
    type Error = MetadataError;
    fn try_from(Call { message, .. }: Call<pb::ListDamagedChunksRequest>) -> Result<Self, MetadataError> {
        Ok(Self { size: page_size(message.page_size)?, token: message.page_token })
    }
}
