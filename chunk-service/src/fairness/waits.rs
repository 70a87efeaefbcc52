//! How long jobs waited for their turn lately: a histogram with fixed buckets, eight to each doubling.
//!
//! A window of one to two minutes: what is older tells nothing about how the node is now. Its memory is fixed, and what
//! it answers is at most an eighth too high.

use std::time::Duration;

/// How long one half of the window lasts.
const HALF: Duration = Duration::from_secs(60);
/// Buckets to a doubling, as a power of two.
const STEPS_LOG2: u32 = 3;
/// Longest wait that is told from longer ones: 2^36 microseconds are 19 hours.
const LONGEST_LOG2: u32 = 36;
const BUCKETS: usize = ((LONGEST_LOG2 - STEPS_LOG2 + 1) << STEPS_LOG2) as usize;

/// What is known of the waits of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// How many there were.
    pub(super) count: u64,
    /// Half of them were no longer than this, in microseconds.
    pub(super) p50_us: u64,
    /// 99 of 100 were no longer than this, in microseconds.
    pub(super) p99_us: u64,
    /// None was longer, in microseconds.
    pub(super) max_us: u64,
}

#[derive(Debug, Clone)]
struct Half {
    counts: Vec<u64>,
    max_us: u64,
}

impl Default for Half {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], max_us: 0 }
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Waits {
    now: Half,
    before: Half,
    since: Duration,
}

impl Waits {
    /// Notes a wait that has just ended.
    pub(super) fn note(&mut self, now: Duration, waited: Duration) {
        self.turn_to(now);
        let us = micros(waited);
        if let Some(count) = self.now.counts.get_mut(bucket(us)) {
            *count += 1;
        }
        self.now.max_us = self.now.max_us.max(us);
    }

    /// What is known at this moment.
    pub(super) fn summary(&mut self, now: Duration) -> Summary {
        self.turn_to(now);
        let max_us = self.now.max_us.max(self.before.max_us);
        let counts: Vec<u64> = self.now.counts.iter().zip(&self.before.counts).map(|(a, b)| a + b).collect();
        let count: u64 = counts.iter().sum();
        let at = |of_100: u64| {
            let rank = (count * of_100).div_ceil(100);
            let mut seen = 0;
            let reached = counts.iter().position(|bucket| {
                seen += bucket;
                seen >= rank
            });
            reached.map_or(0, highest).min(max_us)
        };
        Summary { count, p50_us: at(50), p99_us: at(99), max_us }
    }

    fn turn_to(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since);
        if passed < HALF {
            return;
        }
        let half = std::mem::take(&mut self.now);
        self.before = if passed < 2 * HALF { half } else { Half::default() };
        self.since = now;
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The bucket of so many microseconds: those below eight have one each.
fn bucket(us: u64) -> usize {
    let Some(doubling) = us.checked_ilog2().filter(|log2| *log2 >= STEPS_LOG2) else {
        return usize::try_from(us).unwrap_or(0);
    };
    let doubling = doubling.min(LONGEST_LOG2 - 1);
    let step = (us.min((1 << LONGEST_LOG2) - 1) >> (doubling - STEPS_LOG2)) & ((1 << STEPS_LOG2) - 1);
    let before = u64::from(doubling - STEPS_LOG2 + 1) << STEPS_LOG2;
    usize::try_from(before + step).unwrap_or(BUCKETS - 1)
}

/// The most microseconds that a bucket stands for.
fn highest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let (group, step) = (bucket >> STEPS_LOG2, bucket & ((1 << STEPS_LOG2) - 1));
    match group.checked_sub(1) {
        None => step,
        Some(shift) => (((1 << STEPS_LOG2) + step + 1) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_holds_a_wait_and_is_at_most_an_eighth_too_high(us in 0_u64..1 << LONGEST_LOG2) {
            let highest = highest(bucket(us));
            prop_assert!(highest >= us && highest <= us + us / 8, "{us} is told as {highest}");
        }
    }

    #[test]
    fn the_longest_wait_has_a_bucket_too() {
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        let mut waits = Waits::default();
        waits.note(Duration::ZERO, Duration::MAX);
        assert_eq!(waits.summary(Duration::ZERO).count, 1);
    }

    #[test]
    fn percentiles_are_of_the_last_minutes_only() {
        let mut waits = Waits::default();
        for us in 1..=100 {
            waits.note(Duration::from_secs(1), Duration::from_micros(us));
        }
        let summary = Summary { count: 100, p50_us: 51, p99_us: 100, max_us: 100 };
        assert_eq!(waits.summary(Duration::from_secs(1)), summary);
        assert_eq!(waits.summary(Duration::from_secs(61)), summary, "the half before counts");
        waits.note(Duration::from_secs(62), Duration::from_micros(5));
        assert_eq!(waits.summary(Duration::from_secs(122)), Summary { count: 1, p50_us: 5, p99_us: 5, max_us: 5 });
        assert_eq!(waits.summary(Duration::from_secs(900)), Summary::default());
    }
}
