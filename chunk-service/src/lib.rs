//! The chunk service of MiniTectonic-RS: one flat folder of checksummed files behind gRPC.
//!
//! It knows no tenants' names, no blobs and no users: a call brings a capability that the metadata service signed for one
//! operation on one chunk, and the node checks it in memory before it does anything else. What it promises with a
//! receipt is on the disk (I1); what it hands out has been verified (I2).
//!
//! ```text
//! grpc ── node ── write ─┐
//!           │            ├─ store: sessions, sink, durable, reading, leftover ── disk
//!           │      read ─┘
//!           └── time, identity, join, heartbeat, scrub ── metadata_link ──> the metadata service
//! ```
//!
//! [`start`] takes everything from outside and returns when the node is ready; [`Running`] is the handle to stop it.

mod background;
#[cfg(feature = "benching")]
#[doc(hidden)]
pub mod benching;
mod blocking;
pub mod config;
pub mod error;
mod fairness;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod heartbeat;
mod identity;
mod join;
mod metadata_link;
mod node;
pub mod offline;
mod pace;
mod places;
mod reaper;
mod running;
mod scrub;
mod settling;
mod starting;
mod store;
mod time;
mod write;

pub use config::{Config, Tuning};
pub use error::ChunkError;
pub use running::Running;
pub use starting::{Deps, start};
