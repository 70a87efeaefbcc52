//! What a listener grants to strangers, as flags. Streams of ours have limits of their own, in the chunk service.

use std::time::Duration;

use crate::limits;

/// No wait is set to more than this, so that no sum of times can overflow.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Limits of every listener of a process. Durations are written like `15s` or `1h`.
#[derive(clap::Args, Debug, Clone, PartialEq, Eq)]
#[group(id = "transport_limits")]
#[command(next_help_heading = "Connections")]
pub struct TransportLimits {
    /// Connections of a listener; at most a quarter of the process's descriptors
    #[arg(long, env = "MINI_TECTONIC_CONNECTIONS_MAX", value_name = "COUNT", default_value_t = limits::CONNECTIONS_MAX)]
    pub connections_max: usize,
    /// Connections of a listener from one address; for IPv6, from one /64 network
    #[arg(long, env = "MINI_TECTONIC_CONNECTIONS_PER_ADDRESS", value_name = "COUNT", default_value_t = limits::CONNECTIONS_PER_ADDRESS)]
    pub connections_per_address: usize,
    /// A connection whose TLS handshake takes longer than this is closed
    #[arg(long, env = "MINI_TECTONIC_HANDSHAKE_WITHIN", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "5s")]
    pub handshake_within: Duration,
    /// A connection without a request for this long after its start is closed
    #[arg(long, env = "MINI_TECTONIC_FIRST_REQUEST_WITHIN", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s")]
    pub first_request_within: Duration,
    /// A request of one message that makes no progress for this long is refused
    #[arg(long, env = "MINI_TECTONIC_REQUEST_STALL", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "15s")]
    pub request_stall: Duration,
    /// A request of one message that is not complete after this long is refused
    #[arg(long, env = "MINI_TECTONIC_REQUEST_WITHIN", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1m")]
    pub request_within: Duration,
    /// A connection whose client does not take an answer for this long is closed
    #[arg(long, env = "MINI_TECTONIC_ANSWER_TAKEN_WITHIN", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    pub answer_taken_within: Duration,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_address: limits::CONNECTIONS_PER_ADDRESS,
            handshake_within: limits::TLS_HANDSHAKE_WITHIN,
            first_request_within: limits::FIRST_REQUEST_WITHIN,
            request_stall: limits::STREAM_STALL,
            request_within: limits::REQUEST_WITHIN,
            answer_taken_within: limits::ANSWER_TAKEN_WITHIN,
        }
    }
}

impl TransportLimits {
    /// Refuses values with which nobody would be served.
    ///
    /// # Errors
    /// A sentence about the first one that is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.connections_max == 0 || self.connections_per_address == 0 {
            return Err("--connections-max and --connections-per-address must be at least 1");
        }
        let times = [
            self.handshake_within,
            self.first_request_within,
            self.request_stall,
            self.request_within,
            self.answer_taken_within,
        ];
        if times.iter().any(|time| time.is_zero() || *time > YEAR) {
            return Err(
                "--handshake-within, --first-request-within, --request-stall, --request-within and --answer-taken-within must be more than \
                 nothing and at most a year",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        limits: TransportLimits,
    }

    #[test]
    fn the_flags_defaults_are_those_of_the_contract() {
        assert_eq!(Line::parse_from(["x"]).limits, TransportLimits::default());
        assert!(TransportLimits::default().check().is_ok());
    }

    #[test]
    fn settings_with_which_nobody_is_served_are_refused() {
        let good = TransportLimits::default();
        for bad in [
            TransportLimits { connections_max: 0, ..good.clone() },
            TransportLimits { connections_per_address: 0, ..good.clone() },
            TransportLimits { handshake_within: Duration::ZERO, ..good.clone() },
            TransportLimits { first_request_within: Duration::ZERO, ..good.clone() },
            TransportLimits { request_stall: Duration::ZERO, ..good.clone() },
            TransportLimits { request_within: Duration::MAX, ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
