//! Bytes that the page cache shows and the disk does not have (I15).
//!
//! A write-back that fails is told once, to the descriptors that were open then; afterwards the cache goes on showing the
//! bytes. Also a disk may lose what it had, behind the cache.

use crate::error::ChunkError;
use crate::store::testing::mistakes::Mistake;
use crate::store::testing::world::{ALL, World, blob, pattern, place};
use crate::store::writing::WriteStatus;

/// Runs both with this mistake in the store; panics when the store breaks a promise.
pub(crate) async fn run(mistake: Option<Mistake>) {
    a_write_that_never_got_there_is_not_answered(mistake).await;
    what_only_the_cache_shows_is_not_answered_again(mistake).await;
}

async fn a_write_that_never_got_there_is_not_answered(mistake: Option<Mistake>) {
    for size in [5, 200_000, 1_100_000] {
        let (world, bytes) = (World::with(mistake), pattern(size, 1));
        world.disk.lose_next_write();
        let put = world.put(place(1), &bytes).await;
        assert!(matches!(put, Err(ChunkError::ReadOnly(_))), "{put:?} for bytes that are not there");
        assert!(matches!(world.put(place(1), &bytes).await, Err(ChunkError::ReadOnly(_))));
        // The next process finds a disk that works again.
        let world = world.kill().await;
        world.put(place(1), &bytes).await.unwrap();
        is_durable(world, &bytes).await;
    }
}

async fn what_only_the_cache_shows_is_not_answered_again(mistake: Option<Mistake>) {
    for size in [1, 5, 200_000] {
        let (world, bytes) = (World::with(mistake), pattern(size, 1));
        world.put(place(1), &bytes).await.unwrap();
        world.disk.damage_below_cache(&blob(&place(1)), |durable| durable[size / 2] ^= 1);
        let world = world.kill().await;
        assert_eq!(world.store.write_status(place(1)).await.unwrap(), WriteStatus::Open(0));
        world.put(place(1), &bytes).await.unwrap();
        is_durable(world, &bytes).await;
    }
}

async fn is_durable(world: World, bytes: &[u8]) {
    world.oracle.seal(place(1), bytes);
    let world = world.crash(&mut |_below| 0).await;
    assert_eq!(world.get(place(1), bytes, ALL).await.unwrap(), bytes);
}

#[tokio::test]
async fn what_the_disk_does_not_have_is_not_answered_as_durable() {
    run(None).await;
}
