//! Every method refuses whoever it is not for.

use metadata_service::auth::{ACCESS, Access};
use proto::entropy::OsEntropy;
use proto::error::Reason;
use proto::pb;
use proto::secret::SecretKey;
use proto::token::{Token, TokenKind};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};

use crate::world::{World, put, reason, refusal};

/// Calls a method by its path with an empty message and these values of `authorization`.
pub(crate) async fn call(world: &World, path: &'static str, authorization: &[&str]) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(world.channel());
    grpc.ready().await.unwrap();
    let mut request = Request::new(());
    for value in authorization {
        let value: MetadataValue<Ascii> = value.parse().unwrap();
        request.metadata_mut().append("authorization", value);
    }
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    grpc.unary(request, PathAndQuery::from_static(path), codec).await.map(|_response| ())
}

fn served() -> impl Iterator<Item = &'static str> {
    proto::METHOD_PATHS.iter().copied().filter(|path| !path.starts_with("/minitectonic.v1.ChunkService/"))
}

#[tokio::test]
async fn every_method_refuses_missing_malformed_and_unknown_credentials() {
    let world = World::new().await;
    let node = world.node().await;
    let tenant = world.tenant("posts").await;
    let blob = put(&world, &node, &tenant, "n", b"x").await;
    let layout = pb::GetBlobLayoutRequest { blob_id: blob.blob_id, ..Default::default() };
    let layout = world.metadata(&tenant).get_blob_layout(layout).await.unwrap().into_inner();
    let capability = format!("Bearer {}", layout.blocks[0].chunks[0].capability);

    let admin = format!("Bearer {}", world.admin_token().trim_end());
    let unknown = format!("Bearer {}", *Token::generate(TokenKind::Admin, &OsEntropy).expose());
    let mut flipped = admin.clone();
    flipped.pop();
    let basic = admin.replace("Bearer", "Basic");
    let naked = world.admin_token().trim_end().to_owned();
    assert!(served().count() >= 20);
    for path in served() {
        assert_eq!(reason(call(&world, path, &[]).await), Reason::TokenMissing, "{path}");
        for bad in ["", "Bearer", "Bearer x", &naked, &basic, &flipped, &unknown, &capability] {
            let refused = refusal(call(&world, path, &[bad]).await);
            assert_eq!((refused.code, refused.reason), (Code::Unauthenticated, Some(Reason::TokenInvalid)), "{path}");
        }
        assert_eq!(reason(call(&world, path, &[&admin, &admin]).await), Reason::TokenInvalid, "{path} with two");
    }
}

/// Whether a kind of token is good for methods of this access.
type GoodFor = fn(Access) -> bool;

#[tokio::test]
async fn every_method_refuses_every_kind_of_token_that_it_is_not_for() {
    let world = World::new().await;
    let node = world.node().await;
    let tenant = world.tenant("posts").await;
    let (admin, join) = (world.admin_token(), world.join_token());
    let kinds: [(&str, &str, GoodFor); 4] = [
        ("admin", &admin, |access| matches!(access, Access::Admin | Access::AdminOrTenant(_))),
        ("tenant", &tenant, |access| matches!(access, Access::Tenant(_) | Access::AdminOrTenant(_))),
        ("join", &join, |access| access == Access::Join),
        ("node", &node.token, |access| access == Access::Node),
    ];
    for path in served() {
        let access = ACCESS.iter().find(|(name, _)| *name == path).unwrap().1;
        for (kind, token, good_for) in kinds {
            let outcome = call(&world, path, &[&format!("Bearer {}", token.trim_end())]).await;
            if good_for(access) {
                let passed = outcome.map_err(|status| proto::status::from_status(&status).reason);
                assert!(!matches!(passed, Err(Some(Reason::ScopeMissing))), "{path} for {kind}");
            } else {
                let refused = refusal(outcome);
                assert_eq!((refused.code, refused.reason), (Code::PermissionDenied, Some(Reason::ScopeMissing)));
            }
        }
    }
}

/// After some hundred refusals on one connection it ended with GOAWAY, and with it calls that had nothing to do with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_bad_token_is_refused_thousands_of_times_on_one_connection_and_each_time_told_why() {
    let world = World::new().await;
    let (channel, bad) = (world.channel(), Token::generate(TokenKind::Tenant, &OsEntropy).expose().to_string());
    let refused = async |count| {
        let mut told = Vec::new();
        for _ in 0..count {
            let mut grpc = tonic::client::Grpc::new(channel.clone());
            grpc.ready().await.unwrap();
            let request = pb::ListBlobsRequest { display_name_prefix: "x".repeat(500), ..Default::default() };
            let mut request = Request::new(request);
            request.metadata_mut().insert("authorization", format!("Bearer {bad}").parse().unwrap());
            let path = PathAndQuery::from_static("/minitectonic.v1.MetadataService/ListBlobs");
            let codec = tonic_prost::ProstCodec::<pb::ListBlobsRequest, pb::ListBlobsResponse>::default();
            told.push(reason(grpc.unary(request, path, codec).await));
        }
        told
    };
    let told: Vec<Reason> = futures_util::future::join_all((0..50).map(|_| refused(100))).await.concat();
    assert_eq!(told.len(), 5_000);
    // Beyond a thousand a second the reason is another one.
    assert!(told.iter().all(|reason| matches!(reason, Reason::TokenInvalid | Reason::RateLimited)), "{told:?}");
    assert!(told.contains(&Reason::TokenInvalid));
}

#[tokio::test]
async fn a_known_key_id_with_another_secret_or_another_kind_is_unknown() {
    let world = World::new().await;
    let text = world.admin_token().trim_end().to_owned();
    let admin: Token = text.parse().unwrap();
    let other_secret = Token::new(TokenKind::Admin, admin.key_id, SecretKey::generate(&OsEntropy));
    let (body, _crc) = text.rsplit_once('.').unwrap();
    let other_kind = body.replacen("ma1", "mt1", 1);
    let other_kind = format!("{other_kind}.{:08x}", proto::checksum::crc32c(other_kind.as_bytes()));
    for (path, token) in [
        ("/minitectonic.v1.MetadataService/ListTenants", other_secret.expose().to_string()),
        ("/minitectonic.v1.MetadataService/ListBlobs", other_kind),
    ] {
        let outcome = call(&world, path, &[&format!("Bearer {token}")]).await;
        assert_eq!(reason(outcome), Reason::TokenInvalid, "{path}");
    }
}

#[tokio::test]
async fn a_method_that_does_not_exist_is_unimplemented_whoever_asks() {
    let world = World::new().await;
    let path = "/minitectonic.v1.MetadataService/NoSuchMethod";
    assert_eq!(call(&world, path, &[]).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_rotated_token_ends_with_the_second_rotation_and_a_deleted_tenant_s_at_once() {
    let world = World::new().await;
    let first = world.tenant("posts").await;
    let rotate = async |token: &str| {
        let request = pb::RotateTenantTokenRequest::default();
        world.metadata(token).rotate_tenant_token(request).await.map(|answer| answer.into_inner().token)
    };
    let list = async |token: &str| world.metadata(token).list_blobs(pb::ListBlobsRequest::default()).await;
    let second = rotate(&first).await.unwrap();
    assert!(list(&first).await.is_ok() && list(&second).await.is_ok());
    let third = rotate(&first).await.unwrap();
    assert_eq!(reason(list(&first).await), Reason::TokenInvalid);
    assert!(list(&second).await.is_ok() && list(&third).await.is_ok());
    let request = pb::DeleteTenantRequest { tenant_id: "posts".to_owned(), ..Default::default() };
    world.admin().delete_tenant(request).await.unwrap();
    assert_eq!(reason(list(&third).await), Reason::TokenInvalid);
}

#[tokio::test]
async fn an_admin_token_that_is_issued_anew_is_taken_and_the_one_before_is_not() {
    let mut world = World::new().await;
    let before = world.admin_token();
    world.restart_with(|tuning| tuning.reissue_admin_token = true).await;
    let status = pb::GetClusterStatusRequest {};
    assert_eq!(reason(world.cluster(&before).get_cluster_status(status).await), Reason::TokenInvalid);
    world.cluster(&world.admin_token()).get_cluster_status(status).await.unwrap();
}
