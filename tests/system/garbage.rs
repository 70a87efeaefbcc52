//! Deleting, restoring and collecting over real services (I6, I7, I8, I11).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mini_tectonic_client::{Client, Reason};
use proto::pb;
use proto::runtime::clock::{Clock as _, ManualClock, SystemClock};

use crate::cluster::{Cluster, DEADLINE, content, get, put, put_file};

const HOUR: Duration = Duration::from_secs(3600);

fn files(cluster: &Cluster) -> usize {
    std::fs::read_dir(cluster.chunks_folder()).unwrap().count()
}

async fn usage(client: &Client) -> pb::Usage {
    client.get_tenant(None).await.unwrap().usage.unwrap()
}

/// Whole sweeps until nothing is left to do: a node that just learnt the time may refuse at first.
async fn collect_until_gone(cluster: &Cluster, left: usize) {
    let collect = || async {
        while cluster.metadata().collect_garbage().await?.more {}
        if files(cluster) == left { Ok(()) } else { Err(format!("{} files", files(cluster))) }
    };
    crate::wait::wait_until("garbage is gone from the disk", DEADLINE, collect).await;
}

async fn cluster() -> (Cluster, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(SystemClock.now_ms()));
    (Cluster::builder().clock(Arc::<ManualClock>::clone(&clock)).build().await, clock)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_blob_is_restored_or_leaves_nothing_on_the_disk() {
    let (mut cluster, clock) = cluster().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let empty = files(&cluster);
    let bytes = content(300_000, 1);
    let blob = put(&client, "restored", &bytes).await.blob_id;
    let with_blob = files(&cluster);
    client.delete_blob(blob).await.unwrap();
    clock.advance(23 * HOUR);
    collect_until_gone(&cluster, with_blob).await;
    // A start tells the chunk service the time, which has jumped for it.
    cluster.restart_chunk().await;
    client.undelete_blob(blob).await.unwrap();
    assert!(get(&client, blob).await == bytes);
    cluster.restart_metadata().await;
    cluster.check().await;

    client.delete_blob(blob).await.unwrap();
    clock.advance(24 * HOUR);
    collect_until_gone(&cluster, empty).await;
    assert_eq!(usage(&client).await, pb::Usage::default());
    assert_eq!(client.undelete_blob(blob).await.unwrap_err().reason(), Some(Reason::BlobNotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_collectors_asked_at_once_and_a_restart_lose_nothing_that_is_needed() {
    let (mut cluster, clock) = cluster().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let kept = content(200_000, 1);
    let kept_id = put(&client, "kept", &kept).await.blob_id;
    let left = files(&cluster);
    for seed in 2..12 {
        let blob = put(&client, "deleted", &content(1_000, seed)).await;
        client.delete_blob(blob.blob_id).await.unwrap();
    }
    clock.advance(24 * HOUR);
    let (one, other) = tokio::join!(cluster.metadata().collect_garbage(), cluster.metadata().collect_garbage());
    one.and(other).unwrap();
    cluster.restart_metadata().await;
    collect_until_gone(&cluster, left).await;
    assert!(get(&client, kept_id).await == kept);
    assert_eq!(usage(&client).await.retained_blobs, 0);
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_who_ask_for_a_collection_at_once_have_nothing_done_twice() {
    let (mut cluster, clock) = cluster().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let empty = files(&cluster);
    for seed in 0..10 {
        let blob = put_file(&client, &cluster.scratch("deleted"), &content(1_000, seed)).await;
        client.delete_blob(blob.blob_id).await.unwrap();
    }
    clock.advance(24 * HOUR);
    let (one, other, changed) = (cluster.admin(), cluster.admin(), AtomicU64::new(0));
    let collect = || async {
        let (first, second) = tokio::join!(one.run_worker("garbage", false), other.run_worker("garbage", false));
        for pass in [first, second] {
            let pass = pass.unwrap().expect("it runs here");
            changed.fetch_add(pass.changed, Ordering::SeqCst);
        }
        if files(&cluster) == empty { Ok(()) } else { Err(files(&cluster)) }
    };
    crate::wait::wait_until("garbage is gone from the disk", DEADLINE, collect).await;
    // Of each blob: its tombstone is marked, its block taken apart, its chunk deleted.
    assert_eq!(changed.into_inner(), 3 * 10);
    assert_eq!(usage(&client).await, pb::Usage::default());
}

/// More blocks than a pass takes apart: between two passes the blob is neither restorable nor gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_being_collected_is_not_restored_and_says_so() {
    let clock = Arc::new(ManualClock::at(SystemClock.now_ms()));
    let builder = Cluster::builder().clock(Arc::<ManualClock>::clone(&clock));
    let mut cluster = builder.metadata(|tuning| tuning.block_bytes_unknown_size = 256).build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let empty = files(&cluster);
    let blob = put(&client, "large", &content(256 * 1_100, 1)).await.blob_id;
    client.delete_blob(blob).await.unwrap();
    clock.advance(24 * HOUR);
    for _pass in 0..2 {
        assert!(cluster.metadata().collect_garbage().await.unwrap().more, "the quota first, then the blocks");
    }
    let refused = client.undelete_blob(blob).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::BlobCollected), "{refused:?}");
    cluster.restart_metadata().await;
    assert_eq!(client.undelete_blob(blob).await.unwrap_err().reason(), Some(Reason::BlobCollected));
    collect_until_gone(&cluster, empty).await;
    assert_eq!(client.undelete_blob(blob).await.unwrap_err().reason(), Some(Reason::BlobNotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_aborted_upload_has_written_goes_after_the_grace() {
    let (mut cluster, clock) = cluster().await;
    let client = cluster.tenant("posts", pb::Quota { max_bytes: Some(16_000_000), ..Default::default() }).await;
    let empty = files(&cluster);
    // Beyond the quota the upload fails in its middle, and its writer gives it up.
    let source = mini_tectonic_client::Source::Reader(Box::new(std::io::Cursor::new(content(20_000_000, 1))));
    client.upload(source, mini_tectonic_client::UploadOptions::default()).await.unwrap_err();
    client.settle(DEADLINE).await;
    assert_eq!(usage(&client).await, pb::Usage::default());
    assert!(files(&cluster) > empty, "it had written something");
    clock.advance(HOUR);
    collect_until_gone(&cluster, empty).await;
}
