//! Every state that a crash may leave of a short script: what was answered holds, what was not is settled by a repeat.

use bytes::Bytes;

use super::super::testing::world::{ALL, World, blob, chk, pattern, place};
use crate::store::chk::Chk;
use crate::store::writing::WriteStatus;

/// Runs `script` again and again, each time with other choices, until every combination was made.
async fn in_every_way(most: usize, mut script: impl AsyncFnMut(&mut dyn FnMut(usize) -> usize)) -> usize {
    let (mut path, mut runs): (Vec<(usize, usize)>, usize) = (Vec::new(), 0);
    loop {
        let mut depth = 0;
        script(&mut |below| {
            if depth == path.len() {
                path.push((0, below));
            }
            depth += 1;
            path[depth - 1].0
        })
        .await;
        runs += 1;
        while path.last().is_some_and(|(chosen, below)| chosen + 1 == *below) {
            path.pop();
        }
        match path.last_mut() {
            Some((chosen, _)) if runs < most => *chosen += 1,
            Some(_) | None => return runs,
        }
    }
}

const BYTES: &[u8] = b"four";

#[tokio::test]
async fn an_answered_put_survives_every_crash() {
    let runs = in_every_way(10_000, async |choose| {
        let world = World::new();
        let sums = world.put(place(1), BYTES).await.unwrap();
        world.oracle.seal(place(1), BYTES);
        let world = world.crash(choose).await;
        assert_eq!(world.get(place(1), BYTES, ALL).await.unwrap(), BYTES);
        assert_eq!(world.store.write_status(place(1)).await.unwrap(), WriteStatus::Complete(sums));
    })
    .await;
    assert_eq!(runs, 1, "nothing is left to chance");
}

#[tokio::test]
async fn a_put_that_was_cut_off_is_settled_by_a_repeat_in_every_state() {
    let runs = in_every_way(10_000, async |choose| {
        let world = World::new();
        world.put_part(place(1), 0, BYTES).await.unwrap();
        let world = world.crash(choose).await;
        assert_eq!(world.store.write_status(place(1)).await.unwrap(), WriteStatus::Open(0));
        world.put(place(1), BYTES).await.unwrap();
        world.oracle.seal(place(1), BYTES);
        let world = world.crash(choose).await;
        assert_eq!(world.get(place(1), BYTES, ALL).await.unwrap(), BYTES);
    })
    .await;
    assert!(runs >= 4, "{runs} states");
}

/// A power cut once tore the checksum file of a chunk that a receipt was given for. When its writer wrote it again, the
/// pair was cleared as a left-over, and the commit that came meanwhile, with the first receipt, referred to nothing.
#[tokio::test]
async fn a_receipt_holds_while_its_chunk_is_written_again_after_a_power_cut() {
    in_every_way(10_000, async |choose| {
        let world = World::new();
        world.put(place(1), BYTES).await.unwrap();
        let world = world.crash(choose).await;
        assert!(world.disk.bytes(&chk(&place(1))).is_some_and(|text| Chk::parse(&text).is_ok()), "it is whole");
        let (_claim, mut sink) = world.begin(place(1), 0).await.unwrap();
        sink.push(Bytes::from_static(&BYTES[..2])).await.unwrap();
        world.oracle.seal(place(1), BYTES);
        assert_eq!(world.get(place(1), BYTES, ALL).await.unwrap(), BYTES);
    })
    .await;
}

#[tokio::test]
async fn a_delete_that_was_cut_off_leaves_the_chunk_or_nothing_that_counts() {
    let runs = in_every_way(10_000, async |choose| {
        let world = World::new();
        world.put_sealed(place(1), BYTES).await;
        world.faults.fail(super::super::testing::faulty_disk::Call::SyncFolder, 0, rustix::io::Errno::IO);
        world.store.delete(place(1).chunk).await.unwrap_err();
        let world = world.crash(choose).await;
        if let Ok(read) = world.get(place(1), BYTES, ALL).await {
            assert_eq!(read, BYTES);
        }
        world.store.delete(place(1).chunk).await.unwrap();
        let world = world.crash(choose).await;
        assert_eq!(world.disk.names(), Vec::<String>::new());
    })
    .await;
    assert!(runs >= 4, "{runs} states");
}

#[tokio::test]
async fn a_heal_that_was_cut_off_leaves_a_chunk_that_reads() {
    let bytes = pattern(100, 1);
    let runs = in_every_way(10_000, async |choose| {
        let mut world = World::new();
        world.put_sealed(place(1), &bytes).await;
        world.disk.damage(&chk(&place(1)), |content| content.truncate(9));
        world.faults.fail(super::super::testing::faulty_disk::Call::SyncFolder, 0, rustix::io::Errno::IO);
        assert_eq!(world.get(place(1), &bytes, ALL).await.unwrap(), bytes);
        world.settle().await;
        let world = world.crash(choose).await;
        assert_eq!(world.get(place(1), &bytes, ALL).await.unwrap(), bytes);
    })
    .await;
    assert!(runs >= 4, "{runs} states");
}

/// The names of a left-over were once removed and not synced before the next write of the chunk. After a power cut in the
/// middle of that write a checksum file stood there that vouched for other bytes.
#[tokio::test]
async fn a_left_over_does_not_come_back_beside_the_bytes_of_the_next_write() {
    let (other, place) = (pattern(BYTES.len(), 7), place(1));
    let world = World::new();
    world.put(place, &other).await.unwrap();
    world.disk.lose(&blob(&place));
    world.put_part(place, 0, BYTES).await.unwrap();
    world.disk.each_crash(|disk| assert_eq!(disk.bytes(&chk(&place)), None));
}
