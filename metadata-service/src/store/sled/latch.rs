//! The first failure, which ends all commits (I19).

use std::fmt;

use tokio::sync::watch;

use crate::store::engine::EngineError;

/// Keeps the first failure for ever.
#[derive(Debug, Default)]
pub(super) struct Latch(watch::Sender<Option<String>>);

impl Latch {
    /// Records a failure, which counts if it is the first, and returns it as the error of whoever met it.
    pub(super) fn fail(&self, action: &'static str, cause: impl fmt::Display) -> EngineError {
        let error = EngineError::Failed { action, cause: cause.to_string() };
        let first = self.0.send_if_modified(|reason| {
            let first = reason.is_none();
            reason.get_or_insert_with(|| error.to_string());
            first
        });
        if first {
            tracing::error!(%error, "the metadata engine takes no more writes; restart the service after a look at the disk");
        }
        error
    }

    /// The first failure.
    pub(super) fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Refuses once there was a failure.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        let reason = self.reason().filter(|_reason| !seeded!(LatchForgotten));
        reason.map_or(Ok(()), |reason| Err(EngineError::Latched(reason)))
    }

    /// Resolves with the first failure.
    pub(super) async fn failed(&self) -> String {
        let mut changes = self.0.subscribe();
        let reason = changes.wait_for(Option::is_some).await.expect("the sender lives as long as the latch");
        reason.clone().expect("it was waited for")
    }
}
