//! What the engine refuses before it does harm.

use super::*;
use crate::store::engine::{Batch, Decision};

async fn commit_that(engine: &SledEngine, batch: Batch, frees_space: bool) -> Result<u64, EngineError> {
    engine.commit(Box::new(move |_| Ok(Decision { frees_space, ..Decision::adds(batch) }))).await
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_by_what_a_commit_frees_and_recovers_by_itself() {
    let options = SledOptions { low_watermark_bytes: 1000, reserve_bytes: 100, ..SledOptions::default() };
    let fixture = Fixture::with(options);
    let write = || puts(&[(b"a", b"1")]);
    let full = |result| matches!(result, Err(EngineError::NearlyFull { .. }));
    fixture.disk.set_free(1000);
    commit_that(&fixture.engine, write(), false).await.unwrap();
    fixture.disk.set_free(999);
    assert!(full(commit_that(&fixture.engine, write(), false).await));
    commit_that(&fixture.engine, write(), true).await.unwrap();
    fixture.disk.set_free(99);
    assert!(full(commit_that(&fixture.engine, write(), false).await));
    assert!(full(commit_that(&fixture.engine, write(), true).await));
    assert_eq!(commit_that(&fixture.engine, Batch::default(), false).await.unwrap(), 2);
    assert!(fixture.engine.get(b"a").await.unwrap().is_some());
    fixture.disk.set_free(1000);
    assert_eq!(commit_that(&fixture.engine, write(), false).await.unwrap(), 3);
    assert_eq!(fixture.engine.latched(), None);
}

#[tokio::test]
async fn a_commit_refused_for_space_is_not_seen_by_the_next_one_of_its_group() {
    let fixture = Fixture::new();
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    fixture.disk.set_free(SledOptions::default().reserve_bytes);
    let refused = start(commit_boxed(&fixture.engine, puts(&[(b"a", b"1")]))).await;
    let engine = Arc::clone(&fixture.engine);
    let frees = Box::pin(async move {
        let decide = |view: &dyn crate::store::engine::View| {
            assert_eq!((view.get(b"a")?, view.sequence()), (None, 2));
            Ok(Decision::frees(puts(&[(b"b", b"1")])))
        };
        engine.commit(Box::new(decide)).await
    });
    let frees = start(frees).await;
    fixture.log.release();
    assert_eq!(stalled.await.unwrap(), 1);
    assert!(matches!(refused.await, Err(EngineError::NearlyFull { .. })));
    assert_eq!(frees.await.unwrap(), 2);
}

#[tokio::test]
async fn one_more_commit_than_may_wait_is_refused_and_the_others_are_not() {
    let fixture = Fixture::with(SledOptions { queue_length: 2, ..SledOptions::default() });
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    let first = start(commit_boxed(&fixture.engine, puts(&[(b"a", b"1")]))).await;
    let second = start(commit_boxed(&fixture.engine, puts(&[(b"b", b"1")]))).await;
    let refused = commit(&*fixture.engine, puts(&[(b"c", b"1")])).await;
    assert!(matches!(refused, Err(EngineError::Overloaded)));
    fixture.log.release();
    assert_eq!((stalled.await.unwrap(), first.await.unwrap(), second.await.unwrap()), (1, 2, 3));
    assert_eq!(fixture.engine.get(b"c").await.unwrap(), None);
    assert_eq!(commit(&*fixture.engine, puts(&[(b"c", b"1")])).await.unwrap(), 4);
}

#[tokio::test]
async fn more_commits_than_one_group_may_hold_all_go_through() {
    let fixture = Fixture::new();
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    let mut queued = Vec::new();
    for n in 0..2500_u64 {
        queued.push(start(commit_boxed(&fixture.engine, puts(&[(&n.to_be_bytes(), &[7; 4000])]))).await);
    }
    fixture.log.release();
    stalled.await.unwrap();
    for (expected, commit) in (2..).zip(queued) {
        assert_eq!(commit.await.unwrap(), expected);
    }
}

/// Only accepted commits counted against the size of a group. As long as refused ones kept coming on a full disk a group
/// never ended: what it had accepted was not synced, and nobody looked whether the disk had space again.
#[tokio::test]
async fn a_group_ends_also_when_all_its_commits_are_refused() {
    let fixture = Fixture::new();
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    fixture.disk.set_free(0);
    let looks = fixture.disk.looks();
    let mut queued = Vec::new();
    for n in 0..2500_u64 {
        queued.push(start(commit_boxed(&fixture.engine, puts(&[(&n.to_be_bytes(), b"")]))).await);
    }
    fixture.log.release();
    stalled.await.unwrap();
    for commit in queued {
        assert!(matches!(commit.await, Err(EngineError::NearlyFull { .. })));
    }
    assert_eq!(fixture.disk.looks(), looks + 3);
}

#[tokio::test]
async fn a_folder_is_open_once_only() {
    let fixture = Fixture::new();
    let again = SledEngine::open(fixture.folder.path(), &SledOptions::default());
    assert!(matches!(again, Err(EngineError::Failed { action: "open its database", .. })));
    commit(&*fixture.engine, puts(&[(b"a", b"1")])).await.unwrap();
}

#[tokio::test]
async fn a_database_without_a_sequence_is_refused() {
    let folder = TempDir::new().unwrap();
    let foreign = ::sled::open(folder.path()).unwrap();
    foreign.insert(b"a", b"1").unwrap();
    drop(foreign);
    let refused = SledEngine::open(folder.path(), &SledOptions::default());
    assert!(matches!(refused, Err(EngineError::Failed { action: "read its sequence", .. })));
}

#[tokio::test]
async fn a_folder_that_is_a_file_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let refused = SledEngine::open(file.path(), &SledOptions::default());
    assert!(matches!(refused, Err(EngineError::Failed { action: "make its folder", .. })));
}
