//! Background work.

use super::Record;

/// How one kind of background work is to run; without a row it runs at its own pace and is not paused.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct WorkerRecord {
    /// It does nothing by itself.
    #[prost(bool, tag = "1")]
    pub paused: bool,
    /// Most units of work per second, 0 for no bound; `None` while nobody set it.
    #[prost(uint64, optional, tag = "2")]
    pub pace_per_second: Option<u64>,
    /// How often an operator had it run: nodes run when it grows.
    #[prost(uint64, tag = "3")]
    pub run_count: u64,
    /// When an operator last had it run, in milliseconds since 1970; 0 for never.
    #[prost(uint64, tag = "4")]
    pub run_ms: u64,
}

impl Record for WorkerRecord {
    type Raw = Self;
    const NAME: &'static str = "worker";

    fn to_raw(&self) -> Self {
        *self
    }

    fn from_raw(raw: Self) -> Option<Self> {
        Some(raw)
    }
}
