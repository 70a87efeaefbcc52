//! Which nodes are left alone for a while, because they did not answer or deletes fail there.
//!
//! Kept in memory and by the monotonic clock: a restart asks every node again. Rows of a node that is left alone stay
//! where they are and are passed over, so that they hold up no other node's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::ids::NodeId;
use tokio::time::Instant;

/// After the first failure; doubled by each one that follows.
const SHORTEST: Duration = Duration::from_secs(5);
/// No longer than this.
const LONGEST: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Patience {
    pauses: Mutex<BTreeMap<NodeId, Pause>>,
}

impl Patience {
    // Each change is one insert or remove, so a poisoned lock guards nothing half-done.
    fn pauses(&self) -> MutexGuard<'_, BTreeMap<NodeId, Pause>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the node is to be left alone now.
    pub(super) fn is_paused(&self, node: NodeId, now: Instant) -> bool {
        self.pauses().get(&node).is_some_and(|pause| now < pause.until)
    }

    /// It failed. Failures of calls that were under way together count once.
    pub(super) fn failed(&self, node: NodeId, now: Instant) {
        let mut pauses = self.pauses();
        let length = match pauses.get(&node) {
            Some(pause) if now < pause.until => return,
            Some(pause) => LONGEST.min(pause.length.saturating_mul(2)),
            None => SHORTEST,
        };
        pauses.insert(node, Pause { until: now + length, length });
    }

    /// It answered.
    pub(super) fn answered(&self, node: NodeId) {
        self.pauses().remove(&node);
    }

    /// Every node may be asked at once.
    pub(super) fn forget(&self) {
        self.pauses().clear();
    }
}

#[cfg(test)]
mod tests {
    use proto::entropy::SeededEntropy;

    use super::*;

    #[test]
    fn a_node_that_fails_is_left_alone_for_twice_as_long_each_time_until_it_answers() {
        let (node, patience, start) =
            (NodeId::generate(1, &SeededEntropy::new(1)), Patience::default(), Instant::now());
        let mut now = start;
        for pause in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
            patience.failed(node, now);
            patience.failed(node, now);
            let pause = Duration::from_secs(pause);
            assert!(patience.is_paused(node, now + pause - Duration::from_millis(1)), "{pause:?}");
            assert!(!patience.is_paused(node, now + pause), "{pause:?}");
            now += pause;
        }
        patience.answered(node);
        patience.failed(node, now);
        assert!(!patience.is_paused(node, now + SHORTEST));
        patience.failed(node, now + SHORTEST);
        patience.forget();
        assert!(!patience.is_paused(node, now + SHORTEST));
    }
}
