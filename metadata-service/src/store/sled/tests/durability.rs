//! Shown only when durable (I3), nobody answered before the sync (I15), the first failure is the last (I19).

use super::*;
use crate::store::conformance::{number, row};
use crate::store::engine::{Batch, Decision, EngineExt as _};

fn get(engine: &Arc<SledEngine>, key: &'static [u8]) -> Started<Option<Bytes>> {
    let engine = Arc::clone(engine);
    Box::pin(async move { engine.get(key).await })
}

fn scan(engine: &Arc<SledEngine>, prefix: &'static [u8], limit: usize) -> Started<Vec<Row>> {
    let engine = Arc::clone(engine);
    Box::pin(async move { engine.scan(&KeyRange::prefix(prefix), limit).await })
}

fn delete(key: &[u8]) -> Batch {
    let mut batch = Batch::default();
    batch.delete(key.to_vec());
    batch
}

fn increment(engine: &Arc<SledEngine>) -> Started<u64> {
    let engine = Arc::clone(engine);
    Box::pin(async move {
        let decide = |view: &dyn crate::store::engine::View| {
            let next = number(view.get(b"count")?) + 1;
            let batch = puts(&[(b"count", &next.to_be_bytes())]);
            Ok((Decision::adds(batch), next))
        };
        engine.decide(decide).await
    })
}

/// A closure that writes nothing and tells what it saw.
fn look(engine: &Arc<SledEngine>) -> Started<u64> {
    let engine = Arc::clone(engine);
    Box::pin(async move {
        let seen = engine.decide(|view| Ok::<_, EngineError>((Decision::default(), number(view.get(b"count")?))));
        seen.await
    })
}

#[tokio::test]
async fn i3_a_write_is_not_shown_while_its_sync_lasts_and_is_shown_after_it() {
    let fixture = Fixture::new();
    let engine = &fixture.engine;
    commit(&**engine, puts(&[(b"a/1", b"old"), (b"a/2", b"old"), (b"b/1", b"old")])).await.unwrap();
    let mut batch = puts(&[(b"a/2", b"new")]);
    batch.delete(b"b/1".to_vec());
    let stalled = fixture.stall(batch).await;
    let changed = start(get(engine, b"a/2")).await;
    let deleted = start(get(engine, b"b/1")).await;
    let over_changed = start(scan(engine, b"a/", 10)).await;
    let over_deleted = start(scan(engine, b"b/", 10)).await;
    assert_eq!(engine.get(b"a/1").await.unwrap().as_deref(), Some(b"old".as_slice()));
    assert_eq!(engine.get(b"absent").await.unwrap(), None);
    assert_eq!(engine.scan(&KeyRange::prefix(b"a/"), 1).await.unwrap(), [row(b"a/1", b"old")]);
    assert_eq!(engine.scan(&KeyRange::prefix(b"a/"), 0).await.unwrap(), []);
    assert_eq!(engine.scan(&KeyRange::prefix(b"c/"), 10).await.unwrap(), []);
    assert_eq!(engine.sequence(), 1);
    fixture.log.release();
    assert_eq!(stalled.await.unwrap(), 2);
    assert_eq!(changed.await.unwrap().as_deref(), Some(b"new".as_slice()));
    assert_eq!(deleted.await.unwrap(), None);
    assert_eq!(over_changed.await.unwrap(), [row(b"a/1", b"old"), row(b"a/2", b"new")]);
    assert_eq!(over_deleted.await.unwrap(), []);
    assert_eq!(engine.sequence(), 2);
}

/// For a plan, whose writer's next commit shows whether it was kept.
#[tokio::test]
async fn who_waives_the_sync_is_answered_before_it_and_readers_wait_all_the_same() {
    let fixture = Fixture::new();
    fixture.log.hold();
    let syncs = fixture.log.begun();
    let early = Decision { answered_early: true, ..Decision::adds(puts(&[(b"plan", b"1")])) };
    assert_eq!(fixture.engine.commit(Box::new(|_view| Ok(early))).await.unwrap(), 1);
    fixture.log.wait_until_begun(syncs + 1);
    let reader = start(get(&fixture.engine, b"plan")).await;
    let next = start(commit_boxed(&fixture.engine, puts(&[(b"next", b"1")]))).await;
    fixture.log.release();
    assert_eq!(reader.await.unwrap().as_deref(), Some(b"1".as_slice()));
    assert_eq!(next.await.unwrap(), 2);
}

#[tokio::test]
async fn i15_a_failed_sync_fails_everyone_who_waited_and_nothing_of_its_group_is_ever_shown() {
    let fixture = Fixture::new();
    let engine = &fixture.engine;
    commit(&**engine, puts(&[(b"a", b"old"), (b"b", b"old"), (b"c", b"old")])).await.unwrap();
    let mut stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    let first = start(commit_boxed(engine, puts(&[(b"a", b"new")]))).await;
    let second = start(commit_boxed(engine, delete(b"b"))).await;
    let only_looks = start(look(engine)).await;
    let syncs = fixture.log.begun();
    fixture.log.let_one_pass();
    fixture.log.wait_until_begun(syncs + 1);
    assert!(poll_once(&mut stalled).await.is_ready(), "its own sync went well");
    let late = start(commit_boxed(engine, puts(&[(b"c", b"new")]))).await;
    let (reader, scanner) = (start(get(engine, b"a")).await, start(scan(engine, b"", 10)).await);
    fixture.log.fail();
    fixture.log.release();
    for waited in [first, second, only_looks] {
        assert!(matches!(waited.await, Err(EngineError::Failed { action: "sync its journal", .. })));
    }
    assert!(matches!(late.await, Err(EngineError::Latched(_))));
    assert!(matches!(reader.await, Err(EngineError::Latched(_))));
    assert!(matches!(scanner.await, Err(EngineError::Latched(_))));
    assert!(matches!(engine.get(b"a").await, Err(EngineError::Latched(_))));
    assert!(matches!(engine.get(b"b").await, Err(EngineError::Latched(_))));
    assert!(matches!(engine.scan(&KeyRange::prefix(b""), 10).await, Err(EngineError::Latched(_))));
    assert_eq!(engine.get(b"c").await.unwrap().as_deref(), Some(b"old".as_slice()));
    assert_eq!(engine.scan(&KeyRange::prefix(b"c"), 10).await.unwrap(), [row(b"c", b"old")]);
    assert!(matches!(commit(&**engine, puts(&[(b"d", b"")])).await, Err(EngineError::Latched(_))));
    assert!(matches!(look(engine).await, Err(EngineError::Latched(_))));
    assert_eq!(engine.latched(), Some(engine.failed().await));
    assert_eq!(engine.sequence(), 2);
    engine.close().await;
    assert!(matches!(engine.get(b"c").await, Err(EngineError::Closed)));
}

#[tokio::test]
async fn i15_a_decision_that_writes_nothing_waits_for_what_it_saw() {
    let fixture = Fixture::new();
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    let written = start(increment(&fixture.engine)).await;
    let mut looked = start(look(&fixture.engine)).await;
    let syncs = fixture.log.begun();
    fixture.log.let_one_pass();
    fixture.log.wait_until_begun(syncs + 1);
    assert!(poll_once(&mut looked).await.is_pending(), "it saw a write that is not durable");
    fixture.log.release();
    assert_eq!((stalled.await.unwrap(), written.await.unwrap(), looked.await.unwrap()), (1, 1, 1));
}

#[tokio::test]
async fn commits_of_one_group_see_each_other_and_share_one_sync() {
    let fixture = Fixture::new();
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    let mut queued = Vec::new();
    for _ in 0..100 {
        queued.push(start(increment(&fixture.engine)).await);
    }
    let syncs = fixture.log.begun();
    fixture.log.release();
    stalled.await.unwrap();
    for (expected, commit) in (1..).zip(queued) {
        assert_eq!(commit.await.unwrap(), expected);
    }
    assert_eq!(fixture.log.begun(), syncs + 1);
    assert_eq!(fixture.engine.sequence(), 101);
}

#[tokio::test]
async fn a_commit_whose_caller_went_away_holds_all_the_same() {
    let fixture = Fixture::new();
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    drop(start(increment(&fixture.engine)).await);
    fixture.log.release();
    stalled.await.unwrap();
    assert_eq!(look(&fixture.engine).await.unwrap(), 1);
}

#[tokio::test]
async fn i19_a_panic_in_a_sync_latches_and_fails_everyone_who_waited() {
    let fixture = Fixture::new();
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    let (queued, reader) = (start(increment(&fixture.engine)).await, start(get(&fixture.engine, b"lead")).await);
    fixture.log.panic();
    fixture.log.release();
    assert!(matches!(stalled.await, Err(EngineError::Latched(_))));
    assert!(matches!(queued.await, Err(EngineError::Latched(_))));
    assert!(matches!(reader.await, Err(EngineError::Latched(_))));
    assert!(fixture.engine.latched().unwrap().contains("as the test asked"));
    assert_eq!(fixture.engine.get(b"other").await.unwrap(), None);
    fixture.engine.close().await;
}

#[tokio::test]
async fn i19_a_panic_in_a_closure_latches_and_its_group_is_not_applied() {
    let fixture = Fixture::new();
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    let before = start(increment(&fixture.engine)).await;
    let engine = Arc::clone(&fixture.engine);
    let panics = start(Box::pin(async move { engine.commit(Box::new(|_| panic!("a bug"))).await })).await;
    let after = start(increment(&fixture.engine)).await;
    fixture.log.release();
    assert_eq!(stalled.await.unwrap(), 1);
    for failed in [before, panics, after] {
        assert!(matches!(failed.await, Err(EngineError::Latched(reason)) if reason.contains("a bug")));
    }
    assert_eq!(fixture.engine.get(b"count").await.unwrap(), None);
}

#[tokio::test]
async fn what_was_committed_and_its_numbering_survive_every_close_and_reopen() {
    let folder = TempDir::new().unwrap();
    for round in 0..30_u64 {
        let engine = SledEngine::open(folder.path(), &SledOptions::default()).unwrap();
        assert_eq!(engine.sequence(), round);
        let rows = engine.scan(&KeyRange::prefix(b""), 100).await.unwrap();
        let expected: Vec<_> = (0..round).map(|n| row(&n.to_be_bytes(), b"kept")).collect();
        assert_eq!(rows, expected);
        assert_eq!(commit(&engine, puts(&[(&round.to_be_bytes(), b"kept")])).await.unwrap(), round + 1);
        engine.close().await;
    }
}

/// The files as they were after the last sync that was answered, whatever was written to them since.
#[tokio::test]
async fn i1_what_was_acknowledged_needs_nothing_that_was_written_after_its_sync() {
    let fixture = Fixture::new();
    for round in 0..30_u64 {
        let image = TempDir::new().unwrap();
        fixture.log.copy_after_sync(fixture.folder.path(), image.path());
        let acknowledged = increment(&fixture.engine).await.unwrap();
        let stalled = fixture.stall(puts(&[(&round.to_be_bytes(), &[7; 4000])])).await;
        let after_power_cut = SledEngine::open(image.path(), &SledOptions::default()).unwrap();
        assert_eq!(number(after_power_cut.get(b"count").await.unwrap()), acknowledged);
        assert_eq!(after_power_cut.get(&round.to_be_bytes()).await.unwrap(), None);
        assert_eq!(after_power_cut.sequence(), fixture.engine.sequence());
        after_power_cut.close().await;
        fixture.log.release();
        stalled.await.unwrap();
    }
}

#[tokio::test]
async fn closing_makes_durable_what_was_accepted() {
    let fixture = Fixture::new();
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    let queued = start(increment(&fixture.engine)).await;
    let engine = Arc::clone(&fixture.engine);
    let closing = start(Box::pin(async move {
        engine.close().await;
        Ok(())
    }));
    let closing = closing.await;
    let just_in_time = start(increment(&fixture.engine)).await;
    fixture.log.release();
    closing.await.unwrap();
    assert_eq!((stalled.await.unwrap(), queued.await.unwrap(), just_in_time.await.unwrap()), (1, 1, 2));
    assert!(matches!(look(&fixture.engine).await, Err(EngineError::Closed)));
    let reopened = SledEngine::open(fixture.folder.path(), &SledOptions::default()).unwrap();
    assert_eq!(number(reopened.get(b"count").await.unwrap()), 2);
    reopened.close().await;
}

/// sled writes a snapshot at the end of each recovery, under a temporary name that it takes for a snapshot's when it
/// finds it: a process that was killed there left a database that nothing could open any more.
#[tokio::test]
async fn a_snapshot_that_a_killed_start_left_half_written_is_no_obstacle() {
    let fixture = Fixture::new();
    commit(&*fixture.engine, puts(&[(b"a", b"1")])).await.unwrap();
    fixture.engine.close().await;
    let half = fixture.folder.path().join("snap.00000000FFFFFFFF.generating");
    for content in [b"".as_slice(), b"half of a snapshot"] {
        std::io::Write::write_all(&mut std::fs::File::create_new(&half).unwrap(), content).unwrap();
        let reopened = SledEngine::open(fixture.folder.path(), &SledOptions::default()).unwrap();
        assert_eq!(reopened.get(b"a").await.unwrap().as_deref(), Some(b"1".as_slice()));
        reopened.close().await;
        assert!(!half.try_exists().unwrap());
    }
}
