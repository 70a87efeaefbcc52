//! What goes on record, and what a full disk stops.

use metadata_service::auth::{ACCESS, Access};
use proto::error::Reason;
use proto::pb;

use crate::authentication::call;
use crate::world::{World, put, reason, refusal};

fn log(world: &World) -> std::path::PathBuf {
    world.folder.path().join("metadata/audit.log")
}

fn lines(world: &World) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(log(world)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn last(world: &World) -> serde_json::Value {
    lines(world).pop().unwrap()
}

#[tokio::test]
async fn every_call_of_the_operator_leaves_a_line_whatever_comes_of_it() {
    let world = World::new().await;
    let token = world.admin_token();
    let bearer = format!("Bearer {}", token.trim_end());
    let key_id = token.split('.').nth(1).unwrap();
    for (path, access) in ACCESS {
        if !matches!(access, Access::Admin | Access::AdminOrTenant(_)) || path.ends_with("RotateAdminToken") {
            continue;
        }
        let before = lines(&world).len();
        call(&world, path, &[&bearer]).await.ok();
        let line = last(&world);
        assert_eq!((lines(&world).len(), line["method"].as_str()), (before + 1, Some(*path)));
        assert_eq!((&line["actor"], &line["key_id"]), (&"admin".into(), &key_id.into()));
        assert_eq!(line["decision"], "allowed");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
}

#[tokio::test]
async fn deletes_restores_tokens_and_refusals_leave_lines_and_no_secret_does() {
    let world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    assert_eq!((&last(&world)["tenant"], &last(&world)["decision"]), (&"posts".into(), &"allowed".into()));
    let blob_id = put(&world, &node, &token, "n", b"x").await.blob_id;
    let before = lines(&world).len();
    let request_id = "why".to_owned();
    let delete = pb::DeleteBlobRequest { blob_id: blob_id.clone(), request_id, ..Default::default() };
    world.metadata(&token).delete_blob(delete).await.unwrap();
    let deleted = last(&world);
    assert_eq!((&deleted["actor"], &deleted["tenant"]), (&"tenant".into(), &"posts".into()));
    assert_eq!((deleted["object"].as_str(), &deleted["request_id"]), (Some(blob_id.as_str()), &"why".into()));
    let undelete = pb::UndeleteBlobRequest { blob_id, ..Default::default() };
    world.metadata(&token).undelete_blob(undelete).await.unwrap();
    assert!(last(&world)["method"].as_str().unwrap().ends_with("UndeleteBlob"));
    world.metadata(&token).create_tenant_token(pb::CreateTenantTokenRequest::default()).await.unwrap();
    assert!(last(&world)["method"].as_str().unwrap().ends_with("CreateTenantToken"));
    assert_eq!(lines(&world).len(), before + 3, "reading and writing leave none");

    let refused = refusal(world.metadata(&token).list_tenants(pb::ListTenantsRequest::default()).await);
    let line = last(&world);
    assert_eq!((&line["decision"], &line["reason"]), (&"refused".into(), &"SCOPE_MISSING".into()));
    assert_eq!(
        (line["key_id"].as_str(), line["request_id"].as_str()),
        (token.split('.').nth(1), refused.request_id.as_deref())
    );
    call(&world, "/minitectonic.v1.MetadataService/ListBlobs", &[]).await.unwrap_err();
    assert_eq!((&last(&world)["reason"], &last(&world)["key_id"]), (&"TOKEN_MISSING".into(), &"".into()));

    let text = std::fs::read_to_string(log(&world)).unwrap();
    for secret in [&token, &world.admin_token(), &world.join_token(), &node.token] {
        assert!(!text.contains(secret.split('.').nth(2).unwrap()));
    }
}

#[tokio::test]
async fn a_full_disk_stops_what_needs_a_line_before_it_has_an_effect_and_nothing_else() {
    let mut world = World::new().await;
    let (node, token) = (world.node().await, world.tenant("posts").await);
    world.stop().await;
    std::fs::remove_file(log(&world)).unwrap();
    std::os::unix::fs::symlink("/dev/full", log(&world)).unwrap();
    world.go_on().await;
    node.beat(&world).await.unwrap();
    let register = |tenant: &str| pb::RegisterTenantRequest { tenant_id: tenant.to_owned(), ..Default::default() };
    let refused = refusal(world.admin().register_tenant(register("images")).await);
    assert_eq!(refused.reason, Some(Reason::NodeOutOfSpace));
    assert!(refused.message.contains("audit log"), "{}", refused.message);
    let list = pb::ListTenantsRequest::default();
    let tenants = world.admin().list_tenants(list).await.unwrap().into_inner().tenants;
    assert_eq!(tenants.len(), 1, "the refused call had no effect");
    let create = pb::CreateTenantTokenRequest::default();
    assert_eq!(reason(world.metadata(&token).create_tenant_token(create).await), Reason::NodeOutOfSpace);
    let status = pb::GetClusterStatusRequest {};
    let status = world.cluster(&world.admin_token()).get_cluster_status(status).await.unwrap().into_inner();
    let told = |warning: &String| warning.contains("no room for the audit log");
    assert!(status.warnings.iter().any(told), "{:?}", status.warnings);
    let blob = put(&world, &node, &token, "n", b"x").await;
    let delete = pb::DeleteBlobRequest { blob_id: blob.blob_id, ..Default::default() };
    world.metadata(&token).delete_blob(delete).await.unwrap();
    std::fs::remove_file(log(&world)).unwrap();
    world.admin().register_tenant(register("images")).await.unwrap();
    assert_eq!(lines(&world).len(), 1);
}
