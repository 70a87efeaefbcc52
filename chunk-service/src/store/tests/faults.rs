//! Every kind of call of the disk fails once, at every place where a put, a read or a delete makes it.

use rustix::io::Errno;

use super::super::testing::faulty_disk::Call;
use super::super::testing::world::{ALL, World, blob, chk, pattern, place};
use crate::error::ChunkError;
use crate::store::writing::WriteStatus;

/// Calls that a put makes, with those at the end of it counted too.
const NTH_MAX: u64 = 4;

#[tokio::test]
async fn whatever_call_fails_a_put_is_durable_or_refused_and_what_was_there_stays() {
    let (mut refused, mut latched) = (0, 0);
    // Enough for several batches, and for room to be reserved.
    let (old, new, bytes) = (place(1), place(2), pattern(1_100_000, 1));
    for call in Call::ALL {
        for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::MFILE] {
            for nth in 0..NTH_MAX {
                let world = World::new();
                world.put_sealed(old, &bytes).await;
                world.faults.fail(call, nth, errno);
                let put = world.put(new, &bytes).await;
                world.faults.heal();
                let case = format!("{call:?} {nth} {errno:?}: {put:?}");
                let closed = world.store.latch().reason().is_some();
                latched += u64::from(closed);
                match &put {
                    Ok(_) => assert_eq!(world.get(new, &bytes, ALL).await.unwrap(), bytes, "{case}"),
                    Err(_) => {
                        refused += 1;
                        assert!(!world.disk.names().iter().any(|name| name.contains(&blob(&new))), "{case}");
                    }
                }
                // A fault of a sync, or an unknown error, ends writes; a full disk and too many files do not.
                let passing = matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::MFILE);
                assert!(!(closed && passing && !matches!(call, Call::Sync | Call::SyncFolder)), "{case}");
                if matches!(call, Call::Sync | Call::SyncFolder) && nth == 0 {
                    assert!(closed && put.is_err(), "{case}");
                }
                if !closed {
                    world.put(new, &bytes).await.unwrap();
                } else {
                    assert!(matches!(world.put(place(3), &bytes).await, Err(ChunkError::ReadOnly(_))), "{case}");
                }
                assert_eq!(world.get(old, &bytes, ALL).await.unwrap(), bytes, "{case}");
                assert!(!world.broken.is_cancelled(), "{case}");
            }
        }
    }
    assert!(refused > 40 && latched > 10, "{refused} puts were refused, {latched} ended all writes");
}

#[tokio::test]
async fn whatever_call_fails_a_read_is_right_or_refused() {
    let (mut refused, place, bytes) = (0, place(1), pattern(300_000, 1));
    for call in Call::ALL {
        for errno in [Errno::IO, Errno::MFILE] {
            for nth in 0..NTH_MAX {
                let world = World::new();
                world.put_sealed(place, &bytes).await;
                world.faults.fail(call, nth, errno);
                match world.get(place, &bytes, ALL).await {
                    Ok(read) => assert_eq!(read, bytes, "{call:?} {nth} {errno:?}"),
                    Err(_) => refused += 1,
                }
                world.faults.heal();
                assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes, "{call:?} {nth} {errno:?}");
                assert_eq!(world.store.latch().reason(), None, "a read never ends writes");
            }
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_lost_data_and_too_many_files_are_not() {
    let (world, place, bytes) = (World::new(), place(1), pattern(300_000, 1));
    world.put_sealed(place, &bytes).await;
    world.faults.fail_always(Call::Read, Errno::IO);
    assert!(matches!(world.get(place, &bytes, ALL).await, Err(ChunkError::Corrupt(_))));
    world.faults.heal();
    world.faults.fail_always(Call::Open, Errno::MFILE);
    assert!(matches!(world.get(place, &bytes, ALL).await, Err(ChunkError::Overloaded(_))));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_deletes_go_on_and_writes_resume_by_themselves() {
    let (world, one, other) = (World::new(), place(1), place(2));
    let bytes = pattern(700_000, 1);
    world.put(one, &bytes).await.unwrap();
    world.disk.set_free(500_000);
    assert!(matches!(world.put(other, &bytes).await, Err(ChunkError::OutOfSpace(_))));
    assert_eq!(world.disk.names().len(), 2, "nothing of the refused write stays");
    world.store.delete(one.chunk).await.unwrap();
    world.disk.set_free(u64::MAX);
    world.put(other, &bytes).await.unwrap();
    assert_eq!(world.store.latch().reason(), None);
}

#[tokio::test]
async fn a_delete_that_cannot_be_synced_is_not_answered_as_done() {
    let (world, place, bytes) = (World::new(), place(1), pattern(10, 1));
    world.put(place, &bytes).await.unwrap();
    world.faults.fail(Call::SyncFolder, 0, Errno::IO);
    assert!(matches!(world.store.delete(place.chunk).await, Err(ChunkError::ReadOnly(_))));
    assert!(matches!(world.store.delete(place.chunk).await, Err(ChunkError::ReadOnly(_))));
}

#[tokio::test]
async fn a_delete_removes_the_checksum_file_first() {
    let (world, place) = (World::new(), place(1));
    world.put(place, b"bytes").await.unwrap();
    world.faults.fail(Call::Unlink, 1, Errno::IO);
    assert!(world.store.delete(place.chunk).await.is_err());
    assert_eq!(world.disk.names(), [blob(&place)]);
}

#[tokio::test]
async fn a_checksum_file_that_was_cut_off_is_never_seen_under_its_name() {
    let (world, place) = (World::new(), place(1));
    world.put(place, b"bytes").await.unwrap();
    let sound = world.disk.bytes(&chk(&place));
    world.oracle.seal(place, b"bytes");
    world.disk.damage(&chk(&place), |content| content[3] ^= 1);
    let damaged = world.disk.bytes(&chk(&place));
    // What was written under the temporary name stays there, as when the process is killed just before the rename.
    world.faults.fail(Call::Rename, 0, Errno::NOSPC);
    assert_eq!(world.get(place, b"bytes", ALL).await.unwrap(), b"bytes");
    assert_eq!(world.disk.bytes(&chk(&place)), damaged);
    assert_eq!(world.disk.names().len(), 3);
    let mut world = world.restart().await;
    assert_eq!(world.get(place, b"bytes", ALL).await.unwrap(), b"bytes");
    world.settle().await;
    assert_eq!(world.disk.bytes(&chk(&place)), sound);
    assert_eq!(world.disk.names().len(), 2);
}

#[tokio::test]
async fn a_failed_sync_fails_everybody_who_waited_for_it() {
    let world = World::new();
    world.faults.fail_always(Call::SyncFolder, Errno::IO);
    let bytes = pattern(1_000, 1);
    let puts = (0..32).map(|number| world.put(place(number), &bytes));
    for put in futures_util::future::join_all(puts).await {
        assert!(matches!(put, Err(ChunkError::ReadOnly(_))));
    }
    assert_eq!(world.faults.made(Call::SyncFolder), 1, "a failed sync is not tried again");
    assert_eq!(world.disk.names(), Vec::<String>::new());
}

#[tokio::test]
async fn one_sync_of_the_folder_serves_many_chunks() {
    let world = World::new();
    let bytes = pattern(1_000, 1);
    let puts = (0..64).map(|number| world.put(place(number), &bytes));
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    assert!(world.faults.made(Call::SyncFolder) < 64, "{}", world.faults.made(Call::SyncFolder));
}

#[tokio::test]
async fn a_second_receipt_needs_a_sync_that_succeeds() {
    let (world, place, bytes) = (World::new(), place(1), pattern(1_000, 1));
    let sums = world.put(place, &bytes).await.unwrap();
    assert_eq!(world.store.write_status(place).await.unwrap(), WriteStatus::Complete(sums));
    world.faults.fail(Call::Sync, 0, Errno::IO);
    assert!(matches!(world.store.write_status(place).await, Err(ChunkError::ReadOnly(_))));
    assert_eq!(world.get(place, &bytes, ALL).await.unwrap(), bytes, "the chunk itself stays");
}
