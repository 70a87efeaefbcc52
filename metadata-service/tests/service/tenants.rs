//! Tenants over the wire.

use proto::error::Reason;
use proto::pb;

use crate::world::{World, reason, refusal};

fn register(tenant_id: &str, request_id: &str, max_bytes: Option<u64>) -> pb::RegisterTenantRequest {
    pb::RegisterTenantRequest {
        tenant_id: tenant_id.to_owned(),
        request_id: request_id.to_owned(),
        quota: Some(pb::Quota { max_bytes, ..Default::default() }),
        traffic_class: pb::TrafficClass::Gold.into(),
        rates: None,
    }
}

#[tokio::test]
async fn registering_twice_is_refused_but_for_the_same_request() {
    let world = World::new().await;
    let mut admin = world.admin();
    let first = admin.register_tenant(register("posts", "r1", Some(7))).await.unwrap().into_inner();
    let tenant = first.tenant.clone().unwrap();
    assert_eq!((tenant.tenant_id.as_str(), tenant.traffic_class()), ("posts", pb::TrafficClass::Gold));
    assert_eq!((tenant.quota.unwrap().max_bytes, tenant.usage.unwrap()), (Some(7), pb::Usage::default()));
    assert_eq!(tenant.create_time.map(|time| time.seconds), Some(1_800_000_000));
    assert!(first.token.starts_with("mt1."));
    let again = admin.register_tenant(register("posts", "r1", Some(7))).await.unwrap().into_inner();
    assert_eq!(again, first);
    assert_eq!(reason(admin.register_tenant(register("posts", "r1", Some(8))).await), Reason::RequestIdReused);
    assert_eq!(reason(admin.register_tenant(register("images", "r1", Some(7))).await), Reason::RequestIdReused);
    let twice = refusal(admin.register_tenant(register("posts", "r2", Some(7))).await);
    assert_eq!(twice.reason, Some(Reason::TenantAlreadyExists));
    assert_eq!(reason(admin.register_tenant(register("Posts", "", None)).await), Reason::FieldInvalid);
}

#[tokio::test]
async fn a_tenant_sees_itself_and_nobody_else() {
    let world = World::new().await;
    let token = world.tenant("posts").await;
    world.tenant("images").await;
    let mut tenant = world.metadata(&token);
    for named in ["", "posts"] {
        let request = pb::GetTenantRequest { tenant_id: named.to_owned() };
        let answer = tenant.get_tenant(request).await.unwrap().into_inner();
        assert_eq!(answer.tenant.unwrap().tenant_id, "posts");
    }
    for foreign in ["images", "nobody"] {
        let refused = tenant.get_tenant(pb::GetTenantRequest { tenant_id: foreign.to_owned() }).await;
        let refused = refusal(refused);
        assert_eq!(
            (refused.reason, refused.message.as_str()),
            (Some(Reason::TenantNotFound), "there is no such tenant")
        );
    }
    let unnamed = world.admin().get_tenant(pb::GetTenantRequest::default()).await;
    assert_eq!(reason(unnamed), Reason::FieldInvalid, "the admin must say which");
}

#[tokio::test]
async fn tenants_are_listed_page_by_page_and_page_tokens_cannot_be_made() {
    let world = World::new().await;
    for tenant in ["ccc", "aaa", "bbb"] {
        world.tenant(tenant).await;
    }
    let mut admin = world.admin();
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListTenantsRequest { page_size: 2, page_token };
        let page = admin.list_tenants(request).await.unwrap().into_inner();
        found.extend(page.tenants.into_iter().map(|tenant| tenant.tenant_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        let forged = pb::ListTenantsRequest { page_size: 2, page_token: format!("{page_token}A") };
        assert_eq!(reason(admin.list_tenants(forged).await), Reason::FieldInvalid);
    }
    assert_eq!(found, ["aaa", "bbb", "ccc"]);
    let negative = pb::ListTenantsRequest { page_size: -1, page_token: String::new() };
    assert_eq!(reason(admin.list_tenants(negative).await), Reason::FieldInvalid);
}

#[tokio::test]
async fn a_tenant_that_calls_too_often_is_told_when_to_come_back_and_holds_nobody_else_up() {
    let world = World::new().await;
    let (slow, other) = (world.tenant("slow").await, world.tenant("other").await);
    let rates = pb::Rates { requests_per_second: Some(1), ..Default::default() };
    let set =
        |rates| pb::UpdateTenantRequest { tenant_id: "slow".to_owned(), rates: Some(rates), ..Default::default() };
    let tenant = world.admin().update_tenant(set(rates)).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(tenant.rates, Some(rates));
    let request = pb::GetTenantRequest::default;
    let mut refused = Vec::new();
    for _ in 0..20 {
        refused.extend(world.metadata(&slow).get_tenant(request()).await.err());
        world.metadata(&other).get_tenant(request()).await.unwrap();
        world.admin().get_tenant(pb::GetTenantRequest { tenant_id: "slow".to_owned() }).await.unwrap();
    }
    let refused = refusal::<()>(Err(refused.pop().expect("twenty calls in less than twenty seconds")));
    assert_eq!(refused.reason, Some(Reason::RateLimited));
    let after = refused.retry_after.unwrap();
    assert!(!after.is_zero() && after.as_secs() <= 1, "{after:?}");
    world.admin().update_tenant(set(pb::Rates::default())).await.unwrap();
    for _ in 0..20 {
        world.metadata(&slow).get_tenant(request()).await.unwrap();
    }
}

/// With `--insecure-no-auth` no token says whose call it is, and no call was counted.
#[tokio::test]
async fn a_tenant_s_rate_holds_without_authentication_too() {
    let mut world = World::new().await;
    for tenant in ["slow", "other"] {
        world.tenant(tenant).await;
    }
    let rates = Some(pb::Rates { requests_per_second: Some(1), ..Default::default() });
    let set = pb::UpdateTenantRequest { tenant_id: "slow".to_owned(), rates, ..Default::default() };
    world.admin().update_tenant(set).await.unwrap();
    world.restart_with(|tuning| tuning.insecure_no_auth = true).await;
    let tenant_id = "slow".to_owned();
    let list = async |tenant: &str| {
        let request = pb::ListBlobsRequest { tenant_id: tenant.to_owned(), ..Default::default() };
        world.metadata("x").list_blobs(request).await.map(drop)
    };
    let delete = async || {
        let request = pb::DeleteBlobRequest { tenant_id: tenant_id.clone(), ..Default::default() };
        world.metadata("x").delete_blob(request).await.map(drop)
    };
    let (mut listed, mut deleted) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        listed.extend(list("slow").await.err());
        deleted.push(reason(delete().await));
        list("other").await.unwrap();
    }
    let refused = refusal::<()>(Err(listed.pop().expect("twenty calls in less than twenty seconds")));
    assert_eq!(refused.reason, Some(Reason::RateLimited));
    assert!(refused.retry_after.is_some_and(|after| !after.is_zero()));
    assert!(deleted.contains(&Reason::RateLimited), "{deleted:?}");
    world.cluster("x").get_cluster_status(pb::GetClusterStatusRequest {}).await.unwrap();
}

#[tokio::test]
async fn rates_with_which_nothing_would_come_to_its_end_are_refused() {
    let world = World::new().await;
    let none = pb::Rates::default();
    for rates in [
        pb::Rates { requests_per_second: Some(0), ..none },
        pb::Rates { read_bytes_per_second: Some(262_143), ..none },
        pb::Rates { write_bytes_per_second: Some(0), ..none },
    ] {
        let register = pb::RegisterTenantRequest { rates: Some(rates), ..register("posts", "", None) };
        assert_eq!(reason(world.admin().register_tenant(register).await), Reason::FieldInvalid, "{rates:?}");
    }
}
