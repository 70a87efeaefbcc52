use std::sync::Arc;

use bytes::Bytes;
use proto::entropy::SeededEntropy;
use proto::ids::BlobId;
use proto::runtime::ManualClock;
use tokio::sync::mpsc;

use super::*;
use crate::check::{Finding, Options};
use crate::service::{Service, testing};
use crate::store::engine::{Decide, Decision, Engine, EngineError, EngineExt as _};
use crate::store::memory::MemoryEngine;
use crate::store::records::Description;

const BYTES: u64 = 10;

fn posts() -> TenantId {
    "posts".parse().unwrap()
}

fn pending() -> UploadRecord {
    UploadRecord {
        state: UploadState::Pending,
        description: Description::default(),
        declared_bytes: Some(BYTES),
        block_size_bytes: BYTES,
        planned_blocks: 0,
        reserved_bytes: BYTES,
        sealed_blocks: 0,
        sealed_bytes: 0,
        sealed_prefix: 0,
        short_block: None,
        create_ms: 0,
        lease_expire_ms: u64::MAX,
        start_epoch: 1,
        end_epoch: None,
    }
}

fn reserved(uploads: u64) -> UsageRecord {
    UsageRecord { reserved_bytes: uploads * BYTES, reserved_blobs: uploads, ..UsageRecord::default() }
}

/// Opens one more upload, as a commit does: its row and the usage at once.
async fn open_one(engine: &dyn Engine, number: u64) {
    let open = move |view: &dyn View| {
        let before: UsageRecord = rows::read(view, &keys::usage(&posts()))?.unwrap_or_default();
        let reserved_bytes = before.reserved_bytes + BYTES;
        let mut batch = Batch::default();
        batch.set(
            keys::usage(&posts()),
            &UsageRecord { reserved_bytes, reserved_blobs: before.reserved_blobs + 1, ..before },
        );
        batch.set(keys::upload(&posts(), BlobId::generate(number, &SeededEntropy::new(number))), &pending());
        Ok::<_, RowError>((Decision::adds(batch), ()))
    };
    engine.decide(open).await.unwrap();
}

async fn set_usage(engine: &dyn Engine, usage: UsageRecord) {
    let mut batch = Batch::default();
    batch.set(keys::usage(&posts()), &usage);
    let set = engine.decide(|_view| Ok::<_, RowError>((Decision::adds(batch), ())));
    set.await.unwrap();
}

/// An engine of a tenant that opens an upload each time its uploads are read beside the service.
#[derive(Debug)]
struct Busy(MemoryEngine, std::sync::atomic::AtomicU64);

#[async_trait::async_trait]
impl Engine for Busy {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.0.get(key).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError> {
        if range.start.starts_with(&keys::uploads(&posts())) {
            open_one(&self.0, self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).await;
        }
        self.0.scan(range, limit).await
    }

    async fn commit(&self, decide: Decide) -> Result<u64, EngineError> {
        self.0.commit(decide).await
    }

    fn sequence(&self) -> u64 {
        self.0.sequence()
    }

    fn follow(&self) -> Result<Follower, EngineError> {
        self.0.follow()
    }

    fn latched(&self) -> Option<String> {
        None
    }

    async fn failed(&self) -> String {
        self.0.failed().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

async fn usages(engine: Arc<dyn Engine>, repair: bool) -> Vec<Finding> {
    let service: Service = testing::service(engine, Arc::new(ManualClock::at(1)));
    let (findings, mut found) = mpsc::channel(100);
    let nodes = Arc::clone(service.chunk_nodes());
    let options = Options { repair, skip_bytes: false };
    let mut check = Check::new(service, nodes, options, findings);
    check.usages().await.unwrap();
    drop(check);
    let mut all = Vec::new();
    while let Some(finding) = found.recv().await {
        all.push(finding);
    }
    all
}

const LARGE: u64 = ROWS_PER_TURN as u64 + 10;

/// All rows of a tenant were read in one commit's turn, and everybody's commits waited for it.
#[tokio::test]
async fn i11_a_large_tenant_is_counted_beside_the_service_and_its_usage_set_exactly() {
    for (uploads, before) in [(LARGE, LARGE - 1), (3, 4)] {
        let engine = Arc::new(MemoryEngine::new());
        for number in 0..uploads {
            open_one(engine.as_ref(), number).await;
        }
        assert_eq!(usages(Arc::clone(&engine) as _, true).await, []);
        set_usage(engine.as_ref(), reserved(before)).await;
        let found = usages(Arc::clone(&engine) as _, true).await;
        assert!(matches!(&found[..], [one] if one.kind == FindingKind::UsageWrong && one.repaired), "{found:?}");
        let usage: Option<UsageRecord> = rows::load(engine.as_ref(), &keys::usage(&posts())).await.unwrap();
        assert_eq!(usage, Some(reserved(uploads)));
        assert_eq!(usages(engine, true).await, []);
    }
}

#[tokio::test]
async fn i11_a_busy_tenant_is_counted_in_a_turn_while_it_is_small_and_is_told_of_when_it_is_large() {
    for (uploads, expected) in [(LARGE, FindingKind::UsageNotCounted), (3, FindingKind::UsageWrong)] {
        let engine = Arc::new(Busy(MemoryEngine::new(), (uploads + 1_000).into()));
        for number in 0..uploads {
            open_one(&engine.0, number).await;
        }
        let found = usages(Arc::clone(&engine) as _, true).await;
        assert_eq!(
            found.iter().map(|one| one.kind).collect::<Vec<_>>(),
            if uploads == LARGE { vec![expected] } else { vec![] }
        );
        set_usage(&engine.0, reserved(1)).await;
        let found = usages(Arc::clone(&engine) as _, true).await;
        assert!(matches!(&found[..], [one] if one.kind == expected && one.repaired == (uploads != LARGE)), "{found:?}");
    }
}

/// What was counted beside the service counts no more once the usage has changed.
#[tokio::test]
async fn i11_a_large_tenant_s_usage_is_not_set_to_a_sum_of_the_past() {
    let engine = MemoryEngine::new();
    for number in 0..LARGE {
        open_one(&engine, number).await;
    }
    let (stored, sum) = (Some(reserved(7)), reserved(LARGE));
    for (now, expected) in [(reserved(8), reserved(8)), (reserved(7), reserved(LARGE))] {
        set_usage(&engine, now).await;
        let repair = move |view: &dyn View| {
            let mut batch = Batch::default();
            recount(view, &posts(), Count { stored, sum }, &mut batch)?;
            Ok::<_, MetadataError>((Decision::frees(batch), ()))
        };
        engine.decide(repair).await.unwrap();
        let usage: Option<UsageRecord> = rows::load(&engine, &keys::usage(&posts())).await.unwrap();
        assert_eq!(usage, Some(expected));
    }
}
