//! Metadata that are lost and restored from an older export: nothing is destroyed before it is decided (I16).

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metadata_service::backup::{self, Imported};
use metadata_service::config::Tuning;
use metadata_service::storage::Opening;
use mini_tectonic_client::{Blob, Category, CheckEvent, Client, DownloadOptions, Reason, Sink, Source, UploadOptions};
use proto::entropy::OsEntropy;
use proto::pb;
use proto::runtime::clock::{Clock as _, ManualClock, SystemClock};
use tokio_stream::StreamExt as _;

use crate::cluster::{Cluster, DEADLINE, SharedBuffer, content, get, put};
use crate::wait::wait_until;

async fn export(cluster: &Cluster, include_secrets: bool) -> PathBuf {
    let pieces = cluster.admin().export_metadata(include_secrets).await.unwrap();
    let pieces: Vec<_> = pieces.collect::<Result<_, _>>().await.unwrap();
    let file = cluster.scratch("export");
    std::fs::write(&file, pieces.concat()).unwrap();
    file
}

/// The metadata's disk dies; what was exported is put on a new one.
async fn lose_and_restore(cluster: &mut Cluster, file: PathBuf, now_ms: u64) -> Imported {
    cluster.kill_metadata();
    let metadata = cluster.storage().join("metadata");
    let lost = || async { std::fs::remove_dir_all(&metadata).map_err(|error| error.to_string()) };
    wait_until("the metadata are gone", DEADLINE, lost).await;
    let tuning = Tuning::default();
    let opening = Opening { tuning: &tuning, entropy: &OsEntropy, now_ms };
    let imported = backup::import(&cluster.storage(), &file, opening).await.unwrap();
    cluster.restart_metadata().await;
    imported
}

fn files(cluster: &Cluster) -> BTreeSet<String> {
    let entries = std::fs::read_dir(cluster.chunks_folder()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".blob")).collect()
}

/// What a check finds. A node that just learnt the time may refuse at first.
async fn findings(cluster: &Cluster, request: pb::CheckClusterRequest) -> Vec<pb::Finding> {
    let found = || async {
        let events: Vec<_> = cluster.admin().check_cluster(request).await.unwrap().collect().await;
        let found = events.into_iter().filter_map(|event| match event.unwrap() {
            CheckEvent::Finding(finding) => Some(finding),
            CheckEvent::Summary(_) => None,
        });
        let found: Vec<_> = found.collect();
        let unreachable = |one: &pb::Finding| one.kind() == pb::FindingKind::NodeUnreachable;
        if found.iter().any(unreachable) { Err(found) } else { Ok(found) }
    };
    wait_until("the node can be checked", DEADLINE, found).await
}

const DRY_RUN: pb::CheckClusterRequest = pb::CheckClusterRequest { repair: false, skip_bytes: false };

/// The check lists the chunk of this blob, with what its checksum file says, and nothing else.
async fn lists_only(cluster: &Cluster, lost: &Blob) {
    let found = findings(cluster, DRY_RUN).await;
    let [one] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (one.kind(), one.blob_id.as_str()),
        (pb::FindingKind::ChunkOfLostTime, lost.blob_id.to_string().as_str())
    );
    let says = [format!("blob {}", lost.blob_id), format!("{} bytes", lost.size_bytes), lost.sha256.to_string()];
    assert!(says.iter().all(|words| one.detail.contains(words)) && one.repair.is_empty(), "{one:?}");
    assert!(files(cluster).contains(&format!("{}.blob", one.chunk_id)));
}

/// Everything that may collect, several times, past every grace.
async fn collect(cluster: &Cluster, clock: &ManualClock) {
    for _sweep in 0..3 {
        clock.advance(Duration::from_secs(3 * 24 * 60 * 60));
        // A node that was not heard of since the jump is passed over.
        let heard = || async {
            let nodes = status(cluster).await.nodes;
            if nodes.iter().all(|node| node.state() == pb::NodeState::Alive) { Ok(()) } else { Err(nodes) }
        };
        wait_until("the node is heard of", DEADLINE, heard).await;
        let swept = || async {
            let metadata = cluster.metadata();
            metadata.sweep_uploads().await?;
            // An orphan is one that two sweeps in a row have seen.
            for _sweep in 0..2 {
                if metadata.sweep_orphans().await?.failed > 0 {
                    return Err(status(cluster).await.warnings.join("; "));
                }
            }
            let mut pass = metadata.collect_garbage().await?;
            while pass.more && pass.failed == 0 {
                pass = metadata.collect_garbage().await?;
            }
            if pass.failed > 0 { Err(format!("{pass:?}")) } else { Ok(()) }
        };
        wait_until("a sweep succeeds", DEADLINE, swept).await;
    }
}

async fn status(cluster: &Cluster) -> pb::GetClusterStatusResponse {
    cluster.admin().cluster_status().await.unwrap()
}

async fn refusal(client: &Client, blob: mini_tectonic_client::BlobId) -> Category {
    let sink = Sink::Writer(Box::new(SharedBuffer::default()));
    client.download(blob, DownloadOptions::default(), sink).await.unwrap_err().category()
}

#[tokio::test(flavor = "multi_thread")]
async fn i16_after_an_import_nothing_is_destroyed_until_it_is_decided_and_then_only_what_was_given_up() {
    let clock = Arc::new(ManualClock::at(SystemClock.now_ms()));
    let builder = Cluster::builder().clock(Arc::clone(&clock) as _);
    let often = |tuning: &mut Tuning| tuning.heartbeat_interval = Duration::from_millis(100);
    let mut cluster = builder.metadata(often).build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let (old, deleted) = (content(200_000, 1), content(1_000, 2));
    let (kept, back) = (put(&client, "kept", &old).await, put(&client, "deleted later", &deleted).await);
    let file = export(&cluster, true).await;
    let lost = put(&client, "put later", &content(3_000, 3)).await;
    client.delete_blob(back.blob_id).await.unwrap();

    let imported = lose_and_restore(&mut cluster, file, clock.now_ms()).await;
    assert_eq!((imported.epoch, status(&cluster).await.epoch), (2, 2));
    assert!(get(&client, kept.blob_id).await == old, "tokens and nodes go on");
    assert!(get(&client, back.blob_id).await == deleted, "deleted after the export");
    assert_eq!(refusal(&client, lost.blob_id).await, Category::NotFound);
    let all = files(&cluster);
    assert_eq!(all.len(), 3);
    lists_only(&cluster, &lost).await;
    for _restart in 0..2 {
        collect(&cluster, &clock).await;
        lists_only(&cluster, &lost).await;
        assert_eq!(files(&cluster), all, "undecided, everything stays");
        let restore = status(&cluster).await.restore.expect("it asks for a decision");
        assert_eq!((restore.epoch, restore.sequence), (1, imported.sequence));
        cluster.restart_metadata().await;
    }
    let since = put(&client, "since", &content(4_000, 4)).await;
    let all = files(&cluster);

    cluster.admin().end_restore(pb::LostTime::Keep).await.unwrap();
    collect(&cluster, &clock).await;
    assert_eq!((files(&cluster), status(&cluster).await.restore), (all, None), "kept");
    lists_only(&cluster, &lost).await;
    cluster.restart_metadata().await;
    cluster.admin().end_restore(pb::LostTime::Discard).await.unwrap();
    let refused = cluster.admin().end_restore(pb::LostTime::Keep).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::NotRestored));
    let gone = || async {
        collect(&cluster, &clock).await;
        let left = files(&cluster).len();
        if left == 3 { Ok(()) } else { Err(left) }
    };
    wait_until("what was put after the export is gone", DEADLINE, gone).await;
    assert!(get(&client, kept.blob_id).await == old && get(&client, since.blob_id).await == content(4_000, 4));
    assert_eq!(findings(&cluster, DRY_RUN).await, []);
    cluster.check().await;
}

/// What a check lists as of the lost time.
async fn chunks_of_lost_time(cluster: &Cluster) -> usize {
    let found = findings(cluster, pb::CheckClusterRequest { repair: true, skip_bytes: true }).await;
    found.iter().filter(|one| one.kind() == pb::FindingKind::ChunkOfLostTime).count()
}

/// An upload was open at the export, and its blob was acknowledged after it. For the restored metadata it was an upload
/// whose writer had gone: it expired, and the blob's bytes were collected although the lost time was to be kept.
#[tokio::test(flavor = "multi_thread")]
async fn i16_what_was_being_uploaded_at_the_export_stays_until_it_is_given_up() {
    let clock = Arc::new(ManualClock::at(SystemClock.now_ms()));
    let builder = Cluster::builder().clock(Arc::clone(&clock) as _);
    let often = |tuning: &mut Tuning| tuning.heartbeat_interval = Duration::from_millis(100);
    let mut cluster = builder.metadata(often).build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let (reader, mut writer) = std::io::pipe().unwrap();
    let uploading = tokio::spawn({
        let client = client.clone();
        async move { client.upload(Source::Reader(Box::new(reader)), UploadOptions::default()).await }
    });
    let open = || async {
        let usage = client.get_tenant(None).await.unwrap().usage.unwrap();
        if usage.reserved_blobs == 1 { Ok(()) } else { Err(usage) }
    };
    wait_until("the upload is open", DEADLINE, open).await;
    let file = export(&cluster, true).await;
    writer.write_all(&content(3_000, 1)).unwrap();
    drop(writer);
    uploading.await.unwrap().unwrap();
    let committed = files(&cluster);
    assert_eq!(committed.len(), 1);

    lose_and_restore(&mut cluster, file, clock.now_ms()).await;
    collect(&cluster, &clock).await;
    assert_eq!((files(&cluster), chunks_of_lost_time(&cluster).await), (committed.clone(), 1), "undecided");
    cluster.admin().end_restore(pb::LostTime::Keep).await.unwrap();
    collect(&cluster, &clock).await;
    cluster.restart_metadata().await;
    collect(&cluster, &clock).await;
    assert_eq!((files(&cluster), chunks_of_lost_time(&cluster).await), (committed, 1), "kept");
    assert_eq!(client.get_tenant(None).await.unwrap().usage, Some(pb::Usage::default()), "it has expired nevertheless");
    cluster.admin().end_restore(pb::LostTime::Discard).await.unwrap();
    let gone = || async {
        collect(&cluster, &clock).await;
        if files(&cluster).is_empty() { Ok(()) } else { Err(files(&cluster)) }
    };
    wait_until("what was given up is gone", DEADLINE, gone).await;
    assert_eq!(chunks_of_lost_time(&cluster).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_import_without_secrets_nodes_join_once_more_and_every_blob_is_readable() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let bytes = content(200_000, 1);
    let blob = put(&client, "kept", &bytes).await;
    let file = export(&cluster, false).await;
    let imported = lose_and_restore(&mut cluster, file, SystemClock.now_ms()).await;
    assert!(!imported.with_secrets);
    assert_eq!(client.get_tenant(None).await.unwrap_err().reason(), Some(Reason::TokenInvalid));
    cluster.rejoin_chunk().await;
    let client = cluster.known_tenant("posts").await;
    assert!(get(&client, blob.blob_id).await == bytes);
    let added = put(&client, "added", &bytes).await;
    cluster.restart_chunk().await;
    assert!(get(&client, added.blob_id).await == bytes, "the new keys were kept");
    cluster.check().await;
}
