//! Services that are killed and come back (I1, I3), damage on disk (I2), uploads that nobody ends (I11).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mini_tectonic_client::{Category, DownloadOptions, Sink};
use proto::pb;
use proto::runtime::clock::{Clock as _, ManualClock, SystemClock};

use crate::cluster::{Cluster, content, get, put};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_the_death_of_either_service() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let mut kept = Vec::new();
    for round in 0..4 {
        let bytes = content(300_000 + round, round as u64);
        kept.push((put(&client, "kept", &bytes).await.blob_id, bytes));
        if round % 2 == 0 {
            cluster.restart_metadata().await;
        } else {
            cluster.restart_chunk().await;
        }
        for (blob, bytes) in &kept {
            assert!(get(&client, *blob).await == *bytes, "round {round}");
        }
    }
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_service_serves_reads_it_has_permission_for_while_the_metadata_service_is_down() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let blob = put(&client, "kept", &content(1_000, 1)).await;
    let mut raw = crate::contract::metadata_client(&cluster).await;
    let token = std::fs::read_to_string(cluster.storage().join("admin.token")).unwrap();
    let rotate = pb::RotateTenantTokenRequest { tenant_id: "posts".to_owned(), request_id: String::new() };
    let rotate = crate::contract::with_bearer(rotate, token.trim());
    let tenant_token = raw.rotate_tenant_token(rotate).await.unwrap().into_inner().token;
    let layout = pb::GetBlobLayoutRequest { blob_id: blob.blob_id.to_string(), ..Default::default() };
    let layout = crate::contract::with_bearer(layout, &tenant_token);
    let layout = raw.get_blob_layout(layout).await.unwrap().into_inner();
    let chunk = layout.blocks[0].chunks[0].clone();

    cluster.kill_metadata();
    let endpoint = cluster.chunk_endpoint();
    let mut node = pb::chunk_service_client::ChunkServiceClient::connect(endpoint).await.unwrap();
    let read = pb::ReadChunkRequest { chunk_id: chunk.chunk_id, read_offset: 0, read_limit: 0 };
    let mut stream = node.read_chunk(crate::contract::with_bearer(read, &chunk.capability)).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        bytes.extend_from_slice(&message.data.unwrap_or_default().content);
    }
    assert!(bytes == content(1_000, 1));
    cluster.restart_metadata().await;
    cluster.check().await;
}

fn only_blob_file(cluster: &Cluster) -> PathBuf {
    let files = std::fs::read_dir(cluster.chunks_folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut blobs: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "blob")).collect();
    assert_eq!(blobs.len(), 1);
    blobs.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_disk_is_data_loss_and_leaves_no_output() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let bytes = content(200_000, 1);
    let blob = put(&client, "victim", &bytes).await;
    let path = only_blob_file(&cluster);
    let flipped = {
        let mut damaged = bytes.clone();
        damaged[100_000] ^= 1;
        damaged
    };
    let extended = [bytes.as_slice(), b"x"].concat();
    for (what, damaged) in [("one bit", flipped), ("truncated", bytes[..199_999].to_vec()), ("extended", extended)] {
        std::fs::write(&path, damaged).unwrap();
        let output = cluster.scratch("output");
        let refused =
            client.download(blob.blob_id, DownloadOptions::default(), Sink::File(output.clone())).await.unwrap_err();
        assert_eq!(refused.category(), Category::DataLoss, "{what}: {refused}");
        assert!(!output.exists(), "{what}: nothing may be left");
    }
    std::fs::remove_file(&path).unwrap();
    let buffer = crate::cluster::SharedBuffer::default();
    let sink = Sink::Writer(Box::new(buffer.clone()));
    let refused = client.download(blob.blob_id, DownloadOptions::default(), sink).await.unwrap_err();
    assert_eq!(refused.category(), Category::DataLoss, "missing: {refused}");
    assert!(buffer.take().is_empty());

    std::fs::write(&path, &bytes).unwrap();
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_missing_checksum_file_is_rebuilt_from_the_metadata() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let bytes = content(200_000, 1);
    let blob = put(&client, "victim", &bytes).await;
    let chk = PathBuf::from(format!("{}.chk", only_blob_file(&cluster).display()));
    let good = std::fs::read(&chk).unwrap();
    for damaged in [Some(b"garbage".to_vec()), Some(good[..good.len() - 1].to_vec()), None] {
        match damaged {
            Some(damaged) => std::fs::write(&chk, damaged).unwrap(),
            None => std::fs::remove_file(&chk).unwrap(),
        }
        assert!(get(&client, blob.blob_id).await == bytes);
        crate::wait::wait_until("the file is rebuilt", crate::cluster::DEADLINE, || async {
            let now = std::fs::read(&chk).unwrap_or_default();
            if now == good { Ok(()) } else { Err(String::from_utf8_lossy(&now).into_owned()) }
        })
        .await;
    }
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nobody_ends_gives_its_reservation_back_when_its_lease_is_over() {
    let clock = Arc::new(ManualClock::at(SystemClock.now_ms()));
    let mut cluster = Cluster::builder().clock(Arc::clone(&clock) as _).build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let token = client_token(&cluster).await;
    let mut raw = crate::contract::metadata_client(&cluster).await;
    let start = pb::StartUploadRequest { size_bytes: Some(5), ..Default::default() };
    raw.start_upload(crate::contract::with_bearer(start, &token)).await.unwrap();
    let reserved = || async { client.get_tenant(None).await.unwrap().usage.unwrap().reserved_bytes };
    assert_eq!(reserved().await, 5);
    clock.advance(Duration::from_secs(2 * 60 * 60));
    let pass = cluster.metadata().sweep_uploads().await.unwrap();
    assert_eq!((pass.changed, reserved().await), (1, 0));
    cluster.check().await;
}

async fn client_token(cluster: &Cluster) -> String {
    let mut raw = crate::contract::metadata_client(cluster).await;
    let admin = std::fs::read_to_string(cluster.storage().join("admin.token")).unwrap();
    let rotate = pb::RotateTenantTokenRequest { tenant_id: "posts".to_owned(), request_id: String::new() };
    raw.rotate_tenant_token(crate::contract::with_bearer(rotate, admin.trim())).await.unwrap().into_inner().token
}
