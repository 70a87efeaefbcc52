//! Notices when the wall clock jumps, by holding it against the monotonic one.
//!
//! Leases and graces are told by the wall clock. After a jump they seem to be over although nobody had the time that was
//! promised, so background work that ends or destroys something holds back for as long as the promise was.
//!
//! Every commit looks at both clocks, since what it promises is counted from that moment: a jump forth and back between two
//! passes of the background work is noticed if anything was promised meanwhile. A jump is told apart from time that passes
//! only while the process runs; what happened before its start it cannot know.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::runtime::clock::millis;
use tokio::time::Instant;

/// A larger difference between the clocks is a jump; less is a clock being brought into step.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// See the module.
#[derive(Debug)]
pub(super) struct JumpWatch(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    wall_ms: u64,
    at: Instant,
    jumped: Option<Instant>,
}

impl JumpWatch {
    /// Begins with both clocks as they are.
    pub(super) fn new(wall_ms: u64, at: Instant) -> Self {
        Self(Mutex::new(Seen { wall_ms, at, jumped: None }))
    }

    // Plain numbers, each of them good by itself, so a poisoned lock is used on.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes both clocks.
    pub(super) fn look(&self, wall_ms: u64, now: Instant) {
        let mut seen = self.seen();
        let expected_ms = seen.wall_ms.saturating_add(millis(now.duration_since(seen.at)));
        let off_ms = wall_ms.abs_diff(expected_ms);
        if off_ms > millis(TOLERANCE) {
            tracing::warn!(off_ms, "the clock has jumped; for a while nothing expires and nothing is collected");
            seen.jumped = Some(now);
        }
        (seen.wall_ms, seen.at) = (wall_ms, now);
    }

    /// Whether the last jump, in either direction, is as long ago as the pause.
    pub(super) fn is_steady(&self, now: Instant, pause: Duration) -> bool {
        self.seen().jumped.is_none_or(|jumped| now.duration_since(jumped) >= pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_MS: u64 = 3_600_000;

    fn is_steady(watch: &JumpWatch, wall_ms: u64, now: Instant) -> bool {
        watch.look(wall_ms, now);
        watch.is_steady(now, HOUR)
    }

    #[test]
    fn time_that_passes_and_small_corrections_are_no_jump() {
        let start = Instant::now();
        let watch = JumpWatch::new(10 * HOUR_MS, start);
        assert!(is_steady(&watch, 11 * HOUR_MS, start + HOUR));
        assert!(is_steady(&watch, 12 * HOUR_MS + 300_000, start + 2 * HOUR));
        assert!(is_steady(&watch, 13 * HOUR_MS, start + 3 * HOUR));
    }

    #[test]
    fn a_jump_in_either_direction_pauses_and_a_second_one_begins_the_pause_anew() {
        for jumped_ms in [9 * HOUR_MS, 11 * HOUR_MS, 10 * HOUR_MS + 300_001] {
            let start = Instant::now();
            let watch = JumpWatch::new(10 * HOUR_MS, start);
            assert!(!is_steady(&watch, jumped_ms, start));
            assert!(!is_steady(&watch, jumped_ms + HOUR_MS / 2, start + HOUR / 2));
            assert!(!is_steady(&watch, jumped_ms, start + HOUR / 2), "back again");
            assert!(!is_steady(&watch, jumped_ms + HOUR_MS / 2, start + HOUR));
            assert!(is_steady(&watch, jumped_ms + HOUR_MS, start + 3 * HOUR / 2));
        }
    }
}
