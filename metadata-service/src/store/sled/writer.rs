//! The writer: one thread that decides, applies and syncs all commits, a group at a time.
//!
//! Invariants: I15 (nobody is answered before the group's sync who did not waive it), I19 (the first failure ends all
//! commits).
//!
//! Order: take what has queued up and decide it against the database and the group so far; publish the group's keys;
//! apply it as one batch; answer who waived the sync; sync; withdraw the keys; answer all others. There is no artificial
//! delay: what queues up during a sync is the next group, so groups grow with the load.
//!
//! Crash: before the batch is in the log the group never was; after it the group may be there although nobody was
//! answered, which is what an unknown outcome means; after the sync it is there. Never a part of it.

use std::any::Any;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proto::failpoint;
use tokio::sync::mpsc;

use super::database::{Database, LogSync, wait_until_released};
use super::group::{Answer, Group, tell};
use super::shared::Shared;
use super::space::Watermarks;
use crate::store::engine::{Decide, EngineError};

/// What callers send to the writer.
pub(super) enum Job {
    Commit { decide: Decide, answer: Answer },
    Close,
}

/// The writer's own state.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) database: Database,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) log: Box<dyn LogSync>,
    pub(super) watermarks: Watermarks,
    /// Of the last commit that was applied.
    pub(super) sequence: u64,
    /// The log's file, to see when it is free again.
    pub(super) file: File,
}

impl Writer {
    /// Works until the queue is closed and empty, then closes the database.
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
                Job::Commit { decide, answer } => group.take(&self.database, &room, decide, answer),
                Job::Close => self.queue.close(),
            }
            next = if group.is_full() { None } else { self.queue.try_recv().ok() };
        }
        let outcome = self.make_durable(&mut group);
        group.answer(&outcome);
    }

    /// A group without writes has seen only what earlier groups made durable.
    fn make_durable(&mut self, group: &mut Group) -> Result<(), EngineError> {
        self.shared.latch.check()?;
        if group.writes.is_empty() {
            return Ok(());
        }
        failpoint!("engine.group_decided");
        let in_flight = self.shared.apply(std::mem::take(&mut group.writes), group.sequence)?;
        failpoint!("engine.batch_applied");
        group.answer_early();
        self.log.sync().map_err(|error| self.shared.latch.fail("sync its log", error))?;
        self.sequence = group.sequence;
        self.shared.settle(&in_flight);
        failpoint!("engine.group_shown");
        Ok(())
    }

    fn finish(self) {
        // Declared first, so that it fires last, and even when sled panics over its end.
        let _ended = self.shared.ended.clone().drop_guard();
        let Self { shared, database, log, file, .. } = self;
        drop((log, database));
        shared.close();
        if let Err(error) = wait_until_released(&file) {
            tracing::warn!(%error, "sled may still hold its files");
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
