//! The writer: one thread that decides all commits and writes them to the journal, a group at a time.
//!
//! Invariants: I15 (nobody is answered before the group's sync who did not waive it), I19 (the first failure ends all
//! commits), I17 (what is not in the database yet is bounded: the writer waits for a checkpoint when it must).
//!
//! Order: take what has queued up and decide it against all that is durable and the group so far; publish the group;
//! answer who waived the sync; write it to the journal as one record, and sync that; move the group into the active table
//! and withdraw it; answer all others. There is no artificial delay: what queues up during a sync is the next group, so
//! groups grow with the load. When enough has come together, and the checkpoint before is done, the journal goes on in its
//! other half and the active table is frozen for the next checkpoint (`checkpoint`).
//!
//! Crash: before the record is in the journal the group never was; after it the group may be there although nobody was
//! answered, which is what an unknown outcome means; after the sync it is there. Never a part of it.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proto::failpoint;
use proto::runtime::journal::{AppendError, Journal};
use tokio::sync::mpsc;

use super::checkpoint::{Checkpoints, panic_text};
use super::database::wait_until_released;
use super::group::{Answer, Group, tell};
use super::journal::Half;
use super::record;
use super::shared::Shared;
use super::space::{Room, Watermarks};
use crate::store::engine::{Decide, EngineError};

/// So full, in percent, may a half of the journal be before the other one's turn, if that can have it.
const HALF_FULL_PERCENT: u64 = 50;

/// What callers send to the writer.
pub(super) enum Job {
    Commit { decide: Decide, answer: Answer },
    Close,
}

/// The writer's own state.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) journal: Journal<Half>,
    pub(super) checkpoints: Checkpoints,
    /// From this size on the active table waits for a checkpoint.
    pub(super) checkpoint_bytes: u64,
    /// From this size on commits wait for it.
    pub(super) waiting_bytes: u64,
    pub(super) watermarks: Watermarks,
    /// Of the last commit that is durable.
    pub(super) sequence: u64,
    /// Of the last one that was frozen.
    pub(super) frozen: u64,
    /// sled's log, to see when it is free again.
    pub(super) file: File,
}

impl Writer {
    /// Works until the queue is closed and empty, then brings everything into the database and closes it.
    ///
    /// A panic latches the engine, after which this still answers everyone: with the reason.
    pub(super) fn run(mut self) {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work())) {
            self.shared.latch.fail("go on after a panic in its writer", panic_text(&*panic));
        }
        self.finish();
    }

    fn work(&mut self) {
        while let Some(job) = self.queue.blocking_recv() {
            match self.shared.latch.check() {
                Ok(()) => self.commit_group(job),
                Err(error) => self.refuse(job, error),
            }
        }
    }

    fn refuse(&mut self, job: Job, error: EngineError) {
        match job {
            Job::Commit { answer, .. } => tell(answer, Err(error)),
            Job::Close => self.queue.close(),
        }
    }

    fn commit_group(&mut self, first: Job) {
        let room = self.watermarks.look();
        let mut group = Group::after(self.sequence);
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Commit { decide, answer } => group.take(&self.shared, &room, decide, answer),
                Job::Close => self.queue.close(),
            }
            next = if group.is_full() { None } else { self.queue.try_recv().ok() };
        }
        let outcome = self.make_durable(&mut group);
        group.answer(&outcome);
        if outcome.is_ok() {
            // A failure is latched, and is the next caller's.
            drop(self.checkpoint_if_due(&room));
        }
    }

    /// A group without writes has seen only what earlier groups made durable.
    fn make_durable(&mut self, group: &mut Group) -> Result<(), EngineError> {
        self.shared.latch.check()?;
        if group.writes.is_empty() {
            return Ok(());
        }
        failpoint!("engine.group_decided");
        let record = record::encode(group.after + 1, group.sequence, &group.writes);
        let in_flight = self.shared.publish(std::mem::take(&mut group.writes), group.sequence);
        failpoint!("engine.group_published");
        group.answer_early();
        self.append(&record)?;
        failpoint!("engine.group_durable");
        self.sequence = group.sequence;
        self.shared.settle(&in_flight);
        failpoint!("engine.group_shown");
        Ok(())
    }

    fn append(&mut self, record: &[u8]) -> Result<(), EngineError> {
        self.journal.release(self.checkpoints.done());
        loop {
            match self.journal.append(&[record]) {
                Err(AppendError::Full) => self.turn()?,
                appended => return appended.map_err(|error| self.journal_failed(&error)),
            }
        }
    }

    fn journal_failed(&self, error: &AppendError) -> EngineError {
        let action = if let AppendError::Sync(_) = error { "sync its journal" } else { "write its journal" };
        self.shared.latch.fail(action, proto::status::chain(error))
    }

    /// On a nearly full disk one is always due: what waits needs room there.
    fn checkpoint_if_due(&mut self, room: &Room) -> Result<(), EngineError> {
        let active_bytes = self.shared.active_bytes();
        let scarce = !matches!(room, Room::Plenty) && active_bytes > 0;
        let due = scarce || active_bytes >= self.checkpoint_bytes || self.journal.used_percent() >= HALF_FULL_PERCENT;
        let overdue = active_bytes >= self.waiting_bytes;
        if overdue || due && self.checkpoints.is_idle() { self.turn() } else { Ok(()) }
    }

    /// The journal goes on in its other half, and what was in this one goes into the database. Waits for the checkpoint
    /// before.
    fn turn(&mut self) -> Result<(), EngineError> {
        let done = self.checkpoints.wait()?;
        self.journal.release(done);
        let generation = self.journal.generation();
        if !self.journal.rotate().map_err(|error| self.journal_failed(&error))? {
            return Err(self.shared.latch.fail("write its journal", "neither half may be overwritten"));
        }
        failpoint!("engine.journal_turned");
        self.freeze(generation);
        Ok(())
    }

    fn freeze(&mut self, generation: u64) {
        self.frozen = self.sequence;
        self.checkpoints.begin(self.shared.freeze(generation, self.sequence));
    }

    fn finish(mut self) {
        // Declared first, so that it fires last, and even when sled panics over its end.
        let _ended = self.shared.ended.clone().drop_guard();
        if self.shared.latch.check().is_ok() {
            // A panic must not skip what follows: the database is closed before anybody hears that it is.
            let emptied = catch_unwind(AssertUnwindSafe(|| self.empty_the_journal()));
            if let Err(panic) = &emptied {
                self.shared.latch.fail("go on after a panic at its end", panic_text(&**panic));
            }
            if !matches!(emptied, Ok(Ok(()))) {
                tracing::warn!("the next start has to replay the metadata's journal");
            }
        }
        let Self { shared, checkpoints, journal, file, .. } = self;
        checkpoints.end();
        shared.close();
        drop(journal);
        if let Err(error) = wait_until_released(&file) {
            tracing::warn!(%error, "sled may still hold its files");
        }
    }

    /// Brings everything into the database, so that a start need not.
    fn empty_the_journal(&mut self) -> Result<(), EngineError> {
        self.checkpoints.wait()?;
        if self.frozen < self.sequence {
            self.freeze(self.journal.generation());
        }
        let done = self.checkpoints.wait()?;
        self.journal.release(done);
        match self.journal.append::<&[u8]>(&[]) {
            // The next start finds the database's sequence.
            Ok(()) | Err(AppendError::Full) => Ok(()),
            Err(error) => Err(self.journal_failed(&error)),
        }
    }
}
