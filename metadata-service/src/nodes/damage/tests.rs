use std::sync::Arc;

use proptest::prelude::*;
use proto::entropy::SeededEntropy;
use proto::ids::BlockId;
use proto::runtime::ManualClock;

use super::*;
use crate::service::testing::service;
use crate::store::engine::EngineExt as _;
use crate::store::memory::MemoryEngine;
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
    let put = engine.decide(|_view| Ok::<_, RowError>((Decision { batch, frees_space: false }, ())));
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
