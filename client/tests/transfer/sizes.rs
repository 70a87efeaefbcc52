//! What goes in comes out: sizes around every boundary, ranges, many at once.

use std::sync::Arc;

use mini_tectonic_client::{ByteRange, DownloadOptions, Sha256, Sink, Source, Transferred, UploadOptions};
use proto::entropy::{Entropy as _, SeededEntropy};
use tokio::task::JoinSet;

use crate::cluster::{BLOCK, Cluster, KIB, Settings, get, get_range, noise, put, write_file};

const SIZES: [usize; 13] = [
    0,
    1,
    64 * KIB - 1,
    64 * KIB,
    256 * KIB - 1,
    256 * KIB,
    256 * KIB + 1,
    BLOCK - 1,
    BLOCK,
    BLOCK + 1,
    2 * BLOCK,
    3 * BLOCK + 300 * KIB + 7,
    20 * BLOCK + 1,
];

#[tokio::test(flavor = "multi_thread")]
async fn every_size_comes_back_from_files_and_streams_into_files_and_writers() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    for (seed, size) in SIZES.into_iter().enumerate() {
        let content = noise(seed as u64, size);
        let input = cluster.path("input");
        write_file(&input, &content);
        let options = UploadOptions { display_name: format!("{size}"), ..Default::default() };
        let stored = client.upload(Source::File(input), options).await.unwrap();
        assert_eq!((stored.size_bytes, stored.sha256), (size as u64, Sha256::of(&content)));
        assert_eq!(stored.block_count, size.div_ceil(BLOCK) as u64);
        assert_eq!(stored.display_name, size.to_string());

        let output = cluster.path("output");
        let sink = Sink::File(output.clone());
        let downloaded = client.download(stored.blob_id, DownloadOptions::default(), sink).await.unwrap();
        assert_eq!((downloaded.bytes, &downloaded.blob), (size as u64, &stored));
        assert!(std::fs::read(&output).unwrap() == content, "a file of {size} bytes");

        let streamed = put(&client, &content).await.unwrap();
        assert_eq!((streamed.size_bytes, streamed.sha256), (stored.size_bytes, stored.sha256));
        assert!(get(&client, streamed.blob_id).await.unwrap() == content, "a stream of {size} bytes");
        assert_eq!(client.get_blob(streamed.blob_id).await.unwrap(), streamed);
    }
    cluster.assert_nothing_reserved(&client).await;
    cluster.assert_no_partial();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_the_same_bytes_as_that_part_of_the_whole() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let content = noise(1, 3 * BLOCK + 12_345);
    let blob = put(&client, &content).await.unwrap().blob_id;
    let entropy = SeededEntropy::new(2);
    let random = || {
        let mut bytes = [0; 8];
        entropy.fill(&mut bytes);
        usize::try_from(u64::from_be_bytes(bytes) % (content.len() as u64 + 1)).unwrap()
    };
    let mut ranges = vec![
        (0, None),
        (0, Some(0)),
        (0, Some(1)),
        (BLOCK, Some(BLOCK)),
        (BLOCK - 1, Some(2)),
        (content.len(), None),
        (content.len(), Some(0)),
        (content.len() - 1, Some(usize::MAX)),
    ];
    ranges.extend((0..40).map(|_| (random(), Some(random()))));
    for (offset, limit) in ranges {
        let range = ByteRange { offset: offset as u64, limit: limit.map(|limit| limit as u64) };
        let end = limit.map_or(content.len(), |limit| offset.saturating_add(limit).min(content.len()));
        let read = get_range(&client, blob, range).await.unwrap();
        assert!(read == content[offset..end], "{range:?}");
    }
    let output = cluster.path("output");
    let options =
        DownloadOptions { range: ByteRange { offset: 100, limit: Some(2 * BLOCK as u64) }, ..Default::default() };
    client.download(blob, options, Sink::File(output.clone())).await.unwrap();
    assert!(std::fs::read(&output).unwrap() == content[100..100 + 2 * BLOCK]);

    let beyond = ByteRange { offset: content.len() as u64 + 1, limit: None };
    let error = get_range(&client, blob, beyond).await.unwrap_err();
    assert_eq!(error.reason(), Some(mini_tectonic_client::Reason::ReadOffsetOutOfRange), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_more_blocks_than_one_answer_holds_comes_back() {
    let mut settings = Settings::default();
    settings.metadata.block_bytes = 8 * KIB as u64;
    settings.metadata.block_bytes_unknown_size = 8 * KIB as u64;
    let cluster = Cluster::with(settings).await;
    let client = cluster.unlimited("posts").await;
    // More than two pages of a layout, 34 allocations, and more receipts than one call takes.
    let content = noise(3, 530 * 8 * KIB + 5);
    let input = cluster.path("input");
    write_file(&input, &content);
    let blob = client.upload(Source::File(input), UploadOptions::default()).await.unwrap();
    assert_eq!(blob.block_count, 531);
    assert!(get(&client, blob.blob_id).await.unwrap() == content);
    let streamed = put(&client, &content).await.unwrap();
    let output = cluster.path("output");
    client.download(streamed.blob_id, DownloadOptions::default(), Sink::File(output.clone())).await.unwrap();
    assert!(std::fs::read(&output).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_transfers_at_once_do_not_disturb_each_other() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let mut transfers = JoinSet::new();
    for seed in 0..64 {
        let client = client.clone();
        transfers.spawn(async move {
            let content = noise(seed, usize::try_from(seed).unwrap() * 40_000);
            let blob = put(&client, &content).await.unwrap();
            assert!(get(&client, blob.blob_id).await.unwrap() == content, "{seed}");
        });
    }
    while let Some(transfer) = transfers.join_next().await {
        transfer.unwrap();
    }
    cluster.assert_nothing_reserved(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_never_falls_and_ends_at_the_size() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let content = noise(4, 5 * BLOCK + 1);
    let input = cluster.path("input");
    write_file(&input, &content);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let listener = || {
        let seen = Arc::clone(&seen);
        Some(Arc::new(move |now: Transferred| seen.lock().unwrap().push(now)) as mini_tectonic_client::Progress)
    };
    let check = |what: &str| {
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        assert!(seen.windows(2).all(|pair| pair[0].done_bytes <= pair[1].done_bytes), "{what}");
        let last = seen.last().unwrap();
        assert_eq!((last.done_bytes, last.total_bytes), (content.len() as u64, Some(content.len() as u64)), "{what}");
    };
    let options = UploadOptions { progress: listener(), ..Default::default() };
    let blob = client.upload(Source::File(input), options).await.unwrap();
    check("upload");
    let options = DownloadOptions { progress: listener(), ..Default::default() };
    client.download(blob.blob_id, options, Sink::File(cluster.path("output"))).await.unwrap();
    check("download");
}
