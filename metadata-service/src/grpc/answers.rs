//! Answers into messages.

mod check;
mod cluster;
mod export;
mod tenants;
mod tokens;
mod uploads;

use prost_types::Timestamp;
use proto::pb;

pub(super) use self::export::ExportStream;
use crate::store::records::UsageRecord;

/// Makes a response of what a call returned.
pub(super) trait FromAnswer<A> {
    fn from_answer(answer: A) -> Self;
}

fn timestamp(ms: u64) -> Timestamp {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1000 * 1_000_000).expect("less than a second of nanoseconds fits");
    Timestamp { seconds, nanos }
}

fn usage(usage: UsageRecord) -> pb::Usage {
    let UsageRecord { used_bytes, used_blobs, reserved_bytes, reserved_blobs, retained_bytes, retained_blobs } = usage;
    pb::Usage { used_bytes, used_blobs, reserved_bytes, reserved_blobs, retained_bytes, retained_blobs }
}
