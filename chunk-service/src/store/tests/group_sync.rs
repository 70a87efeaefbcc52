//! One sync of the folder for many: whom it serves, and whom it fails (I15).

use std::future::Future;
use std::time::Duration;

use rustix::io::Errno;

use crate::error::ChunkError;
use crate::store::testing::faulty_disk::Call;
use crate::store::testing::mistakes::Mistake;
use crate::store::testing::world::{ALL, Kind, World, pattern, place};

/// Runs both with this mistake in the store; panics when the store breaks a promise.
pub(crate) async fn run(mistake: Option<Mistake>) {
    a_failed_sync_fails_everybody(mistake).await;
    a_sync_does_not_serve_those_who_come_later(mistake).await;
}

async fn a_failed_sync_fails_everybody(mistake: Option<Mistake>) {
    let (world, bytes) = (World::with(mistake), pattern(1_000, 1));
    let resume = world.faults.pause(Call::SyncFolder);
    let others = async {
        until(|| world.faults.made(Call::SyncFolder) == 1).await;
        world.faults.fail(Call::SyncFolder, 0, Errno::IO);
        let all_in_line = async {
            until(|| world.store.folder_sync.callers() == 24).await;
            drop(resume);
        };
        let puts = (1..24).map(|number| world.put(place(number), &bytes));
        tokio::join!(futures_util::future::join_all(puts), all_in_line).0
    };
    let (first, others) = tokio::join!(world.put(place(0), &bytes), others);
    first.unwrap();
    for put in others {
        assert!(matches!(put, Err(ChunkError::ReadOnly(_))), "{put:?} after a failed sync");
    }
    assert_eq!(world.faults.made(Call::SyncFolder), 2, "a failed sync is not tried again");
    assert_eq!(world.disk.chunk_names().len(), 2, "only the first one is there");
}

async fn a_sync_does_not_serve_those_who_come_later(mistake: Option<Mistake>) {
    let (world, bytes) = (World::with(mistake), pattern(1_000, 1));
    let resume = world.faults.pause(Call::SyncFolder);
    let late = async {
        until(|| world.faults.made(Call::SyncFolder) == 1).await;
        // Its names are made while the sync that is under way has ended on the disk, and nobody knows yet.
        let put = world.put(place(2), &bytes);
        let resume = async {
            until(|| world.store.folder_sync.callers() == 2).await;
            drop(resume);
        };
        tokio::join!(put, resume).0.unwrap();
        world.disk.without_unsynced()
    };
    let (early, lost) = tokio::join!(world.put(place(1), &bytes), late);
    early.unwrap();
    world.oracle.seal(place(2), &bytes);
    let after = World::on(lost, world.oracle.fork(), Kind::default().with(mistake));
    assert_eq!(after.get(place(2), &bytes, ALL).await.unwrap(), bytes);
}

fn until(mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let wait = async move {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    async { tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it happens within a minute") }
}

#[tokio::test]
async fn a_sync_serves_those_who_came_before_it_began_or_fails_them_all() {
    run(None).await;
}
