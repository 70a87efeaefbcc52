//! What the protos promise, seen with the generated stubs alone.

use proto::error::Reason;
use proto::pb;
use proto::pb::metadata_service_client::MetadataServiceClient;
use proto::status::from_status;
use tonic::Request;
use tonic::transport::Channel;

use crate::cluster::Cluster;

pub(crate) async fn metadata_client(cluster: &Cluster) -> MetadataServiceClient<Channel> {
    MetadataServiceClient::connect(cluster.metadata_endpoint()).await.unwrap()
}

pub(crate) fn with_bearer<T>(message: T, credential: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {credential}").parse().unwrap());
    request
}

/// Calls a method with an empty message; every method's message may be empty on the wire.
async fn call_empty(endpoint: String, path: &'static str, credential: Option<&str>) -> tonic::Status {
    let channel = Channel::from_shared(endpoint).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<pb::DeleteBlobResponse, pb::DeleteBlobResponse>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    let mut request = Request::new(tokio_stream::once(pb::DeleteBlobResponse::default()));
    if let Some(credential) = credential {
        request.metadata_mut().insert("authorization", format!("Bearer {credential}").parse().unwrap());
    }
    match grpc.streaming(request, path, codec).await {
        Err(status) => status,
        Ok(answer) => answer.into_inner().message().await.expect_err("no method takes a stranger"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_method_of_any_service_answers_without_a_valid_credential() {
    let cluster = Cluster::builder().build().await;
    assert!(proto::METHOD_PATHS.len() >= 25);
    for path in proto::METHOD_PATHS {
        let to_chunk = path.contains("ChunkService/");
        let endpoint = if to_chunk { cluster.chunk_endpoint() } else { cluster.metadata_endpoint() };
        let unknown = proto::token::Token::generate(proto::token::TokenKind::Tenant, &proto::entropy::OsEntropy);
        let refusals = [
            (None, Reason::TokenMissing),
            (Some("garbage"), if to_chunk { Reason::CapabilityInvalid } else { Reason::TokenInvalid }),
            (Some(unknown.expose().as_str()), if to_chunk { Reason::CapabilityInvalid } else { Reason::TokenInvalid }),
        ]
        .map(|(credential, reason)| (credential.map(str::to_owned), reason));
        for (credential, reason) in refusals {
            let status = call_empty(endpoint.clone(), path, credential.as_deref()).await;
            assert_eq!(from_status(&status).reason, Some(reason), "{path} with {credential:?}: {status:?}");
        }
    }
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_s_token_is_no_capability_and_a_capability_is_no_token() {
    let mut cluster = Cluster::builder().build().await;
    cluster.tenant("posts", pb::Quota::default()).await;
    let mut raw = metadata_client(&cluster).await;
    let admin = std::fs::read_to_string(cluster.storage().join("admin.token")).unwrap();
    let rotate = pb::RotateTenantTokenRequest { tenant_id: "posts".to_owned(), request_id: "r".to_owned() };
    let token = raw.rotate_tenant_token(with_bearer(rotate, admin.trim())).await.unwrap().into_inner().token;
    let start = pb::StartUploadRequest { size_bytes: Some(5), ..Default::default() };
    let started = raw.start_upload(with_bearer(start, &token)).await.unwrap().into_inner();
    let plan = &started.blocks[0].chunks[0];

    let list = with_bearer(pb::ListBlobsRequest::default(), &plan.capability);
    let refused = from_status(&raw.list_blobs(list).await.unwrap_err());
    assert_eq!(refused.reason, Some(Reason::TokenInvalid));

    let mut node = pb::chunk_service_client::ChunkServiceClient::connect(plan.endpoint.clone()).await.unwrap();
    let query = || pb::QueryWriteStatusRequest { chunk_id: plan.chunk_id.clone() };
    let refused = from_status(&node.query_write_status(with_bearer(query(), &token)).await.unwrap_err());
    assert_eq!(refused.reason, Some(Reason::CapabilityInvalid));
    let accepted = node.query_write_status(with_bearer(query(), &plan.capability)).await.unwrap().into_inner();
    assert_eq!((accepted.persisted_size_bytes, accepted.complete), (0, false));

    // A write capability permits no read, and a capability for one chunk permits nothing on another.
    let read = pb::ReadChunkRequest { chunk_id: plan.chunk_id.clone(), ..Default::default() };
    let refused = from_status(&node.read_chunk(with_bearer(read, &plan.capability)).await.unwrap_err());
    assert_eq!(refused.reason, Some(Reason::CapabilityInvalid));
    let other = pb::QueryWriteStatusRequest { chunk_id: started.upload.unwrap().blob_id };
    let refused = from_status(&node.query_write_status(with_bearer(other, &plan.capability)).await.unwrap_err());
    assert_eq!(refused.reason, Some(Reason::CapabilityInvalid));
    cluster.check().await;
}
