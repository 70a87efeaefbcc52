//! A running service and those who speak to it.

use std::sync::Arc;

use bytes::Bytes;
use metadata_service::{Config, Deps, Running, Tuning, start};
use proto::capability::{self, Capability, NodeKey, Permit};
use proto::checksum::{ChunkHasher, Sha256};
use proto::entropy::{OsEntropy, SeededEntropy};
use proto::error::Reason;
use proto::ids::{BlobId, ClusterId, NodeId};
use proto::pb;
use proto::pb::cluster_service_client::ClusterServiceClient;
use proto::pb::metadata_service_client::MetadataServiceClient;
use proto::receipt::{self, Receipt};
use proto::runtime::{Clock as _, ManualClock, transport};
use proto::secret::SecretKey;
use proto::status::{WireError, from_status};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

pub(crate) const BLOCK: u64 = 10;

/// Adds a token to each call.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

pub(crate) type Metadata = MetadataServiceClient<InterceptedService<Channel, Bearer>>;
pub(crate) type Cluster = ClusterServiceClient<InterceptedService<Channel, Bearer>>;

/// A running service in a folder of its own, with a clock that the test sets.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    tuning: Tuning,
    running: Option<Running>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let tuning = Tuning { block_bytes: BLOCK, block_bytes_unknown_size: BLOCK, ..Tuning::default() };
        let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::at(1_800_000_000_000)));
        let mut world = Self { folder, clock, tuning, running: None };
        world.open().await;
        world
    }

    pub(crate) fn config(&self) -> Config {
        Config { tuning: self.tuning.clone(), ..Config::new(self.folder.path()) }
    }

    async fn open(&mut self) {
        let listener = transport::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let deps = Deps { clock: Arc::clone(&self.clock) as Arc<_>, entropy: Arc::new(OsEntropy) };
        self.running = Some(start(self.config(), listener, deps, CancellationToken::new()).await.unwrap());
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) async fn stop(&mut self) {
        assert!(self.running.take().unwrap().shutdown().await, "the shutdown was not clean");
    }

    /// Starts again after [`World::stop`].
    pub(crate) async fn go_on(&mut self) {
        self.open().await;
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.go_on().await;
    }

    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut Tuning)) {
        change(&mut self.tuning);
        self.restart().await;
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.running().endpoint()).unwrap().connect_lazy()
    }

    fn intercepted(&self, token: &str) -> InterceptedService<Channel, Bearer> {
        let bearer = Bearer(format!("Bearer {}", token.trim_end()).parse().unwrap());
        InterceptedService::new(self.channel(), bearer)
    }

    pub(crate) fn metadata(&self, token: &str) -> Metadata {
        MetadataServiceClient::new(self.intercepted(token))
    }

    pub(crate) fn cluster(&self, token: &str) -> Cluster {
        ClusterServiceClient::new(self.intercepted(token))
    }

    pub(crate) fn admin_token(&self) -> String {
        std::fs::read_to_string(self.running().admin_token_path()).unwrap()
    }

    pub(crate) fn join_token(&self) -> String {
        std::fs::read_to_string(self.running().join_token_path()).unwrap()
    }

    pub(crate) fn admin(&self) -> Metadata {
        self.metadata(&self.admin_token())
    }

    /// Registers a tenant and returns its token.
    pub(crate) async fn tenant(&self, tenant_id: &str) -> String {
        self.tenant_with(tenant_id, pb::Quota::default()).await
    }

    pub(crate) async fn tenant_with(&self, tenant_id: &str, quota: pb::Quota) -> String {
        let request =
            pb::RegisterTenantRequest { tenant_id: tenant_id.to_owned(), quota: Some(quota), ..Default::default() };
        self.admin().register_tenant(request).await.unwrap().into_inner().token
    }

    pub(crate) async fn usage(&self, tenant_id: &str) -> pb::Usage {
        let request = pb::GetTenantRequest { tenant_id: tenant_id.to_owned() };
        self.admin().get_tenant(request).await.unwrap().into_inner().tenant.unwrap().usage.unwrap()
    }

    /// A node that has joined and sent a heartbeat.
    pub(crate) async fn node(&self) -> FakeNode {
        let id = NodeId::generate(self.clock.now_ms(), &OsEntropy);
        let node = FakeNode::join(self, &self.join_token(), id).await.unwrap();
        node.beat(self).await.unwrap();
        node
    }
}

/// The test's own chunk service: it keeps no bytes, but signs for them.
pub(crate) struct FakeNode {
    pub(crate) id: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) key: NodeKey,
    pub(crate) token: String,
    pub(crate) joined: pb::RegisterNodeResponse,
}

pub(crate) const NODE_ENDPOINT: &str = "http://127.0.0.1:50052";

impl FakeNode {
    pub(crate) async fn join(world: &World, join_token: &str, id: NodeId) -> Result<Self, Status> {
        let request = pb::RegisterNodeRequest {
            node_id: id.to_string(),
            endpoint: NODE_ENDPOINT.to_owned(),
            failure_domain: String::new(),
        };
        let joined = world.cluster(join_token).register_node(request).await?.into_inner();
        let key = &joined.keys[0];
        let key = NodeKey { key_id: key.key_id, secret: SecretKey::from_slice(&key.secret).unwrap() };
        let (cluster, token) = (joined.cluster_id.parse().unwrap(), joined.node_token.clone());
        Ok(Self { id, cluster, key, token, joined })
    }

    pub(crate) fn heartbeat(&self) -> pb::HeartbeatRequest {
        pb::HeartbeatRequest {
            node_id: self.id.to_string(),
            endpoint: NODE_ENDPOINT.to_owned(),
            capacity_bytes: 1 << 40,
            free_bytes: 1 << 39,
            read_only_reason: String::new(),
            version: "test".to_owned(),
            workers: Vec::new(),
            class_loads: Vec::new(),
            key_ids: vec![self.key.key_id],
            connections: None,
            warnings: Vec::new(),
        }
    }

    pub(crate) async fn beat(&self, world: &World) -> Result<pb::HeartbeatResponse, Status> {
        world.cluster(&self.token).heartbeat(self.heartbeat()).await.map(Response::into_inner)
    }

    /// What a capability permits here and now.
    pub(crate) fn check(&self, world: &World, text: &str) -> Capability {
        let keys = std::slice::from_ref(&self.key);
        capability::verify(text, keys, self.cluster, self.id, world.clock.now_ms(), 0).unwrap()
    }

    /// The receipt for a chunk's bytes, signed after its capability was checked as a chunk service does.
    pub(crate) fn write(&self, world: &World, blob_id: &str, block: &pb::BlockPlan, bytes: &[u8]) -> Bytes {
        let chunk = &block.chunks[0];
        let capability = self.check(world, &chunk.capability);
        let Permit::Write { max_bytes } = capability.permit else { panic!("a plan permits to write") };
        assert!(bytes.len() as u64 <= max_bytes && max_bytes == block.max_bytes);
        assert_eq!(capability.binding.chunk.to_string(), chunk.chunk_id);
        assert_eq!(capability.binding.blob.to_string(), blob_id);
        receipt::sign(&self.receipt(&capability, bytes), &self.key)
    }

    pub(crate) fn receipt(&self, capability: &Capability, bytes: &[u8]) -> Receipt {
        let mut hasher = ChunkHasher::default();
        hasher.update(bytes);
        let sums = hasher.finish();
        Receipt {
            cluster: self.cluster,
            node: self.id,
            blob: capability.binding.blob,
            chunk: capability.binding.chunk,
            block: capability.binding.block,
            generation: capability.binding.generation,
            size_bytes: sums.size_bytes,
            sha256: sums.sha256,
            pieces_sha256: sums.pieces_sha256(),
        }
    }
}

/// Uploads a blob the way a client does, and returns it.
pub(crate) async fn put(world: &World, node: &FakeNode, token: &str, name: &str, bytes: &[u8]) -> pb::Blob {
    let mut metadata = world.metadata(token);
    let request = pb::StartUploadRequest {
        display_name: name.to_owned(),
        size_bytes: Some(bytes.len() as u64),
        ..Default::default()
    };
    let started = metadata.start_upload(request).await.unwrap().into_inner();
    let blob_id = started.upload.unwrap().blob_id;
    let blocks = started.blocks.iter().zip(bytes.chunks(started.block_size_bytes.try_into().unwrap()));
    let receipts = blocks.map(|(block, bytes)| node.write(world, &blob_id, block, bytes)).collect();
    let request = pb::CommitUploadRequest {
        blob_id,
        size_bytes: bytes.len() as u64,
        sha256: Sha256::of(bytes).to_string(),
        receipts,
        ..Default::default()
    };
    metadata.commit_upload(request).await.unwrap().into_inner().blob.unwrap()
}

/// What a refusal says.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> WireError {
    let status = result.unwrap_err();
    let read = from_status(&status);
    let reason = read.reason.unwrap_or_else(|| panic!("an error without a reason of ours: {status:?}"));
    assert_eq!(read.code, reason.kind().code());
    read
}

pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> Reason {
    refusal(result).reason.unwrap()
}

/// An id that nothing has.
pub(crate) fn nowhere() -> String {
    BlobId::generate(1, &SeededEntropy::new(4711)).to_string()
}
