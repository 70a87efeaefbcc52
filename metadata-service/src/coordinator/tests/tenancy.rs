//! Tenants and their tokens.

use proto::error::{Classify as _, Reason};
use proto::rates::Rates;
use proto::token::{Token, TokenKind};

use super::*;
use crate::store::records::{Holder, TokenRecord};

const UNLIMITED: Quota = Quota::UNLIMITED;

fn register(bench: &Bench, request_id: &str, quota: Quota) -> Result<(Tenant, Token), MetadataError> {
    let (tenant, traffic_class) = ("posts".parse().unwrap(), TrafficClass::Gold);
    let command = RegisterTenant { tenant, request: admin(request_id), quota, traffic_class, rates: Rates::default() };
    bench.decide(move |view, context| tenants::register(view, context, &command))
}

fn rotate(bench: &Bench, tenant: &TenantId, request_id: &str) -> Result<Token, MetadataError> {
    let (tenant, request) = (tenant.clone(), admin(request_id));
    bench.decide(move |view, context| tenants::rotate_token(view, context, &request, &tenant, None))
}

fn remove(bench: &Bench, tenant: &TenantId, request_id: &str) -> Result<(), MetadataError> {
    let (tenant, request) = (tenant.clone(), admin(request_id));
    bench.decide(move |view, context| tenants::delete(view, context, &request, &tenant))
}

fn is_known(bench: &Bench, token: &Token) -> bool {
    let record = bench.row::<TokenRecord>(&keys::token(token.key_id));
    record.is_some_and(|record| token.matches(&record.secret_sha256))
}

#[test]
fn i4_the_same_request_gets_the_same_token_and_another_one_is_refused() {
    let bench = Bench::new();
    let quota = Quota { max_bytes: Some(7), ..Quota::UNLIMITED };
    let (tenant, token) = register(&bench, "r", quota).unwrap();
    assert_eq!(token.kind, TokenKind::Tenant);
    let sequence = bench.sequence();
    let (again, same) = register(&bench, "r", quota).unwrap();
    assert_eq!((again, same.expose(), bench.sequence()), (tenant, token.expose(), sequence));
    assert_eq!(register(&bench, "r", UNLIMITED).unwrap_err().reason(), Reason::RequestIdReused);
    assert_eq!(register(&bench, "s", quota).unwrap_err().reason(), Reason::TenantAlreadyExists);
    assert_eq!(register(&bench, "", quota).unwrap_err().reason(), Reason::TenantAlreadyExists);
}

#[test]
fn only_a_hash_of_the_token_is_stored() {
    let bench = Bench::new();
    let (_, token) = register(&bench, "", UNLIMITED).unwrap();
    let text = token.expose();
    let secret = text.split('.').nth(2).unwrap();
    let row: TokenRecord = bench.row(&keys::token(token.key_id)).unwrap();
    assert_eq!(row.holder, Holder::Tenant("posts".parse().unwrap()));
    assert_eq!(row.secret_sha256, token.secret_sha256());
    assert_ne!(row.secret_sha256.to_string(), secret);
}

#[test]
fn after_a_rotation_two_tokens_are_valid_and_after_the_next_the_first_has_ended() {
    let bench = Bench::new();
    let (tenant, first) = register(&bench, "", UNLIMITED).unwrap();
    let second = rotate(&bench, &tenant.tenant, "r").unwrap();
    assert_eq!(rotate(&bench, &tenant.tenant, "r").unwrap().expose(), second.expose());
    assert!(is_known(&bench, &first) && is_known(&bench, &second));
    let third = rotate(&bench, &tenant.tenant, "").unwrap();
    assert!(!is_known(&bench, &first) && is_known(&bench, &second) && is_known(&bench, &third));
    let unknown = rotate(&bench, &"nobody".parse().unwrap(), "");
    assert_eq!(unknown.unwrap_err().reason(), Reason::TenantNotFound);
}

#[test]
fn a_quota_may_be_set_below_what_is_used_and_then_refuses_writes() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    bench.put(&tenant, 25);
    bench.set_quota(&tenant, Quota { max_bytes: Some(10), ..Quota::UNLIMITED });
    assert_eq!(bench.start(&tenant, "", Some(0)).unwrap_err().reason(), Reason::QuotaExceeded);
    bench.set_quota(&tenant, Quota { max_bytes: Some(25), ..Quota::UNLIMITED });
    assert!(bench.start(&tenant, "", Some(0)).is_ok());
}

#[test]
fn an_update_changes_what_it_names_and_a_repeat_changes_nothing() {
    let bench = Bench::new();
    let (tenant, _) =
        register(&bench, "", Quota { max_bytes: Some(7), max_blobs: Some(3), ..Quota::UNLIMITED }).unwrap();
    let update = |request: &str, quota: Option<Quota>, traffic_class: Option<TrafficClass>| {
        let command =
            UpdateTenant { tenant: tenant.tenant.clone(), request: admin(request), quota, traffic_class, rates: None };
        bench.decide(move |view, context| tenants::update(view, context, &command))
    };
    let changed = update("u", None, Some(TrafficClass::Bronze)).unwrap();
    assert_eq!((changed.record.quota, changed.record.traffic_class), (tenant.record.quota, TrafficClass::Bronze));
    let changed = update("", Some(UNLIMITED), None).unwrap();
    assert_eq!((changed.record.quota, changed.record.traffic_class), (UNLIMITED, TrafficClass::Bronze));
    update("", None, Some(TrafficClass::Gold)).unwrap();
    let repeated = update("u", None, Some(TrafficClass::Bronze)).unwrap();
    assert_eq!(repeated.record.traffic_class, TrafficClass::Gold, "the repeat of an old request undoes nothing");
    assert_eq!(update("u", None, None).unwrap_err().reason(), Reason::RequestIdReused);
}

#[test]
fn a_tenant_goes_only_when_it_holds_nothing_and_its_tokens_go_with_it() {
    let bench = Bench::new();
    let (tenant, token) = register(&bench, "", UNLIMITED).unwrap();
    let tenant = tenant.tenant;
    let rotated = rotate(&bench, &tenant, "").unwrap();
    let blob = bench.put(&tenant, 25).blob;
    assert_eq!(remove(&bench, &tenant, "x").unwrap_err().reason(), Reason::TenantNotEmpty);
    bench.delete(&tenant, "", blob).unwrap();
    let open = bench.start(&tenant, "", Some(1)).unwrap().upload.blob;
    assert_eq!(remove(&bench, &tenant, "x").unwrap_err().reason(), Reason::TenantNotEmpty);
    bench.abort(&tenant, open).unwrap();
    remove(&bench, &tenant, "x").unwrap();
    remove(&bench, &tenant, "x").unwrap();
    assert_eq!(remove(&bench, &tenant, "").unwrap_err().reason(), Reason::TenantNotFound);
    assert!(!is_known(&bench, &token) && !is_known(&bench, &rotated));
    let gone = bench.start(&tenant, "", Some(1));
    assert_eq!(gone.unwrap_err().reason(), Reason::TenantNotFound);
    assert_eq!(bench.usage(&tenant).retained_bytes, 25, "its deleted blob is still to be collected");
}

/// An operator's script registered a tenant, deleted it, and ran again with the request id of its first run: for a day
/// it was told that there is no such tenant. When somebody else had registered the id in between, it got a dead token.
#[test]
fn i4_a_remembered_registration_does_not_outlive_its_tenant() {
    let bench = Bench::new();
    let (tenant, first) = register(&bench, "r1", UNLIMITED).unwrap();
    remove(&bench, &tenant.tenant, "").unwrap();
    let (_, second) = register(&bench, "r1", UNLIMITED).unwrap();
    assert!(!is_known(&bench, &first) && is_known(&bench, &second), "registered anew");
    assert_eq!(register(&bench, "r1", UNLIMITED).unwrap().1.expose(), second.expose(), "and that is remembered");
    remove(&bench, &tenant.tenant, "").unwrap();
    register(&bench, "r2", UNLIMITED).unwrap();
    assert_eq!(register(&bench, "r1", UNLIMITED).unwrap_err().reason(), Reason::TenantAlreadyExists);
}

/// A token was rotated three times within a day, and a late repeat of the first rotation handed out a token that the
/// service itself no longer took.
#[test]
fn i4_no_repeat_hands_out_a_token_that_has_ended() {
    let bench = Bench::new();
    let (tenant, first) = register(&bench, "r", UNLIMITED).unwrap();
    let tenant = tenant.tenant;
    let second = rotate(&bench, &tenant, "k").unwrap();
    assert_eq!(register(&bench, "r", UNLIMITED).unwrap().1.expose(), first.expose(), "the one before is valid");
    rotate(&bench, &tenant, "").unwrap();
    assert_eq!(rotate(&bench, &tenant, "k").unwrap().expose(), second.expose(), "so is this one");
    assert_eq!(register(&bench, "r", UNLIMITED).unwrap_err().reason(), Reason::TenantAlreadyExists);
    rotate(&bench, &tenant, "").unwrap();
    assert_eq!(rotate(&bench, &tenant, "k").unwrap_err().reason(), Reason::RequestIdReused);
    remove(&bench, &tenant, "").unwrap();
    assert_eq!(rotate(&bench, &tenant, "k").unwrap_err().reason(), Reason::TenantNotFound);
}

/// A tenant was deleted and its id given to somebody else, who then could look at the uploads that the first one had
/// aborted, with their names and labels, and was answered out of the first one's requests.
#[test]
fn i9_an_id_is_not_registered_again_while_rows_of_its_former_owner_exist() {
    type Trace = fn(&Bench, &TenantId);
    let aborted: Trace = |bench, tenant| {
        let blob = bench.start(tenant, "", Some(1)).unwrap().upload.blob;
        bench.abort(tenant, blob).unwrap();
    };
    let deleted: Trace = |bench, tenant| {
        let blob = bench.put(tenant, 25).blob;
        bench.delete(tenant, "", blob).unwrap();
    };
    let requested: Trace = |bench, tenant| {
        let blob = bench.start(tenant, "s", Some(1)).unwrap().upload.blob;
        bench.abort(tenant, blob).unwrap();
    };
    let prefixes: [fn(&TenantId) -> Vec<u8>; 3] = [keys::uploads, keys::deleted_blobs, keys::requests];
    for trace in [aborted, deleted, requested] {
        let (bench, tenant) = Bench::with_tenant(UNLIMITED);
        trace(&bench, &tenant);
        remove(&bench, &tenant, "").unwrap();
        for prefix in prefixes.map(|of| of(&tenant)) {
            let refused = register(&bench, "", UNLIMITED);
            assert!(matches!(refused, Err(MetadataError::TenantNotCollected(_))), "{refused:?}");
            bench.remove_rows(&prefix);
            if prefixes.iter().all(|of| bench.count(&of(&tenant)) == 0) {
                break;
            }
        }
        let (reborn, _) = register(&bench, "", UNLIMITED).unwrap();
        assert_eq!(reborn.usage, UsageRecord::default(), "nothing is left of the first one");
    }
}

#[test]
fn i9_uploads_of_another_tenant_with_a_longer_id_keep_no_id_taken() {
    let (bench, tenant) = Bench::with_tenant(UNLIMITED);
    let longer = bench.register("posts-2", UNLIMITED).unwrap().tenant;
    bench.start(&longer, "s", Some(1)).unwrap();
    remove(&bench, &tenant, "").unwrap();
    register(&bench, "", UNLIMITED).unwrap();
}

#[test]
fn tenants_list_in_order_page_by_page() {
    let bench = Bench::new();
    for tenant in ["ccc", "aaa", "bbb", "bbb-1"] {
        bench.register(tenant, UNLIMITED).unwrap();
    }
    let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let page = bench.read(async |engine| tenants::list(engine, after.as_deref(), 3).await).unwrap();
        found.extend(page.entries.into_iter().map(|tenant| tenant.tenant.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, ["aaa", "bbb", "bbb-1", "ccc"]);
}
