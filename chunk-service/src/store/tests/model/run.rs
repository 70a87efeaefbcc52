//! One sequence: the store and the model of it, side by side.

use std::collections::{BTreeMap, BTreeSet};

use proptest::sample::Index;
use proto::capability::ChunkBinding;
use proto::checksum::ChunkSums;
use rustix::io::Errno;

use super::Figures;
use super::known::{Known, content_of};
use super::steps::{CHUNKS, CONTENTS, Damage, End, Exchange, Operation, Step, Which};
use crate::error::ChunkError;
use crate::store::Described;
use crate::store::reading::Range;
use crate::store::testing::faulty_disk::Call;
use crate::store::testing::world::{ALL, Kind, World, blob, chk, place};
use crate::store::writing::WriteStatus;

pub(super) struct Run {
    world: World,
    known: BTreeMap<u64, Known>,
    full: bool,
    down: bool,
    /// A call of the next operation fails.
    fault: Option<(Call, u64, Errno)>,
    /// One may have failed in this operation.
    faulty: bool,
    figures: Figures,
}

impl Run {
    pub(super) fn new(kind: Kind) -> Self {
        let known = (0..CHUNKS).map(|chunk| (chunk, Known::default())).collect();
        let figures = Figures::default();
        Self { world: World::of(kind), known, full: false, down: false, fault: None, faulty: false, figures }
    }

    pub(super) fn count(&self, all: &mut Figures) {
        let Figures { sequences: _, steps, promises, crashes, faults, damages } = self.figures;
        all.steps += steps;
        all.promises += promises;
        all.crashes += crashes;
        all.faults += faults;
        all.damages += damages;
    }

    fn known(&mut self, chunk: u64) -> &mut Known {
        self.known.get_mut(&chunk).unwrap()
    }

    pub(super) async fn step(mut self, step: Step) -> Self {
        self.figures.steps += 1;
        match step {
            Step::Do(operation) => self.operate(operation).await,
            Step::End(end) => self = self.end(end).await,
            Step::Damage { chunk, which, damage } => self.damage(chunk, which, &damage),
            Step::Exchange { chunk, exchange } => self.exchange(chunk, exchange).await,
            Step::Fault { call, nth, errno } => self.fault = Some((call, nth, errno)),
            Step::Settle => self.settle().await,
            Step::Seal { chunk } => self.seal(chunk),
            Step::DiskFull(full) => {
                self.full = full;
                self.world.disk.set_free(if full { 100 } else { u64::MAX });
            }
            Step::MetadataDown(down) => {
                self.down = down;
                self.world.oracle.set_unreachable(down);
            }
        }
        self.check().await;
        self
    }

    fn plan_fault(&mut self) {
        if let Some((call, nth, errno)) = self.fault.take() {
            self.world.faults.fail(call, nth, errno);
            self.faulty = true;
            self.figures.faults += 1;
        }
    }

    /// An operation of a client, with the fault that was planned for it.
    async fn operate(&mut self, operation: Operation) {
        self.plan_fault();
        match operation {
            Operation::Put { chunk, content, frame } => {
                let bytes = &content_of(chunk, content).bytes;
                let outcome = self.world.put_framed(place(chunk), bytes, 0, frame).await;
                self.wrote(chunk, content, outcome);
            }
            Operation::Part { chunk, content, length } => self.part(chunk, content, length).await,
            Operation::Resume { chunk } => self.resume(chunk).await,
            Operation::Status { chunk } => self.status(chunk).await,
            Operation::Get { chunk, offset, limit } => self.get(chunk, offset, limit).await,
            Operation::Delete { chunk } => self.delete(chunk).await,
        }
        self.world.faults.heal();
        self.faulty = false;
    }

    /// What the journal holds becomes durable where it belongs, if the disk lets it.
    async fn settle(&mut self) {
        self.plan_fault();
        self.world.settle_journal().await;
        self.world.faults.heal();
        self.faulty = false;
    }

    async fn end(mut self, end: End) -> Self {
        self.world.faults.heal();
        // A start may need room for what the journal holds.
        self.world.disk.set_free(u64::MAX);
        let full = self.full;
        match end {
            End::Stop => {
                self.world = self.world.restart().await;
                self.known.values_mut().for_each(|known| known.part = None);
            }
            End::Crash { choices } => {
                let mut choices = choices.into_iter().cycle();
                self.world = self.world.crash(&mut |below| usize::from(choices.next().unwrap()) % below).await;
                self.known.values_mut().for_each(Known::crash);
                self.figures.crashes += 1;
            }
            End::Kill => {
                self.world = self.world.kill().await;
                self.known.values_mut().for_each(|known| known.part = None);
            }
        }
        self.world.disk.set_free(if full { 100 } else { u64::MAX });
        self
    }

    /// Whether this error has a cause that has nothing to do with the chunk.
    fn excused(&self, error: &ChunkError) -> bool {
        self.faulty
            || (self.full && matches!(error, ChunkError::OutOfSpace(_)))
            || (self.down && matches!(error, ChunkError::MetadataUnreachable(_)))
            || (self.world.store.latch().reason().is_some() && matches!(error, ChunkError::ReadOnly(_)))
    }

    /// What a whole write may have come to.
    fn wrote(&mut self, chunk: u64, content: usize, outcome: Result<ChunkSums, ChunkError>) {
        let excused = outcome.as_ref().is_err_and(|error| self.excused(error));
        self.figures.promises += u64::from(outcome.is_ok());
        let known = self.known(chunk);
        let damaged = known.damaged();
        known.part = None;
        match outcome {
            Ok(_sums) => {
                let same = known.acked.is_none_or(|acked| acked == content);
                // Where both files are lost, nothing tells a store that it once had the chunk; reads are refused then.
                let bearable = damaged && (!known.sealed || known.lost || known.perhaps.contains(&content));
                assert!(same || bearable, "other bytes took the place of chunk {chunk}");
                known.promise(content);
            }
            Err(_excused) if excused => {
                // A damaged pair of an open block may have been cleared away by then.
                if damaged && !known.sealed {
                    known.acked.take().map(|acked| known.perhaps.insert(acked));
                }
                known.doubt(content);
            }
            Err(ChunkError::AlreadyExists(_)) => {
                let in_the_way = known.acked.iter().chain(&known.perhaps).any(|other| *other != content);
                assert!(in_the_way, "chunk {chunk} does not hold other bytes");
            }
            Err(ChunkError::Corrupt(_) | ChunkError::Missing(_)) => assert!(known.sealed && known.blob_damaged),
            Err(other) => panic!("chunk {chunk}: {other:?}"),
        }
    }

    async fn part(&mut self, chunk: u64, content: usize, length: Index) {
        if self.known(chunk).acked.is_some() {
            return;
        }
        let length = length.index(CONTENTS[content] + 1);
        let outcome = self.world.put_part(place(chunk), 0, &content_of(chunk, content).bytes[..length]).await;
        let excused = outcome.as_ref().is_err_and(|error| self.excused(error));
        let known = self.known(chunk);
        match outcome {
            // What a failed write left may be compared with instead.
            Ok(()) => known.part = known.perhaps.is_empty().then_some((content, length)),
            Err(_excused) if excused => known.part = None,
            Err(other) => panic!("chunk {chunk}: {other:?}"),
        }
    }

    async fn resume(&mut self, chunk: u64) {
        let Some((content, length)) = self.known(chunk).part.filter(|(_content, length)| *length > 0) else { return };
        let bytes = &content_of(chunk, content).bytes;
        let outcome = self.world.put_framed(place(chunk), bytes, length, 50_000).await;
        self.wrote(chunk, content, outcome);
    }

    async fn status(&mut self, chunk: u64) {
        let status = self.world.store.write_status(place(chunk)).await;
        let excused = status.as_ref().is_err_and(|error| self.excused(error));
        let faulty = self.faulty;
        let known = self.known(chunk);
        match status {
            Ok(WriteStatus::Complete(sums)) => {
                let is_told = |content: &usize| content_of(chunk, *content).claims.sha256 == sums.sha256;
                let content = known.acked.iter().chain(&known.perhaps).copied().find(is_told);
                known.promise(content.expect("a status tells of bytes that somebody wrote"));
            }
            Ok(WriteStatus::Open(there)) => {
                let part = known.part.map_or(0, |(_content, length)| length as u64);
                assert!(there == part || (known.part.is_none() && !known.perhaps.is_empty()), "{there} bytes");
                if known.part.is_none() && there == 0 {
                    assert!(known.acked.is_none() || known.damaged() || faulty, "chunk {chunk} is forgotten");
                    known.clear();
                }
            }
            Err(_excused) if excused => {
                if known.damaged() && !known.sealed {
                    known.acked.take().map(|acked| known.perhaps.insert(acked));
                }
            }
            Err(ChunkError::UploadOver) => assert!(known.acked.is_none()),
            Err(ChunkError::Corrupt(_) | ChunkError::Missing(_)) => assert!(known.sealed && known.blob_damaged),
            Err(other) => panic!("chunk {chunk}: {other:?}"),
        }
    }

    fn seal(&mut self, chunk: u64) {
        let known = self.known(chunk);
        // A writer commits only while nothing was damaged: else its receipt speaks of bytes that are gone.
        if let Some(content) = known.acked.filter(|_| !known.blob_damaged) {
            known.sealed = true;
            self.world.oracle.set(place(chunk).chunk, sealed(chunk, content));
        }
    }

    async fn get(&mut self, chunk: u64, offset: Index, limit: u64) {
        let Some(content) = self.known(chunk).acked else { return };
        let content = content_of(chunk, content);
        let from = offset.index(content.bytes.len() + 1);
        let to = from.saturating_add(usize::try_from(limit).unwrap()).min(content.bytes.len());
        let range = Range { offset: from as u64, limit: Some(limit) };
        match self.world.get_claimed(place(chunk), content.claims, range).await {
            Ok(read) => assert!(read == content.bytes[from..to], "I2: wrong bytes of chunk {chunk}"),
            Err(error) => assert!(self.faulty || self.known(chunk).blob_damaged, "chunk {chunk}: {error:?}"),
        }
    }

    async fn delete(&mut self, chunk: u64) {
        let outcome = self.world.store.delete(place(chunk).chunk).await;
        self.world.oracle.set(place(chunk).chunk, Described::Open);
        let gone = std::mem::take(self.known(chunk));
        if let Err(error) = outcome {
            assert!(self.excused(&error), "{error:?}");
            let part = gone.part.map(|(content, _length)| content);
            let before = gone.perhaps.into_iter().chain(gone.undeleted);
            let undeleted: BTreeSet<usize> = before.chain(gone.acked).chain(part).collect();
            *self.known(chunk) = Known { perhaps: undeleted.clone(), undeleted, ..Known::default() };
        } else if let Some(content) = gone.acked {
            let read = self.world.get_claimed(place(chunk), content_of(chunk, content).claims, ALL).await;
            assert!(matches!(read, Err(ChunkError::Missing(_))) || self.faulty, "I8: {read:?}");
        }
    }

    fn damage(&mut self, chunk: u64, which: Which, damage: &Damage) {
        let name = if which == Which::Blob { blob(&place(chunk)) } else { chk(&place(chunk)) };
        let length = self.world.disk.bytes(&name).map(|bytes| bytes.len());
        let (Some(length), Some(_acked)) = (length, self.known(chunk).acked) else { return };
        match damage {
            Damage::Flip(at) if length > 0 => self.world.disk.damage(&name, |bytes| bytes[at.index(length)] ^= 4),
            Damage::Cut(at) if length > 0 => self.world.disk.damage(&name, |bytes| bytes.truncate(at.index(length))),
            Damage::Flip(_) | Damage::Cut(_) => return,
            Damage::Extend => self.world.disk.damage(&name, |bytes| bytes.push(b'#')),
            Damage::Lose => self.world.disk.lose(&name),
        }
        self.spoiled(chunk, which);
        let files = [blob(&place(chunk)), chk(&place(chunk))];
        let lost = files.iter().all(|name| self.world.disk.bytes(name).is_none());
        self.known(chunk).lost |= lost;
    }

    fn spoiled(&mut self, chunk: u64, which: Which) {
        self.figures.damages += 1;
        let known = self.known(chunk);
        match which {
            Which::Blob => known.blob_damaged = true,
            Which::Chk => known.chk_damaged = true,
        }
    }

    async fn exchange(&mut self, chunk: u64, exchange: Exchange) {
        let other = (chunk + 1) % CHUNKS;
        match exchange {
            Exchange::Pairs => {
                self.swap(chunk, other, Which::Blob);
                self.swap(chunk, other, Which::Chk);
            }
            Exchange::Chks => self.swap(chunk, other, Which::Chk),
            Exchange::Blobs => self.swap(chunk, other, Which::Blob),
            Exchange::Stale(content) => self.make_stale(chunk, content).await,
        }
    }

    fn is_pair(&mut self, chunk: u64) -> bool {
        let files = [blob(&place(chunk)), chk(&place(chunk))];
        self.known(chunk).acked.is_some() && files.iter().all(|name| self.world.disk.bytes(name).is_some())
    }

    fn swap(&mut self, chunk: u64, other: u64, which: Which) {
        if self.is_pair(chunk) && self.is_pair(other) {
            let name = if which == Which::Blob { blob } else { chk };
            self.world.disk.swap(&name(&place(chunk)), &name(&place(other)));
            self.spoiled(chunk, which);
            self.spoiled(other, which);
        }
    }

    /// The files of an older generation, which agree with each other.
    async fn make_stale(&mut self, chunk: u64, content: usize) {
        if !self.is_pair(chunk) {
            return;
        }
        let (older, world) = (ChunkBinding { generation: 0, ..place(chunk) }, World::new());
        world.put(older, &content_of(chunk, content).bytes).await.unwrap();
        for name in [blob(&older), chk(&older)] {
            let stale = world.disk.bytes(&name).unwrap();
            self.world.disk.damage(&name, |bytes| bytes.clone_from(&stale));
        }
        self.spoiled(chunk, Which::Blob);
        self.spoiled(chunk, Which::Chk);
    }

    async fn check(&mut self) {
        for (chunk, known) in self.known.clone() {
            let Some(content) = known.acked else { continue };
            let content = content_of(chunk, content);
            match self.world.get_claimed(place(chunk), content.claims, ALL).await {
                Ok(read) => assert!(read == content.bytes, "I2: wrong bytes of chunk {chunk}"),
                Err(error) => assert!(known.blob_damaged, "chunk {chunk} was answered as durable: {error:?}"),
            }
        }
        assert!(!self.world.broken.is_cancelled());
    }
}

fn sealed(chunk: u64, content: usize) -> Described {
    Described::Sealed(place(chunk), content_of(chunk, content).claims)
}
