use std::sync::Arc;

use proptest::prelude::*;
use proto::entropy::SeededEntropy;
use proto::ids::BlockId;
use proto::runtime::ManualClock;

use super::*;
use crate::service::testing::service;
use crate::store::engine::EngineExt as _;
use crate::store::faulty::engine::{EngineCall, Fault, FaultyEngine};
use crate::store::memory::MemoryEngine;
use crate::store::records::{ChunkRecord, Encoding};
use crate::store::rows::RowError;

/// Chunks of the model, of which the first few are referred to.
const CHUNKS: u64 = 6;

fn chunk(number: u64) -> ChunkId {
    ChunkId::generate(number, &SeededEntropy::new(number))
}

fn node() -> NodeId {
    NodeId::generate(1, &SeededEntropy::new(99))
}

async fn refer(engine: &dyn Engine, chunk: ChunkId, there: bool) {
    let entropy = SeededEntropy::new(1);
    let (block, blob) = (BlockId::generate(1, &entropy), BlobId::generate(1, &entropy));
    let record = ReverseRecord { block, blob, shard_index: 0, generation: 1, epoch: 1, sequence: 1 };
    let mut batch = Batch::default();
    if there {
        batch.set(keys::reverse(node(), chunk), &record);
    } else {
        batch.delete(keys::reverse(node(), chunk));
    }
    let put = engine.decide(|_view| Ok::<_, RowError>((Decision::adds(batch), ())));
    put.await.unwrap();
}

fn report_of(chunk: ChunkId, damage: Option<Damage>) -> ChunkReport {
    ChunkReport { chunk, damage, detail: "as found".to_owned(), tenant: None }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Report(u64, Option<Damage>),
    Refer(u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let damage = prop_oneof![
        Just(None),
        Just(Some(Damage::Corrupt)),
        Just(Some(Damage::Missing)),
        Just(Some(Damage::Unreadable))
    ];
    prop_oneof![
        4 => (0..CHUNKS, damage).prop_map(|(chunk, damage)| Step::Report(chunk, damage)),
        1 => (0..CHUNKS, any::<bool>()).prop_map(|(chunk, there)| Step::Refer(chunk, there)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The model: of each chunk that was referred to when it was last reported damaged, what that report said and when it
    /// was first found.
    #[test]
    fn rows_tell_of_the_damage_last_reported_and_of_nothing_else(steps in prop::collection::vec(step(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let clock = Arc::new(ManualClock::at(1_000));
            let service = service(Arc::new(MemoryEngine::new()), Arc::clone(&clock));
            let (mut referred, mut damaged) = (std::collections::BTreeSet::new(), std::collections::BTreeMap::new());
            for step in steps {
                clock.advance(std::time::Duration::from_millis(1));
                match step {
                    Step::Refer(number, there) => {
                        refer(service.engine(), chunk(number), there).await;
                        if there { referred.insert(number); } else { referred.remove(&number); }
                    }
                    Step::Report(number, damage) => {
                        service.report_chunks(node(), vec![report_of(chunk(number), damage)]).await.unwrap();
                        match damage.filter(|_| referred.contains(&number)) {
                            Some(damage) => {
                                damaged.entry(number).or_insert((damage, service.now_ms())).0 = damage;
                            }
                            None => { damaged.remove(&number); }
                        }
                    }
                }
            }
            let listed = list(service.engine(), None, 100).await.unwrap().entries;
            let listed: Vec<_> =
                listed.into_iter().map(|one| (one.chunk, one.record.damage, one.record.find_ms)).collect();
            let expected: Vec<_> = damaged.iter().map(|(number, (damage, at))| (chunk(*number), *damage, *at)).collect();
            assert_eq!(listed, expected);
            assert_eq!(count(service.engine()).await.unwrap(), expected.len() as u64);
        });
    }
}

#[tokio::test]
async fn what_is_damaged_is_listed_page_by_page() {
    let service = service(Arc::new(MemoryEngine::new()), Arc::new(ManualClock::at(1)));
    for number in 0..5 {
        refer(service.engine(), chunk(number), true).await;
        service.report_chunks(node(), vec![report_of(chunk(number), Some(Damage::Missing))]).await.unwrap();
    }
    let (mut token, mut listed) = (String::new(), Vec::new());
    loop {
        let (chunks, next) = service.list_damaged_chunks(2, &token).await.unwrap();
        assert!(chunks.len() <= 2);
        listed.extend(chunks.into_iter().map(|one| one.chunk));
        token = next;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, (0..5).map(chunk).collect::<Vec<_>>());
    assert!(service.list_damaged_chunks(2, "bm9uc2Vuc2U").await.is_err());
}

/// Every report made the service ask every tenant for the blob.
#[tokio::test]
async fn whose_a_damaged_chunk_is_its_block_s_row_tells_and_each_row_is_read_once() {
    let engine = Arc::new(FaultyEngine::default());
    let service = service(Arc::clone(&engine) as Arc<dyn Engine>, Arc::new(ManualClock::at(1)));
    let entropy = SeededEntropy::new(1);
    let (block, blob) = (BlockId::generate(1, &entropy), BlobId::generate(1, &entropy));
    let planned = |number| ChunkRecord { chunk: chunk(number), node: node(), epoch: 1, sequence: 1, sums: None };
    let record = BlockRecord {
        tenant: "posts".parse().ok(),
        blob,
        index: 0,
        encoding: Encoding::Replicated { copies: 2 },
        generation: 1,
        sealed: None,
        chunks: [0, 1].map(planned).into(),
    };
    let old = BlockRecord { tenant: None, ..record.clone() };
    let put = async |record: BlockRecord| {
        let mut batch = Batch::default();
        batch.set(keys::block(block), &record);
        batch.put(keys::upload(&"old".parse().unwrap(), blob), Vec::new());
        let put = service.engine().decide(|_view| Ok::<_, RowError>((Decision::adds(batch), ())));
        put.await.unwrap();
    };
    put(record).await;
    refer(service.engine(), chunk(0), true).await;
    refer(service.engine(), chunk(1), true).await;
    let report = || service.report_chunks(node(), [0, 1].map(|n| report_of(chunk(n), Some(Damage::Corrupt))).into());
    let tenants = async || {
        let listed = list(engine.as_ref(), None, 9).await.unwrap().entries;
        listed.into_iter().map(|one| one.record.tenant.unwrap().to_string()).collect::<Vec<_>>()
    };
    for reads in [2 + 2 + 1, 2] {
        engine.arm(EngineCall::Get, reads, Fault::Failed);
        report().await.unwrap();
        assert!(!engine.disarm());
        engine.arm(EngineCall::Scan, 0, Fault::Failed);
        report().await.unwrap();
        assert!(!engine.disarm());
        assert_eq!(tenants().await, ["posts", "posts"]);
    }
    service.report_chunks(node(), [0, 1].map(|n| report_of(chunk(n), None)).into()).await.unwrap();
    put(old).await;
    report().await.unwrap();
    assert_eq!(tenants().await, ["old", "old"], "a block of an older version names none: the blob is looked for");
}
