//! When to try again, and when to give up.
//!
//! [`RetryPolicy`] is the rule; [`Budget`] is what one operation has left of it. A repeat is only made where the error
//! allows it ([`Error::retry`]), after a pause that doubles and is drawn from its upper half, on top of the time that the
//! service asked for: those whom it told the same do not all come back at once.

use std::time::Duration;

use proto::entropy::{Entropy as _, OsEntropy};
use proto::error::Retry;
use tokio::time::Instant;

use crate::error::Error;

/// When to try again, and when to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How long to go on trying a service that has never answered this client. Default: 4 s. An attempt under way is not
    /// cut short.
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

/// A failure that is to be followed by a repeat.
#[derive(Debug)]
pub(crate) struct Spent {
    /// How long to wait before it.
    pub(crate) pause: Duration,
    /// The failure.
    pub(crate) error: Error,
}

/// What one operation has left of its policy.
#[derive(Debug)]
pub(crate) struct Budget {
    policy: RetryPolicy,
    /// When things last went well.
    since: Instant,
    repeats: u32,
}

impl Budget {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, since: Instant::now(), repeats: 0 }
    }

    /// A service answered: the time for which it was out of reach is over. The number of repeats stays, so that a
    /// service that fails each time it is asked does not keep the caller for ever.
    pub(crate) fn renew(&mut self) {
        self.since = Instant::now();
    }

    /// The operation has come further than ever.
    pub(crate) fn progressed(&mut self) {
        self.renew();
        self.repeats = 0;
    }

    /// How long a service may be tried: less for one that has never answered.
    fn limit(&self, has_answered: bool) -> Duration {
        if has_answered { self.policy.unreachable } else { self.policy.first_contact }
    }

    /// Takes a failure and says how long to pause before the repeat.
    ///
    /// # Errors
    /// The failure itself, when it is final or nothing is left.
    pub(crate) fn spend(&mut self, error: Error, has_answered: bool) -> Result<Spent, Error> {
        let left = self.limit(has_answered).saturating_sub(self.since.elapsed());
        let asked = error.retry_after().unwrap_or_default();
        if error.retry() == Retry::Never || self.repeats >= self.policy.repeats_max || left.is_zero() || asked > left {
            return Err(error);
        }
        let mut random = [0];
        OsEntropy.fill(&mut random);
        let pause = asked.saturating_add(self.policy.pause(self.repeats, random[0])).min(left);
        self.repeats += 1;
        tracing::debug!(%error, repeat = self.repeats, ?pause, "trying again");
        Ok(Spent { pause, error })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::error::{Classify, Details, Reason};
    use proto::status::to_status;
    use tonic::{Code, Status};

    use super::*;
    use crate::error::{Call, Service};

    #[derive(Debug, thiserror::Error)]
    #[error("too fast")]
    struct TooFast(Duration);

    impl Classify for TooFast {
        fn reason(&self) -> Reason {
            Reason::RateLimited
        }
        fn details(&self) -> Details {
            Details { retry_after: Some(self.0), ..Details::default() }
        }
    }

    fn broken() -> Error {
        let call = Call { operation: "ask".into(), service: Service::Metadata, endpoint: "http://a:1".into() };
        let cause = std::io::Error::other("gone");
        Error::from_call(&call, Status::from_error(Box::new(cause)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_never_answered_is_given_up_sooner() {
        let mut budget = Budget::new(RetryPolicy::default());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(budget.spend(broken(), false).is_err());
        assert!(budget.spend(broken(), true).is_ok());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(budget.spend(broken(), true).is_err());
        budget.renew();
        assert!(budget.spend(broken(), false).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_without_progress_are_counted_even_if_the_service_answers() {
        let mut budget = Budget::new(RetryPolicy { repeats_max: 2, ..RetryPolicy::default() });
        for _ in 0..2 {
            assert!(budget.spend(broken(), true).is_ok());
            budget.renew();
        }
        assert!(budget.spend(broken(), true).is_err());
        budget.progressed();
        assert!(budget.spend(broken(), true).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_is_given_the_time_that_it_asks_for_unless_that_is_too_long() {
        let call = Call { operation: "ask".into(), service: Service::Metadata, endpoint: "http://a:1".into() };
        let limited = |seconds| Error::from_call(&call, to_status(&TooFast(Duration::from_secs(seconds))));
        let mut budget = Budget::new(RetryPolicy::default());
        for _ in 0..3 {
            let pause = budget.spend(limited(3), true).unwrap().pause;
            assert!(pause > Duration::from_secs(3) && pause < Duration::from_secs(4), "{pause:?}");
        }
        let too_long = budget.spend(limited(11), true).unwrap_err();
        assert_eq!(too_long.category(), crate::error::Category::QuotaOrRate);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_pass_by_itself_is_final_at_once() {
        let mut budget = Budget::new(RetryPolicy::default());
        let error = Error::QuotaReached { available_bytes: 1 };
        assert!(matches!(budget.spend(error, true), Err(Error::QuotaReached { .. })));
        assert_eq!(broken().retry(), Retry::SameCall);
        assert_eq!(Code::Unknown, Status::from_error(Box::new(std::io::Error::other("x"))).code());
    }

    proptest! {
        #[test]
        fn pauses_double_up_to_the_longest_and_never_shrink_below_half(repeat in 0_u32..100, random in 0_u8..=255) {
            let policy = RetryPolicy::default();
            let pause = policy.pause(repeat, random);
            prop_assert!(pause >= policy.pause_min / 2 && pause <= policy.pause_max);
            prop_assert!(policy.pause(repeat + 1, random) >= pause);
            if repeat >= 5 { prop_assert!(pause >= policy.pause_max / 2); }
        }
    }
}
