//! The reference model: an engine in memory whose correctness can be seen at a glance.
//!
//! Owns nothing beyond the process. One lock makes every call a moment of its own, so decisions are in order, scans are
//! snapshots, and a commit is as durable as it will ever be when it returns. A crash loses everything.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::engine::{Decide, Engine, EngineError, KeyRange, Row, View};
use super::feed::{Committed, Feed, Follower, Writes};

/// An engine that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    state: Mutex<State>,
    feed: Feed,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<Vec<u8>, Bytes>,
    sequence: u64,
    closed: bool,
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// A closure that panics has changed nothing yet, so the state is good even then.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, EngineError> {
        let state = self.lock();
        if state.closed { Err(EngineError::Closed) } else { Ok(state) }
    }
}

impl View for State {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError> {
        let from = self.rows.range::<[u8], _>((Bound::Included(range.start.as_slice()), Bound::Unbounded));
        let within = from.take_while(|(key, _)| range.contains(key)).take(limit);
        Ok(within.map(|(key, value)| (Bytes::copy_from_slice(key), value.clone())).collect())
    }

    fn sequence(&self) -> u64 {
        self.sequence + 1
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.open()?.get(key)
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError> {
        self.open()?.scan(range, limit)
    }

    async fn commit(&self, decide: Decide) -> Result<u64, EngineError> {
        let mut state = self.open()?;
        let batch = decide(&*state)?.batch;
        batch.check_bounds()?;
        if batch.is_empty() {
            return Ok(state.sequence);
        }
        let writes: Writes = batch.into_writes().map(|(key, value)| (key, value.map(Bytes::from))).collect();
        for (key, value) in writes.clone() {
            match value {
                Some(value) => state.rows.insert(key, value),
                None => state.rows.remove(&key),
            };
        }
        let committed = Committed { sequence: state.sequence + 1, writes: Arc::new(writes) };
        self.feed.publish(&committed, || state.sequence = committed.sequence);
        Ok(committed.sequence)
    }

    fn sequence(&self) -> u64 {
        self.lock().sequence
    }

    fn follow(&self) -> Result<Follower, EngineError> {
        let state = self.open()?;
        self.feed.follow(|| state.sequence)
    }

    fn latched(&self) -> Option<String> {
        None
    }

    async fn failed(&self) -> String {
        std::future::pending().await
    }

    async fn close(&self) {
        self.lock().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_memory_engine_keeps_the_promises_of_every_engine() {
        conformance::suite(MemoryEngine::new()).await;
    }
}
