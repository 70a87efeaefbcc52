//! One suite for every engine: what the schema relies on, as plain functions over a `dyn Engine`.
//!
//! Each check keeps to keys of its own prefix, so that all of them share one engine; only the last one closes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proto::entropy::SeededEntropy;
use proto::ids::ClusterId;
use proto::limits::{BATCH_WRITES_MAX, RECORD_BYTES_MAX};
use proto::secret::SecretKey;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engine::{Batch, Decision, Engine, EngineError, EngineExt as _, KeyRange, Row, View};
use crate::backup::{Decoder, ExportScope, Exporter, Frame};

type Shared = Arc<dyn Engine>;

/// Runs every check. The engine must be fresh, and is closed afterwards.
pub(crate) async fn suite(engine: impl Engine + 'static) {
    let engine: Shared = Arc::new(engine);
    a_fresh_engine_is_empty(&engine).await;
    a_commit_is_read_back_and_numbered(&engine).await;
    the_last_write_to_a_key_wins(&engine).await;
    a_deleted_row_is_gone(&engine).await;
    scans_are_ordered_bounded_and_limited(&engine).await;
    a_prefix_of_the_highest_bytes_has_an_end(&engine).await;
    a_closure_sees_what_was_committed_and_its_own_sequence(&engine).await;
    a_refusal_writes_nothing(&engine).await;
    an_error_of_a_closure_fails_only_its_commit(&engine).await;
    a_batch_out_of_bounds_leaves_no_trace(&engine).await;
    racing_increments_lose_nothing(&engine).await;
    racing_commits_are_numbered_without_gaps(&engine).await;
    a_batch_appears_all_at_once(&engine).await;
    an_export_taken_during_commits_is_the_state_at_one_sequence(&engine).await;
    a_closed_engine_refuses(&engine).await;
}

/// A batch that sets rows.
pub(crate) fn puts(rows: &[(&[u8], &[u8])]) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in rows {
        batch.put(key.to_vec(), value.to_vec());
    }
    batch
}

/// Commits a batch that was decided beforehand.
pub(crate) async fn commit(engine: &dyn Engine, batch: Batch) -> Result<u64, EngineError> {
    engine.commit(Box::new(|_| Ok(Decision::adds(batch)))).await
}

/// A row.
pub(crate) fn row(key: &[u8], value: &[u8]) -> Row {
    (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
}

/// The number in a row; 0 when there is none.
pub(crate) fn number(value: Option<Bytes>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value.as_ref().try_into().unwrap()))
}

async fn a_fresh_engine_is_empty(engine: &Shared) {
    assert_eq!(engine.sequence(), 0);
    assert_eq!(engine.get(b"absent").await.unwrap(), None);
    assert_eq!(engine.get(b"").await.unwrap(), None);
    assert_eq!(engine.scan(&KeyRange::prefix(b""), 10).await.unwrap(), []);
    assert_eq!(engine.latched(), None);
    let first = engine.commit(Box::new(|view| Ok(first_sequence_is_one(view)))).await;
    assert_eq!(first.unwrap(), 0);
}

fn first_sequence_is_one(view: &dyn View) -> Decision {
    assert_eq!(view.sequence(), 1);
    Decision::default()
}

async fn a_commit_is_read_back_and_numbered(engine: &Shared) {
    let before = engine.sequence();
    let sequence = commit(&**engine, puts(&[(b"back/1", b"one"), (b"back/2", b"")])).await.unwrap();
    assert_eq!((sequence, engine.sequence()), (before + 1, before + 1));
    assert_eq!(engine.get(b"back/1").await.unwrap().as_deref(), Some(b"one".as_slice()));
    assert_eq!(engine.get(b"back/2").await.unwrap().as_deref(), Some(b"".as_slice()));
    assert_eq!(engine.get(b"back/").await.unwrap(), None);
    assert_eq!(commit(&**engine, Batch::default()).await.unwrap(), sequence);
}

async fn the_last_write_to_a_key_wins(engine: &Shared) {
    let mut batch = puts(&[(b"last/a", b"1"), (b"last/b", b"1")]);
    batch.put(b"last/a".to_vec(), b"2".to_vec());
    batch.delete(b"last/b".to_vec());
    commit(&**engine, batch).await.unwrap();
    assert_eq!(engine.scan(&KeyRange::prefix(b"last/"), 10).await.unwrap(), [row(b"last/a", b"2")]);
    commit(&**engine, puts(&[(b"last/a", b"3")])).await.unwrap();
    assert_eq!(engine.get(b"last/a").await.unwrap().as_deref(), Some(b"3".as_slice()));
}

async fn a_deleted_row_is_gone(engine: &Shared) {
    commit(&**engine, puts(&[(b"gone/a", b"1"), (b"gone/b", b"2")])).await.unwrap();
    let mut batch = Batch::default();
    batch.delete(b"gone/a".to_vec());
    batch.delete(b"gone/absent".to_vec());
    commit(&**engine, batch).await.unwrap();
    assert_eq!(engine.get(b"gone/a").await.unwrap(), None);
    assert_eq!(engine.scan(&KeyRange::prefix(b"gone/"), 10).await.unwrap(), [row(b"gone/b", b"2")]);
}

async fn scans_are_ordered_bounded_and_limited(engine: &Shared) {
    let keys: [&[u8]; 5] = [b"scan/", b"scan/\0", b"scan/a", b"scan/a\0", b"scan/b"];
    for key in keys.iter().rev().chain(&[b"scan0".as_slice(), b"scan.".as_slice()]) {
        commit(&**engine, puts(&[(key, key)])).await.unwrap();
    }
    let all = keys.map(|key| row(key, key));
    let whole = KeyRange::prefix(b"scan/");
    for limit in 0..=6 {
        assert_eq!(engine.scan(&whole, limit).await.unwrap(), all[..limit.min(5)]);
    }
    let rest = whole.clone().after(b"scan/a");
    assert_eq!(engine.scan(&rest, 10).await.unwrap(), all[3..]);
    let from_a = KeyRange { start: b"scan/a".to_vec(), end: Some(b"scan/b".to_vec()) };
    assert_eq!(engine.scan(&from_a, 10).await.unwrap(), all[2..4]);
    let empty = KeyRange { start: b"scan/b".to_vec(), end: Some(b"scan/a".to_vec()) };
    assert_eq!(engine.scan(&empty, 10).await.unwrap(), []);
}

async fn a_prefix_of_the_highest_bytes_has_an_end(engine: &Shared) {
    commit(&**engine, puts(&[(b"\xfe\xff", b"1"), (b"\xff", b"2"), (b"\xff\xff\xff", b"3")])).await.unwrap();
    let high = engine.scan(&KeyRange::prefix(b"\xff"), 10).await.unwrap();
    assert_eq!(high, [row(b"\xff", b"2"), row(b"\xff\xff\xff", b"3")]);
    assert_eq!(engine.scan(&KeyRange::prefix(b"\xfe\xff"), 10).await.unwrap(), [row(b"\xfe\xff", b"1")]);
}

async fn a_closure_sees_what_was_committed_and_its_own_sequence(engine: &Shared) {
    commit(&**engine, puts(&[(b"sees/a", b"1"), (b"sees/b", b"2")])).await.unwrap();
    let expected = engine.sequence() + 1;
    let seen = engine.decide(move |view| {
        assert_eq!(view.sequence(), expected);
        assert_eq!(view.get(b"")?, None);
        let rows = view.scan(&KeyRange::prefix(b"sees/"), 1)?;
        let batch = puts(&[(b"sees/c", b"3")]);
        assert_eq!(view.get(b"sees/c")?, None);
        Ok::<_, EngineError>((Decision::adds(batch), (rows, view.get(b"sees/b")?)))
    });
    let (rows, second) = seen.await.unwrap();
    assert_eq!((rows, second.as_deref()), (vec![row(b"sees/a", b"1")], Some(b"2".as_slice())));
    assert_eq!(engine.sequence(), expected);
}

/// What a domain's own error looks like to an engine.
#[derive(Debug, PartialEq)]
enum Refusal {
    Domain,
    Engine(String),
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self::Engine(error.to_string())
    }
}

async fn a_refusal_writes_nothing(engine: &Shared) {
    let before = engine.sequence();
    let refused = engine.decide(|_| Err::<(Decision, ()), _>(Refusal::Domain)).await;
    assert_eq!(refused, Err(Refusal::Domain));
    assert_eq!(engine.sequence(), before);
}

async fn an_error_of_a_closure_fails_only_its_commit(engine: &Shared) {
    let failed = engine.commit(Box::new(|_| Err(EngineError::Failed { action: "do this", cause: "of that".into() })));
    assert!(matches!(failed.await, Err(EngineError::Failed { action: "do this", .. })));
    assert_eq!(engine.latched(), None);
    commit(&**engine, puts(&[(b"still/works", b"1")])).await.unwrap();
}

async fn a_batch_out_of_bounds_leaves_no_trace(engine: &Shared) {
    let before = engine.sequence();
    let too_long = puts(&[(b"bounds/a", &[0; RECORD_BYTES_MAX + 1]), (b"bounds/b", b"1")]);
    assert!(matches!(commit(&**engine, too_long).await, Err(EngineError::BatchTooLarge(_))));
    let number_of = |writes: usize| {
        let mut batch = Batch::default();
        (0..writes).for_each(|n| batch.put([b"bounds/".as_slice(), &n.to_be_bytes()].concat(), vec![0]));
        batch
    };
    assert!(matches!(commit(&**engine, number_of(BATCH_WRITES_MAX + 1)).await, Err(EngineError::BatchTooLarge(_))));
    assert!(matches!(commit(&**engine, puts(&[(b"", b"1")])).await, Err(EngineError::BatchTooLarge(_))));
    assert_eq!(engine.scan(&KeyRange::prefix(b"bounds/"), 1).await.unwrap(), []);
    assert_eq!(engine.sequence(), before);
    commit(&**engine, number_of(BATCH_WRITES_MAX)).await.unwrap();
    let rows = engine.scan(&KeyRange::prefix(b"bounds/"), 1000).await.unwrap();
    assert_eq!(rows.len(), BATCH_WRITES_MAX);
}

/// A closure's work: one more than the row holds.
fn increment(view: &dyn View, key: &[u8]) -> Result<(Decision, u64), EngineError> {
    let next = number(view.get(key)?) + 1;
    let mut batch = Batch::default();
    batch.put(key.to_vec(), next.to_be_bytes().to_vec());
    Ok((Decision::adds(batch), next))
}

async fn racing_increments_lose_nothing(engine: &Shared) {
    const TASKS: u64 = 64;
    const INCREMENTS: u64 = 200;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let engine = Arc::clone(engine);
        tasks.spawn(async move {
            let mut before = 0;
            for _ in 0..INCREMENTS {
                let now = engine.decide(|view| increment(view, b"hot")).await.unwrap();
                assert!(now > before, "the count went from {before} to {now}");
                let shown = number(engine.get(b"hot").await.unwrap());
                assert!(shown >= now, "{now} was committed, {shown} is shown");
                before = now;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(number(engine.get(b"hot").await.unwrap()), TASKS * INCREMENTS);
}

async fn racing_commits_are_numbered_without_gaps(engine: &Shared) {
    let before = engine.sequence();
    let mut tasks = JoinSet::new();
    for n in 0..100_u64 {
        let engine = Arc::clone(engine);
        let key = [b"gaps/".as_slice(), &n.to_be_bytes()].concat();
        tasks.spawn(async move { commit(&*engine, puts(&[(&key, b"")])).await.unwrap() });
    }
    let numbers: BTreeSet<u64> = tasks.join_all().await.into_iter().collect();
    assert_eq!(numbers, (before + 1..=before + 100).collect());
    assert_eq!(engine.sequence(), before + 100);
}

/// Two rows far apart always hold the same number, to every scan and every closure.
async fn a_batch_appears_all_at_once(engine: &Shared) {
    let between: Vec<_> = (0..100_u8).map(|n| [b"once/m".as_slice(), &[n]].concat()).collect();
    commit(&**engine, puts(&between.iter().map(|key| (key.as_slice(), b"".as_slice())).collect::<Vec<_>>()))
        .await
        .unwrap();
    let mut tasks = JoinSet::new();
    let writer = Arc::clone(engine);
    let write = async move {
        for n in 0..200_u64 {
            let both = n.to_be_bytes();
            commit(&*writer, puts(&[(b"once/a", &both), (b"once/z", &both)])).await.unwrap();
        }
    };
    let write = tasks.spawn(write);
    for _ in 0..4 {
        let (reader, write) = (Arc::clone(engine), write.clone());
        tasks.spawn(async move {
            while !write.is_finished() {
                let rows = reader.scan(&KeyRange::prefix(b"once/"), 1000).await.unwrap();
                let value = |wanted: &[u8]| rows.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone());
                assert_eq!(value(b"once/a"), value(b"once/z"));
                tokio::task::yield_now().await;
            }
        });
    }
    tasks.join_all().await;
}

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Takes an export to its end and plays it back into a map.
async fn exported(engine: &Shared) -> (State, u64) {
    let entropy = SeededEntropy::new(1);
    let cluster = ClusterId::generate(1, &entropy);
    let scope = ExportScope { cluster, epoch: 1, now_ms: 1, cluster_key: Some(SecretKey::generate(&entropy)) };
    let mut export = Exporter::begin(Arc::clone(engine), scope).unwrap();
    let (mut decoder, mut state) = (Decoder::default(), State::new());
    while let Some(bytes) = export.next().await.unwrap() {
        decoder.push(&bytes);
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame {
                Frame::Header(_) => {}
                Frame::Rows(rows) => state.extend(rows),
                Frame::Commit(writes) => writes.into_iter().for_each(|write| play(&mut state, write)),
            }
        }
    }
    (state, decoder.finish().unwrap().sequence)
}

fn play(state: &mut State, (key, value): (Vec<u8>, Option<Vec<u8>>)) {
    match value {
        Some(value) => state.insert(key, value),
        None => state.remove(&key),
    };
}

/// Every key of the range is put and deleted again and again, from several sides, while exports are taken; each must be
/// what all commits up to its own sequence made, and nothing of those behind it.
async fn an_export_taken_during_commits_is_the_state_at_one_sequence(engine: &Shared) {
    const KEYS: u64 = 400;
    let before: State = engine.scan(&KeyRange::prefix(b""), usize::MAX).await.unwrap().into_iter().map(owned).collect();
    let (stop, history) = (CancellationToken::new(), Arc::new(Mutex::new(BTreeMap::new())));
    let mut writers = JoinSet::new();
    for writer in 0..4_u64 {
        let (engine, stop, history) = (Arc::clone(engine), stop.clone(), Arc::clone(&history));
        writers.spawn(async move {
            for n in 0_u64.. {
                if stop.is_cancelled() {
                    return;
                }
                let mut batch = Batch::default();
                for place in [n * 7 + writer, n * 13 + 3 * writer, n * 31] {
                    let key = [b"export/".as_slice(), &(place % KEYS).to_be_bytes()].concat();
                    let value = [n.to_be_bytes(), writer.to_be_bytes()].concat();
                    if (n + place) % 3 == 0 { batch.delete(key) } else { batch.put(key, value) }
                }
                let sequence = commit(&*engine, batch.clone()).await.unwrap();
                history.lock().unwrap().insert(sequence, batch);
                tokio::task::yield_now().await;
            }
        });
    }
    let mut exports = Vec::new();
    for _export in 0..8 {
        let begun = engine.sequence();
        exports.push(exported(engine).await);
        let moved_on = async {
            while engine.sequence() == begun {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), moved_on).await.expect("commits go on meanwhile");
    }
    stop.cancel();
    writers.join_all().await;
    let history = history.lock().unwrap();
    for (state, sequence) in exports {
        let mut expected = before.clone();
        let batches = history.range(..=sequence).map(|(_, batch)| batch.clone());
        batches.flat_map(Batch::into_writes).for_each(|write| play(&mut expected, write));
        assert!(state == expected, "the export that says it reaches to {sequence}");
    }
}

fn owned((key, value): Row) -> (Vec<u8>, Vec<u8>) {
    (key.to_vec(), value.to_vec())
}

async fn a_closed_engine_refuses(engine: &Shared) {
    engine.close().await;
    engine.close().await;
    assert!(matches!(engine.get(b"back/1").await, Err(EngineError::Closed)));
    assert!(matches!(engine.scan(&KeyRange::prefix(b""), 1).await, Err(EngineError::Closed)));
    assert!(matches!(commit(&**engine, puts(&[(b"late", b"1")])).await, Err(EngineError::Closed)));
    assert_eq!(engine.latched(), None);
}
