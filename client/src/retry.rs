//! When to try again, and when to give up.
//!
//! [`RetryPolicy`] is the rule; [`Budget`] is what one operation has left of it. A repeat is only made where the error
//! allows it ([`Error::retry`]), after a pause that doubles and is drawn from its upper half, or as long as the service
//! asked for.

use std::time::Duration;

use proto::entropy::{Entropy as _, OsEntropy};
use proto::error::Retry;
use tokio::time::Instant;

use crate::error::Error;

/// When to try again, and when to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How long to go on trying a service that has never answered this client. Default: 4 s.
    pub first_contact: Duration,
    /// How long to go on trying a service that has answered before: long enough for it to be restarted. Default: 10 s.
    pub unreachable: Duration,
    /// Most repeats without progress. Default: 16.
    pub repeats_max: u32,
    /// The pause before the first repeat; it doubles from there. Default: 50 ms.
    pub pause_min: Duration,
    /// The longest pause, unless the service asks for a longer one. Default: 1 s.
    pub pause_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first_contact: Duration::from_secs(4),
            unreachable: Duration::from_secs(10),
            repeats_max: 16,
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(1),
        }
    }
}

impl RetryPolicy {
    /// Each failure is final.
    pub fn never() -> Self {
        Self { repeats_max: 0, ..Self::default() }
    }

    /// The pause before the repeat of this number, counted from 0; `random` picks from its upper half.
    fn pause(&self, repeat: u32, random: u8) -> Duration {
        let full = self.pause_min.saturating_mul(1_u32.checked_shl(repeat).unwrap_or(u32::MAX)).min(self.pause_max);
        full / 2 + full * u32::from(random) / 510
    }
}
