//! The check of a whole cluster: every class of damage that is planted is found, what can be repaired is, and the next
//! check finds nothing more.

use std::path::PathBuf;
use std::time::Duration;

use metadata_service::offline::Offline;
use metadata_service::store::engine::{Batch, Decision, EngineExt as _, KeyRange};
use metadata_service::store::keys::{self, Garbage, GarbageKind};
use metadata_service::store::records::{Damage, DamageRecord, ExtentRecord, Holder, NameRecord, UsageRecord};
use metadata_service::store::rows::{BatchExt as _, RowError};
use mini_tectonic_client::{Blob, CheckEvent, Client};
use proto::entropy::OsEntropy;
use proto::ids::{BlobId, BlockId, ChunkId, NodeId, TenantId};
use proto::pb;
use proto::pb::FindingKind;
use proto::runtime::{Clock as _, SystemClock};
use tokio_stream::StreamExt as _;

use crate::cluster::{Cluster, DEADLINE, content, put};
use crate::wait::wait_until;

const BLOCK_BYTES: u64 = 1 << 16;

/// A cluster with a blob of three blocks, one of one block, an empty one and a deleted one.
struct Checked {
    cluster: Cluster,
    client: Client,
    large: Blob,
    small: Blob,
}

async fn cluster() -> Checked {
    let mut cluster = Cluster::builder().metadata(|tuning| tuning.block_bytes_unknown_size = BLOCK_BYTES).build().await;
    let client = cluster.tenant("posts", pb::Quota::default()).await;
    let large = put(&client, "large", &content(150_000, 1)).await;
    let small = put(&client, "small", &content(5_000, 2)).await;
    put(&client, "empty", &[]).await;
    let deleted = put(&client, "deleted", &content(100_000, 3)).await;
    client.delete_blob(deleted.blob_id).await.unwrap();
    Checked { cluster, client, large, small }
}

fn posts() -> TenantId {
    "posts".parse().unwrap()
}

impl Checked {
    async fn check(&self, repair: bool) -> (Vec<pb::Finding>, pb::CheckSummary) {
        self.check_with(pb::CheckClusterRequest { repair, skip_bytes: false }).await
    }

    async fn check_with(&self, request: pb::CheckClusterRequest) -> (Vec<pb::Finding>, pb::CheckSummary) {
        let mut events = self.cluster.admin().check_cluster(request).await.unwrap();
        let (mut findings, mut summary) = (Vec::new(), None);
        while let Some(event) = events.next().await.transpose().unwrap() {
            match event {
                CheckEvent::Finding(finding) => findings.push(finding),
                CheckEvent::Summary(last) => summary = Some(last),
            }
        }
        let summary = summary.unwrap();
        assert_eq!(summary.finding_count, findings.len() as u64);
        (findings, summary)
    }

    /// The only finding, and that a repair leaves nothing behind.
    async fn finds_and_repairs(&self, kind: FindingKind) -> pb::Finding {
        let found = self.finds(kind).await;
        assert!(!found.repaired && !found.repair.is_empty(), "{found:?}");
        let (again, _) = self.check(false).await;
        assert_eq!(again, std::slice::from_ref(&found), "a check that does not repair changes nothing");
        let (repaired, summary) = self.check(true).await;
        assert_eq!((repaired.len(), summary.repaired_count), (1, 1), "{repaired:?}");
        assert!(repaired[0].repaired);
        let (left, _) = self.check(false).await;
        assert_eq!(left, [], "nothing is left");
        found
    }

    async fn finds(&self, kind: FindingKind) -> pb::Finding {
        let (mut findings, _) = self.check(false).await;
        assert_eq!(findings.len(), 1, "{findings:?}");
        let found = findings.remove(0);
        assert_eq!(found.kind(), kind, "{found:?}");
        found
    }

    /// Changes rows while the metadata service is away.
    async fn plant(&mut self, plant: impl FnOnce(&Planter, &mut Batch)) {
        self.cluster.kill_metadata();
        let storage = self.cluster.storage();
        let open = || async {
            let deps = metadata_service::Deps::default();
            Offline::open(&storage, metadata_service::Tuning::default(), &deps).await.map_err(|error| error.to_string())
        };
        let offline = wait_until("the metadata are free", DEADLINE, open).await;
        let engine = offline.service().engine();
        let rows = engine.scan(&KeyRange::prefix(b""), usize::MAX).await.unwrap();
        let planter = Planter { rows: rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect() };
        let mut batch = Batch::default();
        plant(&planter, &mut batch);
        let planted = engine.decide(move |_view| Ok::<_, RowError>((Decision::frees(batch), ())));
        planted.await.unwrap();
        offline.close().await;
        self.cluster.restart_metadata().await;
    }

    fn file(&self, suffix: &str, longer_than: u64) -> PathBuf {
        let files = std::fs::read_dir(self.cluster.chunks_folder()).unwrap().map(|entry| entry.unwrap());
        let mut files = files.filter(|entry| entry.file_name().to_string_lossy().ends_with(suffix));
        let long = |entry: &std::fs::DirEntry| entry.metadata().unwrap().len() == longer_than;
        files.find(long).expect("a file of this size").path()
    }
}

/// The rows as they were.
struct Planter {
    rows: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Planter {
    fn first(&self, prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
        self.rows.iter().find(|(key, _)| key.starts_with(prefix)).expect("a row of this layer").clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_cluster_has_no_findings_and_everything_was_looked_at() {
    let checked = cluster().await;
    let (findings, summary) = checked.check(false).await;
    assert_eq!(findings, []);
    assert_eq!((summary.tenant_count, summary.blob_count, summary.lost_blob_count), (1, 3, 0));
    assert_eq!((summary.chunk_reference_count, summary.verified_chunk_count), (4, 4));
    assert_eq!((summary.verified_bytes, summary.chunk_file_count), (155_000, 6));
    let (findings, summary) = checked.check_with(pb::CheckClusterRequest { repair: false, skip_bytes: true }).await;
    assert_eq!((findings, summary.verified_bytes), (vec![], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_flipped_byte_is_data_loss_and_says_whose_and_the_bytes_stay() {
    let checked = cluster().await;
    let path = checked.file(".blob", 5_000);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[77] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let found = checked.finds(FindingKind::DataLost).await;
    assert_eq!((found.tenant_id.as_str(), found.blob_id), ("posts", checked.small.blob_id.to_string()));
    let (repaired, summary) = checked.check(true).await;
    assert!(!repaired[0].repaired && summary.lost_blob_count == 1, "{repaired:?}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_missing_chunk_is_data_loss_by_name_and_size_too() {
    let checked = cluster().await;
    std::fs::remove_file(checked.file(".blob", 150_000 - 2 * BLOCK_BYTES)).unwrap();
    let found = checked.finds(FindingKind::DataLost).await;
    assert_eq!(found.blob_id, checked.large.blob_id.to_string());
    let (quick, _) = checked.check_with(pb::CheckClusterRequest { repair: false, skip_bytes: true }).await;
    assert_eq!(quick.len(), 1, "{quick:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_or_missing_checksum_file_is_written_again() {
    let checked = cluster().await;
    let chk = checked.file(".blob", 5_000).with_extension("blob.chk");
    let sound = std::fs::read(&chk).unwrap();
    for damage in [None, Some(b"nonsense".as_slice()), Some(&sound[..sound.len() - 1])] {
        match damage {
            Some(bytes) => std::fs::write(&chk, bytes).unwrap(),
            None => std::fs::remove_file(&chk).unwrap(),
        }
        checked.finds_and_repairs(FindingKind::ChecksumFileBad).await;
        assert_eq!(std::fs::read(&chk).unwrap(), sound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_chunk_that_nothing_refers_to_is_queued_and_a_fresh_one_is_left_alone() {
    let checked = cluster().await;
    let now_ms = SystemClock.now_ms();
    let plant = |drawn_ms: u64| {
        let chunk = ChunkId::generate(drawn_ms, &OsEntropy);
        std::fs::write(checked.cluster.chunks_folder().join(format!("{chunk}.blob")), b"nobody's").unwrap();
        chunk
    };
    let (old, fresh) = (plant(now_ms - 2 * 3_600_000), plant(now_ms));
    let found = checked.finds_and_repairs(FindingKind::OrphanChunk).await;
    assert_eq!(found.chunk_id, old.to_string());
    let path = |chunk: ChunkId| checked.cluster.chunks_folder().join(format!("{chunk}.blob"));
    assert!(path(old).exists() && path(fresh).exists(), "a check deletes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_file_is_named_and_left_alone() {
    let checked = cluster().await;
    let path = checked.cluster.chunks_folder().join("notes.txt");
    std::fs::write(&path, "mine").unwrap();
    let found = checked.finds(FindingKind::ForeignFile).await;
    assert!(found.detail.contains("notes.txt"), "{found:?}");
    checked.check(true).await;
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn i11_a_wrong_usage_is_set_to_the_sum_of_the_rows() {
    let mut checked = cluster().await;
    let before = checked.client.get_tenant(None).await.unwrap().usage;
    checked
        .plant(|_rows, batch| {
            batch.set(keys::usage(&posts()), &UsageRecord { used_bytes: 7, ..UsageRecord::default() })
        })
        .await;
    checked.finds_and_repairs(FindingKind::UsageWrong).await;
    assert_eq!(checked.client.get_tenant(None).await.unwrap().usage, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_others_prove_are_put_back() {
    let mut checked = cluster().await;
    let (large, small) = (checked.large.blob_id, checked.small.blob_id);
    checked.plant(|_rows, batch| batch.delete(keys::name(&posts(), "small", small))).await;
    checked.finds_and_repairs(FindingKind::RowInconsistent).await;
    checked.plant(|rows, batch| batch.delete(rows.first(keys::REVERSE).0)).await;
    checked.finds_and_repairs(FindingKind::RowInconsistent).await;
    checked.plant(|_rows, batch| batch.delete(keys::extent(large, 1))).await;
    let (findings, _) = checked.check(true).await;
    assert_eq!(findings.len(), 2, "the blob lacks the extent, the block is in none: {findings:?}");
    assert_eq!(checked.check(false).await.0, []);
    checked.cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nothing_refers_to_are_dropped() {
    let mut checked = cluster().await;
    let (blob, block) = (BlobId::generate(1, &OsEntropy), BlockId::generate(1, &OsEntropy));
    checked.plant(|_rows, batch| batch.set(keys::extent(blob, 0), &ExtentRecord { block, size_bytes: 1 })).await;
    checked.finds_and_repairs(FindingKind::RowOrphaned).await;
    checked.plant(|_rows, batch| batch.set(keys::name(&posts(), "nobody", blob), &NameRecord {})).await;
    checked.finds_and_repairs(FindingKind::RowOrphaned).await;
    let token = proto::token::Token::generate(proto::token::TokenKind::Tenant, &OsEntropy);
    let stray = metadata_service::tokens::record(&token, Holder::Tenant(posts()));
    checked.plant(|_rows, batch| batch.set(keys::token(token.key_id), &stray)).await;
    checked.finds_and_repairs(FindingKind::RowOrphaned).await;
    let (node, chunk) = (NodeId::generate(1, &OsEntropy), ChunkId::generate(1, &OsEntropy));
    let (damage, detail) = (Damage::Missing, String::new());
    let record = DamageRecord { tenant: None, block, blob, damage, detail, find_ms: 1 };
    checked.plant(|_rows, batch| batch.set(keys::damage(node, chunk), &record)).await;
    checked.finds_and_repairs(FindingKind::RowOrphaned).await;
    checked.cluster.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_collector_without_being_queued_is_queued() {
    let mut checked = cluster().await;
    for wanted in [GarbageKind::Blob, GarbageKind::Surplus] {
        let of_kind =
            |key: &[u8]| matches!(keys::garbage_of(key), Some((_, Garbage::Blocks(kind, _))) if kind == wanted);
        checked
            .plant(|rows, batch| {
                let found = rows.rows.iter().find(|(key, _)| of_kind(key));
                batch.delete(found.expect("a row of this kind").0.clone());
            })
            .await;
        checked.finds_and_repairs(FindingKind::RowInconsistent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_told_and_not_touched() {
    let mut checked = cluster().await;
    let key = keys::token(proto::token::TokenKeyId::generate(&OsEntropy));
    let planted = key.clone();
    checked.plant(|_rows, batch| batch.put(planted, b"no record".to_vec())).await;
    let found = checked.finds(FindingKind::RecordCorrupt).await;
    assert!(found.repair.is_empty() && found.detail.contains("token/"), "{found:?}");
    checked.check(true).await;
    checked.finds(FindingKind::RecordCorrupt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_service_that_does_not_answer_is_told_once_for_its_chunks_and_once_for_its_list() {
    let mut checked = cluster().await;
    checked.cluster.kill_chunk();
    let (findings, summary) = tokio::time::timeout(Duration::from_secs(120), checked.check(false)).await.unwrap();
    let unreachable = findings.iter().filter(|finding| finding.kind() == FindingKind::NodeUnreachable).count();
    assert_eq!((unreachable, findings.len(), summary.lost_blob_count), (2, 2, 0), "{findings:?}");
}
