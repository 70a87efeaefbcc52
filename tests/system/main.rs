//! System tests: the real services over real sockets and folders, driven by the real client library, in one process.
//!
//! One binary for all of them: on small machines linking dominates. Every test ends with
//! [`Cluster::check`](cluster::Cluster::check), which looks at every invariant that can be seen from outside.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests may stop at the first surprise"
)]

// The package calls itself by its full name; its dependants, and these tests, call it `proto`.
extern crate mini_tectonic_proto as proto;

mod backup;
mod batches;
mod cluster;
mod contract;
mod damage;
mod fsck;
mod garbage;
mod isolation;
mod matrix;
mod orphans;
mod restarts;
mod rotation;
mod transfers;
mod versions;
mod wait;
