use proto::capability::ChunkBinding;
use proto::entropy::SeededEntropy;
use proto::ids::{BlobId, BlockId};

use super::*;
use crate::store::disk::{Disk as _, FolderDisk};
use crate::store::open_write::{Target, sum_up};

const PATIENCE: Duration = Duration::from_secs(20);

fn chunk() -> ChunkId {
    ChunkId::generate(1, &SeededEntropy::new(1))
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// A write of so many bytes into a file of its own.
fn write_of(sessions: &Sessions, bytes: usize) -> OpenWrite {
    let entropy = SeededEntropy::new(2);
    let binding = ChunkBinding {
        chunk: chunk(),
        block: BlockId::generate(1, &entropy),
        blob: BlobId::generate(1, &entropy),
        shard_index: 0,
        shard_count: 1,
        generation: 1,
        epoch: 1,
        sequence: 1,
    };
    let folder = tempfile::tempdir().unwrap();
    let file = FolderDisk::open_folder(folder.path()).unwrap().create_new("file").unwrap();
    let mut write = OpenWrite::new(binding, Target::File(file), sessions.admit(&tenant("posts")).unwrap());
    write.append(&[vec![7; bytes].into()]).unwrap();
    write
}

#[tokio::test]
async fn a_parked_write_waits_for_the_next_claim_and_nothing_stays_behind() {
    let sessions = Sessions::new(10, 10);
    let claim = sessions.claim(chunk(), Purpose::WriteFrom(0), PATIENCE).await.unwrap();
    claim.park(write_of(&sessions, 5));
    assert!(!sessions.is_empty());
    let mut claim = sessions.claim(chunk(), Purpose::WriteFrom(5), PATIENCE).await.unwrap();
    assert_eq!(claim.parked_at(), Some(5));
    assert_eq!(claim.take().map(|write| write.received()), Some(5));
    drop(claim);
    assert!(sessions.is_empty());
}

#[tokio::test]
async fn a_stream_that_writes_is_stopped_by_one_that_fits_and_left_alone_by_one_that_does_not() {
    let sessions = Sessions::new(10, 10);
    let first = sessions.claim(chunk(), Purpose::WriteFrom(0), PATIENCE).await.unwrap();
    first.set_received(Some(100));
    let misfit = sessions.claim(chunk(), Purpose::WriteFrom(50), PATIENCE).await;
    assert!(matches!(misfit, Err(ChunkError::WriteOffsetMismatch { persisted: 100 })));
    assert!(!first.stop().is_cancelled());
    assert!(matches!(sessions.look(chunk(), PATIENCE).await, Ok(Look::Receiving(100))));

    let stopped = first.stop().clone();
    let yields = async move {
        first.stop().cancelled().await;
        drop(first);
    };
    let (second, ()) = tokio::join!(sessions.claim(chunk(), Purpose::WriteFrom(100), PATIENCE), yields);
    assert!(stopped.is_cancelled() && second.is_ok());
}

#[tokio::test]
async fn of_several_that_wait_the_latest_wins() {
    let sessions = Sessions::new(10, 10);
    let first = sessions.claim(chunk(), Purpose::WriteFrom(0), PATIENCE).await.unwrap();
    let yields = async move {
        first.stop().cancelled().await;
        tokio::task::yield_now().await;
        drop(first);
    };
    let (second, third, ()) = tokio::join!(
        biased;
        sessions.claim(chunk(), Purpose::WriteFrom(0), PATIENCE),
        sessions.claim(chunk(), Purpose::Delete, PATIENCE),
        yields
    );
    assert!(matches!(second, Err(ChunkError::TakenOver)));
    assert!(!third.unwrap().stop().is_cancelled());
    assert!(sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_too_long_is_told_so() {
    let sessions = Sessions::new(10, 10);
    let _busy = sessions.claim(chunk(), Purpose::WriteFrom(0), PATIENCE).await.unwrap();
    let waiting = sessions.claim(chunk(), Purpose::WriteFrom(0), PATIENCE).await;
    assert!(matches!(waiting, Err(ChunkError::TakenOver)));
    assert!(matches!(sessions.look(chunk(), PATIENCE).await, Err(ChunkError::TakenOver)));
}

#[tokio::test(start_paused = true)]
async fn only_writes_that_waited_long_enough_are_forsaken() {
    let sessions = Sessions::new(10, 10);
    let claim = sessions.claim(chunk(), Purpose::WriteFrom(0), PATIENCE).await.unwrap();
    claim.park(write_of(&sessions, 1));
    let kept = Duration::from_secs(60);
    tokio::time::advance(Duration::from_secs(59)).await;
    assert!(sessions.forsaken(kept).is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut forsaken = sessions.forsaken(kept);
    assert_eq!(forsaken.len(), 1);
    assert!(forsaken.first_mut().unwrap().take().is_some());
    drop(forsaken);
    assert!(sessions.is_empty());
}

#[test]
fn open_writes_are_bounded_in_all_and_for_each_tenant() {
    let sessions = Sessions::new(3, 2);
    let posts: Vec<_> = (0..2).map(|_| sessions.admit(&tenant("posts")).unwrap()).collect();
    assert!(matches!(sessions.admit(&tenant("posts")), Err(ChunkError::Overloaded(_))));
    let photos = sessions.admit(&tenant("photos")).unwrap();
    assert!(matches!(sessions.admit(&tenant("others")), Err(ChunkError::Overloaded(_))));
    drop(posts);
    assert!(sessions.admit(&tenant("others")).is_ok());
    drop(photos);
    assert!(sessions.is_empty());
}

#[test]
fn a_write_is_one_again_when_both_halves_took_the_same_bytes_and_only_then() {
    let halves = || write_of(&Sessions::new(10, 10), 5).split();
    let (landing, hasher) = halves();
    assert_eq!(OpenWrite::join(landing, hasher).map(|write| write.received()), Some(5));
    let (mut landing, mut hasher) = halves();
    landing.land(&[b"more".as_slice().into()]).unwrap();
    assert!(OpenWrite::join(landing, hasher.clone()).is_none());
    sum_up(&mut hasher, &[b"more".as_slice().into()]);
    let (landing, _) = halves();
    assert!(OpenWrite::join(landing, hasher).is_none());
}
