//! From the journal into the database: what readers see meanwhile, what a crash leaves, and what a failure ends.

use super::*;
use crate::store::conformance::row;
use crate::store::engine::{Batch, Decision};

fn everything() -> KeyRange {
    KeyRange { start: Vec::new(), end: None }
}

fn deletes(keys: &[&[u8]]) -> Batch {
    let mut batch = Batch::default();
    keys.iter().for_each(|key| batch.delete(key.to_vec()));
    batch
}

async fn rows(engine: &SledEngine) -> Vec<Row> {
    engine.scan(&everything(), usize::MAX).await.unwrap()
}

impl Fixture {
    /// An engine whose first commit has frozen, in a checkpoint that does not end.
    async fn with_a_checkpoint_under_way(options: SledOptions, first: Batch) -> Self {
        let fixture = Self::with(options);
        fixture.database.hold();
        let syncs = fixture.database.begun();
        commit(&*fixture.engine, first).await.unwrap();
        fixture.database.wait_until_begun(syncs + 1);
        fixture
    }

    fn wait_until_idle(&self) {
        wait_until("the checkpoint ends", || !self.engine.shared.is_frozen());
    }
}

#[tokio::test]
async fn i3_readers_see_the_newest_of_table_checkpoint_and_database() {
    let options = always_due();
    let old: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b"1"), (b"c", b"1"), (b"d", b"1")];
    let fixture = Fixture::with(SledOptions { waiting_bytes: u64::MAX, ..options });
    let engine = &*fixture.engine;
    commit(engine, puts(&old)).await.unwrap();
    fixture.wait_until_idle();
    fixture.database.hold();
    let syncs = fixture.database.begun();
    let mut frozen = puts(&[(b"b", b"2"), (b"e", b"2"), (b"f", b"2")]);
    frozen.delete(b"c".to_vec());
    commit(engine, frozen).await.unwrap();
    fixture.database.wait_until_begun(syncs + 1);
    let mut active = puts(&[(b"c", b"3"), (b"f", b"3"), (b"g", b"3")]);
    active.delete(b"d".to_vec());
    active.delete(b"e".to_vec());
    commit(engine, active).await.unwrap();
    let expected = [row(b"a", b"1"), row(b"b", b"2"), row(b"c", b"3"), row(b"f", b"3"), row(b"g", b"3")];
    for _ in 0..2 {
        assert_eq!(rows(engine).await, expected);
        for limit in 0..=expected.len() {
            assert_eq!(engine.scan(&everything(), limit).await.unwrap(), expected[..limit]);
        }
        for key in [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"] {
            let value = expected.iter().find(|(found, _)| found == key.as_slice()).map(|(_, value)| value.clone());
            assert_eq!(engine.get(key).await.unwrap(), value, "{}", key.escape_ascii());
        }
        fixture.database.release();
        fixture.wait_until_idle();
    }
}

#[tokio::test]
async fn what_lived_for_less_than_a_generation_takes_no_memory_and_never_reaches_the_database() {
    let fixture = Fixture::new();
    commit(&*fixture.engine, puts(&[(b"stays", b"1")])).await.unwrap();
    let bytes = fixture.engine.shared.active_bytes();
    for _ in 0..100 {
        commit(&*fixture.engine, puts(&[(b"upload/1", b"1"), (b"upload/2", b"1")])).await.unwrap();
        commit(&*fixture.engine, deletes(&[b"upload/1", b"upload/2", b"never was"])).await.unwrap();
    }
    assert_eq!(fixture.engine.shared.active_bytes(), bytes);
    assert_eq!(rows(&fixture.engine).await, [row(b"stays", b"1")]);
    // What the database has, or is getting, is removed there too.
    fixture.engine.close().await;
    let reopened = SledEngine::open(fixture.folder.path(), &SledOptions::default()).unwrap();
    commit(&reopened, deletes(&[b"stays"])).await.unwrap();
    assert_eq!(rows(&reopened).await, []);
    reopened.close().await;
    let reopened = SledEngine::open(fixture.folder.path(), &SledOptions::default()).unwrap();
    assert_eq!((rows(&reopened).await, reopened.sequence()), (vec![], 202));
    reopened.close().await;
}

#[tokio::test]
async fn i1_a_crash_in_a_checkpoint_loses_nothing_and_shows_no_part_of_it() {
    let value = [7; 4000];
    let keys: Vec<_> = (0..100_u64).map(u64::to_be_bytes).collect();
    let all: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (key.as_slice(), value.as_slice())).collect();
    let options = SledOptions { waiting_bytes: u64::MAX, ..always_due() };
    // Large enough for several syncs.
    let fixture = Fixture::with_a_checkpoint_under_way(options.clone(), puts(&all)).await;
    let first = keys[0].as_slice();
    commit(&*fixture.engine, deletes(&[first])).await.unwrap();
    commit(&*fixture.engine, puts(&[(b"new", b"1")])).await.unwrap();
    let expected = rows(&fixture.engine).await;
    assert_eq!((expected.len(), fixture.engine.sequence()), (100, 3));
    let syncs = fixture.database.begun();
    for sync in 0..4 {
        let killed = copy_of(fixture.folder.path());
        let reopened = SledEngine::open(killed.path(), &options).unwrap();
        assert_eq!((rows(&reopened).await, reopened.sequence()), (expected.clone(), 3), "before sync {sync}");
        reopened.close().await;
        fixture.database.let_one_pass();
        fixture.database.wait_until_begun(syncs + sync + 1);
    }
    fixture.database.release();
    fixture.engine.close().await;
}

#[tokio::test]
async fn i17_commits_wait_for_a_checkpoint_when_too_much_has_come_together() {
    let options = SledOptions { waiting_bytes: 1000, ..always_due() };
    let fixture = Fixture::with_a_checkpoint_under_way(options, puts(&[(b"a", b"1")])).await;
    commit(&*fixture.engine, puts(&[(b"b", &[7; 2000])])).await.unwrap();
    let waits = start(commit_boxed(&fixture.engine, puts(&[(b"c", b"1")]))).await;
    assert!(fixture.engine.get(b"c").await.unwrap().is_none());
    fixture.database.release();
    assert_eq!(waits.await.unwrap(), 3);
    fixture.wait_until_idle();
    assert_eq!(rows(&fixture.engine).await.len(), 3);
}

#[tokio::test]
async fn i19_a_checkpoint_that_fails_latches_and_everything_is_read_then_and_after_a_restart() {
    for panics in [false, true] {
        let options = SledOptions { waiting_bytes: u64::MAX, ..always_due() };
        let fixture = Fixture::with_a_checkpoint_under_way(options.clone(), puts(&[(b"a", b"1")])).await;
        commit(&*fixture.engine, puts(&[(b"b", b"1")])).await.unwrap();
        if panics {
            fixture.database.panic()
        } else {
            fixture.database.fail()
        }
        fixture.database.release();
        let reason = fixture.engine.failed().await;
        assert!(reason.contains(if panics { "as the test asked" } else { "sync its database" }), "{reason}");
        let refused = commit(&*fixture.engine, puts(&[(b"c", b"1")])).await;
        assert!(matches!(refused, Err(EngineError::Latched(_))));
        let expected = [row(b"a", b"1"), row(b"b", b"1")];
        assert_eq!(rows(&fixture.engine).await, expected);
        fixture.engine.close().await;
        let reopened = SledEngine::open(fixture.folder.path(), &options).unwrap();
        assert_eq!((rows(&reopened).await.as_slice(), reopened.sequence()), (expected.as_slice(), 2));
        reopened.close().await;
    }
}

/// A panic while the journal was emptied had the engine say that it is closed before it was.
#[tokio::test]
async fn i19_a_panic_at_the_end_loses_nothing_and_leaves_the_files_free() {
    let fixture = Fixture::new();
    commit(&*fixture.engine, puts(&[(b"a", b"1")])).await.unwrap();
    fixture.database.panic();
    fixture.engine.close().await;
    assert!(fixture.engine.latched().unwrap().contains("as the test asked"));
    let reopened = SledEngine::open(fixture.folder.path(), &SledOptions::default()).unwrap();
    assert_eq!((rows(&reopened).await, reopened.sequence()), (vec![row(b"a", b"1")], 1));
    reopened.close().await;
}

/// What waited for a checkpoint would have needed the room that was kept for it.
#[tokio::test]
async fn little_waits_for_a_checkpoint_while_room_is_scarce() {
    let fixture = Fixture::new();
    commit(&*fixture.engine, puts(&[(b"a", b"1")])).await.unwrap();
    assert!(fixture.engine.shared.active_bytes() > 0);
    fixture.disk.set_free(SledOptions::default().low_watermark_bytes - 1);
    let frees = Decision::frees(puts(&[(b"b", b"1")]));
    fixture.engine.commit(Box::new(|_view| Ok(frees))).await.unwrap();
    wait_until("a checkpoint", || fixture.engine.shared.active_bytes() == 0);
    fixture.wait_until_idle();
    assert_eq!(rows(&fixture.engine).await.len(), 2);
}

#[tokio::test]
async fn more_than_both_halves_of_the_journal_hold_goes_through_it() {
    let options = SledOptions { journal_bytes: 0, checkpoint_bytes: u64::MAX, ..SledOptions::default() };
    let fixture = Fixture::with(options.clone());
    let value = vec![7; 4000];
    for round in 0..20_u64 {
        let keys: Vec<_> = (0..128_u64).map(|n| (round * 1000 + n).to_be_bytes()).collect();
        let writes: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (key.as_slice(), value.as_slice())).collect();
        assert_eq!(commit(&*fixture.engine, puts(&writes)).await.unwrap(), round + 1);
    }
    fixture.wait_until_idle();
    let killed = copy_of(fixture.folder.path());
    for folder in [killed.path(), fixture.folder.path()] {
        if folder == fixture.folder.path() {
            fixture.engine.close().await;
        }
        let reopened = SledEngine::open(folder, &options).unwrap();
        assert_eq!((rows(&reopened).await.len(), reopened.sequence()), (20 * 128, 20));
        reopened.close().await;
    }
}
