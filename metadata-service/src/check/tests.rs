//! What a repair leaves alone, that no layer is passed over, and that little is kept at once.

use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::Sha256;
use proto::entropy::SeededEntropy;
use proto::ids::{BlockId, ChunkId, TenantId};
use proto::rates::Rates;
use proto::runtime::ManualClock;

use super::problem::Repair;
use super::*;
use crate::coordinator::request::RequestId;
use crate::coordinator::start::StartUpload;
use crate::coordinator::tenants::RegisterTenant;
use crate::nodes::chunks::{ChunkPage, ChunkPages, NodeError, Verdict};
use crate::nodes::{Condemned, Deletion, Report};
use crate::service::testing;
use crate::store::engine::{Batch, Decision, EngineExt as _, KeyRange};
use crate::store::keys::{self, GarbageKind, RequestScope};
use crate::store::memory::MemoryEngine;
use crate::store::records::{
    BlobRecord, BlockRecord, BlockSums, Description, GarbageChunkRecord, NameRecord, NodeRecord, Quota, RetainedRecord,
    TrafficClass, encode,
};
use crate::store::rows::{BatchExt as _, RowError, load};

/// Nodes without chunks.
#[derive(Debug)]
struct Empty;

#[async_trait]
impl ChunkNodes for Empty {
    async fn delete(&self, _chunk: &Condemned) -> Deletion {
        Deletion::Unavailable("a check deletes nothing".to_owned())
    }

    async fn verify(&self, _: NodeId, _: ChunkBinding, _: ReadClaims, _repair: bool) -> Result<Verdict, NodeError> {
        Err(NodeError::Unavailable("there is nothing".to_owned()))
    }

    fn list(&self, _node: NodeId, _with_checksum_files: bool) -> ChunkPages {
        stream::empty().boxed()
    }
}

fn service() -> Service {
    testing::service(Arc::new(MemoryEngine::new()), Arc::new(ManualClock::at(1_700_000_000_000)))
}

fn posts() -> TenantId {
    "posts".parse().unwrap()
}

/// One node, with these files. What is listed once may be gone by the next list.
#[derive(Debug, Default)]
struct Files {
    stay: Vec<ChunkFiles>,
    go: Mutex<Vec<ChunkFiles>>,
}

#[async_trait]
impl ChunkNodes for Files {
    async fn delete(&self, _chunk: &Condemned) -> Deletion {
        Deletion::Unavailable("a check deletes nothing".to_owned())
    }

    async fn verify(&self, _: NodeId, _: ChunkBinding, _: ReadClaims, _repair: bool) -> Result<Verdict, NodeError> {
        Err(NodeError::Unavailable("there is nothing".to_owned()))
    }

    fn list(&self, _node: NodeId, _with_checksum_files: bool) -> ChunkPages {
        let mut chunks = std::mem::take(&mut *self.go.lock().unwrap());
        chunks.extend(&self.stay);
        let page = ChunkPage { chunks, foreign_names: Vec::new() };
        stream::iter([Ok(page)]).boxed()
    }
}

fn files(number: u64) -> ChunkFiles {
    let chunk = ChunkId::generate(number, &SeededEntropy::new(number));
    ChunkFiles { chunk, data_bytes: Some(1), has_checksum_file: true, checksum_file: None }
}

/// What a check that repairs nothing finds while it keeps so many things at once; in the order of what they are about.
async fn found_with(most: usize, service: &Service, nodes: Arc<dyn ChunkNodes>, skip_bytes: bool) -> Vec<Finding> {
    let (findings, mut found) = mpsc::channel(100);
    let options = Options { repair: false, skip_bytes };
    Check::holding(most, service.clone(), nodes, options, findings).run().await.unwrap();
    let mut all = Vec::new();
    while let Some(finding) = found.recv().await {
        all.push(finding);
    }
    all.sort_by_key(|finding| (finding.kind, finding.subject.blob, finding.subject.chunk));
    all
}

/// A check that repairs: what it found.
async fn repaired(service: &Service) -> Vec<Finding> {
    let (findings, mut found) = mpsc::channel(100);
    let options = Options { repair: true, skip_bytes: false };
    Check::new(service.clone(), Arc::new(Empty), options, findings).run().await.unwrap();
    let mut all = Vec::new();
    while let Some(finding) = found.recv().await {
        all.push(finding);
    }
    all
}

async fn write(service: &Service, batch: Batch) {
    let put = service.engine().decide(|_view| Ok::<_, RowError>((Decision::frees(batch), ())));
    put.await.unwrap();
}

async fn start_upload(service: &Service) -> (NodeId, Vec<(BlockId, ChunkId)>) {
    let node = NodeId::generate(1, &SeededEntropy::new(7));
    service.registry().put(node, NodeRecord { endpoint: "http://a".to_owned(), ..NodeRecord::default() }, 1);
    assert!(service.registry().heard(node, 1, Report { free_bytes: u64::MAX, ..Report::default() }));
    let request = RequestId { scope: RequestScope::Admin, id: String::new() };
    let (quota, traffic_class) = (Quota::default(), TrafficClass::Silver);
    service
        .register_tenant(RegisterTenant {
            tenant: posts(),
            request: request.clone(),
            quota,
            traffic_class,
            rates: Rates::default(),
        })
        .await
        .unwrap();
    let (description, declared_bytes) = (Description::default(), Some(2 * service.tuning().block_bytes));
    let start = StartUpload { tenant: posts(), request, description, declared_bytes };
    let blocks = service.start_upload(start, None).await.unwrap().blocks;
    (node, blocks.iter().map(|(block, _)| (block.block, block.record.chunks[0].chunk)).collect())
}

/// The row of one block was lost. A repair dropped the reverse row of its chunk, since no block held that; so the chunk
/// was an orphan, and the sweep deleted bytes of which the blob still told.
#[tokio::test]
async fn i6_the_reverse_row_of_a_block_that_is_lost_stays_while_its_blob_is_there() {
    let service = service();
    let (node, blocks) = start_upload(&service).await;
    assert_eq!(repaired(&service).await, []);
    let (block, chunk) = blocks[1];
    let mut batch = Batch::default();
    batch.delete(keys::block(block));
    write(&service, batch).await;
    let found = repaired(&service).await;
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (finding.kind, finding.repair, finding.subject.chunk),
        (FindingKind::RowInconsistent, None, Some(chunk))
    );
    assert!(service.engine().get(&keys::reverse(node, chunk)).await.unwrap().is_some());
    let blob = finding.subject.blob.unwrap();
    let mut batch = Batch::default();
    for row in service.engine().scan(&KeyRange::prefix(&keys::extents(blob)), 10).await.unwrap() {
        batch.delete(row.0.to_vec());
    }
    batch.delete(keys::upload(&posts(), blob));
    write(&service, batch).await;
    repaired(&service).await;
    assert_eq!(service.engine().get(&keys::reverse(node, chunk)).await.unwrap(), None, "without a blob it is nobody's");
}

/// The row of a chunk in the queue was damaged. The collector came upon it and all writes ended, and a check, which had
/// looked at the keys of the queue only, called everything sound.
#[tokio::test]
async fn rows_of_the_queue_of_deleted_blobs_by_age_and_of_workers_are_looked_at_too() {
    let entropy = SeededEntropy::new(7);
    let (blob, chunk) = (BlobId::generate(1, &entropy), ChunkId::generate(1, &entropy));
    let damaged = [
        (keys::garbage_chunk(1, chunk), FindingKind::RecordCorrupt),
        (keys::garbage(1, GarbageKind::Blob, blob), FindingKind::RecordCorrupt),
        ([keys::GARBAGE, b"?"].concat(), FindingKind::RowInconsistent),
        (keys::retained(&posts(), 1, blob), FindingKind::RecordCorrupt),
        ([keys::RETAINED, b"?"].concat(), FindingKind::RowInconsistent),
        (keys::worker("garbage"), FindingKind::RecordCorrupt),
    ];
    for (key, kind) in damaged {
        let service = service();
        testing::damage(&service, key.clone()).await;
        let found = repaired(&service).await;
        let [finding] = &found[..] else { panic!("{}: {found:?}", key.escape_ascii()) };
        assert_eq!((finding.kind, finding.repair), (kind, None), "{}", key.escape_ascii());
    }
    let service = service();
    let mut batch = Batch::default();
    batch.set(keys::retained(&posts(), 1, blob), &RetainedRecord {});
    write(&service, batch).await;
    let found = repaired(&service).await;
    assert!(found[0].kind == FindingKind::RowOrphaned && found[0].repaired, "{found:?}");
    assert_eq!(repaired(&service).await, []);
}

/// The check kept the ids of all blobs and of the whole queue.
#[tokio::test]
async fn i17_whatever_is_stored_no_more_than_a_lot_is_kept_and_the_findings_are_the_same() {
    let service = service();
    let (node, _blocks) = start_upload(&service).await;
    let mut batch = Batch::default();
    for number in 0..7 {
        let request = RequestId { scope: RequestScope::Tenant(posts()), id: format!("request-{number}") };
        let (description, declared_bytes) = (Description::default(), Some(1));
        let start = StartUpload { tenant: posts(), request, description, declared_bytes };
        let blob = service.start_upload(start, None).await.unwrap().upload.blob;
        service.abort_upload(posts(), blob).await.unwrap();
        let due_ms = service.tuning().garbage_due_ms(service.now_ms());
        if number < 5 {
            batch.delete(keys::garbage(due_ms, GarbageKind::Upload, blob));
        }
    }
    let stay: Vec<_> = (1..=7).map(files).collect();
    for queued in &stay[..3] {
        let binding = ChunkBinding { chunk: queued.chunk, ..ChunkBinding::none() };
        batch.set(keys::garbage_chunk(1, queued.chunk), &GarbageChunkRecord::new(node, None, &binding));
    }
    write(&service, batch).await;
    let nodes: Arc<dyn ChunkNodes> = Arc::new(Files { stay, ..Files::default() });
    let expected = found_with(HELD_MAX, &service, Arc::clone(&nodes), false).await;
    let of = |kind| expected.iter().filter(|finding| finding.kind == kind).count();
    assert_eq!((of(FindingKind::RowInconsistent), of(FindingKind::OrphanChunk), expected.len()), (5, 4, 9));
    for most in [1, 2, 3] {
        assert_eq!(found_with(most, &service, Arc::clone(&nodes), false).await, expected, "{most} at once");
        assert_eq!(
            found_with(most, &service, Arc::clone(&nodes), true).await,
            expected,
            "{most} at once, no bytes read"
        );
    }
    let mut held = Held::at_most(3);
    let lots: Vec<_> = (0..10).filter_map(|thing| held.add(thing)).map(|lot| lot.len()).collect();
    assert_eq!((lots, held.take()), (vec![3, 3, 3], vec![9]));
}

/// A chunk was listed, and collected before its rows were looked for: the check called it an orphan.
#[tokio::test]
async fn a_chunk_that_goes_between_the_list_and_the_look_is_no_orphan() {
    let service = service();
    start_upload(&service).await;
    let nodes = Files { stay: vec![files(1)], go: Mutex::new(vec![files(2)]) };
    let found = found_with(HELD_MAX, &service, Arc::new(nodes), false).await;
    let [orphan] = &found[..] else { panic!("{found:?}") };
    assert_eq!((orphan.kind, orphan.subject.chunk), (FindingKind::OrphanChunk, Some(files(1).chunk)));
}

/// A row was put although what proved it had gone between the look and the repair, and one dropped that was needed again.
#[tokio::test]
async fn a_repair_whose_proof_is_gone_by_its_turn_changes_nothing() {
    let service = service();
    let (node, blocks) = start_upload(&service).await;
    let (block, chunk) = blocks[0];
    let row: BlockRecord = load(service.engine(), &keys::block(block)).await.unwrap().unwrap();
    let sealed = Some(BlockSums { size_bytes: 1, sha256: Sha256::of(b"x") });
    let sealed = BlockRecord { sealed, ..row };
    let live = BlobRecord {
        description: Description::default(),
        size_bytes: 1,
        sha256: Sha256::of(b"x"),
        start_ms: 1,
        create_ms: 1,
        block_size_bytes: 1,
    };
    let blob = sealed.blob;
    let name = keys::name(&posts(), "", blob);
    let repairs = [
        (keys::blob(&posts(), blob), name.clone(), Repair::PutName { tenant: posts(), blob }),
        (keys::block(block), keys::extent(blob, 0), Repair::PutExtent { tenant: posts(), block }),
        (keys::block(block), keys::reverse(node, chunk), Repair::PutReverse { block, node, chunk }),
    ];
    for (proof, key, repair) in repairs {
        for is_there in [false, true] {
            let mut batch = Batch::default();
            batch.set(keys::block(block), &sealed);
            batch.set(keys::blob(&posts(), blob), &live);
            batch.delete(key.clone());
            if !is_there {
                batch.delete(proof.clone());
            }
            write(&service, batch).await;
            let repair = repair.clone();
            let changed = service.decide(move |view, context| repair.decide(view, context)).await.unwrap();
            let put = service.engine().get(&key).await.unwrap().is_some();
            assert_eq!((changed, put), (is_there, is_there), "{}", key.escape_ascii());
        }
    }
    for is_needed in [true, false] {
        let mut batch = Batch::default();
        batch.set(name.clone(), &NameRecord {});
        if !is_needed {
            batch.delete(keys::blob(&posts(), blob));
        }
        write(&service, batch).await;
        let drop = Repair::Drop { what: "drop the entry", key: name.clone(), value: encode(&NameRecord {}) };
        let changed = service.decide(move |view, context| drop.decide(view, context)).await.unwrap();
        assert_eq!(changed, !is_needed);
    }
}
