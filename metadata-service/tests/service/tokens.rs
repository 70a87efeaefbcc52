//! Scopes, ends and rotation of tokens, over the wire.

use std::time::Duration;

use metadata_service::auth::{ACCESS, Access};
use proto::entropy::OsEntropy;
use proto::error::Reason;
use proto::ids::NodeId;
use proto::limits::{ADMIN_TOKEN_OVERLAP, EXPIRED_TOKEN_KEPT, JOIN_TOKEN_LIFE, TENANT_TOKENS_MAX};
use proto::pb;
use proto::pb::TokenScope;
use tonic::{Code, Status};

use crate::authentication::call;
use crate::world::{FakeNode, World, reason, refusal};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn span(time: Duration) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: i64::try_from(time.as_secs()).unwrap(), nanos: 0 })
}

fn wanted(scopes: &[TokenScope], ttl: Option<Duration>) -> pb::CreateTenantTokenRequest {
    let scopes = scopes.iter().map(|scope| (*scope).into()).collect();
    pb::CreateTenantTokenRequest { scopes, ttl: ttl.and_then(span), ..Default::default() }
}

async fn create(
    world: &World,
    maker: &str,
    request: pb::CreateTenantTokenRequest,
) -> Result<pb::CreateTenantTokenResponse, Status> {
    world.metadata(maker).create_tenant_token(request).await.map(tonic::Response::into_inner)
}

async fn made(world: &World, maker: &str, scopes: &[TokenScope], ttl: Option<Duration>) -> String {
    create(world, maker, wanted(scopes, ttl)).await.unwrap().token
}

async fn list_tokens(world: &World, token: &str) -> Vec<pb::TenantToken> {
    let listed = world.metadata(token).list_tenant_tokens(pb::ListTenantTokensRequest::default()).await;
    listed.unwrap().into_inner().tenant_tokens
}

async fn list_blobs(world: &World, token: &str) -> Result<(), Status> {
    world.metadata(token).list_blobs(pb::ListBlobsRequest::default()).await.map(drop)
}

async fn revoke(world: &World, by: &str, key_id: &str) -> Result<(), Status> {
    let request = pb::RevokeTenantTokenRequest { key_id: key_id.to_owned(), ..Default::default() };
    world.metadata(by).revoke_tenant_token(request).await.map(drop)
}

fn key_id(token: &str) -> String {
    token.split('.').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn each_method_takes_the_scope_that_it_names_and_no_other() {
    let world = World::new().await;
    let full = world.tenant("posts").await;
    for scope in [TokenScope::Read, TokenScope::Write, TokenScope::Delete, TokenScope::List] {
        let token = made(&world, &full, &[scope], None).await;
        let word = scope.as_str_name().rsplit('_').next().unwrap().to_lowercase();
        for (path, access) in ACCESS {
            let (Access::Tenant(needed) | Access::AdminOrTenant(needed)) = access else { continue };
            let outcome = call(&world, path, &[&format!("Bearer {token}")]).await;
            let missing: Vec<_> = needed.iter().filter(|needed| needed.as_str() != word).collect();
            if missing.is_empty() {
                let refused = outcome.map_err(|status| proto::status::from_status(&status).reason);
                assert!(!matches!(refused, Err(Some(Reason::ScopeMissing))), "{path} with {word}");
            } else {
                let refused = refusal(outcome);
                assert_eq!((refused.code, refused.reason), (Code::PermissionDenied, Some(Reason::ScopeMissing)));
                assert!(missing.iter().all(|scope| refused.message.contains(scope.as_str())), "{}", refused.message);
                assert!(!refused.message.contains(&format!("scope {word}")), "{path}: {}", refused.message);
            }
        }
    }
}

#[tokio::test]
async fn a_token_ends_by_the_services_clock_and_its_holder_is_told_so_for_a_week() {
    let mut world = World::new().await;
    let full = world.tenant("posts").await;
    let token = made(&world, &full, &[TokenScope::List], Some(30 * DAY)).await;
    world.clock.advance(30 * DAY - Duration::from_millis(1));
    list_blobs(&world, &token).await.unwrap();
    world.clock.advance(Duration::from_millis(1));
    let expired = refusal(list_blobs(&world, &token).await);
    assert_eq!((expired.code, expired.reason), (Code::Unauthenticated, Some(Reason::TokenExpired)));
    world.restart().await;
    assert_eq!(reason(list_blobs(&world, &token).await), Reason::TokenExpired);
    assert_eq!(list_tokens(&world, &full).await.len(), 2);

    world.clock.advance(EXPIRED_TOKEN_KEPT);
    world.running().sweep_uploads().await.unwrap();
    assert_eq!(reason(list_blobs(&world, &token).await), Reason::TokenInvalid);
    assert_eq!(list_tokens(&world, &full).await.len(), 1);
    list_blobs(&world, &full).await.unwrap();
}

#[tokio::test]
async fn a_secret_is_compared_before_anybody_is_told_that_a_token_expired() {
    let world = World::new().await;
    let full = world.tenant("posts").await;
    let token = made(&world, &full, &[], Some(DAY)).await;
    world.clock.advance(DAY);
    let real: proto::token::Token = token.parse().unwrap();
    let guessed = proto::secret::SecretKey::generate(&OsEntropy);
    let guessed = proto::token::Token::new(real.kind, real.key_id, guessed);
    assert_eq!(reason(list_blobs(&world, &guessed.expose()).await), Reason::TokenInvalid);
}

#[tokio::test]
async fn no_token_makes_another_that_may_more_or_lives_longer() {
    let world = World::new().await;
    let full = world.tenant("posts").await;
    let narrow = made(&world, &full, &[TokenScope::Read, TokenScope::Write, TokenScope::Delete], None).await;
    for scopes in [&[][..], &[TokenScope::Read]] {
        assert_eq!(reason(create(&world, &narrow, wanted(scopes, None)).await), Reason::ScopeMissing);
    }
    let rotate = pb::RotateTenantTokenRequest::default();
    assert_eq!(reason(world.metadata(&narrow).rotate_tenant_token(rotate.clone()).await), Reason::ScopeMissing);
    assert_eq!(reason(revoke(&world, &narrow, &key_id(&full)).await), Reason::ScopeMissing);

    let brief = made(&world, &full, &[], Some(2 * DAY)).await;
    world.clock.advance(DAY);
    assert_eq!(reason(create(&world, &brief, wanted(&[], Some(2 * DAY))).await), Reason::FieldInvalid);
    let bound = create(&world, &brief, wanted(&[], None)).await.unwrap();
    let maker = list_tokens(&world, &full).await.into_iter().find(|token| token.key_id == key_id(&brief)).unwrap();
    assert_eq!(bound.tenant_token.unwrap().expire_time, maker.expire_time, "absent means as long as its maker");
    let rotated = world.metadata(&brief).rotate_tenant_token(rotate).await.unwrap().into_inner().token;
    let (shorter, tokens) = (made(&world, &brief, &[], Some(DAY)).await, list_tokens(&world, &full).await);
    let main: Vec<_> = tokens.iter().filter(|token| token.main).map(|token| token.key_id.clone()).collect();
    assert_eq!(main, [key_id(&rotated), key_id(&full)]);
    world.clock.advance(DAY);
    for ended in [&brief, &bound.token, &rotated, &shorter] {
        assert_eq!(reason(list_blobs(&world, ended).await), Reason::TokenExpired);
    }
    list_blobs(&world, &full).await.unwrap();
}

#[tokio::test]
async fn a_repeat_shows_the_same_token_while_it_is_valid() {
    let world = World::new().await;
    let full = world.tenant("posts").await;
    let request = pb::CreateTenantTokenRequest { request_id: "r".to_owned(), ..wanted(&[TokenScope::Read], None) };
    let first = create(&world, &full, request.clone()).await.unwrap();
    assert_eq!(create(&world, &full, request.clone()).await.unwrap(), first);
    let other = pb::CreateTenantTokenRequest { scopes: Vec::new(), ..request.clone() };
    assert_eq!(reason(create(&world, &full, other).await), Reason::RequestIdReused);
    let token = first.tenant_token.unwrap();
    assert_eq!((token.scopes, token.main), (vec![TokenScope::Read.into()], false));
    revoke(&world, &full, &token.key_id).await.unwrap();
    assert_eq!(reason(create(&world, &full, request).await), Reason::RequestIdReused);
    assert_eq!(reason(list_blobs(&world, &first.token).await), Reason::TokenInvalid);
}

#[tokio::test]
async fn a_tenant_has_at_most_16_tokens_and_expired_ones_make_room() {
    let mut world = World::new().await;
    let full = world.tenant("posts").await;
    for _more in 0..TENANT_TOKENS_MAX - 2 {
        made(&world, &full, &[TokenScope::Read], Some(DAY)).await;
    }
    let many = refusal(create(&world, &full, wanted(&[], None)).await);
    assert_eq!((many.code, many.reason), (Code::ResourceExhausted, Some(Reason::QuotaExceeded)));
    let rotate = pb::RotateTenantTokenRequest::default();
    let second = world.metadata(&full).rotate_tenant_token(rotate.clone()).await.unwrap().into_inner().token;
    world.metadata(&full).rotate_tenant_token(rotate).await.unwrap();
    assert_eq!(list_tokens(&world, &second).await.len(), TENANT_TOKENS_MAX, "rotation always has room");
    world.clock.advance(DAY);
    world.restart().await;
    let request = pb::CreateTenantTokenRequest { tenant_id: "posts".to_owned(), ..wanted(&[], None) };
    let admin = world.admin_token();
    let token = create(&world, &admin, request).await.unwrap().token;
    assert_eq!(list_tokens(&world, &token).await.len(), 3, "all that had expired are gone");
    let delete = pb::DeleteTenantRequest { tenant_id: "posts".to_owned(), ..Default::default() };
    world.admin().delete_tenant(delete).await.unwrap();
    assert_eq!(reason(list_blobs(&world, &token).await), Reason::TokenInvalid, "its tenant is gone");
}

#[tokio::test]
async fn a_revoked_token_ends_at_once_and_another_tenants_is_as_if_it_were_not_there() {
    let world = World::new().await;
    let (posts, images) = (world.tenant("posts").await, world.tenant("images").await);
    let more = made(&world, &posts, &[], None).await;
    let foreign = refusal(revoke(&world, &images, &key_id(&more)).await);
    let missing = refusal(revoke(&world, &images, "0123456789abcdef").await);
    assert_eq!((foreign.reason, &foreign.message), (Some(Reason::FieldInvalid), &missing.message));
    for bad in ["", "x", "0123456789ABCDEF", "../../etc/passwd"] {
        assert_eq!(reason(revoke(&world, &posts, bad).await), Reason::FieldInvalid, "{bad:?}");
    }
    revoke(&world, &more, &key_id(&more)).await.unwrap();
    assert_eq!(reason(list_blobs(&world, &more).await), Reason::TokenInvalid);
    assert_eq!(reason(revoke(&world, &posts, &key_id(&more)).await), Reason::FieldInvalid, "it is gone");
    // The last one: the tenant is locked out until the admin makes it another.
    revoke(&world, &posts, &key_id(&posts)).await.unwrap();
    assert_eq!(reason(list_blobs(&world, &posts).await), Reason::TokenInvalid);
    let rotate = pb::RotateTenantTokenRequest { tenant_id: "posts".to_owned(), ..Default::default() };
    let fresh = world.admin().rotate_tenant_token(rotate).await.unwrap().into_inner().token;
    assert_eq!(list_tokens(&world, &fresh).await.len(), 1);
}

async fn rotate_admin(
    world: &World,
    by: &str,
    overlap: Option<Duration>,
) -> Result<pb::RotateAdminTokenResponse, Status> {
    let request = pb::RotateAdminTokenRequest { request_id: "r".to_owned(), overlap: overlap.and_then(span) };
    world.cluster(by).rotate_admin_token(request).await.map(tonic::Response::into_inner)
}

async fn status(world: &World, token: &str) -> Result<(), Status> {
    world.cluster(token).get_cluster_status(pb::GetClusterStatusRequest {}).await.map(drop)
}

#[tokio::test]
async fn an_admin_token_that_was_rotated_ends_after_the_overlap_and_makes_no_other() {
    let mut world = World::new().await;
    let first = world.admin_token();
    let rotated = rotate_admin(&world, &first, None).await.unwrap();
    assert!(rotated.file_written);
    assert_eq!(world.admin_token().trim_end(), rotated.token, "the file follows");
    assert_eq!(rotate_admin(&world, &first, None).await.unwrap(), rotated, "a repeat");
    let other = pb::RotateAdminTokenRequest::default();
    let refused = refusal(world.cluster(&first).rotate_admin_token(other.clone()).await);
    assert_eq!(refused.reason, Some(Reason::ScopeMissing));
    status(&world, &first).await.unwrap();
    world.clock.advance(ADMIN_TOKEN_OVERLAP);
    world.restart().await;
    assert_eq!(reason(status(&world, &first).await), Reason::TokenExpired);
    status(&world, &rotated.token).await.unwrap();
    let at_once = pb::RotateAdminTokenRequest { overlap: span(Duration::ZERO), ..other };
    let third = world.cluster(&rotated.token).rotate_admin_token(at_once).await.unwrap().into_inner();
    assert_eq!(reason(status(&world, &rotated.token).await), Reason::TokenExpired);
    status(&world, &third.token).await.unwrap();
    let long = rotate_admin(&world, &third.token, Some(8 * DAY)).await;
    assert_eq!(reason(long), Reason::FieldInvalid);
}

#[tokio::test]
async fn an_admin_token_that_was_moved_away_is_not_written_again() {
    let world = World::new().await;
    let first = world.admin_token();
    let file = world.running().admin_token_path().to_path_buf();
    std::fs::remove_file(&file).unwrap();
    assert!(!rotate_admin(&world, &first, None).await.unwrap().file_written);
    assert!(!file.try_exists().unwrap());
}

/// A rotation was durable, but the machine stopped before the file was written: the file's token was about to end, and
/// nobody had the new one.
#[tokio::test]
async fn the_next_start_writes_the_admin_token_that_a_crash_kept_from_its_file() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut world = World::new().await;
    let first = world.admin_token();
    let file = world.running().admin_token_path().to_path_buf();
    let second = rotate_admin(&world, &first, None).await.unwrap().token;
    let request = pb::RotateAdminTokenRequest::default();
    let third = world.cluster(&second).rotate_admin_token(request).await.unwrap().into_inner().token;
    proto::runtime::folder::publish(&file, first.as_bytes()).unwrap();
    world.restart().await;
    assert_eq!(world.admin_token().trim_end(), third, "two rotations later");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    status(&world, &third).await.unwrap();
}

#[tokio::test]
async fn a_join_token_of_the_admins_is_good_for_one_node_and_for_its_time() {
    let world = World::new().await;
    let create = async |request_id: &str, ttl: Option<Duration>| {
        let request = pb::CreateJoinTokenRequest { request_id: request_id.to_owned(), ttl: ttl.and_then(span) };
        world.cluster(&world.admin_token()).create_join_token(request).await.map(|made| made.into_inner().token)
    };
    let (first, late) = (create("a", None).await.unwrap(), create("b", None).await.unwrap());
    assert_eq!(create("a", None).await.unwrap(), first, "a repeat");
    assert_ne!(first, late);
    let ids = [1, 2].map(|_node| NodeId::generate(1, &OsEntropy));
    let one = FakeNode::join(&world, &first, ids[0]).await.unwrap();
    FakeNode::join(&world, &first, ids[0]).await.unwrap();
    let join = async |token: &str| FakeNode::join(&world, token, ids[1]).await.map(drop);
    assert_eq!(reason(join(&first).await), Reason::ScopeMissing);
    world.clock.advance(JOIN_TOKEN_LIFE);
    assert_eq!(reason(join(&late).await), Reason::TokenExpired);
    one.beat(&world).await.unwrap();
    for bad in [Duration::ZERO, 31 * DAY] {
        assert_eq!(reason(create("c", Some(bad)).await), Reason::FieldInvalid);
    }
    let by_tenant = world.tenant("posts").await;
    let refused = world.cluster(&by_tenant).create_join_token(pb::CreateJoinTokenRequest::default()).await;
    assert_eq!(reason(refused), Reason::ScopeMissing);
}

#[tokio::test]
async fn without_authentication_the_request_says_which_tenant_and_nodes_keep_to_their_tokens() {
    let mut world = World::new().await;
    let posts = world.tenant("posts").await;
    world.restart_with(|tuning| tuning.insecure_no_auth = true).await;
    let node = world.node().await;
    let list = async |tenant_id: &str, token: &str| {
        let request = pb::ListBlobsRequest { tenant_id: tenant_id.to_owned(), ..Default::default() };
        world.metadata(token).list_blobs(request).await.map(drop)
    };
    for token in ["nonsense", &posts] {
        list("posts", token).await.unwrap();
        assert_eq!(reason(list("", token).await), Reason::FieldInvalid);
    }
    let path = "/minitectonic.v1.ClusterService/GetClusterStatus";
    call(&world, path, &[]).await.unwrap();
    let status = world.cluster("x").get_cluster_status(pb::GetClusterStatusRequest {}).await.unwrap().into_inner();
    assert!(status.warnings.iter().any(|warning| warning.contains("authentication is off")), "{:?}", status.warnings);
    // The admin's request ids and each tenant's are apart, as ever.
    let start = async |tenant_id: &str| {
        let request = pb::StartUploadRequest {
            tenant_id: tenant_id.to_owned(),
            request_id: "r".to_owned(),
            size_bytes: Some(1),
            ..Default::default()
        };
        world.metadata("x").start_upload(request).await.map(|started| started.into_inner().upload.unwrap().blob_id)
    };
    world.tenant("images").await;
    assert_ne!(start("posts").await.unwrap(), start("images").await.unwrap());
    assert_eq!(start("posts").await.unwrap(), start("posts").await.unwrap());
    assert_eq!(reason(start("nobody").await), Reason::TenantNotFound);
    assert_eq!(reason(world.cluster("x").heartbeat(node.heartbeat()).await), Reason::TokenInvalid);
    assert_eq!(reason(rotate_admin(&world, "x", None).await), Reason::ScopeMissing);
    node.beat(&world).await.unwrap();
    world.restart_with(|tuning| tuning.insecure_no_auth = false).await;
    assert_eq!(reason(call(&world, path, &[]).await), Reason::TokenMissing);
}
