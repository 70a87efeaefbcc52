//! Storage engines and what the schema keeps in them.

#[cfg(test)]
mod conformance;
pub mod engine;
pub mod memory;
pub mod sled;
