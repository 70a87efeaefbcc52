//! Storage engines and what the schema keeps in them.

#[cfg(test)]
mod conformance;
pub mod engine;
#[cfg(test)]
pub(crate) mod faulty;
pub mod memory;
pub mod sled;
