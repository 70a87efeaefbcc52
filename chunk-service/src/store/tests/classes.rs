//! Classes on the real disk: whose turn comes first, how many turns a chunk takes, and what is synced on the way.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use proto::limits::{FRAME_BYTES, MIB};
use proto::runtime::TaskGroup;
use proto::traffic::{ClassLoad, TrafficClass};
use tempfile::TempDir;

use crate::blocking::Blocking;
use crate::config::Tuning;
use crate::fairness::Account;
use crate::store::disk::FolderDisk;
use crate::store::durable::blob_name;
use crate::store::testing::faulty_disk::{Call, Controller, FaultyDisk};
use crate::store::testing::world::{ALL, Oracle, claims, pattern, place};
use crate::store::writing::{Announced, Stated};
use crate::store::{ChunkStore, Ground};

/// Nothing is known of a chunk's size before it is there.
const ANY_SIZE: Announced = Announced { exact: None, most: u64::MAX };

/// A store over a real folder.
struct Real {
    store: Arc<ChunkStore>,
    calls: Controller,
    tasks: TaskGroup,
    folder: TempDir,
}

impl Real {
    fn new(tuning: Tuning) -> Self {
        let (folder, calls, tasks) = (tempfile::tempdir().unwrap(), Controller::default(), TaskGroup::new());
        let disk = FolderDisk::open_folder(folder.path()).unwrap().writing_directly(tuning.written_directly()).unwrap();
        let disk = FaultyDisk::new(Arc::new(disk), calls.clone());
        let tuning = Tuning { chunk_low_watermark: 0, ..tuning };
        let blocking = Blocking::new(tuning.rules(), tasks.broken_signal());
        let store = ChunkStore::new(
            Ground::without_journal(Arc::new(disk)),
            Arc::new(Oracle::default()),
            blocking,
            &tuning,
            &tasks,
        );
        Self { store: Arc::new(store), calls, tasks, folder }
    }

    fn of(&self, class: TrafficClass, tenant: &str) -> Arc<ChunkStore> {
        self.store.on_account(Account { class, tenant: Some(tenant.parse().unwrap()) })
    }

    fn load(&self, class: TrafficClass) -> ClassLoad {
        self.store.blocking().scheduler().loads()[class.index()]
    }
}

async fn put(store: &ChunkStore, number: u64, bytes: &[u8]) {
    let (place, tenant) = (place(number), "posts".parse().unwrap());
    let mut claim = store.claim_for_write(&place, 0).await.unwrap();
    let mut sink = store.begin(&mut claim, &tenant, place, 0, ANY_SIZE).await.unwrap();
    for frame in bytes.chunks(256 * 1024) {
        sink.push(Bytes::copy_from_slice(frame)).await.unwrap();
    }
    store.complete(claim, sink, Stated::default()).await.unwrap();
}

async fn get(store: &Arc<ChunkStore>, number: u64, bytes: &[u8]) {
    let opened = store.open_range(place(number), claims(bytes), ALL, FRAME_BYTES).await.unwrap();
    let (mut reader, first) = opened;
    let mut read = first.map(|frame| frame.bytes.to_vec()).unwrap_or_default();
    while reader.has_more() {
        let (rest, frame) = store.next_frame(reader).await.unwrap();
        reader = rest;
        read.extend_from_slice(&frame.unwrap().bytes);
    }
    assert!(read == bytes, "what is read is what was written");
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
async fn a_gold_read_overtakes_the_bronze_ones_that_wait() {
    for (scheduler, gold_at) in [(crate::config::Mode::On, 0), (crate::config::Mode::Off, 20)] {
        let real = Real::new(Tuning { disk_threads: 1, scheduler, ..Tuning::default() });
        let bytes = pattern(4096, 1);
        put(&real.store, 1, &bytes).await;
        // The disk is busy with something else while all of them come.
        let (hang, hung) = std::sync::mpsc::sync_channel::<()>(0);
        let mut busy = real.store.blocking().start(0, move || hung.recv()).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut reads = Vec::new();
        for number in 0..21_u64 {
            let class = if number == 20 { TrafficClass::Gold } else { TrafficClass::Bronze };
            let (store, order) = (real.of(class, "posts"), Arc::clone(&order));
            let path = real.folder.path().join(blob_name(place(1).chunk));
            // Noted within the turn: who is told first that a job has ended says nothing.
            let job = move || {
                order.lock().unwrap().push(class);
                std::fs::read(path).unwrap()
            };
            reads.push(real.tasks.spawn("read", async move { store.blocking().run_of(4096, job).await.unwrap() }));
            let came = || real.load(TrafficClass::Gold).waiting + real.load(TrafficClass::Bronze).waiting == number + 1;
            until(came).await;
        }
        drop(hang);
        assert!(busy.wait().await.unwrap().is_err(), "it was let go");
        for read in reads {
            assert_eq!(read.await.unwrap().unwrap(), bytes);
        }
        let position = order.lock().unwrap().iter().position(|class| *class == TrafficClass::Gold);
        assert_eq!(position, Some(gold_at), "{scheduler:?}");
    }
}

#[tokio::test]
async fn a_large_chunk_takes_many_turns_and_each_is_counted_for_its_class() {
    let real = Real::new(Tuning::default());
    let (large, small) = (pattern(8 << 20, 2), pattern(4096, 3));
    put(&real.of(TrafficClass::Bronze, "posts"), 2, &large).await;
    put(&real.of(TrafficClass::Gold, "images"), 3, &small).await;
    let (bronze, gold) = (real.load(TrafficClass::Bronze), real.load(TrafficClass::Gold));
    assert!(bronze.jobs >= 8, "no turn takes more than a batch: {bronze:?}");
    assert_eq!(gold.jobs, 3, "a small chunk is made, ended, and the folder is synced: {gold:?}");
    get(&real.of(TrafficClass::Bronze, "posts"), 2, &large).await;
    get(&real.of(TrafficClass::Gold, "images"), 3, &small).await;
    assert_eq!(real.load(TrafficClass::Bronze).jobs - bronze.jobs, 32, "a frame each");
    assert_eq!(real.load(TrafficClass::Gold).moved_bytes - gold.moved_bytes, 4096);
    assert_eq!(real.load(TrafficClass::Silver).jobs, 0);
}

#[tokio::test]
async fn writes_below_gold_are_synced_as_they_go_and_gold_s_once() {
    let bytes = pattern(8 << 20, 4);
    for (number, class, unsynced_max, between) in [
        (1, TrafficClass::Bronze, 2 * MIB, 2..=4),
        (2, TrafficClass::Silver, 2 * MIB, 2..=4),
        (3, TrafficClass::Gold, 2 * MIB, 0..=0),
        (4, TrafficClass::Bronze, 0, 0..=0),
    ] {
        let real = Real::new(Tuning { unsynced_max, ..Tuning::default() });
        put(&real.of(class, "posts"), number, &bytes).await;
        // Besides, the chunk's bytes and its checksum file are synced at its end.
        let syncs = real.calls.made(Call::Sync) - 2;
        assert!(between.contains(&syncs), "{class:?} with {unsynced_max}: {syncs}");
        get(&real.store, number, &bytes).await;
    }
}

/// No frame, no break and no end of it is at a page.
#[tokio::test]
async fn a_write_past_the_cache_is_gone_on_with_wherever_its_stream_broke() {
    let real = Real::new(Tuning { direct_from: 1, ..Tuning::default() });
    let (bytes, place, tenant) = (pattern((3 << 20) + 77, 7), place(1), "posts".parse().unwrap());
    let size = Announced { exact: Some(bytes.len() as u64), most: u64::MAX };
    let mut from = 0;
    for to in [1, 4095, 100_001, (2 << 20) + 4095, bytes.len()] {
        let mut claim = real.store.claim_for_write(&place, from as u64).await.unwrap();
        let mut sink = real.store.begin(&mut claim, &tenant, place, from as u64, size).await.unwrap();
        for frame in bytes[from..to].chunks(100_003) {
            sink.push(Bytes::copy_from_slice(frame)).await.unwrap();
        }
        from = to;
        if to < bytes.len() {
            real.store.park(claim, sink).await.unwrap();
        } else {
            real.store.complete(claim, sink, Stated { size_bytes: size.exact, sha256: None }).await.unwrap();
        }
    }
    get(&real.store, 1, &bytes).await;
}

/// Two writes side by side, so that neither alone meets its own bound.
#[tokio::test]
async fn what_all_writes_below_gold_leave_unsynced_together_is_bounded() {
    for (class, max_of_all, most) in [
        // A batch of each comes on top: a mebibyte, and a frame that does not fill it.
        (TrafficClass::Bronze, MIB, MIB + 2 * (MIB + FRAME_BYTES)),
        (TrafficClass::Silver, 0, 8 * MIB),
        (TrafficClass::Gold, MIB, 0),
    ] {
        let real = Real::new(Tuning { unsynced_max: 0, unsynced_max_of_all: max_of_all, ..Tuning::default() });
        let (store, tenant, bytes) = (real.of(class, "posts"), "posts".parse().unwrap(), pattern(4 << 20, 6));
        let mut writes = Vec::new();
        for number in [1, 2] {
            let mut claim = store.claim_for_write(&place(number), 0).await.unwrap();
            let sink = store.begin(&mut claim, &tenant, place(number), 0, ANY_SIZE).await.unwrap();
            writes.push((claim, sink));
        }
        let unsynced = || real.store.unsynced_of_all.load(Ordering::Relaxed);
        let mut seen = 0;
        for frame in bytes.chunks(256 * 1024) {
            for (_claim, sink) in &mut writes {
                sink.push(Bytes::copy_from_slice(frame)).await.unwrap();
                seen = seen.max(unsynced());
            }
        }
        assert!(seen <= most, "{class:?} with {max_of_all}: {seen}");
        let syncs = real.calls.made(Call::Sync);
        assert_eq!(syncs > 0, class == TrafficClass::Bronze, "{class:?} with {max_of_all}: {syncs} syncs on the way");
        for (claim, sink) in writes {
            store.complete(claim, sink, Stated::default()).await.unwrap();
        }
        assert_eq!(unsynced(), 0, "all is given back");
        get(&real.store, 1, &bytes).await;
    }
}

#[tokio::test]
async fn gold_has_buffers_of_its_own() {
    let real = Real::new(Tuning::default());
    let (gold, others) = (&real.store.budgets.gold, &real.store.budgets.others);
    let held = Arc::clone(others).try_acquire_many_owned(48 << 20).unwrap();
    put(&real.of(TrafficClass::Gold, "posts"), 1, &pattern(3 << 20, 5)).await;
    assert_eq!(gold.available_permits(), 16 << 20, "all of them are given back");
    drop(held);
    assert!(real.store.is_idle());
}
