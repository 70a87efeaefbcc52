//! Storage engines and what the schema keeps in them.
//!
//! An engine ([`engine`]) is an ordered map of bytes; the schema is its [`keys`] and [`records`], and [`rows`] reads one
//! by the other.

#[cfg(test)]
mod conformance;
pub mod engine;
#[cfg(test)]
pub(crate) mod faulty;
pub mod feed;
pub mod keys;
pub mod memory;
pub mod records;
pub mod rows;
pub mod sled;
