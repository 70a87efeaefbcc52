//! What both services need at run time and must do alike: time, tasks, workers, logs, data folders, the process itself,
//! TLS, transport, rates, and the journal from which both acknowledge small writes.
//!
//! A closed set, behind the `runtime` feature: two copies of these would drift, and a common crate would grow.

pub mod buckets;
pub mod clock;
pub mod failpoint;
pub mod folder;
pub mod journal;
pub mod process;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod transport;
pub mod worker;

pub use buckets::Buckets;
pub use clock::{Clock, ManualClock, SystemClock};
pub use tasks::TaskGroup;
