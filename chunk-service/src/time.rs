//! What time it is for this node: the metadata service's, carried on by the node's own monotonic clock.
//!
//! Capabilities are judged by the clock of the service that made them, so a node whose wall clock is wrong neither
//! refuses good ones nor takes expired ones. Until the first heartbeat after a start there is only the node's own
//! clock, with a wide tolerance; that is enough for reads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::limits::{CLOCK_TOLERANCE, CLOCK_TOLERANCE_BEFORE_HEARTBEAT};
use proto::runtime::Clock;
use proto::runtime::clock::millis;
use tokio::time::Instant;

/// The time, and by how much it may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// Milliseconds.
    pub(crate) tolerance_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    server_ms: u64,
    at: Instant,
}

/// Tells a node the time.
#[derive(Debug)]
pub(crate) struct NodeTime {
    clock: Arc<dyn Clock>,
    anchor: Mutex<Option<Anchor>>,
}

impl NodeTime {
    /// Knows only the node's own clock so far.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, anchor: Mutex::new(None) }
    }

    fn anchor(&self) -> Option<Anchor> {
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the time from a heartbeat's answer, which was made between `sent` and now.
    pub(crate) fn set(&self, server_ms: u64, sent: Instant) {
        let anchor = Anchor { server_ms, at: sent + sent.elapsed() / 2 };
        *self.anchor.lock().unwrap_or_else(PoisonError::into_inner) = Some(anchor);
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Moment {
        match self.anchor() {
            Some(anchor) => Moment {
                now_ms: anchor.server_ms.saturating_add(millis(anchor.at.elapsed())),
                tolerance_ms: millis(CLOCK_TOLERANCE),
            },
            None => Moment { now_ms: self.clock.now_ms(), tolerance_ms: millis(CLOCK_TOLERANCE_BEFORE_HEARTBEAT) },
        }
    }

    /// How long ago the last heartbeat was answered; `None` when none was since the start.
    pub(crate) fn since_heartbeat(&self) -> Option<Duration> {
        self.anchor().map(|anchor| anchor.at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use proto::runtime::ManualClock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_replaces_the_nodes_own_clock() {
        let time = NodeTime::new(Arc::new(ManualClock::at(1_000_000)));
        assert_eq!(time.now(), Moment { now_ms: 1_000_000, tolerance_ms: 300_000 });
        assert_eq!(time.since_heartbeat(), None);

        let sent = Instant::now();
        tokio::time::advance(Duration::from_millis(100)).await;
        time.set(5_000_000, sent);
        assert_eq!(time.now(), Moment { now_ms: 5_000_050, tolerance_ms: 30_000 }, "the answer was 50 ms under way");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(time.now().now_ms, 5_060_050);
        assert_eq!(time.since_heartbeat(), Some(Duration::from_millis(60_050)));
    }
}
