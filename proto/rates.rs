//! How fast a tenant may go.

use std::num::NonZeroU64;
use std::time::Duration;

/// How far ahead of its rate a tenant may be: what it saved while it did nothing.
pub const BURST: Duration = Duration::from_secs(1);
/// How long the streams of a tenant may have to wait for each other before no more of them are opened. Together with the
/// least rate of bytes it keeps each of them well within the time in which a stream must come on.
pub const BACKLOG: Duration = Duration::from_secs(5);
/// The least rate of bytes: a frame as it is written each second, or one as it is read every two.
pub const BYTES_PER_SECOND_MIN: u64 = crate::limits::FRAME_BYTES;

/// How fast a tenant may go. What is absent is not bounded. Requests are counted by the metadata service, requests and
/// bytes by each chunk service, each for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Calls to the metadata service, and calls to a chunk service.
    pub requests_per_second: Option<NonZeroU64>,
    /// Bytes that are read; at least [`BYTES_PER_SECOND_MIN`].
    pub read_bytes_per_second: Option<NonZeroU64>,
    /// Bytes that are written; at least [`BYTES_PER_SECOND_MIN`].
    pub write_bytes_per_second: Option<NonZeroU64>,
}

/// What one capability says of the rates: those that concern its operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// Calls.
    pub requests_per_second: Option<NonZeroU64>,
    /// Bytes in the direction of the operation.
    pub bytes_per_second: Option<NonZeroU64>,
}

impl Rates {
    /// What concerns a read.
    pub fn of_reads(&self) -> Pace {
        Pace { requests_per_second: self.requests_per_second, bytes_per_second: self.read_bytes_per_second }
    }

    /// What concerns a write.
    pub fn of_writes(&self) -> Pace {
        Pace { requests_per_second: self.requests_per_second, bytes_per_second: self.write_bytes_per_second }
    }
}
