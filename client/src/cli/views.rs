//! What `--json` prints: the protos' messages under the protos' own field names, sizes as numbers, times as RFC 3339.

use std::collections::BTreeMap;

use mini_tectonic_client::{AdminRotation, Blob};
use proto::pb;
use serde::Serialize;

fn time(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.map(ToString::to_string)
}

/// A blob.
#[derive(Debug, Serialize)]
pub(crate) struct BlobView<'a> {
    blob_id: String,
    tenant_id: &'a str,
    display_name: &'a str,
    content_type: &'a str,
    labels: &'a BTreeMap<String, String>,
    size_bytes: u64,
    sha256: String,
    create_time: String,
    block_size_bytes: u64,
    block_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
}

impl<'a> From<&'a Blob> for BlobView<'a> {
    fn from(blob: &'a Blob) -> Self {
        Self {
            blob_id: blob.blob_id.to_string(),
            tenant_id: &blob.tenant_id,
            display_name: &blob.display_name,
            content_type: &blob.content_type,
            labels: &blob.labels,
            size_bytes: blob.size_bytes,
            sha256: blob.sha256.to_string(),
            create_time: blob.create_time.to_string(),
            block_size_bytes: blob.block_size_bytes,
            block_count: blob.block_count,
            delete_time: time(blob.delete_time.as_ref()),
            expire_time: time(blob.expire_time.as_ref()),
        }
    }
}

/// What a tenant may hold; a bound that does not exist is `null`.
#[derive(Debug, Serialize)]
pub(crate) struct QuotaView {
    max_bytes: Option<u64>,
    max_blobs: Option<u64>,
    max_blob_bytes: Option<u64>,
    max_open_uploads: Option<u64>,
}

impl From<pb::Quota> for QuotaView {
    fn from(quota: pb::Quota) -> Self {
        let pb::Quota { max_bytes, max_blobs, max_blob_bytes, max_open_uploads } = quota;
        Self { max_bytes, max_blobs, max_blob_bytes, max_open_uploads }
    }
}

/// How fast a tenant may go; a bound that does not exist is `null`.
#[derive(Debug, Serialize)]
pub(crate) struct RatesView {
    requests_per_second: Option<u64>,
    read_bytes_per_second: Option<u64>,
    write_bytes_per_second: Option<u64>,
}

impl From<pb::Rates> for RatesView {
    fn from(rates: pb::Rates) -> Self {
        let pb::Rates { requests_per_second, read_bytes_per_second, write_bytes_per_second } = rates;
        Self { requests_per_second, read_bytes_per_second, write_bytes_per_second }
    }
}

/// What a tenant holds.
#[derive(Debug, Serialize)]
pub(crate) struct UsageView {
    used_bytes: u64,
    used_blobs: u64,
    reserved_bytes: u64,
    reserved_blobs: u64,
    retained_bytes: u64,
    retained_blobs: u64,
}

impl From<pb::Usage> for UsageView {
    fn from(usage: pb::Usage) -> Self {
        Self {
            used_bytes: usage.used_bytes,
            used_blobs: usage.used_blobs,
            reserved_bytes: usage.reserved_bytes,
            reserved_blobs: usage.reserved_blobs,
            retained_bytes: usage.retained_bytes,
            retained_blobs: usage.retained_blobs,
        }
    }
}

/// A tenant.
#[derive(Debug, Serialize)]
pub(crate) struct TenantView<'a> {
    tenant_id: &'a str,
    create_time: Option<String>,
    quota: QuotaView,
    usage: UsageView,
    traffic_class: &'static str,
    rates: RatesView,
}

impl<'a> From<&'a pb::Tenant> for TenantView<'a> {
    fn from(tenant: &'a pb::Tenant) -> Self {
        Self {
            tenant_id: &tenant.tenant_id,
            create_time: time(tenant.create_time.as_ref()),
            quota: tenant.quota.unwrap_or_default().into(),
            usage: tenant.usage.unwrap_or_default().into(),
            traffic_class: tenant.traffic_class().as_str_name(),
            rates: tenant.rates.unwrap_or_default().into(),
        }
    }
}

/// The names of a token's scopes.
pub(crate) fn scope_names(token: &pb::TenantToken) -> Vec<&'static str> {
    let name = |scope| match scope {
        pb::TokenScope::Unspecified => "unknown",
        pb::TokenScope::Read => "read",
        pb::TokenScope::Write => "write",
        pb::TokenScope::Delete => "delete",
        pb::TokenScope::List => "list",
    };
    token.scopes().map(name).collect()
}

/// A tenant's token.
#[derive(Debug, Serialize)]
pub(crate) struct TenantTokenView<'a> {
    key_id: &'a str,
    scopes: Vec<&'static str>,
    create_time: Option<String>,
    expire_time: Option<String>,
    main: bool,
}

impl<'a> From<&'a pb::TenantToken> for TenantTokenView<'a> {
    fn from(token: &'a pb::TenantToken) -> Self {
        Self {
            key_id: &token.key_id,
            scopes: scope_names(token),
            create_time: time(token.create_time.as_ref()),
            expire_time: time(token.expire_time.as_ref()),
            main: token.main,
        }
    }
}

/// A tenant's token just made; its text is there when it was not put elsewhere.
#[derive(Serialize)]
pub(crate) struct CreatedTokenView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<&'a str>,
    #[serde(flatten)]
    pub(crate) about: TenantTokenView<'a>,
}

/// A join token just made; its text is there when it was not put elsewhere.
#[derive(Serialize)]
pub(crate) struct JoinTokenView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    expire_time: String,
}

impl<'a> JoinTokenView<'a> {
    pub(crate) fn new(end: &prost_types::Timestamp, token: Option<&'a str>) -> Self {
        Self { token, expire_time: end.to_string() }
    }
}

/// What a rotation of the admin token did.
#[derive(Debug, Serialize)]
pub(crate) struct AdminRotationView {
    previous_expire_time: String,
    file_written: bool,
}

impl From<&AdminRotation> for AdminRotationView {
    fn from(rotation: &AdminRotation) -> Self {
        Self { previous_expire_time: rotation.previous_expire_time.to_string(), file_written: rotation.file_written }
    }
}

/// A chunk service.
#[derive(Debug, Serialize)]
pub(crate) struct NodeView<'a> {
    node_id: &'a str,
    endpoint: &'a str,
    failure_domain: &'a str,
    state: &'static str,
    read_only_reason: &'a str,
    capacity_bytes: u64,
    free_bytes: u64,
    create_time: Option<String>,
    last_heartbeat_time: Option<String>,
    version: &'a str,
    class_loads: Vec<ClassLoadView>,
    key_id: u32,
    next_key_id: u32,
    connections: Option<ConnectionsView>,
}

/// A key that a node is offered.
#[derive(Debug, Serialize)]
pub(crate) struct NodeKeyOfferView<'a> {
    node_id: &'a str,
    next_key_id: u32,
}

impl<'a> From<&'a pb::NodeKeyOffer> for NodeKeyOfferView<'a> {
    fn from(offer: &'a pb::NodeKeyOffer) -> Self {
        let pb::NodeKeyOffer { node_id, next_key_id } = offer;
        Self { node_id, next_key_id: *next_key_id }
    }
}

/// What a chunk service does for one class of traffic.
#[derive(Debug, Serialize)]
pub(crate) struct ClassLoadView {
    traffic_class: &'static str,
    job_count: u64,
    moved_bytes: u64,
    disk_time_us: u64,
    waiting_count: u64,
    recent_job_count: u64,
    queue_p50_us: u64,
    queue_p99_us: u64,
    queue_max_us: u64,
}

impl From<&pb::ClassLoad> for ClassLoadView {
    fn from(load: &pb::ClassLoad) -> Self {
        Self {
            traffic_class: load.traffic_class().as_str_name(),
            job_count: load.job_count,
            moved_bytes: load.moved_bytes,
            disk_time_us: load.disk_time_us,
            waiting_count: load.waiting_count,
            recent_job_count: load.recent_job_count,
            queue_p50_us: load.queue_p50_us,
            queue_p99_us: load.queue_p99_us,
            queue_max_us: load.queue_max_us,
        }
    }
}

impl<'a> From<&'a pb::Node> for NodeView<'a> {
    fn from(node: &'a pb::Node) -> Self {
        Self {
            node_id: &node.node_id,
            endpoint: &node.endpoint,
            failure_domain: &node.failure_domain,
            state: node.state().as_str_name(),
            read_only_reason: &node.read_only_reason,
            capacity_bytes: node.capacity_bytes,
            free_bytes: node.free_bytes,
            create_time: time(node.create_time.as_ref()),
            last_heartbeat_time: time(node.last_heartbeat_time.as_ref()),
            version: &node.version,
            class_loads: node.class_loads.iter().map(ClassLoadView::from).collect(),
            key_id: node.key_id,
            next_key_id: node.next_key_id,
            connections: node.connections.map(Into::into),
        }
    }
}

/// What happened at a listener.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionsView {
    open_count: u64,
    accepted_count: u64,
    refused_full_count: u64,
    refused_address_count: u64,
    failed_handshake_count: u64,
    silent_count: u64,
    accept_error_count: u64,
}

impl From<pb::ConnectionCounts> for ConnectionsView {
    fn from(counts: pb::ConnectionCounts) -> Self {
        let pb::ConnectionCounts {
            open_count,
            accepted_count,
            refused_full_count,
            refused_address_count,
            failed_handshake_count,
            silent_count,
            accept_error_count,
        } = counts;
        Self {
            open_count,
            accepted_count,
            refused_full_count,
            refused_address_count,
            failed_handshake_count,
            silent_count,
            accept_error_count,
        }
    }
}

/// The time after an import.
#[derive(Debug, Serialize)]
pub(crate) struct RestoreView {
    import_time: Option<String>,
    epoch: u64,
    sequence: u64,
}

impl From<&pb::Restore> for RestoreView {
    fn from(restore: &pb::Restore) -> Self {
        let import_time = time(restore.import_time.as_ref());
        Self { import_time, epoch: restore.epoch, sequence: restore.sequence }
    }
}

/// What a pass of background work did.
#[derive(Debug, Serialize)]
pub(crate) struct PassView {
    examined: u64,
    changed: u64,
    skipped: u64,
    failed: u64,
    more: bool,
}

impl From<&pb::WorkerPass> for PassView {
    fn from(pass: &pb::WorkerPass) -> Self {
        let pb::WorkerPass { examined, changed, skipped, failed, more } = *pass;
        Self { examined, changed, skipped, failed, more }
    }
}

/// How background work is to run.
#[derive(Debug, Serialize)]
pub(crate) struct SettingsView<'a> {
    name: &'a str,
    paused: bool,
    pace_per_second: Option<u64>,
    run_count: u64,
    run_time: Option<String>,
}

impl<'a> From<&'a pb::WorkerSettings> for SettingsView<'a> {
    fn from(settings: &'a pb::WorkerSettings) -> Self {
        let pb::WorkerSettings { name, paused, pace_per_second, run_count, run_time } = settings;
        let run_time = run_time.as_ref().map(ToString::to_string);
        Self { name, paused: *paused, pace_per_second: *pace_per_second, run_count: *run_count, run_time }
    }
}

/// Background work at one service.
#[derive(Debug, Serialize)]
pub(crate) struct WorkerView<'a> {
    name: &'a str,
    node_id: &'a str,
    paused: bool,
    pace_per_second: u64,
    pace_unit: &'a str,
    pass_count: u64,
    last_pass: Option<PassView>,
    last_pass_time: Option<String>,
    last_error: &'a str,
    holds_back: &'a str,
    last_sweep_time: Option<String>,
}

impl<'a> From<&'a pb::Worker> for WorkerView<'a> {
    fn from(worker: &'a pb::Worker) -> Self {
        Self {
            name: &worker.name,
            node_id: &worker.node_id,
            paused: worker.paused,
            pace_per_second: worker.pace_per_second,
            pace_unit: &worker.pace_unit,
            pass_count: worker.pass_count,
            last_pass: worker.last_pass.as_ref().map(Into::into),
            last_pass_time: time(worker.last_pass_time.as_ref()),
            last_error: &worker.last_error,
            holds_back: &worker.holds_back,
            last_sweep_time: time(worker.last_sweep_time.as_ref()),
        }
    }
}

/// The cluster.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterView<'a> {
    cluster_id: &'a str,
    epoch: u64,
    sequence: u64,
    version: &'a str,
    read_only_reason: &'a str,
    nodes: Vec<NodeView<'a>>,
    usage: UsageView,
    tenant_count: u64,
    start_time: Option<String>,
    damaged_chunk_count: u64,
    restore: Option<RestoreView>,
    warnings: &'a [String],
    connections: Option<ConnectionsView>,
}

/// A chunk that is missing or damaged.
#[derive(Debug, Serialize)]
pub(crate) struct DamagedChunkView<'a> {
    chunk_id: &'a str,
    node_id: &'a str,
    tenant_id: &'a str,
    blob_id: &'a str,
    block_id: &'a str,
    condition: &'static str,
    detail: &'a str,
    find_time: Option<String>,
}

impl<'a> From<&'a pb::DamagedChunk> for DamagedChunkView<'a> {
    fn from(chunk: &'a pb::DamagedChunk) -> Self {
        Self {
            chunk_id: &chunk.chunk_id,
            node_id: &chunk.node_id,
            tenant_id: &chunk.tenant_id,
            blob_id: &chunk.blob_id,
            block_id: &chunk.block_id,
            condition: chunk.condition().as_str_name(),
            detail: &chunk.detail,
            find_time: time(chunk.find_time.as_ref()),
        }
    }
}

impl<'a> From<&'a pb::GetClusterStatusResponse> for ClusterView<'a> {
    fn from(cluster: &'a pb::GetClusterStatusResponse) -> Self {
        Self {
            cluster_id: &cluster.cluster_id,
            epoch: cluster.epoch,
            sequence: cluster.sequence,
            version: &cluster.version,
            read_only_reason: &cluster.read_only_reason,
            nodes: cluster.nodes.iter().map(Into::into).collect(),
            usage: cluster.usage.unwrap_or_default().into(),
            tenant_count: cluster.tenant_count,
            start_time: time(cluster.start_time.as_ref()),
            damaged_chunk_count: cluster.damaged_chunk_count,
            restore: cluster.restore.as_ref().map(Into::into),
            warnings: &cluster.warnings,
            connections: cluster.connections.map(Into::into),
        }
    }
}
