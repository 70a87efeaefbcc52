use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream;
use proto::capability::{ChunkBinding, ReadClaims};
use proto::entropy::SeededEntropy;
use proto::ids::{BlobId, BlockId};
use proto::limits::UPLOAD_LEASE;
use proto::runtime::ManualClock;

use super::*;
use crate::nodes::chunks::{ChecksumFile, ChunkPages, Verdict};
use crate::nodes::{ChunkNodes, Condemned, Deletion, Report};
use crate::service::testing;
use crate::store::engine::{Batch, Decision, EngineExt as _};
use crate::store::memory::MemoryEngine;
use crate::store::records::{
    BlockRecord, ChunkRecord, Encoding, GarbageChunkRecord, NodeRecord, RestoreEnd, RestoreRecord, ReverseRecord,
};
use crate::store::rows::{BatchExt as _, RowError, record_of};

const NOW_MS: u64 = 1_800_000_000_000;
const LONG_AGO_MS: u64 = 1_700_000_000_000;
const PAGE: usize = 100;

/// Nodes that hold what a test says.
#[derive(Debug, Default)]
struct Disks {
    files: Mutex<BTreeMap<NodeId, Vec<ChunkFiles>>>,
    foreign: Mutex<Vec<String>>,
    /// Where lists break off: before this page.
    breaks_at: Mutex<Option<usize>>,
    /// Something begins to refer to this chunk while its node is being listed.
    meanwhile: Mutex<Option<(Service, ChunkId)>>,
}

#[async_trait]
impl ChunkNodes for Disks {
    async fn delete(&self, _chunk: &Condemned) -> Deletion {
        Deletion::Unavailable("a sweep deletes nothing".to_owned())
    }

    async fn verify(&self, _: NodeId, _: ChunkBinding, _: ReadClaims, _repair: bool) -> Result<Verdict, NodeError> {
        Err(NodeError::Unavailable("a sweep verifies nothing".to_owned()))
    }

    fn list(&self, node: NodeId, _with_checksum_files: bool) -> ChunkPages {
        let files = self.files.lock().unwrap().get(&node).cloned().unwrap_or_default();
        let mut pages: Vec<_> = files.chunks(PAGE).map(|some| Ok(page(some))).collect();
        pages.push(Ok(ChunkPage { foreign_names: self.foreign.lock().unwrap().clone(), ..ChunkPage::default() }));
        if let Some(at) = *self.breaks_at.lock().unwrap() {
            pages.truncate(at);
            pages.push(Err(NodeError::Unavailable("its list broke off".to_owned())));
        }
        let meanwhile = self.meanwhile.lock().unwrap().take();
        let planned = stream::once(async move {
            if let Some((service, chunk)) = meanwhile {
                refer(&service, node, chunk).await;
            }
            Ok(page(&[]))
        });
        planned.chain(stream::iter(pages)).boxed()
    }
}

/// Something refers to the chunk.
async fn refer(service: &Service, node: NodeId, chunk: ChunkId) {
    let entropy = SeededEntropy::new(chunk.drawn_ms().unwrap_or_default());
    let (block, blob) = (BlockId::generate(1, &entropy), BlobId::generate(1, &entropy));
    let record = ReverseRecord { block, blob, shard_index: 0, generation: 1, epoch: 1, sequence: 1 };
    let mut batch = Batch::default();
    batch.set(keys::reverse(node, chunk), &record);
    write(service, batch).await;
}

async fn write(service: &Service, batch: Batch) {
    let put = service.engine().decide(|_view| Ok::<_, RowError>((Decision::adds(batch), ())));
    put.await.unwrap();
}

fn page(files: &[ChunkFiles]) -> ChunkPage {
    ChunkPage { chunks: files.to_vec(), foreign_names: Vec::new() }
}

fn files(chunk: ChunkId) -> ChunkFiles {
    ChunkFiles { chunk, data_bytes: Some(1), has_checksum_file: true, checksum_file: None }
}

struct World {
    service: Service,
    disks: Arc<Disks>,
    clock: Arc<ManualClock>,
    entropy: SeededEntropy,
    node: NodeId,
    sweeper: OrphanSweeper,
}

impl World {
    async fn new() -> Self {
        Self::restored(&[]).await
    }

    async fn restored(restores: &[RestoreRecord]) -> Self {
        let (disks, clock) = (Arc::<Disks>::default(), Arc::new(ManualClock::at(NOW_MS)));
        let nodes: Arc<dyn ChunkNodes> = Arc::<Disks>::clone(&disks);
        let service = testing::restored_over(Arc::new(MemoryEngine::new()), Arc::clone(&clock), nodes, restores);
        let (entropy, sweeper) = (SeededEntropy::new(7), OrphanSweeper::new(service.clone()));
        let node = NodeId::generate(1, &entropy);
        let world = Self { service, disks, clock, entropy, node, sweeper };
        world.register(node);
        world
    }

    fn register(&self, node: NodeId) {
        let record = NodeRecord { endpoint: "http://a".to_owned(), ..NodeRecord::default() };
        self.service.registry().put(node, record, 1);
        assert!(self.service.registry().heard(node, 1, Report::default()));
    }

    /// A chunk's files on the node's disk.
    fn plant(&self, drawn_ms: u64) -> ChunkId {
        let chunk = ChunkId::generate(drawn_ms, &self.entropy);
        self.disks.files.lock().unwrap().entry(self.node).or_default().push(files(chunk));
        chunk
    }

    fn plant_many(&self, number: usize) -> Vec<ChunkId> {
        (0..number).map(|_| self.plant(LONG_AGO_MS)).collect()
    }

    async fn refer(&self, chunk: ChunkId) {
        refer(&self.service, self.node, chunk).await;
    }

    /// A sealed block lists the chunk.
    async fn list_in_block(&self, chunk: ChunkId) {
        let chunk = ChunkRecord { chunk, node: self.node, epoch: 1, sequence: 1, sums: None };
        let record = BlockRecord {
            tenant: None,
            blob: BlobId::generate(1, &self.entropy),
            index: 0,
            encoding: Encoding::Replicated { copies: 1 },
            generation: 1,
            sealed: None,
            chunks: vec![chunk],
        };
        let mut batch = Batch::default();
        batch.set(keys::block(BlockId::generate(1, &self.entropy)), &record);
        write(&self.service, batch).await;
    }

    async fn queued(&self) -> BTreeSet<ChunkId> {
        let rows = self.service.engine().scan(&KeyRange::prefix(keys::GARBAGE), usize::MAX).await.unwrap();
        let chunk = |row: &_| {
            let row: &Row = row;
            let Some((due_ms, Garbage::Chunk(chunk))) = keys::garbage_of(&row.0) else { panic!("of another kind") };
            let record: GarbageChunkRecord = record_of(row).unwrap();
            assert_eq!(record.node, self.node);
            assert!(due_ms >= self.service.tuning().garbage_due_ms(NOW_MS), "the grace holds for orphans, too");
            chunk
        };
        rows.iter().map(chunk).collect()
    }

    async fn sweep(&self) -> Pass {
        self.sweeper.run_once().await.unwrap()
    }

    fn told(&self) -> String {
        self.sweeper.holds_back().unwrap_or_default()
    }
}

#[tokio::test]
async fn i7_what_two_sweeps_found_becomes_garbage_once_and_nothing_else_does() {
    let world = World::new().await;
    let (referenced, orphan) = (world.plant(LONG_AGO_MS), world.plant(LONG_AGO_MS));
    let young = world.plant(NOW_MS - 1_000);
    let (future, other) = (world.plant(NOW_MS + 600_000), "0190b5c4-7e5a-4cc3-98c4-dc0c0c07398f".parse().unwrap());
    world.disks.files.lock().unwrap().get_mut(&world.node).unwrap().push(files(other));
    world.refer(referenced).await;
    assert_eq!(world.sweep().await, Pass { examined: 5, ..Pass::default() });
    assert!(world.queued().await.is_empty(), "once is not enough");
    assert_eq!(world.sweep().await, Pass { examined: 5, changed: 1, ..Pass::default() });
    assert_eq!(world.queued().await, BTreeSet::from([orphan]));
    assert!(world.told().contains("made: 2;"), "what is of the future or another kind is told: {}", world.told());
    assert_eq!((world.sweep().await.changed, world.sweep().await.changed), (0, 0), "its row is found");
    world.clock.advance(UPLOAD_LEASE);
    assert_eq!((world.sweep().await.changed, world.sweep().await.changed), (0, 1), "the young one has grown old");
    assert_eq!(world.queued().await, BTreeSet::from([orphan, young]));
    assert_ne!(future, young);
}

#[tokio::test]
async fn i6_what_is_planned_between_two_sweeps_stays() {
    let world = World::new().await;
    let chunk = world.plant(LONG_AGO_MS);
    world.sweep().await;
    world.refer(chunk).await;
    assert_eq!(world.sweep().await.changed, 0);
    assert!(world.queued().await.is_empty());
    let looked_again = world.service.condemn_orphans(world.node, vec![chunk]).await.unwrap();
    assert_eq!((looked_again, world.queued().await), (0, BTreeSet::new()), "the commit looks again by itself");
}

/// Disk first, metadata second: what is planned and written while a node lists its chunks is known when they are looked
/// up. The other way round a sweep would suspect it.
#[tokio::test]
async fn i6_a_sweep_suspects_nothing_that_is_planned_while_it_lists() {
    let world = World::new().await;
    let chunk = world.plant(LONG_AGO_MS);
    *world.disks.meanwhile.lock().unwrap() = Some((world.service.clone(), chunk));
    assert_eq!(world.sweep().await, Pass { examined: 1, ..Pass::default() });
    assert_eq!(world.sweeper.state().suspects[&world.node], BTreeSet::new());
}

#[tokio::test]
async fn a_list_that_breaks_off_anywhere_queues_nothing_and_what_was_seen_before_counts_no_more() {
    let world = World::new().await;
    let orphans: BTreeSet<_> = world.plant_many(PAGE / 2).into_iter().collect();
    for chunk in world.plant_many(19 * PAGE) {
        world.refer(chunk).await;
    }
    world.sweep().await;
    for at in 0..20 {
        *world.disks.breaks_at.lock().unwrap() = Some(at);
        assert_eq!(world.sweep().await, Pass { failed: 1, ..Pass::default() });
        assert!(world.told().contains("its list broke off"), "{}", world.told());
    }
    *world.disks.breaks_at.lock().unwrap() = None;
    assert_eq!((world.sweep().await.changed, world.told()), (0, String::new()));
    assert!(world.queued().await.is_empty());
    assert_eq!(world.sweep().await.changed, orphans.len() as u64);
    assert_eq!(world.queued().await, orphans);
}

/// An operator restored a disk of months ago, and nothing referred to half of its chunks.
#[tokio::test]
async fn more_than_a_twentieth_and_than_a_hundred_is_not_believed_until_an_operator_accepts_it() {
    let world = World::new().await;
    let orphans: BTreeSet<_> = world.plant_many(101).into_iter().collect();
    for chunk in world.plant_many(500) {
        world.refer(chunk).await;
    }
    world.sweep().await;
    for _again in 0..2 {
        assert_eq!(world.sweep().await, Pass { examined: 601, skipped: 101, ..Pass::default() });
        assert!(world.told().contains("101 of the 601 chunks"), "{}", world.told());
    }
    assert!(world.queued().await.is_empty());
    let _given = world.service.workers().acceptance.give();
    assert_eq!(world.sweeper.run_scheduled().await.unwrap().changed, 0, "it was not given to the timer");
    assert_eq!(world.sweep().await.changed, 101);
    assert_eq!((world.queued().await, world.told()), (orphans, String::new()));
}

#[tokio::test]
async fn a_pass_sweeps_one_node_and_a_sweep_all_of_them() {
    let world = World::new().await;
    let other = NodeId::generate(2, &world.entropy);
    world.register(other);
    world.disks.files.lock().unwrap().insert(other, vec![files(ChunkId::generate(LONG_AGO_MS, &world.entropy))]);
    world.plant_many(2);
    assert_eq!(world.sweep().await, Pass { examined: 2, more: true, ..Pass::default() });
    assert_eq!(world.sweeper.last_sweep(None), None);
    assert_eq!(world.sweep().await, Pass { examined: 1, ..Pass::default() });
    assert!(world.sweeper.last_sweep(None).is_some());
    assert_eq!(world.sweep().await, Pass { examined: 2, changed: 2, more: true, ..Pass::default() });
    assert_eq!(world.sweep().await, Pass { examined: 1, changed: 1, ..Pass::default() });
}

#[tokio::test(start_paused = true)]
async fn after_a_jump_of_the_clock_nothing_is_swept_by_itself_for_as_long_as_a_lease() {
    let world = World::new().await;
    world.plant(NOW_MS);
    world.clock.advance(2 * UPLOAD_LEASE);
    for _sweep in 0..3 {
        assert_eq!(world.sweeper.run_scheduled().await.unwrap(), Pass::held_back());
        assert!(world.told().contains("the clock has jumped"), "{}", world.told());
    }
    for _sweep in 0..2 {
        tokio::time::advance(UPLOAD_LEASE).await;
        world.clock.advance(UPLOAD_LEASE);
        world.sweeper.run_scheduled().await.unwrap();
    }
    assert_eq!((world.queued().await.len(), world.told()), (1, String::new()));
}

/// A reverse row was lost, and the chunk of a committed blob looked like an orphan for it.
#[tokio::test]
async fn i6_a_chunk_that_only_a_lost_reverse_row_makes_an_orphan_stays_and_it_is_said_until_the_row_is_back() {
    let world = World::new().await;
    let (needed, orphan) = (world.plant(LONG_AGO_MS), world.plant(LONG_AGO_MS));
    world.list_in_block(needed).await;
    assert_eq!((world.sweep().await.failed, world.told()), (0, String::new()));
    assert_eq!(world.sweep().await, Pass { examined: 2, changed: 1, failed: 1, ..Pass::default() });
    for _again in 0..2 {
        assert_eq!(world.queued().await, BTreeSet::from([orphan]));
        assert!(world.told().contains("blocks list 1 chunks"), "{}", world.told());
        assert_eq!(world.sweep().await, Pass { examined: 2, failed: 1, ..Pass::default() });
    }
    world.refer(needed).await;
    assert_eq!((world.sweep().await.failed, world.told()), (0, String::new()));
}

fn restore(end: RestoreEnd) -> RestoreRecord {
    RestoreRecord { import_ms: NOW_MS - 7_200_000, epoch: 3, sequence: 40, end }
}

/// Plants an orphan whose checksum file says when it was planned.
fn plant_planned(world: &World, epoch: u64, sequence: u64) -> ChunkId {
    let chunk = world.plant(LONG_AGO_MS);
    let binding = ChunkBinding { chunk, epoch, sequence, ..ChunkBinding::none() };
    let sha256 = proto::checksum::Sha256::of(b"");
    let mut disks = world.disks.files.lock().unwrap();
    let last = disks.get_mut(&world.node).unwrap().last_mut().unwrap();
    last.checksum_file = Some(ChecksumFile { binding, size_bytes: 0, sha256 });
    chunk
}

#[tokio::test]
async fn i16_after_an_import_the_chunks_of_the_lost_time_stay_until_they_are_given_up() {
    for (end, kept) in [(RestoreEnd::Undecided, true), (RestoreEnd::Keep, true), (RestoreEnd::Discard, false)] {
        let world = World::restored(&[restore(end)]).await;
        let before = plant_planned(&world, 3, 40);
        let lost = plant_planned(&world, 3, 41);
        let mute = world.plant(LONG_AGO_MS);
        world.sweep().await;
        world.sweep().await;
        let expected = match end {
            RestoreEnd::Undecided => BTreeSet::new(),
            RestoreEnd::Keep => BTreeSet::from([before]),
            RestoreEnd::Discard => BTreeSet::from([before, lost, mute]),
        };
        assert_eq!(world.queued().await, expected, "{end:?}");
        assert_eq!(!expected.contains(&lost) && !expected.contains(&mute), kept);
        assert_eq!(world.told().is_empty(), end != RestoreEnd::Undecided, "{}", world.told());
    }
}

/// Nothing referred to hundreds of thousands of chunks of a large node any more. A sweep remembered so few of them that
/// these were less than a twentieth of the node, so they were queued, and at the next sweep as many again.
#[tokio::test]
async fn orphans_for_which_there_is_no_room_count_as_well_when_a_sweep_is_held_to_want_too_much() {
    let mut world = World::new().await;
    world.sweeper.room = PAGE + 1;
    world.plant_many(6 * PAGE);
    for chunk in world.plant_many(44 * PAGE) {
        world.refer(chunk).await;
    }
    world.sweep().await;
    assert_eq!(world.told(), "", "what was seen once is no orphan yet");
    assert_eq!(world.sweep().await, Pass { examined: 5_000, skipped: 200, ..Pass::default() });
    assert!(world.told().contains("600 of the 5000 chunks"), "{}", world.told());
    assert!(world.queued().await.is_empty());
    let _given = world.service.workers().acceptance.give();
    assert_eq!(world.sweep().await.changed, 200, "the sweeps after it find the rest");
}

/// A node that refused to delete had more garbage than a sweep remembers. It filled every sweep, and the orphans listed
/// behind it were never found.
#[tokio::test]
async fn i7_garbage_takes_no_room_from_the_orphans_behind_it() {
    let mut world = World::new().await;
    world.sweeper.room = 10;
    let garbage = world.plant_many(3 * PAGE);
    for some in garbage.chunks(CHUNKS_PER_COMMIT) {
        world.service.condemn_orphans(world.node, some.to_vec()).await.unwrap();
    }
    let orphans = world.plant_many(3);
    assert_eq!((world.sweep().await.changed, world.sweep().await.changed), (0, 3));
    assert_eq!(world.queued().await, garbage.into_iter().chain(orphans).collect());
}
