//! The whole chunk service over real sockets, with a protocol peer in the place of the metadata service whose every
//! answer a test decides.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "what a test does not expect ends it, and its files need no durability"
)]

mod basics;
mod folders;
mod frames;
mod harness;
mod inspection;
mod lifecycle;
mod peer;
mod permission;
mod process;
mod streams;
mod tls;
