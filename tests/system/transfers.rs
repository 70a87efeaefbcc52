//! Blobs go in and come out.

use mini_tectonic_client::{ByteRange, Category, DownloadOptions, ListOptions, Sink};
use proto::pb;
use tokio_stream::StreamExt as _;

use crate::cluster::{Cluster, SharedBuffer, content, get, put, put_file};

/// Small blocks make many of them out of few bytes.
const BLOCK: usize = 512 * 1024;

async fn cluster_of_small_blocks() -> Cluster {
    let small = |tuning: &mut metadata_service::config::Tuning| {
        tuning.block_bytes = BLOCK as u64;
        tuning.block_bytes_unknown_size = BLOCK as u64;
    };
    Cluster::builder().metadata(small).build().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_around_a_frame_and_a_block_comes_back_equal() {
    let mut cluster = cluster_of_small_blocks().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    // 40 blocks are more than one allocation of 16.
    for size in [0, 1, 65_535, 65_536, 262_143, 262_144, 262_145, BLOCK - 1, BLOCK, BLOCK + 1, 40 * BLOCK + 7] {
        let bytes = content(size, size as u64);
        let from_pipe = put(&client, "pipe", &bytes).await;
        let from_file = put_file(&client, &cluster.scratch("file"), &bytes).await;
        assert_eq!((from_pipe.size_bytes, from_file.size_bytes), (size as u64, size as u64));
        assert!(get(&client, from_pipe.blob_id).await == bytes, "{size} bytes from a pipe");
        assert!(get(&client, from_file.blob_id).await == bytes, "{size} bytes from a file");
    }
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_across_blocks_and_frames_are_exact() {
    let mut cluster = cluster_of_small_blocks().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let bytes = content(3 * BLOCK + 100, 1);
    let blob = put(&client, "ranges", &bytes).await;
    let ranges = [(0, 1), (0, BLOCK), (1, BLOCK), (BLOCK - 1, 2), (70_000, 2 * BLOCK), (3 * BLOCK + 99, 1), (5, 0)];
    for (offset, limit) in ranges {
        let buffer = SharedBuffer::default();
        let range = ByteRange { offset: offset as u64, limit: (limit > 0).then_some(limit as u64) };
        let options = DownloadOptions { range, ..DownloadOptions::default() };
        client.download(blob.blob_id, options, Sink::Writer(Box::new(buffer.clone()))).await.unwrap();
        let expected = if limit > 0 { &bytes[offset..offset + limit] } else { &bytes[offset..] };
        assert!(buffer.take() == expected, "{limit} bytes from {offset}");
    }
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_blob_is_gone_from_every_view_and_its_bytes_leave_the_usage() {
    let mut cluster = cluster_of_small_blocks().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let kept = put(&client, "kept", &content(1_000, 1)).await;
    let gone = put(&client, "gone", &content(2_000, 2)).await;
    client.delete_blob(gone.blob_id).await.unwrap();
    let listed: Vec<_> = client.list_blobs(ListOptions::default()).map(|blob| blob.unwrap().blob_id).collect().await;
    assert_eq!(listed, [kept.blob_id]);
    assert_eq!(client.get_blob(gone.blob_id).await.unwrap_err().category(), Category::NotFound);
    assert_eq!(client.delete_blob(gone.blob_id).await.unwrap_err().category(), Category::NotFound);
    let usage = client.get_tenant(None).await.unwrap().usage.unwrap();
    assert_eq!((usage.used_bytes, usage.retained_bytes, usage.retained_blobs), (1_000, 2_000, 1));
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_for_known_and_unknown_sizes_and_nothing_stays_reserved() {
    let mut cluster = cluster_of_small_blocks().await;
    let quota = pb::Quota { max_bytes: Some(BLOCK as u64), max_blobs: Some(2), ..Default::default() };
    let client = cluster.tenant("small", quota).await;
    put(&client, "fits", &content(BLOCK / 2, 1)).await;
    let too_large = content(BLOCK, 2);
    for attempt in ["pipe", "file"] {
        let path = cluster.scratch(attempt);
        std::fs::write(&path, &too_large).unwrap();
        let source = match attempt {
            "pipe" => mini_tectonic_client::Source::Reader(Box::new(std::io::Cursor::new(too_large.clone()))),
            _file => mini_tectonic_client::Source::File(path),
        };
        let refused = client.upload(source, mini_tectonic_client::UploadOptions::default()).await.unwrap_err();
        assert_eq!(refused.category(), Category::QuotaOrRate, "{attempt}: {refused}");
    }
    let usage = client.get_tenant(None).await.unwrap().usage.unwrap();
    assert_eq!((usage.reserved_bytes, usage.reserved_blobs), (0, 0), "a refused upload gives back what it reserved");
    cluster.check().await;
}
