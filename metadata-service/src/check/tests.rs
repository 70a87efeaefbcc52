//! What a repair leaves alone, and that no layer is passed over.

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use proto::capability::{ChunkBinding, ReadClaims};
use proto::entropy::SeededEntropy;
use proto::ids::{BlockId, ChunkId, TenantId};
use proto::runtime::ManualClock;

use super::*;
use crate::coordinator::request::RequestId;
use crate::coordinator::start::StartUpload;
use crate::coordinator::tenants::RegisterTenant;
use crate::nodes::chunks::{ChunkPages, NodeError, Verdict};
use crate::nodes::{Condemned, Deletion, Report};
use crate::service::testing;
use crate::store::engine::{Batch, Decision, EngineExt as _, KeyRange};
use crate::store::keys::{GarbageKind, RequestScope};
use crate::store::memory::MemoryEngine;
use crate::store::records::{Description, NodeRecord, Quota, RetainedRecord, TrafficClass};
use crate::store::rows::{BatchExt as _, RowError};

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
    let put = service.engine().decide(|_view| Ok::<_, RowError>((Decision { batch, frees_space: true }, ())));
    put.await.unwrap();
}

async fn start_upload(service: &Service) -> (NodeId, Vec<(BlockId, ChunkId)>) {
    let node = NodeId::generate(1, &SeededEntropy::new(7));
    service.registry().put(node, NodeRecord { endpoint: "http://a".to_owned(), ..NodeRecord::default() }, 1);
    assert!(service.registry().heard(node, 1, Report { free_bytes: u64::MAX, ..Report::default() }));
    let request = RequestId { scope: RequestScope::Admin, id: String::new() };
    let (quota, traffic_class) = (Quota::default(), TrafficClass::Silver);
    service
        .register_tenant(RegisterTenant { tenant: posts(), request: request.clone(), quota, traffic_class })
        .await
        .unwrap();
    let (description, declared_bytes) = (Description::default(), Some(2 * service.tuning().block_bytes));
    let start = StartUpload { tenant: posts(), request, description, declared_bytes };
    let blocks = service.start_upload(start).await.unwrap().blocks;
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
