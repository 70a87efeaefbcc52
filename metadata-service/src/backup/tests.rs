//! Export and import over real folders: what comes back, what is refused, and what an interruption leaves.

use std::path::Path;
use std::sync::Arc;

use proto::entropy::SeededEntropy;
use proto::runtime::folder;
use proto::token::{Token, TokenKind};

use super::*;
use crate::config::Tuning;
use crate::error::StartError;
use crate::storage::{self, Opening, Paths, Storage};
use crate::store::engine::{Batch, Decision, Engine, EngineError, EngineExt as _, KeyRange, Row};
use crate::store::feed::BEHIND_BYTES_MAX;
use crate::store::keys;
use crate::store::memory::MemoryEngine;
use crate::store::records::{ClusterRecord, Holder, RestoreEnd, RestoreRecord};
use crate::store::rows::{BatchExt as _, RowError, load};
use crate::tokens;

const EXPORT_MS: u64 = 1_700_000_000_000;
const IMPORT_MS: u64 = 1_800_000_000_000;

async fn start(storage: &Path, seed: u64) -> Result<Storage, StartError> {
    let (tuning, entropy) = (Tuning::default(), SeededEntropy::new(seed));
    storage::open(storage, Opening { tuning: &tuning, entropy: &entropy, now_ms: EXPORT_MS }).await
}

async fn import_into(storage: &Path, file: &Path) -> Result<Imported, ImportError> {
    let (tuning, entropy) = (Tuning::default(), SeededEntropy::new(77));
    import(storage, file, Opening { tuning: &tuning, entropy: &entropy, now_ms: IMPORT_MS }).await
}

async fn put(engine: &dyn Engine, batch: Batch) {
    let put = engine.decide(|_view| Ok::<_, RowError>((Decision::frees(batch), ())));
    put.await.unwrap();
}

/// Some hundred rows of no meaning, and a tenant's token.
async fn fill(engine: &dyn Engine) -> Token {
    for part in 0..4_u8 {
        let mut batch = Batch::default();
        (0..100_u8).for_each(|n| batch.put([b"name/".as_slice(), &[part, n]].concat(), vec![n; usize::from(n)]));
        put(engine, batch).await;
    }
    let token = Token::generate(TokenKind::Tenant, &SeededEntropy::new(5));
    let mut batch = Batch::default();
    batch.set(keys::token(token.key_id), &tokens::record(&token, Holder::Tenant("posts".parse().unwrap())));
    batch.put([keys::REQUESTS, b"/some request"].concat(), b"x".to_vec());
    put(engine, batch).await;
    token
}

async fn export(storage: &Storage, with_secrets: bool) -> Vec<u8> {
    let cluster = &storage.cluster;
    let cluster_key = with_secrets.then(|| cluster.secret.clone());
    let scope = ExportScope { cluster: cluster.id, epoch: cluster.epoch, now_ms: EXPORT_MS, cluster_key };
    let mut exporter = Exporter::begin(Arc::clone(&storage.engine), scope).unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = exporter.next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

async fn rows(engine: &dyn Engine) -> Vec<Row> {
    engine.scan(&KeyRange::prefix(b"name/"), usize::MAX).await.unwrap()
}

/// A storage folder with rows, stopped; its export; and a row's token.
async fn exported(folder: &Path, with_secrets: bool) -> (Vec<u8>, Vec<Row>, Token, Paths) {
    let storage = start(folder, 1).await.unwrap();
    let token = fill(storage.engine.as_ref()).await;
    let (bytes, rows) = (export(&storage, with_secrets).await, rows(storage.engine.as_ref()).await);
    storage.engine.close().await;
    (bytes, rows, token, storage.paths)
}

#[tokio::test]
async fn an_import_with_secrets_is_the_same_cluster_in_a_new_epoch_that_waits_for_a_decision() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (bytes, before, token, paths) = exported(folder.path(), true).await;
    let file = other.path().join("export");
    folder::publish(&file, &bytes).unwrap();
    let target = other.path().join("storage");
    let imported = import_into(&target, &file).await.unwrap();
    assert_eq!((imported.epoch, imported.with_secrets), (2, true));
    let again = start(&target, 2).await.unwrap();
    assert_eq!((again.cluster.id, again.cluster.epoch), (imported.cluster, 2));
    let (import_ms, sequence, end) = (IMPORT_MS, imported.sequence, RestoreEnd::Undecided);
    assert_eq!(again.cluster.restores, [RestoreRecord { import_ms, epoch: 1, sequence, end }]);
    assert_eq!(rows(again.engine.as_ref()).await, before);
    let kept = load::<crate::store::records::TokenRecord>(again.engine.as_ref(), &keys::token(token.key_id)).await;
    assert!(kept.unwrap().is_some_and(|row| token.matches(&row.secret_sha256)));
    assert_ne!(std::fs::read(&paths.admin_token).unwrap(), std::fs::read(&again.paths.admin_token).unwrap());
    again.engine.close().await;
}

#[tokio::test]
async fn i18_an_export_without_secrets_holds_no_token_and_no_key_and_its_import_draws_them_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, before, token, paths) = exported(folder.path(), false).await;
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let admin: Token = std::fs::read_to_string(&paths.admin_token).unwrap().trim_end().parse().unwrap();
    assert!(!holds(token.secret_sha256().as_bytes()) && !holds(admin.secret_sha256().as_bytes()));
    assert!(!holds(keys::TOKENS) && !holds(keys::REQUESTS));
    let file = folder.path().join("export");
    folder::publish(&file, &bytes).unwrap();
    std::fs::remove_dir_all(&paths.metadata).unwrap();
    import_into(folder.path(), &file).await.unwrap();
    let again = start(folder.path(), 2).await.unwrap();
    assert_eq!(rows(again.engine.as_ref()).await, before);
    let known = async |token: &Token| again.engine.get(&keys::token(token.key_id)).await.unwrap().is_some();
    assert!(known(&admin).await, "the admin's token beside the folder goes on");
    assert!(!known(&token).await);
    again.engine.close().await;
}

#[tokio::test]
async fn every_cut_flipped_newer_or_longer_export_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let storage = start(folder.path(), 1).await.unwrap();
    let good = export(&storage, true).await;
    storage.engine.close().await;
    let decode = |bytes: &[u8]| -> Result<Summary, MalformedExport> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        while decoder.next_frame()?.is_some() {}
        decoder.finish()
    };
    assert_eq!(decode(&good).unwrap().bytes, good.len() as u64);
    for at in 0..good.len() {
        assert!(decode(&good[..at]).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(decode(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
    let newer = [b"mini-tectonic export v2".as_slice(), &good[MAGIC.len() + 1..]].concat();
    let longer = [good.as_slice(), b"\n"].concat();
    let refusals = [
        (newer, "export version 2, but this program knows versions up to 1"),
        (longer, "something follows its end"),
        (good[..good.len() - 1].to_vec(), "is cut off"),
        (b"PK\x03\x04 and so on".to_vec(), "not a metadata export"),
        (Vec::new(), "is cut off"),
    ];
    let target = folder.path().join("target");
    for (bytes, said) in refusals {
        let file = folder.path().join("export");
        folder::publish(&file, &bytes).unwrap();
        let refused = proto::status::chain(&import_into(&target, &file).await.unwrap_err());
        assert!(refused.contains(said), "{refused}");
        assert!(!target.try_exists().unwrap(), "nothing is written");
    }
}

#[test]
fn an_export_is_read_alike_in_pieces_of_any_length() {
    let header = Header {
        cluster: ClusterId::generate(1, &SeededEntropy::new(1)),
        epoch: 1,
        begins_behind: 3,
        export_ms: 1,
        cluster_key: None,
    };
    let mut encoder = encode::Encoder::new(&header);
    encoder.rows(&[(b"a".as_slice().into(), b"1".as_slice().into())]);
    let large: crate::store::feed::Writes =
        (0..100_u8).map(|n| (vec![1, n], (n % 2 == 0).then(|| vec![n; 4096].into()))).collect();
    encoder.commit(4, large.iter());
    encoder.end();
    let bytes = encoder.take();
    for length in [1, 2, 3, 7, 64, 4096, bytes.len()] {
        let (mut decoder, mut writes) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(length) {
            decoder.push(piece);
            while let Some(frame) = decoder.next_frame().unwrap() {
                if let Frame::Commit(some) = frame {
                    writes.extend(some);
                }
            }
        }
        assert!(
            writes.iter().map(|(key, value)| (key, value.as_deref())).eq(large.iter().map(|(k, v)| (k, v.as_deref())))
        );
        let summary = decoder.finish().unwrap();
        assert_eq!((summary.sequence, summary.rows, summary.commits), (4, 1, 2));
    }
}

#[tokio::test]
async fn a_folder_that_holds_something_or_is_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, before, ..) = exported(folder.path(), true).await;
    let file = folder.path().join("export");
    folder::publish(&file, &bytes).unwrap();
    let refused = import_into(folder.path(), &file).await.unwrap_err();
    assert!(matches!(refused, ImportError::NotEmpty { .. }), "{refused}");
    let running = start(folder.path(), 2).await.unwrap();
    let refused = import_into(folder.path(), &file).await.unwrap_err();
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    assert_eq!((running.cluster.epoch, rows(running.engine.as_ref()).await), (1, before));
    running.engine.close().await;
}

/// The disk for `metadata/` was replaced. The new one was empty but for its file system's own folder, and the import
/// refused it for that.
#[tokio::test]
async fn a_disk_that_was_just_formatted_is_an_empty_folder() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (bytes, before, ..) = exported(folder.path(), true).await;
    let (file, target) = (other.path().join("export"), other.path().join("storage"));
    folder::publish(&file, &bytes).unwrap();
    let own = Paths::of(&target).metadata.join("lost+found");
    folder::create(&own).unwrap();
    import_into(&target, &file).await.unwrap();
    let imported = start(&target, 2).await.unwrap();
    assert_eq!(rows(imported.engine.as_ref()).await, before);
    assert!(own.try_exists().unwrap(), "it is not this program's to remove");
    imported.engine.close().await;
}

#[tokio::test]
async fn an_interrupted_import_is_refused_at_start_and_begun_anew_by_the_next_one() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (bytes, before, ..) = exported(folder.path(), true).await;
    let file = other.path().join("export");
    folder::publish(&file, &bytes).unwrap();
    let (tuning, entropy) = (Tuning::default(), SeededEntropy::new(3));
    let opening = Opening { tuning: &tuning, entropy: &entropy, now_ms: IMPORT_MS };
    let target = other.path().join("storage");
    let half = storage::import::HalfMade::begin(&target, opening).await.unwrap();
    let mut batch = Batch::default();
    batch.put(b"name/of nothing".to_vec(), b"left behind".to_vec());
    put(half.engine.as_ref(), batch).await;
    half.abandon().await;
    drop(half_refused(&target).await);
    import_into(&target, &file).await.unwrap();
    let again = start(&target, 2).await.unwrap();
    assert_eq!(rows(again.engine.as_ref()).await, before);
    again.engine.close().await;
    drop(again);
    // Died between the two last steps.
    folder::publish(&Paths::of(&target).metadata.join("IMPORT"), b"mini-tectonic import v1\n").unwrap();
    half_refused(&target).await;
    import_into(&target, &file).await.unwrap();
    start(&target, 2).await.unwrap().engine.close().await;
}

async fn half_refused(storage: &Path) -> StartError {
    let refused = start(storage, 2).await.unwrap_err();
    assert!(refused.to_string().contains("an import that did not come to its end"), "{refused}");
    refused
}

#[tokio::test]
async fn an_export_of_something_that_is_no_cluster_or_with_anothers_key_is_refused() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut storage = start(folder.path(), 1).await.unwrap();
    let stranger = start(other.path(), 2).await.unwrap();
    let file = folder.path().join("export");
    let target = folder.path().join("target");
    let refuse = async |bytes: &[u8], said: &str| {
        folder::publish(&file, bytes).unwrap();
        let refused = import_into(&target, &file).await.unwrap_err();
        assert!(refused.to_string().contains(said), "{refused}");
        assert!(!target.try_exists().unwrap());
    };
    let own = storage.cluster.clone();
    storage.cluster.secret = stranger.cluster.secret.clone();
    refuse(&export(&storage, true).await, "the key in it is not that of its cluster").await;
    storage.cluster = crate::service::Cluster { id: stranger.cluster.id, ..own.clone() };
    refuse(&export(&storage, true).await, "another cluster's").await;
    storage.cluster = own;
    let row: ClusterRecord = load(storage.engine.as_ref(), &keys::cluster()).await.unwrap().unwrap();
    let mut batch = Batch::default();
    batch.set(keys::cluster(), &ClusterRecord { schema: 2, ..row });
    put(storage.engine.as_ref(), batch).await;
    refuse(&export(&storage, true).await, "of schema version 2, but this program knows versions up to 1").await;
    stranger.engine.close().await;
    storage.engine.close().await;
    drop(storage);
    let refused = start(folder.path(), 1).await.unwrap_err();
    assert!(refused.to_string().contains("schema version 2, but this program knows versions up to 1"), "{refused}");
}

#[tokio::test]
async fn i17_an_export_that_is_not_read_is_cut_off_when_too_many_commits_wait_for_it() {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let cluster = ClusterId::generate(1, &SeededEntropy::new(1));
    let scope = ExportScope { cluster, epoch: 1, now_ms: 1, cluster_key: None };
    let mut export = Exporter::begin(Arc::clone(&engine), scope).unwrap();
    for n in 0..=BEHIND_BYTES_MAX / (100 * 4096) {
        let mut batch = Batch::default();
        (0..100_u8).for_each(|key| batch.put(vec![key + 1], vec![u8::try_from(n).unwrap(); 4096]));
        put(engine.as_ref(), batch).await;
    }
    assert!(matches!(export.next().await, Err(EngineError::FellBehind)));
}
