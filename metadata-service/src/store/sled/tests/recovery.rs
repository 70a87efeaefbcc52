//! A start over a journal: what it takes, and what it refuses rather than to go on without.

use std::os::unix::fs::FileExt as _;

use super::journal::NAMES;
use super::*;
use crate::store::conformance::row;

fn refusal(folder: &Path) -> String {
    match SledEngine::open(folder, &SledOptions::default()) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.to_string(),
    }
}

/// A database as the first version left it: every commit is in it, and there is no journal.
fn first_version(folder: &Path) {
    let database = ::sled::open(folder).unwrap();
    database.insert(b"a", b"1").unwrap();
    let mut sequence = vec![1];
    sequence.extend_from_slice(&7_u64.to_be_bytes());
    sequence.extend_from_slice(&proto::checksum::crc32c(&sequence).to_be_bytes());
    database.insert(b"", sequence).unwrap();
    database.flush().unwrap();
}

#[tokio::test]
async fn a_database_of_the_first_version_is_taken_over_and_says_then_that_a_journal_belongs_to_it() {
    let folder = TempDir::new().unwrap();
    first_version(folder.path());
    let engine = SledEngine::open(folder.path(), &SledOptions::default()).unwrap();
    assert_eq!((engine.sequence(), engine.get(b"a").await.unwrap().as_deref()), (7, Some(b"1".as_slice())));
    let killed = copy_of(folder.path());
    assert_eq!(commit(&engine, puts(&[(b"b", b"1")])).await.unwrap(), 8);
    engine.close().await;
    let database = ::sled::open(killed.path()).unwrap();
    assert_eq!(database.get(b"").unwrap().unwrap()[0], 2, "an older program refuses it before the first commit");
}

#[tokio::test]
async fn i1_a_journal_that_is_not_there_is_no_empty_one() {
    for name in NAMES {
        let fixture = Fixture::new();
        commit(&*fixture.engine, puts(&[(b"a", b"1")])).await.unwrap();
        let killed = copy_of(fixture.folder.path());
        std::fs::OpenOptions::new().write(true).truncate(true).open(killed.path().join(name)).unwrap();
        for _start in 0..2 {
            let refused = refusal(killed.path());
            assert!(refused.contains("open its journal") && refused.contains("is empty"), "{refused}");
        }
        std::fs::remove_file(killed.path().join(name)).unwrap();
        let refused = refusal(killed.path());
        assert!(refused.contains("open its journal") && refused.contains("No such file"), "{refused}");
        fixture.engine.close().await;
    }
}

/// What only the cache held of the journal went into the database, in part durably, and a power cut took the rest.
#[tokio::test]
async fn nothing_of_the_journal_reaches_the_database_before_the_journal_is_durable() {
    let fixture = Fixture::new();
    commit(&*fixture.engine, puts(&[(b"a", b"1")])).await.unwrap();
    let killed = copy_of(fixture.folder.path());
    fixture.engine.close().await;
    let (journal, database) = (LogFaults::default(), LogFaults::default());
    journal.fail();
    let seams = Seams { database: database.wrap(), ..journal.seams() };
    let refused = SledEngine::open_with(killed.path(), &SledOptions::default(), seams);
    assert!(matches!(refused, Err(EngineError::Failed { action: "open its journal", .. })));
    assert_eq!(database.begun(), 0);
    let reopened = SledEngine::open(killed.path(), &SledOptions::default()).unwrap();
    assert_eq!(reopened.get(b"a").await.unwrap().as_deref(), Some(b"1".as_slice()));
    reopened.close().await;
}

#[tokio::test]
async fn i19_a_journal_with_a_damaged_commit_before_a_whole_one_is_refused_and_a_torn_last_one_never_was() {
    let fixture = Fixture::new();
    for n in 1..=3_u8 {
        commit(&*fixture.engine, puts(&[(&[n], b"kept")])).await.unwrap();
    }
    // A block for the head, one for each group; the first generation is the odd half's.
    for (block, whole) in [(1, false), (2, false), (3, true)] {
        let killed = copy_of(fixture.folder.path());
        let half = std::fs::OpenOptions::new().write(true).open(killed.path().join(NAMES[1])).unwrap();
        half.write_all_at(b"damage", block * 4096 + 70).unwrap();
        if whole {
            let reopened = SledEngine::open(killed.path(), &SledOptions::default()).unwrap();
            let rows = reopened.scan(&KeyRange::prefix(b""), 10).await.unwrap();
            assert_eq!((rows, reopened.sequence()), (vec![row(&[1], b"kept"), row(&[2], b"kept")], 2));
            reopened.close().await;
        } else {
            let refused = refusal(killed.path());
            assert!(refused.contains("replay its journal") && refused.contains("commits are lost"), "{refused}");
        }
    }
    fixture.engine.close().await;
}

#[tokio::test]
async fn i1_a_journal_of_later_commits_than_the_database_was_to_hold_is_refused() {
    let fixture = Fixture::with(always_due());
    for n in 1..=2_u8 {
        commit(&*fixture.engine, puts(&[(&[n], b"kept")])).await.unwrap();
        wait_until("the checkpoint ends", || !fixture.engine.shared.is_frozen());
    }
    commit(&*fixture.engine, puts(&[(b"3", b"kept")])).await.unwrap();
    let newer = copy_of(fixture.folder.path());
    fixture.engine.close().await;
    let older = Fixture::new();
    older.engine.close().await;
    for name in NAMES {
        std::fs::copy(newer.path().join(name), older.folder.path().join(name)).unwrap();
    }
    let refused = refusal(older.folder.path());
    assert!(refused.contains("commits are missing"), "{refused}");
}
