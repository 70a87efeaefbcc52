//! Connections that break and services that stop in the middle: a transfer goes on, or says how it ended.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mini_tectonic_client::{
    Category, Client, ClientConfig, DownloadOptions, Error, Progress, Sha256, Sink, Source, Transferred, UploadOptions,
};
use proto::runtime::{Clock as _, ManualClock};
use tokio::sync::Notify;

use crate::cluster::{BLOCK, Cluster, KIB, Memory, Settings, eventually, get, noise, put, write_file};
use crate::proxy::Proxy;

/// Fires once, when a transfer has come this far; the transfer goes on meanwhile.
fn when_done(bytes: usize) -> (Progress, Arc<Notify>) {
    let notify = Arc::new(Notify::new());
    let reached = Arc::clone(&notify);
    let fired = Mutex::new(false);
    let progress = Arc::new(move |now: Transferred| {
        let mut fired = fired.lock().unwrap();
        if !*fired && now.done_bytes >= bytes as u64 {
            *fired = true;
            reached.notify_one();
        }
    });
    (progress, notify)
}

/// Input that comes only as it is fed.
struct Fed(Receiver<Vec<u8>>);

impl Read for Fed {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let Ok(bytes) = self.0.recv() else { return Ok(0) };
        assert!(bytes.len() <= room.len(), "fed in pieces that fit into what is left of a frame");
        room[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

fn fed() -> (SyncSender<Vec<u8>>, Source) {
    let (feed, input) = sync_channel(1024);
    (feed, Source::Reader(Box::new(Fed(input))))
}

/// An upload that has failed takes no more; it says itself how it failed.
fn feed_all(feed: &SyncSender<Vec<u8>>, content: &[u8]) {
    let fed = content.chunks(64 * KIB).try_for_each(|piece| feed.send(piece.to_vec()));
    fed.ok();
}

/// Output that is taken only as it is asked for.
struct Tapped {
    taken: Memory,
    permits: Receiver<()>,
}

impl Write for Tapped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Once the test has hung up, everything is taken.
        self.permits.recv().ok();
        self.taken.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_survive_connections_that_are_cut_at_random() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let content = noise(1, 12 * BLOCK + 77);
    let input = cluster.path("input");
    write_file(&input, &content);
    for seed in 0..6 {
        cluster.proxy.cut_within(seed, 3 * BLOCK as u64);
        let file = client.upload(Source::File(input.clone()), UploadOptions::default()).await.unwrap();
        assert_eq!(file.sha256, Sha256::of(&content));
        let stream = put(&client, &content).await.unwrap();
        assert_eq!(stream.sha256, Sha256::of(&content));
        assert!(get(&client, stream.blob_id).await.unwrap() == content);
        let output = cluster.path("output");
        client.download(file.blob_id, DownloadOptions::default(), Sink::File(output.clone())).await.unwrap();
        assert!(std::fs::read(&output).unwrap() == content);
        cluster.proxy.heal();
        assert!(get(&client, file.blob_id).await.unwrap() == content, "what was stored is right");
    }
    assert!(cluster.proxy.cuts() >= 24, "only {} cuts", cluster.proxy.cuts());
    cluster.assert_nothing_reserved(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_a_file_survives_a_kill_of_the_chunk_service() {
    let mut cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let content = noise(2, 24 * BLOCK + 5);
    let input = cluster.path("input");
    write_file(&input, &content);
    let (progress, reached) = when_done(7 * BLOCK + BLOCK / 2);
    let options = UploadOptions { progress: Some(progress), ..Default::default() };
    let uploading = client.upload(Source::File(input), options);
    let killing = async {
        reached.notified().await;
        cluster.restart_chunk().await;
    };
    let (blob, ()) = tokio::join!(uploading, killing);
    assert!(get(&client, blob.unwrap().blob_id).await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_a_stream_survives_a_kill_of_the_chunk_service_in_the_middle_of_a_block() {
    let mut cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let content = noise(3, 3 * BLOCK);
    let (feed, source) = fed();
    let (progress, reached) = when_done(BLOCK + BLOCK / 2);
    let options = UploadOptions { progress: Some(progress), ..Default::default() };
    let (before, after) = content.split_at(BLOCK + BLOCK / 2);
    let feeding = async {
        feed_all(&feed, before);
        reached.notified().await;
        cluster.restart_chunk().await;
        feed_all(&feed, after);
        drop(feed);
    };
    let (blob, ()) = tokio::join!(client.upload(source, options), feeding);
    assert!(get(&client, blob.unwrap().blob_id).await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_a_kill_of_the_metadata_service() {
    let mut cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    // More blocks than the first plans, so that more are asked for after the kill; and the commit comes after it.
    let content = noise(4, 40 * BLOCK + 9);
    let (feed, source) = fed();
    let (progress, reached) = when_done(3 * BLOCK);
    let options = UploadOptions { progress: Some(progress), ..Default::default() };
    let (before, after) = content.split_at(3 * BLOCK);
    let feeding = async {
        feed_all(&feed, before);
        reached.notified().await;
        cluster.restart_metadata().await;
        feed_all(&feed, after);
        drop(feed);
    };
    let (blob, ()) = tokio::join!(client.upload(source, options), feeding);
    assert!(get(&client, blob.unwrap().blob_id).await.unwrap() == content);
    cluster.assert_nothing_reserved(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_survives_kills_of_both_services() {
    let mut cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let content = noise(5, 24 * BLOCK + 5);
    let blob = put(&client, &content).await.unwrap().blob_id;
    let (permit, permits) = sync_channel(0);
    let taken = Memory::default();
    let sink = Sink::Writer(Box::new(Tapped { taken: taken.clone(), permits }));
    let (progress, reached) = when_done(BLOCK + 1);
    let options = DownloadOptions { progress: Some(progress), ..Default::default() };
    let killing = async {
        reached.notified().await;
        cluster.restart_chunk().await;
        cluster.restart_metadata().await;
        drop(permit);
    };
    let (downloaded, ()) = tokio::join!(client.download(blob, options, sink), killing);
    assert_eq!(downloaded.unwrap().bytes, content.len() as u64);
    assert!(taken.take() == content);

    let output = cluster.path("output");
    let (progress, reached) = when_done(2 * BLOCK);
    let options = DownloadOptions { progress: Some(progress), ..Default::default() };
    let killing = async {
        reached.notified().await;
        cluster.restart_chunk().await;
    };
    let (downloaded, ()) = tokio::join!(client.download(blob, options, Sink::File(output.clone())), killing);
    downloaded.unwrap();
    assert!(std::fs::read(&output).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_that_expire_in_the_middle_are_renewed() {
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let mut settings = Settings { clock: Arc::clone(&clock) as _, ..Default::default() };
    settings.metadata.heartbeat_interval = Duration::from_millis(50);
    let cluster = Cluster::with(settings).await;
    let client = cluster.unlimited("posts").await;
    let content = noise(6, 6 * BLOCK + 5);
    let (feed, source) = fed();
    let (before, after) = content.split_at(BLOCK + BLOCK / 2);
    let (progress, reached) = when_done(before.len());
    let options = UploadOptions { progress: Some(progress), ..Default::default() };
    let admin = cluster.admin();
    let feeding = async {
        feed_all(&feed, before);
        reached.notified().await;
        let later = clock.now_ms() + 20 * 60 * 1000;
        clock.set(later);
        node_knows_time(&admin, later).await;
        feed_all(&feed, after);
        drop(feed);
    };
    let (blob, ()) = tokio::join!(client.upload(source, options), feeding);
    let blob = blob.unwrap().blob_id;

    let (permit, permits) = sync_channel(0);
    let taken = Memory::default();
    let sink = Sink::Writer(Box::new(Tapped { taken: taken.clone(), permits }));
    let (progress, reached) = when_done(BLOCK + 1);
    let options = DownloadOptions { progress: Some(progress), ..Default::default() };
    let waiting = async {
        reached.notified().await;
        let later = clock.now_ms() + 20 * 60 * 1000;
        clock.set(later);
        node_knows_time(&admin, later).await;
        drop(permit);
    };
    let (downloaded, ()) = tokio::join!(client.download(blob, options, sink), waiting);
    downloaded.unwrap();
    assert!(taken.take() == content);
}

/// Waits for a heartbeat after this time: its answer tells the node the time.
async fn node_knows_time(admin: &Client, now_ms: u64) {
    let now = i64::try_from(now_ms / 1000).unwrap();
    eventually("a heartbeat at the new time", async || {
        let status = admin.cluster_status().await.unwrap();
        let heard = status.nodes[0].last_heartbeat_time.map_or(0, |time| time.seconds);
        if heard >= now { Ok(()) } else { Err((heard, now)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_cut_again_and_again_get_on_as_long_as_something_moves() {
    // All in one block, of which the node keeps nothing after a cut; and more cuts than a failing service is given
    // chances.
    let mut settings = Settings::default();
    settings.metadata.block_bytes = 32 * BLOCK as u64;
    settings.metadata.block_bytes_unknown_size = 8 * BLOCK as u64;
    settings.chunk.write_session_kept = Duration::from_millis(1);
    let cluster = Cluster::with(settings).await;
    let client = cluster.unlimited("posts").await;
    let content = noise(8, 25 * 256 * KIB);
    let (feed, source) = fed();
    let (sent, mut seen) = tokio::sync::watch::channel(0);
    let progress = Arc::new(move |now: Transferred| {
        sent.send_replace(now.done_bytes);
    });
    let options = UploadOptions { progress: Some(progress), ..Default::default() };
    let feeding = async {
        for (number, frame) in content.chunks(256 * KIB).enumerate() {
            feed_all(&feed, frame);
            let expected = (number as u64 + 1) * 256 * KIB as u64;
            seen.wait_for(|done| *done == expected).await.unwrap();
            cluster.proxy.cut();
        }
        drop(feed);
    };
    let (blob, ()) = tokio::join!(client.upload(source, options), feeding);
    assert_eq!(blob.unwrap().sha256, Sha256::of(&content));

    let content = noise(8, 32 * BLOCK);
    let input = cluster.path("input");
    write_file(&input, &content);
    let blob = client.upload(Source::File(input), UploadOptions::default()).await.unwrap().blob_id;
    let proxy = Arc::clone(&cluster.proxy);
    let progress: Progress = Arc::new(move |_now| proxy.cut());
    let taken = Memory::default();
    let options = DownloadOptions { progress: Some(progress), ..Default::default() };
    client.download(blob, options, Sink::Writer(Box::new(taken.clone()))).await.unwrap();
    assert!(taken.take() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_named_within_a_few_seconds() {
    let config = ClientConfig::new("127.0.0.1:1").with_token("mt1.a.b.c");
    let client = Client::new(config).unwrap();
    let upload = put(&client, b"x");
    let error = tokio::time::timeout(Duration::from_secs(20), upload).await.unwrap().unwrap_err();
    assert_eq!(error.category(), Category::Unavailable);
    assert!(matches!(error, Error::Unreachable { .. }) && error.to_string().contains("http://127.0.0.1:1"), "{error}");

    let mut cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let blob = put(&client, b"x").await.unwrap();
    cluster.kill_chunk().await;
    let fresh = Client::new(cluster.config().with_token(token_of(&cluster).await)).unwrap();
    for error in [get(&fresh, blob.blob_id).await.map(drop), put(&fresh, b"y").await.map(drop)] {
        let error = error.unwrap_err();
        assert_eq!(error.category(), Category::Unavailable, "{error}");
        assert!(error.to_string().contains("chunk service"), "{error}");
    }
    cluster.assert_nothing_reserved(&client).await;
}

async fn token_of(cluster: &Cluster) -> String {
    let token = cluster.admin().rotate_tenant_token(Some(&"posts".parse().unwrap())).await.unwrap();
    token.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_dropped_is_given_up() {
    let cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    let (feed, source) = fed();
    let (progress, reached) = when_done(1);
    let options = UploadOptions { progress: Some(progress), ..Default::default() };
    feed_all(&feed, &noise(7, 2 * BLOCK));
    tokio::select! {
        blob = client.upload(source, options) => panic!("it ended: {blob:?}"),
        () = reached.notified() => {}
    }
    client.settle(Duration::from_secs(60)).await;
    cluster.assert_nothing_reserved(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_repeated_or_reported_as_unknown() {
    let cluster = Cluster::start().await;
    let direct = cluster.unlimited("posts").await;
    let proxy = Arc::new(Proxy::start().await);
    proxy.forward_to(cluster.metadata_address());
    let mut config = ClientConfig::new(format!("http://{}", proxy.address())).with_token(token_of(&cluster).await);
    config.call_timeout = Duration::from_millis(300);
    config.retry.unreachable = Duration::from_secs(1);
    let client = Client::new(config.clone()).unwrap();
    let content = noise(9, BLOCK + 1);
    let upload = |client: Client| {
        let (silence, total) = (Arc::clone(&proxy), content.len() as u64);
        let progress: Progress = Arc::new(move |now| silence.mute(now.done_bytes == total));
        let source = Source::Reader(Box::new(std::io::Cursor::new(content.clone())));
        async move { client.upload(source, UploadOptions { progress: Some(progress), ..Default::default() }).await }
    };

    let error = upload(client).await.unwrap_err();
    assert_eq!(error.category(), Category::Unavailable);
    let Error::Unsettled { blob_id, .. } = error else { panic!("{error:?}") };
    assert!(get(&direct, blob_id).await.unwrap() == content, "it was stored, and was not given up");

    proxy.mute(false);
    config.retry.unreachable = Duration::from_secs(60);
    let patient = Client::new(config).unwrap();
    let healing = async {
        used_blobs(&direct, 2).await;
        proxy.mute(false);
        proxy.cut();
    };
    let (blob, ()) = tokio::join!(upload(patient), healing);
    assert!(get(&direct, blob.unwrap().blob_id).await.unwrap() == content);
    let usage = direct.get_tenant(None).await.unwrap().usage.unwrap();
    assert_eq!((usage.used_blobs, usage.reserved_blobs), (2, 0), "the commit had its effect once");
}

/// The answer to a batch of commits was lost, the service then could not be reached, and each blob was said to be refused
/// though it was stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_commit_was_not_heard_leaves_open_what_became_of_each() {
    const COUNT: u64 = 8;
    let cluster = Cluster::start().await;
    let direct = cluster.unlimited("posts").await;
    let proxy = Proxy::start().await;
    proxy.forward_to(cluster.metadata_address());
    let mut config = ClientConfig::new(format!("http://{}", proxy.address())).with_token(token_of(&cluster).await);
    config.call_timeout = Duration::from_millis(300);
    config.retry.unreachable = Duration::from_secs(1);
    let client = Client::new(config).unwrap();
    let contents: Vec<_> = (1..=COUNT).map(|number| noise(number, 3 * KIB)).collect();

    cluster.proxy.hold(true);
    let folder = cluster.chunks_folder();
    let losing = async {
        chunks_stored(&folder, COUNT).await;
        proxy.mute(true);
        cluster.proxy.hold(false);
        used_blobs(&direct, COUNT).await;
        // No one listens any more.
        drop(proxy);
    };
    let batch = contents.iter().map(|content| (content.clone().into(), UploadOptions::default())).collect();
    let (outcomes, ()) = tokio::join!(client.upload_batch(batch), losing);
    for (content, outcome) in contents.iter().zip(outcomes.unwrap()) {
        let Err(Error::Unsettled { blob_id, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(get(&direct, blob_id).await.unwrap() == *content, "it was stored, and was not given up");
    }
    cluster.assert_nothing_reserved(&direct).await;
}

/// Waits until the node has files for so many chunks.
async fn chunks_stored(folder: &Path, count: u64) {
    eventually("the chunks", async || {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let sums = names.filter(|name| name.as_encoded_bytes().ends_with(b".chk")).count() as u64;
        if sums == count { Ok(()) } else { Err(sums) }
    })
    .await;
}

/// Waits until the client's tenant has so many blobs.
async fn used_blobs(client: &Client, count: u64) {
    eventually("the commits", async || {
        let usage = client.get_tenant(None).await.unwrap().usage.unwrap();
        if usage.used_blobs == count { Ok(()) } else { Err(usage) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_blob_whose_first_answer_was_lost_is_taken_by_the_receipt_that_the_node_still_has() {
    let mut cluster = Cluster::start().await;
    let client = cluster.unlimited("posts").await;
    for round in 1..=3 {
        let content = noise(round, 5 * KIB);
        cluster.proxy.mute(true);
        let folder = cluster.chunks_folder();
        let restarting = async {
            chunks_stored(&folder, round).await;
            cluster.proxy.unplug().await;
            cluster.proxy.mute(false);
            cluster.restart_chunk().await;
        };
        let (blob, ()) = tokio::join!(put(&client, &content), restarting);
        assert!(get(&client, blob.unwrap().blob_id).await.unwrap() == content);
    }
}
