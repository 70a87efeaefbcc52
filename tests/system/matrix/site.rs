//! Two tenants with one of everything, the credentials of everybody, and the services that know them.

use std::sync::Arc;
use std::time::Duration;

use mini_tectonic_client::Client;
use proto::capability::{self, Capability, NodeKey};
use proto::entropy::OsEntropy;
use proto::ids::{BlobId, ChunkId, ClusterId, NodeId, TenantId};
use proto::pb;
use proto::pb::cluster_service_client::ClusterServiceClient;
use proto::pb::metadata_service_client::MetadataServiceClient;
use proto::runtime::clock::{Clock as _, ManualClock, SystemClock};
use proto::secret::SecretKey;
use proto::token::{Token, TokenKind};
use tonic::transport::Channel;

use crate::cluster::{Cluster, content, put};
use crate::contract::with_bearer;

/// What one tenant has.
pub(super) struct Household {
    pub(super) id: TenantId,
    pub(super) token: String,
    /// Committed, with bytes.
    pub(super) blob: pb::Blob,
    pub(super) deleted: BlobId,
    /// To be deleted when that is permitted.
    pub(super) doomed: BlobId,
    /// Open, with one block that is planned.
    pub(super) upload: pb::StartUploadResponse,
    /// Open and empty: it can be committed.
    pub(super) empty_upload: String,
    /// To be aborted when that is permitted.
    pub(super) doomed_upload: String,
    pub(super) aborted_upload: String,
    pub(super) page_token: String,
    /// Of its committed blob's only chunk.
    pub(super) location: pb::ChunkLocation,
    /// A permission to read a chunk that was deleted since.
    pub(super) gone: pb::ChunkLocation,
}

/// Tokens that were good once, or are good for something else.
pub(super) struct Keys {
    pub(super) admin: String,
    pub(super) expired_admin: String,
    pub(super) expired: String,
    pub(super) revoked: String,
    pub(super) of_deleted_tenant: String,
    pub(super) join: String,
    pub(super) expired_join: String,
    pub(super) node: String,
    pub(super) other_node: String,
    /// Of the owner, with these scopes only.
    pub(super) scoped: Vec<(pb::TokenScope, String)>,
    /// Of the owner, to be revoked when that is permitted: by the admin, and by the tenant.
    pub(super) spare: [String; 2],
}

pub(super) struct Site {
    cluster: Cluster,
    pub(super) clock: Arc<ManualClock>,
    metadata: Channel,
    chunk: Channel,
    pub(super) owner: Household,
    pub(super) stranger: Household,
    pub(super) keys: Keys,
    pub(super) node: NodeId,
    pub(super) other_node: NodeId,
    pub(super) cluster_id: ClusterId,
    pub(super) node_key: NodeKey,
    pub(super) tenants_page_token: String,
}

pub(super) const DELETED_TENANT: &str = "gone-now";
pub(super) const EMPTY_TENANT: &str = "emptied";

fn bearer<T>(message: T, token: &str) -> tonic::Request<T> {
    with_bearer(message, token)
}

pub(super) fn key_id(token: &str) -> String {
    token.split('.').nth(1).unwrap().to_owned()
}

async fn start(channel: &Channel, token: &str, size_bytes: u64) -> pb::StartUploadResponse {
    let request = pb::StartUploadRequest { size_bytes: Some(size_bytes), ..Default::default() };
    MetadataServiceClient::new(channel.clone()).start_upload(bearer(request, token)).await.unwrap().into_inner()
}

async fn location(channel: &Channel, token: &str, blob: BlobId) -> pb::ChunkLocation {
    let request = pb::GetBlobLayoutRequest { blob_id: blob.to_string(), ..Default::default() };
    let layout = MetadataServiceClient::new(channel.clone()).get_blob_layout(bearer(request, token)).await;
    layout.unwrap().into_inner().blocks.remove(0).chunks.remove(0)
}

fn id_of(upload: &pb::StartUploadResponse) -> String {
    upload.upload.as_ref().unwrap().blob_id.clone()
}

impl Household {
    async fn furnish(cluster: &Cluster, channel: &Channel, client: &Client) -> Self {
        let tenant = client.get_tenant(None).await.unwrap().tenant_id;
        // Not the main token: that ends when it is rotated twice.
        let token = made(&cluster.admin(), &tenant.parse().unwrap(), &[]).await;
        let mut metadata = MetadataServiceClient::new(channel.clone());
        let mut blobs = Vec::new();
        for seed in 0..4 {
            blobs.push(put(client, "of the matrix", &content(100, seed)).await.blob_id);
        }
        let gone = location(channel, &token, blobs[3]).await;
        client.delete_blob(blobs[1]).await.unwrap();
        client.delete_blob(blobs[3]).await.unwrap();
        let request = pb::GetBlobRequest { blob_id: blobs[0].to_string(), ..Default::default() };
        let blob = metadata.get_blob(bearer(request, &token)).await.unwrap().into_inner().blob.unwrap();
        let aborted_upload = id_of(&start(channel, &token, 100).await);
        let request = pb::AbortUploadRequest { blob_id: aborted_upload.clone(), ..Default::default() };
        metadata.abort_upload(bearer(request, &token)).await.unwrap();
        let request = pb::ListBlobsRequest { page_size: 1, ..Default::default() };
        let page_token = metadata.list_blobs(bearer(request, &token)).await.unwrap().into_inner().next_page_token;
        assert!(!page_token.is_empty());
        Self {
            id: tenant.parse().unwrap(),
            blob,
            deleted: blobs[1],
            doomed: blobs[2],
            upload: start(channel, &token, 100).await,
            empty_upload: id_of(&start(channel, &token, 0).await),
            doomed_upload: id_of(&start(channel, &token, 100).await),
            aborted_upload,
            page_token,
            location: location(channel, &token, blobs[0]).await,
            gone,
            token,
        }
    }
}

impl Keys {
    async fn make(cluster: &Cluster, clock: &ManualClock, owner: &TenantId) -> Self {
        let first = cluster.admin();
        let hour = Some(Duration::from_secs(3600));
        let deleted: TenantId = DELETED_TENANT.parse().unwrap();
        let of_deleted_tenant = first.register_tenant(&deleted, pb::Quota::default()).await.unwrap().token.to_string();
        first.delete_tenant(&deleted).await.unwrap();
        let expired_join = first.create_join_token(hour).await.unwrap().token.to_string();
        let expired = first.create_tenant_token(Some(owner), &[], hour).await.unwrap().token.to_string();
        let revoked = first.create_tenant_token(Some(owner), &[], None).await.unwrap().token.to_string();
        first.revoke_tenant_token(Some(owner), &key_id(&revoked)).await.unwrap();
        let expired_admin = cluster.admin_token();
        first.rotate_admin_token(hour).await.unwrap();
        clock.advance(Duration::from_secs(3601));
        let admin = cluster.admin();
        let mut scoped = Vec::new();
        for scope in [pb::TokenScope::Read, pb::TokenScope::Write, pb::TokenScope::Delete, pb::TokenScope::List] {
            scoped.push((scope, made(&admin, owner, &[scope]).await));
        }
        Self {
            admin: cluster.admin_token(),
            expired_admin,
            expired,
            revoked,
            of_deleted_tenant,
            join: admin.create_join_token(None).await.unwrap().token.to_string(),
            expired_join,
            node: line(cluster, "token="),
            other_node: String::new(),
            scoped,
            spare: [made(&admin, owner, &[]).await, made(&admin, owner, &[]).await],
        }
    }
}

async fn made(admin: &Client, tenant: &TenantId, scopes: &[pb::TokenScope]) -> String {
    admin.create_tenant_token(Some(tenant), scopes, None).await.unwrap().token.to_string()
}

/// What the node's own file says.
fn line(cluster: &Cluster, begins: &str) -> String {
    let text = std::fs::read_to_string(cluster.chunks_folder().join("node.key")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(begins)).unwrap().to_owned()
}

fn node_key(cluster: &Cluster) -> NodeKey {
    let line = line(cluster, "key=");
    let (key_id, secret) = line.split_once(':').unwrap();
    let bytes: Vec<u8> =
        (0..secret.len()).step_by(2).map(|at| u8::from_str_radix(&secret[at..at + 2], 16).unwrap()).collect();
    NodeKey { key_id: key_id.parse().unwrap(), secret: SecretKey::from_slice(&bytes).unwrap() }
}

impl Site {
    pub(super) async fn new() -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now_ms()));
        let mut cluster = Cluster::builder().clock(Arc::<ManualClock>::clone(&clock)).build().await;
        let metadata = connect(cluster.metadata_endpoint()).await;
        // The times of tokens pass before there are uploads, whose leases would be over.
        let owner = cluster.tenant("owner", pb::Quota::default()).await;
        let stranger = cluster.tenant("stranger", pb::Quota::default()).await;
        let mut keys = Keys::make(&cluster, &clock, &"owner".parse().unwrap()).await;
        // A start tells the chunk service the time, which has jumped for it.
        cluster.restart_chunk().await;
        let owner = Household::furnish(&cluster, &metadata, &owner).await;
        let stranger = Household::furnish(&cluster, &metadata, &stranger).await;
        cluster.admin().register_tenant(&EMPTY_TENANT.parse().unwrap(), pb::Quota::default()).await.unwrap();
        let other_node = NodeId::generate(1, &OsEntropy);
        keys.other_node = join(&metadata, &keys.join, other_node).await;
        let request = bearer(pb::ListTenantsRequest { page_size: 1, ..Default::default() }, &keys.admin);
        let tenants = MetadataServiceClient::new(metadata.clone()).list_tenants(request).await.unwrap().into_inner();
        let site = Self {
            chunk: connect(cluster.chunk_endpoint()).await,
            metadata,
            owner,
            stranger,
            keys,
            node: line(&cluster, "node=").parse().unwrap(),
            other_node,
            cluster_id: line(&cluster, "cluster=").parse().unwrap(),
            node_key: node_key(&cluster),
            tenants_page_token: tenants.next_page_token,
            clock,
            cluster,
        };
        site.delete_the_chunks_that_are_gone().await;
        site
    }

    /// Everything that must hold of a cluster, under tokens that are good again.
    pub(super) async fn finish(mut self) {
        for tenant in ["owner", "stranger"] {
            self.cluster.known_tenant(tenant).await;
        }
        self.cluster.check().await;
    }

    /// A new connection to whoever serves this method.
    pub(super) async fn connect(&self, path: &str) -> Channel {
        let to_chunk = path.contains("ChunkService/");
        connect(if to_chunk { self.cluster.chunk_endpoint() } else { self.cluster.metadata_endpoint() }).await
    }

    pub(super) fn chunk_endpoint(&self) -> String {
        self.cluster.chunk_endpoint()
    }

    /// A token as another cluster would have made it.
    pub(super) fn unknown(kind: TokenKind) -> String {
        Token::generate(kind, &OsEntropy).expose().to_string()
    }

    /// What a capability of this site says.
    pub(super) fn read(&self, text: &str) -> Capability {
        let keys = std::slice::from_ref(&self.node_key);
        capability::verify(text, keys, self.cluster_id, self.node, self.clock.now_ms(), 0).unwrap()
    }

    async fn delete_the_chunks_that_are_gone(&self) {
        for gone in [&self.owner.gone, &self.stranger.gone] {
            let chunk: ChunkId = gone.chunk_id.parse().unwrap();
            assert_eq!(self.read(&gone.capability).binding.chunk, chunk);
            let capability = super::capabilities::of(self, &gone.capability, capability::Permit::Delete);
            let request = pb::DeleteChunkRequest { chunk_id: gone.chunk_id.clone() };
            let mut chunks = pb::chunk_service_client::ChunkServiceClient::new(self.chunk.clone());
            chunks.delete_chunk(bearer(request, &capability)).await.unwrap();
        }
    }

    /// What there is, as the operator and both tenants see it.
    pub(super) async fn everything(&self) -> Vec<String> {
        let mut metadata = MetadataServiceClient::new(self.metadata.clone());
        let mut seen = Vec::new();
        let request = bearer(pb::ListTenantsRequest::default(), &self.keys.admin);
        seen.push(format!("{:?}", metadata.list_tenants(request).await.unwrap().into_inner()));
        for house in [&self.owner, &self.stranger] {
            for deleted in [false, true] {
                let request = bearer(pb::ListBlobsRequest { deleted, ..Default::default() }, &house.token);
                seen.push(format!("{:?}", metadata.list_blobs(request).await.unwrap().into_inner()));
            }
            let request = bearer(pb::ListTenantTokensRequest::default(), &house.token);
            seen.push(format!("{:?}", metadata.list_tenant_tokens(request).await.unwrap().into_inner()));
        }
        let mut cluster = ClusterServiceClient::new(self.metadata.clone());
        let workers = cluster.list_workers(bearer(pb::ListWorkersRequest {}, &self.keys.admin)).await.unwrap();
        let own = workers.into_inner().workers.into_iter().filter(|worker| worker.node_id.is_empty());
        seen.extend(own.map(|worker| format!("{} {}", worker.name, worker.paused)));
        let mut files: Vec<_> = std::fs::read_dir(self.cluster.chunks_folder()).unwrap().collect();
        files.sort_by_key(|file| file.as_ref().unwrap().file_name());
        seen.extend(files.into_iter().map(|file| format!("{:?}", file.unwrap().file_name())));
        seen
    }
}

async fn connect(endpoint: String) -> Channel {
    Channel::from_shared(endpoint).unwrap().connect().await.unwrap()
}

async fn join(metadata: &Channel, token: &str, node: NodeId) -> String {
    let request =
        pb::RegisterNodeRequest { node_id: node.to_string(), endpoint: ENDPOINT.to_owned(), ..Default::default() };
    let joined = ClusterServiceClient::new(metadata.clone()).register_node(bearer(request, token)).await.unwrap();
    joined.into_inner().node_token
}

/// Where the other node says that it is; nobody listens there, and it never sends a heartbeat.
pub(super) const ENDPOINT: &str = "http://127.0.0.1:1";
