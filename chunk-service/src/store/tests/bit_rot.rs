//! Whatever happens to the files of a chunk, wrong bytes are never served, and what can be healed is.

use rustix::io::Errno;

use super::super::testing::faulty_disk::Call;
use super::super::testing::world::{ALL, World, blob, chk, pattern, place};
use crate::error::ChunkError;
use crate::store::disk::QUARANTINE;
use crate::store::reading::Range;
use crate::store::writing::WriteStatus;

#[tokio::test]
async fn every_flipped_bit_of_a_small_blob_is_noticed_and_the_file_is_left_as_it_is() {
    let (world, place, bytes) = (World::new(), place(1), pattern(61, 1));
    world.put_sealed(place, &bytes).await;
    for bit in 0..bytes.len() * 8 {
        world.disk.damage(&blob(&place), |content| content[bit / 8] ^= 1 << (bit % 8));
        let refused = world.get(place, &bytes, ALL).await;
        assert!(matches!(refused, Err(ChunkError::Corrupt(_))), "bit {bit}: {refused:?}");
        world.disk.damage(&blob(&place), |content| content[bit / 8] ^= 1 << (bit % 8));
    }
    assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes);
}

#[tokio::test]
async fn every_damaged_byte_and_every_truncation_of_a_checksum_file_is_healed() {
    let (place, bytes) = (place(2), pattern(70_000, 2));
    let mut world = World::new();
    world.put_sealed(place, &bytes).await;
    let sound = world.disk.bytes(&chk(&place)).unwrap();
    for at in 0..sound.len() {
        for cut in [false, true] {
            let damage = |content: &mut Vec<u8>| if cut { content.truncate(at) } else { content[at] ^= 0x20 };
            world.disk.damage(&chk(&place), damage);
            assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes, "byte {at}");
            world = world.restart().await;
            assert_eq!(world.disk.bytes(&chk(&place)).as_ref(), Some(&sound), "byte {at} was healed");
        }
    }
}

#[tokio::test]
async fn a_lost_checksum_file_is_served_without_the_metadata_and_healed_with_it() {
    let (place, bytes) = (place(3), pattern(300_000, 3));
    let mut world = World::new();
    world.put_sealed(place, &bytes).await;
    let sound = world.disk.bytes(&chk(&place)).unwrap();
    world.disk.lose(&chk(&place));
    world.oracle.set_unreachable(true);
    assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes);
    world = world.restart().await;
    assert_eq!(world.disk.bytes(&chk(&place)), None, "without an answer the file is left alone");
    world.oracle.set_unreachable(false);
    assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes);
    world.settle().await;
    assert_eq!(world.disk.bytes(&chk(&place)), Some(sound));
}

#[tokio::test]
async fn shortened_extended_and_lost_blobs_are_reported() {
    let (world, place, bytes) = (World::new(), place(4), pattern(70_000, 4));
    world.put_sealed(place, &bytes).await;
    for length in [0, 1, 65_536, 69_999, 70_001] {
        world.disk.damage(&blob(&place), |content| content.resize(length, 0));
        let refused = world.get(place, &bytes, ALL).await;
        assert!(matches!(refused, Err(ChunkError::Corrupt(_))), "{length} bytes: {refused:?}");
        world.disk.damage(&blob(&place), |content| content.clone_from(&bytes));
    }
    world.disk.lose(&blob(&place));
    assert!(matches!(world.get(place, &bytes, ALL).await, Err(ChunkError::Missing(_))));
}

#[tokio::test]
async fn two_sound_pairs_that_were_swapped_are_both_refused() {
    let (world, one, other) = (World::new(), place(5), place(6));
    let (of_one, of_other) = (pattern(1_000, 5), pattern(1_000, 6));
    world.put_sealed(one, &of_one).await;
    world.put_sealed(other, &of_other).await;
    world.disk.swap(&blob(&one), &blob(&other));
    world.disk.swap(&chk(&one), &chk(&other));
    assert!(matches!(world.get(one, &of_one, ALL).await, Err(ChunkError::Corrupt(_))));
    assert!(matches!(world.get(other, &of_other, ALL).await, Err(ChunkError::Corrupt(_))));
}

#[tokio::test]
async fn a_swapped_pair_is_not_taken_for_the_chunk_whose_name_it_bears() {
    let (world, one, other) = (World::new(), place(5), place(6));
    world.put(one, b"of one").await.unwrap();
    world.put(other, b"of the other").await.unwrap();
    world.disk.swap(&blob(&one), &blob(&other));
    world.disk.swap(&chk(&one), &chk(&other));
    assert_eq!(world.store.write_status(one).await.unwrap(), WriteStatus::Open(0));
}

/// A chunk that had been written whole, and went bad before its commit, was once deleted by the next write of it: what
/// might have shown why it went bad was gone.
#[tokio::test]
async fn a_whole_chunk_that_went_bad_before_its_commit_is_set_aside() {
    let (world, place, bytes) = (World::new(), place(11), pattern(1_000, 11));
    world.put(place, &bytes).await.unwrap();
    let chk_text = world.disk.bytes(&chk(&place));
    world.disk.damage(&blob(&place), |content| content.truncate(7));
    world.put(place, &bytes).await.unwrap();
    let aside = |name: String| world.disk.bytes(&format!("{QUARANTINE}/{name}.0"));
    assert_eq!(aside(blob(&place)), Some(bytes[..7].to_vec()));
    assert_eq!(aside(chk(&place)), chk_text);
    world.disk.lose(&chk(&place));
    world.put(place, &bytes).await.unwrap();
    assert_eq!(world.disk.names().len(), 4, "without a sound checksum file it may be the left-over of any write");
}

/// One error of the disk while a chunk was read back once made a repeat of its write begin anew, with all its bytes.
#[tokio::test]
async fn a_chunk_that_cannot_be_read_back_once_is_read_again_before_it_counts_as_bad() {
    let (world, place, bytes) = (World::new(), place(12), pattern(300_000, 12));
    let sums = world.put(place, &bytes).await.unwrap();
    // The first read of a look is that of the checksum file.
    world.faults.fail(Call::Read, 1, Errno::IO);
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Complete(sums));
}

/// One error of the disk while a checksum file was read once made a whole chunk a left-over: a status moved it away.
#[tokio::test]
async fn a_checksum_file_that_cannot_be_read_once_is_read_again_before_its_chunk_counts_as_a_left_over() {
    let (world, place, bytes) = (World::new(), place(13), pattern(1_000, 13));
    let sums = world.put(place, &bytes).await.unwrap();
    world.faults.fail(Call::Read, 0, Errno::IO);
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Complete(sums));
    world.faults.fail_always(Call::Read, Errno::IO);
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Open(0));
    assert_eq!(world.disk.bytes(&format!("{QUARANTINE}/{}.0", blob(&place))), Some(bytes), "it may be whole");
}

#[tokio::test]
async fn swapped_checksum_files_alone_are_healed() {
    let (one, other) = (place(7), place(8));
    let (of_one, of_other) = (pattern(1_000, 7), pattern(1_000, 8));
    let mut world = World::new();
    world.put_sealed(one, &of_one).await;
    world.put_sealed(other, &of_other).await;
    let sound = world.disk.bytes(&chk(&one));
    world.disk.swap(&chk(&one), &chk(&other));
    assert_eq!(world.get(one, &of_one, ALL).await.unwrap(), of_one);
    assert_eq!(world.get(other, &of_other, ALL).await.unwrap(), of_other);
    world.settle().await;
    assert_eq!(world.disk.bytes(&chk(&one)), sound);
}

#[tokio::test]
async fn a_damaged_piece_spoils_only_the_ranges_that_touch_it() {
    let (world, place, bytes) = (World::new(), place(9), pattern(5 * 65_536, 9));
    world.put_sealed(place, &bytes).await;
    world.disk.damage(&blob(&place), |content| content[2 * 65_536 + 7] ^= 1);
    for (offset, limit) in [(0, 131_072), (196_608, 131_072), (65_535, 2)] {
        let range = Range { offset, limit: Some(limit) };
        let from = usize::try_from(offset).unwrap();
        let expected = &bytes[from..from + usize::try_from(limit).unwrap()];
        assert_eq!(world.get(place, &bytes, range).await.unwrap(), expected);
    }
    for (offset, limit) in [(131_071, 2), (131_072, 1), (196_607, 1), (0, 327_680)] {
        let refused = world.get(place, &bytes, Range { offset, limit: Some(limit) }).await;
        assert!(matches!(refused, Err(ChunkError::Corrupt(_))), "from {offset}: {refused:?}");
    }
}

#[tokio::test]
async fn a_read_that_goes_wrong_once_is_repeated_past_the_cache() {
    let (world, place, bytes) = (World::new(), place(10), pattern(70_000, 10));
    world.put_sealed(place, &bytes).await;
    // The first read is that of the checksum file, which is then summed up anew.
    world.faults.rot_reads(2);
    assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes);
    world.faults.fail(Call::Read, 1, Errno::IO);
    assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes);
}

/// A page cache that could not be dropped, or a size that the disk did not tell, once counted as bytes that are bad: a
/// sound chunk was cleared away, and other bytes were taken in its place.
#[tokio::test]
async fn a_chunk_that_cannot_be_looked_at_is_not_taken_for_a_bad_one() {
    let (world, place, bytes) = (World::new(), place(14), pattern(1_000, 14));
    world.put(place, &bytes).await.unwrap();
    // The first size that is asked for is that of the checksum file.
    for (call, nth) in [(Call::DropCache, 0), (Call::Size, 1)] {
        world.faults.fail(call, nth, Errno::IO);
        assert!(matches!(world.put(place, b"other").await, Err(ChunkError::Io { .. })), "{call:?}");
    }
    assert!(matches!(world.put(place, b"other").await, Err(ChunkError::AlreadyExists(_))));
    assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes);
}
