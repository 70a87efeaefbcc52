//! Rows that tell of damage: read from an engine that may hold anything, and written by reports of nodes.
//!
//! A report over rows that cannot be read is refused and changes nothing; any other leaves a row exactly if it tells of
//! damage to a chunk that is referred to. A listing gives each row once, in order, or ends at the one that it cannot read.

use std::sync::LazyLock;

use futures_util::FutureExt as _;
use proto::entropy::SeededEntropy;
use proto::fuzzing::Choices;
use proto::ids::{BlobId, BlockId, ChunkId, NodeId};
use proto::secret::SecretKey;

use super::stored::sealed;
use crate::config::Tuning;
use crate::coordinator::Context;
use crate::nodes::damage::{ChunkReport, count, list, report};
use crate::store::engine::{Batch, Decision, Engine, EngineExt as _, KeyRange, Row};
use crate::store::keys;
use crate::store::memory::MemoryEngine;
use crate::store::records::{Damage, DamageRecord, ReverseRecord, decode, encode};
use crate::store::rows::RowError;

const STEPS_MAX: u64 = 32;

static TUNING: LazyLock<Tuning> = LazyLock::new(Tuning::default);
static SECRET: LazyLock<SecretKey> = LazyLock::new(|| SecretKey::generate(&SeededEntropy::new(1)));

/// The first byte is the size of the listing's pages; the others are steps.
pub(super) fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let size = usize::from(choices.byte() % 8) + 1;
    let engine = MemoryEngine::new();
    for now_ms in 1..=STEPS_MAX {
        if choices.is_over() {
            break;
        }
        step(&engine, &mut choices, now_ms);
    }
    let rows = rows(&engine);
    assert_eq!(at_once(count(&engine)).expect("the engine can be read"), rows.len() as u64);
    check_listing(&engine, &rows, size);
}

/// The engine in memory never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing in memory has to be waited for")
}

fn rows(engine: &MemoryEngine) -> Vec<Row> {
    at_once(engine.scan(&KeyRange::prefix(keys::DAMAGE), usize::MAX)).expect("the engine can be read")
}

fn step(engine: &MemoryEngine, choices: &mut Choices<'_>, now_ms: u64) {
    let (what, number) = (choices.byte(), choices.byte());
    match what % 4 {
        0 => put(engine, [keys::DAMAGE, &text(choices)].concat(), text(choices)),
        1 => put(engine, keys::damage(node(number), chunk(number)), sealed(&text(choices))),
        2 => put(engine, keys::reverse(node(number), chunk(number)), reverse(choices)),
        _ => check_report(engine, choices, number, now_ms),
    }
}

/// As many of the next bytes as the first of them says.
fn text(choices: &mut Choices<'_>) -> Vec<u8> {
    (0..choices.byte()).map_while(|_| (!choices.is_over()).then(|| choices.byte())).collect()
}

fn node(number: u8) -> NodeId {
    NodeId::generate(u64::from(number / 16), &SeededEntropy::new(1))
}

fn chunk(number: u8) -> ChunkId {
    ChunkId::generate(u64::from(number % 16), &SeededEntropy::new(1))
}

/// Mostly a good one.
fn reverse(choices: &mut Choices<'_>) -> Vec<u8> {
    let entropy = SeededEntropy::new(1);
    let (block, blob) = (BlockId::generate(1, &entropy), BlobId::generate(1, &entropy));
    match choices.byte() {
        0 => sealed(&text(choices)),
        _ => encode(&ReverseRecord { block, blob, shard_index: 0, generation: 1, epoch: 1, sequence: 1 }),
    }
}

fn put(engine: &MemoryEngine, key: Vec<u8>, value: Vec<u8>) {
    let mut batch = Batch::default();
    batch.put(key, value);
    let put = engine.decide(|_view| Ok::<_, RowError>((Decision::frees(batch), ())));
    at_once(put).expect("the engine takes a small row");
}

fn check_report(engine: &MemoryEngine, choices: &mut Choices<'_>, number: u8, now_ms: u64) {
    let (node, chunk) = (node(number), chunk(number));
    let found = [None, Some(Damage::Corrupt), Some(Damage::Missing), Some(Damage::Unreadable)];
    let damage = found.into_iter().cycle().nth(usize::from(choices.byte())).flatten();
    let detail = String::from_utf8_lossy(&text(choices)).into_owned();
    let get = |key: Vec<u8>| at_once(engine.get(&key)).expect("the engine can be read");
    let (known, reverse) = (get(keys::damage(node, chunk)), get(keys::reverse(node, chunk)));
    let readable = known.as_ref().is_none_or(|bytes| decode::<DamageRecord>(bytes).is_ok())
        && reverse.as_ref().is_none_or(|bytes| decode::<ReverseRecord>(bytes).is_ok());
    let reports = [ChunkReport { chunk, damage, detail: detail.clone(), tenant: None }];
    let reported = at_once(engine.decide(move |view| {
        let (tuning, secret, entropy) = (&*TUNING, &*SECRET, &SeededEntropy::new(1));
        report(view, &Context { now_ms, entropy, tuning, nodes: &[], epoch: 1, secret }, node, &reports)
    }));
    assert_eq!(reported.is_ok(), readable);
    let now = get(keys::damage(node, chunk));
    let Ok(()) = reported else {
        assert_eq!(now, known, "a refused report changed something");
        return;
    };
    let record = now.map(|bytes| decode::<DamageRecord>(&bytes).expect("what a report writes can be read"));
    let first = known.and_then(|bytes| decode::<DamageRecord>(&bytes).ok());
    assert_eq!(record.as_ref().map(|record| record.damage), damage.filter(|_| reverse.is_some()));
    if let Some(record) = record {
        assert_eq!((record.find_ms, record.detail), (first.map_or(now_ms, |first| first.find_ms), detail));
    }
}

fn check_listing(engine: &MemoryEngine, rows: &[Row], size: usize) {
    let read = |(key, value): &Row| Some((keys::damage_of(key)?, decode::<DamageRecord>(value).ok()?));
    let expected: Vec<_> = rows.iter().map_while(read).collect();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let Ok(page) = at_once(list(engine, after.as_deref(), size)) else {
            assert!(expected.len() < rows.len(), "a listing of good rows was refused");
            assert!(expected.get(..listed.len()) == Some(listed.as_slice()), "a listing gave something else");
            return;
        };
        assert!(page.entries.len() <= size);
        listed.extend(page.entries.into_iter().map(|one| ((one.node, one.chunk), one.record)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(expected.len(), rows.len(), "a row was passed over");
    assert_eq!(listed, expected);
}

/// Reports about chunks with and without a reference, twice; rows that are good but for their keys; and damaged ones.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let refer = |number: u8| vec![2, number, 1];
    let report = |number: u8, damage: u8| vec![3, number, damage, 2, b'a', b'b'];
    let row = |suffix: &[u8], value: &[u8]| {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        [&[0, 0, length(suffix)], suffix, &[length(value)], value].concat()
    };
    let entropy = SeededEntropy::new(1);
    let (block, blob) = (BlockId::generate(1, &entropy), BlobId::generate(1, &entropy));
    let (damage, detail) = (Damage::Missing, "gone".to_owned());
    let tenant = Some("posts".parse().expect("a tenant id"));
    let good = encode(&DamageRecord { tenant, block, blob, damage, detail, find_ms: 1 });
    let key = keys::damage(node(1), chunk(1));
    let suffix = key.strip_prefix(keys::DAMAGE).unwrap_or_default();
    let steps = [
        [refer(1), report(1, 1), report(1, 3), refer(20), report(20, 2), report(3, 1)].concat(),
        [refer(1), report(1, 1), report(1, 0)].concat(),
        [row(suffix, &good), report(1, 1), refer(1), report(1, 2)].concat(),
        [row(suffix, &good), row(b"short", &good)].concat(),
        [row(suffix, good.split_last().map_or(&[], |(_last, others)| others)), refer(1), report(1, 1)].concat(),
        [refer(1), vec![1, 1, 3, 8, 1, 16], report(1, 1), vec![2, 1, 0, 2, 8, 1], report(1, 1)].concat(),
    ];
    steps.into_iter().map(|steps| [vec![1], steps].concat()).collect()
}
