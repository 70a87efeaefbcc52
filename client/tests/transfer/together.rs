//! Small blobs of one client whose calls travel together: each is stored, read and refused for itself.

use std::collections::HashSet;

use futures_util::future::join_all;
use mini_tectonic_client::{Blob, BlobId, Client, Error, Reason, RetryPolicy, Source, UploadOptions, pb};
use proto::entropy::SeededEntropy;

use crate::cluster::{Cluster, DEADLINE, KIB, noise};

const AT_ONCE: u64 = 48;

/// Of some bytes to 64 KiB, and one without any.
fn content(number: u64) -> Vec<u8> {
    let length = usize::try_from(number % AT_ONCE).unwrap() * 1_395;
    noise(number, length.min(64 * KIB))
}

async fn put(client: &Client, content: &[u8]) -> Result<Blob, Error> {
    client.upload(Source::Bytes(content.to_vec().into()), UploadOptions::default()).await
}

async fn put_number(client: &Client, number: u64) -> Result<Blob, Error> {
    put(client, &content(number)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_stored_and_read_whatever_connection_is_cut() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    for seed in 0..4 {
        cluster.proxy.cut_within(seed, 512 * KIB as u64);
        let each = (0..AT_ONCE).map(|number| {
            let (client, content) = (&client, content(seed * AT_ONCE + number));
            async move {
                let blob = put(client, &content).await.unwrap();
                for max_bytes in [u64::MAX, content.len() as u64] {
                    let (found, read) = client.read(blob.blob_id, max_bytes).await.unwrap();
                    assert!(found == blob && read == content, "{number}");
                }
                blob.blob_id
            }
        });
        let ids: HashSet<_> = join_all(each).await.into_iter().collect();
        assert_eq!(ids.len() as u64, AT_ONCE);
        cluster.proxy.heal();
    }
    assert!(cluster.proxy.cuts() >= 12, "only {} cuts", cluster.proxy.cuts());
    cluster.assert_nothing_reserved(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_is_refused_no_other_is() {
    let cluster = Cluster::start().await;
    let half = AT_ONCE / 2;
    let client = cluster.tenant("posts", pb::Quota { max_blobs: Some(half), ..Default::default() }).await;
    let stored = join_all((0..AT_ONCE).map(|number| put_number(&client, number))).await;
    let (stored, refused): (Vec<_>, Vec<_>) = stored.into_iter().partition(Result::is_ok);
    assert!(refused.iter().all(|refused| refused.as_ref().unwrap_err().reason() == Some(Reason::QuotaExceeded)));
    assert_eq!(stored.len() as u64, half, "the quota has room for so many, and no place is lost to those beyond it");
    let reads = stored.into_iter().enumerate().map(|(number, blob)| {
        let (client, blob, entropy) = (&client, blob.unwrap(), SeededEntropy::new(number as u64));
        async move {
            let never = client.read(BlobId::generate(1, &entropy), u64::MAX);
            let too_large = client.read(blob.blob_id, blob.size_bytes.saturating_sub(1));
            let (read, never, too_large) = tokio::join!(client.read(blob.blob_id, u64::MAX), never, too_large);
            assert_eq!(read.unwrap().0, blob);
            assert_eq!(never.unwrap_err().reason(), Some(Reason::BlobNotFound));
            assert_eq!(too_large.is_err(), blob.size_bytes > 0, "{too_large:?}");
            if let Err(error) = too_large {
                assert!(matches!(error, Error::Invalid { what: "blob", .. }), "{error}");
            }
        }
    });
    join_all(reads).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_lets_less_through_at_once_than_wait_for_each_other_lets_all_of_them_through() {
    let cluster = Cluster::start().await;
    let rates = pb::Rates { requests_per_second: Some(16), ..Default::default() };
    let (admin, posts) = (cluster.admin(), "posts".parse().unwrap());
    let token = admin.register_tenant_with(&posts, pb::Quota::default(), rates).await.unwrap().token;
    let patient = RetryPolicy { unreachable: DEADLINE, repeats_max: u32::MAX, ..RetryPolicy::default() };
    let config = cluster.config().with_token(token.as_str()).with_retry(patient);
    let client = Client::new(config).unwrap();
    for stored in join_all((0..AT_ONCE).map(|number| put_number(&client, number))).await {
        stored.unwrap();
    }
}
