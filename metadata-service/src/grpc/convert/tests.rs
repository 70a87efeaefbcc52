use std::collections::HashMap;

use bytes::Bytes;
use proto::entropy::SeededEntropy;
use proto::error::{Classify as _, Reason};
use proto::ids::{BlobId, NodeId, TenantId};
use proto::limits;
use proto::pb;
use proto::traffic::TrafficClass;

use super::*;
use crate::auth::Principal;
use crate::coordinator::allocate::AllocateBlocks;
use crate::coordinator::commit::CommitUpload;
use crate::coordinator::start::StartUpload;
use crate::coordinator::tenants::RegisterTenant;
use crate::error::MetadataError;
use crate::nodes::usecases::RegisterNode;
use crate::store::keys::RequestScope;
use crate::store::records::Scopes;

/// Whoever it is, by a token that allows everything.
fn by(principal: Principal) -> Caller {
    Caller { principal, key_id: None, scopes: Scopes::ALL, expire_ms: None }
}

fn tenant() -> Caller {
    by(Principal::Tenant("posts".parse().unwrap()))
}

fn blob_id() -> String {
    BlobId::generate(1, &SeededEntropy::new(1)).to_string()
}

/// The field that a refusal names.
fn refused<C, T>(caller: Caller, message: T) -> Option<&'static str>
where
    C: TryFrom<Call<T>, Error = MetadataError>,
{
    C::try_from(Call { caller, message }).err().and_then(|error| error.details().field)
}

#[test]
fn the_tenant_is_the_token_s_and_another_one_is_missing() {
    let convert = |named: &str| {
        let message = pb::GetBlobRequest { tenant_id: named.to_owned(), blob_id: blob_id() };
        <(TenantId, BlobId)>::try_from(Call { caller: tenant(), message })
    };
    assert_eq!(convert("").unwrap().0.as_str(), "posts");
    assert_eq!(convert("posts").unwrap().0.as_str(), "posts");
    let foreign = convert("images").unwrap_err();
    assert_eq!(foreign.reason(), Reason::TenantNotFound);
    assert_eq!(foreign.details().resource, Some(("tenant", "images".to_owned())), "what the caller sent");
    assert_eq!(convert("../posts").unwrap_err().details().field, Some("tenant_id"));
    let admin = Call { caller: by(Principal::Admin), message: pb::GetBlobRequest::default() };
    let past_the_check = <(TenantId, BlobId)>::try_from(admin).unwrap_err();
    assert_eq!(past_the_check.reason(), Reason::Internal);
}

#[test]
fn request_ids_of_the_admin_and_of_tenants_are_apart() {
    let scope = |caller: Caller| {
        let message = pb::RotateTenantTokenRequest { tenant_id: "posts".to_owned(), request_id: "r".to_owned() };
        RotateTenantToken::try_from(Call { caller, message }).unwrap().request.scope
    };
    assert_eq!(scope(by(Principal::Admin)), RequestScope::Admin);
    assert_eq!(scope(tenant()), RequestScope::Tenant("posts".parse().unwrap()));
}

#[test]
fn ids_have_one_form() {
    for bad in ["", "x", "../x", &blob_id().to_uppercase(), &format!("{{{}}}", blob_id()), &"0".repeat(10_240)] {
        let message = pb::GetBlobRequest { tenant_id: String::new(), blob_id: bad.to_owned() };
        assert_eq!(refused::<(TenantId, BlobId), _>(tenant(), message), Some("blob_id"), "{bad:?}");
    }
    let message = pb::RegisterTenantRequest { tenant_id: "Posts".to_owned(), ..Default::default() };
    assert_eq!(refused::<RegisterTenant, _>(by(Principal::Admin), message), Some("tenant_id"));
}

#[test]
fn what_a_writer_says_is_bounded() {
    let start = |message: pb::StartUploadRequest| refused::<(StartUpload, Option<TrafficClass>), _>(tenant(), message);
    let good = pb::StartUploadRequest {
        display_name: "n".repeat(limits::DISPLAY_NAME_BYTES_MAX),
        content_type: "c".repeat(limits::CONTENT_TYPE_BYTES_MAX),
        request_id: "r".repeat(limits::REQUEST_ID_BYTES_MAX),
        size_bytes: Some(limits::BLOB_BYTES_MAX),
        labels: HashMap::from([("k".to_owned(), "v".repeat(limits::LABEL_VALUE_BYTES_MAX))]),
        ..Default::default()
    };
    assert_eq!(start(good.clone()), None);
    let longer = |text: &str| format!("{text}x");
    assert_eq!(
        start(pb::StartUploadRequest { display_name: longer(&good.display_name), ..good.clone() }),
        Some("display_name")
    );
    assert_eq!(
        start(pb::StartUploadRequest { content_type: longer(&good.content_type), ..good.clone() }),
        Some("content_type")
    );
    assert_eq!(
        start(pb::StartUploadRequest { request_id: longer(&good.request_id), ..good.clone() }),
        Some("request_id")
    );
    let too_large = Some(limits::BLOB_BYTES_MAX + 1);
    assert_eq!(start(pb::StartUploadRequest { size_bytes: too_large, ..good.clone() }), Some("size_bytes"));
    assert_eq!(start(pb::StartUploadRequest { traffic_class: 4, ..good.clone() }), Some("traffic_class"));
    let labels = [
        HashMap::from([(String::new(), String::new())]),
        HashMap::from([("k".repeat(limits::LABEL_KEY_BYTES_MAX + 1), String::new())]),
        HashMap::from([("k".to_owned(), "v".repeat(limits::LABEL_VALUE_BYTES_MAX + 1))]),
        (0..=limits::LABELS_MAX).map(|n| (n.to_string(), String::new())).collect(),
        (0..9).map(|n| (n.to_string(), "v".repeat(limits::LABEL_VALUE_BYTES_MAX))).collect(),
    ];
    for labels in labels {
        assert_eq!(start(pb::StartUploadRequest { labels, ..good.clone() }), Some("labels"));
    }
}

#[test]
fn one_call_takes_sixteen_blocks_and_sixty_four_receipts() {
    let receipts = |count: usize| vec![Bytes::from_static(b"r"); count];
    let allocate = |block_count, count| {
        let message = pb::AllocateBlocksRequest {
            blob_id: blob_id(),
            block_count,
            receipts: receipts(count),
            ..Default::default()
        };
        refused::<(AllocateBlocks, Vec<Bytes>, Option<TrafficClass>), _>(tenant(), message)
    };
    assert_eq!(allocate(16, 64), None);
    assert_eq!(allocate(17, 0), Some("block_count"));
    assert_eq!(allocate(u32::MAX, 0), Some("block_count"));
    assert_eq!(allocate(0, 65), Some("receipts"));
    let commit = |sha256: &str, count| {
        let sha256 = sha256.to_owned();
        let message =
            pb::CommitUploadRequest { blob_id: blob_id(), sha256, receipts: receipts(count), ..Default::default() };
        refused::<(CommitUpload, Vec<Bytes>), _>(tenant(), message)
    };
    let sum = proto::checksum::Sha256::of(b"").to_string();
    assert_eq!((commit(&sum, 64), commit(&sum, 65)), (None, Some("receipts")));
    assert_eq!((commit("", 0), commit(&sum.to_uppercase(), 0)), (Some("sha256"), Some("sha256")));
}

#[test]
fn page_sizes_and_classes_out_of_bounds_are_refused() {
    let page = |page_size| {
        let message = pb::ListBlobsRequest { page_size, ..Default::default() };
        ListBlobs::try_from(Call { caller: tenant(), message })
            .map(|list| list.size)
            .map_err(|error| error.details().field)
    };
    assert_eq!((page(0), page(-1), page(i32::MAX)), (Ok(100), Err(Some("page_size")), Ok(1000)));
    let message = pb::RegisterTenantRequest { tenant_id: "posts".to_owned(), traffic_class: 9, ..Default::default() };
    assert_eq!(refused::<RegisterTenant, _>(by(Principal::Admin), message), Some("traffic_class"));
}

#[test]
fn an_endpoint_is_scheme_and_authority() {
    let entropy = SeededEntropy::new(1);
    let node_id = NodeId::generate(1, &entropy).to_string();
    let convert = |endpoint: &str| {
        let caller = by(Principal::Join(proto::token::TokenKeyId::generate(&entropy)));
        let message =
            pb::RegisterNodeRequest { node_id: node_id.clone(), endpoint: endpoint.to_owned(), ..Default::default() };
        <(proto::token::TokenKeyId, RegisterNode)>::try_from(Call { caller, message })
            .map(|(_, command)| command.endpoint)
    };
    assert_eq!(convert("http://127.0.0.1:50052/").unwrap(), "http://127.0.0.1:50052");
    assert_eq!(convert("https://node-1.example:443").unwrap(), "https://node-1.example:443");
    assert_eq!(convert("http://[::1]:50052").unwrap(), "http://[::1]:50052");
    let long = format!("http://{}", "h".repeat(limits::ENDPOINT_BYTES_MAX));
    for bad in
        ["", "127.0.0.1:50052", "ftp://a", "http://", "http://a/b", "http://a?b", "http://u:p@a", "file:///a", &long]
    {
        assert_eq!(convert(bad).unwrap_err().details().field, Some("endpoint"), "{bad:?}");
    }
}

#[test]
fn a_node_speaks_for_itself_only() {
    let entropy = SeededEntropy::new(1);
    let (own, other) = (NodeId::generate(1, &entropy), NodeId::generate(1, &entropy));
    let convert = |named: NodeId| {
        let message = pb::HeartbeatRequest {
            node_id: named.to_string(),
            endpoint: "http://a".to_owned(),
            read_only_reason: "é".repeat(10_000),
            ..Default::default()
        };
        HeartbeatOf::try_from(Call { caller: by(Principal::Node(own)), message })
    };
    assert_eq!(convert(own).unwrap().report.read_only_reason, "é".repeat(256));
    assert_eq!(convert(other).unwrap_err().reason(), Reason::ScopeMissing);
}
