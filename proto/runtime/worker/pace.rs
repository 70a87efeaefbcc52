//! A bound on the speed of background work, on the monotonic clock, adjustable while the work goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How far ahead of its pace work may be, so that small amounts need no timer of their own.
const AHEAD: Duration = Duration::from_millis(100);
/// Longest wait that one amount brings about, however slow the pace.
const COST_MAX: Duration = Duration::from_secs(60 * 60);

/// So many units per second. Clones draw on the same.
#[derive(Debug, Clone)]
pub struct Pace {
    unit: &'static str,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    per_second: u64,
    /// When all that was drawn so far is paid for.
    paid_at: Option<Instant>,
}

impl Pace {
    /// Without a bound as yet; `unit` is what it counts, for people: `"chunks"`, `"bytes"`, `"rows"`.
    pub fn new(unit: &'static str) -> Self {
        Self { unit, shared: Arc::default() }
    }

    /// What it counts.
    pub fn unit(&self) -> &'static str {
        self.unit
    }

    /// Most units per second from now on, 0 for no bound; what was drawn before is forgiven, whoever waits goes on.
    pub fn set(&self, per_second: u64) {
        let mut state = self.state();
        if state.per_second != per_second {
            *state = State { per_second, paid_at: None };
            drop(state);
            self.shared.changed.notify_waiters();
        }
    }

    /// Waits until what was drawn before is paid for, then draws these units.
    pub async fn draw(&self, units: u64) {
        loop {
            let changed = self.shared.changed.notified();
            let Err(wait) = self.try_draw(units) else { return };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    /// Draws, or says how long that takes.
    fn try_draw(&self, units: u64) -> Result<(), Duration> {
        let mut state = self.state();
        if state.per_second == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let paid_at = state.paid_at.unwrap_or(now).max(now);
        let wait = paid_at.duration_since(now).saturating_sub(AHEAD);
        if !wait.is_zero() {
            return Err(wait);
        }
        state.paid_at = Some(paid_at + cost(units, state.per_second));
        Ok(())
    }

    // Nothing under the lock can panic between two changes, so a poisoned one is used on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(units: u64, per_second: u64) -> Duration {
    let nanos = u128::from(units) * 1_000_000_000 / u128::from(per_second.max(1));
    u64::try_from(nanos).map_or(COST_MAX, Duration::from_nanos).min(COST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_keeps_to_its_pace_in_amounts_small_and_large() {
        for (amount, times) in [(1, 1_000), (100, 10), (500, 2)] {
            let (pace, start) = (Pace::new("chunks"), Instant::now());
            pace.set(100);
            for _ in 0..times {
                pace.draw(amount).await;
            }
            pace.draw(0).await;
            let took = start.elapsed();
            assert!((Duration::from_millis(9_800)..=Duration::from_millis(10_100)).contains(&took), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_bound_means_no_wait_and_a_change_reaches_whoever_waits() {
        let (pace, start) = (Pace::new("bytes"), Instant::now());
        pace.draw(u64::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        pace.set(1);
        pace.draw(u64::MAX).await;
        let waiting = pace.draw(1);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(COST_MAX / 2, &mut waiting).await.is_err(), "there is much to pay for");
        let before = Instant::now();
        pace.set(1_000);
        waiting.await;
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}
