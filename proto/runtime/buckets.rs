//! The buckets by which rates are kept.
//!
//! A bucket is the moment at which it is full again, so it costs one number, and one that is full costs nothing: it is
//! forgotten. What is taken moves the moment away by the time that the rate needs for it; a burst is how far it may be
//! away. So a rate that changes holds from the next call on.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::rates::{BACKLOG, BURST};

/// Buckets that are not full at the same time. With more of them newcomers are refused.
pub const BUCKETS_MAX: usize = 64 * 1024;
/// Full buckets are looked for this often at most.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// There is not enough in the bucket. There will be after so long, if nobody else comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotYet(pub Duration);

/// A bucket for each key.
#[derive(Debug)]
pub struct Buckets<K> {
    state: Mutex<State<K>>,
    max: usize,
}

#[derive(Debug)]
struct State<K> {
    full_at: HashMap<K, Instant>,
    tidied: Option<Instant>,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self::new(BUCKETS_MAX)
    }
}

impl<K> Buckets<K> {
    /// All of them full; at most so many that are not.
    pub fn new(max: usize) -> Self {
        Self { state: Mutex::new(State { full_at: HashMap::new(), tidied: None }), max }
    }
}

impl<K: Clone + Eq + Hash> Buckets<K> {
    /// Takes so much, if the key stays within its burst. A full bucket gives any amount once.
    ///
    /// # Errors
    /// [`NotYet`].
    pub fn take(&self, key: &K, rate: NonZeroU64, amount: u64) -> Result<(), NotYet> {
        self.change(key, |now, full_at| {
            let after = full_at + time_for(rate, amount);
            let ahead = after.duration_since(now);
            let wait = ahead.saturating_sub(BURST).min(full_at.duration_since(now));
            if wait.is_zero() { Ok(after) } else { Err(NotYet(wait)) }
        })
        .map(drop)
    }

    /// Whether the key has no more before it than [`BACKLOG`].
    ///
    /// # Errors
    /// [`NotYet`].
    pub fn check_backlog(&self, key: &K) -> Result<(), NotYet> {
        self.change(key, |now, full_at| {
            let over = full_at.duration_since(now).saturating_sub(BURST + BACKLOG);
            if over.is_zero() { Ok(full_at) } else { Err(NotYet(over)) }
        })
        .map(drop)
    }

    /// Takes so much whatever there is. Returns until when to wait then, if at all.
    pub fn draw(&self, key: &K, rate: NonZeroU64, amount: u64) -> Option<Instant> {
        let cost = time_for(rate, amount);
        let full_at = self.change(key, |_now, full_at| Ok(full_at + cost));
        let until =
            full_at.map_or_else(|NotYet(_no_place)| Instant::now().checked_add(cost), |at| at.checked_sub(BURST));
        until.filter(|until| *until > Instant::now())
    }

    /// Moves the moment at which a key's bucket is full again; never before now.
    fn change(
        &self,
        key: &K,
        change: impl FnOnce(Instant, Instant) -> Result<Instant, NotYet>,
    ) -> Result<Instant, NotYet> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let known = state.full_at.get(key).copied();
        let full_at = change(now, known.map_or(now, |at| at.max(now)))?;
        if full_at <= now {
            state.full_at.remove(key);
            return Ok(full_at);
        }
        if known.is_none() && state.full_at.len() >= self.max && !state.tidy(now, self.max) {
            return Err(NotYet(TIDY_EVERY));
        }
        state.full_at.insert(key.clone(), full_at);
        Ok(full_at)
    }

    /// Keys whose buckets may not be full.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).full_at.len()
    }
}

impl<K: Eq + Hash> State<K> {
    /// Forgets full buckets, unless that was done just now. Returns whether there is a place.
    fn tidy(&mut self, now: Instant, max: usize) -> bool {
        if self.tidied.is_none_or(|tidied| now.duration_since(tidied) >= TIDY_EVERY) {
            self.tidied = Some(now);
            self.full_at.retain(|_key, full_at| *full_at > now);
        }
        self.full_at.len() < max
    }
}

/// At most an hour: longer ones say no more.
fn time_for(rate: NonZeroU64, amount: u64) -> Duration {
    let nanos = u128::from(amount) * 1_000_000_000 / u128::from(rate.get());
    let hour = Duration::from_secs(60 * 60);
    u64::try_from(nanos).map_or(hour, |nanos| Duration::from_nanos(nanos).min(hour))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u64) -> NonZeroU64 {
        NonZeroU64::new(per_second).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_saved_is_given_at_once_and_then_as_fast_as_the_rate() {
        let buckets = Buckets::default();
        for _ in 0..10 {
            assert_eq!(buckets.take(&"a", rate(10), 1), Ok(()));
        }
        assert_eq!(buckets.take(&"a", rate(10), 1), Err(NotYet(Duration::from_millis(100))));
        assert_eq!(buckets.take(&"b", rate(10), 1), Ok(()), "another's");
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(buckets.take(&"a", rate(10), 1), Ok(()), "when it was told to come back");
        assert!(buckets.take(&"a", rate(10), 1).is_err());
        tokio::time::advance(Duration::from_secs(100)).await;
        let given = (0..100).filter(|_| buckets.take(&"a", rate(10), 1).is_ok()).count();
        assert_eq!(given, 10, "no more is saved than a burst");
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_a_burst_is_given_by_a_full_bucket_and_paid_for_afterwards() {
        let buckets = Buckets::default();
        assert_eq!(buckets.take(&(), rate(1), 5), Ok(()));
        assert_eq!(buckets.take(&(), rate(1), 1), Err(NotYet(Duration::from_secs(5))));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(buckets.take(&(), rate(1), 1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn streams_wait_for_each_other_and_no_more_are_opened_behind_a_backlog() {
        let buckets = Buckets::default();
        let start = Instant::now();
        let waits: Vec<_> =
            (0..8).map(|_| buckets.draw(&(), rate(10), 10).map_or(0, |at| (at - start).as_secs())).collect();
        assert_eq!(waits, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(buckets.check_backlog(&()), Err(NotYet(Duration::from_secs(2))));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(buckets.check_backlog(&()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn full_buckets_are_forgotten_and_there_are_never_more_than_so_many() {
        let buckets = Buckets::new(3);
        for key in 0..3 {
            assert_eq!(buckets.take(&key, rate(1), 1), Ok(()));
        }
        assert_eq!((buckets.take(&3, rate(1), 1), buckets.len()), (Err(NotYet(TIDY_EVERY)), 3));
        assert!(buckets.draw(&3, rate(1), 1).is_some() && buckets.len() == 3, "it goes at its rate all the same");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((buckets.take(&3, rate(1), 1), buckets.len()), (Ok(()), 1));
    }

    proptest! {
        #[test]
        fn in_any_time_no_more_is_given_than_the_rate_and_a_burst(
            per_second in 1_u64..1_000, steps in proptest::collection::vec((0_u64..2_000, 1_u64..50), 1..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let (given, largest, millis) = runtime.block_on(async {
                let buckets = Buckets::default();
                let (mut given, mut largest, mut passed) = (0, 0, 0);
                for (millis, amount) in steps {
                    tokio::time::advance(Duration::from_millis(millis)).await;
                    passed += millis;
                    largest = largest.max(amount);
                    if buckets.take(&(), rate(per_second), amount).is_ok() { given += amount; }
                }
                (given, largest, passed)
            });
            // What a full bucket gives beyond its burst is paid for before it gives again.
            prop_assert!(given * 1_000 <= (millis + 1_000) * per_second + largest * 1_000);
        }
    }
}
