//! Brings reading, planning and writing together.
//!
//! The input announces each block that it reaches; the block gets the next plan and a writer of its own; its receipt
//! is collected, given to AllocateBlocks while the upload goes on, and the rest to CommitUpload. More plans are asked
//! for before the last one is used.
//!
//! Dropping this drops every writer and, through the closed channels, ends the reading.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use proto::checksum::Sha256;
use proto::error::Reason;
use proto::limits;
use proto::pb;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::block::{BlockWriter, SealedBlock};
use super::input::{Input, Kept};
use super::producer::{OpenBlock, Producer, Whole};
use super::session::Session;
use crate::apart;
use crate::error::Error;
use crate::progress::Meter;

/// Blocks being written at once: while some become durable, the next one is sent.
const BLOCKS_IN_FLIGHT: u64 = 4;
/// Bytes of input that cannot be read again which are kept for blocks in flight.
const KEPT_BYTES_MAX: u64 = 32 * limits::MIB;

/// An upload under way.
pub(super) struct Conductor<'a> {
    session: &'a Session,
    file: Option<Kept>,
    meter: Meter,
    plans: Plans,
    asking: JoinSet<Asked>,
    renew_at: Instant,
    /// A block that has no plan yet.
    waiting: Option<OpenBlock>,
    writers: JoinSet<Result<(u64, SealedBlock), Error>>,
    /// Receipts that the metadata service does not have.
    receipts: Vec<Bytes>,
    sealed_bytes: u64,
    /// What its node says of block 0.
    first_sha256: Option<Sha256>,
}

/// What is planned.
struct Plans {
    /// Blocks of a blob whose size is known.
    block_count: Option<u64>,
    unused: VecDeque<pb::BlockPlan>,
    /// Number of plans received so far, and the bytes that they allow.
    received: u64,
    allowed_bytes: u64,
    /// Number of plans in the last answer that had any.
    last_grant: usize,
    /// Why there are no more, as long as nobody needs them.
    refusal: Option<Error>,
}

/// The end of a call to AllocateBlocks: what was asked, and what came of it.
struct Asked {
    count: u32,
    receipts: Vec<Bytes>,
    answer: Result<Vec<pb::BlockPlan>, Error>,
}

/// How far the input has been read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    UnderWay,
    Ended(Whole),
    /// A writer has gone; its error is about to arrive.
    Unwanted,
}

impl Plans {
    fn take(&mut self, plans: Vec<pb::BlockPlan>) -> Result<(), &'static str> {
        if !plans.is_empty() {
            self.last_grant = plans.len();
        }
        for plan in plans {
            if plan.block_index != self.received {
                return Err("a plan for another block than the next one");
            }
            self.received += 1;
            self.allowed_bytes = self.allowed_bytes.saturating_add(plan.max_bytes);
            self.unused.push_back(plan);
        }
        Ok(())
    }

    /// How many more blocks there can be.
    fn wanted(&self) -> u32 {
        let left = self.block_count.map_or(u64::MAX, |count| count.saturating_sub(self.received));
        u32::try_from(left).unwrap_or(u32::MAX).min(limits::BLOCKS_PER_ALLOCATION)
    }

    /// Whether half of the last plans are used, so that it is time to ask for more.
    fn run_low(&self) -> bool {
        self.refusal.is_none() && self.wanted() > 0 && self.unused.len() < self.last_grant / 2
    }
}

impl<'a> Conductor<'a> {
    pub(super) fn new(
        session: &'a Session,
        input: &Input,
        plans: Vec<pb::BlockPlan>,
        meter: Meter,
    ) -> Result<Self, Error> {
        let block_count = input.size_bytes().map(|bytes| bytes.div_ceil(session.cut.block_bytes));
        let mut first =
            Plans { block_count, unused: VecDeque::new(), received: 0, allowed_bytes: 0, last_grant: 0, refusal: None };
        first.take(plans).map_err(|problem| session.handle.malformed(problem))?;
        Ok(Self {
            session,
            file: input.kept(),
            meter,
            plans: first,
            asking: JoinSet::new(),
            renew_at: Instant::now() + session.renew_every,
            waiting: None,
            writers: JoinSet::new(),
            receipts: Vec::new(),
            sealed_bytes: 0,
            first_sha256: None,
        })
    }

    /// Sends everything, and returns what it was with the receipts that the metadata service does not have yet.
    ///
    /// # Errors
    /// The first failure of any part.
    pub(super) async fn run(mut self, input: Input) -> Result<(Whole, Vec<Bytes>), Error> {
        let (announce, mut blocks) = mpsc::channel(1);
        let slots = Arc::new(Semaphore::new(self.slots()));
        let producer = Producer::new(self.session.cut, input.size_bytes(), slots, announce);
        let mut read = std::pin::pin!(apart::run(input.place(), move || producer.run(input)));
        let (mut reading, mut announcing) = (Reading::UnderWay, true);
        while announcing || reading == Reading::UnderWay || self.is_busy() {
            self.ask_in_time(reading)?;
            tokio::select! {
                whole = &mut read, if reading == Reading::UnderWay => {
                    reading = whole?.map_or(Reading::Unwanted, Reading::Ended);
                }
                block = blocks.recv(), if announcing && self.waiting.is_none() => match block {
                    Some(block) => self.begin(block)?,
                    None => announcing = false,
                },
                Some(written) = self.writers.join_next() => self.sealed(written)?,
                Some(asked) = self.asking.join_next() => self.answered(asked)?,
                () = tokio::time::sleep_until(self.renew_at), if self.asking.is_empty() => self.ask(0),
            }
        }
        let Reading::Ended(whole) = reading else { return Err(apart::ended_early()) };
        self.finish(whole).await
    }

    /// How many blocks may be in flight.
    fn slots(&self) -> usize {
        let kept = if self.file.is_some() { BLOCKS_IN_FLIGHT } else { KEPT_BYTES_MAX / self.session.cut.block_bytes };
        usize::try_from(kept.clamp(1, BLOCKS_IN_FLIGHT)).unwrap_or(1)
    }

    fn is_busy(&self) -> bool {
        self.waiting.is_some() || !self.writers.is_empty() || !self.asking.is_empty()
    }

    fn begin(&mut self, block: OpenBlock) -> Result<(), Error> {
        let Some(plan) = self.plans.unused.pop_front() else {
            self.waiting = Some(block);
            return Ok(());
        };
        let writer = BlockWriter::new(self.session, &plan, block, self.file.clone(), self.meter.clone())?;
        self.writers.spawn(writer.run());
        Ok(())
    }

    fn sealed(&mut self, written: Result<Result<(u64, SealedBlock), Error>, JoinError>) -> Result<(), Error> {
        let (index, block) = written.map_err(|_panicked| apart::ended_early())??;
        self.sealed_bytes += block.size_bytes;
        self.receipts.push(block.receipt);
        if index == 0 {
            self.first_sha256 = Some(block.sha256);
        }
        Ok(())
    }

    /// Asks for more plans when they are needed, or about to be.
    fn ask_in_time(&mut self, reading: Reading) -> Result<(), Error> {
        if !self.asking.is_empty() {
            return Ok(());
        }
        let needed = self.waiting.is_some();
        if needed && let Some(refusal) = self.plans.refusal.take() {
            return Err(refusal);
        }
        if needed || (reading == Reading::UnderWay && self.plans.run_low()) {
            self.ask(self.plans.wanted());
        }
        Ok(())
    }

    fn ask(&mut self, count: u32) {
        let handle = self.session.handle.clone();
        let first = self.plans.received;
        let receipts = self.some_receipts();
        self.asking.spawn(async move {
            let answer = handle.allocate(first, count, receipts.clone()).await;
            Asked { count, receipts, answer }
        });
        self.renew_at = Instant::now() + self.session.renew_every;
    }

    /// As many receipts as one call takes.
    fn some_receipts(&mut self) -> Vec<Bytes> {
        let count = self.receipts.len().min(limits::RECEIPTS_PER_CALL);
        self.receipts.drain(..count).collect()
    }

    fn answered(&mut self, asked: Result<Asked, JoinError>) -> Result<(), Error> {
        let Asked { count, receipts, answer } = asked.map_err(|_panicked| apart::ended_early())?;
        match answer {
            Ok(plans) => {
                if count > 0 && plans.is_empty() {
                    let available_bytes = self.plans.allowed_bytes;
                    self.plans.refusal = Some(Error::QuotaReached { available_bytes });
                }
                self.plans.take(plans).map_err(|problem| self.session.handle.malformed(problem))?;
            }
            // The input may end before it needs what the quota refuses.
            Err(error) if error.reason() == Some(Reason::QuotaExceeded) && self.plans.block_count.is_none() => {
                self.plans.refusal = Some(error);
                self.receipts.extend(receipts);
            }
            Err(error) => return Err(error),
        }
        self.waiting.take().map_or(Ok(()), |block| self.begin(block))
    }

    async fn finish(mut self, whole: Whole) -> Result<(Whole, Vec<Bytes>), Error> {
        let handle = &self.session.handle;
        if self.sealed_bytes != whole.size_bytes {
            return Err(handle.malformed("receipts that do not add up to the blob"));
        }
        let only_block = whole.size_bytes > 0 && whole.size_bytes <= self.session.cut.block_bytes;
        if only_block && self.first_sha256 != Some(whole.sha256) {
            return Err(handle.malformed("another SHA-256 than that of the bytes sent"));
        }
        while self.receipts.len() > limits::RECEIPTS_PER_CALL {
            let receipts = self.some_receipts();
            self.session.handle.clone().allocate(self.plans.received, 0, receipts).await?;
        }
        Ok((whole, self.receipts))
    }
}
