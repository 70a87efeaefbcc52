//! The Coordinator.

pub mod store;
