//! Uploads and downloads against both real services, over connections that break and services that stop.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests fail the test")]

mod cluster;
mod damage;
mod faults;
mod limits;
mod listing;
mod proxy;
mod sizes;
mod sources;
mod together;
