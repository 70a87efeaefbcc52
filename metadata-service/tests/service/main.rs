//! The whole service over real sled and real sockets, spoken to by generated clients. The chunk service is played by the
//! tests: they register as a node, check the capabilities they get and sign receipts with the key they were given.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "these are tests: a panic is how they fail"
)]

mod audit;
mod authentication;
mod blobs;
mod classes;
mod damage;
mod lifecycle;
mod nodes;
mod tenants;
mod tls;
mod tokens;
mod uploads;
mod workers;
mod world;
