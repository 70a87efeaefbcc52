//! Notices when the wall clock jumps, by holding it against the monotonic one.
//!
//! Leases and graces are told by the wall clock. After a jump they seem to be over although nobody had the time that was
//! promised, so background work that ends or destroys something holds back for as long as the promise was.
//!
//! A jump is told apart from time that passes only while the process runs; what happened before its start it cannot know.

use std::time::Duration;

use proto::runtime::clock::millis;
use tokio::time::Instant;

/// A larger difference between the clocks is a jump; less is a clock being brought into step.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// See the module.
#[derive(Debug)]
pub(super) struct JumpGuard {
    held_back: &'static str,
    pause: Duration,
    seen: (u64, Instant),
    jumped: Option<Instant>,
}

impl JumpGuard {
    /// Both clocks now, what is held back after a jump, and for how long.
    pub(super) fn new(wall_ms: u64, now: Instant, held_back: &'static str, pause: Duration) -> Self {
        Self { held_back, pause, seen: (wall_ms, now), jumped: None }
    }

    /// Takes both clocks; returns whether the last jump, in either direction, is as long ago as the pause.
    pub(super) fn is_steady(&mut self, wall_ms: u64, now: Instant) -> bool {
        let (seen_ms, seen) = std::mem::replace(&mut self.seen, (wall_ms, now));
        let expected_ms = seen_ms.saturating_add(millis(now.duration_since(seen)));
        let off_ms = wall_ms.abs_diff(expected_ms);
        if off_ms > millis(TOLERANCE) {
            tracing::warn!(off_ms, held_back = self.held_back, pause = ?self.pause, "the clock has jumped");
            self.jumped = Some(now);
        }
        self.jumped.is_none_or(|jumped| now.duration_since(jumped) >= self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn time_that_passes_and_small_corrections_are_no_jump() {
        let start = Instant::now();
        let mut guard = JumpGuard::new(10 * HOUR_MS, start, "nothing", HOUR);
        assert!(guard.is_steady(11 * HOUR_MS, start + HOUR));
        assert!(guard.is_steady(12 * HOUR_MS + 300_000, start + 2 * HOUR));
        assert!(guard.is_steady(13 * HOUR_MS, start + 3 * HOUR));
    }

    #[test]
    fn a_jump_in_either_direction_pauses_and_a_second_one_begins_the_pause_anew() {
        for jumped_ms in [9 * HOUR_MS, 11 * HOUR_MS, 10 * HOUR_MS + 300_001] {
            let start = Instant::now();
            let mut guard = JumpGuard::new(10 * HOUR_MS, start, "nothing", HOUR);
            assert!(!guard.is_steady(jumped_ms, start));
            assert!(!guard.is_steady(jumped_ms + HOUR_MS / 2, start + HOUR / 2));
            assert!(!guard.is_steady(jumped_ms, start + HOUR / 2), "back again");
            assert!(!guard.is_steady(jumped_ms + HOUR_MS / 2, start + HOUR));
            assert!(guard.is_steady(jumped_ms + HOUR_MS, start + 3 * HOUR / 2));
        }
    }
}
