//! Folders of earlier and of later versions: the first landed version's still opens, a later one's is refused by name.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use metadata_service::config::Tuning;
use metadata_service::storage::{self, Opening};
use mini_tectonic_client::{Blob, ListOptions};
use proto::checksum::crc32c;
use proto::entropy::OsEntropy;
use proto::runtime::clock::ManualClock;
use tempfile::TempDir;
use tokio_stream::StreamExt as _;

use crate::cluster::{Cluster, get, put};

/// A little after the fixture was made: its open upload still has its lease.
const THEN_MS: u64 = 1_795_453_320_000;

/// The folder of the first version, as it was left by a kill.
fn first_version() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/storage.tar.gz");
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()).status().unwrap();
    assert!(unpacked.success());
    folder
}

fn content_of(name: &str) -> Vec<u8> {
    match name {
        "empty" => Vec::new(),
        "hello" => b"hello, version 1\n".to_vec(),
        "blocks" => (0..150_000_u64).map(|i| u8::try_from((i * i / 7 + i) % 251).unwrap()).collect(),
        other => panic!("the fixture has no blob {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_the_first_version_opens_and_every_byte_of_it_is_read() {
    let clock = Arc::new(ManualClock::at(THEN_MS));
    let mut cluster = Cluster::builder().clock(clock).build_in(first_version()).await;
    let client = cluster.known_tenant("posts").await;
    let blobs: Vec<Blob> = client.list_blobs(ListOptions::default()).collect::<Result<_, _>>().await.unwrap();
    assert_eq!(blobs.len(), 3);
    for blob in &blobs {
        assert!(get(&client, blob.blob_id).await == content_of(&blob.display_name), "{blob:?}");
    }
    let usage = client.get_tenant(None).await.unwrap().usage.unwrap();
    assert_eq!((usage.used_blobs, usage.used_bytes), (3, 150_017));
    assert_eq!((usage.reserved_blobs, usage.reserved_bytes), (1, 262_144), "the open upload is still open");
    assert_eq!((usage.retained_blobs, usage.retained_bytes), (1, 17), "the deleted blob is still retained");
    let added = put(&client, "added", b"by today's version").await;
    let identity = std::fs::read_to_string(cluster.storage().join("chunks/IDENTITY")).unwrap();
    assert!(
        identity.starts_with("mini-tectonic chunks v2\n"),
        "the first version's program would not know of the journal"
    );
    cluster.restart_metadata().await;
    assert_eq!(get(&client, added.blob_id).await, b"by today's version");
    cluster.check().await;
}

/// Makes the folder's IDENTITY that of a later version, as a later program would have written it.
fn bump_identity(folder: &Path, version: u32) {
    let path = folder.join("IDENTITY");
    let text = std::fs::read_to_string(&path).unwrap().replacen(" v1\n", &format!(" v{version}\n"), 1);
    let covered = text.split_once("end crc32c=").unwrap().0;
    std::fs::write(&path, format!("{covered}end crc32c={:08x}\n", crc32c(covered.as_bytes()))).unwrap();
}

fn bump_first_line(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, text.replacen(" v1\n", " v2\n", 1)).unwrap();
}

async fn metadata_refusal(storage: &Path) -> String {
    let tuning = Tuning::default();
    let opening = Opening { tuning: &tuning, entropy: &OsEntropy, now_ms: THEN_MS };
    proto::status::chain(&storage::open(storage, opening).await.unwrap_err())
}

async fn chunk_refusal(storage: &Path) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = chunk_service::Config::new(storage);
    let start = chunk_service::start(config, listener, chunk_service::Deps::default(), Default::default());
    proto::status::chain(&start.await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_later_version_is_refused_with_its_name_its_version_and_the_one_known_here() {
    let says_version = |refusal: &str, file: &str, found: u32| {
        let versions = [format!("format version {found}"), format!("up to {}", found - 1)];
        assert!(refusal.contains(file) && versions.iter().all(|version| refusal.contains(version)), "{refusal}");
    };
    let says = |refusal: &str, file: &str| says_version(refusal, file, 2);
    let folder = first_version();
    let (storage, metadata, chunks) =
        (folder.path().join("storage"), folder.path().join("storage/metadata"), folder.path().join("storage/chunks"));
    // Tokens are read by a first start that goes on where another was interrupted.
    let identity = std::fs::read(metadata.join("IDENTITY")).unwrap();
    std::fs::remove_file(metadata.join("IDENTITY")).unwrap();
    std::fs::write(storage.join("admin.token"), "ma2.anything\n").unwrap();
    says(&metadata_refusal(&storage).await, "storage/admin.token");
    std::fs::write(metadata.join("IDENTITY"), identity).unwrap();
    std::fs::write(metadata.join("cluster.key"), "mini-tectonic cluster key v2\n").unwrap();
    says(&metadata_refusal(&storage).await, "metadata/cluster.key");
    bump_identity(&metadata, 2);
    says(&metadata_refusal(&storage).await, "metadata/IDENTITY");
    bump_first_line(&chunks.join("node.key"));
    says(&chunk_refusal(&storage).await, "chunks/node.key");
    bump_identity(&chunks, 3);
    says_version(&chunk_refusal(&storage).await, "chunks/IDENTITY", 3);
}
