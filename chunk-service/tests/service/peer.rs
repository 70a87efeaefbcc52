//! A metadata service as a chunk service sees it: ClusterService on a socket, and the mint of capabilities.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use proto::capability::{self, Capability, ChunkBinding, NodeKey, Permit, ReadClaims};
use proto::checksum::{ChunkHasher, ChunkSums};
use proto::entropy::{Entropy as _, OsEntropy};
use proto::error::{Classify, Reason};
use proto::ids::{BlobId, BlockId, ChunkId, ClusterId, NodeId};
use proto::pb;
use proto::pb::cluster_service_server::{ClusterService, ClusterServiceServer};
use proto::rates::Pace;
use proto::runtime::tls::Tls;
use proto::runtime::transport::{self, Door, Gate, TransportLimits};
use proto::runtime::{Clock as _, SystemClock, TaskGroup};
use proto::secret::SecretKey;
use proto::status::to_status;
use proto::token::{Token, TokenKind};
use proto::traffic::TrafficClass;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// What the peer knows and does.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cluster: ClusterId,
    secret: SecretKey,
    pub(crate) join: Token,
    /// The node that used the join token, and its token.
    pub(crate) node: Option<(NodeId, Token)>,
    pub(crate) heartbeats: Vec<pb::HeartbeatRequest>,
    pub(crate) reports: Vec<pb::ChunkReport>,
    pub(crate) described: HashMap<ChunkId, pb::DescribeChunkResponse>,
    pub(crate) asked: Vec<ChunkId>,
    /// Chunks that were reported missing or damaged, and not sound since.
    pub(crate) damaged: BTreeSet<ChunkId>,
    /// Added to the time that it tells, in milliseconds.
    pub(crate) time_offset_ms: i64,
    /// When set, every call fails with it.
    pub(crate) fails_with: Option<Reason>,
    pub(crate) interval_ms: u64,
}

/// A peer; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Peer(Arc<Mutex<State>>);

#[derive(Debug, thiserror::Error)]
#[error("as the test wants it")]
struct Planned(Reason);

impl Classify for Planned {
    fn reason(&self) -> Reason {
        self.0
    }
}

/// A peer that listens.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskGroup,
}

impl Listening {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        assert!(self.tasks.shutdown(std::time::Duration::from_secs(20)).await);
    }
}

impl Peer {
    pub(crate) fn new() -> Self {
        let state = State {
            cluster: ClusterId::generate(1, &OsEntropy),
            secret: SecretKey::generate(&OsEntropy),
            join: Token::generate(TokenKind::Join, &OsEntropy),
            node: None,
            heartbeats: Vec::new(),
            reports: Vec::new(),
            described: HashMap::new(),
            asked: Vec::new(),
            damaged: BTreeSet::new(),
            time_offset_ms: 0,
            fails_with: None,
            interval_ms: 20,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) async fn listen(&self, address: SocketAddr) -> Listening {
        let listener = transport::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskGroup::new());
        let router = transport::server().add_service(ClusterServiceServer::new(self.clone()));
        let stopped = stop.clone();
        tasks.spawn("peer", async move {
            let gate = Gate::new(TransportLimits::default());
            let tls = Tls::off(Arc::new(SystemClock));
            let door = Door { listener, gate, tls, background: None, drain: std::time::Duration::ZERO };
            transport::serve(router, door, stopped).await;
        });
        Listening { address, stop, tasks }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        SystemClock.now_ms().checked_add_signed(self.state().time_offset_ms).unwrap()
    }

    pub(crate) fn key(&self, key_id: u32) -> NodeKey {
        let state = self.state();
        NodeKey::derive(&state.secret, state.node.as_ref().unwrap().0, key_id)
    }

    /// A new chunk's place.
    pub(crate) fn place() -> ChunkBinding {
        ChunkBinding {
            chunk: ChunkId::generate(SystemClock.now_ms(), &OsEntropy),
            block: BlockId::generate(1, &OsEntropy),
            blob: BlobId::generate(1, &OsEntropy),
            shard_index: 0,
            shard_count: 1,
            generation: 1,
            epoch: 1,
            sequence: 42,
        }
    }

    pub(crate) fn capability(&self, binding: ChunkBinding, permit: Permit) -> Capability {
        let now_ms = self.now_ms();
        let state = self.state();
        let (cluster, node) = (state.cluster, state.node.as_ref().unwrap().0);
        let tenant = Some("posts".parse().unwrap());
        let (class, expire_ms) = (TrafficClass::Silver, now_ms + 900_000);
        Capability {
            cluster,
            node,
            tenant,
            class,
            pace: Pace::default(),
            permit,
            binding,
            not_before_ms: now_ms,
            expire_ms,
        }
    }

    pub(crate) fn sign(&self, capability: &Capability) -> String {
        let mut nonce = [0; 8];
        OsEntropy.fill(&mut nonce);
        capability::sign(capability, &self.key(1), nonce)
    }

    pub(crate) fn may_write(&self, binding: ChunkBinding, max_bytes: u64) -> String {
        self.sign(&self.capability(binding, Permit::Write { max_bytes }))
    }

    pub(crate) fn may_read(&self, binding: ChunkBinding, bytes: &[u8]) -> String {
        self.sign(&self.capability(binding, Permit::Read(claims(bytes))))
    }

    pub(crate) fn may_verify(&self, binding: ChunkBinding, bytes: &[u8]) -> String {
        self.sign(&self.capability(binding, Permit::Verify(claims(bytes))))
    }

    pub(crate) fn may_list(&self) -> String {
        self.sign(&self.capability(ChunkBinding::none(), Permit::List))
    }

    pub(crate) fn may_delete(&self, binding: ChunkBinding) -> String {
        self.sign(&self.capability(binding, Permit::Delete))
    }

    /// Plans a chunk, as StartUpload would.
    pub(crate) fn open(&self, place: &ChunkBinding) {
        let answer = pb::DescribeChunkResponse {
            block_id: place.block.to_string(),
            blob_id: place.blob.to_string(),
            shard_index: place.shard_index,
            shard_count: place.shard_count,
            generation: place.generation,
            epoch: place.epoch,
            sequence: place.sequence,
            ..with_state(pb::ChunkState::Open)
        };
        self.state().described.insert(place.chunk, answer);
    }

    /// Seals a chunk with these bytes, as CommitUpload would.
    pub(crate) fn seal(&self, place: &ChunkBinding, bytes: &[u8]) {
        self.open(place);
        let claims = claims(bytes);
        let mut state = self.state();
        let answer = state.described.get_mut(&place.chunk).unwrap();
        answer.set_state(pb::ChunkState::Sealed);
        answer.size_bytes = claims.size_bytes;
        answer.sha256 = claims.sha256.to_string();
        answer.pieces_sha256 = claims.pieces_sha256.to_string();
    }

    fn check(&self, metadata: &tonic::metadata::MetadataMap, expected: Option<&Token>) -> Result<(), Status> {
        if let Some(reason) = self.state().fails_with {
            return Err(to_status(&Planned(reason)));
        }
        let sent = metadata.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let good = expected.is_some_and(|token| sent == format!("Bearer {}", token.expose().as_str()));
        if good { Ok(()) } else { Err(to_status(&Planned(Reason::TokenInvalid))) }
    }

    fn check_node(&self, metadata: &tonic::metadata::MetadataMap) -> Result<(), Status> {
        let token = self.state().node.as_ref().map(|(_, token)| token.clone());
        self.check(metadata, token.as_ref())
    }

    fn server_time(&self) -> Option<prost_types::Timestamp> {
        let now_ms = i64::try_from(self.now_ms()).unwrap();
        let nanos = i32::try_from(now_ms % 1000).unwrap() * 1_000_000;
        Some(prost_types::Timestamp { seconds: now_ms / 1000, nanos })
    }
}

fn with_state(state: pb::ChunkState) -> pb::DescribeChunkResponse {
    let mut answer = pb::DescribeChunkResponse::default();
    answer.set_state(state);
    answer
}

/// Everything that is known of these bytes.
pub(crate) fn sums(bytes: &[u8]) -> ChunkSums {
    let mut hasher = ChunkHasher::default();
    hasher.update(bytes);
    hasher.finish()
}

pub(crate) fn claims(bytes: &[u8]) -> ReadClaims {
    let sums = sums(bytes);
    ReadClaims { size_bytes: sums.size_bytes, sha256: sums.sha256, pieces_sha256: sums.pieces_sha256() }
}

#[tonic::async_trait]
impl ClusterService for Peer {
    type CheckClusterStream = tokio_stream::Empty<Result<pb::CheckClusterResponse, Status>>;
    type ExportMetadataStream = tokio_stream::Empty<Result<pb::ExportMetadataResponse, Status>>;

    async fn register_node(
        &self,
        request: Request<pb::RegisterNodeRequest>,
    ) -> Result<Response<pb::RegisterNodeResponse>, Status> {
        let join = self.state().join.clone();
        self.check(request.metadata(), Some(&join))?;
        let node: NodeId = request.get_ref().node_id.parse().unwrap();
        let server_time = self.server_time();
        let mut state = self.state();
        let held = state.node.get_or_insert_with(|| (node, Token::generate(TokenKind::Node, &OsEntropy)));
        if held.0 != node {
            return Err(to_status(&Planned(Reason::ScopeMissing)));
        }
        let node_token = held.1.expose().to_string();
        let keys = [1, 2].map(|key_id| {
            let NodeKey { key_id, secret } = NodeKey::derive(&state.secret, node, key_id);
            pb::NodeKey { key_id, secret: secret.expose().to_vec().into() }
        });
        Ok(Response::new(pb::RegisterNodeResponse {
            cluster_id: state.cluster.to_string(),
            keys: keys.to_vec(),
            node_token,
            server_time,
            heartbeat_interval_ms: state.interval_ms,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        self.check_node(request.metadata())?;
        let server_time = self.server_time();
        let mut state = self.state();
        state.heartbeats.push(request.into_inner());
        Ok(Response::new(pb::HeartbeatResponse {
            server_time,
            heartbeat_interval_ms: state.interval_ms,
            worker_settings: Vec::new(),
            hold_key_ids: Vec::new(),
            keys: Vec::new(),
        }))
    }

    async fn describe_chunk(
        &self,
        request: Request<pb::DescribeChunkRequest>,
    ) -> Result<Response<pb::DescribeChunkResponse>, Status> {
        let chunk: ChunkId = request.get_ref().chunk_id.parse().unwrap();
        self.state().asked.push(chunk);
        self.check_node(request.metadata())?;
        let answer = self.state().described.get(&chunk).cloned();
        Ok(Response::new(answer.unwrap_or_else(|| with_state(pb::ChunkState::Unknown))))
    }

    async fn list_nodes(
        &self,
        _request: Request<pb::ListNodesRequest>,
    ) -> Result<Response<pb::ListNodesResponse>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn get_cluster_status(
        &self,
        _request: Request<pb::GetClusterStatusRequest>,
    ) -> Result<Response<pb::GetClusterStatusResponse>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn report_chunks(
        &self,
        request: Request<pb::ReportChunksRequest>,
    ) -> Result<Response<pb::ReportChunksResponse>, Status> {
        self.check_node(request.metadata())?;
        let mut state = self.state();
        for report in request.into_inner().reports {
            let chunk: ChunkId = report.chunk_id.parse().unwrap();
            match report.condition() {
                pb::ChunkCondition::Sound
                | pb::ChunkCondition::Rebuilt
                | pb::ChunkCondition::ChecksumFileBad
                | pb::ChunkCondition::ChecksumFileTooNew => {
                    state.damaged.remove(&chunk);
                }
                pb::ChunkCondition::Corrupt | pb::ChunkCondition::Missing | pb::ChunkCondition::Unreadable => {
                    state.damaged.insert(chunk);
                }
                pb::ChunkCondition::Unspecified => panic!("a report says how a chunk is"),
            }
            state.reports.push(report);
        }
        Ok(Response::new(pb::ReportChunksResponse {}))
    }

    async fn list_node_chunks(
        &self,
        request: Request<pb::ListNodeChunksRequest>,
    ) -> Result<Response<pb::ListNodeChunksResponse>, Status> {
        self.check_node(request.metadata())?;
        let pb::ListNodeChunksRequest { after_chunk_id, page_size, .. } = request.into_inner();
        let size = if page_size == 0 { 100 } else { usize::try_from(page_size).unwrap() };
        let state = self.state();
        let mut ids: Vec<_> = state.described.keys().copied().collect();
        ids.sort();
        let behind = |chunk: &ChunkId| after_chunk_id.is_empty() || chunk.to_string() > after_chunk_id;
        let mut page: Vec<_> = ids.into_iter().filter(behind).take(size + 1).collect();
        let more = page.len() > size;
        page.truncate(size);
        let next_after_chunk_id = page.last().filter(|_| more).map(ToString::to_string).unwrap_or_default();
        let chunk = |chunk: &ChunkId| pb::NodeChunk {
            chunk_id: chunk.to_string(),
            description: state.described.get(chunk).cloned(),
            damaged: state.damaged.contains(chunk),
        };
        let sealed = |one: &pb::NodeChunk| one.description.as_ref().unwrap().state() == pb::ChunkState::Sealed;
        let chunks = page.iter().map(chunk).filter(sealed).collect();
        Ok(Response::new(pb::ListNodeChunksResponse { chunks, next_after_chunk_id }))
    }

    async fn list_damaged_chunks(
        &self,
        _request: Request<pb::ListDamagedChunksRequest>,
    ) -> Result<Response<pb::ListDamagedChunksResponse>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn list_workers(
        &self,
        _request: Request<pb::ListWorkersRequest>,
    ) -> Result<Response<pb::ListWorkersResponse>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn update_worker(
        &self,
        _request: Request<pb::UpdateWorkerRequest>,
    ) -> Result<Response<pb::UpdateWorkerResponse>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn run_worker(
        &self,
        _request: Request<pb::RunWorkerRequest>,
    ) -> Result<Response<pb::RunWorkerResponse>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn end_restore(
        &self,
        _request: Request<pb::EndRestoreRequest>,
    ) -> Result<Response<pb::EndRestoreResponse>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn check_cluster(
        &self,
        _request: Request<pb::CheckClusterRequest>,
    ) -> Result<Response<Self::CheckClusterStream>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn export_metadata(
        &self,
        _request: Request<pb::ExportMetadataRequest>,
    ) -> Result<Response<Self::ExportMetadataStream>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn rotate_admin_token(
        &self,
        _request: Request<pb::RotateAdminTokenRequest>,
    ) -> Result<Response<pb::RotateAdminTokenResponse>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn rotate_node_keys(
        &self,
        _request: Request<pb::RotateNodeKeysRequest>,
    ) -> Result<Response<pb::RotateNodeKeysResponse>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }

    async fn create_join_token(
        &self,
        _request: Request<pb::CreateJoinTokenRequest>,
    ) -> Result<Response<pb::CreateJoinTokenResponse>, Status> {
        Err(to_status(&Planned(Reason::ScopeMissing)))
    }
}
