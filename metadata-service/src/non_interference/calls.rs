//! Calls as they pass the service's own door, and answers as a transcript keeps them.

use std::fmt::Debug;

use bytes::Bytes;
use proto::capability::{self, Capability, ChunkBinding};
use proto::checksum::Sha256;
use proto::ids::NodeId;
use proto::pb;
use proto::pb::metadata_service_client::MetadataServiceClient;
use proto::pb::metadata_service_server::MetadataServiceServer;
use proto::receipt::{self, Receipt};
use proto::status::from_status;
use tonic::{Request, Response, Status};

use super::site::Site;
use crate::grpc::authenticated::Authenticated;
use crate::grpc::metadata::MetadataHandlers;
use crate::grpc::metadata_server;

type Client = MetadataServiceClient<Authenticated<MetadataServiceServer<MetadataHandlers>>>;
pub(super) type Answer<T> = Result<Response<T>, Status>;

/// A client without a connection.
pub(super) fn client(site: &Site) -> Client {
    MetadataServiceClient::new(metadata_server(&site.service, &site.authenticator))
}

pub(super) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// What a tenant sees of an answer; nothing is left out but what the suite's module names.
pub(super) fn seen<T: Debug + Clone + Plain>(site: &Site, answer: &Answer<T>) -> String {
    match answer {
        Ok(answer) => {
            let mut message = answer.get_ref().clone();
            message.make_plain(site);
            format!("{message:?}")
        }
        Err(status) => {
            let read = from_status(status);
            let request_id = read.request_id.unwrap_or_default();
            let details = String::from_utf8_lossy(status.details()).replace(&request_id, "");
            format!("{:?} {:?} {} {details:?}", status.code(), read.reason, status.message())
        }
    }
}

/// A message with what its capabilities say in place of their bytes.
pub(super) trait Plain {
    fn make_plain(&mut self, _site: &Site) {}
}

impl Plain for pb::StartUploadResponse {
    fn make_plain(&mut self, site: &Site) {
        self.blocks.iter_mut().for_each(|block| plain_plan(site, block));
    }
}

impl Plain for pb::AllocateBlocksResponse {
    fn make_plain(&mut self, site: &Site) {
        self.blocks.iter_mut().for_each(|block| plain_plan(site, block));
    }
}

impl Plain for pb::GetBlobLayoutResponse {
    fn make_plain(&mut self, site: &Site) {
        for chunk in self.blocks.iter_mut().flat_map(|block| &mut block.chunks) {
            chunk.capability = without_sequence(site, &chunk.node_id, &chunk.capability);
        }
    }
}

impl Plain for pb::CommitUploadResponse {}
impl Plain for pb::AbortUploadResponse {}
impl Plain for pb::GetUploadResponse {}
impl Plain for pb::GetBlobResponse {}
impl Plain for pb::ListBlobsResponse {}
impl Plain for pb::DeleteBlobResponse {}
impl Plain for pb::UndeleteBlobResponse {}
impl Plain for pb::GetTenantResponse {}
impl Plain for pb::RotateTenantTokenResponse {}
impl Plain for pb::CreateTenantTokenResponse {}
impl Plain for pb::RevokeTenantTokenResponse {}
impl Plain for pb::ListTenantTokensResponse {}

fn plain_plan(site: &Site, block: &mut pb::BlockPlan) {
    for chunk in &mut block.chunks {
        chunk.capability = without_sequence(site, &chunk.node_id, &chunk.capability);
    }
}

fn without_sequence(site: &Site, node: &str, text: &str) -> String {
    let capability = read(site, node, text);
    let binding = ChunkBinding { sequence: 0, ..capability.binding };
    format!("{} letters: {:?}", text.len(), Capability { binding, ..capability })
}

fn read(site: &Site, node: &str, text: &str) -> Capability {
    let node: NodeId = node.parse().unwrap();
    let keys = [site.key(node)];
    capability::verify(text, &keys, site.service.cluster().id, node, site.now_ms(), 0).unwrap()
}

/// What the node says of a block that is full.
pub(super) fn receipt(site: &Site, blob: &str, block: &pb::BlockPlan) -> Bytes {
    let [chunk] = block.chunks.as_slice() else { panic!("a block has one chunk") };
    let node: NodeId = chunk.node_id.parse().unwrap();
    let receipt = Receipt {
        cluster: site.service.cluster().id,
        node,
        blob: blob.parse().unwrap(),
        chunk: chunk.chunk_id.parse().unwrap(),
        block: block.block_id.parse().unwrap(),
        generation: block.generation,
        size_bytes: block.max_bytes,
        sha256: Sha256::of(b"block"),
        pieces_sha256: Sha256::of(b"pieces"),
    };
    receipt::sign(&receipt, &site.key(node))
}
