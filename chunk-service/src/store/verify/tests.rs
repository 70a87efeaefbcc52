use super::*;
use crate::store::disk::QUARANTINE;
use crate::store::testing::faulty_disk::Call;
use crate::store::testing::world::{World, blob, chk, claims, pattern, place};

async fn verify(world: &World, place: ChunkBinding, bytes: &[u8], repair: bool) -> Finding {
    world.store.verify(place, claims(bytes), repair).await.unwrap()
}

#[tokio::test]
async fn a_sound_chunk_of_any_size_is_sound_and_read_past_the_cache() {
    let world = World::new();
    for (number, size) in [0, 1, 65_536, 300_000, 9_000_000].into_iter().enumerate() {
        let (place, bytes) = (place(number as u64), pattern(size, 1));
        world.put(place, &bytes).await.unwrap();
        let dropped = world.faults.made(Call::DropCache);
        assert_eq!(verify(&world, place, &bytes, true).await, Finding::new(Condition::Sound, ""), "{size} bytes");
        assert_eq!(world.faults.made(Call::DropCache) - dropped, 2, "before the first byte and after the last");
    }
}

#[tokio::test]
async fn every_flipped_byte_is_found_and_nothing_is_changed() {
    let (world, place, bytes) = (World::new(), place(1), pattern(200, 1));
    world.put(place, &bytes).await.unwrap();
    let sound = world.disk.bytes(&chk(&place));
    for at in 0..bytes.len() {
        world.disk.damage(&blob(&place), |content| content[at] ^= 1);
        let (damaged, finding) = (world.disk.bytes(&blob(&place)), verify(&world, place, &bytes, true).await);
        assert_eq!(finding.condition, Condition::Corrupt, "byte {at}");
        assert_eq!((world.disk.bytes(&blob(&place)), world.disk.bytes(&chk(&place))), (damaged, sound.clone()));
        world.disk.damage(&blob(&place), |content| content[at] ^= 1);
    }
    assert_eq!(verify(&world, place, &bytes, false).await.condition, Condition::Sound);
}

#[tokio::test]
async fn damage_is_described_in_words() {
    let (world, place, bytes) = (World::new(), place(1), pattern(5 * 65_536, 1));
    world.put(place, &bytes).await.unwrap();
    world.disk.damage(&blob(&place), |content| content[70_000] ^= 1);
    world.disk.damage(&blob(&place), |content| content[300_000] ^= 1);
    let said = verify(&world, place, &bytes, false).await.detail;
    assert_eq!(said, "2 of 5 pieces of 64 KiB do not match; the first begins at byte 65536");
    world.disk.damage(&blob(&place), |content| content.truncate(7));
    let said = verify(&world, place, &bytes, false).await;
    assert_eq!(said, Finding::new(Condition::Corrupt, "the file has 7 bytes; 327680 were committed"));
    world.disk.lose(&blob(&place));
    let said = verify(&world, place, &bytes, false).await;
    assert_eq!(said, Finding::new(Condition::Missing, "the file is not there"));
}

#[tokio::test]
async fn one_bad_reading_is_not_damage_and_two_are() {
    let (world, place, bytes) = (World::new(), place(1), pattern(100_000, 1));
    world.put(place, &bytes).await.unwrap();
    world.faults.rot_reads(1);
    assert_eq!(verify(&world, place, &bytes, false).await.condition, Condition::Sound);
    for (call, sound) in [(Call::Read, true), (Call::Open, true), (Call::Size, true), (Call::DropCache, true)] {
        world.faults.fail(call, 0, Errno::IO);
        let once = verify(&world, place, &bytes, false).await;
        assert_eq!(once.condition == Condition::Sound, sound, "{call:?} failed once: {once:?}");
        world.faults.heal();
    }
    world.faults.fail_always(Call::Read, Errno::IO);
    let always = verify(&world, place, &bytes, false).await;
    assert_eq!(always.condition, Condition::Unreadable);
    assert!(always.detail.contains("byte 0 ") && always.detail.contains("Input/output error"), "{always:?}");
}

#[tokio::test]
async fn exhausted_descriptors_say_nothing_of_a_chunk() {
    let (world, place, bytes) = (World::new(), place(1), pattern(1_000, 1));
    world.put(place, &bytes).await.unwrap();
    for nth in 0..2 {
        world.faults.fail(Call::Open, nth, Errno::MFILE);
        let refused = world.store.verify(place, claims(&bytes), true).await;
        assert!(matches!(refused, Err(ChunkError::Overloaded(_))), "open {nth}: {refused:?}");
        world.faults.heal();
    }
}

#[tokio::test]
async fn a_bad_checksum_file_is_told_and_only_on_request_repaired() {
    let (world, place, other, bytes) = (World::new(), place(1), place(2), pattern(70_000, 1));
    world.put(place, &bytes).await.unwrap();
    world.put(other, b"another").await.unwrap();
    let sound = world.disk.bytes(&chk(&place)).unwrap();
    let others = world.disk.bytes(&chk(&other)).unwrap();
    let stale = String::from_utf8(sound.clone()).unwrap();
    let stale = Chk::parse(stale.as_bytes()).unwrap();
    let stale = Chk { binding: ChunkBinding { generation: 0, ..stale.binding }, ..stale }.print().into_bytes();
    for (bad, words) in [(b"rubbish".to_vec(), "is damaged"), (others, "is that of chunk"), (stale, "generation 0")] {
        world.disk.damage(&chk(&place), |content| content.clone_from(&bad));
        let told = verify(&world, place, &bytes, false).await;
        assert_eq!(told.condition, Condition::ChecksumFileBad);
        assert!(told.detail.contains(words), "{told:?}");
        assert_eq!(world.disk.bytes(&chk(&place)).unwrap(), bad, "nothing was asked to be repaired");
        assert_eq!(verify(&world, place, &bytes, true).await.condition, Condition::Rebuilt);
        assert_eq!(world.disk.bytes(&chk(&place)).unwrap(), sound);
    }
    let kept = world.disk.names().into_iter().filter(|name| name.starts_with(QUARANTINE)).count();
    assert_eq!(kept, 3, "each of them is kept");
    world.disk.lose(&chk(&place));
    assert!(verify(&world, place, &bytes, true).await.detail.contains("is missing; it was written again"));
    assert_eq!(verify(&world, place, &bytes, true).await.condition, Condition::Sound);
}

#[tokio::test]
async fn a_checksum_file_that_cannot_be_written_again_is_still_told() {
    let (world, place, bytes) = (World::new(), place(1), pattern(1_000, 1));
    world.put(place, &bytes).await.unwrap();
    world.disk.lose(&chk(&place));
    world.faults.fail_always(Call::Create, Errno::NOSPC);
    let told = verify(&world, place, &bytes, true).await;
    assert_eq!(told.condition, Condition::ChecksumFileBad);
    assert!(told.detail.contains("cannot be written again now"), "{told:?}");
}

#[tokio::test]
async fn a_consistent_pair_of_other_bytes_is_damage() {
    let (world, one, other) = (World::new(), place(1), place(2));
    world.put(one, b"one bytes").await.unwrap();
    world.put(other, b"two bytes").await.unwrap();
    world.disk.swap(&blob(&one), &blob(&other));
    world.disk.swap(&chk(&one), &chk(&other));
    for (place, bytes) in [(one, b"one bytes"), (other, b"two bytes")] {
        let found = verify(&world, place, bytes, true).await;
        assert_eq!(found.condition, Condition::Corrupt, "what was committed counts, not what the files say: {found:?}");
    }
}
