//! An engine in memory whose calls fail as a test says.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::store::engine::{Decide, Engine, EngineError, KeyRange, Row, View};
use crate::store::feed::Follower;
use crate::store::memory::MemoryEngine;

/// A call of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineCall {
    Get,
    Scan,
    /// A read by the closure of a commit.
    ViewGet,
    /// The same of a range.
    ViewScan,
    /// A commit, after its closure has decided.
    Commit,
}

impl EngineCall {
    pub(crate) const ALL: [Self; 5] = [Self::Get, Self::Scan, Self::ViewGet, Self::ViewScan, Self::Commit];
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Failed,
    Latched,
    NearlyFull,
    Overloaded,
    Closed,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] = [Self::Failed, Self::Latched, Self::NearlyFull, Self::Overloaded, Self::Closed];

    /// Whether it ends all commits.
    pub(crate) fn latches(self) -> bool {
        matches!(self, Self::Failed | Self::Latched)
    }

    fn error(self) -> EngineError {
        match self {
            Self::Failed => {
                EngineError::Failed { action: "do as it is told", cause: "the test asked for it".to_owned() }
            }
            Self::Latched => EngineError::Latched("the test asked for it".to_owned()),
            Self::NearlyFull => EngineError::NearlyFull { free_bytes: 1 },
            Self::Overloaded => EngineError::Overloaded,
            Self::Closed => EngineError::Closed,
        }
    }
}

/// One call that is to fail.
#[derive(Debug, Clone, Copy)]
struct Armed {
    call: EngineCall,
    /// Calls of this kind that go well before.
    after: u64,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Shared {
    armed: Mutex<Option<Armed>>,
    latch: watch::Sender<Option<String>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct FaultyEngine {
    inner: MemoryEngine,
    shared: Arc<Shared>,
}

impl FaultyEngine {
    /// Has a call fail, once: the one that follows so many others of its kind.
    pub(crate) fn arm(&self, call: EngineCall, after: u64, fault: Fault) {
        *self.shared.armed() = Some(Armed { call, after, fault });
    }

    /// Has no call fail; returns whether one has.
    pub(crate) fn disarm(&self) -> bool {
        self.shared.armed().take().is_none()
    }

    /// Everything that is stored.
    pub(crate) async fn rows(&self) -> Vec<Row> {
        self.inner.scan(&KeyRange { start: Vec::new(), end: None }, usize::MAX).await.unwrap()
    }
}

impl Shared {
    fn armed(&self) -> MutexGuard<'_, Option<Armed>> {
        self.armed.lock().unwrap()
    }

    fn meet(&self, call: EngineCall) -> Result<(), EngineError> {
        let mut armed = self.armed();
        match &mut *armed {
            Some(next) if next.call == call && next.after > 0 => {
                next.after -= 1;
                Ok(())
            }
            Some(Armed { call: failing, fault, .. }) if *failing == call => {
                let fault = *fault;
                *armed = None;
                if fault.latches() {
                    self.latch.send_replace(Some(fault.error().to_string()));
                }
                Err(fault.error())
            }
            Some(_other) => Ok(()),
            None => Ok(()),
        }
    }
}

struct FaultyView<'a> {
    inner: &'a dyn View,
    shared: &'a Shared,
}

impl View for FaultyView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.shared.meet(EngineCall::ViewGet)?;
        self.inner.get(key)
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError> {
        self.shared.meet(EngineCall::ViewScan)?;
        self.inner.scan(range, limit)
    }

    fn sequence(&self) -> u64 {
        self.inner.sequence()
    }
}

#[async_trait]
impl Engine for FaultyEngine {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.shared.meet(EngineCall::Get)?;
        self.inner.get(key).await
    }

    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Row>, EngineError> {
        self.shared.meet(EngineCall::Scan)?;
        self.inner.scan(range, limit).await
    }

    async fn commit(&self, decide: Decide) -> Result<u64, EngineError> {
        self.latched().map_or(Ok(()), |reason| Err(EngineError::Latched(reason)))?;
        let shared = Arc::clone(&self.shared);
        let decide: Decide = Box::new(move |view| {
            let decision = decide(&FaultyView { inner: view, shared: &shared })?;
            shared.meet(EngineCall::Commit)?;
            Ok(decision)
        });
        self.inner.commit(decide).await?;
        // A failed read latches, too, also where the closure made something else of it.
        self.latched().map_or(Ok(self.inner.sequence()), |reason| Err(EngineError::Latched(reason)))
    }

    fn sequence(&self) -> u64 {
        self.inner.sequence()
    }

    fn follow(&self) -> Result<Follower, EngineError> {
        self.inner.follow()
    }

    fn latched(&self) -> Option<String> {
        self.shared.latch.borrow().clone()
    }

    async fn failed(&self) -> String {
        let mut changes = self.shared.latch.subscribe();
        let reason = changes.wait_for(Option::is_some).await.unwrap();
        reason.clone().unwrap()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
