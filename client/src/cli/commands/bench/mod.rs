//! `bench`: how many operations and bytes per second, how long each takes, and what that costs in processor time and
//! memory.
//!
//! Objects are made from their numbers ([`content`]), so a get compares every byte with what must be there, on top of the
//! sums that the client library checks. Puts are durable when they count, as every put is. What it stored it deletes,
//! unless it is told to keep it; an operation that fails makes the whole run fail.

mod chance;
mod content;
mod flags;
mod listing;
mod mix;
mod objects;
mod operations;
mod phase;
mod ping;
mod process;
mod report;
mod runner;
mod scratch;
mod sizes;
mod stage;

pub(crate) use self::flags::Bench;

/// Blobs listed by one call: as many as there may be.
const PAGE_SIZE: u32 = 1000;
