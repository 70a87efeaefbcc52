//! Writes that break off, come back, repeat, and meet what others left.

use super::super::testing::faulty_disk::Call;
use super::super::testing::world::{ALL, World, blob, chk, pattern, place};
use crate::error::ChunkError;
use crate::store::Described;
use crate::store::writing::{Stated, WriteStatus};

#[tokio::test]
async fn the_cut_of_the_frames_does_not_matter() {
    let world = World::new();
    for (number, (size, frame)) in
        [(0, 1), (1, 1), (5_000, 7), (65_536, 65_536), (3_000_000, 300_000), (3_000_000, 1 << 20), (700_000, 40_000)]
            .into_iter()
            .enumerate()
    {
        let (place, bytes) = (place(number as u64), pattern(size, 1));
        let sums = world.put_framed(place, &bytes, 0, frame).await.unwrap();
        assert_eq!(sums.size_bytes, size as u64);
        assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes, "{size} bytes in frames of {frame}");
    }
}

#[tokio::test]
async fn a_write_that_broke_off_is_gone_on_with_and_one_from_the_start_begins_anew() {
    let (world, place, bytes) = (World::new(), place(1), pattern(500_000, 1));
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Open(0));
    world.put_part(place, 0, &bytes[..200_000]).await.unwrap();
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Open(200_000));
    world.put_part(place, 200_000, &bytes[200_000..300_000]).await.unwrap();
    let misfit = world.put_part(place, 200_000, b"x").await;
    assert!(matches!(misfit, Err(ChunkError::WriteOffsetMismatch { persisted: 300_000 })));
    world.put_part(place, 0, &bytes[..100_000]).await.unwrap();
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Open(100_000));
    let sums = world.put_framed(place, &bytes, 100_000, 30_000).await.unwrap();
    assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes);
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Complete(sums));
}

#[tokio::test]
async fn nothing_stays_of_a_write_that_is_not_what_was_stated() {
    let (world, place) = (World::new(), place(1));
    for stated in [
        Stated { size_bytes: Some(4), sha256: None },
        Stated { size_bytes: None, sha256: Some(proto::checksum::Sha256::of(b"other")) },
    ] {
        let (claim, mut sink) = world.begin(place, 0).await.unwrap();
        sink.push("bytes".into()).await.unwrap();
        assert!(world.store.complete(claim, sink, stated).await.is_err(), "{stated:?}");
        assert_eq!(world.disk.names(), Vec::<String>::new());
    }
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Open(0));
}

#[tokio::test]
async fn a_repeat_writes_nothing_and_syncs_everything_again() {
    let (world, place, bytes) = (World::new(), place(1), pattern(100_000, 1));
    let first = world.put(place, &bytes).await.unwrap();
    let before = (world.faults.made(Call::Write), world.faults.made(Call::Sync), world.faults.made(Call::SyncFolder));
    assert_eq!(world.put(place, &bytes).await.unwrap(), first);
    let after = (world.faults.made(Call::Write), world.faults.made(Call::Sync), world.faults.made(Call::SyncFolder));
    assert_eq!(after, (before.0, before.1 + 2, before.2 + 1));
    let other = world.put(place, &pattern(100_000, 2)).await;
    assert!(matches!(other, Err(ChunkError::AlreadyExists(_))));
    assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_left_over_is_replaced_when_its_block_is_open() {
    let (world, place, bytes) = (World::new(), place(1), pattern(1_000, 1));
    world.put(place, &pattern(50, 2)).await.unwrap();
    for lose in [chk(&place), blob(&place)] {
        world.disk.lose(&lose);
        assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Open(0));
        world.put(place, &bytes).await.unwrap();
        assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_left_over_whose_block_is_sealed_is_healed_and_counts_as_complete() {
    let (world, place, bytes) = (World::new(), place(1), pattern(1_000, 1));
    world.put_sealed(place, &bytes).await;
    let sound = world.disk.bytes(&chk(&place));
    world.disk.lose(&chk(&place));
    assert!(matches!(world.put(place, &pattern(9, 9)).await, Err(ChunkError::AlreadyExists(_))));
    assert_eq!(world.disk.bytes(&chk(&place)), sound);
    world.disk.lose(&chk(&place));
    assert!(matches!(world.store.write_status(place).await, Ok(WriteStatus::Complete(_))));
    world.disk.damage(&blob(&place), |content| content[5] ^= 1);
    assert!(matches!(world.put(place, &bytes).await, Err(ChunkError::Corrupt(_))));
    assert!(world.disk.bytes(&blob(&place)).is_some(), "the bad copy stays in place");
}

#[tokio::test]
async fn a_left_over_is_not_touched_without_an_answer_or_when_nothing_refers_to_it() {
    let (world, place, bytes) = (World::new(), place(1), pattern(1_000, 1));
    world.put(place, &bytes).await.unwrap();
    world.disk.lose(&chk(&place));
    world.oracle.set_unreachable(true);
    assert!(matches!(world.put(place, &bytes).await, Err(ChunkError::MetadataUnreachable(_))));
    assert!(matches!(world.store.write_status(place).await, Err(ChunkError::MetadataUnreachable(_))));
    world.oracle.set_unreachable(false);
    world.oracle.set(place.chunk, Described::Unknown);
    assert!(matches!(world.put(place, &bytes).await, Err(ChunkError::UploadOver)));
    assert_eq!(world.disk.bytes(&blob(&place)), Some(bytes));
}

#[tokio::test]
async fn a_complete_pair_whose_bytes_went_bad_before_its_receipt_begins_anew() {
    let (world, place, bytes) = (World::new(), place(1), pattern(1_000, 1));
    world.put(place, &bytes).await.unwrap();
    world.disk.damage(&blob(&place), |content| content[5] ^= 1);
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Open(0));
    world.put(place, &bytes).await.unwrap();
    assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_delete_ends_a_write_first_and_may_be_repeated() {
    let (world, place, bytes) = (World::new(), place(1), pattern(1_000, 1));
    world.put_part(place, 0, &bytes[..10]).await.unwrap();
    world.store.delete(place.chunk).await.unwrap();
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Open(0));
    world.put(place, &bytes).await.unwrap();
    for _ in 0..2 {
        world.store.delete(place.chunk).await.unwrap();
        assert_eq!(world.disk.names(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn writes_without_a_writer_are_dropped_with_their_files() {
    let (world, place) = (World::new(), place(1));
    world.put_part(place, 0, b"part").await.unwrap();
    assert_eq!(world.store.reap().await.unwrap(), 0);
    assert_eq!(world.store.close().await.unwrap(), 1);
    assert_eq!(world.disk.names(), Vec::<String>::new());
    assert!(world.store.is_idle());
}
