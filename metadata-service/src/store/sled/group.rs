//! A group of commits being built: decided one after the other, written and synced as one.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::record::FRAMING_BYTES;
use super::shared::Shared;
use super::space::Room;
use super::tables::Layers;
use crate::store::engine::{Batch, Decide, Decision, EngineError, KeyRange, Row, View};
use crate::store::feed::Writes;

/// Where a commit's caller waits.
pub(super) type Answer = oneshot::Sender<Result<u64, EngineError>>;

/// Commits in one group at most.
const COMMITS_MAX: usize = 1024;

/// Bytes of its record at which a group is full; a thousand commits of the usual size fit.
pub(super) const BYTES_MAX: usize = 256 * 1024;

/// Commits decided, not yet durable.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) writes: Writes,
    /// Of the last commit before it.
    pub(super) after: u64,
    /// Of the last commit that was accepted.
    pub(super) sequence: u64,
    bytes: usize,
    /// Commits that it has looked at, refused ones too.
    taken: usize,
    waiting: Vec<(Answer, u64)>,
    /// Callers that do not wait for the sync.
    hasty: Vec<(Answer, u64)>,
}

impl Group {
    /// An empty group after the commit with this sequence.
    pub(super) fn after(sequence: u64) -> Self {
        Self {
            writes: Writes::new(),
            after: sequence,
            sequence,
            bytes: 0,
            taken: 0,
            waiting: Vec::new(),
            hasty: Vec::new(),
        }
    }

    /// Whether no further commit should join. Refused ones count: else a stream of them would keep the accepted ones from
    /// their sync, and the look at the disk from being taken again.
    pub(super) fn is_full(&self) -> bool {
        self.taken >= COMMITS_MAX || self.bytes >= BYTES_MAX
    }

    /// Decides a commit against all that was accepted before it. A refused one is answered at once and leaves no trace.
    pub(super) fn take(&mut self, shared: &Shared, room: &Room, decide: Decide, answer: Answer) {
        self.taken += 1;
        match self.decided(shared, room, decide) {
            Ok(decision) if decision.batch.is_empty() && seeded!(RepeatNotDurable) => tell(answer, Ok(self.sequence)),
            Ok(decision) => {
                self.accept(decision.batch);
                let waiting = if decision.answered_early { &mut self.hasty } else { &mut self.waiting };
                waiting.push((answer, self.sequence));
            }
            Err(refusal) => tell(answer, Err(refusal)),
        }
    }

    fn decided(&self, shared: &Shared, room: &Room, decide: Decide) -> Result<Decision, EngineError> {
        let sequence = self.sequence + 1;
        let decision = shared.under(&self.writes, |layers| decide(&Accepted { layers, sequence }))??;
        decision.batch.check_bounds()?;
        room.check(&decision)?;
        Ok(decision)
    }

    fn accept(&mut self, batch: Batch) {
        self.sequence += u64::from(!batch.is_empty());
        for (key, value) in batch.into_writes() {
            self.bytes += FRAMING_BYTES + key.len() + value.as_ref().map_or(0, Vec::len);
            self.writes.insert(key, value.map(Bytes::from));
        }
    }

    /// Tells those who do not wait for the sync that every later commit will see theirs.
    pub(super) fn answer_early(&mut self) {
        self.hasty.drain(..).for_each(|(answer, sequence)| tell(answer, Ok(sequence)));
    }

    /// Tells every other caller how it ended.
    pub(super) fn answer(self, outcome: &Result<(), EngineError>) {
        for (answer, sequence) in self.waiting.into_iter().chain(self.hasty) {
            tell(answer, outcome.clone().map(|()| sequence));
        }
    }
}

/// A caller that has gone away changes nothing about its commit.
pub(super) fn tell(answer: Answer, outcome: Result<u64, EngineError>) {
    drop(answer.send(outcome));
}

/// What is durable, with the group's writes over it.
struct Accepted<'a> {
    layers: Layers<'a>,
    sequence: u64,
}

impl View for Accepted<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.layers.get(key)
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError> {
        self.layers.scan(range, limit)
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }
}
