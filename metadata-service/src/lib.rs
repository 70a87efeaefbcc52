//! The Coordinator of MiniTectonic-RS: tenants, names, blocks and placement, durable in an ordered key-value engine.
//!
//! [`start`] takes everything from outside (settings, listener, clock, entropy) and returns when the service is ready;
//! [`Running`] is the service from then on. Inside, a call goes `grpc` → `service` → `coordinator` (pure) → `store`.

#[macro_use]
mod mistakes;

pub mod audit;
pub mod auth;
pub mod backup;
pub mod check;
pub mod config;
pub mod coordinator;
pub mod error;
#[cfg(test)]
mod figures;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod grpc;
pub mod mint;
pub mod nodes;
#[cfg(test)]
mod non_interference;
pub mod offline;
pub mod page_token;
pub mod placement;
mod running;
pub mod service;
pub mod storage;
pub mod store;
pub mod tokens;
pub mod workers;

pub use self::config::{Config, Tuning};
pub use self::error::{MetadataError, StartError};
pub use self::running::{Deps, Running, start};
