//! Tenants do not see each other (I9).

use mini_tectonic_client::{Category, ListOptions};
use proto::pb;
use tokio_stream::StreamExt as _;

use crate::cluster::{Cluster, content, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_blob_and_a_missing_one_give_the_same_answer() {
    let mut cluster = Cluster::builder().build().await;
    let owner = cluster.tenant("owner", pb::Quota::default()).await;
    let stranger = cluster.tenant("stranger", pb::Quota::default()).await;
    let blob = put(&owner, "secret", &content(100, 1)).await;
    let missing = "0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f".parse().unwrap();
    for call in ["get", "delete"] {
        let mut answers = Vec::new();
        for id in [blob.blob_id, missing] {
            let refused = match call {
                "get" => stranger.get_blob(id).await.map(drop).unwrap_err(),
                _delete => stranger.delete_blob(id).await.unwrap_err(),
            };
            let text = refused.to_string().replace(&id.to_string(), "ID");
            answers.push((refused.category(), refused.reason(), text));
        }
        assert_eq!(answers[0], answers[1], "{call}");
        assert_eq!(answers[0].0, Category::NotFound);
    }
    let seen: Vec<_> = stranger.list_blobs(ListOptions::default()).collect().await;
    assert!(seen.is_empty(), "{seen:?}");
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_s_token_opens_no_tenant_s_data_and_a_tenant_s_no_operator_s_call() {
    let mut cluster = Cluster::builder().build().await;
    let owner = cluster.tenant("owner", pb::Quota::default()).await;
    let blob = put(&owner, "secret", &content(100, 1)).await;
    let refused = cluster.admin().get_blob(blob.blob_id).await.unwrap_err();
    assert_eq!(refused.category(), Category::NotAuthorised);
    let refused = owner.cluster_status().await.unwrap_err();
    assert_eq!(refused.category(), Category::NotAuthorised);
    let refused = owner.register_tenant(&"third".parse().unwrap(), pb::Quota::default()).await.unwrap_err();
    assert_eq!(refused.category(), Category::NotAuthorised);
    cluster.check().await;
}
