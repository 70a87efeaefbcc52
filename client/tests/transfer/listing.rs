//! Tenants and lists.

use futures_util::TryStreamExt as _;
use mini_tectonic_client::{Blob, Category, ListOptions, Reason, Source, TenantId, UploadOptions, pb};

use crate::cluster::{Cluster, get, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_every_blob_once_over_all_its_pages() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let mut stored = Vec::new();
    for number in 0..7 {
        let source = Source::Reader(Box::new(std::io::empty()));
        let options = UploadOptions { display_name: format!("name-{}", number % 2), ..Default::default() };
        stored.push(client.upload(source, options).await.unwrap());
    }
    for page_size in [0, 1, 3, 7, 1000] {
        let options = ListOptions { page_size, ..Default::default() };
        let listed: Vec<_> = client.list_blobs(options).try_collect().await.unwrap();
        assert_eq!(listed, stored, "in the order of their ids");
        let options = ListOptions { prefix: "name-1".to_owned(), page_size, ..Default::default() };
        let listed: Vec<_> = client.list_blobs(options).try_collect().await.unwrap();
        assert!(listed.iter().all(|blob| blob.display_name == "name-1") && listed.len() == 3);
    }
    client.delete_blob(stored[0].blob_id).await.unwrap();
    assert_eq!(client.get_blob(stored[0].blob_id).await.unwrap_err().category(), Category::NotFound);
    let listed: Vec<_> = client.list_blobs(ListOptions::default()).try_collect().await.unwrap();
    assert_eq!(listed, stored[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_blob_is_listed_apart_and_restored_with_its_bytes() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let (kept, blob) = (put(&client, b"kept").await.unwrap(), put(&client, b"restored").await.unwrap());
    let list = |deleted| client.list_blobs(ListOptions { deleted, ..Default::default() }).try_collect::<Vec<_>>();
    client.delete_blob(blob.blob_id).await.unwrap();
    let deleted = list(true).await.unwrap();
    let [found] = &deleted[..] else { panic!("one blob is deleted: {deleted:?}") };
    let times = (found.delete_time.unwrap().seconds, found.expire_time.unwrap().seconds);
    assert_eq!(times.1 - times.0, 24 * 3600, "for its retention");
    assert_eq!(Blob { delete_time: None, expire_time: None, ..found.clone() }, blob);
    assert_eq!(client.undelete_blob(blob.blob_id).await.unwrap(), blob);
    assert_eq!(client.undelete_blob(blob.blob_id).await.unwrap(), blob, "it is not deleted");
    assert_eq!((list(false).await.unwrap(), list(true).await.unwrap()), (vec![kept, blob.clone()], vec![]));
    assert_eq!(get(&client, blob.blob_id).await.unwrap(), b"restored");
    let never = client.undelete_blob("0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f".parse().unwrap()).await.unwrap_err();
    assert_eq!((never.reason(), never.category()), (Some(Reason::BlobNotFound), Category::NotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_managed_with_the_admin_token_alone() {
    let cluster = Cluster::start().await;
    let (admin, posts) = (cluster.admin(), cluster.unlimited("posts").await);
    let id: TenantId = "posts".parse().unwrap();
    let again = admin.register_tenant(&id, pb::Quota::default()).await.unwrap_err();
    assert_eq!((again.reason(), again.category()), (Some(Reason::TenantAlreadyExists), Category::Other));
    assert!(again.request_id().is_some());
    assert_eq!(posts.list_tenants().try_collect::<Vec<_>>().await.unwrap_err().category(), Category::NotAuthorised);

    cluster.unlimited("other").await;
    let listed: Vec<_> = admin.list_tenants().map_ok(|tenant| tenant.tenant_id).try_collect().await.unwrap();
    assert_eq!(listed, ["other", "posts"]);
    let quota = pb::Quota { max_bytes: Some(10), max_open_uploads: Some(64), ..Default::default() };
    let changed = admin.update_tenant(&id, Some(quota), pb::TrafficClass::Gold).await.unwrap();
    assert_eq!((changed.quota, changed.traffic_class()), (Some(quota), pb::TrafficClass::Gold));
    assert_eq!(posts.get_tenant(None).await.unwrap(), admin.get_tenant(Some(&id)).await.unwrap());

    let blob = put(&posts, b"0123456789").await.unwrap();
    assert_eq!(admin.delete_tenant(&id).await.unwrap_err().reason(), Some(Reason::TenantNotEmpty));
    assert_eq!(admin.get_blob(blob.blob_id).await.unwrap_err().category(), Category::NotAuthorised);
    admin.delete_tenant(&"other".parse().unwrap()).await.unwrap();
    let gone = admin.get_tenant(Some(&"other".parse().unwrap())).await.unwrap_err();
    assert_eq!(gone.reason(), Some(Reason::TenantNotFound));
    assert_eq!(admin.cluster_status().await.unwrap().tenant_count, 1);
}
