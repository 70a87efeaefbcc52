use proto::checksum::crc32c;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::Described;
use crate::store::disk::QUARANTINE;
use crate::store::testing::faulty_disk::Call;
use crate::store::testing::world::{ALL, World, blob, chk, claims, pattern, place};

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

/// A repair once set the checksum file aside before it summed the bytes up: when that failed there was none any more.
#[tokio::test]
async fn a_repair_that_cannot_read_the_bytes_leaves_everything_as_it_was() {
    let (world, place, bytes) = (World::new(), place(1), pattern(1_000, 1));
    world.put(place, &bytes).await.unwrap();
    world.disk.damage(&chk(&place), |content| content[7] ^= 1);
    let before = world.disk.names();
    let bad = verify(&world, place, &bytes, false).await;
    world.faults.fail_always(Call::Read, Errno::IO);
    let told = world.store.repaired_apart(place, claims(&bytes), bad).await.unwrap();
    assert_eq!(told.condition, Condition::ChecksumFileBad);
    assert!(told.detail.contains("cannot be written again now"), "{told:?}");
    assert_eq!(world.disk.names(), before);
    world.faults.heal();
    assert_eq!(verify(&world, place, &bytes, true).await.condition, Condition::Rebuilt);
}

#[tokio::test]
async fn a_checksum_file_of_a_later_version_is_told_and_never_touched() {
    let (world, place, bytes) = (World::new(), place(1), pattern(1_000, 1));
    world.put_sealed(place, &bytes).await;
    let said = "# mini-tectonic chunk v2\nwhatever it says\n";
    let later = format!("{said}# end crc32c={:08x}\n", crc32c(said.as_bytes())).into_bytes();
    world.disk.damage(&chk(&place), |content| content.clone_from(&later));
    let before = world.disk.names();
    let told = verify(&world, place, &bytes, true).await;
    assert_eq!(told.condition, Condition::ChecksumFileTooNew);
    assert!(told.detail.contains("of a later version 2, and this program knows up to 1"), "{told:?}");
    let too_new =
        |error: ChunkError| assert!(matches!(error, ChunkError::ChecksumFileTooNew { found: 2, .. }), "{error}");
    for described in [Described::Open, Described::Sealed(place, claims(&bytes))] {
        world.oracle.set(place.chunk, described);
        too_new(world.get(place, &bytes, ALL).await.unwrap_err());
        too_new(world.put(place, &bytes).await.unwrap_err());
        too_new(world.store.write_status(place).await.unwrap_err());
        assert_eq!((world.disk.bytes(&chk(&place)), world.disk.names()), (Some(later.clone()), before.clone()));
    }
    world.disk.damage(&blob(&place), |content| content[0] ^= 1);
    assert_eq!(verify(&world, place, &bytes, true).await.condition, Condition::Corrupt, "the metadata knows the bytes");
    world.disk.lose(&blob(&place));
    world.oracle.set(place.chunk, Described::Open);
    too_new(world.put(place, &bytes).await.unwrap_err());
    assert_eq!(world.disk.bytes(&chk(&place)), Some(later), "nor is it a left-over when it is alone");
}

/// What passes by itself was once taken for damage: out of memory, a read was lost data.
#[tokio::test]
async fn what_passes_by_itself_is_no_damage_wherever_it_happens() {
    let bytes = pattern(1_000, 1);
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN] {
        for call in [Call::Open, Call::Size, Call::Read, Call::DropCache] {
            let (world, place) = (World::new(), place(1));
            world.put_sealed(place, &bytes).await;
            world.faults.fail_always(call, errno);
            let outcomes = [
                world.get(place, &bytes, ALL).await.map(drop),
                world.put(place, &bytes).await.map(drop),
                world.store.verify(place, claims(&bytes), true).await.map(|found| {
                    assert_eq!(found.condition, Condition::Sound, "{call:?} {errno:?}");
                }),
            ];
            for outcome in outcomes {
                assert!(matches!(outcome, Ok(()) | Err(ChunkError::Overloaded(_))), "{call:?} {errno:?}: {outcome:?}");
            }
            world.faults.heal();
            assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes, "{call:?} {errno:?}");
            assert!(!world.disk.names().iter().any(|name| name.starts_with(QUARANTINE)), "{call:?} {errno:?}");
        }
    }
}

/// A stop once waited until a whole chunk was read, however slow the disk.
#[tokio::test]
async fn a_stop_ends_a_verification_and_a_repair_without_waiting_for_the_disk() {
    let (mut world, place, bytes) = (World::new(), place(1), pattern(9_000_000, 1));
    world.put_sealed(place, &bytes).await;
    let sound = world.disk.bytes(&chk(&place));
    let hanging = async |before: u64| {
        while world.faults.made(Call::Read) == before {
            tokio::task::yield_now().await;
        }
    };
    let (stop, reads) = (CancellationToken::new(), world.faults.made(Call::Read));
    let resume = world.faults.pause(Call::Read);
    let verifying = world.store.verify_until(&stop, place, claims(&bytes), true);
    let stopping = async {
        hanging(reads).await;
        stop.cancel();
    };
    let (verified, ()) = tokio::join!(verifying, stopping);
    assert!(matches!(verified, Err(ChunkError::Draining)), "{verified:?}");
    drop(resume);
    assert!(world.store.blocking().quiet_within(std::time::Duration::from_secs(60)).await);

    world.disk.lose(&chk(&place));
    let before = world.disk.names();
    let (reads, resume) = (world.faults.made(Call::Read), world.faults.pause(Call::Read));
    let store = Arc::clone(&world.store);
    let repairing = proto::runtime::TaskGroup::new()
        .spawn("repair", async move { store.rebuild(place, claims(&pattern(9_000_000, 1)), OldChk::SetAside).await });
    hanging(reads).await;
    world.settle().await;
    drop(resume);
    let repaired = repairing.await.unwrap().unwrap();
    assert!(matches!(repaired, Err(ChunkError::Draining)), "{repaired:?}");
    assert_eq!(world.disk.names(), before, "nothing is half done");
    let world = world.restart().await;
    assert_eq!(verify(&world, place, &bytes, true).await.condition, Condition::Rebuilt);
    assert_eq!(world.disk.bytes(&chk(&place)), sound);
}
