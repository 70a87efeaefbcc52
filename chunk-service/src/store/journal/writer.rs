//! The journal's own thread: takes what has queued up, appends it as one group, answers everyone; and turns from one half
//! to the other.
//!
//! There is no artificial delay: what queues up during a sync is the next group. While both halves are full it waits until
//! the older one is settled, and everybody with it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use proto::failpoint;
use proto::ids::ChunkId;
use proto::runtime::journal::{AppendError, Journal};
use tokio::sync::{mpsc, oneshot};

use super::Half;
use super::settling::{Kind, Laying, Shared, settle_each};
use crate::error::ChunkError;
use crate::store::disk::Disk;
use crate::store::latch::Latch;

/// Bytes of records in one group; with less, a group would not keep the disk busy for long.
const GROUP_BYTES: usize = 1024 * 1024;

/// A record on its way.
pub(super) struct Entry {
    pub(super) chunk: ChunkId,
    pub(super) kind: Kind,
    pub(super) record: Vec<u8>,
    pub(super) answer: oneshot::Sender<Result<Laying, ChunkError>>,
}

/// Where the outcome of a record comes.
pub(super) type Answered = oneshot::Receiver<Result<Laying, ChunkError>>;

impl Entry {
    /// A record, as a job for the thread.
    pub(super) fn job(chunk: ChunkId, kind: Kind, record: Vec<u8>) -> (Answered, Job) {
        let (answer, answered) = oneshot::channel();
        (answered, Job::Append(Self { chunk, kind, record, answer }))
    }
}

impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        &self.record
    }
}

/// What the thread is asked to do.
pub(super) enum Job {
    /// Make it durable.
    Append(Entry),
    /// Begin to settle what is there.
    Settle,
    /// Settle everything, and end.
    Close(oneshot::Sender<()>),
}

/// The thread's state.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    latch: Latch,
    journal: Journal<Half>,
    queue: mpsc::Receiver<Job>,
    shared: Arc<Shared>,
    /// The present generation has records.
    used: bool,
}

/// Asks for generations to be settled.
type Settler = SyncSender<u64>;

impl Writer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        latch: Latch,
        journal: Journal<Half>,
        queue: mpsc::Receiver<Job>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { disk, latch, journal, queue, shared, used: false }
    }

    /// Starts the thread, and the one that settles.
    pub(super) fn start(self) -> io::Result<()> {
        // One generation is settled at a time.
        let (settler, generations) = sync_channel(1);
        let (disk, latch, shared) = (Arc::clone(&self.disk), self.latch.clone(), Arc::clone(&self.shared));
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        named("chunk-settler").spawn(move || settle_each(disk.as_ref(), &latch, &shared, &generations))?;
        named("chunk-journal").spawn(move || self.run(&settler))?;
        Ok(())
    }

    fn run(mut self, settler: &Settler) {
        while let Some(job) = self.queue.blocking_recv() {
            let mut next = Some(job);
            while let Some(job) = next.take() {
                match job {
                    Job::Append(first) => next = self.append_with(first, settler),
                    Job::Settle => self.settle(settler),
                    Job::Close(done) => {
                        self.end(settler);
                        drop(done);
                        return;
                    }
                }
            }
        }
    }

    /// Appends what has queued up. Returns what else came.
    fn append_with(&mut self, first: Entry, settler: &Settler) -> Option<Job> {
        let mut bytes = first.record.len();
        let mut group = vec![first];
        let mut behind = None;
        while bytes < GROUP_BYTES && behind.is_none() {
            match self.queue.try_recv() {
                Ok(Job::Append(entry)) => {
                    bytes += entry.record.len();
                    group.push(entry);
                }
                Ok(other) => behind = Some(other),
                Err(_none_waits) => break,
            }
        }
        let refused = match self.latch.check() {
            Ok(()) => self.append(&group, settler).map_err(|error| self.refusal(error)).err(),
            Err(closed) => Some(Refusal::of(closed)),
        };
        let generation = self.journal.generation();
        for Entry { chunk, kind, answer, .. } in group {
            let outcome = match &refused {
                None => Ok(self.shared.note(generation, chunk, kind)),
                Some(refusal) => Err(refusal.error()),
            };
            // Whoever has gone away leaves files unwritten, as a crash would.
            drop(answer.send(outcome));
        }
        self.shared.released(self.journal.durably_released());
        behind
    }

    fn append(&mut self, group: &[Entry], settler: &Settler) -> Result<(), AppendError> {
        loop {
            match self.journal.append(group) {
                Err(AppendError::Full) => self.turn(settler)?,
                appended => break appended?,
            }
        }
        failpoint!("journal.group_durable");
        self.used = true;
        Ok(())
    }

    /// Goes on in the other half, waiting until that may be used, and has this one settled.
    fn turn(&mut self, settler: &Settler) -> Result<(), AppendError> {
        let generation = self.journal.generation();
        if !self.shared.wait_settled(generation.saturating_sub(1)) {
            return Err(AppendError::Sync(io::Error::other("what the journal holds could not be synced")));
        }
        self.journal.release(self.shared.settled());
        self.journal.rotate()?;
        failpoint!("journal.turned");
        self.used = false;
        if settler.send(generation).is_err() {
            tracing::debug!(generation, "the settling thread has ended, and has told why");
        }
        Ok(())
    }

    /// Begins to settle what is there, unless that would wait; what was settled before becomes durable knowledge.
    fn settle(&mut self, settler: &Settler) {
        if self.latch.check().is_err() {
            return;
        }
        let settled = self.shared.settled();
        self.journal.release(settled);
        let may_turn = settled >= self.journal.generation().saturating_sub(1);
        let outcome = if self.used && may_turn { self.turn(settler) } else { self.note_release() };
        if let Err(error) = outcome {
            let error = self.refusal(error).error();
            tracing::warn!(error = %proto::status::chain(&error), "the journal could not be settled");
        }
    }

    /// Makes durable what is released, if that is not known there yet.
    fn note_release(&mut self) -> Result<(), AppendError> {
        if self.journal.durably_released() < self.shared.settled() {
            self.journal.append::<&[u8]>(&[])?;
            self.shared.released(self.journal.durably_released());
        }
        Ok(())
    }

    /// Settles everything.
    fn end(&mut self, settler: &Settler) {
        self.queue.close();
        let last = self.journal.generation();
        let settled = self.latch.check().is_ok()
            && (!self.used || self.turn(settler).is_ok())
            && self.shared.wait_settled(if self.journal.generation() > last { last } else { last.saturating_sub(1) });
        if settled {
            self.journal.release(self.shared.settled());
            if let Err(error) = self.note_release() {
                tracing::warn!(%error, "the next start will replay the journal");
            }
        }
    }

    /// What everybody of a group is told.
    fn refusal(&self, error: AppendError) -> Refusal {
        let told = match error {
            AppendError::Write(error) => self.latch.write_failed("write the journal", None, error),
            AppendError::Sync(error) => self.latch.sync_failed("sync the journal", None, &error),
            AppendError::Full | AppendError::TooLarge(_) => ChunkError::Panicked,
        };
        Refusal::of(told)
    }
}

/// Why a group was not taken, for each of its callers.
#[derive(Debug)]
enum Refusal {
    OutOfSpace,
    Overloaded(&'static str),
    ReadOnly(String),
    Failed(String),
}

impl Refusal {
    fn of(error: ChunkError) -> Self {
        if let ChunkError::OutOfSpace(_) = error {
            Self::OutOfSpace
        } else if let ChunkError::Overloaded(what) = error {
            Self::Overloaded(what)
        } else if let ChunkError::ReadOnly(why) = error {
            Self::ReadOnly(why)
        } else {
            Self::Failed(proto::status::chain(&error))
        }
    }

    fn error(&self) -> ChunkError {
        match self {
            Self::OutOfSpace => ChunkError::OutOfSpace(None),
            Self::Overloaded(what) => ChunkError::Overloaded(what),
            Self::ReadOnly(why) => ChunkError::ReadOnly(why.clone()),
            Self::Failed(why) => ChunkError::io("write the journal")(io::Error::other(why.clone())),
        }
    }
}
