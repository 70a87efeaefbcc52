//! Damage on disk (I2, I13): found by the scrub or by whoever reads, told with whose it is, never served, never deleted.

use std::path::{Path, PathBuf};

use mini_tectonic_client::{Category, DownloadOptions, Sink};
use proto::pb;
use tokio_stream::StreamExt as _;

use crate::cluster::{Cluster, DEADLINE, content, get, put};
use crate::wait::wait_until;

async fn damaged(cluster: &Cluster) -> Vec<pb::DamagedChunk> {
    cluster.admin().list_damaged_chunks().map(Result::unwrap).collect().await
}

/// The one file with these bytes.
fn file_with(folder: &Path, bytes: &[u8]) -> PathBuf {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths = paths.filter(|path| path.extension().is_some_and(|kind| kind == "blob"));
    paths.find(|path| std::fs::read(path).unwrap() == bytes).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.get_mut(at).unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn checksum_file(blob: &Path) -> PathBuf {
    blob.with_extension("blob.chk")
}

/// What an operator without this program would do.
fn coreutils_agree(folder: &Path, chk: &Path) -> bool {
    let mut check = std::process::Command::new("sha256sum");
    check.args(["-c", "--quiet", "--strict"]).arg(chk).current_dir(folder).status().unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_found_told_left_in_place_and_forgotten_when_it_is_restored() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let (bytes, other) = (content(200_000, 1), content(100_000, 2));
    let blob = put(&client, "damaged", &bytes).await;
    put(&client, "sound", &other).await;
    let file = file_with(&cluster.chunks_folder(), &bytes);
    flip(&file, 70_000);
    let pass = cluster.chunk().scrub_now().await.unwrap();
    assert_eq!((pass.examined, pass.failed), (2, 1));

    let status = cluster.admin().cluster_status().await.unwrap();
    assert_eq!(status.damaged_chunk_count, 1);
    assert!(status.warnings.iter().any(|warning| warning.contains("1 chunk is missing or damaged")), "{status:?}");
    let told = damaged(&cluster).await;
    assert_eq!(told.len(), 1);
    let told = told.first().unwrap();
    assert_eq!((told.tenant_id.as_str(), told.blob_id.as_str()), ("posts", blob.blob_id.to_string().as_str()));
    assert_eq!(told.condition(), pb::ChunkCondition::Corrupt);
    assert_eq!(told.detail, "1 of 4 pieces of 64 KiB do not match; the first begins at byte 65536");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 200_000, "the file is where it was");
    let output = cluster.scratch("output");
    let sink = Sink::File(output.clone());
    let refused = client.download(blob.blob_id, DownloadOptions::default(), sink).await.unwrap_err();
    assert_eq!(refused.category(), Category::DataLoss);
    assert!(!output.exists());

    flip(&file, 70_000);
    assert_eq!(cluster.chunk().scrub_now().await.unwrap().failed, 0);
    assert!(damaged(&cluster).await.is_empty());
    assert!(get(&client, blob.blob_id).await == bytes);
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checksum_file_is_written_again_kept_aside_and_is_no_damage() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let bytes = content(200_000, 1);
    put(&client, "n", &bytes).await;
    let folder = cluster.chunks_folder();
    let chk = checksum_file(&file_with(&folder, &bytes));
    // Within the SHA-256 itself, so that coreutils notice too.
    let digest = std::fs::read_to_string(&chk).unwrap().find(".blob\n").unwrap() - 60;
    flip(&chk, digest);
    assert!(!coreutils_agree(&folder, &chk));
    let pass = cluster.chunk().scrub_now().await.unwrap();
    assert_eq!((pass.examined, pass.changed, pass.failed), (1, 1, 0));
    assert!(coreutils_agree(&folder, &chk));
    assert!(damaged(&cluster).await.is_empty());
    assert_eq!(std::fs::read_dir(folder.join(".quarantine")).unwrap().count(), 1);
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_files_and_missing_ones_are_found_though_every_pair_on_the_disk_agrees() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let contents = [content(5_000, 1), content(5_001, 2), content(5_002, 3)];
    for bytes in &contents {
        put(&client, "n", bytes).await;
    }
    let folder = cluster.chunks_folder();
    let [one, other, lost] = contents.each_ref().map(|bytes| file_with(&folder, bytes));
    let swap = |a: &Path, b: &Path| {
        let aside = folder.join("aside");
        std::fs::rename(a, &aside).unwrap();
        std::fs::rename(b, a).unwrap();
        std::fs::rename(&aside, b).unwrap();
    };
    swap(&one, &other);
    swap(&checksum_file(&one), &checksum_file(&other));
    std::fs::rename(&lost, folder.parent().unwrap().join("elsewhere")).unwrap();
    cluster.chunk().scrub_now().await.unwrap();
    let mut conditions: Vec<_> = damaged(&cluster).await.iter().map(pb::DamagedChunk::condition).collect();
    conditions.sort();
    let corrupt = pb::ChunkCondition::Corrupt;
    assert_eq!(conditions, [corrupt, corrupt, pb::ChunkCondition::Missing]);

    swap(&one, &other);
    swap(&checksum_file(&one), &checksum_file(&other));
    std::fs::rename(folder.parent().unwrap().join("elsewhere"), &lost).unwrap();
    cluster.restart_metadata().await;
    cluster.chunk().scrub_now().await.unwrap();
    assert!(damaged(&cluster).await.is_empty());
    cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_read_meets_is_told_soon_after() {
    let mut cluster = Cluster::builder().build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let bytes = content(50_000, 1);
    let blob = put(&client, "n", &bytes).await;
    let file = file_with(&cluster.chunks_folder(), &bytes);
    flip(&file, 7);
    let sink = Sink::File(cluster.scratch("output"));
    client.download(blob.blob_id, DownloadOptions::default(), sink).await.unwrap_err();
    let told = wait_until("the damage is told", DEADLINE, || async {
        let told = damaged(&cluster).await;
        if told.is_empty() { Err("nothing") } else { Ok(told) }
    });
    assert_eq!(told.await.len(), 1);
    flip(&file, 7);
    cluster.chunk().scrub_now().await.unwrap();
    assert!(damaged(&cluster).await.is_empty());
    cluster.check().await;
}
