//! A store with everything around it, in memory, and the calls that a stream would make.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proto::capability::{ChunkBinding, ReadClaims};
use proto::checksum::{ChunkHasher, ChunkSums};
use proto::entropy::SeededEntropy;
use proto::ids::{BlobId, BlockId, ChunkId};
use proto::limits::PIECE_BYTES;
use proto::runtime::TaskGroup;
use proto::runtime::journal::{HALF_BYTES_MIN, Shape};
use tokio_util::sync::CancellationToken;

use super::crash_disk::CrashDisk;
use super::faulty_disk::{Controller, FaultyDisk};
use super::mistakes::{Mistake, MistakenDisk};
use crate::blocking::Blocking;
use crate::config::Tuning;
use crate::error::ChunkError;
use crate::scrub::{Held, HeldPage, Ledger};
use crate::store::durable::{blob_name, chk_name};
use crate::store::journal::Use;
use crate::store::reading::Range;
use crate::store::sessions::Claim;
use crate::store::sink::Sink;
use crate::store::verify::{Condition, Finding};
use crate::store::writing::{Announced, Stated};
use crate::store::{ChunkStore, Describe, Described, Ground};

pub(crate) const ALL: Range = Range { offset: 0, limit: None };

/// What the metadata would say.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    held: Mutex<HashMap<ChunkId, Described>>,
    unreachable: Mutex<bool>,
    /// A disk whose left-overs are said to be what was committed: [`Mistake::LeftoverTrusted`].
    trusted: Mutex<Option<CrashDisk>>,
    /// Chunks that are held for missing or damaged, and what was found.
    damaged: Mutex<HashMap<ChunkId, Finding>>,
}

impl Oracle {
    pub(crate) fn set(&self, chunk: ChunkId, described: Described) {
        self.held.lock().unwrap().insert(chunk, described);
    }

    pub(crate) fn seal(&self, place: ChunkBinding, bytes: &[u8]) {
        self.set(place.chunk, Described::Sealed(place, claims(bytes)));
    }

    /// An oracle of its own that knows the same.
    pub(crate) fn fork(&self) -> Arc<Self> {
        Arc::new(Self { held: Mutex::new(self.held.lock().unwrap().clone()), ..Self::default() })
    }

    fn answer(&self, chunk: ChunkId) -> Described {
        let held = self.held.lock().unwrap().get(&chunk).copied().unwrap_or(Described::Unknown);
        match (held, &*self.trusted.lock().unwrap()) {
            (Described::Open, Some(disk)) => disk.bytes(&blob_name(chunk)).map_or(held, |bytes| {
                let place = (0..PLACES).map(place).find(|place| place.chunk == chunk).unwrap();
                Described::Sealed(place, claims(&bytes))
            }),
            (Described::Open | Described::Sealed(..) | Described::Unknown, _) => held,
        }
    }

    pub(crate) fn set_unreachable(&self, unreachable: bool) {
        *self.unreachable.lock().unwrap() = unreachable;
    }
}

impl Oracle {
    pub(crate) fn damaged(&self, chunk: ChunkId) -> Option<Condition> {
        self.damaged.lock().unwrap().get(&chunk).map(|finding| finding.condition)
    }

    /// The page behind a chunk, two chunks long.
    fn page(&self, after: Option<ChunkId>) -> HeldPage {
        let (held, damaged) = (self.held.lock().unwrap(), self.damaged.lock().unwrap());
        let mut behind: Vec<_> =
            held.keys().copied().filter(|chunk| after.is_none_or(|after| *chunk > after)).collect();
        behind.sort();
        let next = if behind.len() > 2 { behind.get(1).copied() } else { None };
        behind.truncate(2);
        let sealed = |chunk: &ChunkId| match held[chunk] {
            Described::Sealed(place, claims) => Some(Held { place, claims, damaged: damaged.contains_key(chunk) }),
            Described::Open | Described::Unknown => None,
        };
        HeldPage { chunks: behind.iter().filter_map(sealed).collect(), next }
    }

    fn reached<T>(&self, answer: T) -> Result<T, ChunkError> {
        if *self.unreachable.lock().unwrap() { Err(ChunkError::MetadataUnreachable(None)) } else { Ok(answer) }
    }
}

impl Ledger for Oracle {
    fn held(&self, after: Option<ChunkId>) -> BoxFuture<'_, Result<HeldPage, ChunkError>> {
        std::future::ready(self.reached(self.page(after))).boxed()
    }

    fn report(&self, chunk: ChunkId, finding: Finding) -> BoxFuture<'_, Result<(), ChunkError>> {
        let told = self.reached(()).map(|()| {
            let mut damaged = self.damaged.lock().unwrap();
            if finding.condition.is_damage() {
                damaged.insert(chunk, finding);
            } else {
                damaged.remove(&chunk);
            }
        });
        std::future::ready(told).boxed()
    }
}

impl Describe for Oracle {
    fn describe(&self, chunk: ChunkId) -> BoxFuture<'_, Result<Described, ChunkError>> {
        let answer = if *self.unreachable.lock().unwrap() {
            Err(ChunkError::MetadataUnreachable(None))
        } else {
            Ok(self.answer(chunk))
        };
        std::future::ready(answer).boxed()
    }
}

/// The world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) disk: CrashDisk,
    pub(crate) faults: Controller,
    pub(crate) oracle: Arc<Oracle>,
    pub(crate) store: Arc<ChunkStore>,
    pub(crate) broken: CancellationToken,
    tasks: TaskGroup,
    kind: Kind,
}

/// What is special about a world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kind {
    /// A mistake that its store makes.
    pub(crate) mistake: Option<Mistake>,
    /// Chunks up to this size go through the journal; by default none does.
    pub(crate) journal_below: u64,
}

impl Kind {
    /// With chunks of up to 64 KiB in the journal.
    pub(crate) const JOURNALED: Self = Self { mistake: None, journal_below: PIECE_BYTES };

    /// The same with a mistake.
    pub(crate) fn with(self, mistake: Option<Mistake>) -> Self {
        Self { mistake, ..self }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    /// An empty world whose store makes a mistake.
    pub(crate) fn with(mistake: Option<Mistake>) -> Self {
        Self::of(Kind::default().with(mistake))
    }

    /// An empty world of this kind.
    pub(crate) fn of(kind: Kind) -> Self {
        Self::on(CrashDisk::new(), Arc::default(), kind)
    }

    /// A store that starts on this disk.
    pub(crate) fn on(disk: CrashDisk, oracle: Arc<Oracle>, kind: Kind) -> Self {
        Self::start_on(disk, oracle, kind).unwrap()
    }

    /// The same, which may fail.
    pub(crate) fn start_on(disk: CrashDisk, oracle: Arc<Oracle>, kind: Kind) -> Result<Self, ChunkError> {
        let mistake = kind.mistake;
        let (faults, tasks) = (Controller::default(), TaskGroup::new());
        let faulty = Arc::new(FaultyDisk::new(Arc::new(disk.clone()), faults.clone()));
        let faulty = Arc::new(MistakenDisk::new(faulty, mistake, &disk));
        *oracle.trusted.lock().unwrap() = (mistake == Some(Mistake::LeftoverTrusted)).then(|| disk.clone());
        let tuning = Tuning { chunk_low_watermark: 0, stream_stall: Duration::from_secs(30), ..Tuning::default() };
        let blocking = Blocking::new(tuning.rules(), tasks.broken_signal());
        let shape = Shape { half_bytes: HALF_BYTES_MIN, growth_bytes: 16 * 1024 };
        let wanted = Use { below: kind.journal_below, shape };
        let ground = Ground::open(faulty, wanted, &SeededEntropy::new(1))?;
        let store = ChunkStore::new(ground, Arc::clone(&oracle) as _, blocking, &tuning, &tasks);
        Ok(Self { disk, faults, oracle, store: Arc::new(store), broken: tasks.broken_signal(), tasks, kind })
    }

    /// Waits until nothing happens in the background any more.
    pub(crate) async fn settle(&mut self) {
        assert!(self.tasks.shutdown(Duration::from_secs(60)).await);
        assert!(!self.broken.is_cancelled());
    }

    /// Has the journal's chunks settled, and waits for it; ends also when the disk fails.
    pub(crate) async fn settle_journal(&self) {
        let settled = async {
            while !self.store.journal().is_settled() && self.store.latch().check().is_ok() {
                self.store.settle_soon().await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), settled).await.expect("it settles within a minute");
    }

    /// A restart that finishes what is under way.
    pub(crate) async fn restart(mut self) -> Self {
        self.settle().await;
        self.store.close().await.unwrap();
        Self::on(self.disk, self.oracle, self.kind)
    }

    /// A restart after the process was killed: what the page cache holds is still there.
    pub(crate) async fn kill(mut self) -> Self {
        self.settle().await;
        Self::on(self.disk, self.oracle, self.kind)
    }

    /// A restart after power was lost.
    pub(crate) async fn crash(mut self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        self.settle().await;
        drop(self.store);
        self.disk.crash(choose);
        Self::on(self.disk, self.oracle, self.kind)
    }

    /// Begins a write that the metadata has planned, unless it knows more of the chunk.
    pub(crate) async fn begin(&self, place: ChunkBinding, offset: u64) -> Result<(Claim, Sink), ChunkError> {
        self.begin_announced(place, offset, None).await
    }

    async fn begin_announced(
        &self,
        place: ChunkBinding,
        offset: u64,
        announced: Option<u64>,
    ) -> Result<(Claim, Sink), ChunkError> {
        self.oracle.held.lock().unwrap().entry(place.chunk).or_insert(Described::Open);
        let mut claim = self.store.claim_for_write(&place, offset).await?;
        let tenant = "posts".parse().unwrap();
        let size = Announced { exact: announced, most: announced.unwrap_or(u64::MAX) };
        let sink = self.store.begin(&mut claim, &tenant, place, offset, size).await?;
        Ok((claim, sink))
    }

    /// Writes a whole chunk in frames of this size.
    pub(crate) async fn put_framed(
        &self,
        place: ChunkBinding,
        bytes: &[u8],
        from: usize,
        frame: usize,
    ) -> Result<ChunkSums, ChunkError> {
        let (claim, mut sink) = self.begin_announced(place, from as u64, Some(bytes.len() as u64)).await?;
        for part in bytes[from..].chunks(frame) {
            if let Err(error) = sink.push(Bytes::copy_from_slice(part)).await {
                self.store.give_up(&claim, sink.has_file()).await?;
                return Err(error);
            }
        }
        self.store.complete(claim, sink, Stated::default()).await
    }

    pub(crate) async fn put(&self, place: ChunkBinding, bytes: &[u8]) -> Result<ChunkSums, ChunkError> {
        self.put_framed(place, bytes, 0, 256 * 1024).await
    }

    /// Writes a chunk's first bytes and loses the stream.
    pub(crate) async fn put_part(&self, place: ChunkBinding, from: u64, part: &[u8]) -> Result<(), ChunkError> {
        let (claim, mut sink) = self.begin(place, from).await?;
        sink.push(Bytes::copy_from_slice(part)).await?;
        self.store.park(claim, sink).await
    }

    /// Writes a chunk and seals it in the metadata.
    pub(crate) async fn put_sealed(&self, place: ChunkBinding, bytes: &[u8]) {
        self.put(place, bytes).await.unwrap();
        self.oracle.seal(place, bytes);
    }

    /// Reads a range with permission to read these bytes.
    pub(crate) async fn get(&self, place: ChunkBinding, bytes: &[u8], range: Range) -> Result<Vec<u8>, ChunkError> {
        self.get_claimed(place, claims(bytes), range).await
    }

    /// Reads a range with permission to read bytes with these sums.
    pub(crate) async fn get_claimed(
        &self,
        place: ChunkBinding,
        claims: ReadClaims,
        range: Range,
    ) -> Result<Vec<u8>, ChunkError> {
        let (mut reader, mut frame) = self.store.open_range(place, claims, range, 256 * 1024).await?;
        let mut read = Vec::new();
        while let Some(part) = frame {
            assert_eq!(part.offset, range.offset + read.len() as u64);
            read.extend_from_slice(&part.bytes);
            (reader, frame) = self.store.next_frame(reader).await?;
        }
        Ok(read)
    }
}

/// How many places tests number.
const PLACES: u64 = 32;

/// The place of a chunk that tests number.
pub(crate) fn place(number: u64) -> ChunkBinding {
    let entropy = SeededEntropy::new(number);
    ChunkBinding {
        chunk: ChunkId::generate(1, &entropy),
        block: BlockId::generate(1, &entropy),
        blob: BlobId::generate(1, &entropy),
        shard_index: 0,
        shard_count: 1,
        generation: 1,
        epoch: 1,
        sequence: 42,
    }
}

pub(crate) fn blob(place: &ChunkBinding) -> String {
    blob_name(place.chunk)
}

pub(crate) fn chk(place: &ChunkBinding) -> String {
    chk_name(place.chunk)
}

pub(crate) fn sums(bytes: &[u8]) -> ChunkSums {
    let mut hasher = ChunkHasher::default();
    hasher.update(bytes);
    hasher.finish()
}

pub(crate) fn claims(bytes: &[u8]) -> ReadClaims {
    let sums = sums(bytes);
    ReadClaims { size_bytes: sums.size_bytes, sha256: sums.sha256, pieces_sha256: sums.pieces_sha256() }
}

/// Bytes that differ everywhere.
pub(crate) fn pattern(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    proto::entropy::Entropy::fill(&SeededEntropy::new(seed), &mut bytes);
    bytes
}
